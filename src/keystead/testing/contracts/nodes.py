"""What every store must do for several nodes on it: their rows, and what they see of each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

from keystead.errors import CommitContended, LogUnavailable
from keystead.ports import (
    EpochRow,
    EpochWatch,
    IdempotencyRow,
    Journal,
    LeaseRow,
    LogReader,
    NodeRow,
    RecordRow,
    RecordsQuery,
    Registry,
    ReservationRow,
    Transaction,
)
from keystead.testing.contracts.log import LogBench
from keystead.testing.expect import check_equal, check_raises, check_that

__all__ = ["ManyNodesBench", "ManyNodesContract", "NodeStore", "NodesContract"]

_LONG_S = 30.0
_SOON_S = 0.2
_ROUNDS = 12
_TRIES = 100


class NodeStore(Protocol):
    """One node's way into a store that others write to, too."""

    @property
    def journal(self) -> Journal:
        """The one writer of its log."""
        ...

    @property
    def registry(self) -> Registry:
        """Reads outside its commits."""
        ...

    @property
    def reader(self) -> LogReader:
        """Searches of its log."""
        ...

    @property
    def watch(self) -> EpochWatch:
        """Tells it that another moved the epoch."""
        ...


class ManyNodesBench(Protocol):
    """A back end on the test bench, empty at the start of each test."""

    def node(self, name: str) -> NodeStore:
        """The store of node ``a`` or ``b``."""
        ...


def _record(seq: int, op: str = "tls.sign") -> RecordRow:
    body, leaf = b"body-%d" % seq, b"leaf-%d" % seq
    return RecordRow(
        seq, 1_000, 1, op, "ok", "k1", 1, "h1", "ann", f"r{seq}", body, b"salt", b"entry", leaf
    )


def _outcome(scope: str, key: str, result: bytes = b"result") -> IdempotencyRow:
    return IdempotencyRow(scope, key, b"print", 0, result, b"receipt", 5_000)


def _node(name: str, seen_epoch: int = 1, beat: int = 1) -> NodeRow:
    return NodeRow(name, seen_epoch, beat, f"https://{name}", b"mac-%d" % beat)


