"""The committer: groups, order, the epoch fence, and what is decided inside a commit."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead import limits
from keystead.errors import (
    AlgorithmForbidden,
    Conflict,
    HandleRevoked,
    KeyStateError,
    KeysteadError,
    LimitExceeded,
    Overloaded,
    ReplayConflict,
    StateRolledBack,
)
from keystead.frames.messages import Receipt
from keystead.keys.caveats import ContextPrefix, Uses
from keystead.keys.framing.base import CounterStep
from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.ports import Transaction
from keystead.translog.entries import entry_of, leaf_hash
from keystead.vault.authority import Snapshot
from keystead.vault.committer import Applied, Committed
from unit.vault.scene import (
    Scene,
    changed,
    committed,
    key_of,
    not_changed,
    outcome_of,
    refused,
    replayed,
    with_state,
)

pytestmark = pytest.mark.anyio


# --- records, groups, order ----------------------------------------------------------------------


async def test_the_outcome_comes_after_the_commit(scene: Scene) -> None:
    """I2: while the disk has not answered, nobody has."""
    async with scene.committing() as running:
        first = await running.hold()
        second = running.use()
        await asyncio.sleep(0.02)
        assert not first.done()
        assert not second.done()
        assert scene.rows() == []
        running.release()
        assert await committed(first) == Committed(0, 1)
        assert await committed(second) == Committed(1, 1)
    assert [row.seq for row in scene.rows()] == [0, 1]


async def test_a_record_is_what_was_hashed(scene: Scene) -> None:
    async with scene.committing() as running:
        await committed(running.use())
    [row] = scene.rows()
    assert row.entry == entry_of(row.salt or b"", row.body or b"")
    assert row.leaf == leaf_hash(row.entry)
    [body] = scene.log()
    assert (body.seq, body.epoch, body.op, body.outcome) == (0, 1, "data.wrap", "ok")
    assert body.signed == "c0ffee"
    assert (row.op, row.outcome, row.key_id, row.request_id) == ("data.wrap", "ok", "k1", "r1")


async def test_what_gathers_while_one_commit_runs_goes_together(scene: Scene) -> None:
    async with scene.committing() as running:
        await running.hold()
        waiting = [running.use() for _ in range(50)]
        running.release()
        places = [await committed(each) for each in waiting]
        assert [place.seq for place in places] == list(range(1, 51))
        assert (running.committer.commits, running.committer.records) == (2, 51)
        assert running.committer.waiting == 0


async def test_a_group_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COMMIT_GROUP_MAX", 10)
    async with scene.committing() as running:
        await running.hold()
        waiting = [running.use() for _ in range(25)]
        running.release()
        places = [await committed(each) for each in waiting]
        assert [place.seq for place in places] == list(range(1, 26))
        assert running.committer.commits == 4


async def test_sequences_go_on_after_a_restart(scene: Scene) -> None:
    for start in (0, 3):
        async with scene.committing() as running:
            places = [await committed(running.use()) for _ in range(3)]
        assert [place.seq for place in places] == [start, start + 1, start + 2]


async def test_the_end_commits_what_is_queued(scene: Scene) -> None:
    async with scene.committing() as running:
        waiting = [running.use() for _ in range(20)]
        change = running.revoke("other")
    assert all(isinstance(each.result(), Committed) for each in waiting)
    await changed(change)
    assert len(scene.rows()) == 21


async def test_a_full_queue_refuses_early(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """I11: but never what is released already, and never a change: a stop gets through."""
    monkeypatch.setattr(limits, "VAULT_QUEUE_MAX", 3)
    async with scene.committing() as running:
        await running.hold()
        waiting = [running.use() for _ in range(3)]
        with pytest.raises(Overloaded) as caught:
            running.use()
        assert caught.value.retry_after_s
        late = running.submit(candidate=None, released=True)
        change = running.revoke("other")
        running.release()
        for each in waiting:
            await committed(each)
        await committed(late)
        await changed(change)
    assert len(scene.rows()) == 6


async def test_changes_and_uses_are_served_in_their_order(scene: Scene) -> None:
    async with scene.committing() as running:
        await running.hold()
        before = [running.use() for _ in range(2)]
        first = running.revoke("one")
        between = running.use()
        second = running.revoke("two")
        after = running.use()
        running.release()
        places = [await committed(each) for each in before]
        places += [await changed(first), await committed(between), await changed(second)]
        places += [await committed(after)]
    assert [place.seq for place in places] == [1, 2, 3, 4, 5, 6]
    assert [place.epoch for place in places] == [1, 1, 2, 2, 3, 3]
    assert [body.op for body in scene.log()][3::2] == ["handle.revoke", "handle.revoke"][:2]


# --- the fence -----------------------------------------------------------------------------------


async def test_a_use_behind_a_revocation_is_refused(scene: Scene) -> None:
    """I4: checked at epoch 1, committed after the revocation's commit: withheld, and recorded."""
    async with scene.committing() as running:
        await running.hold()
        before = running.use()
        revocation = running.revoke(scene.grant.links[0])
        after = running.use()
        running.release()
        assert (await committed(before)).epoch == 1
        place = await changed(revocation)
        error = await refused(after, HandleRevoked)
    assert error.hint
    assert scene.outcomes() == ["permission_denied", "ok", "ok", "handle_revoked"]
    denial = scene.log()[3]
    assert (denial.epoch, denial.seq) == (place.epoch, place.seq + 1) == (2, 3)
    assert denial.signed == ""


