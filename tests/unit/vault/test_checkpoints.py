"""Tree heads: the vault signs what was committed, as it was committed, and nothing else."""

import msgspec
import pytest

from keystead.errors import StateRolledBack
from keystead.frames.messages import Checkpoint, SignedHead
from keystead.keys.commands import MoveVersion
from keystead.keys.lifecycle import Move
from keystead.keys.purposes import Purpose
from keystead.testing.memory_store import Fault
from keystead.translog.checkpoints import open_checkpoint
from keystead.translog.entries import leaf_hash
from keystead.translog.notes import parse_vkey
from keystead.translog.tree import Frontier
from unit.vault.node import Node, all_of, check_done, check_refused, result_of

pytestmark = pytest.mark.anyio


async def head_of(node: Node) -> SignedHead:
    return result_of(await node.ask(Checkpoint(node.next_id())), SignedHead)


def root_of_rows(node: Node, size: int) -> bytes:
    rows = node.store.entries_from(0, size)
    assert [row.seq for row in rows] == list(range(size))
    return Frontier().extended(leaf_hash(row.entry) for row in rows).root()


def check_head(node: Node, head: SignedHead) -> None:
    signed, _ = open_checkpoint(head.note, parse_vkey(head.vkey))
    assert (signed.size, signed.root) == (head.size, head.root)
    assert signed.origin == "d1/node-a"
    assert head.root == root_of_rows(node, head.size)


def alter(node: Node, at: int, **columns: object) -> None:
    records = node.disk.tables.records
    row = msgspec.structs.replace(records[at], **columns)
    node.disk.tables = msgspec.structs.replace(node.disk.tables, records={**records, at: row})


async def test_a_checkpoint_covers_all_that_is_committed() -> None:
    node = Node()
    async with node.serving():
        first = await head_of(node)
        check_head(node, first)
        assert first.size == node.store.last_sequence() + 1
        handle = await node.handle(Purpose.TLS)
        await all_of([node.begin(node.use_of(handle, key=f"k{n}")) for n in range(70)])
        second = await head_of(node)
        check_head(node, second)
        assert second.size == first.size + 72


async def test_nothing_new_is_nothing_signed() -> None:
    node = Node()
    async with node.serving():
        assert await head_of(node) == await head_of(node)
        assert len(node.disk.tables.checkpoints) == 1


async def test_who_ask_at_once_share_one_signature() -> None:
    node = Node()
    async with node.serving():
        answers = await all_of([node.begin(Checkpoint(node.next_id())) for _ in range(5)])
        heads = {result_of(answer, SignedHead).note for answer in answers}
    assert len(heads) == 1


async def test_the_key_is_made_once_and_signs_nothing_else() -> None:
    node = Node()
    async with node.serving():
        await head_of(node)
        (key,) = node.built.standing.snapshot.keys.values()
        assert (key.purpose, key.name) == (Purpose.AUDIT, "log.node-a")
        issued = await node.issue(key.name)
        check_refused(
            await node.ask(node.use_of(issued.token, operation="audit.sign")), "malformed_request"
        )
    async with node.after_restart().serving() as again:
        await head_of(again)
        assert len(again.built.standing.snapshot.keys) == 1


async def test_a_suspended_key_signs_no_checkpoint() -> None:
    node = Node()
    async with node.serving():
        await head_of(node)
        command = MoveVersion(name="log.node-a", move=Move.SUSPEND, version=1, reason="test")
        check_done(await node.admin(command))
        check_refused(await node.ask(Checkpoint(node.next_id())), "key_state")


async def test_a_restart_goes_on_from_the_last_checkpoint() -> None:
    node = Node()
    async with node.serving():
        before = await head_of(node)
        await node.create("shop", Purpose.TLS)
    async with node.after_restart().serving() as again:
        after = await head_of(again)
        check_head(again, after)
    assert (after.vkey, after.size) == (before.vkey, before.size + 1)


