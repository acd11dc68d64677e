"""A commit that fails, in both forms: not applied, and applied but reported as failed (I2, I6)."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.errors import (
    Conflict,
    HandleRevoked,
    InvariantViolation,
    LimitExceeded,
    LogUnavailable,
    StateRolledBack,
)
from keystead.keys.framing.base import CounterStep
from keystead.keys.lifecycle import State
from keystead.testing.memory_store import Fault, Tables
from keystead.vault.committer import Committed
from unit.vault.scene import (
    Outcome,
    Running,
    Scene,
    changed,
    committed,
    eventually,
    not_changed,
    outcome_of,
    refused,
    replayed,
    with_state,
)

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("fault", list(Fault), ids=str)
LATE_S = 5.0


async def until(holds: "asyncio.Future[Outcome]") -> Committed:
    """The outcome of a released use, whose record comes late."""
    outcome = await asyncio.wait_for(holds, LATE_S)
    assert isinstance(outcome, Committed), outcome
    return outcome


# --- uses ----------------------------------------------------------------------------------------


@BOTH
async def test_the_result_is_withheld_and_a_retry_has_one_effect(
    scene: Scene, fault: Fault
) -> None:
    budgets = (("link", 1),)
    async with scene.committing() as running:
        scene.store.fail_next(fault)
        error = await refused(running.use("i1", budgets=budgets, result=b"one"), LogUnavailable)
        assert error.hint
        applied = fault is Fault.APPLIED
        assert len(scene.rows()) == applied
        outcome = await outcome_of(running.use("i1", budgets=budgets, result=b"two"))
        assert isinstance(outcome, Committed) != applied
        row = await replayed(running.use("i1", budgets=budgets))
        assert row.result == (b"one" if applied else b"two")
        await refused(running.use("i2", budgets=budgets), LimitExceeded)
    assert scene.outcomes() == ["ok", "limit_exceeded"]
    assert scene.store.spent("link") == 1


@BOTH
async def test_a_retry_after_a_restart_has_one_effect(scene: Scene, fault: Fault) -> None:
    async with scene.committing() as running:
        scene.store.fail_next(fault)
        await refused(running.use("i1"), LogUnavailable)
    async with scene.committing() as running:
        await outcome_of(running.use("i1"))
        await replayed(running.use("i1"))
    assert scene.outcomes() == ["ok"]


@BOTH
async def test_all_of_a_group_are_told(scene: Scene, fault: Fault) -> None:
    async with scene.committing() as running:
        await running.hold()
        waiting = [running.use(f"i{number}") for number in range(20)]
        running.scene.store.fail_next(fault)
        scene.store.fail_next(fault)
        running.release()
        for each in waiting:
            await refused(each, LogUnavailable)
        for number in range(20):
            await outcome_of(running.use(f"i{number}"))
    uses = [body for body in scene.log() if body.op == "data.wrap" and body.outcome == "ok"]
    assert len(uses) == 20
    assert [body.seq for body in scene.log()] == list(range(len(scene.log())))


@BOTH
async def test_the_next_commit_works_and_trouble_is_over(scene: Scene, fault: Fault) -> None:
    async with scene.committing() as running:
        await committed(running.use())
        scene.store.fail_next(fault)
        await refused(running.use(), LogUnavailable)
        assert [type(trouble) for trouble in scene.troubles] == [type(None), LogUnavailable]
        place = await committed(running.use())
        assert place.seq == (2 if fault is Fault.APPLIED else 1)
        assert scene.troubles[-1] is None


@BOTH
async def test_counts_of_live_keys_are_right_after_a_fault(
    scene: Scene, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.limits.IDEMPOTENCY_KEYS_PER_HANDLE_MAX", 2)
    async with scene.committing() as running:
        await committed(running.use("i0"))
        for _ in range(5):
            scene.store.fail_next(fault)
            await outcome_of(running.use("i1"))
        await outcome_of(running.use("i1"))
        await replayed(running.use("i1"))
        await refused(running.use("i2"), LimitExceeded)
    assert scene.outcomes().count("ok") == 2


@BOTH
async def test_a_counter_steps_once(scene: Scene, fault: Fault) -> None:
    step = CounterStep("ledger", None, b"one")
    async with scene.committing() as running:
        scene.store.fail_next(fault)
        await refused(running.use("i1", step=step), LogUnavailable)
        await outcome_of(running.use("i1", step=step))
        await refused(running.use("i2", step=step), Conflict)
    stored = scene.store.counter("k1", "ledger")
    assert scene.secrets.open_counter("k1", "ledger", stored) == b"one"
    assert scene.outcomes() == ["ok", "conflict"]


async def test_a_long_outage_refuses_and_ends(scene: Scene) -> None:
    async with scene.committing() as running:
        scene.store.down = True
        for _ in range(10):
            await refused(running.use("i1"), LogUnavailable)
        await not_changed(running.revoke("link"), LogUnavailable)
        scene.store.down = False
        await committed(running.use("i1"))
    assert scene.outcomes() == ["ok"]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([None, *Fault])), min_size=1, max_size=25)
)
def test_every_key_has_one_effect_whatever_fails(tries: list[tuple[int, Fault | None]]) -> None:
    """Who keeps asking under one key until there is an answer gets one effect and one record."""
    scene = Scene()
    asked = {f"i{number}" for number, _ in tries}

    async def play() -> None:
        async with scene.committing() as running:
            for number, fault in tries:
                if fault is not None:
                    scene.store.fail_next(fault)
                await outcome_of(running.use(f"i{number}", budgets=(("link", 99),)))
            for key in asked:
                await outcome_of(running.use(key, budgets=(("link", 99),)))

    asyncio.run(play())
    assert scene.outcomes() == ["ok"] * len(asked)
    assert scene.store.spent("link") == len(asked)
    assert {row.seq for row in scene.rows()} == set(range(len(asked)))


# --- changes -------------------------------------------------------------------------------------


@BOTH
async def test_a_change_that_fails_is_told(scene: Scene, fault: Fault) -> None:
    """A stop that was applied holds from then on, whatever its caller was told (I4)."""
    async with scene.committing() as running:
        scene.store.fail_next(fault)
        await not_changed(running.revoke(scene.grant.links[0]), LogUnavailable)
        outcome = await outcome_of(running.use(epoch=1))
        applied = fault is Fault.APPLIED
        assert isinstance(outcome, HandleRevoked if applied else Committed)
        await asyncio.sleep(0)
        revoked = scene.snapshots[-1].revoked if scene.snapshots else frozenset()
        assert (scene.grant.links[0] in revoked) == applied
    assert scene.load().epoch == (2 if applied else 1)


@BOTH
async def test_a_change_may_be_asked_for_again(scene: Scene, fault: Fault) -> None:
    async with scene.committing() as running:
        scene.store.fail_next(fault)
        await not_changed(
            running.change_key(lambda key: with_state(key, 1, State.SUSPENDED)), LogUnavailable
        )
        await changed(running.change_key(lambda key: with_state(key, 1, State.SUSPENDED)))
    snapshot = scene.load()
    assert snapshot.key("k1").version(1).state is State.SUSPENDED
    assert snapshot.epoch == snapshot.key("k1").revision == (3 if fault is Fault.APPLIED else 2)
    assert [body.seq for body in scene.log()] == list(range(len(scene.log())))


@BOTH
async def test_a_creation_that_was_applied_conflicts_when_repeated(
    scene: Scene, fault: Fault
) -> None:
    async with scene.committing() as running:
        scene.store.fail_next(fault)
        await not_changed(running.revoke("link"), LogUnavailable)
        if fault is Fault.APPLIED:
            await not_changed(running.revoke("link"), Conflict)
        else:
            await changed(running.revoke("link"))
    assert scene.load().revoked == {"link"}
    assert len(scene.rows()) == 1


# --- what was released already -------------------------------------------------------------------


async def release(running: Running, scene: Scene, *faults: Fault) -> "asyncio.Future[Outcome]":
    """A best-effort use whose answer is out, and whose first commit fails."""
    scene.store.fail_next(*faults)
    return running.submit(candidate=None, released=True)


async def test_a_released_use_is_recorded_later(scene: Scene) -> None:
    """By itself, without anyone else's commit."""
    async with scene.committing() as running:
        late = await release(running, scene, Fault.NOT_APPLIED, Fault.NOT_APPLIED)
        assert await until(late) == Committed(0, 1)
    assert scene.outcomes() == ["ok"]
    assert [type(trouble) for trouble in scene.troubles[:2]] == [LogUnavailable, LogUnavailable]
    assert scene.troubles[-1] is None


