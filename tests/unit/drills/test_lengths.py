"""A drill's plans can be followed at any scale, and its bounds are those of the binomial."""

from fractions import Fraction
from math import comb

import pytest

from keystead.drills.rotation.bounds import RARE, share_bounds
from keystead.drills.rotation.lengths import (
    BATCH,
    CONTEXTS,
    ROUND_MS,
    SCALE_MAX,
    SCALE_MIN,
    TASKS,
    lengths,
)
from keystead.drills.rotation.load import PREFIX
from keystead.keys.model import JwtPolicy, Policy, check_context
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.plan import check_plan
from unit.cli.rolling import Rolling


@pytest.mark.parametrize("scale", [SCALE_MIN, 0.5, 1.0, 1.7, SCALE_MAX])
def test_plans_fit_their_key_at_any_scale(scale: float) -> None:
    timing = lengths(scale)
    key = Rolling().key
    assert key.purpose is Purpose.JWT
    policy = Policy(jwt=JwtPolicy(issuer="https://x.invalid", lifetime_max_s=timing.lifetime_s))
    for plan in (timing.plan, timing.recovery):
        check_plan(plan, type("New", (), {"name": "k", "purpose": "jwt", "policy": policy})())
        assert plan.drain.length_ms >= timing.lifetime_s * 1_000
    # One report must be watched for longer than a round, while the rollout is still under way.
    assert timing.patience_ms > ROUND_MS
    assert timing.act_s > timing.whole_s / 2


def test_a_default_drill_is_well_under_two_minutes() -> None:
    assert lengths(1.0).whole_s < 60
    assert lengths(0.5).whole_s < lengths(1.0).whole_s < lengths(2.0).whole_s < 120


def test_each_task_has_contexts_of_its_own_for_whole_batches() -> None:
    assert CONTEXTS % TASKS == 0
    assert CONTEXTS // TASKS % BATCH == 0
    check_context(f"{PREFIX}/cafe/{CONTEXTS - 1:03}")


@pytest.mark.parametrize("count", [1, 7, 160, 200])
@pytest.mark.parametrize("share_ppm", [10, 200_000, 700_000, 999_990])
def test_bounds_leave_out_only_what_is_rare(count: int, share_ppm: int) -> None:
    least, most = share_bounds(count, share_ppm)
    share = Fraction(share_ppm, 1_000_000)
    odds = [comb(count, n) * share**n * (1 - share) ** (count - n) for n in range(count + 1)]
    assert sum(odds[:least]) <= RARE < sum(odds[: least + 1])
    assert sum(odds[most + 1 :]) <= RARE < sum(odds[most:])


def test_bounds_of_none_and_all() -> None:
    assert share_bounds(200, 0) == (0, 0)
    assert share_bounds(200, 1_000_000) == (200, 200)
    assert share_bounds(0, 200_000) == (0, 0)
