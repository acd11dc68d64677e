"""A key whose rollouts are the real machine's, by a clock of their own: what a node would tell."""

import json
from typing import Any

import msgspec

from keystead.keys.lifecycle import State
from keystead.keys.model import JwtPolicy, Key, Policy, Version
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import RolloutInfo
from keystead.keys.rollout.gates import NOTHING_SEEN, Seen, Signals
from keystead.keys.rollout.machine import begin, decide
from keystead.keys.rollout.model import Rotation
from keystead.keys.rollout.plan import (
    Canary,
    Drain,
    Gates,
    Plan,
    Promote,
    Publish,
    Ramp,
    Retire,
    default_plan,
)
from keystead.keys.rollout.table import Asked, Wish
from keystead.keys.rollout.view import rollout_info
from unit.cli.node import FakeNode
from unit.cli.node import Seen as Met

START_MS = 1_793_714_400_000  # 2026-11-03T14:00:00Z
DRILL = Plan(
    publish=Publish(overlap_ms=3_000, cache_ms=1_000),
    canary=Canary(share_ppm=200_000, length_ms=3_000),
    ramp=Ramp(steps_ppm=(500_000,), step_ms=2_000),
    promote=Promote(length_ms=3_000),
    drain=Drain(length_ms=3_000),
    retire=Retire(unpublish=True),
    gates=Gates(window_ms=2_000, samples=20),
)
GOOD = Signals(
    window_next=Seen(uses=50, p99_us=1_500),
    window_previous=Seen(uses=200, p99_us=1_200),
    stage_next=Seen(uses=60, p99_us=1_500),
    stage_previous=Seen(uses=240, p99_us=1_200),
)
REPORTED = msgspec.structs.replace(GOOD, reporters=2)


class Rolling:
    """The key ``shop``, its rotation, and the time."""

    def __init__(self, plan: Plan = DRILL) -> None:
        self.now_ms = START_MS
        self.plan = plan
        self.signals = NOTHING_SEEN
        self.rotation = Rotation(key_id="k-1", plan=plan)
        self.key = Key(
            id="k-1",
            name="shop",
            tenant="default",
            labels={},
            purpose=Purpose.JWT,
            algorithms=("ed25519",),
            prehashed=False,
            policy=Policy(jwt=JwtPolicy(issuer="https://id.example", lifetime_max_s=1)),
            generation=1,
            primary=1,
            versions=(_version(1, State.ACTIVE),),
            revision=1,
            epoch=1,
            created_ms=START_MS,
        )

    def begin(self, *, incident: bool = False) -> None:
        version = _version(len(self.key.versions) + 1, State.PRE_ACTIVATION)
        self._take(
            begin(
                self.rotation,
                self.key,
                version,
                self.plan,
                self._asked(Wish.TICK, "root", "drill of 2026-11"),
                incident=incident,
            )
        )

    def steer(self, wish: Wish, reason: str) -> None:
        self._take(decide(self.rotation, self.key, self._asked(wish, "ann", reason), self.signals))

    def pass_time(self, length_ms: int) -> None:
        """Second after second, with a tick each, as the vault does it."""
        for _ in range(length_ms // 1_000):
            self.now_ms += 1_000
            asked = self._asked(Wish.TICK, "rollout", "")
            self._take(decide(self.rotation, self.key, asked, self.signals))

    def info(self) -> RolloutInfo:
        return rollout_info(
            self.rotation,
            self.key,
            self.signals,
            plan=self.rotation.plan or default_plan(self.key),
            now_ms=self.now_ms,
            starts_ms=0,
            uses_left=-1,
        )

    def served_by(self, node: FakeNode, *, step_ms: int = 0) -> None:
        """Have the node tell how it stands; at each look so much time passes."""
        table = node.answer

        def answer(seen: Met) -> tuple[int, bytes]:
            if seen.method != "GET" or not seen.path.endswith("/rollout"):
                return table(seen)
            node.seen.append(seen)
            told = msgspec.json.encode(self.info())
            self.pass_time(step_ms)
            return 200, told

        node.answer = answer  # type: ignore[method-assign]  # its table, and this before it

    def _asked(self, wish: Wish, by: str, reason: str) -> Asked:
        epoch = self.rotation.epoch + 1
        return Asked(wish=wish, now_ms=self.now_ms, epoch=epoch, by=by, reason=reason)

    def _take(self, decision: Any) -> None:  # noqa: ANN401  a Decision, or nothing was due
        if decision is not None:
            self.rotation, self.key = decision.rotation, decision.key


def as_json(value: object) -> Any:  # noqa: ANN401  whatever a node tells
    return json.loads(msgspec.json.encode(value))


def _version(number: int, state: State) -> Version:
    return Version(
        number=number,
        state=state,
        algorithm="ed25519",
        public=(bytes(32),),
        kid=f"kid-{number}",
        created_ms=START_MS,
    )