async def test_released_uses_are_not_told_of_the_failure(scene: Scene) -> None:
    """Their answers are out; those that wait in the same group are told."""
    async with scene.committing() as running:
        await running.hold()
        late = [running.submit(candidate=None, released=True) for _ in range(3)]
        use = running.use("i1")
        scene.store.fail_next(Fault.NOT_APPLIED, Fault.NOT_APPLIED)
        running.release()
        await refused(use, LogUnavailable)
        places = [await until(each) for each in late]
    assert [place.seq for place in places] == [0, 1, 2]
    assert scene.outcomes() == ["ok"] * 3


async def test_late_records_stand_before_later_uses(scene: Scene) -> None:
    async with scene.committing() as running:
        scene.store.down = True
        late = running.submit(candidate=None, released=True)
        await refused(running.use(), LogUnavailable)
        scene.store.down = False
        after = await committed(running.use())
        assert (await until(late)).seq < after.seq


async def test_late_records_stand_before_any_change(scene: Scene) -> None:
    """I4: a released use must not be recorded behind a revocation that came after it."""
    async with scene.committing() as running:
        scene.store.down = True
        late = running.submit(candidate=None, released=True)
        await refused(running.use(), LogUnavailable)
        scene.store.down = False
        place = await changed(running.revoke(scene.grant.links[0]))
        first = await until(late)
    assert (first.seq, first.epoch) == (0, 1)
    assert (place.seq, place.epoch) == (1, 2)


