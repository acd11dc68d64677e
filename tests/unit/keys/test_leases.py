"""Who leads, decided from a lease and how long it was seen unchanged."""

import pytest

from keystead import limits
from keystead.errors import Conflict
from keystead.keys.leases import Lease, Sighting, check_leads, claim, sighted

LIFE = limits.LEASE_LIFE_MS
HELD = Lease("a", 3, 40)


def test_the_first_node_takes_what_nobody_holds() -> None:
    assert claim(None, None, node="a", now_boot_ms=5) == Lease("a", 1, 1)


def test_the_holder_renews_under_the_same_fence() -> None:
    assert claim(HELD, None, node="a", now_boot_ms=5) == Lease("a", 3, 41)


@pytest.mark.parametrize(("age", "taken"), [(LIFE - 1, False), (LIFE, True), (LIFE + 9, True)])
def test_another_takes_over_what_was_not_renewed_for_its_life(age: int, *, taken: bool) -> None:
    seen = Sighting(HELD, 100)
    wanted = claim(HELD, seen, node="b", now_boot_ms=100 + age)
    assert wanted == (Lease("b", 4, 41) if taken else None)


def test_a_lease_that_was_renewed_meanwhile_is_left_alone_however_old_the_sighting() -> None:
    seen = Sighting(HELD, 100)
    renewed = Lease("a", 3, 41)
    assert claim(renewed, seen, node="b", now_boot_ms=100 + 9 * LIFE) is None


def test_nobody_takes_over_what_it_has_not_seen_before() -> None:
    assert claim(HELD, None, node="b", now_boot_ms=10**9) is None


def test_a_sighting_counts_from_when_the_lease_was_first_seen_so() -> None:
    first = sighted(None, HELD, 100)
    assert first == Sighting(HELD, 100)
    assert sighted(first, HELD, 700) == first
    assert sighted(first, Lease("a", 3, 41), 700) == Sighting(Lease("a", 3, 41), 700)


@pytest.mark.parametrize(
    ("lease", "node", "fence"),
    [(None, "a", 3), (Lease("b", 4, 1), "a", 3), (Lease("a", 5, 1), "a", 3)],
    ids=["nobody leads", "another leads", "this one, but another did in between"],
)
def test_who_does_not_lead_under_that_fence_does_nothing(
    lease: Lease | None, node: str, fence: int
) -> None:
    with pytest.raises(Conflict, match="does not lead under fence 3"):
        check_leads(lease, node=node, fence=fence)


def test_the_leader_may() -> None:
    check_leads(HELD, node="a", fence=3)
