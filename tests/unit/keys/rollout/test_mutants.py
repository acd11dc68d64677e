"""The explorer finds what it should: each rule taken away, or bent, is found out by its harm."""

import gc
from collections.abc import Callable, Iterator
from functools import partial

import msgspec
import pytest

from keystead.keys.lifecycle import Move, State
from keystead.keys.model import Key
from keystead.keys.rollout import choosing, machine
from keystead.keys.rollout.gates import Signals
from keystead.keys.rollout.machine import Decision
from keystead.keys.rollout.model import Rotation, Stage, Status, live
from keystead.keys.rollout.table import GUARDS, TABLE, Asked, Guard, Wish
from unit.keys.rollout.explorer import Explorer
from unit.keys.rollout.invariants import Violated
from unit.keys.rollout.scenes import GOOD, NOW, SHARES, asked, plan_of, with_move
from unit.keys.rollout.states import Rules, rollout_of

pytestmark = pytest.mark.slow

PLAN = plan_of(SHARES[2], acknowledged_by=("edge",))


@pytest.fixture(scope="module", autouse=True)
def _no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def caught(rules: Rules, *, incident: bool = False) -> str:
    """The invariant that the rules break."""
    with pytest.raises(Violated) as found:
        Explorer(PLAN, incident=incident, rules=rules).explore()
    assert "0. the rollout begins" in str(found.value)
    return found.value.name


# --- guards --------------------------------------------------------------------------------------

OF_GUARD = {
    Guard.RUNNING: "a decision changes something",
    Guard.HELD: "a decision changes something",
    Guard.NOT_HALTED: "a decision changes something",
    Guard.PUBLISHED: "a stage lasts its length",
    Guard.LENGTH: "a stage lasts its length",
    Guard.GATES: "gates hold",
    Guard.MORE_RAMP: "no act fails",
    Guard.NEXT_READY: "a refusal says why",
    Guard.PREVIOUS_ELIGIBLE: "a person can roll back",
    Guard.GOES_BACK: "incident never goes back",
    Guard.FAILED: "it stops for a failure only",
}
"""The harm that is met first, on the shortest way, without the guard."""


@pytest.mark.parametrize("guard", Guard)
def test_no_guard_can_go(guard: Guard) -> None:
    without = {**GUARDS, guard: lambda _scene: ""}
    rules = Rules(decide=partial(machine.decide, guards=without))
    assert caught(rules, incident=guard is Guard.GOES_BACK) == OF_GUARD[guard]


ROWS = range(len(TABLE))
HARM = r"good signals bring it on|stops in one tick|a person can|every ramp step"
BY_ROW = [(number, guard) for number in ROWS for guard in TABLE[number].guards]


def named(value: object) -> str:
    return f"{value} {TABLE[value].event}" if isinstance(value, int) else str(value)


