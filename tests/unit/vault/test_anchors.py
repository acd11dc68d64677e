"""Anchors: a vault whose log may be old uses no key, and what proves that it is not is signed."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from keystead.crypto.witnesskey import witness_key
from keystead.errors import LogUnavailable
from keystead.frames.messages import Checkpoint, SignedHead, Status, StatusInfo, Tend, WitnessView
from keystead.keys.commands import GoOn, WentOn
from keystead.keys.purposes import Purpose
from keystead.testing.memory_store import MemoryDisk
from keystead.translog.cosignatures import cosign
from keystead.translog.notes import (
    ED25519_COSIGNATURE,
    Note,
    VerifierKey,
    encode_note,
    parse_note,
    vkey_of,
)
from keystead.vault.anchors import AnchorConfig
from unit.vault.node import Node, check_done, check_refused, result_of
from unit.vault.scene import eventually

pytestmark = pytest.mark.anyio
TIME_S = 1_800_000_000


class FakeFile:
    """An anchor whose disk is a value; it may be away, or fail."""

    name = "other-disk"

    def __init__(self) -> None:
        self.note: bytes | None = None
        self.away = False

    def read(self) -> bytes | None:
        if self.away:
            raise LogUnavailable("the disk is away")
        return self.note

    def write(self, note: bytes) -> None:
        if self.away:
            raise LogUnavailable("the disk is away")
        self.note = note


class FakeWitness:
    """A real key that cosigns whatever it is shown."""

    def __init__(self, number: int) -> None:
        self._key = witness_key(bytes([number]) * 32)
        self.vkey: VerifierKey = vkey_of(f"w{number}", ED25519_COSIGNATURE, self._key.public)

    def cosigned(self, note: bytes) -> bytes:
        parsed = parse_note(note)
        line = cosign(parsed.text, self.vkey, TIME_S, self._key.sign)
        return encode_note(Note(parsed.text, (*parsed.signatures, line)))


async def head_of(node: Node) -> SignedHead:
    return result_of(await node.ask(Checkpoint(node.next_id())), SignedHead)


async def status_of(node: Node) -> StatusInfo:
    return result_of(await node.ask(Status(node.next_id())), StatusInfo)


async def tell(node: Node, cosigned: bytes = b"", behind: tuple[tuple[str, int], ...] = ()) -> None:
    views = (WitnessView("w1", 0, 0, "no route"),)
    check_done(await node.ask(Tend(node.next_id(), (), cosigned, views, behind)))


async def check_used(node: Node, handle: str, key: str) -> None:
    check_done(await node.ask(node.use_of(handle, key=key)))


@asynccontextmanager
async def serving(node: Node, config: AnchorConfig, began: int = -1) -> AsyncIterator[Node]:
    node.anchors, node.began = config, began
    async with node.serving():
        yield node


async def copied_while_it_went_on(node: Node, config: AnchorConfig) -> tuple[MemoryDisk, str]:
    """A disk as it was before some uses that the anchors saw; and a handle."""
    async with serving(node, config):
        handle = await node.handle(Purpose.TLS)
        await head_of(node)
        old = MemoryDisk()
        old.tables = node.disk.tables
        for number in range(3):
            await check_used(node, handle, f"k{number}")
        await head_of(node)
        await eventually(lambda: "7 records" in node.built.checkpoints.anchors.protection())
    return old, handle


async def test_without_anchors_it_says_so() -> None:
    node = Node()
    async with serving(node, AnchorConfig()):
        assert (await status_of(node)).protections["anchor"].startswith("off:")


async def test_the_file_remembers_each_checkpoint() -> None:
    node, file = Node(), FakeFile()
    config = AnchorConfig(file=file)
    async with serving(node, config):
        await head_of(node)
        await node.create("shop", Purpose.TLS)
        head = await head_of(node)
        await eventually(lambda: file.note == head.note)
        assert (await status_of(node)).ready
    async with serving(node.after_restart(), config) as again:
        assert (await status_of(again)).ready
        said = (await status_of(again)).protections["anchor"]
        assert said == f"file other-disk: remembers {head.size} records"


async def test_a_new_file_is_written_though_nothing_else_is() -> None:
    """And so is one whose disk is back: it need not wait for the next use."""
    node, file = Node(), FakeFile()
    async with serving(node, AnchorConfig()):
        head = await head_of(node)
    async with serving(node.after_restart(), AnchorConfig(file=file)) as again:
        file.away = True
        await head_of(again)
        await eventually(lambda: "is away" in again.built.checkpoints.anchors.protection())
        file.away = False
        assert (await head_of(again)).size == head.size
        await eventually(lambda: file.note == head.note)


@pytest.mark.parametrize("went_on", [False, True])
async def test_an_older_copy_uses_no_key(*, went_on: bool) -> None:
    """Whether it is as it was, or has grown past what the anchor remembers by other records."""
    node, file = Node(), FakeFile()
    config = AnchorConfig(file=file)
    node.disk, handle = await copied_while_it_went_on(node, config)
    older = node.after_restart()
    if went_on:
        async with serving(older, AnchorConfig()):
            for number in range(9):
                await check_used(older, handle, f"other{number}")
        older = older.after_restart()
    async with serving(older, config):
        refused = check_refused(
            await older.ask(older.use_of(handle, key="new")), "state_rolled_back"
        )
        assert "an older copy of the data folder was put back" in refused.message
        check_refused(await older.ask(Checkpoint(older.next_id())), "state_rolled_back")
        info = await status_of(older)
        assert not info.ready
        assert len(info.reasons) == 1
    assert file.note is not None  # it keeps what it remembers


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: setattr(file, "away", True), "the disk is away"),
        (lambda file: setattr(file, "note", None), "was there before and is gone"),
        (lambda file: setattr(file, "note", b"noise"), "is no checkpoint of this log"),
        (lambda file: setattr(file, "note", b""), "is no checkpoint of this log"),
    ],
)
async def test_an_anchor_that_does_not_tell_is_waited_for(
    spoil: Callable[[FakeFile], None], said: str
) -> None:
    node, file = Node(), FakeFile()
    config = AnchorConfig(file=file)
    _, handle = await copied_while_it_went_on(node, config)
    good = file.note
    spoil(file)
    async with serving(node.after_restart(), config) as again:
        refused = check_refused(await again.ask(again.use_of(handle, key="k9")), "log_unavailable")
        assert said in refused.message
        await again.create("made-meanwhile", Purpose.TLS)  # all else works
        file.away, file.note = False, good
        await tell(again)
        await check_used(again, handle, "k9")


async def test_a_person_may_go_on_without_it_and_a_record_says_so() -> None:
    node, file = Node(), FakeFile()
    config = AnchorConfig(file=file)
    _, handle = await copied_while_it_went_on(node, config)
    file.note = None
    async with serving(node.after_restart(), config) as again:
        went = result_of(await again.admin(GoOn(reason="the disk burnt")), WentOn)
        assert "is gone" in went.without
        await check_used(again, handle, "k9")
        (body,) = again.log("log.go_on")
        assert (body.reason, body.detail) == ("the disk burnt", went.without)
        assert "started without: the disk burnt" in (await status_of(again)).protections["anchor"]


async def test_going_on_does_not_help_a_log_that_is_behind() -> None:
    node, file = Node(), FakeFile()
    config = AnchorConfig(file=file)
    node.disk, handle = await copied_while_it_went_on(node, config)
    async with serving(node.after_restart(), config) as older:
        check_refused(await older.admin(GoOn(reason="never mind")), "state_rolled_back")
        check_refused(await older.ask(older.use_of(handle, key="new")), "state_rolled_back")


async def test_a_failing_file_stops_nothing_and_is_seen() -> None:
    node, file = Node(), FakeFile()
    async with serving(node, AnchorConfig(file=file)):
        handle = await node.handle(Purpose.TLS)
        file.away = True
        await head_of(node)
        anchors = node.built.checkpoints.anchors
        await eventually(lambda: "the disk is away" in anchors.protection())
        await check_used(node, handle, "k1")


async def test_a_published_checkpoint_is_an_anchor_too() -> None:
    """An older database under the newest log folder is found by the log's own signature."""
    node, file = Node(), FakeFile()
    newest = node.disk
    older_disk, handle = await copied_while_it_went_on(node, AnchorConfig(file=file))
    notes = [row.note for _, row in sorted(newest.tables.checkpoints.items())]
    async with serving(node.after_restart(), AnchorConfig()) as same:
        await tell(same, notes[-1])
        await check_used(same, handle, "k9")
    node.disk = older_disk
    async with serving(node.after_restart(), AnchorConfig()) as older:
        await tell(older, notes[0])
        await check_used(older, handle, "k9")
        await tell(older, notes[-1])
        check_refused(await older.ask(older.use_of(handle, key="new")), "state_rolled_back")


