"""A bug for each kind of fault is caught by the profile that has it, within few seeds."""

import pytest

from sim.batch import told
from sim.bugs import BUGS, Bug
from sim.profiles import PROFILES, scenario_of
from sim.world import run

SEEDS_MAX = 6


def caught(bug: Bug) -> int:
    """The first seed that finds it; 0: none does."""
    for seed in range(bug.first, bug.first + SEEDS_MAX):
        with bug.patched():
            findings = run(scenario_of(seed, bug.profile)).findings
        if any(finding.startswith(bug.finds) for finding in findings):
            return seed
    return 0


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_bug_is_caught(bug: Bug) -> None:
    assert caught(bug), f"{bug.name} is not found in {SEEDS_MAX} seeds of {bug.profile}"


def test_every_profile_has_a_bug() -> None:
    assert {bug.profile for bug in BUGS} == set(PROFILES) - {"calm", "mixed"}


def test_a_failing_seed_is_shrunk_to_what_matters() -> None:
    bug = next(bug for bug in BUGS if bug.profile == "suspend")
    with bug.patched():
        failure = told(caught(bug), bug.profile, runs_max=120)
    assert any(finding.startswith(bug.finds) for finding in failure.findings)
    assert any(" suspend node " in line for line in failure.left)
    assert len(failure.left) <= 12
    assert failure.replay.startswith("make simulate SEEDS=1 SEED=")
