"""Every verdict of every gate: too little known holds, a figure past its limit fails."""

import msgspec
import pytest

from keystead.keys.lifecycle import Move
from keystead.keys.rollout.gates import NOTHING_SEEN, Seen, Signals, evaluate, failed, holding
from keystead.keys.rollout.model import GateFigure, Stage
from keystead.keys.rollout.plan import Gates
from unit.keys.rollout.places import WAY, at
from unit.keys.rollout.scenes import SAMPLES, with_move
from unit.keys.rollout.states import rollout_of

GATES = Gates(samples=SAMPLES, error_ppm=50_000, p99_percent=300, p99_floor_us=50_000, denied=2)
FEW = Seen(uses=SAMPLES - 1, p99_us=1)
ENOUGH = Seen(uses=SAMPLES, p99_us=20_000)
USING = (Stage.CANARY, Stage.RAMP, Stage.PROMOTE, Stage.DRAIN)


def figures(
    stage: Stage,
    signals: Signals = NOTHING_SEEN,
    *,
    ramp: int = 0,
    gates: Gates = GATES,
    previous: Move | None = None,
) -> dict[str, GateFigure]:
    """All gates at a stage; ``previous``: somebody moved the previous version."""
    key, rotation = at(stage, ramp)
    if previous is not None:
        key = with_move(key, 1, previous)
    rollout = rollout_of(rotation)
    publish = msgspec.structs.replace(rollout.plan.publish, acknowledged_by=("edge", "mesh"))
    plan = msgspec.structs.replace(rollout.plan, gates=gates, publish=publish)
    rollout = msgspec.structs.replace(rollout, plan=plan)
    found = evaluate(rollout, key, signals)
    assert len({figure.gate for figure in found}) == len(found) == 6
    return {figure.gate: figure for figure in found}


def verdicts(
    gate: str, signals: Signals, stages: tuple[Stage, ...] = tuple(Stage)[:5]
) -> list[str]:
    return [figures(stage, signals)[gate].verdict for stage in stages]


def test_after_a_crash_nothing_goes_on_before_it_is_known_again() -> None:
    for stage, ramp in WAY[:-1]:
        found = tuple(figures(stage, ramp=ramp).values())
        assert holding(found), stage
        assert not failed(found), stage
    assert not holding(tuple(figures(Stage.DRAIN).values()))


# --- samples -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uses", "verdict"), [(0, "hold"), (SAMPLES - 1, "hold"), (SAMPLES, "pass")]
)
def test_samples_are_uses_done_since_the_stage_began(uses: int, verdict: str) -> None:
    signals = Signals(stage_next=Seen(uses=uses, errors=100), window_next=Seen(uses=100))
    expected = ["off", verdict, verdict, verdict, "off"]
    assert verdicts("samples", signals) == expected
    figure = figures(Stage.CANARY, signals)["samples"]
    assert (figure.value, figure.limit) == (uses, SAMPLES)


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["window_next", "stage_next"])
@pytest.mark.parametrize(
    ("uses", "errors", "value", "verdict"),
    [
        (19, 1, 50_000, "pass"),
        (18, 1, 52_631, "fail"),
        (0, SAMPLES, 1_000_000, "fail"),
        (SAMPLES - 1, 1, 100_000, "fail"),
        (0, SAMPLES - 1, 0, "pass"),
        (100, 0, 0, "pass"),
    ],
)
def test_errors_count_where_there_are_enough_attempts(
    where: str, uses: int, errors: int, value: int, verdict: str
) -> None:
    signals = msgspec.structs.replace(NOTHING_SEEN, **{where: Seen(uses=uses, errors=errors)})
    for stage in USING:
        figure = figures(stage, signals)["errors"]
        assert (figure.value, figure.verdict, figure.limit) == (value, verdict, 50_000)
        assert figure.samples == uses + errors
    assert figures(Stage.PUBLISH, signals)["errors"].verdict == "off"


def test_too_few_attempts_hold_by_their_samples_however_many_fail() -> None:
    signals = Signals(stage_next=Seen(errors=SAMPLES - 1), stage_previous=ENOUGH)
    found = tuple(figures(Stage.CANARY, signals).values())
    assert not failed(found)
    assert {figure.gate for figure in holding(found)} == {"samples", "p99"}


def test_the_worse_of_window_and_stage_is_told() -> None:
    signals = Signals(window_next=Seen(uses=99, errors=1), stage_next=Seen(uses=980, errors=20))
    figure = figures(Stage.PROMOTE, signals)["errors"]
    assert (figure.value, figure.samples) == (20_000, 1_000)


def test_errors_of_the_previous_version_say_nothing() -> None:
    signals = Signals(window_previous=Seen(errors=100), stage_previous=Seen(errors=100))
    assert figures(Stage.CANARY, signals)["errors"].verdict == "pass"


# --- p99 -----------------------------------------------------------------------------------------


def compared(new_us: int, old_us: int, *, uses: int = SAMPLES) -> Signals:
    new, old = Seen(uses=uses, p99_us=new_us), Seen(uses=uses, p99_us=old_us)
    return Signals(window_next=new, window_previous=old, stage_next=FEW, stage_previous=FEW)


