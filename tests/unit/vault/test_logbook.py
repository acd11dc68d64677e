"""The log for those who read it: rights, bounds, disclosures, and forgetting."""

import asyncio
import hashlib
import threading

import msgspec
import pytest

from keystead import limits
from keystead.errors import ApprovalRequired, KeysteadError, PermissionDenied
from keystead.keys.commands import (
    CountRecords,
    CreateKey,
    Disclosed,
    DiscloseRecord,
    ForgetRecords,
    Forgotten,
    ListRecords,
    LogCounts,
    LogPage,
    RevokeKeyHandles,
)
from keystead.keys.forgetting import FORGETTABLE, read_ranges
from keystead.keys.model import Key, Principal
from keystead.keys.purposes import Purpose
from keystead.ports import RecordRow, RecordsPage, RecordsQuery
from keystead.testing.faulty_journal import FaultyJournal, Moment, Step, Trip, Trips, fail
from keystead.testing.memory_store import Fault, MemoryStore
from keystead.translog.entries import decode_body, entry_of, leaf_hash
from keystead.vault.guard import OperatorGuard
from keystead.vault.logbook import forget_again
from unit.vault.node import Node, check_done, check_refused, result_of
from unit.vault.scene import WAIT_S

pytestmark = pytest.mark.anyio

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def node() -> Node:
    return Node()


class PartGuard(OperatorGuard):
    """Allows the operator all but one action."""

    def __init__(self, refused: str, error: type[KeysteadError] = PermissionDenied) -> None:
        self.refused = refused
        self.error = error
        self.asked: list[tuple[str, str | None]] = []

    def decide(self, principal: Principal, action: str, target: Key | None) -> None:
        self.asked.append((action, target.name if target else None))
        if action == self.refused:
            raise self.error(f"{principal.name} may not do {action}")
        super().decide(principal, action, target)


async def used(node: Node, key: str = "web", *, uses: int = 3) -> str:
    """A key, and some uses of it; gives the handle's id."""
    await node.create(key, Purpose.TLS)
    issued = await node.issue(key)
    for _ in range(uses):
        check_done(await node.ask(node.use_of(issued.token)))
    return issued.handle_id


async def searched(node: Node, **fields: object) -> LogPage:
    command = msgspec.structs.replace(ListRecords(), **fields)
    return result_of(await node.admin(command), LogPage)


async def forgotten(node: Node, **fields: object) -> Forgotten:
    command = msgspec.structs.replace(ForgetRecords(reason="retention"), **fields)
    return result_of(await node.admin(command), Forgotten)


def rows(node: Node) -> list[RecordRow]:
    return node.store.records_from(0, 10_000)


def uses(node: Node) -> list[RecordRow]:
    return [row for row in rows(node) if row.op == "tls.sign"]


# --- searching -----------------------------------------------------------------------------------


async def test_a_record_shows_its_columns_and_its_body(node: Node) -> None:
    async with node.serving():
        handle_id = await used(node, uses=1)
        [record] = (await searched(node, operation="tls.sign")).records
        row = uses(node)[0]
        assert (record.seq, record.time_ms, record.epoch) == (row.seq, row.time_ms, row.epoch)
        assert (record.operation, record.outcome, record.state) == ("tls.sign", "ok", "kept")
        assert (record.key, record.name, record.version) == (row.key_id, "web", 1)
        assert (record.purpose, record.handle, record.principal) == ("tls", handle_id, "ci")
        assert record.request == row.request_id == record.body["request"]
        assert (record.entry, record.leaf) == (row.entry.hex(), row.leaf.hex())


async def test_pages_say_where_to_go_on(node: Node) -> None:
    async with node.serving():
        await used(node)
        page = await searched(node, key="web", limit=2)
        assert ([record.seq for record in page.records], page.end, page.top) == ([5, 4], False, 5)
        page = await searched(node, key="web", before=page.next)
        assert ([record.seq for record in page.records], page.end) == ([3, 2, 1], True)
        page = await searched(node, oldest_first=True, after=3)
        assert ([record.seq for record in page.records], page.next, page.end) == ([4, 5], 5, True)


