"""How a rollout begins and moves, example by example; all its states are in test_exploration."""

import msgspec
import pytest

from keystead.errors import Conflict, KeyStateError
from keystead.keys.lifecycle import Move, State
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.machine import STEPS_MAX, Decision, decide, due_ms
from keystead.keys.rollout.model import Stage, Status, VerifierRule
from keystead.keys.rollout.plan import Drain, Dual, Retire
from keystead.keys.rollout.table import TABLE, Wish
from unit.keys.rollout.running import Running
from unit.keys.rollout.scenes import (
    CASES,
    NOW,
    PERSON,
    Case,
    asked,
    begun_key,
    plan_of,
    rotation_before,
    version_of,
)

CASE = {case.name: case for case in CASES}
ERRORS, SLOW = CASE["errors"], CASE["slow"]
USING = (Stage.CANARY, Stage.RAMP, Stage.PROMOTE, Stage.DRAIN)
ALL = (Stage.PUBLISH, *USING)
TOO_SOON = "cannot promote the rollout of shop: the new version must stand published for another"
LOST = (Move.SUSPEND, Move.DEACTIVATE, Move.COMPROMISE)


def at(stage: Stage, *, incident: bool = False) -> Running:
    run = Running(incident=incident)
    run.to(stage)
    return run


def check_refused(run: Running, wish: Wish, error: type[Exception], said: str) -> None:
    before = (run.rotation, run.key)
    with pytest.raises(error) as caught:
        run.wish(wish)
    assert str(caught.value).startswith(said)
    assert (run.rotation, run.key) == before


# --- the beginning -------------------------------------------------------------------------------


def test_a_rollout_begins_with_its_version_published_and_unused() -> None:
    run = Running()
    rollout = run.rollout
    assert (rollout.number, rollout.previous, rollout.next) == (1, 1, 2)
    assert run.place == (Stage.PUBLISH, Status.RUNNING)
    assert (run.key.primary, run.state(1), run.state(2)) == (1, State.ACTIVE, State.PRE_ACTIVATION)
    [step] = rollout.steps
    assert (step.event, step.by, step.reason, step.at_ms) == ("publish", PERSON, "a test", NOW)
    assert (run.rotation.revision, run.key.revision) == (1, 2)


def test_a_new_algorithm_joins_those_that_the_key_may_use() -> None:
    run = Running()
    run.wish(Wish.ROLL_BACK)
    version = msgspec.structs.replace(version_of(run.key), algorithm="ecdsa-p256-sha256")
    run.begin(version=version)
    assert run.key.algorithms == ("ed25519", "ecdsa-p256-sha256")
    run.wish(Wish.ROLL_BACK)
    run.begin()
    assert run.key.algorithms == ("ed25519", "ecdsa-p256-sha256")
    assert (run.rollout.number, run.rollout.previous, run.rollout.next) == (3, 1, 4)


@pytest.mark.parametrize("wish", [None, Wish.PAUSE])
def test_one_rollout_at_a_time(wish: Wish | None) -> None:
    run = at(Stage.CANARY)
    if wish:
        run.wish(wish)
    with pytest.raises(Conflict, match="rollout 1 of shop is under way, at canary"):
        run.begin()


def test_what_cannot_begin() -> None:
    run = Running()
    run.wish(Wish.ROLL_BACK)
    with pytest.raises(Conflict, match="another version meanwhile"):
        run.begin(version=run.key.versions[-1])
    slack = msgspec.structs.replace(run.plan.publish, overlap_ms=0)
    with pytest.raises(Conflict, match=r"expected publish\.overlap"):
        run.begin(plan=msgspec.structs.replace(run.plan, publish=slack))
    run.without_primary()
    with pytest.raises(KeyStateError, match="no primary version"):
        run.begin()


# --- the way -------------------------------------------------------------------------------------


