"""What was in force when: revisions of keys, plans and budgets, and the evidence of a rollout.

All of it is read in a thread, off the loop. Each revision bears the MAC that its row had, and the
record of its change commits to it, so that neither can be altered without the other telling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from keystead import limits
from keystead.encoding import DECODE_ERRORS
from keystead.errors import MalformedRequest, NotFound
from keystead.keys.model import Key
from keystead.keys.rollout.commands import (
    EvidenceInfo,
    HistoryEntry,
    HistoryPage,
    ListHistory,
    ReportInfo,
)
from keystead.keys.rollout.history import differences_of
from keystead.keys.rollout.model import Rollout, Rotation
from keystead.ports import HistoryQuery, HistoryRow, LogReader, ObjectRow
from keystead.translog.entries import Body, decode_body
from keystead.vault.macs import VaultSecrets

__all__ = ["Histories"]

_KINDS = ("key", "rotation", "tenant", "revocation", "emergency", "credential")
_SECRET_FIELDS = {"credential": ("token_sha256",)}
_ROWS_OF_A_CHANGE_MAX = 8
_ROWS_OF_A_REVOCATION_MAX = 2 * limits.REVOKE_KEYS_MAX
"""Of all that changes many keys at once: a key and its rollout each."""
_NUMBER_MAX = 2**63 - 1  # what a database can count to
_REVISIONS_MAX = 10_000
"""Revisions of one object that are looked through for the evidence of a rollout."""


class Histories:
    """Its methods read only, and are called in a thread."""

    def __init__(self, reader: LogReader, secrets: VaultSecrets) -> None:
        self._reader = reader
        self._secrets = secrets

    def page(self, command: ListHistory, key_id: str | None) -> Callable[[], HistoryPage]:
        """What reads one page; ``key_id``: of the object that is asked for by name.

        Raises:
            MalformedRequest: an unknown kind, two points at once, or a limit out of bounds.
        """
        if command.kind is not None and command.kind not in _KINDS:
            raise MalformedRequest(f"expected a kind out of {', '.join(_KINDS)}")
        if command.at_seq is not None and command.at_ms is not None:
            raise MalformedRequest("expected at_seq or at_ms, met both")
        for number in (command.at_seq, command.at_ms, command.before):
            if number is not None and not 0 <= number <= _NUMBER_MAX:
                raise MalformedRequest(
                    f"expected a record, time or epoch from 0 to 2^63 - 1, met {number}"
                )
        if not 1 <= command.limit <= limits.LIST_ITEMS_MAX:
            raise MalformedRequest(
                f"expected a limit from 1 to {limits.LIST_ITEMS_MAX}, met {command.limit}"
            )
        query = HistoryQuery(
            kind=command.kind,
            object_id=key_id if key_id is not None else command.name,
            at_seq=command.at_seq,
            at_ms=command.at_ms,
            before_epoch=command.before,
            limit=command.limit + _ROWS_OF_A_CHANGE_MAX + 1,
        )

        def read() -> HistoryPage:
            found = self._reader.history(query)
            if len(found) == query.limit and found[-1].epoch == found[command.limit - 1].epoch:
                most = command.limit + _ROWS_OF_A_REVOCATION_MAX + 1
                found = self._reader.history(msgspec.structs.replace(query, limit=most))
            rows = _within_bytes(found[: command.limit])
            # One change writes rows of one epoch: a page never ends between them.
            of_it = [row for row in found[len(rows) :] if row.epoch == rows[-1].epoch]
            rows += _within_bytes(of_it) if of_it else []
            return HistoryPage(
                entries=self._entries(rows),
                next=rows[-1].epoch if rows else 0,
                end=len(found) == len(rows),
            )

        return read

    def evidence(
        self,
        key: Key,
        rotation: Rotation,
        number: int,
        reports: Iterable[ReportInfo],
        acknowledged: Iterable[str],
    ) -> Callable[[], EvidenceInfo]:
        """What reads all that one rollout was decided on."""

        def read() -> EvidenceInfo:
            rows = self._all("rotation", key.id)
            rollout = _rollout(rotation, rows, number)
            last = rollout.steps[-1].epoch
            first = rollout.steps[0].epoch
            of_it = [row for row in rows if first <= row.epoch <= last]
            of_it += [row for row in self._all("key", key.id) if first <= row.epoch <= last]
            of_it.sort(key=lambda row: (row.epoch, row.kind), reverse=True)
            of_it = _within_bytes(of_it)[::-1]  # the last ones, if they are too many for a frame
            seqs = {row.seq for row in of_it if row.seq >= 0} | {said.seq for said in reports}
            return EvidenceInfo(
                key=key.name,
                purpose=str(key.purpose),
                rollout=rollout,
                reports=tuple(reports),
                acknowledged=tuple(sorted(acknowledged)),
                revisions=self._entries(of_it),
                records=tuple(sorted(seqs)),
            )

        return read

    def _all(self, kind: str, object_id: str) -> list[HistoryRow]:
        query = HistoryQuery(kind=kind, object_id=object_id, limit=_REVISIONS_MAX)
        return self._reader.history(query)

    def _entries(self, rows: Iterable[HistoryRow]) -> tuple[HistoryEntry, ...]:
        return tuple(map(self._entry, rows))

    def _entry(self, row: HistoryRow) -> HistoryEntry:
        """One revision, held to its MAC, beside the one before it and the one after.

        Raises:
            StateRolledBack: it was altered.
        """
        self._secrets.check_object(
            ObjectRow(row.kind, row.id, row.name, row.revision, row.epoch, row.doc, row.mac)
        )
        before = self._revision(row, row.revision - 1)
        after = self._revision(row, row.revision + 1)
        body = self._body(row.seq)
        return HistoryEntry(
            kind=row.kind,
            id=row.id,
            name=row.name,
            revision=row.revision,
            epoch=row.epoch,
            seq=row.seq,
            time_ms=row.time_ms,
            doc=_shown(row),
            differences=() if before is None else differences_of(row.kind, before.doc, row.doc),
            until_seq=-1 if after is None else after.seq,
            action="" if body is None else body.op,
            principal="" if body is None else body.principal,
            reason="" if body is None else body.reason,
        )

    def _revision(self, row: HistoryRow, number: int) -> HistoryRow | None:
        query = HistoryQuery(kind=row.kind, object_id=row.id, revision=number, limit=1)
        found = self._reader.history(query)
        return found[0] if found else None

    def _body(self, seq: int) -> Body | None:
        row = None if seq < 0 else self._reader.record(seq)
        return None if row is None or row.body is None else decode_body(row.body)


def _shown(row: HistoryRow) -> dict[str, Any]:
    """A document as whoever may search the log sees it: without what a secret is known by."""
    document: dict[str, Any] = msgspec.msgpack.decode(row.doc)
    for field in _SECRET_FIELDS.get(row.kind, ()):
        document.pop(field, None)
    return document


def _rollout(rotation: Rotation, rows: list[HistoryRow], number: int) -> Rollout:
    """The rollout of a number, as it stood last.

    Raises:
        NotFound: the key had none of that number.
    """
    held = rotation.rollout
    if held is not None and held.number == number:
        return held
    for row in rows:
        try:
            held = msgspec.msgpack.decode(row.doc, type=Rotation).rollout
        except DECODE_ERRORS:
            continue  # of a newer Keystead
        if held is not None and held.number == number:
            return held
    raise NotFound(f"the key had no rollout {number}", hint="`keystead key status` shows the last")


def _within_bytes(rows: list[HistoryRow]) -> list[HistoryRow]:
    """As many of the first ones as fit into an answer; one always does."""
    left = limits.LOG_PAGE_BYTES_MAX
    for count, row in enumerate(rows):
        left -= len(row.doc)
        if left < 0:
            return rows[: max(1, count)]
    return rows
