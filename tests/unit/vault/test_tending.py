"""Rounds and status: what the steward has the vault do, and what the vault tells of itself."""

import msgspec
import pytest

from keystead import limits
from keystead.frames.messages import Metric, Status, StatusInfo
from keystead.keys.commands import ListKeys, RevokeKeyHandles
from keystead.keys.purposes import Purpose
from keystead.testing.memory_store import Fault, Tables
from keystead.vault.authority import key_row
from unit.vault.node import Node, all_of, check_done, check_refused, result_of
from unit.vault.scene import eventually

pytestmark = pytest.mark.anyio
MINUTE_MS = 60_000
ROUND_MS = 30_000


@pytest.fixture
def node() -> Node:
    return Node()


async def status(node: Node) -> StatusInfo:
    return result_of(await node.ask(Status(node.next_id())), StatusInfo)


def sample(info: StatusInfo, name: str, **labels: str) -> float | None:
    found = [m.value for m in info.metrics if m.name == name and m.labels == labels]
    assert len(found) <= 1, found
    return found[0] if found else None


async def settled(node: Node, count: int) -> None:
    """Wait for so many records."""
    await eventually(lambda: len(node.log()) >= count)


# --- status --------------------------------------------------------------------------------------


async def test_a_new_vault_is_ready(node: Node) -> None:
    async with node.serving():
        info = await status(node)
    assert (info.ready, info.reasons, info.deployment, info.node) == (True, (), "d1", "node-a")
    assert (info.epoch, info.last_seq, info.keys) == (1, 0, 0)
    assert info.protections["seal"] == "none"
    assert info.protections["anchor"].startswith("off:")


