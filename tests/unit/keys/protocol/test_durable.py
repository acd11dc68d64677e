"""Durable uses: no order of steps breaks I2 to I6, and each rule that is taken away is missed."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pytest

from keystead.keys import epochs
from keystead.keys.epochs import Candidate, Outcome
from unit.keys.protocol.durable import Authority, Bounds, Durable, Read, Request, Rules, View
from unit.keys.protocol.exploring import Violated, explore
from unit.keys.protocol.scales import DEEP

pytestmark = pytest.mark.slow

REPEATED, OTHER, PLAIN = Request("k", sends=2), Request("k", b"b", sends=2), Request("", sends=1)


class Tried(NamedTuple):
    """Bounds, and the steps that must be met within them."""

    bounds: Bounds
    meets: str


TRIED = {
    "one request, sent three times": Tried(
        Bounds((Request("k", sends=3),)), "contended replayed refused_handle_revoked"
    ),
    "a version stops, comes back, and is compromised": Tried(
        Bounds((Request("k", sends=3),), stops=("suspend", "resume", "compromise")),
        "suspend resume compromise refused_key_state",
    ),
    "an emergency that ends": Tried(
        Bounds((REPEATED,), stops=("emergency stop", "emergency end", "revoke all handles")),
        "emergency_end refused_key_state refused_handle_revoked",
    ),
    "one budget for two requests": Tried(
        Bounds((REPEATED, PLAIN._replace(sends=2)), most=1), "refused_limit_exceeded replayed"
    ),
    "one idempotency key for two requests": Tried(
        Bounds((REPEATED, OTHER), stops=("compromise",)), "refused_replay_conflict contended"
    ),
    "three vaults": Tried(
        Bounds((Request("k", sends=3),), vaults=3), "contended replayed outcome_lost"
    ),
}
DEEPER = {
    "three vaults, sent three times": Tried(
        Bounds((Request("k", sends=3),), vaults=3, stops=("suspend", "resume", "revoke")),
        "suspend resume revoke contended",
    ),
    "three vaults, one budget": Tried(
        Bounds((REPEATED, REPEATED._replace(once="l")), vaults=3, most=1), "refused_limit_exceeded"
    ),
}
ALL = TRIED | (DEEPER if DEEP else {})


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("tried", ALL.values(), ids=ALL)
def test_every_order_holds_every_invariant(tried: Tried) -> None:
    explored = explore(Durable(tried.bounds))
    print(explored)  # noqa: T201  the counts, for who asks for them with -s
    always = {"admit", "adopt", "answer", "begin", "commit", "crash", "lost", "not_applied"}
    met = {kind.replace(" ", "_") for kind in explored.kinds}
    assert always | set(tried.meets.split()) <= met
    assert explored.states > 500


def test_one_vault_gives_stored_outcomes_at_hand() -> None:
    """On SQLite: what is looked up before the commit is as good, as long as a vault is alone."""
    bounds = Bounds((Request("k", sends=3),), vaults=1)
    assert explore(Durable(bounds, Rules(at_hand=True))).kinds["at hand"] > 10


# --- mutants -------------------------------------------------------------------------------------


def without_fence(candidate: Candidate, view: View) -> Outcome:
    """Every use counts as checked under the epoch of the commit."""
    return epochs.decide(msgspec.structs.replace(candidate, epoch=view.epoch), view)


def with_fence_behind_the_replay(candidate: Candidate, view: View) -> Outcome:
    """A stored outcome is found before the state is looked at again."""
    if candidate.idempotency is not None:
        scope, name, fingerprint = candidate.idempotency
        if epochs.check_idempotent(view.stored(scope, name), fingerprint):
            return epochs.Replayed(scope, name)
    return epochs.decide(candidate, view)


def without_idempotency(candidate: Candidate, view: View) -> Outcome:
    """Idempotency keys are looked at before the commit only: there, nothing was stored yet."""
    nothing = Read(view.read.authority, (-1,) * len(view.read.stored), view.read.spent)
    return epochs.decide(candidate, View(nothing, view.requests, view.names))


def without_budget(candidate: Candidate, view: View) -> Outcome:
    """Budgets are read when a use is admitted: there, nothing was spent yet."""
    before = Read(view.read.authority, view.read.stored, 0)
    return epochs.decide(candidate, View(before, view.requests, view.names))


def without_generation(candidate: Candidate, view: View) -> Outcome:
    """The fence looks at links and states, and not at the key's generation."""
    authority = view.read.authority._replace(generation=1)
    read = view.read._replace(authority=authority)
    return epochs.decide(candidate, View(read, view.requests, view.names))


