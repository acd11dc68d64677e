"""The log for those who read it: searches beside the loop, disclosures, and forgetting.

Searches run in threads of their own on connections of their own. What is disclosed or forgotten is
an entry itself: of a disclosure before its answer, of a batch of forgetting in its own commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import msgspec

from keystead import limits
from keystead.errors import (
    ApprovalRequired,
    InvariantViolation,
    KeysteadError,
    MalformedRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
)
from keystead.keys.administration import check_reason
from keystead.keys.commands import (
    CountRecords,
    Disclosed,
    DiscloseRecord,
    ForgetRecords,
    Forgotten,
    ListRecords,
    LogCounts,
    LogPage,
    Reconciled,
    ReconcileRecords,
)
from keystead.keys.forgetting import FORGETTABLE, Ranges, chunks, merged, ranges_of, read_ranges
from keystead.keys.model import Key, Principal, check_name
from keystead.ports import (
    Clock,
    Guard,
    Journal,
    LogReader,
    RecordRow,
    RecordsChoice,
    RecordsCount,
    RecordsPage,
    RecordsQuery,
    Transaction,
)
from keystead.translog.entries import Draft, decode_body, entry_of
from keystead.vault.authority import Snapshot
from keystead.vault.committer import Applied, Change, Committed, Committer
from keystead.vault.describe import record_info
from keystead.vault.faults import fault
from keystead.vault.reconciling import alert, check_reconciled, look, tally_draft
from keystead.vault.standing import Standing

__all__ = ["Inquiry", "Logbook", "forget_again"]

_SEQ_MAX = 2**63 - 1
_TEXT_BYTES_MAX = 256
"""What a record is searched by: names, ids and codes are shorter."""
_FORGET_OP = "log.forget"
_PAGE = 500

T = TypeVar("T")
LogCommand = ListRecords | CountRecords | DiscloseRecord | ForgetRecords | ReconcileRecords


class Inquiry(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, the record of what they ask, and where the answer goes: one of two, once."""

    principal: Principal
    target: Key | None
    draft: Draft
    done: Callable[[object, Committed | None], None]
    refuse: Callable[[KeysteadError], None]