FENCE: list[tuple[str, Callable[[Key], Key], type[KeysteadError]]] = [
    (
        "the key's generation grew",
        lambda k: msgspec.structs.replace(k, generation=2),
        HandleRevoked,
    ),
    ("suspended", lambda k: with_state(k, 2, State.SUSPENDED), KeyStateError),
    ("deactivated", lambda k: with_state(k, 2, State.DEACTIVATED), KeyStateError),
    ("compromised", lambda k: with_state(k, 2, State.COMPROMISED), KeyStateError),
    ("destroyed", lambda k: with_state(k, 2, State.DESTROYED), KeyStateError),
    (
        "the algorithm is no longer allowed",
        lambda k: msgspec.structs.replace(k, algorithms=("hmac-sha256",)),
        AlgorithmForbidden,
    ),
]


@pytest.mark.parametrize(("_name", "alter", "kind"), FENCE, ids=[name for name, _, _ in FENCE])
async def test_what_a_change_takes_away_is_gone_in_the_commit(
    scene: Scene, _name: str, alter: Callable[[Key], Key], kind: type[KeysteadError]
) -> None:
    async with scene.committing() as running:
        await running.hold()
        change = running.change_key(alter)
        use = running.use("i1")
        running.release()
        await changed(change)
        error = await refused(use, kind)
    assert scene.outcomes()[-1] == error.code
    assert scene.store.idempotent(scene.grant.chain_id, "i1") is None


@pytest.mark.parametrize(
    ("operation", "alter"),
    [
        ("wrap", lambda key: with_state(key, 1, State.COMPROMISED)),
        ("wrap", lambda key: msgspec.structs.replace(key, labels={"env": "test"})),
        ("unwrap", lambda key: with_state(key, 2, State.DEACTIVATED)),
    ],
    ids=["another version", "a label", "unwrap under a deactivated version"],
)
async def test_what_a_change_leaves_passes_the_fence(
    scene: Scene, operation: str, alter: Callable[[Key], Key]
) -> None:
    async with scene.committing() as running:
        await running.hold()
        change = running.change_key(alter)
        use = running.use(operation=operation)
        running.release()
        await changed(change)
        assert (await committed(use)).epoch == 2


