"""Opened versions: from first use until their key changes, or room ends; closed means wiped."""

import asyncio

import pytest

from keystead.custody.locked import LockedBuffer
from keystead.custody.root import RootKey
from keystead.custody.software import SoftwareCustody
from keystead.errors import CustodyUnavailable
from keystead.keys.commands import MoveVersion, RevokeKeyHandles
from keystead.keys.framing.data import Mac
from keystead.keys.framing.tls import SignTls
from keystead.keys.lifecycle import Move
from keystead.keys.model import Key, Version
from keystead.keys.purposes import Purpose
from keystead.ports import OpenKey
from keystead.testing.clocks import SeededRandom
from keystead.vault.opened import OpenedKeys
from unit.vault.node import Node, check_done, check_refused

pytestmark = pytest.mark.anyio
MAC = Mac(message=b"m")


class Watched(SoftwareCustody):
    """Real custody that remembers what it opened."""

    def __init__(self) -> None:
        random = SeededRandom(3)
        super().__init__(RootKey(LockedBuffer.take(bytearray(b"\1" * 32)), random), random)
        self.opened: list[OpenKey] = []

    def open(self, key: Key, version: Version, sealed: bytes, tenant_key: bytes) -> OpenKey:
        self.opened.append(super().open(key, version, sealed, tenant_key))
        return self.opened[-1]

    def closed(self) -> list[bool]:
        """Of each that was opened, whether it is closed now."""
        found: list[bool] = []
        for opened in self.opened:
            try:
                opened.mac(MAC, b"")
            except CustodyUnavailable:
                found.append(True)
            else:
                found.append(False)
        return found


@pytest.fixture
def custody() -> Watched:
    return Watched()


@pytest.fixture
def node(custody: Watched) -> Node:
    return Node(custody=custody)


async def test_a_version_is_opened_at_its_first_use_and_once(node: Node, custody: Watched) -> None:
    async with node.serving():
        await node.create("vault", Purpose.DATA)
        handle = (await node.issue("vault")).token
        assert custody.opened == []
        for _ in range(3):
            check_done(await node.ask(node.use_of(handle, MAC, "data.mac")))
        assert custody.closed() == [False]
        assert len(node.built.opened) == 1
    assert custody.closed() == [True]


@pytest.mark.parametrize("change", ["suspended", "handles revoked"])
async def test_a_changed_key_is_closed_and_opens_again(
    node: Node, custody: Watched, change: str
) -> None:
    async with node.serving():
        await node.create("vault", Purpose.DATA)
        await node.create("other", Purpose.DATA)
        for name in ("vault", "other"):
            handle = (await node.issue(name)).token
            check_done(await node.ask(node.use_of(handle, MAC, "data.mac")))
        if change == "suspended":
            for move in (Move.SUSPEND, Move.RESUME):
                check_done(await node.admin(MoveVersion(name="vault", move=move, reason="drill")))
        else:
            check_done(await node.admin(RevokeKeyHandles(key="vault", reason="drill")))
        assert custody.closed() == [True, False]
        handle = (await node.issue("vault")).token
        check_done(await node.ask(node.use_of(handle, MAC, "data.mac")))
        assert custody.closed() == [True, False, False]


async def test_the_least_recently_used_is_closed_first(node: Node, custody: Watched) -> None:
    async with node.serving():
        keys = []
        for name in ("a", "b", "c"):
            await node.create(name, Purpose.DATA)
            keys.append(node.built.standing.snapshot.named(name))
        few = OpenedKeys(custody, node.store, most=2)
        for key in (keys[0], keys[1], keys[0], keys[2]):
            few.get(key, key.versions[0])
        assert len(few) == 2
        assert custody.closed() == [False, True, False]
        few.get(keys[1], keys[1].versions[0])
        assert custody.closed() == [True, True, False, False]
        few.close()
        assert custody.closed() == [True] * 4
        assert len(few) == 0


async def test_an_older_opened_version_is_closed_when_it_is_replaced(
    node: Node, custody: Watched
) -> None:
    async with node.serving():
        await node.create("vault", Purpose.DATA)
        few = OpenedKeys(custody, node.store)
        before = node.built.standing.snapshot.named("vault")
        few.get(before, before.versions[0])
        check_done(await node.admin(RevokeKeyHandles(key="vault", reason="drill")))
        after = node.built.standing.snapshot.named("vault")
        few.get(after, after.versions[0])
        assert custody.closed() == [True, False]
        few.close()


async def test_what_was_destroyed_does_not_open(node: Node) -> None:
    async with node.serving():
        await node.create("vault", Purpose.DATA)
        key = node.built.standing.snapshot.named("vault")
        for move in (Move.DEACTIVATE, Move.DESTROY):
            check_done(await node.admin(MoveVersion(name="vault", move=move, reason="end of life")))
        with pytest.raises(CustodyUnavailable, match="not in the registry") as caught:
            node.built.opened.get(key, key.versions[0])
        assert "backup" in caught.value.hint
        handle = (await node.issue("vault")).token
        check_refused(await node.ask(node.use_of(handle, MAC, "data.mac")), "key_state")


async def test_what_a_thread_works_with_stays_open_until_it_has_done(
    node: Node, custody: Watched
) -> None:
    async with node.serving():
        for name in ("a", "b"):
            await node.create(name, Purpose.DATA)
        first, second = (node.built.standing.snapshot.named(name) for name in ("a", "b"))
        few = OpenedKeys(custody, node.store, most=1)
        lent = few.get(first, first.versions[0])
        few.lend(lent)
        few.lend(lent)
        few.get(second, second.versions[0])
        few.take_back(lent)
        assert (len(few), custody.closed()) == (1, [False, False])
        few.take_back(lent)
        assert custody.closed() == [True, False]
        few.close()


async def test_more_slow_keys_than_room_are_all_used(node: Node) -> None:
    async with node.serving():
        handles = []
        for number in range(4):
            await node.create(f"slow{number}", Purpose.TLS, algorithm="ml-dsa-44")
            handles.append((await node.issue(f"slow{number}")).token)
        node.built.opened._most = 1  # noqa: SLF001  no node has so little room
        facts = SignTls(role="server", transcript_hash=bytes(32))
        asked = [node.ask(node.use_of(handle, facts, "tls.sign")) for handle in handles * 5]
        for answer in await asyncio.gather(*asked):
            check_done(answer)
