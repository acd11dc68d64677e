"""Where a durable counter will stand: guessed ahead of the commit, read again after a failure."""

import pytest

from keystead import limits
from keystead.errors import LogUnavailable, StateRolledBack
from keystead.keys.framing.base import CounterStep
from keystead.vault.counters import ExpectedCounters
from unit.vault.scene import Scene


@pytest.fixture
def counters(scene: Scene) -> ExpectedCounters:
    store(scene, b"one")
    return ExpectedCounters(scene.store, scene.secrets)


def store(scene: Scene, state: bytes, key_id: str = "k1") -> None:
    sealed = scene.secrets.seal_counter(key_id, "ledger", state)
    with scene.store.transaction() as tx:
        tx.put_counters({(key_id, "ledger"): sealed})


def test_the_first_guess_is_what_is_stored(counters: ExpectedCounters) -> None:
    assert counters.get("k1", "ledger") == b"one"
    assert counters.get("k1", "other") is None
    assert counters.get("k2", "ledger") is None


def test_uses_under_way_build_on_each_other(counters: ExpectedCounters) -> None:
    assert counters.get("k1", "ledger") == b"one"
    first = counters.advance("k1", CounterStep("ledger", b"one", b"two"))
    assert counters.get("k1", "ledger") == b"two"
    assert counters.advance("k1", CounterStep("ledger", b"two", b"three")) == first
    assert counters.get("k1", "ledger") == b"three"


def test_a_failed_use_is_forgotten(scene: Scene, counters: ExpectedCounters) -> None:
    assert counters.get("k1", "ledger") == b"one"
    reading = counters.advance("k1", CounterStep("ledger", b"one", b"never"))
    store(scene, b"two")
    counters.forget("k1", "ledger", reading)
    assert counters.get("k1", "ledger") == b"two"


def test_only_the_first_failure_of_a_reading_makes_it_read_again(
    scene: Scene, counters: ExpectedCounters
) -> None:
    """The second would undo what was framed on the new reading, and fail it in its turn."""
    counters.get("k1", "ledger")
    old = counters.advance("k1", CounterStep("ledger", b"one", b"never"))
    store(scene, b"two")
    counters.forget("k1", "ledger", old)
    assert counters.get("k1", "ledger") == b"two"
    new = counters.advance("k1", CounterStep("ledger", b"two", b"three"))
    assert new != old
    counters.forget("k1", "ledger", old)
    assert counters.get("k1", "ledger") == b"three"
    counters.forget("k1", "ledger", new)
    assert counters.get("k1", "ledger") == b"two"


def test_forgetting_what_is_not_known_is_nothing(counters: ExpectedCounters) -> None:
    counters.forget("k9", "ledger", 0)
    assert counters.get("k1", "ledger") == b"one"


def test_keys_and_names_are_apart(scene: Scene, counters: ExpectedCounters) -> None:
    store(scene, b"other", "k2")
    counters.get("k1", "ledger")
    reading = counters.advance("k1", CounterStep("ledger", b"one", b"two"))
    assert counters.get("k2", "ledger") == b"other"
    counters.forget("k2", "ledger", reading)
    assert counters.get("k1", "ledger") == b"two"


@pytest.mark.parametrize("spoil", ["altered", "moved", "forged"])
def test_a_tampered_counter_is_found(scene: Scene, spoil: str) -> None:
    sealed = scene.secrets.seal_counter("k1", "ledger", b"head")
    spoiled = {
        "altered": sealed[:-1] + b"x",
        "moved": scene.secrets.seal_counter("k2", "ledger", b"head"),
        "forged": bytes(32) + b"head",
    }[spoil]
    with scene.store.transaction() as tx:
        tx.put_counters({("k1", "ledger"): spoiled})
    with pytest.raises(StateRolledBack) as caught:
        ExpectedCounters(scene.store, scene.secrets).get("k1", "ledger")
    assert caught.value.hint


def test_a_store_that_does_not_answer_leaves_no_guess(
    scene: Scene, counters: ExpectedCounters
) -> None:
    scene.store.down = True
    with pytest.raises(LogUnavailable):
        counters.get("k1", "ledger")
    scene.store.down = False
    assert counters.get("k1", "ledger") == b"one"


def test_guesses_are_bounded(
    scene: Scene, counters: ExpectedCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the bound all are read again: a stale guess would conflict, never harm."""
    monkeypatch.setattr(limits, "HANDLE_CACHE_MAX", 2)
    counters.advance("k1", CounterStep("ledger", b"one", b"two"))
    counters.advance("k2", CounterStep("ledger", None, b"x"))
    assert counters.get("k3", "ledger") is None
    assert counters.get("k1", "ledger") == b"one"
    store(scene, b"two")
    counters.forget("k1", "ledger", counters.advance("k1", CounterStep("ledger", b"one", b"x")))
    assert counters.get("k1", "ledger") == b"two"
