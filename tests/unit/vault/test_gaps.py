"""A gap is told in full though a record stands twice: what the model found, on a vault (I2)."""

import msgspec
import pytest

from keystead import limits
from keystead.keys.model import Policy
from keystead.keys.purposes import Purpose
from keystead.testing.memory_store import Fault
from unit.vault.node import Node, check_done
from unit.vault.scene import eventually

pytestmark = pytest.mark.anyio


def recorded(node: Node) -> int:
    return sum(body.ack == "best_effort" for body in node.log("tls.sign"))


async def test_a_use_that_was_recorded_twice_is_one_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commit was applied and reported as failed, so that it was committed again.

    Counted as two it would hide a use that the crash left without a record.
    """
    monkeypatch.setattr(limits, "RESERVATION_USES", 100)
    node = Node()
    async with node.serving(orderly=False):
        await node.create("web", Purpose.TLS, policy=Policy(ack="best_effort"))
        handle = (await node.issue("web")).token

        async def use() -> str:
            answer = check_done(await node.ask(node.use_of(handle)))
            assert answer.receipt is not None
            return answer.receipt.ack

        async def reserved() -> bool:
            return await use() == "best_effort"

        while not await reserved():
            await eventually(lambda: bool(node.log("reservation.open")))
        await eventually(lambda: recorded(node) == 1)
        node.store.fail_next(Fault.APPLIED)
        assert await use() == "best_effort"
        await eventually(lambda: recorded(node) == 3)
        before = node.disk.tables
        assert await use() == "best_effort"
        await eventually(lambda: recorded(node) == 4)
    # The disk as it was before the last record, which the crash has lost.
    node.disk.tables = msgspec.structs.replace(before, epoch=node.disk.tables.epoch)
    after = node.after_restart()
    async with after.serving():
        assert after.gap_uses == 100 - 2
