"""Rollouts in a whole vault: by time, by hand, over restarts, on a clock of months."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from keystead.frames.messages import Answer, Public
from keystead.keys.commands import KeyInfo, MoveVersion, ShowKey
from keystead.keys.framing.base import Facts
from keystead.keys.framing.data import Derive, Unwrap, UnwrapResult, Wrap, WrapResult
from keystead.keys.lifecycle import Move
from keystead.keys.model import Policy
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import RolloutInfo, RotateKey, SetPlan
from keystead.keys.rollout.plan import DAY_MS, HOUR_MS, Publish, Schedule, default_plan
from unit.vault.node import Node, all_of, check_done, check_refused, result_of
from unit.vault.rollouts import KEY, PLAN, SECOND, Rolling, one_round

pytestmark = pytest.mark.anyio


@pytest.fixture
async def rolling() -> AsyncIterator[Rolling]:
    node = Node()
    async with node.serving():
        found = Rolling(node)
        await found.begin()
        yield found


async def shown(rolling: Rolling) -> KeyInfo:
    return result_of(await rolling.node.admin(ShowKey(name=KEY)), KeyInfo)


def steps(rolling: Rolling) -> list[str]:
    return [body.op for body in rolling.node.log() if body.op.startswith("rollout.")]


# --- by time -------------------------------------------------------------------------------------


async def test_a_rollout_goes_from_publish_to_retire_and_a_context_changes_sides_once(
    rolling: Rolling,
) -> None:
    seen: dict[str, list[int]] = {}
    shares = []
    for _ in range(6):
        for context, version in (await rolling.uses()).items():
            seen.setdefault(context, []).append(version)
        shares.append(sum(versions[-1] == 2 for versions in seen.values()))
        await rolling.pass_stage()
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0 < shares[1] < shares[2] < 40
    assert shares[3] == 40
    assert all(versions == sorted(versions) for versions in seen.values())
    status, key = await rolling.status(), await shown(rolling)
    assert (status.status, status.stage) == ("finished", "retire")
    assert [version.state for version in key.versions] == ["deactivated", "active"]
    assert key.primary == 2
    assert rolling.rotation().unpublished == (1,)
    assert steps(rolling) == [
        "rollout.publish",
        "rollout.canary",
        "rollout.ramp",
        "rollout.promote",
        "rollout.drain",
        "rollout.retire",
    ]


async def test_no_use_before_the_overlap_whatever_the_wall_clock_says(rolling: Rolling) -> None:
    rolling.node.clock.jump(30 * DAY_MS)
    await rolling.tick()
    assert (await rolling.status()).stage == "publish"
    refused = check_refused(await rolling.sign("shop/1", version=2), "key_state")
    assert "does no new work" in refused.message
    check_refused(await rolling.steer("promote"), "conflict")
    rolling.node.clock.advance(PLAN.publish.overlap_ms)
    await rolling.tick()
    assert (await rolling.status()).stage == "canary"


async def test_too_few_samples_hold_a_stage(rolling: Rolling) -> None:
    await rolling.until("canary")
    rolling.node.clock.advance(HOUR_MS)
    await rolling.tick()
    status = await rolling.status()
    assert status.stage == "canary"
    assert any("samples" in said for said in status.waits)


async def test_a_dead_steward_moves_nothing_and_its_return_moves_one_step_a_round(
    rolling: Rolling,
) -> None:
    await rolling.until("canary")
    before = await rolling.uses()
    rolling.node.clock.advance(HOUR_MS)
    assert await rolling.uses() == before
    await rolling.tick()
    assert (await rolling.status()).stage == "ramp"


async def test_the_default_plan_of_months_runs_on_a_simulated_clock() -> None:
    """The production plan through the real code: a quarter of a day at a time, twice."""
    node = Node()
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin(plan=None)
        first_use: dict[int, int] = {}
        published: dict[int, int] = {1: 0, 2: node.clock.now_ms()}
        plan = default_plan(node.built.standing.snapshot.named(KEY))
        plan = msgspec.structs.replace(plan, schedule=Schedule(every_ms=30 * DAY_MS))
        check_done(await node.admin(SetPlan(name=KEY, plan=plan, reason="each month")))
        for _ in range(4 * 70):
            for context in ("shop/1", "shop/2", "shop/3", "shop/4"):
                receipt = await rolling.used(context)
                first_use.setdefault(receipt.version, node.clock.now_ms())
            await rolling.tick()
            for version in (await shown(rolling)).versions:
                published.setdefault(version.number, node.clock.now_ms())
            node.clock.advance(6 * HOUR_MS)
            if (await rolling.status()).stage in {"canary", "ramp"}:
                for number in range(300):
                    await rolling.used(f"many/{number}")
        key = await shown(rolling)
        assert len(key.versions) >= 3
        for number, used_ms in first_use.items():
            if number > 1:
                assert used_ms - published[number] >= plan.publish.overlap_ms
        assert len({version.kid for version in key.versions}) == len(key.versions)


async def test_a_schedule_starts_a_rotation_after_so_many_uses() -> None:
    node = Node()
    async with node.serving():
        rolling = Rolling(node)
        plan = msgspec.structs.replace(PLAN, schedule=Schedule(uses=3))
        await rolling.make(plan)
        await rolling.uses(["shop/1", "shop/2"])
        await rolling.tick()
        assert (await rolling.status()).uses_left == 1
        await rolling.used("shop/1")
        status = await begun(rolling)
        assert (status.number, status.stage) == (1, "publish")
        assert "after 3 uses" in status.reason
        check_done(await rolling.steer("roll_back"))
        assert (await begun(rolling)).number == 1, "what went back is a person's to begin again"
        assert (await rolling.status()).uses_left == -1
        await rolling.rotate(plan=None)
        await rolling.until("retire")
        await rolling.tick()
        assert (await begun(rolling)).number == 3


async def begun(rolling: Rolling) -> RolloutInfo:
    """How it stands after some rounds, in which a version can be made."""
    for _ in range(10):
        await rolling.tick()
        await asyncio.sleep(0.01)
    return await rolling.status()


# --- by hand -------------------------------------------------------------------------------------


async def test_a_pause_stops_the_time_and_each_hand_move_is_a_record_with_its_reason(
    rolling: Rolling,
) -> None:
    await rolling.until("canary")
    await rolling.uses()
    check_done(await rolling.steer("pause", "lunch"))
    rolling.node.clock.advance(HOUR_MS)
    await rolling.tick()
    assert (await rolling.status()).stage == "canary"
    check_refused(await rolling.steer("pause"), "conflict")
    check_done(await rolling.steer("resume", "back"))
    await rolling.tick()
    assert (await rolling.status()).stage == "canary"
    rolling.node.clock.advance(PLAN.canary.length_ms)
    await rolling.tick()
    assert (await rolling.status()).stage == "ramp"
    said = {body.op: (body.principal, body.reason) for body in rolling.node.log()}
    assert said["rollout.paused"] == ("operator", "lunch")
    assert said["rollout.resumed"] == ("operator", "back")


async def test_a_move_without_a_reason_is_refused(rolling: Rolling) -> None:
    check_refused(await rolling.steer("pause", ""), "malformed_request")


async def test_a_promotion_by_hand_skips_the_ramp(rolling: Rolling) -> None:
    await rolling.until("canary")
    check_done(await rolling.steer("promote"))
    assert set((await rolling.uses()).values()) == {2}


async def test_a_roll_back_suspends_the_new_version_for_good(rolling: Rolling) -> None:
    await rolling.until("promote")
    check_done(await rolling.steer("roll_back", "customers complain"))
    key = await shown(rolling)
    assert [version.state for version in key.versions] == ["active", "suspended"]
    assert set((await rolling.uses()).values()) == {1}
    check_refused(await rolling.sign("shop/1", version=2), "key_state")
    after = await rolling.rotate()
    assert [version.number for version in after.versions] == [1, 2, 3]


async def test_an_abort_before_the_first_use_destroys_what_was_made(rolling: Rolling) -> None:
    check_done(await rolling.steer("roll_back", "wrong algorithm"))
    key = await shown(rolling)
    assert key.versions[1].state == "destroyed"
    assert rolling.node.store.material(key.id, 2) is None


async def test_one_rollout_at_a_time(rolling: Rolling) -> None:
    check_refused(
        await rolling.node.admin(RotateKey(name=KEY, plan=PLAN, reason="again")), "conflict"
    )


async def test_uses_that_are_under_way_at_a_roll_back_are_done_by_the_previous_version(
    rolling: Rolling,
) -> None:
    await rolling.until("ramp")
    sides = await rolling.uses()
    canaries = [context for context, version in sides.items() if version == 2]
    node = rolling.node
    release = node.hold()
    first = node.begin(rolling.use_in("shop/1"))
    back = node.begin(rolling.steering("roll_back"))
    waiting = [node.begin(rolling.use_in(context)) for context in canaries]
    release()
    answers = await all_of([first, back, *waiting])
    receipts = [check_done(answer).receipt for answer in answers]
    assert {receipt.version for receipt in receipts[2:] if receipt} == {1}


async def test_a_kept_answer_of_a_version_that_was_rolled_back_is_not_given_again(
    rolling: Rolling,
) -> None:
    await rolling.until("promote")
    first = check_done(await rolling.sign("shop/1", idempotency_key="once"))
    again = check_done(await rolling.sign("shop/1", idempotency_key="once"))
    assert again.result == first.result
    check_done(await rolling.steer("roll_back"))
    refused = check_refused(await rolling.sign("shop/1", idempotency_key="once"), "key_state")
    assert "new idempotency key" in refused.hint
    check_done(await rolling.sign("shop/1", idempotency_key="twice"))


async def test_a_kept_answer_of_the_previous_version_is_given_again_after_the_promotion(
    rolling: Rolling,
) -> None:
    first = check_done(await rolling.sign("shop/1", idempotency_key="once"))
    await rolling.until("retire")
    again = check_done(await rolling.sign("shop/1", idempotency_key="once"))
    assert again.result == first.result


# --- incidents -----------------------------------------------------------------------------------


async def test_an_incident_rotation_never_goes_back() -> None:
    node = Node()
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin(incident=True)
        await rolling.until("canary")
        check_refused(await rolling.steer("roll_back"), "conflict")
        check_done(
            await node.admin(MoveVersion(name=KEY, move=Move.SUSPEND, version=2, reason="it leaks"))
        )
        await rolling.tick()
        status = await rolling.status()
        assert (status.status, status.stage) == ("halted", "canary")
        await rolling.tick()
        assert steps(rolling)[-1] == "rollout.halted"
        assert steps(rolling).count("rollout.halted") == 1
        key = await rolling.rotate(incident=True)
        assert (key.primary, len(key.versions)) == (1, 3)
        await rolling.until("retire")
        assert (await shown(rolling)).primary == 3


# --- restarts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["publish", "canary", "ramp", "promote", "drain"])
async def test_a_rollout_goes_on_after_a_crash(stage: str) -> None:
    node = Node()
    async with node.serving(orderly=False):
        rolling = Rolling(node)
        await rolling.begin()
        await rolling.until(stage)
        before = await rolling.uses()
    again = node.after_restart()
    async with again.serving():
        rolling = Rolling(again, rolling.handle)
        assert await rolling.uses() == before
        await rolling.until("retire")
        assert (await rolling.status()).status == "finished"


async def test_after_a_restart_what_was_counted_is_gone_and_the_stage_is_held() -> None:
    node = Node()
    async with node.serving(orderly=False):
        rolling = Rolling(node)
        await rolling.begin()
        await rolling.until("canary")
        await rolling.uses()
    again = node.after_restart()
    async with again.serving():
        rolling = Rolling(again, rolling.handle)
        again.clock.advance(PLAN.canary.length_ms)
        await rolling.tick()
        assert (await rolling.status()).stage == "canary"


# --- other purposes ------------------------------------------------------------------------------


async def test_what_an_older_version_of_a_data_key_made_is_given_again() -> None:
    node = Node()
    async with node.serving():
        name = "cards"
        await node.create(name, Purpose.DATA, plan=PLAN)
        handle = (await node.issue(name)).token

        async def ask(facts: Facts, operation: str, version: int = 0) -> Answer:
            return await node.ask(node.use_of(handle, facts, f"data.{operation}", version=version))

        wrapped = result_of(await ask(Wrap(plaintext=b"card"), "wrap"), WrapResult).wrapped
        secret = check_done(await ask(Derive(length=32), "derive")).result
        check_done(await node.admin(RotateKey(name=name, plan=PLAN, reason="test")))
        for _ in range(8):
            node.clock.advance(60 * SECOND)
            for number in range(40):
                check_done(
                    await node.ask(
                        node.use_of(
                            handle, Wrap(plaintext=b"x"), "data.wrap", context=f"c/{number}"
                        )
                    )
                )
            await one_round(node)
        key = result_of(await node.admin(ShowKey(name=name)), KeyInfo)
        assert [version.state for version in key.versions] == ["deactivated", "active"]
        assert result_of(await ask(Unwrap(wrapped=wrapped), "unwrap"), UnwrapResult).plaintext == (
            b"card"
        )
        assert check_done(await ask(Derive(length=32), "derive", 1)).result == secret
        assert check_done(await ask(Derive(length=32), "derive")).result != secret
        again = result_of(await ask(Wrap(plaintext=b"card"), "wrap"), WrapResult).wrapped
        assert again != wrapped
        check_refused(await ask(Wrap(plaintext=b"card"), "wrap", 1), "key_state")


async def test_an_endpoint_names_its_version_until_the_old_one_is_retired() -> None:
    """For TLS the certificate decides: the rollout moves endpoints, not uses."""
    node = Node()
    async with node.serving():
        name = "web"
        await node.create(name, Purpose.TLS, policy=Policy(ack="best_effort"), plan=PLAN)
        handle = (await node.issue(name)).token
        check_done(await node.admin(RotateKey(name=name, plan=PLAN, reason="test")))

        async def version(asked: int) -> int:
            answer = check_done(await node.ask(node.use_of(handle, version=asked)))
            assert answer.receipt is not None
            return answer.receipt.version

        check_refused(await node.ask(node.use_of(handle, version=2)), "key_state")
        node.clock.advance(PLAN.publish.overlap_ms)
        await one_round(node)
        assert [await version(0), await version(1), await version(2)] == [1, 1, 2]
        for _ in range(4):
            for _ in range(5):
                await version(1)
                await version(2)
            node.clock.advance(60 * SECOND)
            await one_round(node)
        assert await version(0) == 2
        check_refused(await node.ask(node.use_of(handle, version=1)), "key_state")


async def test_the_key_of_a_log_is_not_rotated(rolling: Rolling) -> None:
    await rolling.node.tend()
    names = rolling.node.built.standing.snapshot.names
    log = [name for name in names if name.startswith("log.")]
    for name in log:
        check_refused(
            await rolling.node.admin(RotateKey(name=name, reason="test")), "malformed_request"
        )


async def test_a_plan_that_is_none_for_the_key_is_refused(rolling: Rolling) -> None:
    check_done(await rolling.steer("roll_back"))
    short = msgspec.structs.replace(PLAN, publish=Publish(overlap_ms=SECOND, cache_ms=2 * SECOND))
    refused = check_refused(
        await rolling.node.admin(RotateKey(name=KEY, plan=short, reason="test")),
        "malformed_request",
    )
    assert "at least publish.cache" in refused.message


async def test_an_overlap_outlasts_what_readers_were_told_before_it_began() -> None:
    """Who fetched just before knows the old plan's cache, not the rollout's (I12)."""
    node = Node()
    async with node.serving():
        await node.create(KEY, Purpose.TLS)
        asked = RotateKey(name=KEY, plan=PLAN, weaker=True, reason="test")
        refused = check_refused(await node.admin(asked), "conflict")
        assert "at least 300 s" in refused.message
        check_done(await node.admin(SetPlan(name=KEY, plan=PLAN, weaker=True, reason="test")))
        node.clock.advance(280 * SECOND)
        assert "at least 20 s" in check_refused(await node.admin(asked), "conflict").message
        node.clock.advance(15 * SECOND)
        check_done(await node.admin(asked))


async def test_an_incident_waits_for_readers_and_for_nobody_else() -> None:
    node = Node()
    async with node.serving():
        slow = msgspec.structs.replace(
            PLAN, publish=Publish(overlap_ms=DAY_MS, cache_ms=2 * HOUR_MS)
        )
        rolling = Rolling(node)
        await rolling.begin(plan=slow)
        check_done(await rolling.steer("roll_back"))
        await rolling.rotate(plan=None, incident=True)
        status = await rolling.status()
        assert status.due_ms - status.now_ms == 2 * HOUR_MS


async def test_a_version_that_was_rolled_back_is_published_for_one_drain_more(
    rolling: Rolling,
) -> None:
    """What it has signed verifies as long as it is good; then nobody meets it any more."""
    await rolling.until("promote")
    check_done(await rolling.steer("roll_back"))
    kid = (await shown(rolling)).versions[1].kid

    async def kids() -> list[str]:
        done = check_done(await rolling.node.ask(Public(rolling.node.next_id(), "jwks", KEY)))
        _, document = msgspec.msgpack.decode(done.result)
        return [item["kid"] for item in msgspec.json.decode(document)["keys"]]

    assert kid in await kids()
    rolling.node.clock.advance(PLAN.drain.length_ms - 1)
    assert kid in await kids()
    rolling.node.clock.advance(1)
    assert kid not in await kids()
    assert [share.published for share in (await rolling.status()).versions] == [True, False]


async def test_a_weaker_plan_for_one_rollout_must_be_said_to_be_meant(rolling: Rolling) -> None:
    check_done(await rolling.steer("roll_back"))
    gates = msgspec.structs.replace(PLAN.gates, reporters=9)
    weaker = msgspec.structs.replace(PLAN, gates=gates, schedule=Schedule())
    asked = RotateKey(name=KEY, plan=weaker, reason="test")
    refused = check_refused(await rolling.node.admin(asked), "approval_required")
    assert "gates.reporters" in refused.message
    check_done(await rolling.node.admin(msgspec.structs.replace(asked, weaker=True)))
    assert "gates.reporters: 1 -> 9 (weaker)" in rolling.node.log("rollout.publish")[-1].detail
