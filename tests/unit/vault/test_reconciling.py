"""Messages held to a key's records: found, not found, forgotten, and never an alarm kept quiet."""

import math

import msgspec
import pytest
from structlog.testing import capture_logs

from keystead import limits
from keystead.keys.commands import (
    ForgetRecords,
    FoundRecord,
    Reconciled,
    ReconcileRecords,
    SeenMessage,
    Tally,
)
from keystead.keys.framing.jwt import SignJwt
from keystead.keys.framing.ledger import AppendLedger
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.purposes import Purpose
from keystead.testing.memory_store import Fault
from keystead.translog.entries import commitments
from keystead.vault import reconciling
from unit.vault.node import Node, check_done, check_refused, result_of
from unit.vault.test_logbook import PartGuard

pytestmark = pytest.mark.anyio

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def node() -> Node:
    return Node()


async def tokens(node: Node, count: int, key: str = "tokens") -> list[bytes]:
    """A key's messages in order, each signed a second after the last."""
    await node.create(key, Purpose.JWT, policy=Policy(jwt=JwtPolicy(issuer="i")))
    handle = (await node.issue(key)).token
    signed: list[bytes] = []
    for number in range(count):
        node.clock.advance(1000)
        use = node.use_of(handle, SignJwt(claims={"n": number}), "jwt.sign")
        result = msgspec.msgpack.decode(check_done(await node.ask(use)).result)
        signed.append(result["token"].rpartition(".")[0].encode())
    return signed


def command_of(*messages: bytes, key: str = "tokens", **fields: object) -> ReconcileRecords:
    seen = tuple(SeenMessage(message=message) for message in messages)
    return msgspec.structs.replace(ReconcileRecords(key=key, seen=seen), **fields)


async def look(node: Node, command: ReconcileRecords) -> Reconciled:
    return result_of(await node.admin(command), Reconciled)


async def look_through(node: Node, messages: list[bytes]) -> dict[int, int]:
    """Look after look until the end, as a client does; place of each message to its record."""
    found: dict[int, int] = {}
    after, end = -1, False
    for _ in range(100):
        left = [place for place in range(len(messages)) if place not in found]
        if end or not left:
            return found
        told = await look(node, command_of(*(messages[at] for at in left), after=after))
        found |= {left[record.place]: record.seq for record in told.found}
        after, end = told.next, told.end
    raise AssertionError("it does not come to an end")


# --- looking -------------------------------------------------------------------------------------


async def test_what_was_signed_is_found_in_any_order_and_all_else_is_not(node: Node) -> None:
    async with node.serving():
        signed = await tokens(node, 5)
        for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3]):
            told = await look(node, command_of(*(signed[at] for at in order), b"forged"))
            records = {record.place: record.seq for record in told.found}
            assert records == {place: 3 + number for place, number in enumerate(order)}
            assert (told.forgotten, told.end) == ((), True)


async def test_another_keys_records_are_not_looked_at(node: Node) -> None:
    async with node.serving():
        [signed] = await tokens(node, 1)
        await tokens(node, 1, "other")
        assert (await look(node, command_of(signed, key="other"))).found == ()
        check_refused(await node.admin(command_of(signed, version=2)), "not_found")
        check_refused(await node.admin(command_of(signed, key="none")), "not_found")


async def test_a_window_ends_where_it_says(node: Node) -> None:
    async with node.serving():
        signed = await tokens(node, 3)
        at_ms = node.store.records_from(4, 1)[0].time_ms
        for since_ms, until_ms, seqs in (
            (at_ms, at_ms + 1, [4]),
            (at_ms + 1, at_ms + 1000, []),
            (at_ms - 1000, at_ms, [3]),
            (0, 2**62, [3, 4, 5]),
        ):
            seen = tuple(
                SeenMessage(message=one, since_ms=since_ms, until_ms=until_ms) for one in signed
            )
            told = await look(node, ReconcileRecords(key="tokens", seen=seen))
            assert [record.seq for record in told.found] == seqs