async def test_a_page_is_bounded_in_bytes(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async with node.serving():
        await used(node)
        monkeypatch.setattr(limits, "LOG_PAGE_BYTES_MAX", 700)
        page = await searched(node, key="web")
        assert 1 <= len(page.records) < 5
        assert (page.next, page.end) == (page.records[-1].seq, False)
        monkeypatch.setattr(limits, "LOG_PAGE_BYTES_MAX", 1)
        page = await searched(node, key="web")
        assert ([record.seq for record in page.records], page.end) == ([5], False)


async def test_records_are_counted_by_the_names_of_their_keys(node: Node) -> None:
    async with node.serving():
        await used(node)
        await used(node, "other", uses=1)
        found = result_of(await node.admin(CountRecords(by="key")), LogCounts)
        assert (found.counts, found.end) == ({"": 1, "web": 5, "other": 3}, True)
        found = result_of(await node.admin(CountRecords(by="operation", key="web")), LogCounts)
        assert found.counts == {"tls.sign": 3, "handle.issue": 1, "key.create": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 0},
        {"limit": limits.LIST_ITEMS_MAX + 1},
        {"before": -1},
        {"before": 2**63},
        {"after": -2},
        {"after": 2**63},
        {"version": -1},
        {"since_ms": -1},
        {"until_ms": 2**63},
        {"principal": "x" * 257},
        {"request_id": "é" * 200},
    ],
    ids=str,
)
async def test_a_search_that_can_find_nothing_is_malformed(
    node: Node, fields: dict[str, object]
) -> None:
    async with node.serving():
        command = msgspec.structs.replace(ListRecords(), **fields)
        check_refused(await node.admin(command), "malformed_request")


# --- bounds --------------------------------------------------------------------------------------


