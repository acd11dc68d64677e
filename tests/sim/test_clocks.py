"""What wall clocks still decide today (docs/limitations.md): the simulator shows each."""

import re

import msgspec

from sim.prepared import OVERLAP_MS
from sim.profiles import scenario_of
from sim.scenario import Fault, Op, Scenario
from sim.world import run

HOUR_MS = 3_600_000


def rotating(home: int, *faults: Fault) -> Scenario:
    """Two nodes, of which one is asked to rotate a key, and nothing else."""
    op = Op(number=0, at_us=4_000_000, what="rotate", key="tokens", once="o0", home=home)
    return Scenario(
        seed=1,
        profile="clock_jump",
        nodes=2,
        skews_ms=(0, 0),
        drifts_ppm=(0, 0),
        ops=(op,),
        faults=faults,
    )


def published_us(trace: tuple[str, ...]) -> int:
    """How long the new version stood published before its first use was allowed."""
    at = {
        step: int(line[:9])
        for line in trace
        for step in re.findall(r" rollout\.(publish|canary) ok", line)
    }
    return at["canary"] - at["publish"]


def set_back(node: int, ms: int) -> Fault:
    return Fault(number=0, kind="clock_jump", at_us=1_000_000, node=node, amount=-ms)


def test_the_overlap_holds_where_the_clocks_agree() -> None:
    for home in (0, 1):
        assert published_us(run(rotating(home)).trace) >= OVERLAP_MS * 1_000


def test_it_holds_where_all_clocks_are_set_forward_at_once() -> None:
    forward = [
        Fault(number=node, kind="clock_jump", at_us=4_500_000, node=node, amount=HOUR_MS)
        for node in (0, 1)
    ]
    assert published_us(run(rotating(0, *forward)).trace) >= OVERLAP_MS * 1_000


def test_it_holds_where_a_clock_was_behind_as_it_began_and_is_set_right() -> None:
    for home in (0, 1):
        scenario = rotating(
            home,
            *(set_back(node, 5_000) for node in (0, 1)),
            *(
                Fault(number=9, kind="clock_jump", at_us=4_500_000, node=node, amount=5_000)
                for node in (0, 1)
            ),
        )
        assert published_us(run(scenario).trace) >= OVERLAP_MS * 1_000


def test_it_is_shorter_by_what_the_leaders_clock_is_ahead_of_who_began() -> None:
    """The beginning is stored by one wall clock, its end is found by another."""
    stood = [published_us(run(rotating(home, set_back(home, 5_000))).trace) for home in (0, 1)]
    assert min(stood) < OVERLAP_MS * 1_000 // 2
    assert max(stood) >= OVERLAP_MS * 1_000  # where the node that began it leads


def test_an_outcome_is_forgotten_at_once_if_its_clock_was_a_day_behind() -> None:
    """When it expires is stored by one wall clock; the leader prunes by its own (I6)."""
    found: list[str] = []
    for node in (0, 1):
        calm = scenario_of(1, "calm", nodes=2)
        late = Scenario(
            seed=calm.seed,
            profile=calm.profile,
            nodes=calm.nodes,
            skews_ms=calm.skews_ms,
            drifts_ppm=calm.drifts_ppm,
            ops=calm.ops,
            faults=(set_back(node, 25 * HOUR_MS),),
        )
        found += run(late).findings
    assert found
    assert all(re.match(r"I6 node-\w forgot the outcome under", finding) for finding in found)


def test_an_outcome_is_forgotten_if_its_node_starts_again_with_a_clock_a_day_ahead() -> None:
    """Over a restart the wall clock is believed (I6): what was done before is taken for old."""
    ahead = Fault(number=0, kind="clock_jump", at_us=3_000_000, node=0, amount=25 * HOUR_MS)
    ends = Fault(number=1, kind="crash", at_us=4_000_000, node=0, span_us=100_000)
    first = Op(number=0, at_us=1_000_000, what="jwt", key="tokens", token="tokens", once="o0")
    again = Op(number=1, at_us=9_000_000, what="other", key="tokens", token="tokens", once="o0")
    calm = scenario_of(1, "calm", nodes=1)
    believed = msgspec.structs.replace(calm, ops=(first, again), faults=(ahead, ends))
    running = msgspec.structs.replace(calm, ops=(first, again), faults=(ahead,))
    assert sum("jwt.sign ok" in line for line in run(believed).trace) == 2
    assert sum("jwt.sign ok" in line for line in run(running).trace) == 1