async def test_late_records_stand_before_a_change_that_waits_already(scene: Scene) -> None:
    async with scene.committing() as running:
        await running.hold()
        late = running.submit(candidate=None, released=True)
        change = running.revoke(scene.grant.links[0])
        scene.store.fail_next(Fault.NOT_APPLIED, Fault.NOT_APPLIED)
        running.release()
        assert await changed(change) == Committed(1, 2)
        assert await until(late) == Committed(0, 1)


async def test_late_records_stand_before_uses_that_wait_already(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.limits.COMMIT_GROUP_MAX", 1)
    async with scene.committing() as running:
        await running.hold()
        late = running.submit(candidate=None, released=True)
        use = running.use()
        scene.store.fail_next(Fault.NOT_APPLIED, Fault.NOT_APPLIED)
        running.release()
        assert await committed(use) == Committed(1, 1)
        assert await until(late) == Committed(0, 1)


async def test_a_change_fails_while_late_records_cannot_be_made(scene: Scene) -> None:
    async with scene.committing() as running:
        scene.store.down = True
        late = running.submit(candidate=None, released=True)
        await refused(running.use(), LogUnavailable)
        error = await not_changed(running.revoke(scene.grant.links[0]), LogUnavailable)
        assert error.hint
        scene.store.down = False
        await until(late)
    assert [body.op for body in scene.log()] == ["data.wrap"]
    assert scene.load().epoch == 1


async def test_a_released_use_is_never_lost_though_maybe_doubled(scene: Scene) -> None:
    """Applied but reported as failed: it is recorded again, under the same request."""
    async with scene.committing() as running:
        late = await release(running, scene, Fault.APPLIED)
        await until(late)
    requests = [body.request for body in scene.log()]
    assert requests == ["r1", "r1"]
    salts = {(row.salt, msgspec.json.decode(row.body or b"{}")["request"]) for row in scene.rows()}
    assert len(salts) == 1


async def test_late_records_outlive_a_tampered_registry(scene: Scene) -> None:
    """Another kind of failure in between does not lose them."""
    async with scene.committing() as running:
        scene.store.down = True
        late = running.submit(candidate=None, released=True)
        await refused(running.use(), LogUnavailable)
        good = scene.store.disk.tables
        scene.store.disk.tables = with_epoch(good, 5)
        scene.store.down = False
        await refused(running.use(epoch=1), StateRolledBack)
        scene.store.disk.tables = good
        assert await until(late) == Committed(0, 1)


@pytest.mark.parametrize("behind", ["a use", "a change", "nothing"])
async def test_late_records_outlive_a_fault_of_ours(scene: Scene, behind: str) -> None:
    """Also an error that nobody foresaw: what was answered must be recorded (I2)."""
    faults = 0

    def fall_over() -> None:
        nonlocal faults
        faults += 1
        raise RuntimeError("nobody foresaw this")

    async with scene.committing() as running:
        scene.store.down = True
        late = running.submit(candidate=None, released=True)
        await refused(running.use(), LogUnavailable)
        scene.store.before_commit = fall_over
        scene.store.down = False
        if behind == "a use":
            await refused(running.use(), InvariantViolation)
        elif behind == "a change":
            await not_changed(running.revoke("link"), LogUnavailable)
        await eventually(lambda: bool(faults))
        scene.store.before_commit = None
        await until(late)
    assert [body.op for body in scene.log()] == ["data.wrap"]


# --- a registry that is not what it was ----------------------------------------------------------


def with_epoch(tables: Tables, epoch: int) -> Tables:
    """Its epoch row altered, without the secrets to make a MAC."""
    assert tables.epoch is not None
    row = msgspec.structs.replace(tables.epoch, epoch=epoch)
    return msgspec.structs.replace(tables, epoch=row)


def rolled_back(scene: Scene, before: Tables) -> None:
    """An older copy of all authority, genuine in every bit, put under the running vault."""
    records = scene.store.disk.tables.records
    scene.store.disk.tables = msgspec.structs.replace(before, records=records)


async def test_a_forged_epoch_row_stops_uses_and_changes(scene: Scene) -> None:
    async with scene.committing() as running:
        await committed(running.use())
        scene.store.disk.tables = with_epoch(scene.store.disk.tables, 5)
        error = await refused(running.use(epoch=1), StateRolledBack)
        assert error.hint
        await not_changed(running.revoke("link"), StateRolledBack)
    assert len(scene.rows()) == 1


async def test_an_older_registry_under_a_running_vault_stops_it(scene: Scene) -> None:
    """I10: epochs only grow; what was revoked does not come back by an old copy."""
    async with scene.committing() as running:
        before = scene.store.disk.tables
        await changed(running.revoke(scene.grant.links[0]))
        rolled_back(scene, before)
        for _ in range(2):
            error = await refused(running.use(epoch=1), StateRolledBack)
            assert error.hint
            await not_changed(running.revoke("other"), StateRolledBack)
        await asyncio.sleep(0)
        assert {snapshot.epoch for snapshot in scene.snapshots} == {2}
    assert len(scene.rows()) == 1


async def test_a_deliver_that_raises_takes_no_answer_from_the_others(scene: Scene) -> None:
    async with scene.committing() as running:
        await running.hold()
        before, broken, behind = (running.use(f"i{number}") for number in range(3))
        broken.cancel()  # its result cannot be set: deliver raises
        running.release()
        assert (await committed(before)).seq < (await committed(behind)).seq
