"""What every store must do to keep the history of authority rows, and to show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from keystead.errors import Conflict, LogUnavailable
from keystead.ports import HistoryQuery, HistoryRow, ObjectRow, RecordRow
from keystead.testing.contracts.log import LogBench
from keystead.testing.expect import check_equal, check_raises

__all__ = ["HistoryContract"]


class _Stop(Exception):
    """What a test's own code raises inside a transaction."""


def _revision(object_id: str, revision: int, epoch: int, **changes: object) -> HistoryRow:
    """By itself at record 2 * epoch and second epoch, with bytes of any value."""
    row = HistoryRow(
        kind="key",
        id=object_id,
        name=f"name-{object_id}",
        revision=revision,
        epoch=epoch,
        seq=2 * epoch,
        time_ms=1_000 * epoch,
        doc=b"\x00\xff'doc-%d" % epoch,
        mac=b"\xfemac-%d" % epoch,
    )
    return msgspec.structs.replace(row, **changes)


_OLD = {"seq": -1, "time_ms": 0}
_ROWS = {
    "k1@1": _revision("k1", 7, 1, **_OLD),
    "k2@2": _revision("k2", 1, 2, **_OLD),
    "k1@3": _revision("k1", 8, 3),
    "k3@4": _revision("k3", 1, 4),
    "r1@4": _revision("k1", 1, 4, kind="rotation", name="k1"),
    "k1@5": _revision("k1", 9, 5, name="k1, renamed"),
    "r1@6": _revision("k1", 2, 6, kind="rotation", name="k1", time_ms=4_500),
    "t1@7": _revision("t1", 1, 7, kind="tenant"),
    "k1@8": _revision("k1", 10, 8),
}
"""By object and epoch. Epoch 4 is one commit of two rows; before epoch 6 the clock was put back."""

_FOUND: tuple[tuple[HistoryQuery, str], ...] = (
    (HistoryQuery(), "k1@8 t1@7 r1@6 k1@5 k3@4 r1@4 k1@3 k2@2 k1@1"),
    (HistoryQuery(limit=1), "k1@8"),
    (HistoryQuery(limit=5), "k1@8 t1@7 r1@6 k1@5 k3@4"),
    (HistoryQuery(kind="key"), "k1@8 k1@5 k3@4 k1@3 k2@2 k1@1"),
    (HistoryQuery(kind="rotation"), "r1@6 r1@4"),
    (HistoryQuery(kind="revocation"), ""),
    (HistoryQuery(object_id="k1"), "k1@8 r1@6 k1@5 r1@4 k1@3 k1@1"),
    (HistoryQuery(object_id="k1", limit=2), "k1@8 r1@6"),
    (HistoryQuery(object_id="k"), ""),
    (HistoryQuery(kind="key", object_id="k1"), "k1@8 k1@5 k1@3 k1@1"),
    (HistoryQuery(kind="tenant", object_id="k1"), ""),
    (HistoryQuery(before_epoch=4), "k1@3 k2@2 k1@1"),
    (HistoryQuery(before_epoch=8, limit=2), "t1@7 r1@6"),
    (HistoryQuery(before_epoch=1), ""),
    (HistoryQuery(kind="key", before_epoch=5), "k3@4 k1@3 k2@2 k1@1"),
    (HistoryQuery(object_id="k1", before_epoch=5), "r1@4 k1@3 k1@1"),
    # What was in force at a record: the first of its commit and those that follow it.
    (HistoryQuery(at_seq=-1), "k2@2 k1@1"),
    (HistoryQuery(at_seq=5), "k2@2 k1@1"),
    (HistoryQuery(at_seq=6), "k1@3 k2@2"),
    (HistoryQuery(at_seq=7), "k1@3 k2@2"),
    (HistoryQuery(at_seq=8), "k3@4 r1@4 k1@3 k2@2"),
    (HistoryQuery(at_seq=11), "k1@5 k3@4 r1@4 k2@2"),
    (HistoryQuery(at_seq=10**12), "k1@8 t1@7 r1@6 k3@4 k2@2"),
    (HistoryQuery(at_seq=-2), ""),
    (HistoryQuery(at_seq=8, kind="key"), "k3@4 k1@3 k2@2"),
    (HistoryQuery(at_seq=8, object_id="k1"), "r1@4 k1@3"),
    (HistoryQuery(at_seq=8, kind="rotation", object_id="k1"), "r1@4"),
    (HistoryQuery(at_seq=7, kind="rotation", object_id="k1"), ""),
    # At a time: the last revision that is not after it, whatever the clock did before.
    (HistoryQuery(at_ms=0), "k2@2 k1@1"),
    (HistoryQuery(at_ms=-1), ""),
    (HistoryQuery(at_ms=2_999), "k2@2 k1@1"),
    (HistoryQuery(at_ms=3_000), "k1@3 k2@2"),
    (HistoryQuery(at_ms=4_499), "k3@4 r1@4 k1@3 k2@2"),
    (HistoryQuery(at_ms=4_500), "r1@6 k3@4 k1@3 k2@2"),
    (HistoryQuery(at_ms=10**15), "k1@8 t1@7 r1@6 k3@4 k2@2"),
    (HistoryQuery(at_ms=4_500, kind="rotation"), "r1@6"),
    (HistoryQuery(at_ms=5_000, object_id="k1"), "r1@6 k1@5"),
    (HistoryQuery(at_ms=10**15, at_seq=9), "k3@4 r1@4 k1@3 k2@2"),
    (HistoryQuery(at_ms=3_500, at_seq=99), "k1@3 k2@2"),
    # A later page of what was in force holds no older revision of what an earlier page held.
    (HistoryQuery(at_seq=99, limit=3), "k1@8 t1@7 r1@6"),
    (HistoryQuery(at_seq=99, before_epoch=6), "k3@4 k2@2"),
    (HistoryQuery(at_ms=4_500, before_epoch=4, limit=1), "k1@3"),
    (HistoryQuery(at_seq=99, object_id="k1", before_epoch=8), "r1@6"),
)


