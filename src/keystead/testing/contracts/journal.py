"""What every journal with its registry must do, whatever database is behind them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

from keystead.errors import Conflict, KeysteadError, LogUnavailable
from keystead.ports import (
    EpochRow,
    HandleRow,
    IdempotencyRow,
    Journal,
    ObjectRow,
    RecordRow,
    Registry,
    ReservationRow,
    Transaction,
)
from keystead.testing.expect import check_equal, check_raises, check_that

__all__ = ["JournalBench", "JournalContract"]

_NOTHING = b""
_READS = 400


class JournalBench(Protocol):
    """A back end on the test bench, empty at the start of each test."""

    @property
    def journal(self) -> Journal:
        """The one writer."""
        ...

    @property
    def registry(self) -> Registry:
        """Reads outside its commits."""
        ...

    def reopen(self) -> None:
        """Drop both without a word, as a crash does, and open what was durable."""
        ...

    def fail_next_commit(self, *, applied: bool) -> None:
        """Have the next commit report a failure; ``applied``: after it was carried out."""
        ...


_COUNTERS = (
    "",
    "a",
    "ab",
    "aB",
    "a%",
    "a_",
    "a_b",
    "a*",
    "b",
    "report/1/ann",
    "report/1/bob",
    "report/10/ann",
    "report/2/ann",
    "z\ud7ff",
    "z\ud7ff!",
    "z\ue000",
    "z\U0010ffff",
    "z\U0010ffff!",
    "\U0010ffff",
)
"""Names with what other matchers take for wildcards, and at the edges of the order of texts."""


class _Stop(Exception):
    """What a test's own code raises inside a transaction."""


def _object(object_id: str = "k1", **changes: object) -> ObjectRow:
    row = ObjectRow("key", object_id, f"name-{object_id}", 1, 1, b"doc", b"mac")
    return msgspec.structs.replace(row, **changes)


def _record(seq: int, **changes: object) -> RecordRow:
    row = RecordRow(
        seq,
        1_000 + seq,
        1,
        "tls.sign",
        "ok",
        "k1",
        1,
        "h1",
        "ann",
        f"r{seq}",
        b"body-%d" % seq,
        b"salt",
        b"entry",
        b"leaf-%d" % seq,
    )
    return msgspec.structs.replace(row, **changes)


def _idempotent(scope: str, key: str, expires_ms: int = 5_000) -> IdempotencyRow:
    return IdempotencyRow(scope, key, b"print", 7, b"result", b"receipt", expires_ms)


def _reservation(reservation_id: str = "v1", *, closed: bool = False) -> ReservationRow:
    return ReservationRow(reservation_id, "node-a", "k1", 3, 2_000, 9_000, 4, closed)


def _write_everything(tx: Transaction) -> None:
    tx.set_epoch(EpochRow(1, b"root", b"mac"))
    tx.put_object(_object(), previous_revision=0)
    tx.put_meta("deployment", b"d1")
    tx.put_material("k1", 1, b"sealed")
    tx.put_tenant_key("shop", b"tenant-key")
    tx.put_handle(HandleRow("h1", "k1", "shop", "ann", 5, b"mac"))
    tx.append([_record(0), _record(1)])
    tx.put_idempotent([_idempotent("h1", "i1")])
    tx.put_spent({"link": 3})
    tx.put_counters({("k1", "ledger"): b"head"})
    tx.put_reservation(_reservation())


def _write_and_raise(tx: Transaction, error: BaseException) -> None:
    _write_everything(tx)
    raise error


def _everything(registry: Registry) -> list[object]:
    """What a registry shows of :func:`_write_everything`, in its order."""
    return [
        registry.epoch(),
        list(registry.objects()),
        registry.meta("deployment"),
        registry.material("k1", 1),
        registry.tenant_key("shop"),
        registry.handle("h1"),
        registry.records_from(0, 10),
        registry.idempotent("h1", "i1"),
        registry.spent("link"),
        registry.counter("k1", "ledger"),
        registry.counters("k1", "led"),
        registry.reservations_open("node-a"),
        registry.last_sequence(),
    ]


