"""Which records are of what was seen in the world: the salts are tried here, and leave it never.

A look is bounded in what it reads and in what it hashes, and lets the loop have the interpreter
every few milliseconds: it runs in a thread beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec
import structlog

from keystead import limits
from keystead.encoding import DECODE_ERRORS
from keystead.errors import MalformedRequest
from keystead.keys.commands import FoundRecord, Reconciled, ReconcileRecords, SeenMessage, Tally
from keystead.keys.model import Key
from keystead.keys.operations import FRAMINGS
from keystead.ports import LogReader, RecordRow, RecordsQuery
from keystead.translog.entries import Draft, commitments, entry_of

__all__ = ["alert", "check_reconciled", "look", "tally_draft"]

_PAGE_ROWS = 1_000
_TRY_BYTES = 1024
"""What a try costs beside its message, in bytes hashed: most of it is the interpreter's."""
_TRIES_A_TURN = 1024
_NEAR = 4
"""Of the messages that are left, how many are tried on a record at first."""
_SEQ_MAX = 2**63 - 1

_log = structlog.get_logger("keystead.vault")


class _Claims(msgspec.Struct):
    """The members of a body that say what was signed."""

    key: str = ""
    version: int = 0
    outcome: str = ""
    signed: str = ""


_BODY = msgspec.json.Decoder(_Claims)


def check_reconciled(command: ReconcileRecords, key: Key) -> None:
    """Hold a command to its bounds before any work.

    Raises:
        MalformedRequest: numbers that no record has, half a window, or messages beside a tally.
        NotFound: no such version.
        LimitExceeded: too many messages.
    """
    if command.version:
        key.version(command.version)
    if command.tally is not None:
        counts = msgspec.structs.astuple(command.tally)
        if command.seen or not all(0 <= count <= limits.ARTEFACTS_MAX for count in counts):
            raise MalformedRequest(
                f"expected counts from 0 to {limits.ARTEFACTS_MAX}, and no messages beside them"
            )
        return
    if not 1 <= len(command.seen) <= limits.LOG_RECONCILE_ITEMS_MAX:
        raise MalformedRequest(
            f"expected 1 to {limits.LOG_RECONCILE_ITEMS_MAX} messages, met {len(command.seen)}"
        )
    before = 0 if command.before is None else command.before
    if not -1 <= command.after < _SEQ_MAX or not 0 <= before <= _SEQ_MAX:
        raise MalformedRequest("expected after and before as sequences of the log")
    for seen in command.seen:
        _check_window(seen)


def _check_window(seen: SeenMessage) -> None:
    if seen.since_ms is None and seen.until_ms is None:
        return
    since_ms, until_ms = seen.since_ms or 0, seen.until_ms or 0
    if seen.since_ms is None or not 0 <= since_ms < until_ms <= _SEQ_MAX:
        raise MalformedRequest("expected since_ms from 0, until_ms behind it, or neither")


def look(reader: LogReader, key: Key, command: ReconcileRecords) -> Reconciled:
    """Try the messages on a stretch of the key's records; call it in a thread.

    Raises:
        LogUnavailable: the store fails.
    """
    tries = _Tries(key, command.seen)
    reached, end, top = command.after, False, -1
    for _page in range(limits.LOG_RECONCILE_PAGES_MAX):
        page = reader.search(_query(key, command, reached))
        reached, end, top = page.reach.next, page.reach.end, page.reach.top
        in_order = tries.near(page.rows)
        if end or tries.done or (tries.enough and not in_order):
            break
    stopped = tries.all()
    if stopped is not None:
        reached, end = stopped, False
    return tries.told(reached, end=end, top=top)


def _query(key: Key, command: ReconcileRecords, after: int) -> RecordsQuery:
    windows = [(seen.since_ms, seen.until_ms) for seen in command.seen]
    since = [since for since, _ in windows if since is not None]
    until = [until for _, until in windows if until is not None]
    timed = len(since) == len(windows)
    purpose_operations = (name for purpose, name in FRAMINGS if purpose is key.purpose)
    return RecordsQuery(
        key_id=key.id,
        version=command.version or None,
        ops=tuple(f"{key.purpose!s}.{name}" for name in purpose_operations),
        outcome="ok",
        since_ms=min(since) if timed else None,
        until_ms=max(until) if timed else None,
        after=after,
        before=command.before,
        oldest_first=True,
        limit=_PAGE_ROWS,
    )


class _Message(msgspec.Struct, frozen=True):
    place: int
    data: bytes
    since_ms: int
    until_ms: int


class _Record(msgspec.Struct, frozen=True):
    row: RecordRow
    claims: _Claims
    commit: Callable[[bytes], str]