class HistoryContract:
    """Subclass it and set ``bench`` before each test."""

    bench: LogBench

    def _keep(self, rows: Sequence[HistoryRow]) -> None:
        with self.bench.journal.transaction() as tx:
            tx.put_history(rows)

    def _check(self, expected: Sequence[HistoryRow], when: str) -> None:
        check_equal(self.bench.reader.history(HistoryQuery()), list(expected), when)

    # --- what is shown -----------------------------------------------------------------------

    def test_an_empty_history_is_searched(self) -> None:
        """There is nothing."""
        for query in (HistoryQuery(), HistoryQuery(at_seq=9), HistoryQuery(object_id="k1")):
            check_equal(self.bench.reader.history(query), [], repr(query))

    def test_revisions_are_searched(self) -> None:
        """By everything a query may name, alone and together, newest first, whole rows."""
        for row in _ROWS.values():
            self._keep([row])
        for query, names in _FOUND:
            expected = [_ROWS[name] for name in names.split()]
            check_equal(self.bench.reader.history(query), expected, repr(query))

    def test_the_order_is_not_that_of_keeping(self) -> None:
        """Epochs say what came when; whoever kept it first does not matter."""
        self._keep(list(_ROWS.values())[::-1])
        for query, names in _FOUND:
            expected = [_ROWS[name] for name in names.split()]
            check_equal(self.bench.reader.history(query), expected, repr(query))

    def test_names_and_documents_are_shown_as_they_were(self) -> None:
        """Of any text and any bytes; numbers as large as they may be."""
        rows = [
            _revision("k%", 2**62, 2**62, seq=2**62, time_ms=2**62, doc=b"", mac=b""),
            _revision('k"1', 1, 3, name='a\\b"c\u2028é\U0001f511', doc=bytes(range(256))),
            _revision("k_", 1, 2, doc=b"x" * 200_000),
        ]
        self._keep(rows)
        self._check(rows, "as they were")
        check_equal(self.bench.reader.history(HistoryQuery(object_id="k%")), rows[:1], "k%")

    # --- what is kept ------------------------------------------------------------------------

    def test_a_kept_revision_is_not_replaced(self) -> None:
        """Not in a later commit, nor in its own; the others of that commit are kept."""
        first, new = _revision("k1", 1, 1), _revision("k1", 2, 2)
        self._keep([first])
        other = {"name": "other", "epoch": 9, "seq": 9, "time_ms": 9, "doc": b"o", "mac": b"o"}
        changed = [msgspec.structs.replace(row, **other) for row in (first, new)]
        self._keep([changed[0], new, changed[1]])
        self._check([new, first], "as they were kept first")
        self.bench.reopen()
        self._check([new, first], "after a crash")

    def test_nothing_is_kept_of_nothing(self) -> None:
        """A commit without a revision is one."""
        self._keep([])
        self._check([], "nothing")

    def test_a_revision_is_kept_with_its_object(self) -> None:
        """In one commit: seen by nobody before it, and there after a crash."""
        row = _revision("k1", 1, 1)
        with self.bench.journal.transaction() as tx:
            tx.put_object(_object(row), previous_revision=0)
            tx.put_history([row])
            self._check([], "before the commit")
        self._check([row], "after the commit")
        self.bench.reopen()
        self._check([row], "after a crash")
        check_equal(list(self.bench.registry.objects()), [_object(row)], "the object")

    def test_a_change_that_falls_leaves_no_revision(self) -> None:
        """By an error of the block, an interrupt, or because the object has changed meanwhile."""
        first, new = _revision("k1", 1, 1), _revision("k1", 2, 2)
        with self.bench.journal.transaction() as tx:
            tx.put_object(_object(first), previous_revision=0)
            tx.put_history([first])
        for error in (_Stop(), KeyboardInterrupt()):
            with check_raises(type(error), "the block's own"):
                self._change(new, previous=1, then=_raising(error))
        with check_raises(Conflict, "a stale revision"):
            self._change(new, previous=7)
        self._check([first], "nothing of it")
        check_equal(list(self.bench.registry.objects()), [_object(first)], "the object")
        self._change(new, previous=1)
        self._check([new, first], "the next change")

    def _change(
        self, row: HistoryRow, previous: int, then: Callable[[], None] = lambda: None
    ) -> None:
        with self.bench.journal.transaction() as tx:
            tx.put_history([row])
            tx.put_object(_object(row), previous_revision=previous)
            then()

    def test_a_commit_that_fails_keeps_nothing(self) -> None:
        """Fault, first form: neither object nor revision is there; done again, both are."""
        row = _revision("k1", 1, 1)
        self.bench.fail_next_commit(applied=False)
        with check_raises(LogUnavailable, "a failing commit"):
            self._change(row, previous=0)
        self.bench.reopen()
        self._check([], "after the fault")
        check_equal(list(self.bench.registry.objects()), [], "the object")
        self._change(row, previous=0)
        self._check([row], "done again")

    def test_a_commit_that_fails_may_have_kept_all(self) -> None:
        """Fault, second form: object and revision are there; done again, it is refused."""
        row = _revision("k1", 1, 1)
        self.bench.fail_next_commit(applied=True)
        with check_raises(LogUnavailable, "a failing commit"):
            self._change(row, previous=0)
        self.bench.reopen()
        self._check([row], "after the fault")
        check_equal(list(self.bench.registry.objects()), [_object(row)], "the object")
        with check_raises(Conflict, "done again"):
            self._change(msgspec.structs.replace(row, doc=b"other"), previous=0)
        self._check([row], "as it was")

    def test_forgetting_records_leaves_the_history(self) -> None:
        """The record at which a revision came is forgotten; the revision is not."""
        row = _revision("k1", 1, 1, seq=0)
        record = RecordRow(
            0, 1_000, 1, "key.move", "ok", "k1", 1, "", "ann", "r0", b"b", b"s", b"e", b"l"
        )
        with self.bench.journal.transaction() as tx:
            tx.put_object(_object(row), previous_revision=0)
            tx.put_history([row])
            tx.append([record])
        with self.bench.journal.transaction() as tx:
            check_equal(tx.forget([(0, 9)], ["key.move"]), 1, "forgotten")
        self.bench.reopen()
        self._check([row], "the history")


def _object(row: HistoryRow) -> ObjectRow:
    return ObjectRow(row.kind, row.id, row.name, row.revision, row.epoch, row.doc, row.mac)


def _raising(error: BaseException) -> Callable[[], None]:
    def do() -> None:
        raise error

    return do