async def test_a_windows_of_one_does_not_narrow_another(node: Node) -> None:
    async with node.serving():
        signed = await tokens(node, 2)
        seen = (
            SeenMessage(message=signed[0], since_ms=0, until_ms=1),
            SeenMessage(message=signed[1]),
        )
        told = await look(node, ReconcileRecords(key="tokens", seen=seen))
        assert told.found == (FoundRecord(1, 4),)


@pytest.mark.parametrize("budget", [1, 3_000, 20_000])
@pytest.mark.parametrize("pages", [1, 10])
async def test_a_look_is_bounded_and_goes_on(
    node: Node, monkeypatch: pytest.MonkeyPatch, budget: int, pages: int
) -> None:
    """However little one look may do, the next ones come to the end, and pass nothing over."""
    monkeypatch.setattr(limits, "LOG_RECONCILE_HASHED_BYTES_MAX", budget)
    monkeypatch.setattr(limits, "LOG_RECONCILE_PAGES_MAX", pages)
    monkeypatch.setattr(reconciling, "_PAGE_ROWS", 3)
    async with node.serving():
        signed = await tokens(node, 12)
        messages = [b"forged", *reversed(signed), b"forged too"]
        found = await look_through(node, messages)
        assert found == {place: 15 - place for place in range(1, 13)}
        told = await look(node, command_of(*messages))
        assert not told.end


async def test_between_two_sequences(node: Node) -> None:
    async with node.serving():
        signed = await tokens(node, 4)
        told = await look(node, command_of(*signed, after=3, before=6))
        assert [record.seq for record in told.found] == [4, 5]


async def test_what_was_forgotten_may_be_anything_of_its_time(node: Node) -> None:
    async with node.serving():
        signed = await tokens(node, 2)
        node.clock.advance(2 * DAY_MS)
        handle = (await node.issue("tokens")).token
        use = node.use_of(handle, SignJwt(claims={}), "jwt.sign")
        late = msgspec.msgpack.decode(check_done(await node.ask(use)).result)["token"]
        check_done(await node.admin(ForgetRecords(key="tokens", reason="retention")))
        told = await look(node, command_of(*signed, b"forged", late.rpartition(".")[0].encode()))
        assert told.forgotten == (0, 1, 2)
        assert [record.place for record in told.found] == [3]
        now_ms = node.clock.now_ms()
        seen = SeenMessage(message=b"forged", since_ms=now_ms, until_ms=now_ms + 1)
        told = await look(node, ReconcileRecords(key="tokens", seen=(seen,)))
        assert told.forgotten == ()


async def test_a_record_that_was_altered_clears_nobody(node: Node) -> None:
    """Whoever can write to the database puts a commitment to the forged message there."""
    async with node.serving():
        [signed] = await tokens(node, 1)
        row = node.store.records_from(3, 1)[0]
        assert row.body is not None
        assert row.salt is not None
        forged = commitments(row.salt)(b"forged").encode()
        old = commitments(row.salt)(signed).encode()
        body = row.body.replace(old, forged)
        assert body != row.body
        records = {**node.disk.tables.records, 3: msgspec.structs.replace(row, body=body)}
        node.disk.tables = msgspec.structs.replace(node.disk.tables, records=records)
        assert (await look(node, command_of(b"forged"))).found == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"seen": ()},
        {"after": -2},
        {"after": 2**63},
        {"before": -1},
        {"seen": (SeenMessage(message=b"", since_ms=1),)},
        {"seen": (SeenMessage(message=b"", until_ms=1),)},
        {"seen": (SeenMessage(message=b"", since_ms=2, until_ms=2),)},
        {"seen": (SeenMessage(message=b"", since_ms=-1, until_ms=2),)},
        {"seen": (SeenMessage(message=b"", since_ms=0, until_ms=2**63),)},
        {"seen": (SeenMessage(message=b""),) * (limits.LOG_RECONCILE_ITEMS_MAX + 1)},
        {"tally": Tally()},
        {"seen": (), "tally": Tally(unrecorded=-1)},
        {"seen": (), "tally": Tally(recorded=limits.ARTEFACTS_MAX + 1)},
    ],
    ids=str,
)
async def test_what_cannot_be_is_refused(node: Node, fields: dict[str, object]) -> None:
    async with node.serving():
        await tokens(node, 0)
        command = msgspec.structs.replace(command_of(b"m"), **fields)
        check_refused(await node.admin(command), "malformed_request")
        assert (node.log()[-1].op, node.log()[-1].outcome) == ("log.reconcile", "malformed_request")