class _Tries:
    """The messages that no record was found of yet, and the records to try them on.

    Where messages come in the order of their records, as in a ledger and in most logs, each record
    is of one of the first few that are left: that is tried on all records before anything else.
    """

    def __init__(self, key: Key, seen: Iterable[SeenMessage]) -> None:
        self._key_id = key.id
        self._left = [
            _Message(
                place,
                one.message,
                0 if one.since_ms is None else one.since_ms,
                _SEQ_MAX if one.until_ms is None else one.until_ms,
            )
            for place, one in enumerate(seen)
        ]
        self._records: list[_Record] = []
        self._found: list[FoundRecord] = []
        self._forgotten: set[int] = set()
        self._bytes_left = limits.LOG_RECONCILE_HASHED_BYTES_MAX
        self._turn = 0

    @property
    def done(self) -> bool:
        """Whether nothing is left to look for."""
        return not self._left

    def told(self, reached: int, *, end: bool, top: int) -> Reconciled:
        """What was found until the sequence ``reached``."""
        left = {one.place for one in self._left}
        return Reconciled(
            found=tuple(self._found),
            forgotten=tuple(sorted(self._forgotten & left)),
            next=reached,
            end=end or self.done,
            top=top,
        )

    @property
    def enough(self) -> bool:
        """Whether the records that are left are more than all messages can be tried on."""
        return len(self._records) * len(self._left) * _TRY_BYTES > self._bytes_left

    def near(self, rows: Iterable[RecordRow]) -> bool:
        """Take records, and try on each the few that it is of if all is in order; if it is."""
        before = len(self._found)
        for row in rows:
            if row.salt is None or row.body is None:
                at_ms = row.time_ms
                self._forgotten.update(
                    one.place for one in self._left if one.since_ms <= at_ms < one.until_ms
                )
                continue
            record = _Record(row, _claims(row.body), commitments(row.salt))
            if not record.claims.signed:
                continue
            near = self._bytes_left > limits.LOG_RECONCILE_HASHED_BYTES_MAX // 2
            if not (near and self._try(record, _NEAR)):
                self._records.append(record)
        return len(self._found) > before

    def all(self) -> int | None:
        """Try everything on the records that are left; if it is too much, up to which sequence.

        On one record at least, so that whoever goes on behind it comes to an end.
        """
        tried_to: int | None = None
        for record in self._records:
            if not self._left:
                break
            if tried_to is not None and self._bytes_left <= 0:
                return tried_to
            self._try(record, len(self._left))
            tried_to = record.row.seq
        return None

    def _try(self, record: _Record, most: int) -> bool:
        at_ms, tried = record.row.time_ms, 0
        for index, one in enumerate(self._left):
            if not one.since_ms <= at_ms < one.until_ms:
                continue
            self._spend(len(one.data))
            if record.commit(one.data) == record.claims.signed:
                if self._is_sound(record.row, record.claims):
                    self._found.append(FoundRecord(one.place, record.row.seq))
                    self._left = self._left[index + 1 :] + self._left[:index]
                return True
            tried += 1
            if tried >= most:
                break
        return False

    def _is_sound(self, row: RecordRow, claims: _Claims) -> bool:
        """Whether the body is what its entry stands for, and its columns what it says.

        One that was altered must not clear a stolen key: `log fsck` tells of it.
        """
        same = (claims.key, claims.version, claims.outcome) == (self._key_id, row.version, "ok")
        return same and entry_of(row.salt or b"", row.body or b"") == row.entry

    def _spend(self, message_bytes: int) -> None:
        self._bytes_left -= _TRY_BYTES + message_bytes
        self._turn += 1
        if self._turn % _TRIES_A_TURN == 0:
            time.sleep(0)  # the loop may wait for the interpreter


def _claims(body: bytes) -> _Claims:
    try:
        return _BODY.decode(body)
    except DECODE_ERRORS:
        return _Claims()


# --- what came of it -----------------------------------------------------------------------------


def tally_draft(draft: Draft, tally: Tally, key: Key, version: int) -> Draft:
    """The record of what came of a run, for one version of a key."""
    return msgspec.structs.replace(
        draft,
        key=key.id,
        name=key.name,
        version=version,
        count=tally.unrecorded,
        detail=f"of artefacts met that verify under it, {tally.unrecorded} have no record,"
        f" {tally.recorded} have one, {tally.forgotten} may have had one",
    )


def alert(draft: Draft) -> None:
    """Tell whoever watches the vault's own log: somebody signs past this node."""
    _log.error(
        "reconcile_unrecorded",
        key=draft.name,
        version=draft.version,
        unrecorded=draft.count,
        principal=draft.principal,
        request=draft.request,
    )
