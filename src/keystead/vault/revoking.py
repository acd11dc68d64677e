"""What stops keys and handles, as changes: one commit each, however many keys it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from keystead.errors import Conflict, NotFound
from keystead.keys.administration import check_reason, moved, new_generation
from keystead.keys.commands import MoveVersion, RevokedLink, RevokeHandle, RevokeKeyHandles
from keystead.keys.emergency import Emergency, ended, stopped
from keystead.keys.lifecycle import Move
from keystead.keys.model import Key, Principal
from keystead.keys.purposes import Purpose
from keystead.keys.reservations import BOUND_MS
from keystead.keys.revoking import (
    Stopped,
    check_choice,
    check_link,
    check_some,
    chosen,
    is_link,
    stop,
    stopped_key,
    words,
)
from keystead.keys.rollout.table import Asked, Wish
from keystead.keys.standing import EVERYTHING, is_stopped
from keystead.keys.stops import (
    BestEffort,
    EmergencyEnd,
    EmergencyInfo,
    EmergencyStop,
    Fence,
    Revoke,
    Revoked,
)
from keystead.ports import Guard, ObjectRow, Registry, Transaction
from keystead.translog.entries import Draft
from keystead.vault.authority import Revocation, Snapshot, key_row, object_row, rotation_row
from keystead.vault.committer import Applied
from keystead.vault.describe import key_info
from keystead.vault.macs import VaultSecrets

__all__ = [
    "Halt",
    "Revoking",
    "StopCommand",
    "emergency_info",
    "halt",
    "stopped_by",
    "timed",
    "unread",
]

StopCommand = MoveVersion | RevokeHandle | RevokeKeyHandles | Revoke | EmergencyStop | EmergencyEnd
_STARTING = frozenset({Move.ACTIVATE, Move.RESUME})
Apply = Callable[[Transaction, Snapshot, int, int], Applied]


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a change that stops something: what it is answered with, and which keys.

    ``key_ids``: of keys whose best-effort uses it may take away: the answer waits for these.
    ``best_effort``: whether one of them answers before its record.
    """

    value: object
    key_ids: frozenset[str]
    best_effort: bool


