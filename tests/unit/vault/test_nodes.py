"""Two whole vaults on one registry: what one changes holds on the other, and one of them leads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest

from keystead import limits
from keystead.errors import Conflict
from keystead.frames.messages import Admin
from keystead.keys.commands import MoveVersion, RevokeHandle
from keystead.keys.framing.jwt import SignJwt
from keystead.keys.framing.ledger import AppendLedger
from keystead.keys.lifecycle import Move
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose
from keystead.keys.reservations import outstanding
from keystead.testing.clocks import ManualClock
from unit.vault.node import Node, all_of, check_done, check_refused
from unit.vault.scene import eventually

pytestmark = pytest.mark.anyio
BEST_EFFORT = Policy(ack="best_effort")
ISSUER = "https://issuer.example"


class Pair:
    """Nodes ``a`` and ``b`` on one disk; each has clocks of its own."""

    def __init__(self) -> None:
        self.a = Node(name="a", shared=True)
        self.b = Node(
            self.a.disk,
            ManualClock(boottime_ms=777_000),
            seed=2,
            token=self.a.token,
            name="b",
            shared=True,
        )

    def seen(self) -> dict[str, int]:
        return {row.node: row.seen_epoch for row in self.a.store.nodes()}

    async def together(self) -> None:
        """Wait until both hold to the state as it is, and have said so."""

        def both() -> bool:
            row = self.a.store.epoch()
            return row is not None and self.seen() == {"a": row.epoch, "b": row.epoch}

        await eventually(both)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(made.a.serving())
        await stack.enter_async_context(made.b.serving())
        yield made


async def tokens(node: Node) -> str:
    await node.create("shop", Purpose.JWT, policy=Policy(jwt=JwtPolicy(issuer=ISSUER)))
    return (await node.issue("shop")).token


def jwt_facts() -> SignJwt:
    return msgspec.convert({"claims": {"sub": "ann"}}, SignJwt)


# --- one state -----------------------------------------------------------------------------------


async def test_a_key_that_one_made_the_other_uses(pair: Pair) -> None:
    handle = await tokens(pair.a)
    await pair.together()
    done = check_done(await pair.b.ask(pair.b.use_of(handle, jwt_facts(), "jwt.sign")))
    assert done.receipt is not None
    assert (done.receipt.node, done.receipt.seq) == ("b", 0)
    assert [body.op for body in pair.b.log("jwt.sign")] == ["jwt.sign"]
    assert pair.a.log("jwt.sign") == []


async def test_what_one_revoked_commits_nowhere_even_if_the_other_has_not_heard(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I4: the fence, not the news, stops it."""
    handle = await tokens(pair.a)
    await pair.together()
    assert pair.b.built.following is not None
    monkeypatch.setattr(pair.b.built.following, "moved", lambda _epoch: None)
    move = MoveVersion(name="shop", move=Move.COMPROMISE, version=1, reason="stolen")
    change = check_done(await pair.a.admin(move))
    assert change.receipt is not None
    assert pair.b.built.standing.snapshot.epoch < change.receipt.epoch
    check_refused(await pair.b.ask(pair.b.use_of(handle, jwt_facts(), "jwt.sign")), "key_state")
    [denied] = pair.b.log("jwt.sign")
    assert denied.outcome == "key_state"
    assert pair.b.built.standing.snapshot.epoch == change.receipt.epoch  # the commit told it


async def test_a_revoked_link_is_refused_on_the_other_node(pair: Pair) -> None:
    await tokens(pair.a)
    issued = await pair.a.issue("shop")
    await pair.together()
    check_done(await pair.a.admin(RevokeHandle(link=issued.link, reason="lost")))
    answer = await pair.b.ask(pair.b.use_of(issued.token, jwt_facts(), "jwt.sign"))
    check_refused(answer, "handle_revoked")


async def test_a_request_repeated_at_the_other_node_has_one_effect(pair: Pair) -> None:
    """I6, over two nodes: one record, and the first one's result and receipt."""
    handle = await tokens(pair.a)
    await pair.together()
    first = check_done(await pair.a.ask(pair.a.use_of(handle, jwt_facts(), "jwt.sign", key="k1")))
    again = check_done(await pair.b.ask(pair.b.use_of(handle, jwt_facts(), "jwt.sign", key="k1")))
    assert again.result == first.result
    assert first.receipt is not None
    assert again.receipt == msgspec.structs.replace(first.receipt, replayed=True)
    assert len(pair.a.log("jwt.sign")) + len(pair.b.log("jwt.sign")) == 1


async def test_a_budget_is_one_on_both(pair: Pair) -> None:
    """I5."""
    await tokens(pair.a)
    issued = await pair.a.issue("shop", Narrowing(uses=10))
    await pair.together()
    asked = [
        node.begin(node.use_of(issued.token, jwt_facts(), "jwt.sign"))
        for node in (pair.a, pair.b)
        for _ in range(12)
    ]
    answers = await all_of(asked)
    assert sum(hasattr(answer, "receipt") for answer in answers) == 10
    spent = pair.a.log("jwt.sign") + pair.b.log("jwt.sign")
    assert sum(body.outcome == "ok" for body in spent) == 10


async def test_a_ledger_does_not_fork_between_nodes(pair: Pair) -> None:
    await pair.a.create("books", Purpose.LEDGER)
    handle = (await pair.a.issue("books")).token
    await pair.together()
    entries = [
        node.begin(node.use_of(handle, AppendLedger(entry=b"%d" % at), "ledger.append"))
        for at in range(6)
        for node in (pair.a, pair.b)
    ]
    answers = await all_of(entries)
    numbers = sorted(
        msgspec.msgpack.decode(check_done(answer).result)["sequence"] for answer in answers
    )
    assert numbers == list(range(numbers[0], numbers[0] + 12))


