"""The simulator's short form: 300 seeds over all profiles, of which none breaks an invariant."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

import pytest

from sim.batch import Report, Summary, all_of, floors_missed, summed, told
from sim.profiles import FLOORS, PROFILES, profile_of

SEEDS = range(1, 301)


def batched(names: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    """So many at a time; from Python 3.12 on there is one in itertools."""
    left = iter(names)
    while batch := tuple(islice(left, size)):
        yield batch


PAIRS = tuple(batched(PROFILES, 2))


def quiet(_summary: Summary) -> None:
    """Nobody watches."""


def check_report(report: Report) -> None:
    """None failed, and no profile was without its faults; what failed is shrunk and told."""
    if report.failed:
        failure = told(report.failed[0].seed, report.failed[0].profile, runs_max=60)
        pytest.fail("\n".join([failure.replay, *failure.findings, *failure.left, *failure.trace]))
    assert not report.floors


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_no_seed_breaks_an_invariant(pair: tuple[str, ...]) -> None:
    seeds = [seed for seed in SEEDS if profile_of(seed) in pair]
    report = summed(all_of(seeds, None, 1), quiet)
    check_report(report)
    assert set(report.by_profile) == set(pair)


def test_every_profile_has_floors_and_calm_has_none() -> None:
    assert set(FLOORS) == set(PROFILES)
    assert [name for name, floors in FLOORS.items() if not floors] == ["calm"]


def test_a_profile_without_its_faults_is_below_its_floor() -> None:
    seeds, took = Counter({"crash": 20, "calm": 4}), {"crash": Counter({"crash": 39})}
    assert list(floors_missed(seeds, took)) == [
        "crash: expected 2.0 crash a seed, met 39 in 20 seeds"
    ]
    took["crash"]["crash"] = 40
    assert not list(floors_missed(seeds, took))


def test_no_few_seeds_are_held_to_floors_and_the_short_form_has_enough_of_each() -> None:
    assert not list(floors_missed(Counter({"crash": 19}), {"crash": Counter()}))
    assert min(Counter(map(profile_of, SEEDS)).values()) >= 20