# --- witnesses -----------------------------------------------------------------------------------


async def test_a_witness_is_heard_by_its_signature_alone() -> None:
    node, witness, other = Node(), FakeWitness(1), FakeWitness(2)
    config = AnchorConfig(witnesses=(witness.vkey,), quorum=1)
    async with serving(node, config, began=0):
        handle = await node.handle(Purpose.TLS)
        check_refused(await node.ask(node.use_of(handle, key="k1")), "log_unavailable")
        head = await head_of(node)
        forged = bytearray(witness.cosigned(head.note))
        forged[-5] ^= 1
        for note in (head.note, other.cosigned(head.note), bytes(forged), b"noise"):
            await tell(node, note)
            check_refused(await node.ask(node.use_of(handle, key="k1")), "log_unavailable")
        await tell(node, witness.cosigned(head.note))
        await check_used(node, handle, "k1")


async def test_a_cosignature_from_before_the_start_is_not_heard() -> None:
    node, witness = Node(), FakeWitness(1)
    config = AnchorConfig(witnesses=(witness.vkey,), quorum=1)
    async with serving(node, config, began=0):
        old = witness.cosigned((await head_of(node)).note)
        handle = await node.handle(Purpose.TLS)
    again = node.after_restart()
    async with serving(again, config, began=again.store.last_sequence()):
        await tell(again, old)
        check_refused(await again.ask(again.use_of(handle, key="k1")), "log_unavailable")
        await tell(again, witness.cosigned((await head_of(again)).note))
        await check_used(again, handle, "k1")


async def test_as_many_as_the_quorum_are_waited_for() -> None:
    node, witnesses = Node(), [FakeWitness(number) for number in (1, 2, 3)]
    config = AnchorConfig(witnesses=tuple(item.vkey for item in witnesses), quorum=2)
    async with serving(node, config, began=0):
        handle = await node.handle(Purpose.TLS)
        note = (await head_of(node)).note
        await tell(node, witnesses[0].cosigned(note))
        refused = check_refused(await node.ask(node.use_of(handle, key="k1")), "log_unavailable")
        assert "1 more of the witnesses w2, w3" in refused.message
        await tell(node, witnesses[2].cosigned(note))
        await check_used(node, handle, "k1")


async def test_a_witness_that_is_ahead_stops_the_vault() -> None:
    node, witness = Node(), FakeWitness(1)
    config = AnchorConfig(witnesses=(witness.vkey,), quorum=1)
    async with serving(node, config, began=0):
        await tell(node, behind=(("stranger", 900), ("w1", 1)))
        assert node.built.standing.tampered is None
        await tell(node, behind=(("w1", 900),))
        info = await status_of(node)
        assert "its witness w1 has cosigned 900" in info.reasons[0]
