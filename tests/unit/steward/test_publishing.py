"""Publishing, against a real vault on a socket and real files: what is put out, and what is not."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest

from keystead.crypto.witnesskey import witness_key
from keystead.errors import KeysteadError
from keystead.keys.purposes import Purpose
from keystead.net.link import VaultLink
from keystead.net.witnesses import Behind, Cosigned, Outcome, Unreachable, Witness
from keystead.steward.cosigning import Cosigners
from keystead.steward.publishing import Publisher
from keystead.steward.tree import TreeWriter
from keystead.store.tile_files import TileFiles
from keystead.store.tree_files import TreeFiles
from keystead.translog.checkpoints import open_checkpoint
from keystead.translog.cosignatures import cosign, verify_cosignature
from keystead.translog.heads import Checkpoint
from keystead.translog.notes import ED25519_COSIGNATURE, parse_note, parse_vkey, vkey_of
from keystead.translog.tiles import Tile, parse_path
from keystead.translog.tree import verify_consistency
from keystead.vault.server import listen
from unit.vault.node import Node, all_of

pytestmark = pytest.mark.anyio
TIME_S = 1_800_000_000


class Remembering:
    """In place of a witness behind HTTP: its rules and a real key, without a network."""

    def __init__(self) -> None:
        self._key = witness_key(b"w" * 32)
        self.vkey = vkey_of("w1", ED25519_COSIGNATURE, self._key.public)
        self.head = Checkpoint("", 0, b"")
        self.away = False
        self.asked = 0

    async def submit(self, note: bytes, old: int, proof: Sequence[bytes]) -> Outcome:
        self.asked += 1
        if self.away:
            return Unreachable("away")
        if old != self.head.size:
            return Behind(self.head.size)
        text = parse_note(note).text
        key = parse_vkey(self.log)
        head, _ = open_checkpoint(note, key)
        if old:
            verify_consistency(old, self.head.root, head.size, head.root, proof)
        self.head = head
        return Cosigned(cosign(text, self.vkey, TIME_S, self._key.sign), TIME_S)

    log = ""

    async def aclose(self) -> None:
        return


class Desk:
    """A node, its steward's publisher, and the folder it publishes to."""

    def __init__(self, node: Node, folder: Path, link: VaultLink) -> None:
        self.node, self.link = node, link
        self.files = TileFiles(folder / "log")
        self.witness = Remembering()
        self.now_s = 0.0
        self.watched = False
        self.publisher = self.new_publisher()

    def new_publisher(self) -> Publisher:
        witnesses = [cast("Witness", self.witness)] if self.watched else []
        self.cosigners = Cosigners(witnesses, lambda: self.now_s)
        writer = TreeWriter(self.node.store, TreeFiles(self.files))
        return Publisher(self.link, writer, self.files, self.cosigners)

    async def grow(self, count: int) -> None:
        handle = await self.node.handle(Purpose.TLS)
        waiting = [self.node.begin(self.node.use_of(handle, key=f"k{n}")) for n in range(count)]
        await all_of(waiting)

    def published(self) -> Checkpoint:
        note = self.files.checkpoint()
        assert note is not None
        head, _ = open_checkpoint(note, parse_vkey(self.files.words("vkey").decode().strip()))
        TreeFiles(self.files).resume(head)  # raises if the files have another root
        return head

    def alter(self, seq: int, **columns: object) -> None:
        tables = self.node.disk.tables
        row = msgspec.structs.replace(tables.records[seq], **columns)
        records = {**tables.records, seq: row}
        self.node.disk.tables = msgspec.structs.replace(tables, records=records)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with opened(Node(), tmp_path) as made:
        yield made


@asynccontextmanager
async def opened(node: Node, folder: Path) -> AsyncIterator[Desk]:
    path = str(folder / "vault.sock")
    async with node.serving():
        listener = await listen(node.built.service, path)
        link = VaultLink(path)
        await link.start()
        try:
            yield Desk(node, folder, link)
        finally:
            await link.close()
            listener.close()
            await asyncio.sleep(0.01)


async def test_what_is_committed_is_published(desk: Desk) -> None:
    await desk.publisher.publish()
    assert desk.published().size == 2
    for count in (1, 300, 600):
        await desk.grow(count)
        await desk.publisher.publish()
        assert desk.published().size == desk.node.store.last_sequence() + 1
    assert desk.publisher.findings == []


async def test_full_tiles_take_the_place_of_partial_ones(desk: Desk) -> None:
    for _ in range(3):
        await desk.grow(120)
        await desk.publisher.publish()
    names = [
        str(path.relative_to(desk.files.folder))
        for path in desk.files.folder.rglob("*")
        if path.is_file() and path.name not in {"checkpoint", "vkey", "policy"}
    ]
    assert "tile/0/000" in names
    assert not [name for name in names if name.startswith("tile/0/000.p")]
    for name in names:
        parse_path(name)  # nothing else lies there
    partial = desk.files.read(Tile(0, 0, 7))
    assert partial == desk.files.read(Tile(0, 0))[: 7 * 32]