# --- confirming ----------------------------------------------------------------------------------


async def test_a_node_confirms_an_epoch_only_once_its_loop_holds_to_it(pair: Pair) -> None:
    held: list[tuple[int, int]] = []
    node = pair.b
    put = node.secrets.node_row

    def watched(name: str, epoch: int, beat: int, url: str) -> object:
        held.append((epoch, node.built.standing.snapshot.epoch))
        return put(name, epoch, beat, url)

    node.secrets.node_row = watched  # type: ignore[method-assign,assignment]  # the seam
    await tokens(pair.a)
    await pair.together()
    assert held
    assert all(epoch <= snapshot for epoch, snapshot in held)


async def test_a_deaf_node_finds_out_by_asking(pair: Pair) -> None:
    assert pair.b.watch is not None
    pair.b.watch.deaf = True
    await tokens(pair.a)
    await pair.together()


async def test_an_open_reservation_elsewhere_is_waited_for_until_its_node_confirms(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = await pair.a.create("web", Purpose.TLS, policy=BEST_EFFORT)
    handle = (await pair.a.issue("web")).token
    await pair.together()
    check_done(await pair.b.ask(pair.b.use_of(handle)))  # asks for a reservation
    await eventually(lambda: bool(pair.a.store.reservations_open("b")))
    following = pair.b.built.following
    assert following is not None
    moved = following.moved
    monkeypatch.setattr(following, "moved", lambda _epoch: None)
    move = MoveVersion(name="web", move=Move.COMPROMISE, version=1, reason="stolen")
    change = pair.a.begin(Admin(pair.a.next_id(), pair.a.token, msgspec.msgpack.encode(move)))
    await eventually(lambda: bool(pair.a.log("key.move")))
    epoch = pair.a.log("key.move")[0].epoch

    def waited() -> int:
        rows = pair.a.store.reservations_open(None)
        return len(outstanding(rows, pair.seen(), epoch=epoch, key_ids={web.id}, own="a"))

    assert waited() == 1
    assert not change.done()  # committed, and not told before b has heard
    monkeypatch.setattr(following, "moved", moved)
    moved(epoch)
    await eventually(lambda: waited() == 0)
    check_done(await change)
    check_refused(await pair.b.ask(pair.b.use_of(handle)), "key_state")


# --- leading -------------------------------------------------------------------------------------


async def led(node: Node) -> bool:
    """One round; gives whether the node leads after it."""
    check_done(await node.tend())
    await asyncio.sleep(0.02)
    return node.built.leading.leads


async def test_one_node_leads_and_another_takes_over_once_it_is_silent(pair: Pair) -> None:
    assert await led(pair.a)
    assert not await led(pair.b)
    pair.b.clock.advance(limits.LEASE_LIFE_MS)
    assert await led(pair.b)
    # Whatever the old one still believes, its commit knows better.
    with pytest.raises(Conflict, match="does not lead"), pair.a.store.transaction() as tx:
        pair.a.built.leading.check(tx, 1)
    assert not await led(pair.a)


async def test_a_leader_that_renews_keeps_it(pair: Pair) -> None:
    assert await led(pair.a)
    assert not await led(pair.b)
    for _ in range(3):
        assert await led(pair.a)
        pair.b.clock.advance(limits.LEASE_LIFE_MS)
        assert not await led(pair.b)


async def test_status_shows_the_nodes_and_who_leads(pair: Pair) -> None:
    await tokens(pair.a)
    await pair.together()
    assert await led(pair.a)
    assert not await led(pair.b)
    nodes = {view.node: view for view in pair.b.built.tending.status().nodes}
    assert nodes.keys() == {"a", "b"}
    assert (nodes["a"].leads, nodes["b"].leads) == (True, False)
    assert nodes["b"].epoch == pair.b.built.standing.snapshot.epoch


async def test_a_revocation_that_was_removed_is_missed_by_whoever_has_not_read_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I4, I10: a database's writer takes the row away before the other node has seen it."""
    await tokens(pair.a)
    issued = await pair.a.issue("shop")
    await pair.together()
    assert pair.b.built.following is not None
    monkeypatch.setattr(pair.b.built.following, "moved", lambda _epoch: None)
    check_done(await pair.a.admin(RevokeHandle(link=issued.link, reason="lost")))
    tables = pair.a.disk.tables
    objects = {at: row for at, row in tables.objects.items() if at[0] != "revocation"}
    assert len(objects) < len(tables.objects)
    pair.a.disk.tables = msgspec.structs.replace(tables, objects=objects)
    answer = await pair.b.ask(pair.b.use_of(issued.token, jwt_facts(), "jwt.sign"))
    check_refused(answer, "state_rolled_back")
    assert pair.b.log("jwt.sign") == []


async def test_a_repeated_step_leaves_the_next_one_where_it_was(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger entry sent again at the other node is framed, found out, and taken back."""
    await pair.a.create("books", Purpose.LEDGER)
    handle = (await pair.a.issue("books")).token
    await pair.together()

    async def append(node: Node, entry: bytes, key: str) -> None:
        use = node.use_of(handle, AppendLedger(entry=entry), "ledger.append", key=key)
        check_done(await node.ask(use))

    await append(pair.a, b"1", "k1")
    # As on a server, where nobody looks before the commit.
    monkeypatch.setattr(pair.b.store, "idempotent_at_hand", lambda _scope, _key: None)
    await append(pair.b, b"1", "k1")
    await append(pair.b, b"2", "k2")
    assert [body.outcome for body in pair.b.log("ledger.append")] == ["ok"]
