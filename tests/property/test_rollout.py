"""Rollouts of any legal plan, at any times: shares, overlap, readers' copies, and the end (I12)."""

from typing import NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from keystead.errors import Conflict, KeyStateError
from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.keys.rollout.caching import after_telling, told_ms
from keystead.keys.rollout.choosing import chosen, served
from keystead.keys.rollout.gates import NOTHING_SEEN, Seen, Signals
from keystead.keys.rollout.machine import begin, decide
from keystead.keys.rollout.model import Rotation, Stage, Status, live
from keystead.keys.rollout.plan import (
    WHOLE_PPM,
    Canary,
    Drain,
    Gates,
    Plan,
    Promote,
    Publish,
    Ramp,
    Retire,
    check_plan,
)
from keystead.keys.rollout.table import Wish
from unit.keys.rollout.running import Running
from unit.keys.rollout.scenes import asked, begun_key, rotation_before, version_of

LENGTHS = st.integers(0, 5_000)
SUBJECTS = st.binary(min_size=8, max_size=8)
GOOD_TO_ALL = Seen(uses=10**7, p99_us=1)
GOOD = Signals(
    window_next=GOOD_TO_ALL,
    window_previous=GOOD_TO_ALL,
    stage_next=GOOD_TO_ALL,
    stage_previous=GOOD_TO_ALL,
)
BAD = msgspec.structs.replace(GOOD, reporters=65, denied=65)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan that `check_plan` passes, of some seconds."""
    shares = sorted(draw(st.sets(st.integers(1, WHOLE_PPM), min_size=1, max_size=5)))
    overlap_ms = draw(LENGTHS)
    plan = Plan(
        publish=Publish(overlap_ms=overlap_ms, cache_ms=draw(st.integers(0, overlap_ms))),
        canary=Canary(share_ppm=shares[0], length_ms=draw(LENGTHS)),
        ramp=Ramp(steps_ppm=tuple(shares[1:]), step_ms=draw(LENGTHS)),
        promote=Promote(length_ms=draw(LENGTHS)),
        drain=Drain(length_ms=draw(LENGTHS)),
        retire=Retire(unpublish=draw(st.booleans())),
        gates=Gates(samples=draw(st.integers(1, 1_000)), reporters=draw(st.integers(0, 64))),
    )
    check_plan(plan, begun_key())
    return plan


@given(plan=plans(), subjects=st.lists(SUBJECTS, min_size=1, max_size=8))
def test_subjects_go_over_once_in_their_order_and_stay(plan: Plan, subjects: list[bytes]) -> None:
    run = Running(plan)
    subjects.sort()
    over: set[bytes] = set()
    while live(run.rotation) is not None:
        sides = [chosen(run.key, run.rotation, subject) for subject in subjects]
        assert sides == sorted(sides, reverse=True), "a lower subject goes first"
        now_over = {s for s, side in zip(subjects, sides, strict=True) if side == 2}
        assert over <= now_over
        assert served(run.key, run.rotation).issuperset(sides)
        over = now_over
        if not decided(run, GOOD):
            run.now_ms += 1_000
    assert over == set(subjects)


@given(share=st.integers(1, WHOLE_PPM), subject=st.integers(0, 2**64 - 1))
def test_a_share_is_the_share_of_all_subjects(share: int, subject: int) -> None:
    plan = msgspec.structs.replace(
        Running().plan, canary=Canary(share_ppm=share, length_ms=1), ramp=Ramp(steps_ppm=())
    )
    run = Running(plan)
    run.to(Stage.CANARY)
    below = -(-share * 2**64 // WHOLE_PPM)
    side = chosen(run.key, run.rotation, subject.to_bytes(8, "big"))
    assert side == (2 if subject < below else 1)


def decided(run: Running, signals: Signals, wish: Wish = Wish.TICK) -> bool:
    """Let the machine decide, and take what it says."""
    what = asked(wish, run.now_ms, epoch=run.epoch + 1)
    try:
        decision = decide(run.rotation, run.key, what, signals)
    except (Conflict, KeyStateError):
        return False
    if decision is None:
        return False
    run.rotation, run.key, run.epoch = decision.rotation, decision.key, run.epoch + 1
    return True


class Event(NamedTuple):
    """Time passes, the wall clock may show less of it, and somebody asks for something."""

    passed_ms: int
    back_ms: int
    wish: Wish
    signals: Signals


EVENTS = st.builds(
    Event,
    passed_ms=LENGTHS,
    back_ms=st.just(0) | LENGTHS,
    wish=st.sampled_from((*[Wish.TICK] * 4, *set(Wish) - {Wish.TICK})),
    signals=st.sampled_from((GOOD, GOOD, GOOD, BAD, NOTHING_SEEN)),
)


@given(plan=plans(), incident=st.booleans(), events=st.lists(EVENTS, max_size=40))
def test_true_time_is_kept_whatever_the_clock_says(
    plan: Plan, *, incident: bool, events: list[Event]
) -> None:
    """Overlap and drain are never shorter than planned, by a clock that only falls behind."""
    run = Running(plan, incident=incident)
    now, out_of_use = 0, 0
    for event in events:
        now += event.passed_ms
        run.now_ms += event.passed_ms - event.back_ms
        before = run.rollout
        decided(run, event.signals, event.wish)
        if run.rollout.stage is not Stage.PUBLISH:
            assert now >= plan.publish.overlap_ms
        if before.stage is not Stage.DRAIN and run.rollout.stage is Stage.DRAIN:
            out_of_use = now
        if run.rollout.status is Status.FINISHED:
            assert now - out_of_use >= plan.drain.length_ms
            assert run.state(1) is State.DEACTIVATED
            return
        if run.rollout.status is Status.ROLLED_BACK:
            assert not incident
            assert run.key.primary == 1
            assert run.state(2) in {State.SUSPENDED, State.DESTROYED}
            return
        assert run.rotation.unpublished == ()
        assert run.state(1) is State.ACTIVE


@given(plan=plans(), failing=st.integers(0, 12))
def test_a_failure_ends_it_and_none_lets_it_end(plan: Plan, failing: int) -> None:
    run = Running(plan)
    for _ in range(failing):
        if not decided(run, GOOD):
            run.now_ms += 5_000
    used = run.rollout.stage is not Stage.PUBLISH and live(run.rotation) is not None
    if used:
        assert decided(run, BAD)
        assert run.rollout.status is Status.ROLLED_BACK
        return
    for _ in range(20):
        run.now_ms += 5_000
        decided(run, GOOD)
    assert run.rollout.status is Status.FINISHED


# --- what readers keep ---------------------------------------------------------------------------


class Copy(NamedTuple):
    """What a reader fetched: up to which version, and until when it keeps that."""

    newest: int
    until_ms: int


class Turn(NamedTuple):
    """Time passes, a reader fetches, and the key's own plan changes, or a rollout may begin."""

    passed_ms: int
    own: Plan | None
    rollout: Plan | None


