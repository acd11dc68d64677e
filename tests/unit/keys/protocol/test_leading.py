"""Who leads: no act under an older fence, whatever clocks, commits and processes do."""

import msgspec
import pytest

from keystead import limits
from keystead.keys import leases
from keystead.keys.leases import Lease, Sighting
from unit.keys.protocol import leading
from unit.keys.protocol.exploring import Explored, Violated, explore
from unit.keys.protocol.leading import Bounds, Leading, Rules
from unit.keys.protocol.scales import DEEP

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease is replaced after a tick: then there are few ages, and all that matter."""
    monkeypatch.setattr(limits, "LEASE_LIFE_MS", leading.LIFE)


BOUNDS = {"two nodes, two fences": Bounds()}
DEEPER = {"two nodes, four fences": Bounds(fences=4)}
ALL = BOUNDS | (DEEPER if DEEP else {})


def held(bounds: Bounds, rules: Rules | None = None) -> Explored:
    explored = explore(Leading(bounds, rules))
    print(explored)  # noqa: T201  the counts, for who asks for them with -s
    return explored


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("bounds", ALL.values(), ids=ALL)
def test_no_two_leaders_act_in_turns(bounds: Bounds) -> None:
    explored = held(bounds)
    kinds = {"act", "refused", "takes", "renews", "looks", "outcome lost", "not applied", "crash"}
    assert kinds <= set(explored.kinds)
    assert explored.states > 5_000


def takes_early(
    lease: Lease | None, sighting: Sighting | None, *, node: str, now_boot_ms: int
) -> Lease | None:
    """Takes a lease over as soon as it likes, as by a clock that jumps."""
    wanted = leases.claim(lease, sighting, node=node, now_boot_ms=now_boot_ms)
    if wanted is None and lease is not None:
        return Lease(node, lease.fence + 1, lease.beat + 1)
    return wanted


def test_a_lease_that_is_taken_too_early_does_no_harm() -> None:
    """The fence decides who acts, and no clock: too early costs a change of leader only."""
    assert held(Bounds(fences=4), Rules(claim=takes_early)).kinds["refused"] > 100


def under_the_same_fence(
    lease: Lease | None, sighting: Sighting | None, *, node: str, now_boot_ms: int
) -> Lease | None:
    """Takes a lease over under the fence that the other one has."""
    wanted = leases.claim(lease, sighting, node=node, now_boot_ms=now_boot_ms)
    if wanted is None or lease is None:
        return wanted
    return msgspec.structs.replace(wanted, fence=lease.fence)


def holder_only(lease: Lease | None, *, node: str, fence: int) -> None:
    """Asks who leads, and not since when."""
    leases.check_leads(lease, node=node, fence=fence if lease is None else lease.fence)


def no_check(_lease: Lease | None, *, node: str, fence: int) -> None:
    """Who once led goes on."""


MUTANTS = {
    "what a leader does is not held to the lease": (
        Rules(check_leads=no_check),
        "leader: an act under fence 1 after fence 2",
    ),
    "it is held to the holder, and not to the fence": (
        Rules(check_leads=holder_only),
        "leader: an act under fence 1 after fence 3",
    ),
    "the fence does not grow": (
        Rules(claim=under_the_same_fence),
        "leader: two nodes were given fence 1",
    ),
    "the store does not lock the lease": (
        Rules(locks=False),
        "leader: two nodes were given fence 1",
    ),
}


@pytest.mark.parametrize(("rules", "harm"), MUTANTS.values(), ids=MUTANTS)
def test_every_mutant_is_caught(rules: Rules, harm: str) -> None:
    with pytest.raises(Violated) as found:
        explore(Leading(Bounds(fences=3), rules))
    print(found.value)  # noqa: T201  the trace, for who asks for it with -s
    assert found.value.what == harm
    assert found.value.trace.startswith("  0. everything begins\n  1. node ")
