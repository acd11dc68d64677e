"""What every store must do for those who read its log, and for forgetting records of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from keystead.errors import LogUnavailable
from keystead.keys.commands import CountBy
from keystead.ports import (
    Journal,
    LogReader,
    Reach,
    RecordRow,
    RecordsChoice,
    RecordsQuery,
    Registry,
)
from keystead.testing.expect import check_equal, check_raises, check_that

__all__ = ["LogBench", "LogContract"]

_HOUR_MS = 3_600_000
_OPS = ("tls.sign", "jwt.sign")
_PAGES_MAX = 1_000


class LogBench(Protocol):
    """A back end on the test bench, empty at the start of each test."""

    @property
    def journal(self) -> Journal:
        """The one writer."""
        ...

    @property
    def registry(self) -> Registry:
        """Reads outside its commits."""
        ...

    @property
    def reader(self) -> LogReader:
        """Searches of its log."""
        ...

    def reopen(self) -> None:
        """Drop all without a word, as a crash does, and open what was durable."""
        ...

    def fail_next_commit(self, *, applied: bool) -> None:
        """Have the next commit report a failure; ``applied``: after it was carried out."""
        ...


def _record(seq: int, **changes: object) -> RecordRow:
    row = RecordRow(
        seq,
        1_000 * seq,
        1,
        "tls.sign",
        "ok",
        "k1",
        1,
        "h1",
        "ann",
        f"r{seq}",
        b'{"seq":%d}' % seq,
        b"salt-%d" % seq,
        b"entry-%d" % seq,
        b"leaf-%d" % seq,
        "tls",
    )
    return msgspec.structs.replace(row, **changes)


_ROWS = [
    _record(0, op="deployment.init", key_id="", version=0, handle_id="", purpose=""),
    _record(1, key_id="k2", purpose="jwt", op="jwt.sign"),
    _record(2, outcome="key_state", version=2),
    _record(3, handle_id="h2", op="jwt.sign", purpose="jwt"),
    _record(4, outcome="handle_revoked", key_id="k2", principal="bob"),
    _record(5, op="key.move", version=0, handle_id="", principal="ops"),
    _record(6, outcome="key_state", op="key.move", version=0, handle_id="", principal="bob"),
    _record(7, version=2, request_id="r2"),
]

_FOUND: tuple[tuple[RecordsQuery, list[int]], ...] = (
    (RecordsQuery(), [7, 6, 5, 4, 3, 2, 1, 0]),
    (RecordsQuery(oldest_first=True), [0, 1, 2, 3, 4, 5, 6, 7]),
    (RecordsQuery(before=3), [2, 1, 0]),
    (RecordsQuery(after=4), [7, 6, 5]),
    (RecordsQuery(after=4, before=5), []),
    (RecordsQuery(after=5, before=4), []),
    (RecordsQuery(after=1, before=4, oldest_first=True), [2, 3]),
    (RecordsQuery(before=0), []),
    (RecordsQuery(after=7), []),
    (RecordsQuery(before=10**12), [7, 6, 5, 4, 3, 2, 1, 0]),
    (RecordsQuery(key_id="k2"), [4, 1]),
    (RecordsQuery(key_id="k2", oldest_first=True), [1, 4]),
    (RecordsQuery(key_id="k9"), []),
    (RecordsQuery(key_id="k1", version=2), [7, 2]),
    (RecordsQuery(version=2), [7, 2]),
    (RecordsQuery(purpose="jwt"), [3, 1]),
    (RecordsQuery(purpose="jwt", key_id="k1"), [3]),
    (RecordsQuery(handle_id="h2"), [3]),
    (RecordsQuery(principal="bob"), [6, 4]),
    (RecordsQuery(principal="bob", key_id="k2"), [4]),
    (RecordsQuery(principal="bob", handle_id="h1"), [4]),
    (RecordsQuery(op="jwt.sign"), [3, 1]),
    (RecordsQuery(op="key.move"), [6, 5]),
    (RecordsQuery(op="key.move", outcome="ok"), [5]),
    (RecordsQuery(op="vpn.sign"), []),
    (RecordsQuery(ops=("key.move", "deployment.init")), [6, 5, 0]),
    (RecordsQuery(ops=_OPS, key_id="k2"), [4, 1]),
    (RecordsQuery(ops=()), []),
    (RecordsQuery(outcome="key_state"), [6, 2]),
    (RecordsQuery(outcome="key_state", key_id="k1", op="tls.sign"), [2]),
    (RecordsQuery(outcome="denied"), [6, 4, 2]),
    (RecordsQuery(outcome="denied", principal="bob"), [6, 4]),
    (RecordsQuery(outcome="denied", request_id="r2"), [2]),
    (RecordsQuery(outcome="ok", key_id="k1"), [7, 5, 3]),
    (RecordsQuery(request_id="r2"), [7, 2]),
    (RecordsQuery(request_id="r1", key_id="k1"), []),
    (RecordsQuery(since_ms=5_000), [7, 6, 5]),
    (RecordsQuery(until_ms=2_000), [1, 0]),
    (RecordsQuery(since_ms=2_000, until_ms=5_000, principal="ann"), [3, 2]),
    (RecordsQuery(since_ms=2_001, until_ms=3_000), []),
    (RecordsQuery(since_ms=9_000), []),
    (RecordsQuery(since_ms=5_000, before=6, oldest_first=True), [5]),
    (RecordsQuery(kept=True, key_id="k2"), [4, 1]),
    (RecordsQuery(kept=False), []),
)

_COUNTS: tuple[tuple[CountBy, RecordsQuery, dict[str, int]], ...] = (
    ("key", RecordsQuery(), {"": 1, "k1": 5, "k2": 2}),
    ("principal", RecordsQuery(outcome="denied"), {"ann": 1, "bob": 2}),
    ("outcome", RecordsQuery(key_id="k1"), {"ok": 3, "key_state": 2}),
    ("operation", RecordsQuery(since_ms=3_000), {"jwt.sign": 1, "tls.sign": 2, "key.move": 2}),
    ("handle", RecordsQuery(), {"": 3, "h1": 4, "h2": 1}),
    ("purpose", RecordsQuery(before=2), {"": 1, "jwt": 1}),
    ("hour", RecordsQuery(), {"0": 8}),
    ("key", RecordsQuery(key_id="k9"), {}),
)


class LogContract:
    """Subclass it and set ``bench`` before each test.

    ``scrubs``: whether nothing is left beside the database of what was erased in it.
    """

    bench: LogBench
    scrubs = True

    def _append(self, rows: Sequence[RecordRow]) -> None:
        with self.bench.journal.transaction() as tx:
            tx.append(rows)

    def _forget(self, ranges: Sequence[tuple[int, int]], ops: Sequence[str] = _OPS) -> int:
        with self.bench.journal.transaction() as tx:
            return tx.forget(ranges, ops)

    def _pages(self, query: RecordsQuery, limit: int) -> list[RecordRow]:
        """What page after page gives until the end."""
        found: list[RecordRow] = []
        query = msgspec.structs.replace(query, limit=limit)
        for _ in range(_PAGES_MAX):
            page = self.bench.reader.search(query)
            check_that(len(page.rows) <= limit, "a page of at most so many")
            found.extend(page.rows)
            if page.reach.end:
                return found
            query = _onward(query, page.reach)
        raise AssertionError(f"no end after {_PAGES_MAX} pages of {query}")

    # --- searching ---------------------------------------------------------------------------

    def test_an_empty_log_is_searched(self) -> None:
        """There is nothing, and that is the end."""
        reader = self.bench.reader
        for query in (RecordsQuery(), RecordsQuery(key_id="k1"), RecordsQuery(since_ms=1)):
            page = reader.search(query)
            check_equal((page.rows, page.reach.end, page.reach.top), ([], True, -1), repr(query))
        check_equal(reader.count(RecordsQuery(), "key").counts, {}, "counts")
        check_equal(reader.choose(RecordsQuery()).seqs, [], "sequences")
        check_equal(reader.record(0), None, "a record")
        check_equal(reader.forgotten_in([(0, 9)]), 0, "forgotten")

    def test_records_are_searched(self) -> None:
        """By everything a query may name, alone and together, in either order, whole rows."""
        self._append(_ROWS)
        for query, expected in _FOUND:
            page = self.bench.reader.search(query)
            check_equal([row.seq for row in page.rows], expected, repr(query))
            check_equal(page.rows, [_ROWS[seq] for seq in expected], repr(query))
            check_that(page.reach.end, f"the end of {query}")
            check_equal(page.reach.top, 7, "the last sequence")

    def test_pages_leave_nothing_out_and_repeat_nothing(self) -> None:
        """Whatever the size of a page."""
        self._append(_ROWS)
        for query, expected in _FOUND:
            for limit in (1, 2, 3):
                seqs = [row.seq for row in self._pages(query, limit)]
                check_equal(seqs, expected, f"{query} by {limit}")

    def test_a_full_page_says_where_to_go_on(self) -> None:
        """Behind its last record; at the end of what there is, behind all of it."""
        self._append(_ROWS)
        search = self.bench.reader.search
        newest = search(RecordsQuery(key_id="k1", limit=2)).reach
        check_equal((newest.next, newest.end), (6, False), "newest first")
        oldest = search(RecordsQuery(key_id="k1", limit=2, oldest_first=True)).reach
        check_equal((oldest.next, oldest.end), (3, False), "oldest first")
        for query in (RecordsQuery(key_id="k2"), RecordsQuery(), RecordsQuery(key_id="k9")):
            reach = search(msgspec.structs.replace(query, oldest_first=True, limit=9)).reach
            check_equal((reach.next, reach.end), (7, True), f"at the end of {query}")

    def test_who_follows_sees_each_record_once(self) -> None:
        """From the end of one search on, there are only records that came since."""
        query = RecordsQuery(key_id="k1", oldest_first=True, after=-1)
        seen: list[int] = []
        for row in _ROWS:
            self._append([row])
            page = self.bench.reader.search(query)
            seen.extend(found.seq for found in page.rows)
            query = _onward(query, page.reach)
            check_equal(self.bench.reader.search(query).rows, [], "nothing came since")
        check_equal(seen, [2, 3, 5, 6, 7], "seen once each")

    def test_a_time_is_found_whatever_the_clock_did(self) -> None:
        """Sequences are the order; times jump back and forth within it."""
        times = [5_000, 9_000, 1_000, 9_500, 2_000, 5_500, 100, 9_999]
        far = 3_000
        rows = [_record(seq, time_ms=50_000 + seq) for seq in range(far)]
        for number, time_ms in enumerate(times):
            rows[number * (far // 8)] = _record(number * (far // 8), time_ms=time_ms)
        self._append(rows)
        for since, until in ((0, 10_000), (5_000, 6_000), (9_000, 9_999), (100, 101)):
            wanted = [row.seq for row in rows if since <= row.time_ms < until]
            query = RecordsQuery(since_ms=since, until_ms=until, oldest_first=True)
            check_equal([row.seq for row in self._pages(query, 3)], wanted, repr(query))
            query = msgspec.structs.replace(query, oldest_first=False)
            check_equal([row.seq for row in self._pages(query, 3)], wanted[::-1], repr(query))

    def test_only_committed_records_are_found(self) -> None:
        """And what is committed is found at once."""
        with self.bench.journal.transaction() as tx:
            tx.append(_ROWS)
            check_equal(self.bench.reader.search(RecordsQuery()).rows, [], "before the commit")
        check_equal(len(self.bench.reader.search(RecordsQuery()).rows), 8, "after it")

    def test_records_are_counted(self) -> None:
        """By each column, of what matches."""
        self._append(_ROWS)
        for by, query, expected in _COUNTS:
            found = self.bench.reader.count(query, by)
            check_equal(found.counts, expected, f"{query} by {by}")
            check_that(found.reach.end, f"the end of {query}")
        self._append([_record(8, time_ms=2 * _HOUR_MS + 5)])
        counts = self.bench.reader.count(RecordsQuery(), "hour").counts
        check_equal(counts, {"0": 8, str(2 * _HOUR_MS): 1}, "by hour")

    def test_sequences_are_chosen(self) -> None:
        """With the times that they span."""
        self._append(_ROWS)
        choose = self.bench.reader.choose
        found = choose(RecordsQuery(key_id="k1", limit=3, oldest_first=True))
        reach = Reach(next=5, end=False, top=7)
        check_equal(found, RecordsChoice([2, 3, 5], 2_000, 5_000, reach), "the first three")
        found = choose(RecordsQuery(key_id="k1", limit=9))
        check_equal((found.seqs, found.reach.end), ([7, 6, 5, 3, 2], True), "all")

    def test_one_record_is_read(self) -> None:
        """By its sequence."""
        self._append(_ROWS)
        check_equal(self.bench.reader.record(3), _ROWS[3], "record 3")
        check_equal(self.bench.reader.record(8), None, "past the end")

    # --- forgetting --------------------------------------------------------------------------

    def test_a_forgotten_record_keeps_its_place(self) -> None:
        """Body and salt are gone, and what names anyone; the rest stays as it was."""
        self._append(_ROWS)
        check_equal(self._forget([(2, 4)]), 3, "forgotten")
        self.bench.reopen()
        rows = self.bench.registry.records_from(0, 10)
        blank = {"body": None, "salt": None, "handle_id": "", "principal": "", "request_id": ""}
        for seq, row in enumerate(_ROWS):
            expected = msgspec.structs.replace(row, **blank) if 2 <= seq <= 4 else row  # noqa: PLR2004  the range
            check_equal(rows[seq], expected, f"record {seq}")

    def test_only_named_operations_are_forgotten(self) -> None:
        """Whatever the ranges say."""
        self._append(_ROWS)
        check_equal(self._forget([(0, 9)], ["jwt.sign"]), 2, "forgotten")
        check_equal(self._forget([(0, 9)], []), 0, "no operation")
        check_equal(self._forget([], _OPS), 0, "no range")
        check_equal(self._forget([(1, 1), (3, 3), (7, 7)]), 1, "what was left of them")
        kept = self.bench.reader.search(RecordsQuery(kept=True, oldest_first=True)).rows
        check_equal([row.seq for row in kept], [0, 2, 4, 5, 6], "kept")

    def test_what_is_forgotten_is_found_by_what_is_left(self) -> None:
        """By time, operation, outcome, key and version; not by whom."""
        self._append(_ROWS)
        self._forget([(0, 7)])
        for query, expected in (
            (RecordsQuery(key_id="k2"), [4, 1]),
            (RecordsQuery(op="jwt.sign"), [3, 1]),
            (RecordsQuery(outcome="handle_revoked"), [4]),
            (RecordsQuery(version=2), [7, 2]),
            (RecordsQuery(purpose="jwt"), [3, 1]),
            (RecordsQuery(since_ms=7_000), [7]),
            (RecordsQuery(kept=False), [7, 4, 3, 2, 1]),
            (RecordsQuery(handle_id="h2"), []),
            (RecordsQuery(principal="bob"), [6]),
            (RecordsQuery(request_id="r2"), []),
        ):
            found = [row.seq for row in self.bench.reader.search(query).rows]
            check_equal(found, expected, repr(query))

    def test_what_is_forgotten_is_counted(self) -> None:
        """In each of the ranges, and nowhere else."""
        self._append(_ROWS)
        count = self.bench.reader.forgotten_in
        check_equal(count([(0, 9)]), 0, "nothing is forgotten")
        self._forget([(1, 3), (7, 7)])
        for ranges, expected in (
            ([(0, 9)], 4),
            ([(0, 0), (2, 3), (5, 8)], 3),
            ([(4, 6), (8, 9)], 0),
            ([], 0),
        ):
            check_equal(count(ranges), expected, repr(ranges))
        check_equal(self.bench.reader.scrub(), self.scrubs, "nobody is in the way")

    def test_forgetting_that_fails_is_not_applied(self) -> None:
        """Fault, first form: all is there, and it can be done again."""
        self._append(_ROWS)
        self.bench.fail_next_commit(applied=False)
        with check_raises(LogUnavailable, "a failing commit"):
            self._forget([(0, 7)])
        self.bench.reopen()
        check_equal(self.bench.registry.records_from(0, 10), _ROWS, "as it was")
        check_equal(self._forget([(0, 7)]), 5, "done again")

    def test_forgetting_that_fails_may_have_been_applied(self) -> None:
        """Fault, second form: it is forgotten; done again, it changes nothing."""
        self._append(_ROWS)
        self.bench.fail_next_commit(applied=True)
        with check_raises(LogUnavailable, "a failing commit"):
            self._forget([(0, 7)])
        self.bench.reopen()
        rows = self.bench.registry.records_from(0, 10)
        check_equal([row.seq for row in rows if row.body is None], [1, 2, 3, 4, 7], "forgotten")
        check_equal(self._forget([(0, 7)]), 0, "done again")
        check_equal(self.bench.registry.records_from(0, 10), rows, "as it was")


def _onward(query: RecordsQuery, reach: Reach) -> RecordsQuery:
    if query.oldest_first:
        return msgspec.structs.replace(query, after=reach.next)
    return msgspec.structs.replace(query, before=reach.next)
