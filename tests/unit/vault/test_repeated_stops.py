"""A stop that is asked for again at another node: what the model found, on real vaults (I4).

The node that is asked again did not make the change, so that its own best-effort answers may rest
on an older state: its reservations are waited for as everybody's are.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from keystead.frames.messages import Done
from keystead.keys.model import Policy
from keystead.keys.purposes import Purpose
from keystead.keys.reservations import BOUND_MS
from unit.vault.node import check_done
from unit.vault.scene import eventually
from unit.vault.test_acknowledging import LOST, asking, deaf, is_open
from unit.vault.test_nodes import Pair

pytestmark = pytest.mark.anyio


class Scene:
    """Two nodes; ``b`` has an open reservation of key ``web``, and ``handle`` is for it."""

    def __init__(self, pair: Pair, handle: str) -> None:
        self.a, self.b, self.handle = pair.a, pair.b, handle

    async def ack_of_b(self) -> str:
        """How ``b`` answers one use; empty: it refuses it."""
        answer = await self.b.ask(self.b.use_of(self.handle))
        return answer.receipt.ack if isinstance(answer, Done) and answer.receipt else ""


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    pair = Pair()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(pair.a.serving())
        await stack.enter_async_context(pair.b.serving())
        await pair.a.create("web", Purpose.TLS, policy=Policy(ack="best_effort"))
        handle = (await pair.a.issue("web")).token
        await pair.together()
        check_done(await pair.b.ask(pair.b.use_of(handle)))
        await eventually(lambda: bool(pair.a.store.reservations_open("b")))
        await asyncio.sleep(0.05)
        yield Scene(pair, handle)


async def test_who_is_asked_again_waits_for_its_own_reservations(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf(scene.b, monkeypatch)
    first = asking(scene.a, LOST, "k-1")
    await eventually(lambda: bool(scene.a.log("revoke")))
    again = asking(scene.b, LOST, "k-1")
    assert await scene.ack_of_b() == "best_effort", "it has not heard, and may answer: as yet"
    assert await is_open(again)
    for node in (scene.a, scene.b):
        node.clock.advance(BOUND_MS)
    check_done(await asyncio.wait_for(first, 5))
    check_done(await asyncio.wait_for(again, 5))
    assert await scene.ack_of_b() == ""


async def test_nothing_is_answered_after_a_repeated_stop_was(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first node is gone before it could tell; the second one knows only what is stored."""
    deaf(scene.b, monkeypatch)
    asking(scene.a, LOST, "k-1")
    await eventually(lambda: bool(scene.a.log("revoke")))
    again = asking(scene.b, LOST, "k-1")
    acks = []
    while not again.done():
        acks.append(await scene.ack_of_b())
        scene.b.clock.advance(BOUND_MS // 4)
        await asyncio.sleep(0.05)
    check_done(again.result())
    assert "best_effort" in acks
    assert await scene.ack_of_b() == ""