def test_the_whole_way() -> None:
    run = Running(plan_of((300_000, 600_000)))
    met = []
    for _ in range(40):
        event = run.tick(1)
        if event:
            met.append((event, run.now_ms - NOW, run.rollout.ramp, run.key.primary))
    assert met == [
        ("canary", 2, 0, 1),
        ("ramp", 3, 0, 1),
        ("ramp", 4, 1, 1),
        ("promote", 5, 1, 2),
        ("drain", 6, 1, 2),
        ("retire", 8, 1, 2),
    ]
    assert run.place == (Stage.RETIRE, Status.FINISHED)
    assert (run.state(1), run.state(2)) == (State.DEACTIVATED, State.ACTIVE)
    assert run.rotation.unpublished == (1,)
    assert run.rotation.promoted_ms == NOW + 5
    assert {step.by for step in run.rollout.steps[1:]} == {"rollout"}
    assert all(step.figures for step in run.rollout.steps[1:])


def test_without_a_ramp_the_canary_is_promoted() -> None:
    run = Running(plan_of(()))
    run.to(Stage.CANARY)
    assert run.tick(1) == "promote"


def test_what_is_verified_for_years_stays_published() -> None:
    plan = msgspec.structs.replace(plan_of(), retire=Retire(unpublish=False))
    run = Running(plan)
    run.to(Stage.RETIRE)
    assert run.rotation.unpublished == ()
    assert run.state(1) is State.DEACTIVATED


@pytest.mark.parametrize("stage", ALL)
def test_a_stage_is_due_when_its_length_is_over(stage: Stage) -> None:
    run = at(stage)
    length = 2 if stage in {Stage.PUBLISH, Stage.DRAIN} else 1
    assert due_ms(run.rollout) == run.now_ms + length
    assert run.tick(length - 1) == ""
    assert run.tick(1) != ""


def test_samples_hold_a_stage_however_long_it_lasts() -> None:
    run = at(Stage.CANARY)
    assert run.tick(10_000, None) == ""
    assert run.tick(0) == "ramp"


def test_a_clock_that_jumps_back_only_makes_it_later() -> None:
    run = Running()
    assert run.tick(-500) == ""
    assert run.tick(501) == ""
    assert run.tick(1) == "canary"


def test_a_tick_of_nothing_is_nothing() -> None:
    key = begun_key()
    before = rotation_before(key, plan_of())
    assert decide(before, key, asked(), CASES[0].signals) is None
    for wish in set(Wish) - {Wish.TICK}:
        with pytest.raises(Conflict, match="no rollout of shop is under way"):
            decide(before, key, asked(wish), CASES[0].signals)


# --- pauses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ALL)
def test_the_time_of_a_pause_does_not_count(stage: Stage) -> None:
    run = at(stage)
    length = due_ms(run.rollout) - run.now_ms
    run.tick(length - 1)
    for _ in range(3):
        run.wish(Wish.PAUSE)
        assert run.tick(1_000) == ""
        run.wish(Wish.RESUME, after_ms=1_000)
        assert run.tick() == ""
    assert run.tick(1) != ""


def test_a_halt_in_a_pause_does_not_count_either() -> None:
    run = at(Stage.CANARY, incident=True)
    run.wish(Wish.PAUSE)
    assert run.tick(100, ERRORS) == "halted"
    assert run.tick(100, ERRORS) == ""
    run.wish(Wish.RESUME, after_ms=100)
    assert run.rollout.entered_ms == run.now_ms
    assert run.tick() == ""
    assert run.tick(1) == "ramp"


@pytest.mark.parametrize("stage", USING)
def test_a_pause_does_not_stop_what_fails(stage: Stage) -> None:
    run = at(stage)
    run.wish(Wish.PAUSE)
    assert run.tick(0, ERRORS) == "rolled back"


# --- back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [ERRORS, CASE["reports"], CASE["denials"], SLOW])
@pytest.mark.parametrize("stage", USING)
def test_what_fails_goes_back_at_once(stage: Stage, case: Case) -> None:
    run = at(stage)
    slow_late = case is SLOW and stage in {Stage.PROMOTE, Stage.DRAIN}
    if slow_late:
        assert run.tick(0, case) == ""
        return
    assert run.tick(0, case) == "rolled back"
    assert run.place == (stage, Status.ROLLED_BACK)
    assert (run.key.primary, run.state(1), run.state(2)) == (1, State.ACTIVE, State.SUSPENDED)
    step = run.rollout.steps[-1]
    assert [figure.verdict for figure in step.figures].count("fail") == 1
    promoted = stage in {Stage.PROMOTE, Stage.DRAIN}
    assert run.rotation.promoted_ms == (run.now_ms if promoted else 0)
    assert run.tick(10_000) == ""


