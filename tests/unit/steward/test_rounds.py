"""The steward's rounds against a real vault on a socket: what it finds reaches the metrics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from keystead.frames.messages import Status, StatusInfo
from keystead.keys.purposes import Purpose
from keystead.net.link import VaultLink
from keystead.steward import rounds
from keystead.steward.rounds import make_rounds
from keystead.vault.server import listen
from unit.vault.node import Node, all_of, check_done, check_refused, result_of
from unit.vault.scene import eventually

pytestmark = pytest.mark.anyio
WITHIN_S = 10.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_ROUND_S", 0.01)


@pytest.fixture
def node() -> Node:
    return Node()


@asynccontextmanager
async def steward(node: Node, path: Path) -> AsyncIterator[None]:
    """The steward at its rounds; it may be there before the vault's socket is."""
    link = VaultLink(str(path))
    stop = asyncio.Event()
    await link.start()
    making = asyncio.create_task(make_rounds(link, node.store, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(making, WITHIN_S)
        await link.close()


@asynccontextmanager
async def vault(node: Node, path: Path) -> AsyncIterator[None]:
    async with node.serving():
        listener = await listen(node.built.service, str(path))
        try:
            yield
        finally:
            listener.close()
            await asyncio.sleep(0.01)


async def violations(node: Node) -> float:
    info = result_of(await node.ask(Status(node.next_id())), StatusInfo)
    return sum(
        metric.value
        for metric in info.metrics
        if metric.labels == {"invariant": "I10"} and metric.name.endswith("_violations")
    )


def spoil(node: Node) -> None:
    """Somebody alters the first record."""
    records = node.disk.tables.records
    row = msgspec.structs.replace(records[0], leaf=bytes(32))
    node.disk.tables = msgspec.structs.replace(node.disk.tables, records={**records, 0: row})


async def counted(node: Node) -> None:
    """Wait until the vault's metrics tell of a finding."""
    await eventually(lambda: bool(node.built.standing.counters["invariant_violations", "I10"]))


async def test_rounds_end_when_they_are_told(node: Node, tmp_path: Path) -> None:
    async with vault(node, tmp_path / "v.sock"):
        async with steward(node, tmp_path / "v.sock"):
            await asyncio.sleep(0.05)
        assert await violations(node) == 0


async def test_rounds_have_the_vault_tend_to_itself(node: Node, tmp_path: Path) -> None:
    async with vault(node, tmp_path / "v.sock"):
        for answer in await all_of([node.begin(node.use_of("ks1.AAAA")) for _ in range(70)]):
            check_refused(answer, "handle_invalid")
        node.clock.advance(60_000)
        async with steward(node, tmp_path / "v.sock"):
            await eventually(lambda: bool(node.log("denials.summary")))
    assert len(node.log("denials.summary")) == 1


async def test_a_finding_reaches_the_metrics_once(node: Node, tmp_path: Path) -> None:
    async with vault(node, tmp_path / "v.sock"):
        spoil(node)
        async with steward(node, tmp_path / "v.sock"):
            await counted(node)
            await asyncio.sleep(0.05)
        assert await violations(node) == 1


async def test_a_finding_is_told_again_until_the_vault_has_heard_it(
    node: Node, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The vault restarts, and the record that did not fit is behind the watch already."""
    spoil(node)
    async with steward(node, tmp_path / "v.sock"):
        said = ""
        async with asyncio.timeout(WITHIN_S):
            while "the leaf is not that of its entry" not in said or "refused" not in said:
                await asyncio.sleep(0.01)
                said += capfd.readouterr().out
        async with vault(node, tmp_path / "v.sock"):
            await counted(node)
            assert await violations(node) == 1


async def test_rounds_outlive_a_store_that_does_not_answer(node: Node, tmp_path: Path) -> None:
    async with vault(node, tmp_path / "v.sock"):
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        async with steward(node, tmp_path / "v.sock"):
            node.store.down = True
            await asyncio.sleep(0.05)
            node.store.down = False
            spoil(node)
            check_done(await node.ask(node.use_of(handle)))
            await asyncio.sleep(0.05)
        assert len(node.log("tls.sign")) == 1
