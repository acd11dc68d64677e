"""Every check of a rotation drill: held by a node that does as it should, broken by each harm."""

from collections.abc import Callable

import msgspec
import pytest

from keystead.drills.findings import Check
from keystead.drills.rotation.expected import ALL, WORK_MS, checks
from keystead.drills.rotation.lengths import ROUND_MS
from keystead.drills.rotation.trace import Act, Trace
from keystead.keys.rollout.commands import EvidenceInfo
from keystead.keys.rollout.model import Rollout, Step
from unit.drills.played import Played

Harm = Callable[[Trace], None]


def broken(trace: Trace) -> set[tuple[str, str]]:
    return {(one.act, one.what) for one in checks(trace) if not one.held}


def act(trace: Trace, name: str) -> Act:
    return next(one for one in trace.acts if one.name == name)


def with_rollout(trace: Trace, name: str, change: Callable[[Rollout], Rollout]) -> None:
    evidence = act(trace, name).rollouts[0]
    changed = msgspec.structs.replace(evidence, rollout=change(evidence.rollout))
    act(trace, name).rollouts[0] = changed


def with_steps(trace: Trace, name: str, change: Callable[[Step], Step]) -> None:
    def changed(rollout: Rollout) -> Rollout:
        return msgspec.structs.replace(rollout, steps=tuple(map(change, rollout.steps)))

    with_rollout(trace, name, changed)


def without_reports(evidence: EvidenceInfo) -> EvidenceInfo:
    return msgspec.structs.replace(evidence, reports=evidence.reports[:1])


def test_all_hold_of_a_node_that_does_as_it_should() -> None:
    found = list(checks(Played().whole()))
    assert [one for one in found if not one.held] == []
    assert {one.act for one in found} == {"healthy", "fault", "incident", ALL}
    assert len({(one.act, one.what) for one in found}) == len(found)
    assert all(one.expected and one.met for one in found)


# --- one harm, and the checks that must see it ---------------------------------------------------


def skip_the_ramp(trace: Trace) -> None:
    def without(rollout: Rollout) -> Rollout:
        steps = tuple(step for step in rollout.steps if step.event != "drain")
        return msgspec.structs.replace(rollout, steps=steps)

    with_rollout(trace, "healthy", without)


def end_the_canary_early(trace: Trace) -> None:
    def earlier(step: Step) -> Step:
        hurried = step.event == "ramp" and step.ramp == 0
        return msgspec.structs.replace(step, at_ms=step.at_ms - 2_000 * hurried)

    with_steps(trace, "healthy", earlier)


def sign_before_the_overlap(trace: Trace) -> None:
    trace.signed[0].version = 2


def give_the_canary_everything(trace: Trace) -> None:
    healthy = act(trace, "healthy").rollouts[0].rollout
    canary = next(step.epoch for step in healthy.steps if step.event == "canary")
    for token in trace.signed:
        if token.epoch == canary:
            token.version = 2


def send_one_context_back(trace: Trace) -> None:
    healthy = act(trace, "healthy").rollouts[0].rollout
    ramp = [step.epoch for step in healthy.steps if step.event == "ramp"]
    canary = next(step.epoch for step in healthy.steps if step.event == "canary")
    moved = next(t.context for t in trace.signed if t.epoch == canary and t.version == 2)
    for token in trace.signed:
        if token.epoch == ramp[0] and token.context == moved:
            token.version = 1


def sign_by_the_old_after_promotion(trace: Trace) -> None:
    healthy = act(trace, "healthy").rollouts[0].rollout
    drain = next(step.epoch for step in healthy.steps if step.event == "drain")
    next(token for token in trace.signed if token.epoch == drain).version = 1


def keep_the_old_active(trace: Trace) -> None:
    act(trace, "healthy").states[1] = "active"


def go_back_after_one_report(trace: Trace) -> None:
    act(trace, "fault").stood = "rolled_back"


def decide_too_late(trace: Trace) -> None:
    late_ms = ROUND_MS + WORK_MS

    def later(step: Step) -> Step:
        return msgspec.structs.replace(
            step, at_ms=step.at_ms + late_ms * (step.event == "rolled back")
        )

    with_steps(trace, "fault", later)


def decide_for_another_reason(trace: Trace) -> None:
    with_steps(trace, "fault", lambda step: msgspec.structs.replace(step, figures=()))


def sign_after_the_rollback(trace: Trace) -> None:
    fault = act(trace, "fault").rollouts[0].rollout
    back = fault.steps[-1].epoch
    next(token for token in trace.signed if token.epoch == back).version = fault.next


def record_one_behind_the_rollback(trace: Trace) -> None:
    fault = act(trace, "fault").rollouts[0].rollout
    place = next(f.seq for f in trace.found if f.operation == "rollout.rolled_back")
    cited = {told.cited for told in act(trace, "fault").told}
    of_new = [token for token in trace.signed if token.version == fault.next]
    last = next(token for token in reversed(of_new) if token.seq not in cited)
    other = next(token for token in trace.signed if token.seq > place)
    last.seq, other.seq = other.seq, last.seq