TURNS = st.builds(Turn, LENGTHS, st.none() | plans(), st.none() | plans())


@given(own=plans(), turns=st.lists(TURNS, min_size=1, max_size=25))
def test_no_reader_meets_a_version_that_its_copy_does_not_have(
    own: Plan, turns: list[Turn]
) -> None:
    """Readers keep what they fetched as long as they were told then, by whichever plan."""
    key, now = begun_key(), 1
    rotation = rotation_before(key, own)
    copies: list[Copy] = []
    for turn in turns:
        copies.append(Copy(len(key.versions), now + told_ms(key, rotation)))
        if turn.own is not None:
            changed = msgspec.structs.replace(rotation, plan=turn.own)
            rotation = after_telling(rotation, changed, key, now)
        rotation, key = ticked(rotation, key, now)
        if turn.rollout is not None:
            rotation, key = begun(rotation, key, turn.rollout, now)
        for copy in copies:
            if copy.until_ms > now:
                assert max(served(key, rotation)) <= copy.newest
        now += turn.passed_ms


def begun(rotation: Rotation, key: Key, plan: Plan, now: int) -> tuple[Rotation, Key]:
    try:
        decision = begin(
            rotation, key, version_of(key), plan, asked(Wish.RESUME, now), incident=False
        )
    except Conflict:
        return rotation, key
    return decision.rotation, decision.key


def ticked(rotation: Rotation, key: Key, now: int) -> tuple[Rotation, Key]:
    decision = decide(rotation, key, asked(Wish.TICK, now), GOOD)
    return (rotation, key) if decision is None else (decision.rotation, decision.key)
