"""What holds in every state of a rollout, and of every act in it, each under a name.

Said anew here, from the design and not from the table: who may move a rollout, when, and whereto.
"""

import re

import msgspec

from keystead.errors import KeyStateError, KeysteadError
from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.keys.rollout.choosing import share_ppm
from keystead.keys.rollout.machine import begin
from keystead.keys.rollout.model import Rollout, Rotation, Stage, Status
from keystead.keys.rollout.plan import WHOLE_PPM, pinned
from keystead.keys.rollout.table import Wish, length_ms
from unit.keys.rollout.scenes import Case, asked, subjects_of, version_of
from unit.keys.rollout.states import ENDED, Act, Node, Rules, Taken, rollout_of

IN_USE = frozenset({Stage.CANARY, Stage.RAMP, Stage.PROMOTE, Stage.DRAIN})
FEW = frozenset({Stage.CANARY, Stage.RAMP})
"""Stages at which some subjects are on the new version's side."""

GOES_ON = {
    Stage.PUBLISH: {Stage.CANARY},
    Stage.CANARY: {Stage.RAMP, Stage.PROMOTE},
    Stage.RAMP: {Stage.RAMP, Stage.PROMOTE},
    Stage.PROMOTE: {Stage.DRAIN},
    Stage.DRAIN: {Stage.RETIRE},
}


class Violated(AssertionError):
    """An invariant does not hold; ``name`` says which, the message how it came to that."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name
        self.what = what


def check(name: str, holds: bool, what: object = "") -> None:  # noqa: FBT001  reads as a sentence
    """Hold one invariant.

    Raises:
        Violated: it does not hold.
    """
    if not holds:
        raise Violated(name, str(what))


# --- a state -------------------------------------------------------------------------------------


def check_state(rules: Rules, node: Node) -> None:
    """What holds in a state whatever came before it."""
    rollout, key, rotation = node.rollout, node.key, node.rotation
    served = rules.served(key, rotation)
    chosen = tuple(rules.chosen(key, rotation, subject) for subject in subjects_of(rollout.plan))
    pair = {rollout.previous, rollout.next}
    check("I3 chosen is served", served.issuperset(chosen), f"{chosen} of {set(served)}")
    check("I3 primary is served or replaced", key.primary in served or rollout.next in served)
    check("I3 only the two of the rollout", served <= pair and key.primary in pair, set(served))
    _check_share(node, chosen)
    at_work = {*served, *chosen, key.primary}
    if rollout.status is Status.ROLLED_BACK:
        check("I3 rolled back, never again", at_work == {rollout.previous}, at_work)
        check("incident never goes back", not rollout.incident)
    elif rollout.status is Status.FINISHED:
        check("retired, never again", at_work == {rollout.next}, at_work)
    elif rollout.stage is Stage.PUBLISH:
        check("I12 published before use", at_work == {rollout.previous}, at_work)
    elif rollout.stage not in FEW and not pinned(key.purpose):
        check("promoted is the only one", at_work == {rollout.next}, at_work)
    _check_survives_a_crash(node)


def _check_share(node: Node, chosen: tuple[int, ...]) -> None:
    """The new version's side are the subjects below the share, in order, and no others."""
    rollout = node.rollout
    if rollout.status in ENDED or rollout.stage not in FEW or pinned(node.key.purpose):
        return
    below = [
        int.from_bytes(subject, "big") * WHOLE_PPM < share_ppm(rollout) << 64
        for subject in subjects_of(rollout.plan)
    ]
    sides = [version == rollout.next for version in chosen]
    check("subjects are chosen by share", sides == below, f"{sides}, expected {below}")


def _check_survives_a_crash(node: Node) -> None:
    for value in (node.rotation, node.key):
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value))
        check("a crash loses nothing", again == value)


def check_times(node: Node) -> None:
    """What holds by the explorer's clocks."""
    rollout = node.rollout
    used = node.key.primary == rollout.next or rollout.stage is not Stage.PUBLISH
    if used and rollout.status is not Status.ROLLED_BACK:
        overlap = rollout.plan.publish.overlap_ms
        check(
            "I12 published before use",
            node.clocks.published >= overlap,
            f"published for {node.clocks.published} of {overlap} ms",
        )


# --- an act --------------------------------------------------------------------------------------


def check_act(rules: Rules, before: Node, act: Act, taken: Taken) -> None:
    """What holds of an act, whatever the clocks said."""
    if taken.refusal is not None:
        _check_refusal(before, act, taken.refusal)
    elif taken.decision is None:
        check("a person gets an answer", act.wish in {None, Wish.TICK})
    else:
        _check_decision(before, act, taken)
        _check_states(before, taken)
        _check_flips(rules, before, taken)
    if act.wish is Wish.TICK and act.case is not None and before.rollout.status not in ENDED:
        _check_tick(before, act.case, taken)
    elif act.wish is not None:
        _check_wish(before, act.wish, taken)