def without_emergency(candidate: Candidate, view: View) -> Outcome:
    """An emergency stop is looked at when a use is admitted, and not in the commit."""
    authority = view.read.authority._replace(emergency=False)
    read = view.read._replace(authority=authority)
    return epochs.decide(candidate, View(read, view.requests, view.names))


class Mutant(NamedTuple):
    """What is bent, and the harm that is met first."""

    rules: Rules
    harm: str
    bounds: Bounds = Bounds((REPEATED,))


TWO_PLAIN = Bounds((PLAIN, PLAIN), most=1)
MUTANTS = {
    "the fence is removed": Mutant(Rules(decide=without_fence), "I4: a use was recorded"),
    "an epoch is used again": Mutant(
        Rules(next_epoch=lambda epoch: epoch), "I4: a use was recorded"
    ),
    "the epoch goes back": Mutant(Rules(next_epoch=lambda epoch: epoch - 1), "I4: the epoch"),
    "generations are not looked at": Mutant(
        Rules(decide=without_generation),
        "I4: a use was recorded",
        Bounds((REPEATED,), stops=("revoke all handles",)),
    ),
    "emergencies are not looked at": Mutant(
        Rules(decide=without_emergency),
        "I4: a use was recorded",
        Bounds((REPEATED,), stops=("emergency stop",)),
    ),
    "a stored answer goes out after the revocation": Mutant(
        Rules(decide=with_fence_behind_the_replay), "I6: a stored result"
    ),
    "a stored answer goes out at hand, on two vaults": Mutant(
        Rules(at_hand=True), "I6: a stored result"
    ),
    "idempotency is checked outside of the commit": Mutant(
        Rules(decide=without_idempotency, unique=False), "I6: request 0 has 2 records"
    ),
    "the budget is read outside of the commit": Mutant(
        Rules(decide=without_budget), "I5: 2 uses where 1", TWO_PLAIN
    ),
    "the store does not lock a budget": Mutant(Rules(locks=False), "I5: 2 uses where 1", TWO_PLAIN),
    "the store takes an idempotency key twice": Mutant(
        Rules(unique=False), "I6: request 0 has 2 records"
    ),
    "a revocation does not wait for open commits": Mutant(
        Rules(exclusive=False), "I4: a use was recorded"
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_every_mutant_is_caught(mutant: Mutant) -> None:
    with pytest.raises(Violated) as found:
        explore(Durable(mutant.bounds, mutant.rules))
    print(found.value)  # noqa: T201  the trace, for who asks for it with -s
    assert found.value.what.startswith(mutant.harm)
    assert list(_numbers(found.value.trace)) == list(range(found.value.trace.count("\n") + 1))


def _numbers(trace: str) -> Iterator[int]:
    for line in trace.splitlines():
        yield int(line.split(".")[0])


def test_a_trace_reads_as_what_happened() -> None:
    with pytest.raises(Violated) as found:
        explore(Durable(Bounds((PLAIN,)), Rules(decide=without_fence)))
    assert str(found.value) == (
        "I4: a use was recorded after what allowed it was revoked\n"
        "  0. everything begins\n"
        "  1. revoke commits: authority.epoch 1 -> 2; authority.revoked False -> True;"
        " stops (revoke) -> ()\n"
        "  2. vault 0 admits request 0 and makes signature 0: sent (0) -> (1);"
        " vaults[0].jobs () -> ((0, 0, 1, None, -1))\n"
        "  3. vault 0 begins to commit signature 0:"
        " vaults[0].jobs ((0, 0, 1, None, -1)) -> ((0, 0, 1, ((2, active, True, 1, False), (), 0),"
        " -1))\n"
        "  4. the commit of signature 0 is durable: records (()) -> ((0));"
        " vaults[0].jobs ((0, 0, 1, ((2, active, True, 1, False), (), 0), -1)) -> ((0, 0, 1, None,"
        " 0))"
    )


def test_the_model_stops_for_what_it_says() -> None:
    """What the invariants are held to asks none of Keystead's rules."""
    allowed = Durable(Bounds((PLAIN,)))
    assert allowed.broken(allowed.first()) == ""
    answered = allowed.first()._replace(given=((7,),))
    assert allowed.broken(answered).startswith("I2")
    assert Authority().epoch == 1