async def test_a_steward_that_starts_again_goes_on(desk: Desk) -> None:
    await desk.grow(300)
    await desk.publisher.publish()
    before = desk.files.read(Tile(0, 0))
    desk.publisher = desk.new_publisher()
    await desk.grow(5)
    await desk.publisher.publish()
    assert desk.published().size == desk.node.store.last_sequence() + 1
    assert desk.files.read(Tile(0, 0)) == before


@pytest.mark.parametrize("name", ["checkpoint", "tile/0/001.p/{}", "tile/1/000.p/1"])
@pytest.mark.parametrize("damage", ["gone", "flipped", "cut"])
async def test_damaged_files_are_made_again(desk: Desk, name: str, damage: str) -> None:
    await desk.grow(300)
    await desk.publisher.publish()
    path = desk.files.folder / name.format(desk.published().size - 256)
    whole = path.read_bytes()
    match damage:
        case "gone":
            path.unlink()
        case "cut":
            path.write_bytes(whole[:-1])
        case _:
            path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    desk.publisher = desk.new_publisher()
    await desk.publisher.publish()
    desk.published()
    assert path.read_bytes() == whole


async def test_records_that_are_not_what_was_signed_are_not_published(desk: Desk) -> None:
    await desk.publisher.publish()
    await desk.grow(3)
    desk.alter(3, entry=bytes(32))
    await desk.publisher.publish()
    assert desk.published().size == 2
    assert any("record 3" in finding for finding in desk.publisher.findings)


async def test_a_gap_is_found(desk: Desk) -> None:
    await desk.publisher.publish()
    await desk.grow(3)
    tables = desk.node.disk.tables
    records = {seq: row for seq, row in tables.records.items() if seq != 4}
    desk.node.disk.tables = msgspec.structs.replace(tables, records=records)
    await desk.publisher.publish()
    assert desk.published().size == 2
    assert any("gap" in finding for finding in desk.publisher.findings)


async def test_more_published_than_there_is_is_found(desk: Desk, tmp_path: Path) -> None:
    await desk.grow(30)
    await desk.publisher.publish()
    note = desk.files.checkpoint()
    vkey = desk.files.words("vkey")
    assert note is not None
    behind = tmp_path / "behind"
    behind.mkdir()
    desk.node.disk.tables = msgspec.structs.replace(
        desk.node.disk.tables,
        records={seq: row for seq, row in desk.node.disk.tables.records.items() if seq < 20},
        checkpoints={},
    )
    async with opened(desk.node.after_restart(), behind) as older:
        older.files.folder.mkdir()
        older.files.publish(note)
        await older.publisher.publish()
        assert any("an older database" in finding for finding in older.publisher.findings)
        assert older.files.checkpoint() == note  # what was published is never taken back
        assert older.files.words("vkey") == vkey
        assert older.publisher.telling([]).cosigned == note  # which the log's own key signed


# --- witnesses -----------------------------------------------------------------------------------


async def watched(desk: Desk) -> Remembering:
    await desk.publisher.publish()
    desk.watched = True
    desk.witness.log = desk.files.words("vkey").decode().strip()
    desk.publisher = desk.new_publisher()
    return desk.witness


async def test_a_checkpoint_is_published_with_its_cosignature(desk: Desk) -> None:
    witness = await watched(desk)
    for _ in range(3):
        await desk.grow(100)
        await desk.publisher.publish()
        note = parse_note(desk.files.checkpoint() or b"")
        assert verify_cosignature(note, witness.vkey) == TIME_S
        assert witness.head == desk.published()
    assert desk.cosigners.states()[0].size == witness.head.size


async def test_a_witness_that_is_away_holds_nothing_up_and_is_asked_later(desk: Desk) -> None:
    witness = await watched(desk)
    witness.away = True
    await desk.grow(1)
    await desk.publisher.publish()
    assert len(parse_note(desk.files.checkpoint() or b"").signatures) == 1
    assert desk.cosigners.states()[0].trouble == "away"
    asked = witness.asked
    await desk.publisher.publish()
    assert witness.asked == asked  # not at once
    witness.away = False
    desk.now_s += 60
    await desk.publisher.publish()
    assert verify_cosignature(parse_note(desk.files.checkpoint() or b""), witness.vkey) == TIME_S


async def test_a_steward_that_starts_again_learns_where_the_witness_stands(desk: Desk) -> None:
    witness = await watched(desk)
    await desk.grow(10)
    await desk.publisher.publish()
    desk.publisher = desk.new_publisher()
    await desk.grow(10)
    await desk.publisher.publish()
    assert witness.head == desk.published()
    assert desk.cosigners.behind() == ()


async def test_a_witness_that_is_ahead_is_told_of(desk: Desk) -> None:
    witness = await watched(desk)
    witness.head = Checkpoint("d1/node-a", 900, bytes(32))
    desk.publisher = desk.new_publisher()
    await desk.publisher.publish()
    assert desk.cosigners.behind() == (("w1", 900),)
    assert desk.publisher.news.is_set()
    told = desk.publisher.telling([])
    assert told.behind == (("w1", 900),)


async def test_a_vault_that_is_away_is_an_error_and_not_the_end(desk: Desk) -> None:
    await desk.link.close()
    with pytest.raises(KeysteadError):
        await desk.publisher.publish()