_WRITTEN: list[object] = [
    EpochRow(1, b"root", b"mac"),
    [_object()],
    b"d1",
    b"sealed",
    b"tenant-key",
    HandleRow("h1", "k1", "shop", "ann", 5, b"mac"),
    [_record(0), _record(1)],
    _idempotent("h1", "i1"),
    3,
    b"head",
    {"ledger": b"head"},
    [_reservation()],
    1,
]
_EMPTY: list[object] = [None, [], None, None, None, None, [], None, 0, None, {}, [], -1]


class JournalContract:
    """Subclass it and set ``bench`` before each test."""

    bench: JournalBench

    def _check(self, expected: list[object], when: str) -> None:
        check_equal(_everything(self.bench.registry), expected, when)

    @contextmanager
    def _refused(self, kind: type[KeysteadError], what: str) -> Iterator[Transaction]:
        """A transaction that must end with this error."""
        with check_raises(kind, what), self.bench.journal.transaction() as tx:
            yield tx

    def _write(self) -> None:
        with self.bench.journal.transaction() as tx:
            _write_everything(tx)

    # --- all or nothing ----------------------------------------------------------------------

    def test_an_empty_store_holds_nothing(self) -> None:
        """Reads of an empty store answer, with nothing."""
        self._check(_EMPTY, "an empty store")
        with self.bench.journal.transaction() as tx:
            check_equal(tx.epoch(), EpochRow(0, _NOTHING, _NOTHING), "epoch before the first")
            check_equal(tx.last_sequence(), -1, "last sequence")
            check_equal(list(tx.objects_since(0)), [], "objects")
            check_equal(tx.tenant_key("shop"), None, "tenant key")

    def test_a_commit_applies_everything(self) -> None:
        """Every kind of row is there after its commit, as it was written."""
        self._write()
        self._check(_WRITTEN, "after the commit")

    def test_what_is_committed_survives_a_crash(self) -> None:
        """Durable means: there after a process ended without closing anything."""
        self._write()
        self.bench.reopen()
        self._check(_WRITTEN, "after a crash")

    def test_an_error_rolls_everything_back(self) -> None:
        """An error inside the block comes out as it is, and nothing is applied."""
        with check_raises(_Stop, "the block's own error"), self.bench.journal.transaction() as tx:
            _write_and_raise(tx, _Stop())
        self._check(_EMPTY, "after the error")
        self._write()
        self._check(_WRITTEN, "the next transaction")

    def test_an_interrupt_rolls_everything_back(self) -> None:
        """Even what is no Exception."""
        with check_raises(KeyboardInterrupt, "interrupt"), self.bench.journal.transaction() as tx:
            _write_and_raise(tx, KeyboardInterrupt())
        self._check(_EMPTY, "after the interrupt")

    def test_an_open_transaction_is_lost_in_a_crash(self) -> None:
        """What was not committed is not there after a crash."""
        with check_raises(_Stop, "crash"), self.bench.journal.transaction() as tx:
            _write_and_raise(tx, _Stop())
        self.bench.reopen()
        self._check(_EMPTY, "after a crash")

    def test_only_committed_state_is_read(self) -> None:
        """The registry sees nothing of an open transaction; the transaction sees its own writes."""
        with self.bench.journal.transaction() as tx:
            _write_everything(tx)
            self._check(_EMPTY, "the registry, while the transaction is open")
            check_equal(tx.epoch(), EpochRow(1, b"root", b"mac"), "its own epoch")
            check_equal(list(tx.objects_since(0)), [_object()], "its own objects")
            check_equal(tx.last_sequence(), 1, "its own records")
            check_equal(tx.idempotent("h1", "i1"), _idempotent("h1", "i1"), "its own outcome")
            check_equal(tx.spent("link"), 3, "its own spending")
            check_equal(tx.counter("k1", "ledger"), b"head", "its own counter")
            check_equal(tx.tenant_key("shop"), b"tenant-key", "its own tenant key")
        self._check(_WRITTEN, "the registry, after the commit")

    def test_each_read_sees_one_committed_state(self) -> None:
        """Rows that are always written together are never seen apart."""
        stop = threading.Event()
        apart: list[set[int]] = []
        reads: list[set[int]] = []

        def read() -> None:
            while not stop.is_set() and len(reads) < _READS:
                revisions = {row.revision for row in self.bench.registry.objects()}
                reads.append(revisions)
                if len(revisions) > 1:
                    apart.append(revisions)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for revision in range(1, 40):
                with self.bench.journal.transaction() as tx:
                    for name in ("k1", "k2"):
                        row = _object(name, revision=revision)
                        tx.put_object(row, previous_revision=revision - 1)
        finally:
            stop.set()
            reader.join()
        check_that(bool(reads), "the reader read")
        check_equal(apart, [], "rows of one commit seen apart")

    # --- faults ------------------------------------------------------------------------------

    def test_a_commit_that_fails_is_not_applied(self) -> None:
        """Fault, first form: nothing happened, and the next commit works."""
        self.bench.fail_next_commit(applied=False)
        with self._refused(LogUnavailable, "a failing commit") as tx:
            _write_everything(tx)
        self._check(_EMPTY, "after the fault")
        self._write()
        self.bench.reopen()
        self._check(_WRITTEN, "the next commit")

    def test_a_commit_that_fails_may_have_been_applied(self) -> None:
        """Fault, second form: it happened and was reported as failed; the next commit works."""
        self.bench.fail_next_commit(applied=True)
        with self._refused(LogUnavailable, "a failing commit") as tx:
            _write_everything(tx)
        self._check(_WRITTEN, "after the fault")
        with self.bench.journal.transaction() as tx:
            check_equal(tx.last_sequence(), 1, "what the next transaction sees")
            tx.append([_record(2)])
        self.bench.reopen()
        check_equal(self.bench.registry.last_sequence(), 2, "the next commit")

    def test_a_failure_says_what_to_do(self) -> None:
        """LogUnavailable carries a hint."""
        self.bench.fail_next_commit(applied=False)
        try:
            with self.bench.journal.transaction() as tx:
                tx.put_meta("deployment", b"d1")
        except LogUnavailable as error:
            check_that(bool(error.hint), "a hint on LogUnavailable")
            return
        raise AssertionError("expected the commit to fail")

    # --- rows of authority -------------------------------------------------------------------

    def test_the_epoch_row_is_replaced(self) -> None:
        """There is one epoch row."""
        for number in (1, 2):
            with self.bench.journal.transaction() as tx:
                tx.set_epoch(EpochRow(number, b"root-%d" % number, b"mac"))
        check_equal(self.bench.registry.epoch(), EpochRow(2, b"root-2", b"mac"), "epoch")

    def test_an_object_is_replaced_at_its_revision(self) -> None:
        """Compare-and-set on the revision."""
        self._write()
        new = _object(revision=2, epoch=2, doc=b"new")
        with self.bench.journal.transaction() as tx:
            tx.put_object(new, previous_revision=1)
        check_equal(list(self.bench.registry.objects()), [new], "objects")

    def test_a_stale_revision_conflicts(self) -> None:
        """Whoever read an older revision does not write, and the whole commit falls."""
        self._write()
        for previous in (0, 2, 7):
            with self._refused(Conflict, f"previous revision {previous}") as tx:
                tx.put_spent({"link": 99})
                tx.put_object(_object(revision=9), previous_revision=previous)
        self._check(_WRITTEN, "after the conflicts")

    def test_a_missing_object_conflicts(self) -> None:
        """A replacement of nothing is refused."""
        with self._refused(Conflict, "no such object") as tx:
            tx.put_object(_object(revision=2), previous_revision=1)
        self._check(_EMPTY, "after the conflict")

    def test_a_taken_name_conflicts(self) -> None:
        """Names are unique within a kind, when inserted and when changed."""
        self._write()
        with self._refused(Conflict, "a taken name, inserted") as tx:
            tx.put_object(_object("k2", name="name-k1"), previous_revision=0)
        with self.bench.journal.transaction() as tx:
            tx.put_object(_object("k2"), previous_revision=0)
            tx.put_object(_object("k1", kind="revocation"), previous_revision=0)
        with self._refused(Conflict, "a taken name, changed") as tx:
            tx.put_object(_object("k2", name="name-k1", revision=2), previous_revision=1)
        found = {(row.kind, row.id): row for row in self.bench.registry.objects()}
        check_equal(len(found), 3, "objects")
        check_equal(found["key", "k2"], _object("k2"), "the object as it was")

    def test_objects_since_an_epoch(self) -> None:
        """Those whose epoch is greater, and no others."""
        with self.bench.journal.transaction() as tx:
            for epoch in (1, 2, 3):
                tx.put_object(_object(f"k{epoch}", epoch=epoch), previous_revision=0)
        with self.bench.journal.transaction() as tx:
            for since, expected in ((0, 3), (1, 2), (3, 0), (9, 0)):
                rows = list(tx.objects_since(since))
                check_equal(len(rows), expected, f"objects since {since}")
                check_that(all(row.epoch > since for row in rows), f"epochs above {since}")

    def test_material_is_written_once_and_destroyed(self) -> None:
        """A version's material is not overwritten; destroying it leaves nothing, also twice."""
        with self.bench.journal.transaction() as tx:
            tx.put_material("k1", 1, b"one")
            tx.put_material("k1", 2, b"two")
        with self._refused(LogUnavailable, "material that is there") as tx:
            tx.put_material("k1", 1, b"other")
        check_equal(self.bench.registry.material("k1", 1), b"one", "material")
        for _ in range(2):
            with self.bench.journal.transaction() as tx:
                tx.put_material("k1", 1, None)
        check_equal(self.bench.registry.material("k1", 1), None, "destroyed material")
        check_equal(self.bench.registry.material("k1", 2), b"two", "its neighbour")

    def test_what_names_once_is_not_overwritten(self) -> None:
        """Deployment values, tenant keys and handles are written once."""
        self._write()
        with self._refused(LogUnavailable, "a deployment value twice") as tx:
            tx.put_meta("deployment", b"d2")
        with self._refused(LogUnavailable, "a tenant's key twice") as tx:
            tx.put_tenant_key("shop", b"other")
        with self._refused(LogUnavailable, "a handle twice") as tx:
            tx.put_handle(HandleRow("h1", "k2", "shop", "bob", 6, b"mac"))
        self._check(_WRITTEN, "after the refusals")

    def test_handles_are_listed_by_their_key(self) -> None:
        """In the order of their ids, a page at a time."""
        rows = [HandleRow(f"h{at}", f"k{at % 2}", "shop", "ann", at, b"mac") for at in range(7)]
        with self.bench.journal.transaction() as tx:
            for row in reversed(rows):
                tx.put_handle(row)
        read = self.bench.registry.handles_of
        check_equal(read("k0", "", 9), rows[0::2], "all of a key")
        check_equal(read("k0", "h2", 1), [rows[4]], "a page")
        check_equal([read("k1", "h5", 9), read("k9", "", 9)], [[], []], "nothing")

    # --- the log -----------------------------------------------------------------------------

    def test_sequences_are_taken_once(self) -> None:
        """A sequence that is taken refuses the commit: two writers never share one."""
        self._write()
        with self._refused(LogUnavailable, "a sequence twice") as tx:
            tx.append([_record(2), _record(1, body=b"other")])
        self._check(_WRITTEN, "after the refusal")

    def test_records_come_in_order(self) -> None:
        """From a sequence on, as many as asked for."""
        with self.bench.journal.transaction() as tx:
            tx.append([_record(seq) for seq in range(3)])
            tx.append([])
        with self.bench.journal.transaction() as tx:
            check_equal(tx.last_sequence(), 2, "last sequence")
            tx.append([_record(seq) for seq in range(3, 6)])
        read = self.bench.registry.records_from
        check_equal([row.seq for row in read(0, 100)], [0, 1, 2, 3, 4, 5], "all")
        check_equal([row.seq for row in read(2, 3)], [2, 3, 4], "a page")
        check_equal(read(6, 3), [], "past the end")
        check_equal(read(4, 1), [_record(4)], "a whole row")

    # --- what is decided in the commit -------------------------------------------------------

    def test_outcomes_are_kept_under_their_scope(self) -> None:
        """The same key in two scopes is two; a secret's result is not there."""
        secret = msgspec.structs.replace(_idempotent("h2", "i1"), result=None)
        with self.bench.journal.transaction() as tx:
            tx.put_idempotent([_idempotent("h1", "i1"), _idempotent("h1", "i2"), secret])
            counts = [tx.idempotent_count(scope) for scope in ("h1", "h2", "h3")]
            check_equal(counts, [2, 1, 0], "live keys by scope")
        check_equal(self.bench.registry.idempotent("h2", "i1"), secret, "a secret's outcome")
        check_equal(self.bench.registry.idempotent("h2", "i2"), None, "another scope's")
        with self.bench.journal.transaction() as tx:
            check_equal(tx.idempotent("h1", "i2"), _idempotent("h1", "i2"), "in a transaction")

    def test_an_outcome_is_not_overwritten(self) -> None:
        """The first outcome stands; a second falls with its whole commit."""
        self._write()
        other = msgspec.structs.replace(_idempotent("h1", "i1"), result=b"other")
        with self._refused(LogUnavailable, "an idempotency key twice") as tx:
            tx.append([_record(2)])
            tx.put_idempotent([other])
        self._check(_WRITTEN, "after the refusal")

    def test_expired_outcomes_are_pruned(self) -> None:
        """Those whose time has come, a bounded number at a time."""
        with self.bench.journal.transaction() as tx:
            rows = [_idempotent("h1", f"i{at}", expires_ms=at) for at in range(1, 7)]
            tx.put_idempotent(rows)
        with self.bench.journal.transaction() as tx:
            check_equal(tx.prune_idempotent(0, 10), 0, "nothing has expired")
            check_equal(tx.prune_idempotent(4, 3), 3, "a bounded number")
            check_equal(tx.idempotent_count("h1"), 3, "left")
            check_equal(tx.prune_idempotent(4, 3), 1, "the rest")
            check_equal(tx.prune_idempotent(4, 3), 0, "no more")
        kept = [self.bench.registry.idempotent("h1", f"i{at}") for at in range(1, 7)]
        check_equal([row is not None for row in kept], [False] * 4 + [True] * 2, "kept")

    def test_counters_and_spending_are_replaced(self) -> None:
        """Each by its own name; what is not named stays."""
        with self.bench.journal.transaction() as tx:
            tx.put_counters({("k1", "a"): b"1", ("k1", "b"): b"1", ("k2", "a"): b"1"})
            tx.put_spent({"x": 1, "y": 2**40})
        with self.bench.journal.transaction() as tx:
            tx.put_counters({("k1", "a"): b"2"})
            tx.put_counters({})
            tx.put_spent({"x": 2})
            tx.put_spent({})
        registry = self.bench.registry
        counters = [registry.counter(*at) for at in (("k1", "a"), ("k1", "b"), ("k2", "a"))]
        check_equal(counters, [b"2", b"1", b"1"], "counters")
        check_equal([registry.spent(link) for link in ("x", "y", "z")], [2, 2**40, 0], "spent")

    def test_counters_are_found_by_how_their_names_begin(self) -> None:
        """Letter by letter, and of this key only."""
        with self.bench.journal.transaction() as tx:
            values = {("k1", name): name.encode() for name in _COUNTERS}
            tx.put_counters({**values, ("k0", "ab"): b"other", ("k2", "a"): b"other"})
        for prefix in (*_COUNTERS, "report/", "report/1/", "report/3", "A", "z", "c"):
            expected = {name: name.encode() for name in _COUNTERS if name.startswith(prefix)}
            check_equal(self.bench.registry.counters("k1", prefix), expected, repr(prefix))
        check_equal(self.bench.registry.counters("k1", "report/3"), {}, "no such counter")
        check_equal(self.bench.registry.counters("k", ""), {}, "a key without any")

    def test_reservations_are_open_until_closed(self) -> None:
        """By node; closing one changes nothing else of it."""
        with self.bench.journal.transaction() as tx:
            tx.put_reservation(_reservation("v1"))
            tx.put_reservation(_reservation("v2"))
            tx.put_reservation(msgspec.structs.replace(_reservation("v3"), node="node-b"))
        with self.bench.journal.transaction() as tx:
            tx.put_reservation(_reservation("v1", closed=True))
        open_a = self.bench.registry.reservations_open("node-a")
        check_equal(open_a, [_reservation("v2")], "open on node-a")
        check_equal(len(self.bench.registry.reservations_open("node-b")), 1, "open on node-b")
        check_equal(self.bench.registry.reservations_open("node-c"), [], "open on node-c")