async def test_it_is_a_right_of_its_own() -> None:
    node = Node(guard=PartGuard("log.reconcile"))
    async with node.serving():
        [signed] = await tokens(node, 1)
        check_refused(await node.admin(command_of(signed)), "permission_denied")
        assert isinstance(node.guard, PartGuard)
        assert node.guard.asked[-1] == ("log.reconcile", "tokens")


# --- what came of it -----------------------------------------------------------------------------


async def test_a_tally_is_a_record_and_what_is_unrecorded_an_alert(node: Node) -> None:
    async with node.serving():
        await tokens(node, 1)
        tally = Tally(recorded=1998, unrecorded=2)
        with capture_logs() as events:
            answer = check_done(
                await node.admin(ReconcileRecords(key="tokens", version=1, tally=tally))
            )
        record = node.log("log.reconcile")[-1]
        assert answer.receipt is not None
        assert record.seq == answer.receipt.seq
        assert (record.name, record.version, record.count) == ("tokens", 1, 2)
        assert "2 have no record, 1998 have one" in record.detail
        [event] = [event for event in events if event["event"] == "reconcile_unrecorded"]
        assert (event["log_level"], event["key"], event["unrecorded"]) == ("error", "tokens", 2)
        metrics = node.built.tending.status().metrics
        [metric] = [one for one in metrics if one.name == "keystead_reconcile_unrecorded"]
        assert (metric.labels, metric.value) == ({"key": "tokens"}, 2)


async def test_without_one_there_is_a_record_and_no_alert(node: Node) -> None:
    async with node.serving():
        await tokens(node, 1)
        with capture_logs() as events:
            check_done(await node.admin(ReconcileRecords(key="tokens", tally=Tally(recorded=1))))
        assert node.log("log.reconcile")[-1].count == 0
        assert events == []


async def test_the_alert_does_not_wait_for_the_disk(node: Node) -> None:
    async with node.serving():
        await tokens(node, 1)
        node.store.fail_next(Fault.NOT_APPLIED)
        with capture_logs() as events:
            command = ReconcileRecords(key="tokens", tally=Tally(unrecorded=1))
            check_refused(await node.admin(command), "log_unavailable")
        assert "reconcile_unrecorded" in [event["event"] for event in events]


# --- order ---------------------------------------------------------------------------------------


async def test_what_comes_in_order_is_tried_a_few_times_each(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a ledger each entry is found at its record: not each of a hundred tried on all."""
    tried: list[int] = []
    spend = reconciling._Tries._spend  # noqa: SLF001  what a look costs is seen nowhere else

    def counted(tries: reconciling._Tries, size: int) -> None:
        tried.append(size)
        spend(tries, size)

    monkeypatch.setattr(reconciling._Tries, "_spend", counted)  # noqa: SLF001  as above
    async with node.serving():
        await node.create("book", Purpose.LEDGER)
        handle = (await node.issue("book")).token
        documents: list[bytes] = []
        for number in range(60):
            use = node.use_of(handle, AppendLedger(entry=b"%d" % number), "ledger.append")
            result = msgspec.msgpack.decode(check_done(await node.ask(use)).result)
            documents.append(result["document"])
        told = await look(node, command_of(*documents[20:], key="book"))
        assert [record.place for record in told.found] == list(range(40))
        assert len(tried) <= 20 * 4 + 40
        assert math.isclose(sum(tried), len(tried) * len(documents[0]), rel_tol=0.1)