class NodesContract:
    """Subclass it and set ``bench`` before each test. ``node``: what the bench's is called."""

    bench: LogBench
    node = "a"

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        with self.bench.journal.transaction() as tx:
            yield tx

    def test_nodes_say_how_far_they_have_come(self) -> None:
        """A row a node, in the order of their names, each the last that was written."""
        registry = self.bench.registry
        check_equal(registry.nodes(), [], "no node")
        with self._transaction() as tx:
            tx.put_node(_node("b"))
            tx.put_node(_node("a"))
        with self._transaction() as tx:
            tx.put_node(_node("b", seen_epoch=7, beat=2))
        self.bench.reopen()
        found = self.bench.registry.nodes()
        check_equal(found, [_node("a"), _node("b", 7, 2)], "both")

    def test_a_lease_is_who_took_it_last(self) -> None:
        """By its name; in a commit as outside."""
        first, second = LeaseRow("lead", "a", 1, 1, b"m1"), LeaseRow("lead", "b", 2, 1, b"m2")
        other = LeaseRow("other", "a", 9, 9, b"m3")
        check_equal(self.bench.registry.lease("lead"), None, "nobody ever led")
        with self._transaction() as tx:
            check_equal(tx.lease("lead"), None, "nobody ever led, in a commit")
            tx.put_lease(first)
            tx.put_lease(other)
            check_equal(tx.lease("lead"), first, "its own")
        with self._transaction() as tx:
            check_equal(tx.lease("lead"), first, "as it was committed")
            tx.put_lease(second)
        self.bench.reopen()
        found = [self.bench.registry.lease(name) for name in ("lead", "other", "none")]
        check_equal(found, [second, other, None], "leases")

    def test_reservations_of_all_nodes_are_told(self) -> None:
        """Those that are open."""
        rows = [ReservationRow(f"v{at}", f"n{at}", "k1", 1, 9, 9, 9, False) for at in range(3)]  # noqa: FBT003  a row's column
        check_equal(self.bench.registry.reservations_open(None), [], "none")
        with self._transaction() as tx:
            for row in rows:
                tx.put_reservation(row)
            tx.put_reservation(msgspec.structs.replace(rows[1], closed=True))
        found = sorted(self.bench.registry.reservations_open(None), key=lambda row: row.id)
        check_equal(found, [rows[0], rows[2]], "of all")

    def test_what_is_expected_is_read(self) -> None:
        """What was there, and that there was nothing; what was not said is read all the same."""
        with self._transaction() as tx:
            tx.put_idempotent([_outcome("h1", "i1"), _outcome("h1", "i2"), _outcome("h2", "i1")])
            tx.put_spent({"x": 3, "y": 4})
            tx.put_counters({("k1", "a"): b"1", ("k2", "a"): b"2"})
        for _ in range(2):
            with self._transaction() as tx:
                tx.expect(
                    idempotent=[("h1", "i1"), ("h1", "i9"), ("h2", "i1")],
                    spent=["w", "x"],
                    counters=[("k1", "a"), ("k1", "z")],
                )
                stored = [tx.idempotent(*at) for at in (("h1", "i1"), ("h1", "i9"), ("h1", "i2"))]
                check_equal(stored, [_outcome("h1", "i1"), None, _outcome("h1", "i2")], "outcomes")
                check_equal([tx.idempotent_count(at) for at in ("h1", "h2", "h3")], [2, 1, 0], "n")
                check_equal([tx.spent(link) for link in ("w", "x", "y", "z")], [0, 3, 4, 0], "uses")
                found = [tx.counter(*at) for at in (("k1", "a"), ("k1", "z"), ("k2", "a"))]
                check_equal(found, [b"1", None, b"2"], "counters")

    def test_what_is_expected_can_be_nothing(self) -> None:
        """Then nothing is read."""
        with self._transaction() as tx:
            tx.expect(idempotent=[], spent=[], counters=[])
            check_equal(tx.last_sequence(), -1, "an empty log")

    def test_own_writes_are_seen_over_what_was_expected(self) -> None:
        """Whether there was something before or not."""
        with self._transaction() as tx:
            tx.put_spent({"x": 3})
        with self._transaction() as tx:
            tx.expect(idempotent=[("h1", "i1")], spent=["w", "x"], counters=[("k1", "a")])
            tx.put_idempotent([_outcome("h1", "i1")])
            tx.put_spent({"w": 1, "x": 4})
            tx.put_counters({("k1", "a"): b"1"})
            check_equal(tx.idempotent("h1", "i1"), _outcome("h1", "i1"), "an outcome")
            check_equal(tx.idempotent_count("h1"), 1, "outcomes")
            check_equal([tx.spent("w"), tx.spent("x")], [1, 4], "uses")
            check_equal(tx.counter("k1", "a"), b"1", "a counter")

    def test_a_record_is_found_by_its_node(self) -> None:
        """This node's own."""
        with self._transaction() as tx:
            tx.append([_record(0), _record(1)])
        registry = self.bench.registry
        check_equal(registry.record_of(self.node, 1), _record(1), "record 1")
        check_equal(registry.record_of(self.node, 2), None, "past the end")