def _check_refusal(before: Node, act: Act, refusal: KeysteadError) -> None:
    check("a tick never raises", act.wish is not Wish.TICK, refusal)
    said = f"cannot {act.wish} the rollout of shop: ".replace("roll_back", "roll back")
    if before.rollout.status in ENDED:
        said = "no rollout of shop is under way"
    check("a refusal says why", refusal.message.startswith(said), refusal.message)
    check("a refusal says what to do", bool(refusal.hint))
    of_state = re.search(r"version \d is ", refusal.message) is not None
    check("a refusal is of its kind", isinstance(refusal, KeyStateError) is of_state, refusal)
    check("a refusal gives its reason", not refusal.message.endswith(": "), refusal.message)


def _check_decision(before: Node, act: Act, taken: Taken) -> None:
    decision, was, rollout = taken.decision, before.rollout, rollout_of(taken.rotation)
    if decision is None:
        return
    step = decision.step
    check(
        "a decision changes something",
        (was.stage, was.ramp, was.status) != (rollout.stage, rollout.ramp, rollout.status),
        step.event,
    )
    check("evidence", step in rollout.steps[-1:] and step.event != "")
    check("evidence", (step.stage, step.status) == (rollout.stage, rollout.status), step)
    check("evidence", (step.at_ms, step.by) == (asked().now_ms, asked(act.wish or Wish.TICK).by))
    for old, new in ((before.rotation, taken.rotation), (before.key, taken.key)):
        check("revisions grow", new.revision == old.revision + 1, new.revision)
        check("epochs grow", new.epoch > old.epoch, new.epoch)
    fixed = ("number", "previous", "next", "plan", "incident", "reason", "began_ms")
    check("a rollout stays itself", all(getattr(was, f) == getattr(rollout, f) for f in fixed))
    if was.incident:
        back = before.key.primary == was.next and taken.key.primary == was.previous
        check("incident never goes back", not back and rollout.status is not Status.ROLLED_BACK)


def _check_states(before: Node, taken: Taken) -> None:
    """What a decision may do to versions: it stops them, starts the new one once, and no more."""
    was, rollout = before.rollout, rollout_of(taken.rotation)
    expected = {version.number: version.state for version in before.key.versions}
    after = {version.number: version.state for version in taken.key.versions}
    erased: tuple[int, ...] = ()
    if rollout.status is Status.ROLLED_BACK:
        if expected[was.next] is State.PRE_ACTIVATION:
            expected[was.next], erased = State.DESTROYED, (was.next,)
        elif expected[was.next] is State.ACTIVE:
            expected[was.next] = State.SUSPENDED
    elif rollout.status is Status.FINISHED:
        if expected[was.previous] in {State.ACTIVE, State.SUSPENDED}:
            expected[was.previous] = State.DEACTIVATED
    elif was.stage is Stage.PUBLISH and rollout.stage is not Stage.PUBLISH:
        check("only what can sign is used", _ready(expected[was.next]), expected[was.next])
        expected[was.next] = State.ACTIVE
    check("the lifecycle is kept", after == expected, f"{after}, expected {expected}")
    destroyed = taken.decision.destroyed if taken.decision else ()
    check("what is destroyed is erased", destroyed == erased, destroyed)
    kids = [(version.number, version.kid) for version in taken.key.versions]
    check("no version is reused", kids == [(v.number, v.kid) for v in before.key.versions], kids)
    gone = set(taken.rotation.unpublished) - set(before.rotation.unpublished)
    retired = {was.previous} if rollout.status is Status.FINISHED else set()
    check("published until the drain is over", gone == retired, gone)


def _ready(state: State) -> bool:
    return state in {State.PRE_ACTIVATION, State.ACTIVE}


def _check_flips(rules: Rules, before: Node, taken: Taken) -> None:
    was, rollout = before.rollout, rollout_of(taken.rotation)
    for subject in subjects_of(was.plan):
        old = rules.chosen(before.key, before.rotation, subject)
        new = rules.chosen(taken.key, taken.rotation, subject)
        if (old, new) == (was.next, was.previous):
            check("a subject goes back at the rollback only", rollout.status is Status.ROLLED_BACK)


def _check_tick(before: Node, case: Case, taken: Taken) -> None:
    """What time does: what fails stops at once, all else goes on when it is due, or waits."""
    was, rollout = before.rollout, rollout_of(taken.rotation)
    if was.status is Status.HALTED:
        check("halted waits for a person", taken.decision is None)
        return
    if fails(before, case):
        back = before.state("previous") is State.ACTIVE and not was.incident
        expected = Status.ROLLED_BACK if back else Status.HALTED
        check("what fails stops in one tick", rollout.status is expected, rollout.status)
        check("a halt is no move", back or (was.stage, was.ramp) == (rollout.stage, rollout.ramp))
        return
    check("it stops for a failure only", rollout.status not in {Status.ROLLED_BACK, Status.HALTED})
    if taken.decision is None:
        return
    check("paused waits", was.status is Status.RUNNING, rollout.stage)
    check("gates hold", enough(before, case), case.name)
    check("one stage after the other", rollout.stage in GOES_ON[was.stage], rollout.stage)
    steps = len(was.plan.ramp.steps_ppm)
    done = was.ramp + 1 if was.stage is Stage.RAMP else 0
    if was.stage in FEW:
        to_ramp = rollout.stage is Stage.RAMP and rollout.ramp == done < steps
        check("every ramp step", to_ramp or (rollout.stage is Stage.PROMOTE and done == steps))


