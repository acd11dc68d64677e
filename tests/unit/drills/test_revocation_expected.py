"""The checks of a drill of revocations: each holds for good nodes, and fails for its own fault."""

from collections.abc import Callable

import msgspec
import pytest

from keystead.drills.findings import Check
from keystead.drills.revocation.expected import USES_MOST, checks
from keystead.drills.revocation.trace import OK, Trace
from keystead.keys.reservations import BOUND_MS
from unit.drills.revoked import MS, change_stop, change_use, place_of, played


def failing(trace: Trace) -> list[tuple[str, str]]:
    return [(one.act, one.what) for one in checks(trace) if not one.held]


def found(trace: Trace, what: str) -> Check:
    [one] = [one for one in checks(trace) if one.what == what]
    return one


@pytest.mark.parametrize("nodes", [("a",), ("a", "b")])
def test_good_nodes_pass_every_check(nodes: tuple[str, ...]) -> None:
    assert failing(played(nodes=nodes)) == []
    assert {one.act for one in checks(played(nodes=nodes))} == {"durable", "best effort", "all"}


def test_a_drill_that_saw_nothing_passes_none_that_could_be_passed_by_chance() -> None:
    trace = played()
    empty = Trace(run="cafe", fronts=trace.fronts, targets=trace.targets)
    zero = {"answered, begun after the acknowledgement", "on their way out at the acknowledgement"}
    assert {one.what for one in checks(empty) if one.held} == zero


# --- one fault each -------------------------------------------------------------------------------


def record_behind(trace: Trace) -> None:
    """The commit fence is not held on the other node."""
    place = place_of(trace, "durable")
    use = trace.uses[place]
    at = next(n for n, one in enumerate(trace.recorded) if one.request == use.request)
    epoch = trace.stopped[use.target].epoch
    trace.recorded[at] = msgspec.structs.replace(trace.recorded[at], epoch=epoch)


def answered_after(trace: Trace) -> None:
    """A vault that has not heard of it goes on, and its front's clock is this machine's."""
    place = place_of(trace, "durable")
    at = trace.stopped[trace.uses[place].target].answered_ns + MS
    change_use(trace, place, began_ns=at, ended_ns=at + MS)


def out_behind(trace: Trace) -> None:
    """An answer comes out late that was committed behind the revocation."""
    place = place_of(trace, "durable")
    one = trace.stopped[trace.uses[place].target]
    change_use(trace, place, ended_ns=one.answered_ns + MS, epoch=one.epoch)


def stored_given_out(trace: Trace) -> None:
    change_use(trace, place_of(trace, "durable", "again", "refused"), outcome=OK)


def not_over(trace: Trace) -> None:
    change_use(trace, place_of(trace, "durable", "last", "refused"), outcome="overloaded")


def record_missing(trace: Trace) -> None:
    use = trace.uses[place_of(trace, "durable")]
    trace.recorded = [one for one in trace.recorded if one.request != use.request]


def too_slow(trace: Trace) -> None:
    for place, one in enumerate(trace.stopped):
        late = one.sent_ns + round(5 * MS * USES_MOST) + MS
        change_stop(trace, place, answered_ns=late)


def lease_too_long(trace: Trace) -> None:
    """A node goes on for longer than a reservation lives, before the acknowledgement."""
    place = place_of(trace, "best_effort")
    target = trace.uses[place].target
    one = trace.stopped[target]
    end = one.committed_ns + (BOUND_MS + 1) * MS
    change_stop(trace, target, answered_ns=end + MS)
    change_use(trace, place, ended_ns=end)


def told_too_early(trace: Trace) -> None:
    """The acknowledgement goes out while another node may still answer."""
    place = place_of(trace, "best_effort")
    at = trace.stopped[trace.uses[place].target].answered_ns + MS
    change_use(trace, place, began_ns=at, ended_ns=at + MS)


def figures_left_out(trace: Trace) -> None:
    change_stop(trace, 1, ended_ms=None)