async def test_a_revoked_parent_stops_its_children_only(scene: Scene) -> None:
    child, other = scene.child(ContextPrefix("a")), scene.child(ContextPrefix("b"))
    async with scene.committing() as running:
        await running.hold()
        revocation = running.revoke(child.links[-1])
        waiting = [running.use(grant=grant) for grant in (child, other, scene.grant)]
        running.release()
        await changed(revocation)
        await refused(waiting[0], HandleRevoked)
        await committed(waiting[1])
        await committed(waiting[2])
    assert scene.outcomes()[2:] == ["handle_revoked", "ok", "ok"]


async def test_another_nodes_revocation_is_seen_in_the_commit(scene: Scene) -> None:
    """Nobody told this node: the transaction itself reads the epoch."""
    other = Scene(scene.store.disk)
    async with scene.committing() as running:
        await committed(running.use())
        other.write(2, [other.revocation(scene.grant.links[0], 2)])
        await refused(running.use(epoch=1), HandleRevoked)
        await asyncio.sleep(0)
        assert scene.snapshots[-1].epoch == 2
        assert scene.snapshots[-1].revoked == {scene.grant.links[0]}


@given(st.lists(st.sampled_from(["use", "revoke", "other", "pause"]), max_size=12))
def test_no_use_is_recorded_behind_its_revocation(steps: list[str]) -> None:
    """I4, whatever gathers with whatever: after the revocation's record there is no use's."""
    scene = Scene()

    async def play() -> None:
        async with scene.committing() as running:
            for number, step in enumerate(steps):
                if step == "use":
                    running.use(epoch=1)
                elif step == "other":
                    running.revoke(f"other{number}")
                elif step == "revoke":
                    running.revoke(scene.grant.links[0])
                else:
                    await asyncio.sleep(0.001)

    asyncio.run(play())
    log = scene.log()
    assert [body.seq for body in log] == list(range(len(log)))
    assert [body.epoch for body in log] == sorted(body.epoch for body in log)
    if "revoke" in steps:
        at = steps.index("revoke")
        uses = [body.outcome for body in log if body.op == "data.wrap"]
        before = steps[:at].count("use")
        assert uses == ["ok"] * before + ["handle_revoked"] * (len(uses) - before)


# --- idempotency ---------------------------------------------------------------------------------


async def test_a_repeat_in_the_same_group_is_one_use(scene: Scene) -> None:
    async with scene.committing() as running:
        await running.hold()
        first, second = running.use("i1", result=b"one"), running.use("i1", result=b"two")
        running.release()
        place = await committed(first)
        row = await replayed(second)
    assert (row.seq, row.result) == (place.seq, b"one")
    receipt = msgspec.msgpack.decode(row.receipt, type=Receipt)
    assert (receipt.seq, receipt.epoch, receipt.request_id) == (place.seq, 1, "r2")
    assert len(scene.rows()) == 2
    assert row.expires_ms == scene.clock.now_ms() + limits.IDEMPOTENCY_TTL_MS


async def test_a_repeat_later_is_one_use(scene: Scene) -> None:
    async with scene.committing() as running:
        place = await committed(running.use("i1", result=b"one"))
        await changed(running.revoke("another link"))
        assert (await replayed(running.use("i1"))).seq == place.seq
    async with scene.committing() as running:
        assert (await replayed(running.use("i1"))).result == b"one"
    assert [body.op for body in scene.log()] == ["data.wrap", "handle.revoke"]


async def test_a_repeat_with_another_payload_is_refused(scene: Scene) -> None:
    """In one group and across groups; each refusal is a record."""
    async with scene.committing() as running:
        await running.hold()
        first = running.use("i1", fingerprint=b"payload")
        second = running.use("i1", fingerprint=b"other")
        running.release()
        await committed(first)
        await refused(second, ReplayConflict)
        await refused(running.use("i1", fingerprint=b"third"), ReplayConflict)
        await replayed(running.use("i1", fingerprint=b"payload"))
    assert scene.outcomes()[1:] == ["ok", "replay_conflict", "replay_conflict"]


async def test_keys_are_the_handles_own(scene: Scene) -> None:
    child = scene.child(ContextPrefix("a"))
    async with scene.committing() as running:
        await committed(running.use("i1"))
        await committed(running.use("i1", grant=child, fingerprint=b"other"))
    assert scene.outcomes() == ["ok", "ok"]


