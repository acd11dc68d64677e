"""States of one rollout as an explorer of all of them sees them, and what can happen in each.

The explorer keeps its own clocks, which no step back of the wall clock touches. States that differ
in nothing that the rules look at are one: times are relative to now, and no longer than the stage.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from keystead.errors import Conflict, KeyStateError, KeysteadError
from keystead.keys.lifecycle import TRANSITIONS, Move, State
from keystead.keys.model import Key
from keystead.keys.rollout import choosing, machine
from keystead.keys.rollout.gates import NOTHING_SEEN, Signals
from keystead.keys.rollout.machine import Decision
from keystead.keys.rollout.model import Rollout, Rotation, Stage, Status
from keystead.keys.rollout.plan import pinned
from keystead.keys.rollout.table import Asked, Wish, length_ms
from unit.keys.rollout.scenes import CASES, GOOD, NOW, Case, asked, with_move

ENDED = frozenset({Status.ROLLED_BACK, Status.FINISHED})
BEHIND_MAX = 1
"""How far, in milliseconds, the wall clock may fall behind what it once showed."""


Decide = Callable[[Rotation, Key, Asked, Signals], Decision | None]
Chosen = Callable[[Key, Rotation | None, bytes], int]
Served = Callable[[Key, Rotation | None], frozenset[int]]


class Rules(NamedTuple):
    """What is explored: the machine as it is, or a mutant of it."""

    decide: Decide = machine.decide
    chosen: Chosen = choosing.chosen
    served: Served = choosing.served


class Act(NamedTuple):
    """One thing that happens; ``number``: to which version."""

    name: str
    wish: Wish | None = None
    case: Case | None = None
    move: Move | None = None
    which: str = ""
    clock_ms: int = 0


TICKS = tuple(Act(f"tick, {case.name}", wish=Wish.TICK, case=case) for case in CASES)
GOOD_TICK = TICKS[CASES.index(GOOD)]
PASS = Act("1 ms passes", clock_ms=1)
BACK = Act("the clock jumps back", clock_ms=-1)
WISHES = tuple(Act(f"a person: {wish}", wish=wish) for wish in Wish if wish is not Wish.TICK)
MOVES = tuple(
    Act(f"somebody: {what} {which}", move=what, which=which)
    for which in ("previous", "next")
    for what in Move
)
ACTS = (*TICKS, PASS, *WISHES, *MOVES, BACK)


class Clocks(NamedTuple):
    """The explorer's own: true time, as far as it matters.

    ``published``: since the new version is; ``ran``: at this stage and step, not paused; ``idle``:
    since the previous version was last allowed new work.
    """

    published: int = 0
    ran: int = 0
    idle: int = 0


def rollout_of(rotation: Rotation) -> Rollout:
    """The rollout that is explored; it never goes away."""
    if rotation.rollout is None:
        raise LookupError("the rollout is gone")
    return rotation.rollout


Place = tuple[object, ...]


class Node(NamedTuple):
    """One state. ``now`` is always :data:`NOW`; ``place``: all of it that any rule looks at."""

    rotation: Rotation
    key: Key
    place: Place
    clocks: Clocks

    @property
    def rollout(self) -> Rollout:
        """The rollout that is explored."""
        return rollout_of(self.rotation)

    def state(self, which: str) -> State:
        """Of ``previous`` or ``next``."""
        rollout = self.rollout
        return self.key.version(getattr(rollout, which)).state


class Taken(NamedTuple):
    """What came of an act: a decision, a refusal, or neither."""

    rotation: Rotation
    key: Key
    now_ms: int = NOW
    decision: Decision | None = None
    refusal: KeysteadError | None = None


def settled(taken: Taken, clocks: Clocks) -> Node:
    """The same as of :data:`NOW`, with what no rule looks at left out."""
    rollout = rollout_of(taken.rotation)
    stood = rollout.paused_ms or taken.now_ms
    spent = min(length_ms(rollout), stood - rollout.entered_ms)
    paused = NOW + max(0, rollout.paused_ms - taken.now_ms) if rollout.paused_ms else 0
    if rollout.status in ENDED:
        spent, paused = 0, 0
    replace = msgspec.structs.replace
    rollout = replace(
        rollout, steps=(), began_ms=NOW, paused_ms=paused, entered_ms=(paused or NOW) - spent
    )
    rotation = replace(taken.rotation, rollout=rollout, promoted_ms=0, revision=1, epoch=1)
    key = replace(taken.key, revision=1, epoch=1)
    place = (
        rollout.stage,
        rollout.status,
        rollout.ramp if rollout.stage is Stage.RAMP else 0,
        spent,
        paused,
        key.primary,
        rotation.unpublished,
        *(version.state for version in key.versions),
    )
    return Node(rotation, key, place, clocks)


def possible(node: Node, act: Act) -> bool:
    """Whether the act can happen: a move that the lifecycle has, a clock not too far behind."""
    if act.move is not None:
        return (node.state(act.which), act.move) in TRANSITIONS
    if act is PASS:
        return node.rollout.status not in ENDED
    if act is BACK:
        stood = node.rollout.paused_ms or NOW
        behind = max(stood - NOW, node.rollout.entered_ms - stood)
        return node.rollout.status not in ENDED and behind < BEHIND_MAX
    return True


def happen(rules: Rules, node: Node, act: Act) -> Taken:
    """Let an act happen. Refusals of a person's wish are an answer; other errors are not caught."""
    rotation, key = node.rotation, node.key
    if act.move is not None:
        return Taken(rotation, with_move(key, getattr(node.rollout, act.which), act.move))
    if act.wish is None:
        return Taken(rotation, key, NOW + act.clock_ms)
    signals = act.case.signals if act.case else NOTHING_SEEN
    try:
        decision = rules.decide(rotation, key, asked(act.wish), signals)
    except (Conflict, KeyStateError) as refusal:
        return Taken(rotation, key, refusal=refusal)
    if decision is None:
        return Taken(rotation, key)
    return Taken(decision.rotation, decision.key, decision=decision)


def clocks_after(rules: Rules, before: Node, act: Act, after: Node) -> Clocks:
    """The explorer's clocks after an act."""
    was, rollout, clocks = before.rollout, after.rollout, before.clocks
    passed = max(0, act.clock_ms)
    published = min(rollout.plan.publish.overlap_ms, clocks.published + passed)
    if rollout.status in ENDED:
        return Clocks(published)
    ran = clocks.ran + passed * (was.status is Status.RUNNING)
    if (was.stage, was.ramp) != (rollout.stage, rollout.ramp):
        ran = 0
    key = after.key
    in_use = {key.primary} if pinned(key.purpose) else rules.served(key, after.rotation)
    idle = 0 if rollout.previous in in_use else clocks.idle + passed
    return Clocks(published, min(length_ms(rollout), ran), min(rollout.plan.drain.length_ms, idle))