def never_answered_first(trace: Trace) -> None:
    """Every use waited for its commit: the bound was not tried."""
    for place, use in enumerate(trace.uses):
        if use.ack == "best_effort" and use.front == 1 and use.target == 1:
            change_use(trace, place, ack="durable")


def gave_up(trace: Trace) -> None:
    trace.gave_up = "target 7 was not over"


def out_of_use(trace: Trace) -> None:
    """The load of the second front stood still."""
    for place, use in enumerate(trace.uses):
        if use.target == 0 and use.front == 1 and use.outcome == OK:
            change_use(
                trace, place, began_ns=use.began_ns - 2_000 * MS, ended_ns=use.began_ns - MS * 1_900
            )


def epoch_again(trace: Trace) -> None:
    change_stop(trace, 0, epoch=trace.stopped[1].epoch)


def another_record(trace: Trace) -> None:
    trace.changes[3] = msgspec.structs.replace(trace.changes[3], own=False)


def refused_otherwise(trace: Trace) -> None:
    change_use(trace, place_of(trace, "durable", "hot", "refused"), outcome="log_unavailable")


def neighbour_stopped(trace: Trace) -> None:
    place = next(n for n, use in enumerate(trace.uses) if use.how == "steady")
    change_use(trace, place, outcome="handle_revoked")


FAULTS: list[tuple[Callable[[Trace], None], set[tuple[str, str]]]] = [
    (record_behind, {("durable", "records of uses at or behind the revocation's epoch (I4)")}),
    (answered_after, {("durable", "answered, begun after the acknowledgement")}),
    (out_behind, {("durable", "on their way out at the acknowledgement")}),
    (stored_given_out, {("durable", "stored answers asked for again (I6)")}),
    (
        not_over,
        {("durable", "tried again at the end"), ("all", "refusals")},
    ),
    (record_missing, {("durable", "answers without a record (I2)")}),
    (too_slow, {("durable", "median acknowledgement, in median uses of the same keys")}),
    (lease_too_long, {("best effort", "from a commit to the last answer, the worst")}),
    (told_too_early, {("best effort", "answered, begun after the acknowledgement")}),
    (figures_left_out, {("best effort", "the answers tell both figures")}),
    (never_answered_first, {("best effort", "answered before their records")}),
    (gave_up, {("all", "revocations")}),
    (out_of_use, {("all", "in use on every front when it was stopped")}),
    (
        epoch_again,
        {
            ("all", "epochs of the revocations"),
            ("all", "records that the answers name"),
        },
    ),
    (another_record, {("all", "records that the answers name")}),
    (refused_otherwise, {("all", "refusals")}),
    (neighbour_stopped, {("all", "uses of other handles of the same keys")}),
]


@pytest.mark.parametrize(("fault", "caught"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_each_fault_fails_its_own_check_and_no_other(
    fault: Callable[[Trace], None], caught: set[tuple[str, str]]
) -> None:
    trace = played()
    fault(trace)
    assert set(failing(trace)) == caught


def test_every_check_is_failed_by_some_fault() -> None:
    trace = played()
    all_of_them = {(one.act, one.what) for one in checks(trace)}
    caught = set().union(*(caught for _, caught in FAULTS))
    same = {
        ("best effort", "tried again at the end"),
        ("best effort", "answers without a record (I2)"),
        ("all", "uses under way between a revocation and its answer"),
    }
    assert all_of_them - caught == same


def test_uses_that_met_no_revocation_prove_nothing_of_the_race() -> None:
    trace = played()
    for place, use in enumerate(trace.uses):
        if use.target >= 0 and use.front == 1:
            shift = -500 * MS if use.outcome == OK else 500 * MS
            change_use(trace, place, began_ns=use.began_ns + shift, ended_ns=use.ended_ns + shift)
    assert failing(trace) == [("all", "uses under way between a revocation and its answer")]
    assert found(trace, "uses under way between a revocation and its answer").expected
