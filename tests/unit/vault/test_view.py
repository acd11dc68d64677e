"""The view inside a transaction: what it has accepted counts at once, and is written once."""

from collections.abc import Callable, Iterator

import msgspec
import pytest

from keystead import limits
from keystead.errors import InvariantViolation, NotFound, StateRolledBack
from keystead.keys.epochs import Accepted
from keystead.keys.framing.base import CounterStep
from keystead.ports import IdempotencyRow, Transaction
from keystead.testing.clocks import SeededRandom
from keystead.vault.view import TransactionView
from unit.vault.scene import Scene

View = Callable[..., TransactionView]


@pytest.fixture
def tx(scene: Scene) -> Iterator[Transaction]:
    with scene.store.transaction() as opened:
        yield opened


@pytest.fixture
def view(scene: Scene, tx: Transaction) -> View:
    def make(
        counts: dict[str, int] | None = None, pruned: set[str] | None = None
    ) -> TransactionView:
        counts = {} if counts is None else counts
        return TransactionView(tx, scene.load(), scene.secrets, counts, pruned)

    return make


def row_of(key: str, scope: str = "h1") -> IdempotencyRow:
    return IdempotencyRow(scope, key, b"print", 1, b"result", b"receipt", 9)


def test_it_shows_the_snapshot(scene: Scene, view: View) -> None:
    shown = view()
    assert (shown.epoch, shown.revoked) == (1, frozenset())
    assert shown.key("k1") == scene.load().key("k1")
    with pytest.raises(NotFound):
        shown.key("k9")


def test_spending_counts_at_once_and_is_written_once(view: View, tx: Transaction) -> None:
    tx.put_spent({"a": 5})
    shown = view()
    assert (shown.spent("a"), shown.spent("b")) == (5, 0)
    for _ in range(3):
        shown.accept("k1", Accepted(("a", "b"), None))
    assert (shown.spent("a"), shown.spent("b")) == (8, 3)
    assert (tx.spent("a"), tx.spent("b")) == (5, 0)
    shown.flush()
    assert (tx.spent("a"), tx.spent("b")) == (8, 3)


def test_a_value_is_read_once(view: View, tx: Transaction) -> None:
    """Within a transaction nobody else writes."""
    shown = view()
    assert shown.spent("a") == 0
    tx.put_spent({"a": 99})
    assert shown.spent("a") == 0


def test_steps_count_at_once_and_are_sealed(scene: Scene, view: View, tx: Transaction) -> None:
    shown = view()
    assert shown.counter("k1", "ledger") is None
    shown.accept("k1", Accepted((), CounterStep("ledger", None, b"one")))
    shown.accept("k1", Accepted((), CounterStep("ledger", b"one", b"two")))
    assert shown.counter("k1", "ledger") == b"two"
    assert shown.counter("k2", "ledger") is None
    shown.flush()
    stored = tx.counter("k1", "ledger")
    assert scene.secrets.open_counter("k1", "ledger", stored) == b"two"
    assert tx.counter("k2", "ledger") is None


@pytest.mark.parametrize("at", [0, 31, 32])
def test_an_altered_counter_is_found(scene: Scene, view: View, tx: Transaction, at: int) -> None:
    sealed = bytearray(scene.secrets.seal_counter("k1", "ledger", b"head"))
    sealed[at] ^= 1
    tx.put_counters({("k1", "ledger"): bytes(sealed)})
    with pytest.raises(StateRolledBack) as caught:
        view().counter("k1", "ledger")
    assert caught.value.hint


def test_another_counters_state_is_found(scene: Scene, view: View, tx: Transaction) -> None:
    tx.put_counters({("k1", "ledger"): scene.secrets.seal_counter("k2", "ledger", b"head")})
    with pytest.raises(StateRolledBack):
        view().counter("k1", "ledger")


def test_outcomes_are_found_at_once_and_written_once(
    scene: Scene, view: View, tx: Transaction
) -> None:
    new = scene.secrets.seal_outcome(row_of("new"), SeededRandom(7))
    tx.put_idempotent([row_of("old")])
    shown = view()
    shown.remember(new)
    assert shown.stored("h1", "new") == new
    assert shown.replayed("h1", "new") == row_of("new")
    assert shown.stored("h1", "old") == row_of("old")
    assert shown.stored("h2", "old") is None
    assert tx.idempotent("h1", "new") is None
    shown.flush()
    assert tx.idempotent("h1", "new") == new


def test_a_replay_of_nothing_is_our_fault(view: View) -> None:
    with pytest.raises(InvariantViolation):
        view().replayed("h1", "never")


def test_live_keys_are_counted_once_a_scope(view: View, tx: Transaction) -> None:
    tx.put_idempotent([row_of("a"), row_of("b"), row_of("a", "h2")])
    counts: dict[str, int] = {}
    shown = view(counts)
    assert (shown.stored_count("h1"), shown.stored_count("h2")) == (2, 1)
    shown.remember(row_of("c"))
    assert shown.stored_count("h1") == 3
    assert counts == shown.counts == {"h1": 3, "h2": 1}


def test_a_remembered_key_counts_in_a_scope_not_yet_counted(view: View, tx: Transaction) -> None:
    tx.put_idempotent([row_of("a")])
    shown = view()
    shown.remember(row_of("b"))
    assert shown.stored_count("h1") == 2


def test_counts_come_from_the_transaction_before(view: View, tx: Transaction) -> None:
    """Counting is linear, so it is done once; the committer drops the counts after a failure."""
    assert view({"h1": 41}).stored_count("h1") == 41
    assert tx.idempotent_count("h1") == 0


def test_too_many_counts_start_anew(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDLE_CACHE_MAX", 2)
    shown = view({"h1": 41, "h2": 42})
    assert shown.stored_count("h1") == 0


def test_flushing_nothing_writes_nothing(scene: Scene) -> None:
    before = scene.store.disk.tables
    with scene.store.transaction() as tx:
        TransactionView(tx, scene.load(), scene.secrets, {}).flush()
    assert msgspec.structs.astuple(scene.store.disk.tables) == msgspec.structs.astuple(before)


def test_a_count_that_may_be_too_high_is_made_anew_before_it_refuses(
    view: View, tx: Transaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "IDEMPOTENCY_KEYS_PER_HANDLE_MAX", 3)
    tx.put_idempotent([row_of("a")])
    pruned = {"h1", "h2"}
    shown = view({"h1": 3, "h2": 2, "h3": 3}, pruned)
    assert shown.stored_count("h2") == 2  # far from the bound: high, and harmless
    assert shown.stored_count("h3") == 3  # nothing of it was pruned
    assert shown.stored_count("h1") == 1
    assert pruned == {"h2"}
    shown.remember(row_of("b"))
    assert shown.stored_count("h1") == 2