async def test_a_secret_is_not_stored(scene: Scene) -> None:
    async with scene.committing() as running:
        await committed(running.use("i1", result=None))
        assert (await replayed(running.use("i1", result=None))).result is None


async def test_a_revoked_handle_gets_no_replay(scene: Scene) -> None:
    """State and epoch are checked again before a stored result is given out (I6)."""
    async with scene.committing() as running:
        await committed(running.use("i1", result=b"one"))
        await running.hold()
        revocation = running.revoke(scene.grant.links[0])
        use = running.use("i1")
        running.release()
        await changed(revocation)
        await refused(use, HandleRevoked)
    assert scene.outcomes()[-1] == "handle_revoked"


async def test_live_keys_are_bounded_and_pruned(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "IDEMPOTENCY_KEYS_PER_HANDLE_MAX", 3)

    def prune(tx: Transaction, _snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
        return Applied(pruned=tx.prune_idempotent(scene.clock.now_ms(), 100) > 0)

    async with scene.committing() as running:
        await running.hold()
        waiting = [running.use(f"i{number}") for number in range(5)]
        running.release()
        for each in waiting[:3]:
            await committed(each)
        for each in waiting[3:]:
            error = await refused(each, LimitExceeded)
            assert error.hint
        await replayed(running.use("i0"))
        await committed(running.use())
        scene.clock.advance(limits.IDEMPOTENCY_TTL_MS)
        await changed(running.change(prune))
        await committed(running.use("i9"))


# --- budgets -------------------------------------------------------------------------------------


def budgets_of(scene: Scene, count: int, number: int) -> tuple[tuple[str, int], ...]:
    """A parent's budget of so many uses, and a child's own."""
    child = scene.child(Uses(count), ContextPrefix(f"c{number}"), Uses(count))
    return tuple((link, budget.count) for link, budget in child.budgets if isinstance(budget, Uses))


@pytest.mark.parametrize("together", [True, False], ids=["in one group", "one by one"])
async def test_a_budget_is_exact_under_many_children(scene: Scene, together: bool) -> None:  # noqa: FBT001  a parameter of the test
    """I5: children spend their parent's budget, all of them together."""
    async with scene.committing() as running:
        if together:
            await running.hold()
        waiting = []
        for number in range(40):
            waiting.append(running.use(budgets=budgets_of(scene, 7, number % 8)))
            if not together:
                await outcome_of(waiting[-1])
        running.release()
        outcomes = [await outcome_of(each) for each in waiting]
    assert sum(isinstance(outcome, Committed) for outcome in outcomes) == 7
    denied = [outcome for outcome in outcomes if isinstance(outcome, LimitExceeded)]
    assert len(denied) == 33
    assert all(error.hint for error in denied)
    assert scene.outcomes().count("limit_exceeded") == 33
    assert scene.store.spent(budgets_of(scene, 7, 0)[0][0]) == 7


async def test_a_refused_use_spends_nothing(scene: Scene) -> None:
    async with scene.committing() as running:
        await refused(running.use(budgets=(("plenty", 9), ("none", 0))), LimitExceeded)
        await committed(running.use("i1", budgets=(("plenty", 9),)))
        await refused(
            running.use("i1", fingerprint=b"other", budgets=(("plenty", 9),)), ReplayConflict
        )
        await replayed(running.use("i1", budgets=(("plenty", 9),)))
    assert (scene.store.spent("plenty"), scene.store.spent("none")) == (1, 0)


async def test_a_budget_outlives_a_restart(scene: Scene) -> None:
    for expected in (Committed, Committed, LimitExceeded):
        async with scene.committing() as running:
            outcome = await outcome_of(running.use(budgets=(("link", 2),)))
        assert isinstance(outcome, expected)


# --- durable counters ----------------------------------------------------------------------------


async def test_steps_of_one_group_build_on_each_other(scene: Scene) -> None:
    async with scene.committing() as running:
        await running.hold()
        states = [None, b"one", b"two", b"three"]
        waiting = [
            running.use(step=CounterStep("ledger", old, new or b""))
            for old, new in pairwise(states)
        ]
        running.release()
        for each in waiting:
            await committed(each)
    stored = scene.store.counter("k1", "ledger")
    assert scene.secrets.open_counter("k1", "ledger", stored) == b"three"


async def test_of_two_steps_on_one_state_one_conflicts(scene: Scene) -> None:
    async with scene.committing() as running:
        await running.hold()
        first = running.use(step=CounterStep("ledger", None, b"mine"))
        second = running.use(step=CounterStep("ledger", None, b"yours"))
        running.release()
        await committed(first)
        error = await refused(second, Conflict)
    assert error.hint
    assert scene.outcomes()[1:] == ["ok", "conflict"]


async def test_a_tampered_counter_refuses_the_use(scene: Scene) -> None:
    with scene.store.transaction() as tx:
        tx.put_counters({("k1", "ledger"): bytes(32) + b"forged"})
    async with scene.committing() as running:
        error = await refused(
            running.use(step=CounterStep("ledger", b"forged", b"next")), StateRolledBack
        )
        assert error.hint
        await committed(running.use())
    assert scene.store.counter("k1", "ledger") == bytes(32) + b"forged"


# --- changes -------------------------------------------------------------------------------------


async def test_a_change_takes_the_next_epoch(scene: Scene) -> None:
    async with scene.committing() as running:
        place = await changed(running.change_key(lambda key: with_state(key, 1, State.SUSPENDED)))
        assert place == Committed(0, 2)
    snapshot = scene.load()
    assert (snapshot.epoch, snapshot.key("k1").epoch, snapshot.key("k1").revision) == (2, 2, 2)
    assert scene.snapshots[-1] == snapshot
    assert [(body.op, body.epoch) for body in scene.log()] == [("key.change", 2)]


async def test_a_change_without_rows_leaves_the_epoch(scene: Scene) -> None:
    def reserve(tx: Transaction, snapshot: Snapshot, epoch: int, seq: int) -> Applied:
        assert (snapshot.epoch, epoch, seq) == (1, 2, 0)
        tx.put_meta("note", b"x")
        return Applied(drafts=(running.draft("note"),), value=7)

    async with scene.committing() as running:
        assert await running.change(reserve) == (7, Committed(0, 1))
    assert scene.load().epoch == 1
    assert scene.store.meta("note") == b"x"


async def test_a_change_that_is_refused_changes_nothing(scene: Scene) -> None:
    def refuse(tx: Transaction, _snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
        tx.put_meta("note", b"x")
        raise Conflict("not now")

    async with scene.committing() as running:
        await not_changed(running.change(refuse), Conflict)
        assert await committed(running.use()) == Committed(0, 1)
    assert scene.store.meta("note") is None


async def test_a_fault_in_a_change_is_told_and_rolled_back(scene: Scene) -> None:
    """Whatever it is: the caller learns the kind of the error, never its words."""

    def break_down(tx: Transaction, _snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
        tx.put_meta("note", b"x")
        raise ZeroDivisionError("with words in it")

    async with scene.committing() as running:
        error = await not_changed(running.change(break_down), KeysteadError)
        assert "ZeroDivisionError" in error.message
        assert "words" not in str(error)
        await committed(running.use())
    assert scene.store.meta("note") is None


async def test_a_stale_change_conflicts(scene: Scene) -> None:
    """Another node wrote the key between this change's reading and its commit."""

    def stale(_tx: Transaction, _snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
        row = scene.store.disk.tables.objects["key", "k1"]
        again = msgspec.structs.replace(row, revision=3, epoch=epoch)
        return Applied(rows=((scene.secrets.signed_object(again), 2),))

    async with scene.committing() as running:
        await not_changed(running.change(stale), Conflict)
    assert scene.load().key("k1") == key_of("k1")
