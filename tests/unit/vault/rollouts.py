"""A key in a rollout, in a whole vault: what the tests of rollouts begin with."""

import asyncio

import msgspec

from keystead.frames.messages import Admin, Answer, Receipt, Use
from keystead.keys.commands import IssuedHandle, IssueHandle, KeyInfo
from keystead.keys.framing.jwt import SignJwt
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import RolloutInfo, RotateKey, ShowRollout
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
)
from keystead.keys.rollout.reports import ReportFailure
from keystead.vault.committer import Applied, Change
from unit.vault.node import Node, check_done, result_of
from unit.vault.scene import WAIT_S

KEY = "tokens"
SECOND = 1_000
PLAN = Plan(
    publish=Publish(overlap_ms=10 * SECOND, cache_ms=5 * SECOND),
    canary=Canary(share_ppm=300_000, length_ms=10 * SECOND),
    ramp=Ramp(steps_ppm=(600_000,), step_ms=10 * SECOND),
    promote=Promote(length_ms=10 * SECOND),
    drain=Drain(length_ms=60 * SECOND),
    retire=Retire(unpublish=True),
    gates=Gates(window_ms=10 * SECOND, samples=4, reporters=1, denied=1),
)
"""A plan of seconds; what the key signs is good for a minute."""

_CONTEXTS = [f"shop/{number}" for number in range(40)]


async def one_round(node: Node) -> None:
    """One round of the steward's; what it queued has committed when this returns."""
    await node.tend()
    done = asyncio.get_running_loop().create_future()
    nothing = Change(lambda _tx, _snapshot, _epoch, _seq: Applied(), done.set_result)
    node.built.committer.change(nothing)
    await asyncio.wait_for(done, WAIT_S)


class Rolling:
    """A node with one `jwt` key and one handle of it."""

    def __init__(self, node: Node, handle: str = "") -> None:
        self.node = node
        self.handle = handle

    async def begin(self, **fields: object) -> None:
        """Make the key and its handle, and start a rollout."""
        await self.make(fields.get("plan", PLAN))
        await self.rotate(**fields)

    async def make(self, plan: object) -> None:
        """Make the key, with its plan, and its handle."""
        policy = Policy(jwt=JwtPolicy(issuer="https://id.example", lifetime_max_s=60))
        await self.node.create(KEY, Purpose.JWT, policy=policy, plan=plan)
        self.handle = (await self.node.issue(KEY)).token

    async def rotate(self, **fields: object) -> KeyInfo:
        command = msgspec.structs.replace(
            RotateKey(name=KEY, plan=PLAN, weaker=True, reason="test"), **fields
        )
        return result_of(await self.node.admin(command), KeyInfo)

    def steering(self, move: str, reason: str = "by hand") -> Admin:
        asked = {"do": "key.steer", "name": KEY, "move": move, "reason": reason}
        return Admin(self.node.next_id(), self.node.token, msgspec.msgpack.encode(asked))

    async def steer(self, move: str, reason: str = "by hand") -> Answer:
        return await self.node.ask(self.steering(move, reason))

    async def tick(self) -> None:
        """One round of the steward's, and what it set off."""
        await one_round(self.node)

    async def status(self) -> RolloutInfo:
        return result_of(await self.node.admin(ShowRollout(name=KEY)), RolloutInfo)

    def rotation(self) -> Rotation:
        snapshot = self.node.built.standing.snapshot
        return snapshot.rotations[snapshot.names[KEY]]

    def use_in(self, context: str) -> Use:
        return self.node.use_of(self.handle, SignJwt(claims={}), "jwt.sign", context=context)

    async def sign(self, context: str, **fields: object) -> Answer:
        return await self.node.ask(msgspec.structs.replace(self.use_in(context), **fields))

    async def used(self, context: str) -> Receipt:
        receipt = check_done(await self.sign(context)).receipt
        assert receipt is not None
        return receipt

    async def uses(self, contexts: list[str] | None = None) -> dict[str, int]:
        """Which version signs for each context."""
        chosen = _CONTEXTS if contexts is None else contexts
        return {context: (await self.used(context)).version for context in chosen}

    async def seq_of(self, version: int) -> int:
        """The record of a use that this version did."""
        for number in range(100):
            receipt = await self.used(f"any/{number}")
            if receipt.version == version and receipt.seq is not None:
                return receipt.seq
        raise AssertionError(f"no context is on the side of version {version}")

    async def pass_stage(self) -> None:
        """Good uses, and time until the stage's length is over; then one round."""
        await self.uses()
        status = await self.status()
        self.node.clock.advance(max(0, status.due_ms - status.now_ms))
        await self.tick()

    async def until(self, stage: str) -> None:
        for _ in range(8):
            if (await self.status()).stage == stage:
                return
            await self.pass_stage()
        raise AssertionError(f"the rollout did not come to {stage}: {await self.status()}")

    async def reporter(self, principal: str) -> str:
        command = IssueHandle(key=KEY, principal=principal, operations=("report", "acknowledge"))
        return result_of(await self.node.admin(command), IssuedHandle).token

    async def report(self, handle: str, seq: int | None, problem: str = "signature") -> Answer:
        facts = msgspec.convert({"seq": seq, "problem": problem}, ReportFailure)
        return await self.node.ask(self.node.use_of(handle, facts, "jwt.report", context="shop"))

    async def narrowed(self, principal: str, narrowing: Narrowing) -> str:
        command = IssueHandle(key=KEY, principal=principal, narrowing=narrowing)
        return result_of(await self.node.admin(command), IssuedHandle).token
