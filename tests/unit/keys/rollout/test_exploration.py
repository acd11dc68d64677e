"""Every state of a few small rollouts, under everything that can happen, holds every invariant.

Another rollout that begins in place of a halted one differs from the first in nothing that the
rules look at: the explorer holds its beginning to the invariants, and need not go on from there.
"""

import gc
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from keystead.keys.lifecycle import State
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.model import Stage, Status
from keystead.keys.rollout.plan import check_plan
from unit.keys.rollout.explorer import Explorer
from unit.keys.rollout.scenes import SHARES, begun_key, plan_of
from unit.keys.rollout.states import BACK, GOOD_TICK, PASS

pytestmark = pytest.mark.slow

LEDGER, TLS = Purpose.LEDGER, Purpose.TLS


class Tried(NamedTuple):
    """What is explored."""

    steps: tuple[int, ...]
    incident: bool = False
    purpose: Purpose = LEDGER


TRIED = {
    "no ramp": Tried(SHARES[0]),
    "no ramp, incident": Tried(SHARES[0], incident=True),
    "one step": Tried(SHARES[1]),
    "one step, incident": Tried(SHARES[1], incident=True),
    "one step, the certificate decides": Tried(SHARES[1], purpose=TLS),
    "two steps, the last one for all": Tried(SHARES[2]),
}
each = pytest.mark.parametrize("tried", TRIED.values(), ids=TRIED)


@pytest.fixture(scope="module", autouse=True)
def _no_collection() -> Iterator[None]:
    """A million values live here and none is in a cycle: looking for some takes half the time."""
    gc.disable()
    yield
    explored.cache_clear()
    gc.enable()


@cache
def explored(tried: Tried) -> Explorer:
    plan = plan_of(tried.steps, acknowledged_by=("edge",) if tried.steps else ())
    explorer = Explorer(plan, incident=tried.incident, purpose=tried.purpose)
    explorer.explore()
    return explorer


@each
def test_every_state_is_held_to_the_invariants(tried: Tried) -> None:
    explorer = explored(tried)
    nodes = explorer.nodes.values()
    stages = set(Stage) if tried.steps else set(Stage) - {Stage.RAMP}
    statuses = set(Status) - {Status.ROLLED_BACK} if tried.incident else set(Status)
    assert {node.rollout.stage for node in nodes} == stages
    assert {node.rollout.status for node in nodes} == statuses
    assert {node.state("next") for node in nodes} == set(State)
    assert {node.state("previous") for node in nodes} == set(State) - {State.PRE_ACTIVATION}
    assert any(came.act == BACK.name for came in explorer.came.values())
    assert len(nodes) > 4_000


@each
def test_good_signals_bring_every_rollout_to_its_end(tried: Tried) -> None:
    explorer = explored(tried)
    explorer.finish()
    assert any(node.rollout.status is Status.FINISHED for node in explorer.nodes.values())


@each
def test_a_halt_finds_no_unused_version(tried: Tried) -> None:
    """A new rollout in a halted one's place stops the other version; it never has to erase one."""
    halted = [n for n in explored(tried).nodes.values() if n.rollout.status is Status.HALTED]
    assert halted
    assert all(node.state("next") is not State.PRE_ACTIVATION for node in halted)


@each
def test_the_straight_way_leads_to_the_end(tried: Tried) -> None:
    explorer = Explorer(plan_of(tried.steps), incident=tried.incident, purpose=tried.purpose)
    explorer.go_straight()
    acts = [came.act for came in explorer.came.values()]
    assert acts.count(PASS.name) == 2 + 1 + len(tried.steps) + 1 + 2
    assert acts.count(GOOD_TICK.name) == 1 + len(tried.steps) + 1 + 1 + 1


@pytest.mark.parametrize("steps", SHARES)
@pytest.mark.parametrize("purpose", [LEDGER, TLS])
def test_the_plans_are_legal(steps: tuple[int, ...], purpose: Purpose) -> None:
    plan = plan_of(steps, acknowledged_by=("edge",))
    check_plan(plan, begun_key(purpose))
    assert plan.ramp.steps_ppm == steps