def fails(node: Node, case: Case) -> bool:
    """Whether the rollout must not go on, as the design has it."""
    rollout, state = node.rollout, node.state("next")
    if rollout.stage is Stage.PUBLISH:
        return not _ready(state)
    slow = case.slow and rollout.stage in FEW and node.state("previous") is State.ACTIVE
    return state is not State.ACTIVE or case.failing or slow


def enough(node: Node, case: Case) -> bool:
    """Whether enough is known to go on."""
    rollout = node.rollout
    if rollout.stage is Stage.PUBLISH:
        return case.acknowledged or not rollout.plan.publish.acknowledged_by
    if rollout.stage in FEW:
        return case.sampled and (case.compared or not _compares(node))
    return case.sampled or rollout.stage is Stage.DRAIN


def _compares(node: Node) -> bool:
    """There is something to compare with: the previous version still does a part of the work."""
    if pinned(node.key.purpose):  # its callers choose: they may leave it no uses at all
        return False
    return node.state("previous") is State.ACTIVE and share_ppm(node.rollout) < WHOLE_PPM


def _check_wish(before: Node, wish: Wish, taken: Taken) -> None:
    """What a person may have, whatever the signals."""
    was, rollout = before.rollout, rollout_of(taken.rotation)
    done = taken.decision is not None
    if was.status in ENDED:
        check("what has ended stays", not done)
        return
    held = was.status in {Status.PAUSED, Status.HALTED}
    match wish:
        case Wish.PAUSE:
            check("a person can pause", done is not held)
            expected = (was.stage, Status.PAUSED)
        case Wish.RESUME:
            check("a person can resume", done is held)
            expected = (was.stage, Status.RUNNING)
        case Wish.ROLL_BACK:
            may = not was.incident and before.state("previous") is State.ACTIVE
            check("a person can roll back", done is may)
            expected = (was.stage, Status.ROLLED_BACK)
        case _:
            may = was.stage in FEW and before.state("next") is State.ACTIVE
            check("a person can promote", done or not may)
            check("only what can sign is used", not done or _ready(before.state("next")))
            check("one stage after the other", not done or was.stage in {Stage.PUBLISH, *FEW})
            expected = (Stage.PROMOTE, Status.RUNNING)
    met = (rollout.stage, rollout.status)
    check("a person gets what was asked", not done or met == expected, met)
    if done and wish is not Wish.PROMOTE:
        check("a person gets what was asked", was.ramp == rollout.ramp)


def check_act_times(before: Node, act: Act, taken: Taken) -> None:
    """What holds of a decision by the explorer's clocks."""
    was, rollout, clocks = before.rollout, rollout_of(taken.rotation), before.clocks
    if taken.decision is None or rollout.status in {Status.ROLLED_BACK, Status.HALTED}:
        return
    if act.wish is Wish.TICK:
        length = length_ms(was)
        check("a stage lasts its length", clocks.ran >= length, f"{clocks.ran} of {length} ms")
    if rollout.status is Status.FINISHED:
        drain = was.plan.drain.length_ms
        what = f"{clocks.idle} of {drain} ms"
        check("published until the drain is over", clocks.idle >= drain, what)


# --- the next rollout ----------------------------------------------------------------------------


def check_begun_anew(rules: Rules, node: Node) -> None:
    """A new rollout in place of one that is halted or over: the primary version is replaced."""
    key, was = node.key, node.rollout
    version = version_of(key)
    asked_for = asked(Wish.RESUME)
    decision = begin(node.rotation, key, version, was.plan, asked_for, incident=was.incident)
    rollout = rollout_of(decision.rotation)
    check("a new rollout is the next one", rollout.number == was.number + 1)
    check("a new rollout replaces the primary", rollout.previous == key.primary)
    check("no version is reused", rollout.next == len(decision.key.versions))
    check("no version is reused", len({v.kid for v in decision.key.versions}) == rollout.next)
    check("what is destroyed is erased", decision.destroyed == _newly_destroyed(key, decision.key))
    served = rules.served(decision.key, decision.rotation)
    check("I12 published before use", served == {key.primary}, served)
    for other in {was.previous, was.next} - {key.primary}:
        state, stood = decision.key.version(other).state, key.version(other).state
        check("the abandoned one stays stopped", state is stood or stood is State.ACTIVE, state)
        if was.status is Status.HALTED:
            check("the abandoned one never signs", state is not State.ACTIVE, state)


def _newly_destroyed(before: Key, after: Key) -> tuple[int, ...]:
    return tuple(
        version.number
        for version in before.versions
        if after.version(version.number).state is State.DESTROYED is not version.state
    )


def is_over_or_halted(rotation: Rotation) -> bool:
    """Whether another rollout may begin."""
    rollout: Rollout = rollout_of(rotation)
    return rollout.status in ENDED or rollout.status is Status.HALTED
