"""The three acts: a rotation that is healthy, one that must go back, one that must halt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from keystead.client import AsyncClient
from keystead.drills.rotation.lengths import ROUND_MS, Lengths
from keystead.drills.rotation.parties import Desk, now_ms
from keystead.drills.rotation.trace import Act, Trace
from keystead.errors import Conflict, KeysteadError
from keystead.keys.rollout.commands import RolloutInfo
from keystead.keys.rollout.model import Status
from keystead.keys.rollout.plan import Plan

__all__ = ["FAULT", "HEALTHY", "INCIDENT", "Acts"]

HEALTHY, FAULT, INCIDENT = "healthy", "fault", "incident"
_POLL_S = 0.1
_HALT_ROUNDS = 3
"""Evaluations that a halted rollout is watched for: each of them could move it."""
_ENDS = frozenset({Status.FINISHED, Status.ROLLED_BACK, Status.HALTED})

Tell = Callable[[str], None]


class _GaveUp(Exception):
    """Something did not come in time; the message says what."""


class Acts:
    """Runs acts on one key, one after the other; ``algorithm``: of the new versions."""

    def __init__(  # noqa: PLR0917  the node, the key's load, and how it shall go
        self,
        client: AsyncClient,
        desk: Desk,
        trace: Trace,
        timing: Lengths,
        algorithm: str | None,
        tell: Tell,
    ) -> None:
        self._client = client
        self._desk = desk
        self._trace = trace
        self._timing = timing
        self._algorithm = algorithm
        self._tell = tell
        self._until_s = 0.0

    async def run(self) -> None:
        """All of them.

        Raises:
            KeysteadError: the node refused what the drill cannot go on without.
        """
        for name, title, play in (
            (HEALTHY, "A healthy rotation", self._healthy),
            (FAULT, "A version that relying parties reject", self._fault),
            (INCIDENT, "The same, in a rotation that began as an incident", self._incident),
        ):
            act = Act(name=name, title=title, began_ms=now_ms())
            self._trace.acts.append(act)
            self._until_s = time.monotonic() + self._timing.act_s
            try:
                await play(act)
            except _GaveUp as exc:
                act.gave_up = str(exc)
            act.ended_ms = now_ms()
            if act.gave_up:  # what comes after it would say nothing
                return

    async def _healthy(self, act: Act) -> None:
        await self._rotate(act, self._timing.plan, incident=False)
        await self._ended(act, "to be finished")
        await self._key_set(act)
        await self._close(act)

    async def _fault(self, act: Act) -> None:
        await self._rotate(act, self._timing.plan, incident=False)
        await self._reported(act)
        await self._ended(act, "to be rolled back")
        await self._key_set(act)
        await self._settle()
        await self._close(act)

    async def _incident(self, act: Act) -> None:
        await self._rotate(act, self._timing.plan, incident=True)
        await self._reported(act)
        await self._ended(act, "to be halted")
        await self._halted(act)
        await self._close(act)
        self._desk.reject(0)
        self._tell("A good version ends the halt")
        await self._rotate(act, self._timing.recovery, incident=True)
        await self._ended(act, "to be finished")
        await self._key_set(act)
        await self._close(act)

    # --- what acts are made of ---------------------------------------------------------------

    async def _rotate(self, act: Act, plan: Plan, *, incident: bool) -> None:
        key = self._trace.key
        await self._client.rotate_key(
            key,
            reason=f"drill {self._trace.run}: {act.name}",
            plan=plan,
            algorithm=self._algorithm,
            incident=incident,
            weaker=True,  # than what the key's purpose or an incident would have: seconds, not days
        )
        before_ms = now_ms()
        info = await self._client.rollout_status(key)
        self._trace.ahead_ms = info.now_ms - (before_ms + now_ms()) // 2
        self._desk.reject(0 if act.name == HEALTHY or plan is self._timing.recovery else info.next)

    async def _reported(self, act: Act) -> None:
        """The first report, a while in which nothing may come of it, and then the others'."""
        await self._told(act, 1)
        await asyncio.sleep(self._timing.patience_ms / 1000)
        act.stood = (await self._client.rollout_status(self._trace.key)).status
        self._desk.let_report()
        await self._told(act, 2)

    async def _told(self, act: Act, count: int) -> None:
        while len(act.told) < count:
            self._desk.news.clear()
            left_s = self._until_s - time.monotonic()
            try:
                await asyncio.wait_for(self._desk.news.wait(), max(0.0, left_s))
            except TimeoutError:
                raise _GaveUp(f"expected {count} reports, met {len(act.told)}") from None

    async def _ended(self, act: Act, wanted: str) -> RolloutInfo:
        while True:
            info = await self._client.rollout_status(self._trace.key)
            self._tell(f"{act.title}: {info.stage}, {info.status}")
            if info.status in _ENDS:
                return info
            if time.monotonic() > self._until_s:
                waits = "; ".join(info.waits)
                raise _GaveUp(f"expected it {wanted}, met {info.stage}, waiting for: {waits}")
            await asyncio.sleep(_POLL_S)

    async def _settle(self) -> None:
        """A few rounds more, so that a token too many would be seen."""
        await asyncio.sleep(2 * ROUND_MS / 1000)

    async def _halted(self, act: Act) -> None:
        """It stays halted, round after round, and takes no person's word to go back."""
        for _ in range(_HALT_ROUNDS):
            await asyncio.sleep(ROUND_MS / 1000)
            act.halts.append((await self._client.rollout_status(self._trace.key)).status)
        try:
            await self._client.steer_rollout(
                self._trace.key, "roll_back", reason=f"drill {self._trace.run}: must be refused"
            )
        except Conflict as exc:
            act.refused = exc.message
        except KeysteadError as exc:
            act.refused = f"another refusal: {exc.message}"

    async def _close(self, act: Act) -> None:
        """Take down how the rollout stands, with its evidence."""
        key = self._trace.key
        act.rollouts.append(await self._client.rollout_evidence(key))
        shown = await self._client.show_key(key)
        act.primary = shown.primary
        act.states = {version.number: version.state for version in shown.versions}

    async def _key_set(self, act: Act) -> None:
        """Take down which versions are in the key set at this moment."""
        told = await self._client.jwks(self._trace.key)
        kids = {key.get("kid") for key in told.get("keys", ())}
        shown = await self._client.show_key(self._trace.key)
        act.published = [version.number for version in shown.versions if version.kid in kids]