@pytest.mark.parametrize(("number", "guard"), BY_ROW, ids=named)
def test_no_row_can_go_without_one_of_its_guards(
    number: int, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = TABLE[number]
    guards = tuple(other for other in row.guards if other is not guard)
    bent = msgspec.structs.replace(row, guards=guards)
    monkeypatch.setattr(machine, "TABLE", (*TABLE[:number], bent, *TABLE[number + 1 :]))
    assert caught(Rules(), incident=guard is Guard.GOES_BACK)


@pytest.mark.parametrize("number", ROWS, ids=named)
def test_no_row_can_go(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TABLE", (*TABLE[:number], *TABLE[number + 1 :]))
    with pytest.raises(Violated, match=HARM):  # noqa: PT012  what halts or resumes is met off the way
        Explorer(PLAN).go_straight()
        Explorer(PLAN).explore()


# --- choosing ------------------------------------------------------------------------------------


def rehashed(key: Key, rotation: Rotation | None, subject: bytes) -> int:
    """A subject draws again at each stage."""
    rollout = live(rotation)
    salt = 0 if rollout is None or rollout.stage is Stage.CANARY else 0xFF
    return choosing.chosen(key, rotation, bytes(byte ^ salt for byte in subject))


def eager(key: Key, rotation: Rotation | None, subject: bytes) -> int:
    """The new version signs as soon as it is published."""
    rollout = live(rotation)
    early = rollout is not None and rollout.stage is Stage.PUBLISH and subject == bytes(8)
    return rollout.next if early and rollout else choosing.chosen(key, rotation, subject)


def primary_only(key: Key, _rotation: Rotation | None, _subject: bytes) -> int:
    """Nobody is a canary."""
    return key.primary


def for_good(key: Key, rotation: Rotation | None) -> frozenset[int]:
    """Whatever was served once is served for good."""
    if rotation is None or rotation.rollout is None:
        return frozenset({key.primary})
    rollout = rotation.rollout
    return choosing.served(key, rotation) | {rollout.previous}


def from_the_start(_key: Key, rotation: Rotation | None) -> frozenset[int]:
    """Both versions, at every stage."""
    rollout = rollout_of(rotation) if rotation else None
    return frozenset({rollout.previous, rollout.next} if rollout else ())


@pytest.mark.parametrize(
    ("chosen", "invariant"),
    [
        (rehashed, "a subject goes back at the rollback only"),
        (eager, "I3 chosen is served"),
        (primary_only, "subjects are chosen by share"),
    ],
)
def test_another_choice_is_found_out(
    chosen: Callable[[Key, Rotation | None, bytes], int], invariant: str
) -> None:
    assert caught(Rules(chosen=chosen)) == invariant


@pytest.mark.parametrize(
    ("served", "invariant"),
    [(for_good, "promoted is the only one"), (from_the_start, "I12 published before use")],
)
def test_another_service_is_found_out(
    served: Callable[[Key, Rotation | None], frozenset[int]], invariant: str
) -> None:
    assert caught(Rules(served=served)) == invariant


# --- effects -------------------------------------------------------------------------------------

replace = msgspec.structs.replace


def rollback_leaves_next_active(decision: Decision) -> Decision:
    number = rollout_of(decision.rotation).next
    if decision.step.event != "rolled back" or _state(decision, number) is not State.SUSPENDED:
        return decision
    return replace(decision, key=with_move(decision.key, number, Move.RESUME))


def rollback_keeps_the_primary(decision: Decision) -> Decision:
    rollout = rollout_of(decision.rotation)
    if decision.step.event != "rolled back" or rollout.stage is not Stage.PROMOTE:
        return decision
    return replace(decision, key=replace(decision.key, primary=rollout.next))


def rollback_erases_nothing(decision: Decision) -> Decision:
    return replace(decision, destroyed=())


def no_drain(decision: Decision) -> Decision:
    """Retired as soon as it is promoted for its length."""
    if decision.step.event != "drain":
        return decision
    due = asked(now_ms=NOW + PLAN.drain.length_ms)
    retired = machine.decide(decision.rotation, decision.key, due, GOOD.signals)
    assert retired is not None
    step = replace(retired.step, at_ms=NOW)
    steps = (*rollout_of(retired.rotation).steps[:-1], step)
    rollout = replace(rollout_of(retired.rotation), steps=steps)
    rotation = replace(retired.rotation, rollout=rollout, revision=decision.rotation.revision)
    key = replace(retired.key, revision=decision.key.revision)
    return replace(retired, rotation=rotation, key=key, step=step)


def unpublished_at_the_drain(decision: Decision) -> Decision:
    if decision.step.event != "drain":
        return decision
    gone = (rollout_of(decision.rotation).previous,)
    return replace(decision, rotation=replace(decision.rotation, unpublished=gone))


def pause_counts(decision: Decision) -> Decision:
    """The time of a pause counts for the stage."""
    if decision.step.event != "resumed":
        return decision
    rollout = rollout_of(decision.rotation)
    rollout = replace(rollout, entered_ms=NOW - 2)
    return replace(decision, rotation=replace(decision.rotation, rollout=rollout))


def same_epoch(decision: Decision) -> Decision:
    return replace(decision, key=replace(decision.key, epoch=1))


def no_evidence(decision: Decision) -> Decision:
    rollout = replace(rollout_of(decision.rotation), steps=())
    return replace(decision, rotation=replace(decision.rotation, rollout=rollout))


def _state(decision: Decision, number: int) -> State:
    return decision.key.version(number).state


@pytest.mark.parametrize(
    ("bend", "invariant"),
    [
        (rollback_leaves_next_active, "the lifecycle is kept"),
        (rollback_keeps_the_primary, "I3 rolled back, never again"),
        (rollback_erases_nothing, "what is destroyed is erased"),
        (no_drain, "one stage after the other"),
        (unpublished_at_the_drain, "published until the drain is over"),
        (pause_counts, "a stage lasts its length"),
        (same_epoch, "epochs grow"),
        (no_evidence, "evidence"),
    ],
)
def test_another_effect_is_found_out(bend: Callable[[Decision], Decision], invariant: str) -> None:
    def decide(rotation: Rotation, key: Key, what: Asked, signals: Signals) -> Decision | None:
        decision = machine.decide(rotation, key, what, signals)
        return None if decision is None else bend(decision)

    assert caught(Rules(decide=decide)) == invariant


def test_a_pause_that_hides_failures_is_found_out() -> None:
    def decide(rotation: Rotation, key: Key, what: Asked, signals: Signals) -> Decision | None:
        rollout = live(rotation)
        paused = rollout is not None and rollout.status is Status.PAUSED
        if paused and what.wish is Wish.TICK:
            return None
        return machine.decide(rotation, key, what, signals)

    assert caught(Rules(decide=decide)) == "what fails stops in one tick"


def test_a_violation_tells_the_shortest_way_to_it() -> None:
    without = {**GUARDS, Guard.PUBLISHED: lambda _scene: ""}
    rules = Rules(
        decide=lambda rotation, key, what, signals: (
            None
            if what.wish is Wish.TICK
            else machine.decide(rotation, key, what, signals, guards=without)
        )
    )
    with pytest.raises(
        Violated, match="I12 published before use: published for 0 of 2 ms"
    ) as found:
        Explorer(PLAN, rules=rules).explore()
    way = [line.strip() for line in str(found.value).splitlines()[1:-1]]
    assert way == ["0. the rollout begins", "1. a person: promote"]