class Logbook:
    """All methods run on the loop."""

    def __init__(
        self,
        *,
        reader: LogReader,
        standing: Standing,
        guard: Guard,
        committer: Committer,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._reader = reader
        self._standing = standing
        self._guard = guard
        self._committer = committer
        self._clock = clock
        self._loop = loop
        self._under_way = 0
        self._closed = False
        self._executor = ThreadPoolExecutor(
            limits.LOG_SEARCH_THREADS, thread_name_prefix="log-search"
        )

    def begin(self, command: LogCommand, inquiry: Inquiry) -> None:
        """Do one command, which the guard allows; the answer comes now or later.

        Raises:
            MalformedRequest: it names no records that can be.
            Overloaded: too many searches are under way.
        """
        match command:
            case ListRecords():
                self._search(command, inquiry)
            case CountRecords():
                query = _query(command, inquiry.target)
                self._read(
                    partial(self._reader.count, query, command.by),
                    partial(self._counted, command, inquiry),
                    inquiry,
                )
            case DiscloseRecord():
                self._disclose(command, inquiry)
            case ForgetRecords():
                self._forget(command, inquiry)
            case ReconcileRecords():
                self._reconcile(command, inquiry)

    def look(self, read: Callable[[], object], inquiry: Inquiry) -> None:
        """Answer with what is read in a thread, within the same bounds as any search.

        Raises:
            Overloaded: too many searches are under way.
        """
        self._read(read, lambda found: inquiry.done(found, None), inquiry)

    def close(self) -> None:
        """End the searches that run; those that wait get no answer."""
        self._closed = True
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _read(
        self,
        look: Callable[[], T],
        then: Callable[[T], None],
        inquiry: Inquiry,
        *,
        always: bool = False,
    ) -> None:
        """Look in a thread, and go on with what was found.

        ``always``: however many do so, for what has begun; a node that ends refuses even that.
        """
        if self._closed or (self._under_way >= limits.LOG_SEARCHES_MAX and not always):
            refusal = Overloaded(
                "the node is ending"
                if self._closed
                else f"{limits.LOG_SEARCHES_MAX} searches of the log are under way",
                retry_after_s=1.0,
            )
            if not always:
                raise refusal
            inquiry.refuse(refusal)
            return
        self._under_way += 1
        future = self._loop.run_in_executor(self._executor, look)
        future.add_done_callback(partial(self._looked, then, inquiry))

    def _looked(
        self, then: Callable[[T], None], inquiry: Inquiry, future: asyncio.Future[T]
    ) -> None:
        self._under_way -= 1
        if future.cancelled():
            return
        try:
            then(future.result())
        except KeysteadError as refusal:
            inquiry.refuse(refusal)
        except Exception as exc:  # noqa: BLE001  a fault of ours is answered too
            inquiry.refuse(fault(exc))

    # --- searching ---------------------------------------------------------------------------

    def _search(self, command: ListRecords, inquiry: Inquiry) -> None:
        if not 1 <= command.limit <= limits.LIST_ITEMS_MAX:
            raise MalformedRequest(
                f"expected a limit from 1 to {limits.LIST_ITEMS_MAX}, met {command.limit}"
            )
        query = msgspec.structs.replace(
            _query(command, inquiry.target),
            oldest_first=command.oldest_first,
            limit=command.limit,
        )
        with_bodies = self._may_disclose(inquiry)
        self._read(
            partial(self._reader.search, query),
            partial(self._found, inquiry, with_bodies),
            inquiry,
        )

    def _may_disclose(self, inquiry: Inquiry) -> bool:
        try:
            self._guard.decide(inquiry.principal, "log.disclose", inquiry.target)
        except (PermissionDenied, ApprovalRequired):
            return False
        return True

    def _found(self, inquiry: Inquiry, with_bodies: bool, page: RecordsPage) -> None:  # noqa: FBT001  bound by partial
        keys = self._standing.snapshot.keys
        rows = list(_within_bytes(page.rows))
        records = tuple(
            record_info(row, _name(keys, row.key_id), with_body=with_bodies) for row in rows
        )
        reach = page.reach
        cut = len(rows) < len(page.rows)
        inquiry.done(
            LogPage(
                records=records,
                next=rows[-1].seq if cut else reach.next,
                end=reach.end and not cut,
                top=reach.top,
            ),
            None,
        )

    def _counted(self, command: CountRecords, inquiry: Inquiry, found: RecordsCount) -> None:
        counts, reach = found.counts, found.reach
        if command.by == "key":
            keys = self._standing.snapshot.keys
            counts = {_name(keys, key_id) or key_id: count for key_id, count in counts.items()}
        inquiry.done(LogCounts(counts=counts, next=reach.next, end=reach.end, top=reach.top), None)

    # --- disclosing --------------------------------------------------------------------------

    def _disclose(self, command: DiscloseRecord, inquiry: Inquiry) -> None:
        if command.reason:
            check_reason(command.reason)
        _check_seq(command.seq)
        self._read(
            partial(self._reader.record, command.seq),
            partial(self._disclosable, command, inquiry),
            inquiry,
        )

    def _disclosable(
        self, command: DiscloseRecord, inquiry: Inquiry, row: RecordRow | None
    ) -> None:
        row = _kept(command.seq, row)
        draft = msgspec.structs.replace(
            inquiry.draft,
            key=row.key_id,
            name=_name(self._standing.snapshot.keys, row.key_id),
            reason=command.reason,
            detail=f"record {command.seq}",
        )

        def deliver(outcome: tuple[object, Committed] | KeysteadError) -> None:
            if isinstance(outcome, KeysteadError):
                inquiry.refuse(outcome)
                return
            self._standing.count("changes", inquiry.draft.op)
            # Read again: in the order of the log, it may have been forgotten before.
            self._read(
                partial(self._reader.record, command.seq),
                partial(_disclosed, command.seq, inquiry, outcome[1]),
                inquiry,
                always=True,
            )

        self._committer.change(Change(lambda *_: Applied(drafts=(draft,)), deliver, "shared"))

    # --- forgetting --------------------------------------------------------------------------

    def _forget(self, command: ForgetRecords, inquiry: Inquiry) -> None:
        check_reason(command.reason)
        _check_choice(command)
        youngest_ms = self._clock.now_ms() - limits.LOG_FORGET_AGE_MS
        asked_ms = youngest_ms if command.before_ms is None else command.before_ms
        before_ms = min(asked_ms, youngest_ms)
        query = RecordsQuery(
            key_id=inquiry.target.id if inquiry.target else None,
            handle_id=command.handle_id,
            principal=command.principal,
            ops=FORGETTABLE,
            kept=True,
            until_ms=before_ms,
            after=command.after,
            before=None if command.through is None else command.through + 1,
            oldest_first=True,
            limit=limits.LOG_SCAN_ROWS_MAX if command.dry_run else limits.LOG_FORGET_ROWS,
        )
        self._read(
            partial(self._reader.choose, query),
            partial(self._chosen, command, inquiry, before_ms),
            inquiry,
        )

    def _chosen(
        self, command: ForgetRecords, inquiry: Inquiry, before_ms: int, choice: RecordsChoice
    ) -> None:
        told = Forgotten(
            count=len(choice.seqs),
            first_seq=choice.seqs[0] if choice.seqs else 0,
            last_seq=choice.seqs[-1] if choice.seqs else 0,
            first_ms=choice.first_ms,
            last_ms=choice.last_ms,
            before_ms=before_ms,
            next=choice.reach.next,
            end=choice.reach.end,
        )
        if command.dry_run:
            inquiry.done(told, None)
        elif choice.seqs:
            self._erase(command, inquiry, told, ranges_of(choice.seqs))
        else:
            self._finish(inquiry, told, None)

    def _erase(
        self, command: ForgetRecords, inquiry: Inquiry, told: Forgotten, ranges: Ranges
    ) -> None:
        words = _words(command, told.before_ms)
        drafts = tuple(
            msgspec.structs.replace(
                inquiry.draft, reason=command.reason, detail=detail, count=count
            )
            for detail, count in chunks(words, ranges)
        )

        def apply(tx: Transaction, _snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
            return Applied(drafts=drafts, value=tx.forget(ranges, FORGETTABLE))

        def deliver(outcome: tuple[object, Committed] | KeysteadError) -> None:
            if isinstance(outcome, KeysteadError):
                inquiry.refuse(outcome)
                return
            self._standing.count("changes", inquiry.draft.op)
            self._finish(inquiry, told, outcome[1])

        self._committer.change(Change(apply, deliver, "shared"))

    def _finish(self, inquiry: Inquiry, told: Forgotten, place: Committed | None) -> None:
        if not told.end or self._closed:
            inquiry.done(told, place)
            return

        def scrubbed(done: bool) -> None:  # noqa: FBT001  what the reader says
            inquiry.done(msgspec.structs.replace(told, scrubbed=done), place)

        self._read(self._reader.scrub, scrubbed, inquiry, always=True)

    # --- reconciling -------------------------------------------------------------------------

    def _reconcile(self, command: ReconcileRecords, inquiry: Inquiry) -> None:
        key = inquiry.target
        if key is None:
            raise InvariantViolation("nobody said of which key the messages are")
        check_reconciled(command, key)
        if command.tally is None:

            def told(found: Reconciled) -> None:
                inquiry.done(found, None)

            self._read(partial(look, self._reader, key, command), told, inquiry)
            return
        draft = tally_draft(inquiry.draft, command.tally, key, command.version)
        if draft.count:  # at once: an alert does not wait for a disk
            self._standing.count("reconcile_unrecorded", key.name, draft.count)
            alert(draft)

        def deliver(outcome: tuple[object, Committed] | KeysteadError) -> None:
            if isinstance(outcome, KeysteadError):
                inquiry.refuse(outcome)
                return
            self._standing.count("changes", inquiry.draft.op)
            inquiry.done(Reconciled(), outcome[1])

        self._committer.change(Change(lambda *_: Applied(drafts=(draft,)), deliver, "shared"))


def forget_again(reader: LogReader, journal: Journal) -> int:
    """Erase what entries of the log say was forgotten, if a restore brought it back; how many.

    For a start: nothing else commits meanwhile. Without such records it only reads.

    Raises:
        LogUnavailable: the store fails; what was erased until then stays so.
    """
    erased, after = 0, -1
    while True:
        query = RecordsQuery(
            op=_FORGET_OP, outcome="ok", after=after, oldest_first=True, limit=_PAGE
        )
        page = reader.search(query)
        named = merged(one for row in page.rows for one in _named(row))
        if reader.forgotten_in(named) < sum(last - first + 1 for first, last in named):
            for ranges in _batches(named):
                with journal.transaction() as tx:
                    erased += tx.forget(ranges, FORGETTABLE)
        if page.reach.end:
            break
        after = page.reach.next
    if erased:
        reader.scrub()
    return erased


def _named(row: RecordRow) -> Ranges:
    """What an entry names, if it is what was committed; if not, the steward's rounds tell of it."""
    if row.body is None or row.salt is None or entry_of(row.salt, row.body) != row.entry:
        return []
    try:
        return read_ranges(decode_body(row.body).detail)
    except MalformedRequest:
        return []


def _batches(ranges: Iterable[tuple[int, int]]) -> Iterator[Ranges]:
    """The same ranges, cut so that each batch is one commit's worth."""
    batch: Ranges = []
    room = limits.LOG_FORGET_ROWS
    for first, last in ranges:
        at = first
        while at <= last:
            until = min(last, at + room - 1)
            batch.append((at, until))
            room -= until - at + 1
            at = until + 1
            if not room:
                yield batch
                batch, room = [], limits.LOG_FORGET_ROWS
    if batch:
        yield batch


def _query(command: ListRecords | CountRecords, target: Key | None) -> RecordsQuery:
    for name in ("handle_id", "principal", "outcome", "operation", "request_id"):
        text = getattr(command, name)
        if text is not None and len(text.encode(errors="replace")) > _TEXT_BYTES_MAX:
            raise MalformedRequest(f"expected a {name} of at most {_TEXT_BYTES_MAX} bytes")
    for number in (command.version, command.since_ms, command.until_ms, command.before):
        if number is not None:
            _check_seq(number)
    if command.after is not None:
        _check_seq(command.after + 1)  # -1: from the first record
    return RecordsQuery(
        key_id=target.id if target else None,
        version=command.version,
        purpose=None if command.purpose is None else str(command.purpose),
        handle_id=command.handle_id,
        principal=command.principal,
        op=command.operation,
        outcome=command.outcome,
        request_id=command.request_id,
        since_ms=command.since_ms,
        until_ms=command.until_ms,
        after=command.after,
        before=command.before,
    )


def _check_seq(number: int) -> None:
    if not 0 <= number <= _SEQ_MAX:
        raise MalformedRequest("expected a number from 0 to 2^63 - 1 for a sequence or a time")


def _check_choice(command: ForgetRecords) -> None:
    chosen = (command.before_ms, command.key, command.handle_id, command.principal)
    if all(value is None for value in chosen):
        raise MalformedRequest(
            "expected what to forget",
            hint="Name a time, a key, a handle or a principal; to forget all there is, a time",
        )
    for value, what in ((command.handle_id, "handle id"), (command.principal, "principal")):
        if value is not None:
            check_name(value, what)
    for number in (command.before_ms, command.through):
        if number is not None:
            _check_seq(number)
    _check_seq(command.after + 1)


def _words(command: ForgetRecords, before_ms: int) -> str:
    """How the records were chosen, as the entry says it."""
    named = (
        ("key", command.key),
        ("handle", command.handle_id),
        ("principal", command.principal),
    )
    time = f"before {datetime.fromtimestamp(before_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return ", ".join([time, *(f"{what} {value}" for what, value in named if value is not None)])


def _within_bytes(rows: Sequence[RecordRow]) -> Iterator[RecordRow]:
    """The rows that one answer holds, and at least one."""
    left = limits.LOG_PAGE_BYTES_MAX
    for number, row in enumerate(rows):
        left -= len(row.body or b"")
        if left < 0 and number:
            return
        yield row


def _name(keys: dict[str, Key], key_id: str) -> str:
    key = keys.get(key_id)
    return key.name if key else ""


def _kept(seq: int, row: RecordRow | None) -> RecordRow:
    if row is None:
        raise NotFound(f"the log has no record {seq}")
    if row.body is None or row.salt is None:
        raise NotFound(
            f"record {seq} was forgotten: its body cannot be disclosed any more",
            hint="Its entry and its proof of inclusion stay; `keystead log search --operation"
            " log.forget` shows when, and why",
        )
    return row


def _disclosed(seq: int, inquiry: Inquiry, place: Committed, row: RecordRow | None) -> None:
    row = _kept(seq, row)
    inquiry.done(
        Disclosed(seq=row.seq, body=row.body or b"", salt=row.salt or b"", entry=row.entry), place
    )