@pytest.mark.parametrize(
    ("new_us", "old_us", "value", "verdict"),
    [
        (60_000, 20_000, 300, "pass"),
        (60_200, 20_000, 301, "fail"),
        (49_999, 1_000, 4_999, "pass"),
        (50_000, 1_000, 5_000, "fail"),
        (90_000, 0, 9_000_000, "fail"),
    ],
)
def test_p99_is_held_against_the_previous_version(
    new_us: int, old_us: int, value: int, verdict: str
) -> None:
    signals = compared(new_us, old_us)
    expected = ["off", verdict, verdict, "off", "off"]
    assert verdicts("p99", signals) == expected
    figure = figures(Stage.CANARY, signals)["p99"]
    assert (figure.value, figure.limit, figure.samples) == (value, 300, SAMPLES)


@pytest.mark.parametrize(("new", "old"), [(FEW, ENOUGH), (ENOUGH, FEW), (FEW, FEW)])
def test_too_few_uses_of_either_version_hold(new: Seen, old: Seen) -> None:
    signals = Signals(window_next=new, window_previous=old, stage_next=new, stage_previous=old)
    slow = msgspec.structs.replace(new, p99_us=10**6)
    for held in (signals, msgspec.structs.replace(signals, window_next=slow, stage_next=slow)):
        assert verdicts("p99", held) == ["off", "hold", "hold", "off", "off"]


def test_a_window_of_too_few_uses_gives_way_to_the_stage() -> None:
    slow, quick = Seen(uses=SAMPLES, p99_us=100_000), Seen(uses=SAMPLES, p99_us=10_000)
    few = Signals(window_next=FEW, window_previous=FEW, stage_next=slow, stage_previous=quick)
    assert figures(Stage.CANARY, few)["p99"].verdict == "fail"
    lately = msgspec.structs.replace(few, window_next=quick, window_previous=quick)
    assert figures(Stage.CANARY, lately)["p99"].verdict == "pass"


def test_a_step_that_leaves_the_previous_version_no_uses_does_not_wait_for_them() -> None:
    alone = Signals(stage_next=ENOUGH, window_next=ENOUGH)
    assert figures(Stage.RAMP, alone, ramp=1)["p99"].verdict == "hold"
    assert figures(Stage.RAMP, alone, ramp=2)["p99"].verdict == "off"
    slow = compared(10**6, 1)
    assert figures(Stage.RAMP, slow, ramp=2)["p99"].verdict == "fail"


@pytest.mark.parametrize("move", [Move.SUSPEND, Move.DEACTIVATE, Move.COMPROMISE])
def test_a_previous_version_that_was_stopped_is_not_compared(move: Move) -> None:
    assert figures(Stage.CANARY, compared(10**6, 1), previous=move)["p99"].verdict == "off"
    assert figures(Stage.CANARY, previous=move)["p99"].verdict == "off"


def test_p99_can_be_off() -> None:
    gates = msgspec.structs.replace(GATES, p99_percent=0)
    assert figures(Stage.CANARY, compared(10**6, 1), gates=gates)["p99"].verdict == "off"


# --- what others say -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "most"), [("reporters", GATES.reporters), ("denied", GATES.denied)]
)
def test_reports_and_denials_are_counted(gate: str, most: int) -> None:
    for value, verdict in ((0, "pass"), (most, "pass"), (most + 1, "fail")):
        signals = msgspec.structs.replace(NOTHING_SEEN, **{gate: value})
        assert verdicts(gate, signals) == ["off", *[verdict] * 4]
        figure = figures(Stage.DRAIN, signals)[gate]
        assert (figure.value, figure.limit) == (value, most)


@pytest.mark.parametrize(
    ("who", "given", "verdict"),
    [
        (set(), 0, "hold"),
        ({"edge"}, 1, "hold"),
        ({"edge", "stranger"}, 1, "hold"),
        ({"edge", "mesh"}, 2, "pass"),
        ({"edge", "mesh", "stranger"}, 2, "pass"),
    ],
)
def test_all_who_were_asked_must_acknowledge(who: set[str], given: int, verdict: str) -> None:
    signals = Signals(acknowledged=frozenset(who))
    assert verdicts("acknowledged", signals) == [verdict, *["off"] * 4]
    figure = figures(Stage.PUBLISH, signals)["acknowledged"]
    assert (figure.value, figure.limit) == (given, 2)


def test_nobody_asked_is_nobody_missing() -> None:
    key, rotation = at(Stage.PUBLISH)
    found = {f.gate: f.verdict for f in evaluate(rollout_of(rotation), key, NOTHING_SEEN)}
    assert set(found.values()) == {"off"}


def test_what_fails_holds_as_well() -> None:
    gates = [
        GateFigure(gate=verdict, verdict=verdict, value=1, limit=1)
        for verdict in ("pass", "hold", "fail", "off")
    ]
    assert [figure.gate for figure in holding(tuple(gates))] == ["hold", "fail"]
    assert [figure.gate for figure in failed(tuple(gates))] == ["fail"]