@pytest.mark.parametrize("fault", Fault)
async def test_a_commit_with_an_unknown_end_is_in_the_tree_if_it_is_in_the_log(
    fault: Fault,
) -> None:
    node = Node()
    async with node.serving():
        handle = await node.handle(Purpose.TLS)
        await head_of(node)
        node.store.fail_next(fault)
        check_refused(await node.ask(node.use_of(handle, key="once")), "log_unavailable")
        check_head(node, await head_of(node))
        check_done(await node.ask(node.use_of(handle, key="another")))
        check_head(node, await head_of(node))


@pytest.mark.parametrize("fault", Fault)
async def test_a_checkpoint_that_failed_is_signed_again(fault: Fault) -> None:
    node = Node()
    async with node.serving():
        await head_of(node)
        await node.create("shop", Purpose.TLS)
        node.store.fail_next(fault)
        check_refused(await node.ask(Checkpoint(node.next_id())), "log_unavailable")
        check_head(node, await head_of(node))


async def test_rows_altered_before_their_checkpoint_do_not_alter_it() -> None:
    """Whoever writes the database has a second at most, and no effect on what is signed."""
    node = Node()
    async with node.serving():
        await head_of(node)
        handle = await node.handle(Purpose.TLS)
        check_done(await node.ask(node.use_of(handle, key="once")))
        last = node.store.last_sequence()
        honest = root_of_rows(node, last + 1)
        alter(node, last, entry=bytes(32), leaf=leaf_hash(bytes(32)))
        assert (await head_of(node)).root == honest


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"body": b'{"seq":3,"epoch":1,"op":"x"}'}, "is not that of its entry"),
        ({"entry": bytes(32)}, "is not that of its entry"),
        ({"seq": 9}, "is missing"),
    ],
)
async def test_rows_altered_while_the_vault_was_down_are_found(
    columns: dict[str, object], problem: str
) -> None:
    node = Node()
    async with node.serving():
        await head_of(node)
        await node.create("shop", Purpose.TLS)
        await node.create("web", Purpose.TLS)
    alter(node, 3, **columns)
    async with node.after_restart().serving() as again:
        refused = check_refused(await again.ask(Checkpoint(again.next_id())), "state_rolled_back")
        assert problem in refused.message
        check_refused(await again.ask(Checkpoint(again.next_id())), "state_rolled_back")


async def test_a_log_shorter_than_its_checkpoint_does_not_start() -> None:
    node = Node()
    async with node.serving():
        await head_of(node)
    records = dict(node.disk.tables.records)
    del records[max(records)]
    node.disk.tables = msgspec.structs.replace(node.disk.tables, records=records)
    with pytest.raises(StateRolledBack, match="has 1 records, its last checkpoint was signed over"):
        async with node.after_restart().serving():
            pass


@pytest.mark.parametrize("column", ["root", "frontier", "note"])
async def test_an_altered_checkpoint_does_not_start(column: str) -> None:
    node = Node()
    async with node.serving():
        await head_of(node)
    (row,) = node.disk.tables.checkpoints.values()
    data = bytearray(getattr(row, column))
    data[0] ^= 1
    forged = msgspec.structs.replace(row, **{column: bytes(data)})
    node.disk.tables = msgspec.structs.replace(node.disk.tables, checkpoints={forged.size: forged})
    with pytest.raises(StateRolledBack, match="checkpoint at size 2 was altered"):
        async with node.after_restart().serving():
            pass


async def test_old_checkpoints_are_thinned() -> None:
    node = Node()
    async with node.serving():
        for _ in range(3):
            await head_of(node)
            await node.issue("log.node-a")
        node.clock.advance(49 * 3600 * 1000)
        for _ in range(64):
            await head_of(node)
            await node.issue("log.node-a")
        sizes = sorted(node.disk.tables.checkpoints)
    assert sizes[0] == 4  # the last of the first hour
    assert len(sizes) == 64 + 1
