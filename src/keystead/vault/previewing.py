"""A dry run of a revocation: what would stop, and how often it was used, by the logs of all nodes.

Keys and handles are read on the loop, a bounded page at a time; uses are counted in a thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from keystead import limits
from keystead.errors import MalformedRequest, NotFound
from keystead.keys.model import Key
from keystead.keys.purposes import PURPOSES
from keystead.keys.revoking import check_choice, chosen, is_link, stop, stopped_key
from keystead.keys.rollout.table import Asked, Wish
from keystead.keys.stops import (
    EmergencyList,
    Previewed,
    PreviewRevoke,
    StoppedHandle,
    StoppedKey,
)
from keystead.ports import Clock, HandleRow, LogReader, RecordsQuery, Registry
from keystead.vault.authority import Snapshot
from keystead.vault.macs import VaultSecrets
from keystead.vault.revoking import emergency_info, stopped_by, unread
from keystead.vault.standing import Standing

__all__ = ["Previews"]


class _Found(msgspec.Struct, frozen=True):
    """A key as it would be stopped, its purpose's operations, and the handles that are shown."""

    told: StoppedKey
    ops: tuple[str, ...]
    handles: tuple[StoppedHandle, ...]


class Previews:
    """Its methods run on the loop; what :meth:`page` gives is called in a thread."""

    def __init__(
        self,
        *,
        standing: Standing,
        registry: Registry,
        reader: LogReader,
        secrets: VaultSecrets,
        clock: Clock,
    ) -> None:
        self._standing = standing
        self._registry = registry
        self._reader = reader
        self._secrets = secrets
        self._clock = clock

    def emergencies(self) -> EmergencyList:
        """The stops that are in force."""
        snapshot = self._standing.snapshot
        in_force = (stop for _, stop in sorted(snapshot.emergencies.items()) if stop.stopped)
        return EmergencyList(
            stops=tuple(
                emergency_info(
                    stop, sum(1 for _ in stopped_by(stop.tenant, snapshot.keys.values()))
                )
                for stop in in_force
            )
        )

    def page(self, command: PreviewRevoke) -> Callable[[], Previewed]:
        """What counts the uses of one page, which is read now.

        Raises:
            MalformedRequest: not one way of choosing. NotFound: nothing is of it.
            KeyStateError: a version that cannot become so. LimitExceeded: too many keys.
            LogUnavailable: the store does not answer.
        """
        check_choice(command)
        now_ms, snapshot = self._clock.now_ms(), self._standing.snapshot
        since_ms = now_ms - limits.REVOKE_USED_MS
        if command.handle is not None:
            return self._of_handle(command, command.handle, snapshot, since_ms)
        if command.key is not None:
            snapshot.named(command.key)  # says best why it cannot be had
        keys = chosen(command, snapshot.keys.values())
        following = [key for key in keys if key.name > command.after]
        asked = Asked(wish=Wish.PAUSE, now_ms=now_ms, epoch=snapshot.epoch + 1, reason="dry run")
        found: list[_Found] = []
        room = limits.LIST_ITEMS_MAX
        for key in following[: limits.REVOKE_KEYS_A_PAGE]:
            after = stop(command, key, snapshot.rotations.get(key.id), asked)
            versions = () if after is None else after.versions
            paused = 0 if after is None else after.paused
            told = stopped_key(key, versions, paused=paused)
            handles, more = self._handles(key, command, snapshot)
            room -= len(handles)
            if room < 0 and found:
                break
            told = msgspec.structs.replace(told, handles=len(handles), more_handles=more)
            found.append(_Found(told, _operations(key), handles))
        page = Previewed(
            keys=(),
            handles=(),
            keys_in_all=len(keys),
            since_ms=since_ms,
            logs=(),
            unread=() if command.key is not None else unread(snapshot),
            next=found[-1].told.name if found else "",
            end=len(found) == len(following),
        )
        return lambda: self._counted(page, found)

    def _of_handle(
        self, command: PreviewRevoke, named: str, snapshot: Snapshot, since_ms: int
    ) -> Callable[[], Previewed]:
        """One handle by its id; of a link nobody knows whose it is, before it is used."""
        if is_link(named):
            raise MalformedRequest(
                "a link's id does not tell of which handle it is: its uses cannot be counted",
                hint="Name the handle by its own id, h...; the record of a use shows both",
            )
        row = self._registry.handle(named)
        if row is None:
            raise NotFound(f"no handle {named} was issued")
        key = snapshot.key(row.key_id)
        handle = self._handle(row, key, snapshot)
        told = msgspec.structs.replace(stopped_key(key, ()), handles=1)
        found = [_Found(told, _operations(key), (handle,))]
        page = Previewed(keys=(), handles=(), keys_in_all=1, since_ms=since_ms, logs=())
        return lambda: self._counted(page, found, handle_id=command.handle)

    def _handles(
        self, key: Key, command: PreviewRevoke, snapshot: Snapshot
    ) -> tuple[tuple[StoppedHandle, ...], bool]:
        after = command.handles_after if command.key is not None else ""
        rows = self._registry.handles_of(key.id, after, limits.REVOKE_HANDLES_A_KEY + 1)
        shown = rows[: limits.REVOKE_HANDLES_A_KEY]
        return tuple(self._handle(row, key, snapshot) for row in shown), len(rows) > len(shown)

    def _handle(self, row: HandleRow, key: Key, snapshot: Snapshot) -> StoppedHandle:
        self._secrets.check_handle(row)
        return StoppedHandle(
            id=row.id,
            key=key.name,
            principal=row.principal,
            issued_ms=row.issued_ms,
            uses=0,
            revoked=row.id in snapshot.revoked,
        )

    # --- in a thread -------------------------------------------------------------------------

    def _counted(
        self, page: Previewed, found: Iterable[_Found], *, handle_id: str | None = None
    ) -> Previewed:
        """The page with the uses of each key and handle, by all logs that there are.

        Raises:
            LogUnavailable: the store fails.
        """
        logs = {self._standing.node: self._reader, **self._reader.others()}
        keys: list[StoppedKey] = []
        handles: list[StoppedHandle] = []
        looks = limits.REVOKE_LOOKS_A_PAGE
        for one in found:
            counts: Counter[str] = Counter()
            more = False
            for reader in logs.values():
                query = RecordsQuery(
                    key_id=one.told.id,
                    handle_id=handle_id,
                    ops=one.ops,
                    outcome="ok",
                    since_ms=page.since_ms,
                )
                looks, cut = _count(reader, query, counts, looks)
                more = more or cut
            keys.append(msgspec.structs.replace(one.told, uses=counts.total(), more_uses=more))
            handles.extend(
                msgspec.structs.replace(handle, uses=counts[handle.id]) for handle in one.handles
            )
        return msgspec.structs.replace(
            page, keys=tuple(keys), handles=tuple(handles), logs=tuple(sorted(logs))
        )


def _count(
    reader: LogReader, query: RecordsQuery, counts: Counter[str], looks: int
) -> tuple[int, bool]:
    """Count uses by handle in so many looks at most; how many are left, and whether it is cut."""
    while looks > 0:
        looks -= 1
        found = reader.count(query, "handle")
        counts.update(found.counts)
        if found.reach.end:
            return looks, False
        query = msgspec.structs.replace(query, before=found.reach.next)
    return looks, True


def _operations(key: Key) -> tuple[str, ...]:
    """What records call the uses of a key: its changes are not counted."""
    return tuple(f"{key.purpose!s}.{name}" for name in PURPOSES[key.purpose].operations)
