"""One rollout that is run by hand: time passes, ticks come, persons and others meddle."""

import msgspec

from keystead.keys.lifecycle import Move, State
from keystead.keys.model import Key, Version
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.gates import NOTHING_SEEN
from keystead.keys.rollout.machine import Decision, begin, decide, waits_for
from keystead.keys.rollout.model import Rollout, Rotation, Stage, Status
from keystead.keys.rollout.plan import Plan
from keystead.keys.rollout.table import Wish
from unit.keys.rollout.scenes import (
    GOOD,
    NOW,
    Case,
    asked,
    begun_key,
    plan_of,
    rotation_before,
    version_of,
    with_move,
)
from unit.keys.rollout.states import rollout_of


class Running:
    """A key with a rollout under way; the clock stands still unless a test moves it."""

    def __init__(
        self,
        plan: Plan | None = None,
        *,
        incident: bool = False,
        purpose: Purpose = Purpose.LEDGER,
    ) -> None:
        self.plan = plan or plan_of()
        self.now_ms = NOW
        self.epoch = 1
        self.key: Key = begun_key(purpose)
        self.rotation: Rotation = rotation_before(self.key, self.plan)
        self.begin(incident=incident)

    @property
    def rollout(self) -> Rollout:
        return rollout_of(self.rotation)

    @property
    def place(self) -> tuple[Stage, Status]:
        return self.rollout.stage, self.rollout.status

    def state(self, number: int) -> State:
        return self.key.version(number).state

    def begin(
        self, *, incident: bool = False, version: Version | None = None, plan: Plan | None = None
    ) -> Decision:
        """Begin a rollout; ``version``, ``plan``: unless as usual."""
        what = asked(Wish.RESUME, self.now_ms, epoch=self.epoch + 1)
        decision = begin(
            self.rotation,
            self.key,
            version or version_of(self.key),
            plan or self.plan,
            what,
            incident=incident,
        )
        return self._take(decision)

    def tick(self, after_ms: int = 0, case: Case | None = GOOD) -> str:
        """Let time pass, and tick; the event, empty if there was none."""
        self.now_ms += after_ms
        what = asked(Wish.TICK, self.now_ms, epoch=self.epoch + 1)
        signals = case.signals if case else NOTHING_SEEN
        decision = decide(self.rotation, self.key, what, signals)
        return "" if decision is None else self._take(decision).step.event

    def wish(self, wish: Wish, after_ms: int = 0) -> Decision:
        """What a person asks for."""
        self.now_ms += after_ms
        what = asked(wish, self.now_ms, epoch=self.epoch + 1)
        decision = decide(self.rotation, self.key, what, NOTHING_SEEN)
        assert decision is not None
        return self._take(decision)

    def waits(self, case: Case = GOOD) -> tuple[str, ...]:
        return waits_for(self.rotation, self.key, asked(now_ms=self.now_ms), case.signals)

    def move(self, number: int, what: Move) -> None:
        """Somebody moves a version."""
        self.key = with_move(self.key, number, what)

    def to(self, stage: Stage) -> None:
        """On to a stage, under good signals."""
        while self.rollout.stage is not stage:
            self.tick() or self.tick(1)

    def without_primary(self) -> None:
        self.key = msgspec.structs.replace(self.key, primary=0)

    def _take(self, decision: Decision) -> Decision:
        self.rotation, self.key, self.epoch = decision.rotation, decision.key, self.epoch + 1
        assert self.key.epoch == self.rotation.epoch == self.epoch
        return decision
