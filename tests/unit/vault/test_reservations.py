"""Best-effort uses: reserved durably first, spent in memory, recorded after, and gaps told (I2)."""

import asyncio

import msgspec
import pytest

from keystead import limits
from keystead.frames.messages import Done
from keystead.keys.commands import CreateKey, MoveVersion, RevokeHandle, RevokeKeyHandles
from keystead.keys.lifecycle import Move
from keystead.keys.model import Policy
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose
from keystead.testing.memory_store import Fault
from keystead.vault import reservations
from unit.vault.node import Node, all_of, check_done, check_refused
from unit.vault.scene import eventually

pytestmark = pytest.mark.anyio
BEST_EFFORT = Policy(ack="best_effort")


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reservation holds so few uses that a test can spend them."""
    monkeypatch.setattr(limits, "RESERVATION_USES", 10)


async def web(node: Node, narrowing: Narrowing | None = None) -> str:
    """A handle of a best-effort key."""
    await node.create("web", Purpose.TLS, policy=BEST_EFFORT)
    return (await node.issue("web", narrowing)).token


async def use(node: Node, handle: str, *, key: str | None = None) -> str:
    """One use; gives its ack."""
    answer = check_done(await node.ask(node.use_of(handle, key=key)))
    assert answer.receipt is not None
    assert (answer.receipt.seq is None) == (answer.receipt.ack == "best_effort")
    return answer.receipt.ack


async def reserved(node: Node, handle: str) -> None:
    """Ask for a reservation by a first use, and wait until it is there."""
    assert await use(node, handle) == "durable"
    await granted(node)


async def granted(node: Node, count: int = 1) -> None:
    """Wait until so many reservations were opened, and the loop knows."""
    await eventually(lambda: len(node.log("reservation.open")) >= count)
    await asyncio.sleep(0.02)


async def recorded(node: Node, count: int, op: str = "tls.sign") -> None:
    """Wait until so many uses are recorded: they follow their answers."""
    await eventually(lambda: len(node.log(op)) >= count)


def acks(node: Node) -> list[str]:
    return [body.ack for body in node.log("tls.sign")]


# --- spending ------------------------------------------------------------------------------------


async def test_the_first_use_is_durable_and_asks(node: Node) -> None:
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        assert await use(node, handle) == "best_effort"
        await recorded(node, 2)
    (opened,) = node.log("reservation.open")
    assert (opened.count, opened.name, opened.ack) == (10, "web", "best_effort")
    late = node.log("tls.sign")[1]
    assert (late.reservation, late.ack) == (opened.reservation, "best_effort")


async def test_the_answer_does_not_wait_for_the_disk(node: Node) -> None:
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        release = node.hold()
        assert await use(node, handle) == "best_effort"
        assert acks(node) == ["durable"]
        release()
        await recorded(node, 2)


async def test_a_default_key_waits(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        for _ in range(3):
            assert await use(node, handle) == "durable"
    assert node.log("reservation.open") == []


async def test_what_is_decided_in_the_commit_waits_for_it(node: Node) -> None:
    """An idempotency key and a budget of uses have their effect there."""
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        counted = (await node.issue("web", Narrowing(uses=3))).token
        assert await use(node, handle, key="once") == "durable"
        assert await use(node, counted) == "durable"
        assert await use(node, handle) == "best_effort"


async def test_the_next_is_asked_for_when_half_is_spent(node: Node) -> None:
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        for _ in range(4):
            assert await use(node, handle) == "best_effort"
        await asyncio.sleep(0.02)
        assert len(node.log("reservation.open")) == 1
        assert await use(node, handle) == "best_effort"
        await granted(node, 2)
        for _ in range(5 + 4):  # what is left of the first, then the second without a wait
            assert await use(node, handle) == "best_effort"
        await recorded(node, 15)
    first, second = (body.reservation for body in node.log("reservation.open"))
    spent = [body.reservation for body in node.log("tls.sign")]
    assert (spent.count(first), spent.count(second)) == (10, 4)


async def test_the_next_is_asked_for_at_half_its_life(node: Node) -> None:
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        node.clock.advance(limits.RESERVATION_LIFE_MS // 2 + 1)
        assert await use(node, handle) == "best_effort"
        await granted(node, 2)
        node.clock.advance(limits.RESERVATION_LIFE_MS // 2)
        assert await use(node, handle) == "best_effort"
        await recorded(node, 3)
    assert len({body.reservation for body in node.log("tls.sign")}) == 3  # and one has none


async def test_no_more_than_was_reserved_is_spent(node: Node) -> None:
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        release = node.hold()
        waiting = [node.begin(node.use_of(handle)) for _ in range(30)]
        await asyncio.sleep(0.05)
        assert sum(each.done() for each in waiting) == 10
        release()
        for answer in await all_of(waiting):
            check_done(answer)
        await recorded(node, 31)
    assert acks(node).count("best_effort") == 10


@pytest.mark.parametrize("wall_ms", [0, -(10**9), 10**9])
async def test_life_is_by_boottime(node: Node, wall_ms: int) -> None:
    """From before it was asked for; whoever sets the wall clock neither shortens nor extends it."""
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        node.clock.jump(wall_ms)
        assert await use(node, handle) == "best_effort"
        node.clock.advance(limits.RESERVATION_LIFE_MS)
        assert await use(node, handle) == "durable"
        await granted(node, 2)
        assert await use(node, handle) == "best_effort"


async def test_one_that_comes_too_late_is_not_spent(node: Node) -> None:
    """Its life began before it was asked for, however long the disk took."""
    async with node.serving():
        handle = await web(node)
        release = node.hold()
        first = node.begin(node.use_of(handle))
        await asyncio.sleep(0.02)
        node.clock.advance(limits.RESERVATION_LIFE_MS)
        release()
        check_done((await all_of([first]))[0])
        await granted(node)
        assert await use(node, handle) == "durable"
        await recorded(node, 1, "reservation.close")
    assert node.log("reservation.close")[0].count == 0


async def test_trouble_with_the_disk_makes_uses_durable(node: Node) -> None:
    """What cannot be recorded must not be answered first, reserved or not."""
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        node.store.fail_next(Fault.NOT_APPLIED)
        check_refused(await node.ask(node.use_of(handle, key="x")), "log_unavailable")
        assert await use(node, handle) == "durable"
        assert await use(node, handle) == "best_effort"


async def test_a_reservation_that_fails_is_asked_for_again(node: Node) -> None:
    async with node.serving():
        handle = await web(node)
        node.store.down = True
        check_refused(await node.ask(node.use_of(handle)), "log_unavailable")
        node.store.down = False
        assert await use(node, handle) == "durable"
        assert await use(node, handle) == "durable"
        await granted(node)
        assert await use(node, handle) == "best_effort"


# --- changes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["handle", "all handles", "version"])
async def test_nothing_is_spent_while_a_change_is_on_its_way(node: Node, change: str) -> None:
    """A use that was answered stands before the change; one after it is refused (I4)."""
    async with node.serving():
        await node.create("web", Purpose.TLS, policy=BEST_EFFORT)
        issued = await node.issue("web")
        await reserved(node, issued.token)
        release = node.hold()
        assert await use(node, issued.token) == "best_effort"
        command: RevokeHandle | RevokeKeyHandles | MoveVersion
        match change:
            case "handle":
                command = RevokeHandle(link=issued.link, reason="lost")
            case "all handles":
                command = RevokeKeyHandles(key="web", reason="lost")
            case _:
                command = MoveVersion(name="web", move=Move.SUSPEND, reason="lost")
        stop = asyncio.create_task(node.admin(command))
        await asyncio.sleep(0.02)
        behind = node.begin(node.use_of(issued.token))
        await asyncio.sleep(0.02)
        assert not behind.done()
        release()
        receipt = check_done(await stop).receipt
        assert receipt is not None
        check_refused(
            (await all_of([behind]))[0], "key_state" if change == "version" else "handle_revoked"
        )
    uses = node.log("tls.sign")
    assert [body.outcome for body in uses[:2]] == ["ok", "ok"]
    assert uses[1].ack == "best_effort"
    assert receipt.seq is not None
    assert [body.seq < receipt.seq for body in uses] == [True, True, False]


async def test_a_change_that_fails_lets_uses_go_on(node: Node) -> None:
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        again = CreateKey(name="web", purpose=Purpose.TLS)
        check_refused(await node.admin(again), "conflict")
        suspend = MoveVersion(name="web", move=Move.RESUME, reason="none is suspended")
        check_refused(await node.admin(suspend), "key_state")
        node.store.fail_next(Fault.NOT_APPLIED)
        check_refused(await node.admin(RevokeKeyHandles(key="web", reason="x")), "log_unavailable")
        assert await use(node, handle) == "best_effort"


async def test_late_records_stand_before_a_change(node: Node) -> None:
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        node.store.fail_next(Fault.NOT_APPLIED)
        assert await use(node, handle) == "best_effort"
        receipt = check_done(await node.admin(RevokeKeyHandles(key="web", reason="lost"))).receipt
        assert receipt is not None
        assert receipt.seq is not None
    late = node.log("tls.sign")[1]
    assert (late.ack, late.epoch) == ("best_effort", receipt.epoch - 1)
    assert late.seq < receipt.seq


async def test_a_stopped_key_spends_no_reservation(node: Node) -> None:
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        check_done(await node.admin(MoveVersion(name="web", move=Move.COMPROMISE, reason="leaked")))
        check_refused(await node.ask(node.use_of(handle)), "key_state")
    assert acks(node) == ["durable", "durable"]  # the refusal's own record waits as any other


# --- ends ----------------------------------------------------------------------------------------


async def test_what_has_ended_is_closed_with_what_was_spent(node: Node) -> None:
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        for _ in range(3):
            await use(node, handle)
        node.clock.advance(limits.RESERVATION_LIFE_MS)
        check_done(await node.tend())
        await recorded(node, 1, "reservation.close")
        assert node.store.reservations_open("node-a") == []
    (closed,) = node.log("reservation.close")
    assert closed.count == 3


async def test_one_that_was_never_spent_is_closed_too(node: Node) -> None:
    """Else the next start would count its uses as a gap, though there was no crash."""
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        node.clock.advance(limits.RESERVATION_LIFE_MS)
        check_done(await node.tend())
        await recorded(node, 1, "reservation.close")
    (closed,) = node.log("reservation.close")
    assert closed.count == 0


@pytest.mark.parametrize("spent", [0, 1, 6])
async def test_an_orderly_end_leaves_no_gap(node: Node, spent: int) -> None:
    """Not with one in use, nor with the next one already granted and none of it spent."""
    async with node.serving():
        handle = await web(node)
        await reserved(node, handle)
        for _ in range(spent):
            assert await use(node, handle) == "best_effort"
        await granted(node, 2 if spent >= 5 else 1)
    assert node.store.reservations_open("node-a") == []
    after = node.after_restart()
    async with after.serving():
        assert after.gap_uses == 0
    assert node.log("reservation.gap") == []


async def test_an_orderly_end_closes_one_that_is_still_being_asked_for(node: Node) -> None:
    async with node.serving():
        handle = await web(node)
        check_done(await node.ask(node.use_of(handle, key="x")))  # asks for nothing: it has a key
        release = node.hold()
        node.built.reservations.spend(node.log("tls.sign")[0].key)
        await asyncio.sleep(0.02)  # it is in its commit
        asyncio.get_running_loop().call_later(0.05, release)
    assert [body.op for body in node.log()[-2:]] == ["reservation.open", "reservation.close"]
    assert node.store.reservations_open("node-a") == []


@pytest.mark.parametrize("lost", [0, 1, 4])
async def test_a_crash_leaves_a_gap_that_the_next_start_records(node: Node, lost: int) -> None:
    async with node.serving(orderly=False):
        handle = await web(node)
        await reserved(node, handle)
        for _ in range(5):
            assert await use(node, handle) == "best_effort"
        await recorded(node, 6)
        await granted(node, 2)
        before = node.disk.tables
        for _ in range(lost):
            assert await use(node, handle) == "best_effort"
        await recorded(node, 6 + lost)
    # The disk as it was before the last records: that they were answered nobody knows any more.
    node.disk.tables = msgspec.structs.replace(before, epoch=node.disk.tables.epoch)
    after = node.after_restart()
    async with after.serving():
        assert after.gap_uses == 5 + 10
        assert lost <= after.gap_uses
        assert after.store.reservations_open("node-a") == []
    assert sorted(body.count for body in after.log("reservation.gap")) == [5, 10]
    again = after.after_restart()
    async with again.serving():
        assert again.gap_uses == 0


async def test_the_gap_of_one_reservation_is_at_most_the_reservation(node: Node) -> None:
    async with node.serving(orderly=False):
        handle = await web(node)
        await reserved(node, handle)
    after = node.after_restart()
    async with after.serving():
        assert after.gap_uses == limits.RESERVATION_USES
    (gap,) = after.log("reservation.gap")
    assert (gap.count, gap.key, gap.ack) == (10, node.log("tls.sign")[0].key, "best_effort")
    assert "0 of 10" in gap.detail


async def test_a_gap_is_counted_over_a_long_log(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "_SCAN", 2)
    async with node.serving(orderly=False):
        handle = await web(node)
        await reserved(node, handle)
        for _ in range(4):
            assert await use(node, handle) == "best_effort"
            assert await use(node, handle, key=str(node.next_id())) == "durable"
        await recorded(node, 9)
    after = node.after_restart()
    async with after.serving():
        assert after.gap_uses == 10 - 4


async def test_a_restart_does_not_spend_what_was_reserved_before(node: Node) -> None:
    async with node.serving(orderly=False):
        handle = await web(node)
        await reserved(node, handle)
    after = node.after_restart()
    async with after.serving():
        answer = await after.ask(after.use_of(handle))
        assert isinstance(answer, Done)
        assert answer.receipt is not None
        assert answer.receipt.ack == "durable"