def keep_the_old_published(trace: Trace) -> None:
    act(trace, "healthy").published.append(1)


def unpublish_what_went_back(trace: Trace) -> None:
    act(trace, "fault").published.remove(3)


def lose_reports(trace: Trace) -> None:
    fault = act(trace, "fault")
    fault.rollouts[0] = without_reports(fault.rollouts[0])


def cite_another_version(trace: Trace) -> None:
    fault = act(trace, "fault")
    evidence = fault.rollouts[0]
    wrong = tuple(msgspec.structs.replace(report, seq=0) for report in evidence.reports)
    fault.rollouts[0] = msgspec.structs.replace(evidence, reports=wrong)


def move_while_halted(trace: Trace) -> None:
    act(trace, "incident").halts[1] = "running"


def take_an_incident_back(trace: Trace) -> None:
    act(trace, "incident").refused = ""


def find_no_good_version(trace: Trace) -> None:
    act(trace, "incident").rollouts.pop()


def fail_a_request(trace: Trace) -> None:
    trace.failures.append("drill/cafe/001: the vault is away")


def fail_to_verify(trace: Trace) -> None:
    trace.signed[5].early = False


def fail_to_verify_late(trace: Trace) -> None:
    trace.signed[5].late = None


def meet_an_unknown_key(trace: Trace) -> None:
    trace.unknown = 1


def never_ask_again(trace: Trace) -> None:
    trace.unchanged = 0


def lose_a_record(trace: Trace) -> None:
    trace.counted[2] -= 1


def lose_the_record_of_a_step(trace: Trace) -> None:
    trace.found = [record for record in trace.found if record.operation != "rollout.promote"]


def give_up(trace: Trace) -> None:
    act(trace, "fault").gave_up = "expected 2 reports, met 1"


def never_come_to_the_incident(trace: Trace) -> None:
    trace.acts = trace.acts[:2]


FLIPS, SHARES = "no context flips", "shares only grow"
HARMS: dict[Harm, set[tuple[str, str]]] = {
    skip_the_ramp: {("healthy", "stages")},
    end_the_canary_early: {("healthy", "lengths")},
    sign_before_the_overlap: {
        ("healthy", "tokens before the overlap was over (I12)"),
        ("healthy", FLIPS),
        (ALL, "records of tokens (I2)"),
    },
    give_the_canary_everything: {
        ("healthy", "share at canary 20 %"),
        ("healthy", SHARES),
        ("healthy", FLIPS),
        (ALL, "records of tokens (I2)"),
    },
    send_one_context_back: {
        ("healthy", SHARES),
        ("healthy", FLIPS),
        (ALL, "records of tokens (I2)"),
    },
    sign_by_the_old_after_promotion: {
        ("healthy", FLIPS),
        ("healthy", "tokens after promotion"),
        (ALL, "records of tokens (I2)"),
    },
    keep_the_old_active: {("healthy", "at its end")},
    go_back_after_one_report: {("fault", "1.5 s after one report")},
    decide_too_late: {("fault", "rolled back after the second report")},
    decide_for_another_reason: {("fault", "rolled back after the second report")},
    sign_after_the_rollback: {
        ("fault", "tokens of the new version after it (I4)"),
        (ALL, "records of tokens (I2)"),
    },
    record_one_behind_the_rollback: {("fault", "tokens of the new version after it (I4)")},
    keep_the_old_published: {("healthy", "at its end")},
    unpublish_what_went_back: {("fault", "at its end")},
    lose_reports: {
        ("fault", "reports in the evidence"),
        ("fault", "rolled back after the second report"),
    },
    cite_another_version: {("fault", "reports in the evidence")},
    move_while_halted: {("incident", "after the halt")},
    take_an_incident_back: {("incident", "asked to go back")},
    find_no_good_version: {("incident", "a good version"), ("incident", FLIPS)},
    fail_a_request: {(ALL, "requests that failed")},
    fail_to_verify: {(ALL, "tokens verified at once")},
    fail_to_verify_late: {(ALL, "tokens verified at the end of their life")},
    meet_an_unknown_key: {(ALL, "tokens of unknown key ids (I12)")},
    never_ask_again: {(ALL, "tokens of unknown key ids (I12)")},
    lose_a_record: {(ALL, "records of tokens (I2)")},
    lose_the_record_of_a_step: {(ALL, "records of the steps")},
    give_up: {("fault", "the act")},
    never_come_to_the_incident: {("incident", "the act")},
}


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_each_harm_is_seen_by_its_checks(harm: Harm) -> None:
    trace = Played().whole()
    harm(trace)
    assert broken(trace) == HARMS[harm]


def test_nothing_played_is_no_success() -> None:
    found: list[Check] = list(checks(Trace(run="cafe", key="drill-cafe")))
    assert found
    assert not any(one.held for one in found if one.what != "tokens of unknown key ids (I12)")