class Revoking:
    """Changes that stop. ``apply`` checks on the loop; what it gives runs in the commit."""

    def __init__(
        self, *, node: str, guard: Guard, secrets: VaultSecrets, registry: Registry
    ) -> None:
        self._node = node
        self._guard = guard
        self._secrets = secrets
        self._registry = registry

    def apply(self, command: StopCommand, draft: Draft, by: Principal, now_ms: int) -> Apply:
        """The change that a command asks for; ``draft``: its record, as far as it is known.

        Raises:
            MalformedRequest: no reason, or not one way of choosing. NotFound: no such handle.
        """
        check_reason(command.reason)
        draft = msgspec.structs.replace(draft, reason=command.reason)
        match command:
            case MoveVersion():
                return self._move(command, draft)
            case RevokeKeyHandles():
                return self._generation(command, draft)
            case RevokeHandle():
                check_link(command.link)
                return self._link(command.link, draft, RevokedLink(revoked=command.link))
            case Revoke():
                check_choice(command)
                if command.handle is not None:
                    return self._handle(command.handle, draft)
                return self._many(command, draft, by, now_ms)
            case EmergencyStop() | EmergencyEnd():
                return self._emergency(command, draft, by, now_ms)

    # --- one key, one handle -----------------------------------------------------------------

    def _move(self, command: MoveVersion, draft: Draft) -> Apply:
        def apply(tx: Transaction, snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
            before = snapshot.named(command.name)
            after, versions = moved(before, command, epoch=epoch)
            if command.move is Move.DESTROY:
                for number in versions:
                    tx.put_material(after.id, number, None)
            detail = f"{command.move} version {', '.join(map(str, versions))}"
            return self._one(before, after, draft, detail, starts=command.move in _STARTING)

        return apply

    def _generation(self, command: RevokeKeyHandles, draft: Draft) -> Apply:
        def apply(_tx: Transaction, snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
            before = snapshot.named(command.key)
            return self._one(before, new_generation(before, epoch=epoch), draft, "")

        return apply

    def _one(
        self, before: Key, after: Key, draft: Draft, detail: str, *, starts: bool = False
    ) -> Applied:
        return Applied(
            rows=((key_row(after, self._secrets), before.revision),),
            drafts=(_of_key(draft, after, detail),),
            value=halt(key_info(after), () if starts else (after,)),
        )

    def _handle(self, named: str, draft: Draft) -> Apply:
        if is_link(named):
            return self._link(named, draft, None)
        row = self._registry.handle(named)
        if row is None:
            raise NotFound(
                f"no handle {named} was issued",
                hint="`keystead handle inspect` shows a handle's id and its link's",
            )
        self._secrets.check_handle(row)
        described = msgspec.structs.replace(
            draft, handle=named, key=row.key_id, tenant=row.tenant, detail=f"of {row.principal}"
        )
        return self._link(named, described, None, row.key_id)

    def _link(self, named: str, draft: Draft, told: object, key_id: str = "") -> Apply:
        """Revoke a link, or a handle by its own id; ``told``: the answer, if not the common one."""

        def apply(_tx: Transaction, snapshot: Snapshot, epoch: int, seq: int) -> Applied:
            if named in snapshot.revoked:
                what = "link" if is_link(named) else "handle"
                raise Conflict(f"the {what} is revoked already")
            revocation = Revocation(link=named, reason=draft.reason, revision=1)
            row = self._row("revocation", named, 1, epoch, revocation)
            link = named if is_link(named) else draft.link
            key = snapshot.keys.get(key_id)
            described = msgspec.structs.replace(
                draft,
                link=link,
                name=key.name if key else "",
                purpose=str(key.purpose) if key else "",
            )
            # A link does not say of which key it is: any could be meant.
            about = tuple(snapshot.keys.values()) if key is None else (key,)
            value = told or Revoked(what="handles", revoked=named, fence=self._fence(seq, epoch))
            return Applied(rows=((row, 0),), drafts=(described,), value=halt(value, about))

        return apply

    # --- many keys ---------------------------------------------------------------------------

    def _many(self, command: Revoke, draft: Draft, by: Principal, now_ms: int) -> Apply:
        def apply(_tx: Transaction, snapshot: Snapshot, epoch: int, seq: int) -> Applied:
            if command.key is not None:
                snapshot.named(command.key)  # says best why it cannot be had
            keys = chosen(command, snapshot.keys.values())
            for key in keys:
                self._guard.decide(by, draft.op, key)
            asked = Asked(
                wish=Wish.PAUSE, now_ms=now_ms, epoch=epoch, by=by.name, reason=command.reason
            )
            decided = [
                (key, stop(command, key, snapshot.rotations.get(key.id), asked)) for key in keys
            ]
            stops = [(before, after) for before, after in decided if after is not None]
            check_some(command, [after for _, after in stops])
            return self._stopped(command, stops, snapshot, draft, self._fence(seq, epoch))

        return apply

    def _stopped(
        self,
        command: Revoke,
        stops: list[tuple[Key, Stopped]],
        snapshot: Snapshot,
        draft: Draft,
        fence: Fence,
    ) -> Applied:
        rows: list[tuple[ObjectRow, int]] = []
        for before, after in stops:
            rows.append((key_row(after.key, self._secrets), before.revision))
            if after.rotation is not None:
                earlier = snapshot.rotations[before.id].revision
                rows.append((rotation_row(after.rotation, before.name, self._secrets), earlier))
        value = Revoked(
            what=command.what,
            fence=fence,
            keys=tuple(
                stopped_key(after.key, after.versions, paused=after.paused) for _, after in stops
            ),
            unread=() if command.key is not None else unread(snapshot),
        )
        return Applied(
            rows=tuple(rows),
            drafts=tuple(_of_key(draft, after.key, words(command, after)) for _, after in stops),
            value=halt(value, tuple(after.key for _, after in stops)),
        )

    # --- emergencies -------------------------------------------------------------------------

    def _emergency(
        self, command: EmergencyStop | EmergencyEnd, draft: Draft, by: Principal, now_ms: int
    ) -> Apply:
        tenant = EVERYTHING if command.tenant is None else command.tenant

        def apply(_tx: Transaction, snapshot: Snapshot, epoch: int, seq: int) -> Applied:
            before = snapshot.emergencies.get(tenant)
            if isinstance(command, EmergencyStop):
                after = stopped(before, command, by=by.name, now_ms=now_ms)
            else:
                after = ended(before, command, by=by.name, now_ms=now_ms)
            row = self._row("emergency", tenant, after.revision, epoch, after)
            keys = tuple(stopped_by(tenant, snapshot.keys.values()))
            of = "all tenants" if tenant == EVERYTHING else f"tenant {tenant}"
            described = msgspec.structs.replace(
                draft,
                tenant="" if tenant == EVERYTHING else tenant,
                revision=after.revision,
                count=len(keys),
                detail=f"{'stopped' if after.stopped else 'ended'}: {of}, {len(keys)} keys",
            )
            told = msgspec.structs.replace(
                emergency_info(after, len(keys)), fence=self._fence(seq, epoch)
            )
            about = keys if after.stopped else ()
            return Applied(
                rows=((row, after.revision - 1),), drafts=(described,), value=halt(told, about)
            )

        return apply

    def _row(self, kind: str, row_id: str, revision: int, epoch: int, doc: object) -> ObjectRow:
        return object_row(
            kind,
            row_id,
            name=row_id,
            revision=revision,
            epoch=epoch,
            doc=doc,
            secrets=self._secrets,
        )

    def _fence(self, seq: int, epoch: int) -> Fence:
        return Fence(node=self._node, seq=seq, epoch=epoch)


def timed(halt: Halt, *, commit_ms: float, ended_ms: int) -> object:
    """The answer of a stop with both its figures, where it tells them."""
    value = halt.value
    if not isinstance(value, Revoked | EmergencyInfo) or value.fence is None:
        return value
    told = BestEffort(bound_ms=BOUND_MS, ended_ms=ended_ms)
    return msgspec.structs.replace(
        value,
        fence=msgspec.structs.replace(value.fence, commit_ms=commit_ms),
        best_effort=told if halt.best_effort or ended_ms else None,
    )


def emergency_info(emergency: Emergency, keys: int) -> EmergencyInfo:
    """A stop as it is told; ``keys``: how many it is about."""
    return EmergencyInfo(
        tenant=emergency.tenant,
        stopped=emergency.stopped,
        since_ms=emergency.since_ms,
        by=emergency.by,
        reason=emergency.reason,
        keys=keys,
    )


def stopped_by(tenant: str, keys: Iterable[Key]) -> Iterator[Key]:
    """The keys that a stop is about; those of nodes' own logs sign on."""
    for key in keys:
        if key.purpose is not Purpose.AUDIT and is_stopped(key.tenant, frozenset({tenant})):
            yield key


def unread(snapshot: Snapshot) -> tuple[str, ...]:
    """Names of keys that a newer Keystead wrote: nobody here knows whether they are meant."""
    return tuple(sorted(name for name, at in snapshot.names.items() if at in snapshot.foreign))


def halt(value: object, about: tuple[Key, ...]) -> Halt:
    """What is answered, and which keys it takes something from."""
    return Halt(
        value=value,
        key_ids=frozenset(key.id for key in about),
        best_effort=any(key.policy.ack == "best_effort" for key in about),
    )


def _of_key(draft: Draft, key: Key, detail: str) -> Draft:
    return msgspec.structs.replace(
        draft,
        key=key.id,
        name=key.name,
        revision=key.revision,
        purpose=str(key.purpose),
        tenant=key.tenant,
        detail=detail,
    )
