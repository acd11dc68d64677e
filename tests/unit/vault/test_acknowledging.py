"""The answer to a revocation waits for what other nodes may still give out, and no longer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest

from keystead.frames.messages import Admin
from keystead.keys.commands import Command, MoveVersion, RevokeHandle, RevokeKeyHandles
from keystead.keys.lifecycle import Move
from keystead.keys.model import Policy
from keystead.keys.purposes import Purpose
from keystead.keys.reservations import BOUND_MS
from keystead.keys.stops import EmergencyInfo, EmergencyStop, Revoke, Revoked
from unit.vault.node import Future, Node, check_done, check_refused, result_of
from unit.vault.scene import eventually
from unit.vault.test_nodes import Pair

pytestmark = pytest.mark.anyio
LOST = Revoke(key="web", state="compromised", reason="stolen")


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Two nodes; ``b`` has an open reservation of key ``web``, and hears nothing from now on."""
    made = Pair()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(made.a.serving())
        await stack.enter_async_context(made.b.serving())
        await made.a.create("web", Purpose.TLS, policy=Policy(ack="best_effort"))
        handle = (await made.a.issue("web")).token
        await made.together()
        check_done(await made.b.ask(made.b.use_of(handle)))
        await eventually(lambda: bool(made.a.store.reservations_open("b")))
        yield made


def deaf(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert node.built.following is not None
    monkeypatch.setattr(node.built.following, "moved", lambda _epoch: None)


def asking(node: Node, command: Command, key: str | None = None) -> Future:
    encoded = msgspec.msgpack.encode(command)
    return node.begin(Admin(node.next_id(), node.token, encoded, key))


async def is_open(waiting: Future) -> bool:
    """Whether it is unanswered after several looks."""
    await asyncio.sleep(0.15)
    return not waiting.done()


async def test_a_node_that_hears_of_it_confirms_and_ends_the_wait(pair: Pair) -> None:
    told = result_of(await pair.a.admin(LOST), Revoked)
    assert told.best_effort is not None
    assert told.best_effort.ended_ms < told.best_effort.bound_ms == BOUND_MS
    assert pair.seen()["b"] >= told.fence.epoch


@pytest.mark.parametrize(
    "command",
    [
        LOST,
        MoveVersion(name="web", move=Move.SUSPEND, reason="x"),
        RevokeKeyHandles(key="web", reason="x"),
        RevokeHandle(link="0" * 32, reason="x"),
        EmergencyStop(tenant=None, reason="x"),
        Revoke(purpose=Purpose.TLS, what="handles", reason="x"),
    ],
)
async def test_a_deaf_node_holds_up_the_answer_for_the_bound_and_no_longer(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    deaf(pair.b, monkeypatch)
    waiting = asking(pair.a, command)
    assert await is_open(waiting)
    pair.a.clock.advance(BOUND_MS - 1)
    assert await is_open(waiting)
    pair.a.clock.advance(1)
    answer = check_done(await asyncio.wait_for(waiting, 5))
    if isinstance(command, Revoke):
        ended = msgspec.msgpack.decode(answer.result, type=Revoked).best_effort
    elif isinstance(command, EmergencyStop):
        ended = msgspec.msgpack.decode(answer.result, type=EmergencyInfo).best_effort
    else:
        return  # its answer is as it always was; it waits all the same
    assert ended is not None
    assert ended.ended_ms == BOUND_MS


async def test_the_commit_itself_waits_for_nobody(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fence is at the commit: durable uses of the other node are refused before the answer."""
    issued = await pair.a.issue("web")
    await pair.together()
    deaf(pair.b, monkeypatch)
    waiting = asking(pair.a, LOST)
    await eventually(lambda: bool(pair.a.log("revoke")))
    assert await is_open(waiting)
    once = pair.b.use_of(issued.token, key="durable")
    check_refused(await pair.b.ask(once), "key_state")
    pair.a.clock.advance(BOUND_MS)
    check_done(await asyncio.wait_for(waiting, 5))


async def test_a_repeated_request_waits_as_the_first_one_did(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer may have been lost while other nodes had not heard yet."""
    deaf(pair.b, monkeypatch)
    first = asking(pair.a, LOST, "once")
    await eventually(lambda: bool(pair.a.log("revoke")))
    again = asking(pair.a, LOST, "once")
    assert await is_open(again)
    pair.a.clock.advance(BOUND_MS)
    for waiting in (first, again):
        check_done(await asyncio.wait_for(waiting, 5))
    assert len(pair.a.log("revoke")) == 1


async def test_keys_that_it_is_not_about_hold_up_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.a.create("notes", Purpose.DATA)
    deaf(pair.b, monkeypatch)
    command = Revoke(key="notes", state="compromised", reason="x")
    assert result_of(await pair.a.admin(command), Revoked).best_effort is None


async def test_a_forged_confirmation_confirms_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf(pair.b, monkeypatch)
    waiting = asking(pair.a, LOST)
    await eventually(lambda: bool(pair.a.log("revoke")))
    [row] = [row for row in pair.a.store.nodes() if row.node == "b"]
    forged = msgspec.structs.replace(row, seen_epoch=row.seen_epoch + 100)
    with pair.a.store.transaction() as tx:
        tx.put_node(forged)
    assert await is_open(waiting)
    pair.a.clock.advance(BOUND_MS)
    check_done(await asyncio.wait_for(waiting, 5))
    assert pair.a.built.standing.counters["invariant_violations", "I10"] > 0


async def test_a_store_that_is_down_is_waited_out(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf(pair.b, monkeypatch)
    waiting = asking(pair.a, LOST)
    await eventually(lambda: bool(pair.a.log("revoke")))
    pair.a.store.down = True
    assert await is_open(waiting)
    pair.a.clock.advance(BOUND_MS)
    check_done(await asyncio.wait_for(waiting, 5))
    pair.a.store.down = False


async def test_a_node_that_ends_says_that_it_did_not_hear(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf(pair.b, monkeypatch)
    waiting = asking(pair.a, LOST)
    await eventually(lambda: bool(pair.a.log("revoke")))
    assert await is_open(waiting)
    pair.a.built.acknowledgements.close()
    refused = check_refused(await asyncio.wait_for(waiting, 5), "log_unavailable")
    assert "committed" in refused.message
