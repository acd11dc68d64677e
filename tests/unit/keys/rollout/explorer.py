"""All states that a rollout can come to, breadth first, each held to every invariant."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from keystead.errors import KeysteadError
from keystead.keys.lifecycle import State
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.machine import begin
from keystead.keys.rollout.model import Stage, Status
from keystead.keys.rollout.plan import Plan
from keystead.keys.rollout.table import Wish
from unit.keys.rollout.invariants import (
    Violated,
    check,
    check_act,
    check_act_times,
    check_begun_anew,
    check_state,
    check_times,
    is_over_or_halted,
)
from unit.keys.rollout.scenes import asked, begun_key, rotation_before, version_of
from unit.keys.rollout.states import (
    ACTS,
    GOOD_TICK,
    PASS,
    Act,
    Clocks,
    Node,
    Place,
    Rules,
    Taken,
    clocks_after,
    happen,
    possible,
    settled,
)

Spot = tuple[Place, Clocks]


class Came(NamedTuple):
    """How a spot was first come to: with the fewest acts."""

    spot: Spot | None
    act: str


class Outcome(NamedTuple):
    """What comes of an act; the clocks of ``after`` are anyone's."""

    act: Act
    taken: Taken
    after: Node


class Explorer:
    """One plan's rollout, from its beginning."""

    def __init__(
        self,
        plan: Plan,
        *,
        incident: bool = False,
        purpose: Purpose = Purpose.LEDGER,
        rules: Rules | None = None,
    ) -> None:
        self.rules = rules or Rules()
        key = begun_key(purpose)
        begun = begin(
            rotation_before(key, plan),
            key,
            version_of(key),
            plan,
            asked(Wish.RESUME),
            incident=incident,
        )
        self.first = settled(Taken(begun.rotation, begun.key), Clocks())
        self.came: dict[Spot, Came] = {}
        self.nodes: dict[Spot, Node] = {}
        self._outcomes: dict[Place, tuple[Outcome, ...]] = {}

    def explore(self) -> None:
        """Go everywhere.

        Raises:
            Violated: an invariant does not hold; the message ends with the shortest way there.
        """
        waiting = deque([self._arrive(self.first, Came(None, "the rollout begins"))])
        while waiting:
            spot = waiting.popleft()
            node = self.nodes[spot]
            for outcome in self._outcomes_at(spot):
                after = self._timed(spot, node, outcome)
                if (after.place, after.clocks) not in self.came:
                    waiting.append(self._arrive(after, Came(spot, outcome.act.name)))

    def _arrive(self, node: Node, came: Came) -> Spot:
        spot = (node.place, node.clocks)
        self.came[spot], self.nodes[spot] = came, node
        with self._traced(spot):
            check_times(node)
        return spot

    def _outcomes_at(self, spot: Spot) -> tuple[Outcome, ...]:
        """All that can happen in a state. The explorer's clocks have no part in it."""
        place, _ = spot
        if place not in self._outcomes:
            node = self.nodes[spot]
            with self._traced(spot):
                check_state(self.rules, node)
                if is_over_or_halted(node.rotation):
                    check_begun_anew(self.rules, node)
            acts = [act for act in ACTS if possible(node, act)]
            self._outcomes[place] = tuple(self._outcome(spot, node, act) for act in acts)
        return self._outcomes[place]

    def _outcome(self, spot: Spot, node: Node, act: Act) -> Outcome:
        with self._traced(spot, act):
            taken = happen(self.rules, node, act)
            check_act(self.rules, node, act, taken)
            return Outcome(act, taken, settled(taken, node.clocks))

    def _timed(self, spot: Spot, node: Node, outcome: Outcome) -> Node:
        act, taken, after = outcome
        if taken.decision is None and not act.clock_ms:
            return after._replace(clocks=node.clocks)
        with self._traced(spot, act):
            check_act_times(node, act, taken)
        return after._replace(clocks=clocks_after(self.rules, node, act, after))

    def go_straight(self) -> None:
        """Go from the beginning to the end by good signals alone, and look to both sides.

        Raises:
            Violated: an invariant does not hold on that way, or it does not end.
        """
        spot = self._arrive(self.first, Came(None, "the rollout begins"))
        while self.nodes[spot].rollout.status is Status.RUNNING:
            outcome = self._going_on(spot)
            after = self._timed(spot, self.nodes[spot], outcome)
            with self._traced(spot, outcome.act):
                check("good signals bring it on", (after.place, after.clocks) not in self.came)
            spot = self._arrive(after, Came(spot, outcome.act.name))

    def finish(self) -> None:
        """From wherever it runs with a new version that can sign, good signals bring it to its end.

        Raises:
            Violated: somewhere it does not go on.
        """
        ends: set[Place] = set()
        for spot, node in self.nodes.items():
            if runs(node) and node.place not in ends:
                ends.update(self._way_to_the_end(spot))

    def _way_to_the_end(self, spot: Spot) -> set[Place]:
        node, passed = self.nodes[spot], set[Place]()
        with self._traced(spot, GOOD_TICK):
            while node.rollout.status is Status.RUNNING:
                check("good signals bring it on", node.place not in passed)
                passed.add(node.place)
                node = self._going_on((node.place, node.clocks)).after
            check("good signals bring it to its end", node.rollout.status is Status.FINISHED)
        return passed

    def _going_on(self, spot: Spot) -> Outcome:
        """A tick under good signals, or, if nothing is due, the time that passes."""
        outcomes = {outcome.act: outcome for outcome in self._outcomes_at(spot)}
        due = outcomes[GOOD_TICK]
        return outcomes[PASS] if due.taken.decision is None else due

    @contextmanager
    def _traced(self, spot: Spot, act: Act | None = None) -> Iterator[None]:
        try:
            yield
        except Violated as exc:
            raise Violated(exc.name, f"{exc.what}\n{self._way(spot, act)}") from exc
        except (KeysteadError, LookupError) as exc:
            raise Violated("no act fails", f"{exc!r}\n{self._way(spot, act)}") from exc

    def _way(self, spot: Spot, act: Act | None) -> str:
        """The acts from the beginning to a spot, the shortest way, and the act that came last."""
        acts = [act.name] if act else []
        at: Spot | None = spot
        while at is not None:
            came = self.came[at]
            acts.append(came.act)
            at = came.spot
        lines = [f"  {number}. {name}" for number, name in enumerate(reversed(acts))]
        return "\n".join([*lines, f"  at {spot}"])


def runs(node: Node) -> bool:
    """Whether nothing stands in the rollout's way but time and signals."""
    rollout = node.rollout
    able = {State.ACTIVE}
    if rollout.stage is Stage.PUBLISH:
        able.add(State.PRE_ACTIVATION)
    return rollout.status is Status.RUNNING and node.state("next") in able