@pytest.mark.parametrize("stage", ALL)
def test_a_person_can_go_back_from_everywhere(stage: Stage) -> None:
    run = at(stage)
    decision = run.wish(Wish.ROLL_BACK)
    assert run.place == (stage, Status.ROLLED_BACK)
    assert run.key.primary == 1
    unused = stage is Stage.PUBLISH
    assert run.state(2) is (State.DESTROYED if unused else State.SUSPENDED)
    assert decision.destroyed == ((2,) if unused else ())
    assert decision.step.by == PERSON


@pytest.mark.parametrize("stage", USING)
@pytest.mark.parametrize("move", LOST)
def test_a_new_version_that_is_stopped_goes_back(stage: Stage, move: Move) -> None:
    run = at(stage)
    run.move(2, move)
    stopped = run.state(2)
    assert run.tick() == "rolled back"
    assert (run.key.primary, run.state(2)) == (1, stopped)


@pytest.mark.parametrize("move", [Move.COMPROMISE, Move.DESTROY])
def test_a_new_version_that_is_lost_before_its_use_goes_back(move: Move) -> None:
    run = Running()
    run.move(2, move)
    stopped = run.state(2)
    assert run.tick() == "rolled back"
    assert (run.key.primary, run.state(2)) == (1, stopped)


@pytest.mark.parametrize("stage", USING)
@pytest.mark.parametrize("move", LOST)
def test_no_way_back_to_a_version_that_is_stopped(stage: Stage, move: Move) -> None:
    run = at(stage)
    run.move(1, move)
    check_refused(
        run,
        Wish.ROLL_BACK,
        KeyStateError,
        f"cannot roll back the rollout of shop: version 1 is {run.state(1)}",
    )
    assert run.tick(0, ERRORS) == "halted"
    assert run.tick(0, ERRORS) == ""
    assert run.place == (stage, Status.HALTED)


@pytest.mark.parametrize("stage", USING)
def test_a_rollout_goes_on_without_its_previous_version(stage: Stage) -> None:
    run = at(stage)
    run.move(1, Move.COMPROMISE)
    run.to(Stage.RETIRE)
    assert run.state(1) is State.COMPROMISED
    assert run.rotation.unpublished == (1,)


def test_a_suspended_previous_version_is_retired_too() -> None:
    run = at(Stage.DRAIN)
    run.move(1, Move.SUSPEND)
    run.to(Stage.RETIRE)
    assert run.state(1) is State.DEACTIVATED


# --- incidents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", USING)
def test_an_incident_halts_and_never_goes_back(stage: Stage) -> None:
    run = at(stage, incident=True)
    primary = run.key.primary
    assert run.tick(0, ERRORS) == "halted"
    assert run.tick(10_000, ERRORS) == run.tick(10_000) == ""
    check_refused(
        run,
        Wish.ROLL_BACK,
        Conflict,
        "cannot roll back the rollout of shop: it began as an incident: it never goes back",
    )
    assert run.key.primary == primary
    run.wish(Wish.RESUME)
    assert run.place == (stage, Status.RUNNING)


def test_an_incident_is_not_called_off_before_its_use_either() -> None:
    run = Running(incident=True)
    check_refused(run, Wish.ROLL_BACK, Conflict, "cannot roll back the rollout of shop")


# --- by hand -------------------------------------------------------------------------------------


def test_nobody_promotes_before_the_overlap_is_over() -> None:
    run = Running()
    run.now_ms += 1
    check_refused(run, Wish.PROMOTE, Conflict, TOO_SOON)
    run.move(1, Move.COMPROMISE)  # which is no reason, whatever the hurry
    check_refused(
        run, Wish.PROMOTE, Conflict, "cannot promote the rollout of shop: the new version"
    )
    run.wish(Wish.PROMOTE, after_ms=1)
    assert run.place == (Stage.PROMOTE, Status.RUNNING)
    assert (run.key.primary, run.state(2)) == (2, State.ACTIVE)


def test_a_pause_of_the_overlap_does_not_publish_for_longer() -> None:
    run = Running()
    run.wish(Wish.PAUSE)
    run.now_ms += 1_000
    check_refused(
        run, Wish.PROMOTE, Conflict, "cannot promote the rollout of shop: the new version"
    )