async def test_metrics_follow_what_is_done(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        for _ in range(3):
            check_done(await node.ask(node.use_of(handle)))
        check_refused(await node.ask(node.use_of("ks1.AAAA")), "handle_invalid")
        check_refused(await node.admin(ListKeys(), token="kso1.x"), "unauthenticated")
        info = await status(node)
    assert sample(info, "keystead_vault_uses", purpose="tls") == 3
    assert sample(info, "keystead_vault_denials", code="handle_invalid") == 1
    assert sample(info, "keystead_vault_denials", code="unauthenticated") == 1
    assert sample(info, "keystead_vault_changes", action="key.create") == 1
    assert sample(info, "keystead_vault_changes", action="handle.issue") == 1
    assert sample(info, "keystead_vault_keys") == 1
    assert sample(info, "keystead_vault_opened_keys") == 1
    assert sample(info, "keystead_vault_epoch") == info.epoch
    assert sample(info, "keystead_vault_queue") == 0
    records = sample(info, "keystead_vault_records")
    assert records == info.last_seq  # all but the first, which start-up wrote
    names = [(metric.name, tuple(metric.labels.items())) for metric in info.metrics]
    assert len(names) == len(set(names))
    assert {type(metric) for metric in info.metrics} == {Metric}


async def test_every_invariant_is_shown_from_the_start(node: Node) -> None:
    async with node.serving():
        info = await status(node)
    for number in range(1, 13):
        value = sample(info, "keystead_invariant_violations", invariant=f"I{number}")
        assert value == 0


async def test_trouble_is_told_until_it_is_over(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        node.store.fail_next(Fault.NOT_APPLIED)
        check_refused(await node.ask(node.use_of(handle)), "log_unavailable")
        info = await status(node)
        assert not info.ready
        assert "not applied" in info.reasons[0]
        check_done(await node.ask(node.use_of(handle)))
        assert (await status(node)).ready


# --- rounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "invariant"),
    [
        ("I10 expected record 7, met 9", "I10"),
        ("I10 record 3: the leaf is not that of its entry", "I10"),
        ("I2 an answer has no record", "I2"),
    ],
)
async def test_a_finding_counts_under_its_invariant(
    node: Node, finding: str, invariant: str
) -> None:
    """An alert on the invariant's own series must not miss it, and no series is made up."""
    async with node.serving():
        before = len((await status(node)).metrics)
        check_done(await node.tend(finding))
        check_done(await node.tend(finding, finding))
        info = await status(node)
    assert sample(info, "keystead_invariant_violations", invariant=invariant) == 3
    assert len(info.metrics) == before


async def test_a_round_tells_the_last_sequence(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        answer = msgspec.msgpack.decode(check_done(await node.tend()).result)
        assert answer == {"last_seq": node.store.last_sequence()}


async def test_rounds_write_what_was_not_recorded_one_by_one(node: Node) -> None:
    async with node.serving():
        for answer in await all_of([node.begin(node.use_of("ks1.AAAA")) for _ in range(70)]):
            check_refused(answer, "handle_invalid")
        before = len(node.log())
        check_done(await node.tend())
        assert len(node.log()) == before
        node.clock.advance(MINUTE_MS)
        check_done(await node.tend())
        await settled(node, before + 1)
        summary = node.log()[-1]
        assert (summary.op, summary.count) == (
            "denials.summary",
            70 - limits.DENIALS_RECORDED_PER_MINUTE,
        )
        check_done(await node.tend())
    assert len(node.log("denials.summary")) == 1


async def test_summaries_survive_a_full_queue_and_a_failing_disk(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood fills the queue; what tells of the flood must not be what it drowns."""
    async with node.serving():
        for answer in await all_of([node.begin(node.use_of("ks1.AAAA")) for _ in range(70)]):
            check_refused(answer, "handle_invalid")
        node.clock.advance(MINUTE_MS)
        node.store.fail_next(Fault.NOT_APPLIED)
        with monkeypatch.context() as patch:
            patch.setattr(limits, "VAULT_QUEUE_MAX", 0)
            check_done(await node.tend())
        await eventually(lambda: bool(node.log("denials.summary")))
    assert [body.count for body in node.log("denials.summary")] == [10]


async def test_expired_idempotency_keys_are_pruned(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        first = check_done(await node.ask(node.use_of(handle, key="once")))
        check_done(await node.tend())
        check_done(await node.ask(node.use_of(handle, key="twice")))
        assert len(node.disk.tables.idempotency) == 2
        node.clock.advance(limits.IDEMPOTENCY_TTL_MS)
        check_done(await node.tend())
        await eventually(lambda: not node.disk.tables.idempotency)
        again = check_done(await node.ask(node.use_of(handle, key="once")))
        assert again.result != first.result


# --- a registry that was altered -----------------------------------------------------------------


def forged(node: Node) -> Tables:
    """One key's row, swapped by whoever can write the database."""
    tables = node.disk.tables
    at = next(at for at in tables.objects if at[0] == "key")
    row = msgspec.structs.replace(tables.objects[at], doc=b"\x80")
    return msgspec.structs.replace(tables, objects={**tables.objects, at: row})


async def test_an_altered_row_stops_all_work(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        node.disk.tables = forged(node)
        check_done(await node.tend())
        check_done(await node.ask(node.use_of(handle)))  # not looked at yet: the round is not due
        node.clock.advance(ROUND_MS)
        check_done(await node.tend())
        count = len(node.log())
        check_refused(await node.ask(node.use_of(handle)), "state_rolled_back")
        check_refused(await node.admin(ListKeys()), "state_rolled_back")
        info = await status(node)
        assert not info.ready
        assert sample(info, "keystead_invariant_violations", invariant="I10") == 1
    assert len(node.log()) == count  # nothing is written into what somebody else writes


async def test_an_older_registry_is_found_without_a_use(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        before = node.disk.tables
        check_done(await node.admin(RevokeKeyHandles(key="web", reason="lost")))
        node.disk.tables = before
        node.clock.advance(ROUND_MS)
        check_done(await node.tend())
        answer = check_refused(await node.admin(ListKeys()), "state_rolled_back")
        assert "older copy" in answer.message


async def test_a_removed_row_is_found(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        tables = node.disk.tables
        kept = {at: row for at, row in tables.objects.items() if at[0] != "key"}
        node.disk.tables = msgspec.structs.replace(tables, objects=kept)
        node.clock.advance(ROUND_MS)
        check_done(await node.tend())
        check_refused(await node.admin(ListKeys()), "state_rolled_back")


async def test_another_nodes_change_is_no_alarm(node: Node) -> None:
    """A newer epoch, genuine, that this vault has not seen yet."""
    async with node.serving():
        await node.create("web", Purpose.TLS)
        other = node.after_restart()
        async with other.serving():
            check_done(await other.admin(RevokeKeyHandles(key="web", reason="lost")))
        node.clock.advance(ROUND_MS)
        check_done(await node.tend())
        assert (await status(node)).ready


async def test_a_store_that_does_not_answer_is_no_tampering(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        node.store.down = True
        node.built.tending.verify_registry()
        node.store.down = False
        assert (await status(node)).ready
        row = key_row(node.built.standing.snapshot.named("web"), node.secrets)
        assert row.mac == node.disk.tables.objects["key", row.id].mac
