"""What was in force when, which way policies changed, and what a newer binary has written."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from keystead.keys.commands import KeyInfo, LimitTenant, ListKeys, MoveVersion, ShowKey
from keystead.keys.lifecycle import Move
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import (
    ChangedPolicy,
    ChangePolicy,
    EvidenceInfo,
    HistoryPage,
    ListHistory,
    RolloutInfo,
    SetPlan,
    ShowEvidence,
    ShowRollout,
)
from keystead.keys.rollout.plan import Drain
from keystead.ports import HistoryQuery, HistoryRow, ObjectRow
from keystead.translog.entries import commitment
from keystead.vault.rows import rows_message
from unit.vault.node import Node, check_done, check_refused, result_of
from unit.vault.rollouts import KEY, PLAN, Rolling, one_round

pytestmark = pytest.mark.anyio

SHORT = Policy(jwt=JwtPolicy(issuer="https://id.example", lifetime_max_s=30))
EVERYTHING = HistoryQuery(limit=1000)
LONG = Policy(jwt=JwtPolicy(issuer="https://id.example", lifetime_max_s=60))


@pytest.fixture
async def rolling() -> AsyncIterator[Rolling]:
    node = Node()
    async with node.serving():
        found = Rolling(node)
        await found.begin()
        yield found


async def history(node: Node, **asked: Any) -> HistoryPage:  # noqa: ANN401  any field of it
    return result_of(await node.admin(ListHistory(**asked)), HistoryPage)


# --- policies ------------------------------------------------------------------------------------


async def test_a_weaker_policy_must_be_said_to_be_meant(rolling: Rolling) -> None:
    node = rolling.node
    done = await node.admin(ChangePolicy(name=KEY, policy=SHORT, reason="shorter"))
    changed = result_of(done, ChangedPolicy)
    assert [(d.path, d.direction) for d in changed.differences] == [
        ("jwt.lifetime_max_s", "stronger")
    ]
    back = ChangePolicy(name=KEY, policy=LONG, reason="too short")
    refused = check_refused(await node.admin(back), "approval_required")
    assert "jwt.lifetime_max_s" in refused.message
    check_done(await node.admin(msgspec.structs.replace(back, weaker=True)))
    said = [body for body in node.log("key.policy") if body.outcome == "ok"]
    assert [body.detail.partition(":")[0] for body in said] == ["stronger", "weaker"]
    check_refused(await node.admin(msgspec.structs.replace(back, weaker=True)), "conflict")


async def test_a_policy_that_outlives_the_drain_is_refused(rolling: Rolling) -> None:
    policy = Policy(jwt=JwtPolicy(issuer="https://id.example", lifetime_max_s=61))
    asked = ChangePolicy(name=KEY, policy=policy, weaker=True, reason="longer")
    refused = check_refused(await rolling.node.admin(asked), "malformed_request")
    assert "drain" in refused.message


async def test_a_policy_that_outlives_the_drain_of_a_rollout_under_way_is_refused() -> None:
    node = Node()
    async with node.serving():
        rolling = Rolling(node)
        slow = msgspec.structs.replace(PLAN, drain=Drain(length_ms=600_000))
        await rolling.make(slow)
        await rolling.rotate()
        policy = Policy(jwt=JwtPolicy(issuer="https://id.example", lifetime_max_s=300))
        asked = ChangePolicy(name=KEY, policy=policy, weaker=True, reason="longer")
        check_refused(await node.admin(asked), "malformed_request")
        check_done(await rolling.steer("roll_back"))
        check_done(await node.admin(asked))


async def test_a_plan_is_compared_and_holds_for_the_next_rollout_only(rolling: Rolling) -> None:
    node = rolling.node
    gates = msgspec.structs.replace(PLAN.gates, reporters=5)
    weaker = msgspec.structs.replace(PLAN, gates=gates)
    refused = check_refused(
        await node.admin(SetPlan(name=KEY, plan=weaker, reason="noise")), "approval_required"
    )
    assert "gates.reporters" in refused.message
    check_done(await node.admin(SetPlan(name=KEY, plan=weaker, weaker=True, reason="noise")))
    status = result_of(await node.admin(ShowRollout(name=KEY)), RolloutInfo)
    assert status.plan.gates.reporters == 1
    check_done(await rolling.steer("roll_back"))
    assert (await rolling.status()).plan.gates.reporters == 5


# --- history -------------------------------------------------------------------------------------


async def test_what_was_in_force_at_a_sequence_and_at_a_time(rolling: Rolling) -> None:
    node = rolling.node
    before_seq, before_ms = node.store.last_sequence(), node.clock.now_ms()
    node.clock.advance(60_000)
    check_done(await node.admin(ChangePolicy(name=KEY, policy=SHORT, reason="shorter")))
    now = await history(node, kind="key", name=KEY)
    assert now.entries[0].doc["policy"]["jwt"]["lifetime_max_s"] == 30
    assert now.entries[0].until_seq == -1
    for point in ({"at_seq": before_seq}, {"at_ms": before_ms}):
        then = await history(node, kind="key", name=KEY, **point)
        assert [entry.doc["policy"]["jwt"]["lifetime_max_s"] for entry in then.entries] == [60]
        assert then.entries[0].until_seq == now.entries[0].seq
    entry = now.entries[0]
    assert (entry.action, entry.principal, entry.reason) == ("key.policy", "operator", "shorter")
    assert [(d.path, d.direction) for d in entry.differences] == [
        ("jwt.lifetime_max_s", "stronger")
    ]


async def test_a_budget_has_its_history_too(rolling: Rolling) -> None:
    node = rolling.node
    for count in (100, 50):
        check_done(await node.admin(LimitTenant(tenant="default", count=count, reason="test")))
    page = await history(node, kind="tenant", name="default")
    assert [entry.revision for entry in page.entries] == [2, 1]
    assert {d.direction for d in page.entries[0].differences} == {"stronger"}


async def test_a_record_commits_to_the_rows_that_it_tells_of(rolling: Rolling) -> None:
    """Who alters a row of the history, and its MAC, still has the log against them."""
    page = await history(rolling.node, kind="rotation", name=KEY)
    seq = page.entries[0].seq
    rows = [row for row in rolling.node.store.history(EVERYTHING) if row.seq == seq]
    rows.sort(key=lambda row: row.kind)
    record = rolling.node.store.records_from(seq, 1)[0]
    assert record.salt is not None
    body = next(body for body in rolling.node.log() if body.seq == seq)
    assert body.signed == commitment(record.salt, rows_message(map(_object, rows)))
    altered = [msgspec.structs.replace(rows[0], doc=b"\x80"), *rows[1:]]
    assert body.signed != commitment(record.salt, rows_message(map(_object, altered)))


async def test_an_altered_revision_is_refused(rolling: Rolling) -> None:
    disk = rolling.node.disk
    before = rolling.node.store.history(EVERYTHING)[0]
    at = (before.kind, before.id, before.revision)
    tables = disk.tables
    disk.tables = msgspec.structs.replace(
        tables, history=tables.history | {at: msgspec.structs.replace(before, doc=b"\x80")}
    )
    check_refused(await rolling.node.admin(ListHistory()), "state_rolled_back")


async def test_pages_go_to_the_first_change_and_never_end_within_one(rolling: Rolling) -> None:
    seen: list[tuple[str, int]] = []
    before = None
    for _ in range(20):
        page = await history(rolling.node, before=before, limit=1)
        seen += [(entry.kind, entry.epoch) for entry in page.entries]
        before = page.next
        if page.end:
            break
    whole = await history(rolling.node, limit=100)
    assert seen == [(entry.kind, entry.epoch) for entry in whole.entries]
    assert ("credential", 1) in seen
    assert all("token_sha256" not in entry.doc for entry in whole.entries)


@pytest.mark.parametrize(
    "asked", [{"kind": "nothing"}, {"at_seq": 1, "at_ms": 1}, {"limit": 0}, {"limit": 10_000}]
)
async def test_a_question_that_is_none_is_refused(rolling: Rolling, asked: dict[str, Any]) -> None:
    check_refused(await rolling.node.admin(ListHistory(**asked)), "malformed_request")


# --- evidence ------------------------------------------------------------------------------------


async def test_the_evidence_of_a_roll_back_is_one_bundle(rolling: Rolling) -> None:
    node = rolling.node
    await rolling.until("canary")
    seq = await rolling.seq_of(2)
    for name in ("shop", "bank"):
        check_done(await rolling.report(await rolling.reporter(name), seq, "algorithm"))
    await rolling.tick()
    check_done(await node.admin(MoveVersion(name=KEY, move=Move.SUSPEND, version=1, reason="x")))
    bundle = result_of(await node.admin(ShowEvidence(name=KEY)), EvidenceInfo)
    assert bundle.rollout.steps[-1].event == "rolled back"
    assert {(r.principal, r.seq, r.problem) for r in bundle.reports} == {
        ("shop", seq, "algorithm"),
        ("bank", seq, "algorithm"),
    }
    assert seq in bundle.records
    told = {body.seq for body in node.log() if body.op.startswith("rollout.")}
    assert told <= set(bundle.records)
    check_refused(await node.admin(ShowEvidence(name=KEY, number=7)), "not_found")
    await rolling.node.create("other", Purpose.TLS)
    check_refused(await node.admin(ShowEvidence(name="other")), "not_found")


async def test_the_evidence_of_an_earlier_rollout_is_kept(rolling: Rolling) -> None:
    check_done(await rolling.steer("roll_back", "first"))
    await rolling.rotate()
    bundle = result_of(await rolling.node.admin(ShowEvidence(name=KEY, number=1)), EvidenceInfo)
    assert [step.reason for step in bundle.rollout.steps] == ["test", "first"]


# --- rows of a newer binary (M20) ----------------------------------------------------------------


def newer(node: Node, kind: str, change: dict[str, Any]) -> ObjectRow:
    """Have a newer Keystead write a row of this deployment: a change that this one cannot read."""
    snapshot = node.built.standing.snapshot
    old = next(row for row in node.store.objects() if row.kind == kind and row.name == KEY)
    doc = msgspec.msgpack.decode(old.doc) | change
    epoch = snapshot.epoch + 1
    row = msgspec.structs.replace(
        old, revision=old.revision + 1, epoch=epoch, doc=msgspec.msgpack.encode(doc)
    )
    row = node.secrets.signed_object(row)
    after = snapshot.with_rows(epoch, [row])
    with node.store.transaction() as tx:
        tx.put_object(row, previous_revision=old.revision)
        tx.set_epoch(node.secrets.epoch_row(epoch, node.secrets.root_digest(after.digests)))
    return row


def stage_of_tomorrow(node: Node) -> dict[str, Any]:
    old = next(row for row in node.store.objects() if row.kind == "rotation" and row.name == KEY)
    rollout = msgspec.msgpack.decode(old.doc)["rollout"] | {"stage": "shadow"}
    return {"rollout": rollout}


@pytest.mark.parametrize("kind", ["key", "rotation"])
async def test_what_a_newer_binary_wrote_is_kept_and_its_key_alone_is_not_used(kind: str) -> None:
    node = Node()
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin()
        await node.create("other", Purpose.TLS)
        other = (await node.issue("other")).token
        change = {"quantum": True} if kind == "key" else stage_of_tomorrow(node)
        row = newer(node, kind, change)
        await one_round(node)
        await node.ask(node.use_of(other))  # a commit reads what the other binary wrote
        assert "newer Keystead" in check_refused(await rolling.sign("a/1"), "key_state").message
    for _ in range(2):  # also over restarts
        node = node.after_restart()
        async with node.serving():
            rolling = Rolling(node, rolling.handle)
            check_done(await node.ask(node.use_of(other)))
            check_refused(await rolling.sign("a/1"), "key_state")
            check_refused(await rolling.steer("pause"), "key_state")
            check_refused(await node.admin(ShowKey(name=KEY)), "key_state")
            check_refused(
                await node.admin(MoveVersion(name=KEY, move=Move.SUSPEND, reason="x")),
                "key_state",
            )
            names = [key.name for key in result_of(await node.admin(ListKeys()), list[KeyInfo])]
            assert "other" in names
            await one_round(node)
            node.built.tending.verify_registry()
            assert node.built.standing.tampered is None
        kept = next(r for r in node.store.objects() if (r.kind, r.id) == (row.kind, row.id))
        assert kept == row


def _object(row: HistoryRow) -> ObjectRow:
    return ObjectRow(row.kind, row.id, row.name, row.revision, row.epoch, row.doc, row.mac)