@pytest.mark.parametrize("stage", [Stage.CANARY, Stage.RAMP])
@pytest.mark.parametrize("held", [None, Wish.PAUSE])
def test_a_person_promotes_without_waiting_for_gates(stage: Stage, held: Wish | None) -> None:
    run = at(stage)
    if held:
        run.wish(held)
    run.wish(Wish.PROMOTE)
    assert run.place == (Stage.PROMOTE, Status.RUNNING)
    assert (run.rollout.entered_ms, run.rollout.paused_ms) == (run.now_ms, 0)
    assert run.rotation.promoted_ms == run.now_ms


@pytest.mark.parametrize("move", LOST)
def test_nobody_promotes_a_version_that_is_stopped(move: Move) -> None:
    run = at(Stage.CANARY, incident=True)
    run.move(2, move)
    said = f"cannot promote the rollout of shop: version 2 is {run.state(2)}"
    check_refused(run, Wish.PROMOTE, KeyStateError, said)


@pytest.mark.parametrize(
    ("stage", "wish", "said"),
    [
        (Stage.PROMOTE, Wish.PROMOTE, "cannot promote the rollout of shop: it is at promote"),
        (Stage.DRAIN, Wish.PROMOTE, "cannot promote the rollout of shop: it is at drain"),
        (Stage.CANARY, Wish.RESUME, "cannot resume the rollout of shop: it is running, not paused"),
        (Stage.RETIRE, Wish.PAUSE, "no rollout of shop is under way"),
        (Stage.RETIRE, Wish.ROLL_BACK, "no rollout of shop is under way"),
    ],
)
def test_refusals(stage: Stage, wish: Wish, said: str) -> None:
    check_refused(at(stage), wish, Conflict, said)


def test_refusals_of_what_waits_already() -> None:
    run = at(Stage.CANARY, incident=True)
    run.wish(Wish.PAUSE)
    check_refused(run, Wish.PAUSE, Conflict, "cannot pause the rollout of shop: it is paused")
    run.tick(0, ERRORS)
    check_refused(run, Wish.PAUSE, Conflict, "cannot pause the rollout of shop: it is halted")


def test_a_refusal_is_about_states_only_where_they_are_the_reason() -> None:
    run = at(Stage.CANARY)
    run.move(1, Move.COMPROMISE)
    check_refused(run, Wish.RESUME, Conflict, "cannot resume the rollout of shop: it is running")


# --- versions that others moved ------------------------------------------------------------------


@pytest.mark.parametrize("wish", [Wish.TICK, Wish.PROMOTE])
def test_a_new_version_that_somebody_activated_is_used_as_any_other(wish: Wish) -> None:
    dual = Dual(rule="any", window_ms=50)
    run = Running(msgspec.structs.replace(plan_of(), dual=dual))
    run.move(2, Move.ACTIVATE)
    assert run.tick(1) == ""
    if wish is Wish.TICK:
        assert run.tick(1) == "canary"
    else:
        run.wish(wish, after_ms=1)
    assert run.state(2) is State.ACTIVE
    assert run.rotation.rules == (VerifierRule(version=2, until_ms=run.now_ms + 50),)


def test_a_new_version_that_somebody_activated_is_stopped_by_the_way_back() -> None:
    run = Running()
    run.move(2, Move.ACTIVATE)
    assert run.wish(Wish.ROLL_BACK).destroyed == ()
    assert run.state(2) is State.SUSPENDED


# --- the verifier's rule -------------------------------------------------------------------------


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_dual_version_has_its_rule_from_its_first_use(*, by_hand: bool) -> None:
    run = Running(msgspec.structs.replace(plan_of(), dual=Dual(rule="any", window_ms=50)))
    assert not run.rotation.rules
    run.now_ms += 2
    if by_hand:
        run.wish(Wish.PROMOTE)
    else:
        run.to(Stage.CANARY)
    until = run.now_ms + 50
    assert run.rotation.rules == (VerifierRule(version=2, until_ms=until),)
    run.to(Stage.RETIRE)
    assert run.rotation.rules == (VerifierRule(version=2, until_ms=until),)


def test_both_is_no_rule() -> None:
    run = at(Stage.RETIRE)
    assert run.rotation.rules == ()