class ManyNodesContract:
    """Subclass it and set ``bench`` before each test."""

    bench: ManyNodesBench

    def _pair(self) -> tuple[NodeStore, NodeStore]:
        return self.bench.node("a"), self.bench.node("b")

    # --- what is whose -----------------------------------------------------------------------

    def test_each_node_has_a_log_of_its_own(self) -> None:
        """With the same sequences, and each is read by its node's name."""
        a, b = self._pair()
        for store, op in ((a, "tls.sign"), (b, "jwt.sign")):
            with store.journal.transaction("shared") as tx:
                check_equal(tx.last_sequence(), -1, "an empty log")
                tx.append([_record(0, op)])
        check_equal(a.registry.record_of("a", 0), _record(0, "tls.sign"), "its own")
        check_equal(a.registry.record_of("b", 0), _record(0, "jwt.sign"), "the other's")
        check_equal(a.registry.record_of("b", 1), None, "past the other's end")
        check_equal(a.registry.record_of("c", 0), None, "of no node")
        check_equal([row.op for row in b.registry.records_from(0, 9)], ["jwt.sign"], "b's log")

    def test_other_nodes_logs_are_searched(self) -> None:
        """Each by a reader of its own, which is not this node's."""
        a, b = self._pair()
        with b.journal.transaction("shared") as tx:
            tx.append([_record(0), _record(1, "jwt.sign")])
        with a.journal.transaction("shared") as tx:
            tx.append([_record(0, "ssh.sign")])
        others = a.reader.others()
        check_equal(list(others), ["b"], "the other nodes")
        page = others["b"].search(RecordsQuery(op="jwt.sign"))
        check_equal(page.rows, [_record(1, "jwt.sign")], "found in b's log")
        check_equal(others["b"].count(RecordsQuery(), "operation").counts["tls.sign"], 1, "counts")
        check_equal(list(others["b"].others()), ["a"], "and b's other is this one")
        check_equal([row.op for row in a.reader.search(RecordsQuery()).rows], ["ssh.sign"], "a's")

    def test_authority_is_of_all(self) -> None:
        """What one node commits the other reads, in a commit and outside."""
        a, b = self._pair()
        with a.journal.transaction() as tx:
            tx.set_epoch(EpochRow(3, b"root", b"mac"))
            tx.put_spent({"x": 1})
        check_equal(b.registry.epoch(), EpochRow(3, b"root", b"mac"), "outside")
        with b.journal.transaction("shared") as tx:
            check_equal(tx.epoch(), EpochRow(3, b"root", b"mac"), "in a commit")
            check_equal(tx.spent("x"), 1, "uses")

    # --- the fence ---------------------------------------------------------------------------

    def test_nobody_commits_beside_a_change(self) -> None:
        """Who begins while a change is under way waits, and sees what it has changed."""
        a, b = self._pair()
        seen: list[int] = []

        def use() -> None:
            with b.journal.transaction("shared") as tx:
                seen.append(tx.epoch().epoch)

        with a.journal.transaction("exclusive") as tx:
            check_equal(tx.epoch().epoch, 0, "before")
            user = threading.Thread(target=use)
            user.start()
            user.join(_SOON_S)
            check_equal(seen, [], "what the other saw while the change was under way")
            tx.set_epoch(EpochRow(1, b"root", b"mac"))
        user.join(_LONG_S)
        check_equal(seen, [1], "what it saw then")

    def test_a_change_waits_for_uses_that_have_begun(self) -> None:
        """And none of them is committed after it."""
        a, b = self._pair()
        done: list[str] = []

        def revoke() -> None:
            with b.journal.transaction("exclusive") as tx:
                tx.set_epoch(EpochRow(tx.epoch().epoch + 1, b"root", b"mac"))
                done.append("revoked")

        with a.journal.transaction("shared") as tx:
            check_equal(tx.epoch().epoch, 0, "before")
            revoker = threading.Thread(target=revoke)
            revoker.start()
            revoker.join(_SOON_S)
            check_equal(done, [], "the change while the use was under way")
            tx.append([_record(0)])
        revoker.join(_LONG_S)
        check_equal(done, ["revoked"], "the change then")

    # --- what is decided once ----------------------------------------------------------------

    def test_a_budget_is_spent_once(self) -> None:
        """However the commits of two nodes fall: none is lost, from the first use on."""
        links = ["x", "y"]

        def spend(tx: Transaction) -> None:
            tx.expect(idempotent=[], spent=links, counters=[])
            tx.put_spent({link: tx.spent(link) + 1 for link in links})

        self._both(spend)
        registry = self.bench.node("a").registry
        check_equal([registry.spent(link) for link in links], [2 * _ROUNDS] * 2, "uses")

    def test_a_counter_is_stepped_once(self) -> None:
        """As above."""
        steps = [("k1", "head"), ("k1", "other")]

        def step(tx: Transaction) -> None:
            tx.expect(idempotent=[], spent=[], counters=steps)
            old = {at: int(tx.counter(*at) or b"0") for at in steps}
            tx.put_counters({at: b"%d" % (value + 1) for at, value in old.items()})

        self._both(step)
        registry = self.bench.node("b").registry
        found = [registry.counter(*at) for at in steps]
        check_equal(found, [b"%d" % (2 * _ROUNDS)] * 2, "counters")

    def test_a_request_has_one_outcome(self) -> None:
        """Whichever node is first; the other finds it, at the latest when it begins anew."""
        made: list[str] = []

        def use(tx: Transaction) -> None:
            name = threading.current_thread().name
            for at in range(_ROUNDS):
                tx.expect(idempotent=[("h1", f"i{at}")], spent=[], counters=[])
                if tx.idempotent("h1", f"i{at}") is None:
                    tx.put_idempotent([_outcome("h1", f"i{at}", name.encode())])
                    made.append(name)

        self._both(use, rounds=1)
        rows = [self.bench.node("a").registry.idempotent("h1", f"i{at}") for at in range(_ROUNDS)]
        results = {row.result for row in rows if row is not None}
        check_that(None not in rows, "an outcome each")
        check_that(results <= {b"a", b"b"}, f"by one of the nodes, met {results}")

    def _both(self, work: Callable[[Transaction], None], rounds: int = _ROUNDS) -> None:
        """Have both nodes do it, each in a thread, anew where the other's commit came between."""
        failed: list[Exception] = []

        def run(store: NodeStore) -> None:
            try:
                for _ in range(rounds):
                    _through(store.journal, work)
            except Exception as exc:  # noqa: BLE001  whatever it is, the test's thread tells of it
                failed.append(exc)

        threads = [
            threading.Thread(target=run, args=(self.bench.node(name),), name=name) for name in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_LONG_S)
        check_equal(failed, [], "errors")

    def test_a_lease_is_taken_by_one(self) -> None:
        """Who comes second sees the first one's."""

        def claim(tx: Transaction) -> None:
            found = tx.lease("lead")
            fence = found.fence + 1 if found else 1
            tx.put_lease(LeaseRow("lead", threading.current_thread().name, fence, 1, b"mac"))

        self._both(claim)
        lease = self.bench.node("a").registry.lease("lead")
        check_equal(lease and lease.fence, 2 * _ROUNDS, "fences")

    # --- the watch ---------------------------------------------------------------------------

    def test_a_watch_tells_the_epoch(self) -> None:
        """At the first wait, and after the time is over, as it is then."""
        a, b = self._pair()
        check_equal(b.watch.wait(_SOON_S), 0, "before the first")
        with a.journal.transaction() as tx:
            tx.set_epoch(EpochRow(4, b"root", b"mac"))
        check_equal(b.watch.wait(_LONG_S), 4, "after another node's change")
        check_equal(b.watch.wait(_SOON_S), 4, "after nothing")

    def test_a_watch_is_woken(self) -> None:
        """By another node's change, long before the time is over."""
        a, b = self._pair()
        b.watch.wait(_SOON_S)
        found: list[int] = []
        waiting = threading.Thread(target=lambda: found.append(b.watch.wait(4 * _LONG_S)))
        waiting.start()
        waiting.join(_SOON_S)
        check_equal(found, [], "before the change")
        with a.journal.transaction() as tx:
            tx.set_epoch(EpochRow(1, b"root", b"mac"))
        waiting.join(_LONG_S)
        check_equal(found, [1], "after it")

    def test_a_closed_watch_ends_its_wait(self) -> None:
        """At once, by an error; and so does each wait after it."""
        watch = self.bench.node("b").watch
        watch.wait(_SOON_S)
        ended = threading.Event()

        def wait() -> None:
            with check_raises(LogUnavailable, "a wait that is ended"):
                watch.wait(4 * _LONG_S)
            ended.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(_SOON_S)
        watch.close()
        check_that(ended.wait(_LONG_S), "the wait ended")
        waiting.join()
        with check_raises(LogUnavailable, "a wait after the end"):
            watch.wait(_SOON_S)


def _through(journal: Journal, work: Callable[[Transaction], None]) -> None:
    for _ in range(_TRIES):
        try:
            with journal.transaction("shared") as tx:
                work(tx)
        except CommitContended:
            continue
        return
    raise AssertionError(f"no commit got through in {_TRIES} tries")