class SlowReader(MemoryStore):
    """Searches wait for a gate, in their own threads."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store.disk)
        self.gate = threading.Event()
        self.threads: set[str] = set()

    def search(self, query: RecordsQuery) -> RecordsPage:
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(WAIT_S)
        return super().search(query)


async def test_searches_run_beside_the_loop_and_are_bounded(node: Node) -> None:
    reader = node.reader = SlowReader(node.store)
    async with node.serving():
        waiting = [
            asyncio.ensure_future(node.admin(ListRecords())) for _ in range(limits.LOG_SEARCHES_MAX)
        ]
        await asyncio.sleep(0)
        refused = check_refused(await node.admin(ListRecords()), "overloaded")
        assert refused.retry_after_s
        await used(node, uses=1)  # the loop and the commits go on meanwhile
        reader.gate.set()
        for answer in await asyncio.gather(*waiting):
            check_done(answer)
        check_done(await node.admin(ListRecords()))
    assert len(reader.threads) <= limits.LOG_SEARCH_THREADS
    assert all(name.startswith("log-search") for name in reader.threads)


async def test_a_store_that_is_down_refuses_a_search(node: Node) -> None:
    async with node.serving():
        node.store.down = True
        check_refused(await node.admin(ListRecords()), "log_unavailable")
        node.store.down = False
        check_done(await node.admin(ListRecords()))


# --- rights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [PermissionDenied, ApprovalRequired])
async def test_who_may_not_disclose_sees_columns_only(
    node: Node, error: type[KeysteadError]
) -> None:
    async with node.serving():
        await used(node, uses=1)
    guard = PartGuard("log.disclose", error)
    node.guard = guard
    async with node.serving():
        page = await searched(node, key="web")
        assert [(record.state, record.body) for record in page.records] == [("withheld", {})] * 3
        assert page.records[0].operation == "tls.sign"
        assert guard.asked == [("log.search", "web"), ("log.disclose", "web")]
        check_done(await node.admin(CountRecords(by="hour")))
        check_refused(await node.admin(DiscloseRecord(seq=3)), error.code or "")
    assert not node.log("log.disclose")[0].detail  # what was refused names no record


@pytest.mark.parametrize("action", ["log.search", "log.forget"])
async def test_each_right_is_asked_for_by_itself(node: Node, action: str) -> None:
    node.guard = PartGuard(action)
    async with node.serving():
        await used(node, uses=1)
        node.clock.advance(2 * DAY_MS)
        code = {True: "permission_denied", False: ""}
        for command in (
            ListRecords(),
            CountRecords(by="key"),
            ForgetRecords(key="web", reason="x", dry_run=True),
            ForgetRecords(key="web", reason="x"),
            DiscloseRecord(seq=1),
        ):
            refused = command.__struct_config__.tag in (
                ("log.search", "log.count") if action == "log.search" else (action,)
            )
            answer = await node.admin(command)
            assert getattr(answer, "code", "") == code[refused], command


# --- disclosing ----------------------------------------------------------------------------------


async def test_a_disclosure_is_recorded_before_its_answer(node: Node) -> None:
    async with node.serving():
        await used(node, uses=1)
        answer = check_done(await node.admin(DiscloseRecord(seq=3, reason="audit 7")))
        row = rows(node)[3]
        found = msgspec.msgpack.decode(answer.result, type=Disclosed)
        assert (found.seq, found.body, found.salt, found.entry) == (
            3,
            row.body,
            row.salt,
            row.entry,
        )
        assert hashlib.sha256(found.salt + found.body).digest() == row.entry
        assert answer.receipt is not None
        [body] = node.log("log.disclose")
        assert answer.receipt.seq == body.seq == 4
        assert (body.detail, body.reason, body.principal) == ("record 3", "audit 7", "operator")
        assert (body.name, body.key) == ("web", row.key_id)
        assert body.epoch == row.epoch  # no change of authority


async def test_what_cannot_be_disclosed_is_not_found(node: Node) -> None:
    async with node.serving():
        await used(node, uses=1)
        check_refused(await node.admin(DiscloseRecord(seq=99)), "not_found")
        check_refused(await node.admin(DiscloseRecord(seq=-1)), "malformed_request")
        check_refused(await node.admin(DiscloseRecord(seq=1, reason="\n")), "malformed_request")
        node.clock.advance(2 * DAY_MS)
        await forgotten(node, key="web")
        refused = check_refused(await node.admin(DiscloseRecord(seq=3)), "not_found")
        assert "forgotten" in refused.message
    assert [body.outcome for body in node.log("log.disclose")][-1] == "not_found"


async def test_a_disclosure_that_cannot_be_recorded_is_not_made(node: Node) -> None:
    async with node.serving():
        await used(node, uses=1)
        for how in Fault:
            node.store.fail_next(how)
            check_refused(await node.admin(DiscloseRecord(seq=3)), "log_unavailable")


async def test_what_is_forgotten_meanwhile_is_not_disclosed(node: Node) -> None:
    """The order of the log holds: the entry of the forgetting stands first."""
    async with node.serving():
        await used(node, uses=1)
        node.clock.advance(2 * DAY_MS)
        release = node.hold()
        holding = asyncio.ensure_future(node.admin(CreateKey(name="a", purpose=Purpose.TLS)))
        forgetting = asyncio.ensure_future(node.admin(ForgetRecords(key="web", reason="x")))
        await asyncio.sleep(0.05)
        disclosing = asyncio.ensure_future(node.admin(DiscloseRecord(seq=3)))
        await asyncio.sleep(0.05)
        release()
        check_done(await holding)
        check_done(await forgetting)
        check_refused(await disclosing, "not_found")


async def test_a_node_that_ends_leaves_nobody_waiting(node: Node) -> None:
    """Who disclosed is refused, who forgot is told; and neither holds up the end."""
    async with node.serving():
        await used(node, uses=2)
        node.clock.advance(2 * DAY_MS)
        release = node.hold()
        asked = [
            asyncio.ensure_future(node.admin(command))
            for command in (
                DiscloseRecord(seq=3),
                ForgetRecords(key="web", reason="x", through=3),
            )
        ]
        await asyncio.sleep(0.05)
        node.built.logbook.close()
        release()
        check_refused(await node.admin(ListRecords()), "overloaded")
        check_refused(await asked[0], "overloaded")
        told = result_of(await asked[1], Forgotten)
        assert (told.count, told.scrubbed) == (1, False)


# --- forgetting ----------------------------------------------------------------------------------


async def test_forgetting_is_an_entry_that_names_what_was_forgotten(node: Node) -> None:
    async with node.serving():
        await used(node)
        before = rows(node)
        node.clock.advance(2 * DAY_MS)
        told = await forgotten(node, key="web")
        assert (told.count, told.first_seq, told.last_seq, told.end) == (3, 3, 5, True)
        assert (told.first_ms, told.last_ms) == (before[3].time_ms, before[5].time_ms)
        assert told.scrubbed
        [body] = node.log("log.forget")
        assert read_ranges(body.detail) == [(3, 5)]
        assert body.detail.startswith("before 20")
        assert ", key web: 3-5" in body.detail
        assert (body.reason, body.count, body.principal) == ("retention", 3, "operator")
        for was, now in zip(before, rows(node), strict=False):
            gone = {"body": None, "salt": None, "handle_id": "", "principal": "", "request_id": ""}
            assert now == (msgspec.structs.replace(was, **gone) if was.op == "tls.sign" else was)
            assert leaf_hash(now.entry) == now.leaf
        page = await searched(node, operation="tls.sign")
        assert {(record.state, record.handle) for record in page.records} == {("forgotten", "")}


async def test_changes_and_what_tells_of_the_log_are_never_forgotten(node: Node) -> None:
    async with node.serving():
        await used(node)
        check_done(await node.admin(RevokeKeyHandles(key="web", reason="x")))
        check_done(await node.admin(DiscloseRecord(seq=3)))
        node.clock.advance(2 * DAY_MS)
        await forgotten(node, before_ms=node.clock.now_ms())
        kept = {row.op for row in rows(node) if row.body is not None}
        assert kept == {
            "deployment.init",
            "key.create",
            "handle.issue",
            "handle.revoke_all",
            "log.disclose",
            "log.forget",
        }


async def test_what_is_young_stays(node: Node) -> None:
    async with node.serving():
        await used(node, uses=1)
        node.clock.advance(limits.LOG_FORGET_AGE_MS)
        told = await forgotten(node, before_ms=node.clock.now_ms())
        assert (told.count, told.end, told.scrubbed) == (0, True, True)
        assert told.before_ms == node.clock.now_ms() - limits.LOG_FORGET_AGE_MS
        node.clock.advance(1)
        assert (await forgotten(node, before_ms=node.clock.now_ms())).count == 1
    assert len(node.log("log.forget")) == 1


async def test_what_is_given_narrows(node: Node) -> None:
    async with node.serving():
        first = await used(node, uses=2)
        await used(node, "other", uses=2)
        cut = node.clock.now_ms() + 1
        node.clock.advance(2 * DAY_MS)
        for fields, count in (
            ({"handle_id": "h" + "0" * 24}, 0),
            ({"principal": "nobody"}, 0),
            ({"key": "other", "handle_id": first}, 0),
            ({"before_ms": 0}, 0),
            ({"before_ms": cut, "through": 4}, 2),
            ({"principal": "ci"}, 4),
            ({"key": "other"}, 2),
        ):
            told = await forgotten(node, dry_run=True, **fields)
            assert (told.count, told.end) == (count, True), fields
        assert node.log("log.forget") == []
        assert (await forgotten(node, handle_id=first)).count == 2
        assert (await forgotten(node, principal="ci")).count == 2
        assert (await forgotten(node, principal="ci")).count == 0


async def test_a_batch_is_bounded_and_the_next_goes_on(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_FORGET_ROWS", 2)
    async with node.serving():
        await used(node, uses=5)
        node.clock.advance(2 * DAY_MS)
        counts, after, end = [], -1, False
        while not end:
            told = await forgotten(node, key="web", after=after)
            counts.append(told.count)
            after, end = told.next, told.end
        assert counts == [2, 2, 1]
        assert not [row for row in uses(node) if row.body is not None]
        named = [read_ranges(body.detail) for body in node.log("log.forget")]
        assert named == [[(3, 4)], [(5, 6)], [(7, 7)]]


async def test_scattered_records_make_several_entries_in_one_commit(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_DETAIL_BYTES_MAX", 4)
    async with node.serving():
        await node.create("web", Purpose.TLS)
        one, two = await node.issue("web"), await node.issue("web")
        for _ in range(4):
            for issued in (one, two):
                check_done(await node.ask(node.use_of(issued.token)))
        node.clock.advance(2 * DAY_MS)
        commits = node.built.committer.commits
        assert (await forgotten(node, handle_id=one.handle_id)).count == 4
        assert node.built.committer.commits == commits + 1
        bodies = node.log("log.forget")
        assert len(bodies) > 1
        assert sum(body.count for body in bodies) == 4
        named = {
            seq
            for body in bodies
            for first, last in read_ranges(body.detail)
            for seq in range(first, last + 1)
        }
        assert named == {row.seq for row in uses(node) if row.body is None}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"reason": ""},
        {"key": "web", "reason": "\x07"},
        {"principal": ""},
        {"principal": "a: 0-9"},
        {"handle_id": "h 1"},
        {"before_ms": -1},
        {"key": "web", "through": -1},
        {"key": "web", "after": -2},
    ],
    ids=str,
)
async def test_a_choice_must_be_one(node: Node, fields: dict[str, object]) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        command = msgspec.structs.replace(ForgetRecords(reason="x"), **fields)
        check_refused(await node.admin(command), "malformed_request")
        check_refused(await node.admin(ForgetRecords(key="none", reason="x")), "not_found")


@pytest.mark.parametrize("how", list(Fault))
async def test_forgetting_that_fails_is_done_again(node: Node, how: Fault) -> None:
    """Both forms: the erasure and its entry are there together, or neither is."""
    async with node.serving():
        await used(node)
        node.clock.advance(2 * DAY_MS)
        node.store.fail_next(how)
        check_refused(await node.admin(ForgetRecords(key="web", reason="x")), "log_unavailable")
        check_whole(node, erased=how is Fault.APPLIED)
        told = await forgotten(node, key="web")
        assert told.count == (0 if how is Fault.APPLIED else 3)
    check_whole(node, erased=True)


def check_whole(node: Node, *, erased: bool) -> None:
    """Uses without a body are named by entries, and no others."""
    named = {
        seq
        for body in node.log("log.forget")
        if body.outcome == "ok"
        for first, last in read_ranges(body.detail)
        for seq in range(first, last + 1)
    }
    gone = {row.seq for row in rows(node) if row.body is None}
    assert gone == named
    assert bool(gone) == erased
    for row in rows(node):
        if row.body is not None and row.salt is not None:
            assert entry_of(row.salt, row.body) == row.entry


# --- after a restore -----------------------------------------------------------------------------


async def restored(node: Node) -> dict[int, RecordRow]:
    """A log of which three records were forgotten, and were put back; gives it as it was."""
    async with node.serving():
        await used(node)
        old = {row.seq: row for row in uses(node)}
        node.clock.advance(2 * DAY_MS)
        await forgotten(node, key="web")
        await used(node, "later", uses=1)
    tables = node.disk.tables
    was = tables.records
    node.disk.tables = msgspec.structs.replace(tables, records={**was, **old})
    return was


async def test_what_was_forgotten_is_forgotten_again(node: Node) -> None:
    was = await restored(node)
    assert forget_again(node.store, node.store) == 3
    assert node.disk.tables.records == was
    assert forget_again(node.store, node.store) == 0


async def test_without_anything_to_do_it_only_reads(node: Node) -> None:
    was = await restored(node)
    node.disk.tables = msgspec.structs.replace(node.disk.tables, records=was)
    trips = Trips()
    assert forget_again(node.store, FaultyJournal(node.store, trips)) == 0
    assert not trips.hits


async def test_it_is_done_in_batches(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    was = await restored(node)
    monkeypatch.setattr(limits, "LOG_FORGET_ROWS", 2)
    trips = Trips()
    assert forget_again(node.store, FaultyJournal(node.store, trips)) == 3
    assert trips.hits[Step.FORGET, Moment.BEFORE] == 2
    assert node.disk.tables.records == was


@pytest.mark.parametrize("moment", list(Moment))
@pytest.mark.parametrize("step", [Step.BEGIN, Step.FORGET, Step.COMMIT])
async def test_a_start_that_fails_at_it_is_made_good_by_the_next(
    node: Node, step: Step, moment: Moment
) -> None:
    was = await restored(node)
    journal = FaultyJournal(node.store, Trips(Trip(step, moment, fail)))
    with pytest.raises(KeysteadError):
        forget_again(node.store, journal)
    forget_again(node.store, node.store)
    assert node.disk.tables.records == was


async def test_an_entry_that_was_altered_erases_nothing(node: Node) -> None:
    """Nor one that would name what is never forgotten."""
    async with node.serving():
        await used(node)
        node.clock.advance(2 * DAY_MS)
        await forgotten(node, before_ms=node.clock.now_ms(), through=3)
    before = node.disk.tables.records
    [row] = [row for row in before.values() if row.op == "log.forget"]
    assert row.body is not None
    assert row.salt is not None
    forged = row.body.replace(b": 3", b": 0-9")
    altered = {**before, row.seq: msgspec.structs.replace(row, body=forged)}
    node.disk.tables = msgspec.structs.replace(node.disk.tables, records=altered)
    assert forget_again(node.store, node.store) == 0
    assert node.disk.tables.records == altered
    sealed = msgspec.structs.replace(row, body=forged, entry=entry_of(row.salt, forged))
    node.disk.tables = msgspec.structs.replace(
        node.disk.tables, records={**before, row.seq: sealed}
    )
    assert forget_again(node.store, node.store) == 2  # whoever can write that can erase by itself
    kept = [each for each in rows(node) if each.body is not None]
    assert all(each.op not in FORGETTABLE for each in kept)
    assert len(kept) == 4


async def test_the_entry_decodes_as_any_other(node: Node) -> None:
    await restored(node)
    [row] = [row for row in rows(node) if row.op == "log.forget"]
    assert row.body is not None
    assert decode_body(row.body).count == 3