# --- a halted rollout's place --------------------------------------------------------------------


def halted_at(stage: Stage) -> Running:
    run = at(stage, incident=True)
    assert run.tick(0, ERRORS) == "halted"
    return run


@pytest.mark.parametrize(
    ("stage", "primary", "other", "state"),
    [
        (Stage.CANARY, 1, 2, State.SUSPENDED),
        (Stage.RAMP, 1, 2, State.SUSPENDED),
        (Stage.PROMOTE, 2, 1, State.DEACTIVATED),
        (Stage.DRAIN, 2, 1, State.DEACTIVATED),
    ],
)
def test_a_new_rollout_in_a_halted_ones_place_stops_the_other_version(
    stage: Stage, primary: int, other: int, state: State
) -> None:
    run = halted_at(stage)
    decision = run.begin(incident=True)
    rollout = run.rollout
    assert (rollout.number, rollout.previous, rollout.next) == (2, primary, 3)
    assert run.place == (Stage.PUBLISH, Status.RUNNING)
    assert (run.state(other), run.state(primary)) == (state, State.ACTIVE)
    assert decision.destroyed == ()
    run.to(Stage.RETIRE)
    assert (run.key.primary, run.state(primary)) == (3, State.DEACTIVATED)


@pytest.mark.parametrize("move", LOST)
def test_what_was_stopped_already_stays_as_it_is(move: Move) -> None:
    run = halted_at(Stage.CANARY)
    run.move(2, move)
    stopped = run.state(2)
    run.begin()
    assert run.state(2) is stopped


# --- evidence ------------------------------------------------------------------------------------


def test_a_rollout_keeps_its_last_steps() -> None:
    run = at(Stage.CANARY)
    for _ in range(STEPS_MAX):
        run.wish(Wish.PAUSE)
        run.wish(Wish.RESUME)
    steps = run.rollout.steps
    assert len(steps) == STEPS_MAX
    assert steps[-1].event == "resumed"
    assert [step.epoch for step in steps] == list(range(run.epoch - STEPS_MAX + 1, run.epoch + 1))


def test_every_row_has_been_taken_here() -> None:
    events: set[str] = set()
    for stage in USING:
        for run in (at(stage), at(stage, incident=True)):
            run.wish(Wish.PAUSE)
            run.wish(Wish.RESUME)
            run.tick(0, ERRORS)
            events.update(step.event for step in run.rollout.steps)
    events.update(step.event for step in at(Stage.RETIRE).rollout.steps)
    assert events == {row.event for row in TABLE} | {"publish"}


def test_deciding_changes_nothing_by_itself() -> None:
    run = at(Stage.CANARY)
    what = asked(Wish.ROLL_BACK, run.now_ms, epoch=run.epoch + 1)
    first, second = (decide(run.rotation, run.key, what, CASES[0].signals) for _ in range(2))
    assert isinstance(first, Decision)
    assert first == second
    assert run.place == (Stage.CANARY, Status.RUNNING)


# --- what it waits for ---------------------------------------------------------------------------


def test_what_a_rollout_waits_for() -> None:
    long = msgspec.structs.replace(
        plan_of(acknowledged_by=("edge",)), drain=Drain(length_ms=90_000)
    )
    run = Running(long)
    assert run.waits(CASE["nobody acknowledged"])[1:] == ("gate acknowledged: 0 of 1",)
    assert "published for another" in run.waits()[0]
    run.to(Stage.CANARY)
    run.now_ms += 1
    assert run.waits() == ()
    assert run.waits(ERRORS) == ("gate samples: 9 of 10, gate errors failed, gate p99: 100 of 300",)
    run.wish(Wish.PAUSE)
    assert run.waits() == ("it is paused",)
    run.wish(Wish.RESUME)
    run.to(Stage.DRAIN)
    assert run.waits() == ("the stage lasts another 90 s",)
    run.tick(90_000)
    assert run.place == (Stage.RETIRE, Status.FINISHED)
    assert run.waits() == ()


def test_certificates_of_both_versions_are_rolled_out_alike() -> None:
    run = Running(purpose=Purpose.TLS)
    run.to(Stage.RETIRE)
    assert (run.key.primary, run.state(1)) == (2, State.DEACTIVATED)
