"""Rollouts where they meet other parts: replays, logs, authorities, data, changed policies."""

from threading import Event

import msgspec
import pytest

from keystead.custody.software import SoftwareCustody
from keystead.errors import LogUnavailable
from keystead.frames.messages import Admin, Answer, Checkpoint
from keystead.keys.framing.ca import CaResult, CrlRequest, SignCa
from keystead.keys.framing.data import Derive, Unwrap, UnwrapResult, Wrap, WrapResult
from keystead.keys.model import CaPolicy, FirmwarePolicy, JwtPolicy, Key, Policy
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import ChangePolicy, RotateKey, SetPlan, SteerRollout
from keystead.keys.rollout.plan import DAY_MS, HOUR_MS, Drain, Publish, Schedule
from keystead.ports import Material
from unit.vault.node import Node, all_of, check_done, check_refused, result_of
from unit.vault.rollouts import KEY, PLAN, SECOND, Rolling, one_round

pytestmark = pytest.mark.anyio


async def moved_on(node: Node, name: str, until: str) -> None:
    """Have a person promote, and then wait as long as it takes."""
    node.clock.advance(PLAN.publish.overlap_ms)
    check_done(await node.admin(SteerRollout(name=name, move="promote", reason="test")))
    snapshot = node.built.standing.snapshot
    for _ in range(60):
        rollout = snapshot.rotations[snapshot.names[name]].rollout
        assert rollout is not None
        if rollout.stage == until:
            return
        node.clock.advance(60 * SECOND)
        await one_round(node)
        snapshot = node.built.standing.snapshot
    raise AssertionError(f"it did not come to {until}")


# --- data ----------------------------------------------------------------------------------------


async def test_a_repeated_derivation_gives_the_secret_of_the_version_that_gave_it_first() -> None:
    node = Node()
    async with node.serving():
        await node.create("cards", Purpose.DATA, plan=PLAN)
        handle = (await node.issue("cards")).token

        async def derive(key: str | None) -> tuple[int, bytes]:
            done = check_done(
                await node.ask(node.use_of(handle, Derive(length=32), "data.derive", key=key))
            )
            assert done.receipt is not None
            return done.receipt.version, done.result

        first = await derive("once")
        check_done(await node.admin(RotateKey(name="cards", reason="test")))
        await moved_on(node, "cards", "promote")
        assert await derive("once") == first
        other = await derive(None)
        assert other[0] == 2
        assert other[1] != first[1]


async def test_a_rollback_of_a_data_key_takes_no_data_away() -> None:
    node = Node()
    async with node.serving():
        await node.create("cards", Purpose.DATA, plan=PLAN)
        handle = (await node.issue("cards")).token
        check_done(await node.admin(RotateKey(name="cards", reason="test")))
        await moved_on(node, "cards", "promote")
        wrapped = result_of(
            await node.ask(node.use_of(handle, Wrap(plaintext=b"card"), "data.wrap")), WrapResult
        ).wrapped
        derived = check_done(
            await node.ask(node.use_of(handle, Derive(length=32), "data.derive", version=2))
        ).result
        check_done(await node.admin(SteerRollout(name="cards", move="roll_back", reason="test")))
        back = await node.ask(node.use_of(handle, Unwrap(wrapped=wrapped), "data.unwrap"))
        assert result_of(back, UnwrapResult).plaintext == b"card"
        again = node.use_of(handle, Derive(length=32), "data.derive", version=2)
        assert check_done(await node.ask(again)).result == derived
        new = node.use_of(handle, Wrap(plaintext=b"card"), "data.wrap", version=2)
        check_refused(await node.ask(new), "key_state")


# --- authorities ---------------------------------------------------------------------------------


async def test_an_authority_revokes_what_its_retired_version_issued() -> None:
    """A list is of the name and key that issued: no other version's is accepted in its place."""
    node = Node()
    async with node.serving():
        policy = Policy(
            ca=CaPolicy(common_name="Inner", dns_suffixes=("inner.example",), lifetime_max_s=60)
        )
        await node.create("inner", Purpose.CA, policy=policy, plan=PLAN)
        handle = (await node.issue("inner")).token
        check_done(await node.admin(RotateKey(name="inner", reason="test")))
        await moved_on(node, "inner", "promote")
        facts = SignCa(crl=CrlRequest(revoked=()))
        for version in (1, 2, 0):
            use = node.use_of(handle, facts, "ca.sign", version=version)
            assert result_of(await node.ask(use), CaResult).crl is not None


# --- the log's own key ---------------------------------------------------------------------------


async def test_a_logs_own_key_is_rotated_by_nobody_and_no_schedule() -> None:
    node = Node()
    async with node.serving():
        check_done(await node.ask(Checkpoint(node.next_id())))
        name = next(n for n in node.built.standing.snapshot.names if n.startswith("log."))
        plan = msgspec.structs.replace(PLAN, schedule=Schedule(every_ms=1))
        asked = SetPlan(name=name, plan=plan, weaker=True, reason="test")
        check_refused(await node.admin(asked), "malformed_request")
        check_refused(await node.admin(RotateKey(name=name, reason="test")), "malformed_request")


# --- changes while a version is made -------------------------------------------------------------


class HeldCustody(SoftwareCustody):
    """Custody that makes no version before it is told to."""

    gate: Event

    def generate(self, key: Key, number: int, algorithm: str, tenant_key: bytes) -> Material:
        if number > 1:
            self.gate.wait(20)
        return super().generate(key, number, algorithm, tenant_key)


def held(node: Node) -> Event:
    """Hold up the making of versions; gives what lets it go on."""
    custody = node.custody
    assert isinstance(custody, SoftwareCustody)
    custody.__class__ = HeldCustody
    gate = Event()
    custody.__dict__["gate"] = gate
    return gate


async def test_what_changes_while_a_version_is_made_counts() -> None:
    node = Node()
    gate = held(node)
    async with node.serving():
        rolling = Rolling(node)
        short = msgspec.structs.replace(PLAN, drain=Drain(length_ms=60 * SECOND))
        await rolling.make(short)
        asked = RotateKey(name=KEY, plan=short, reason="test")
        waiting = node.begin(Admin(node.next_id(), node.token, msgspec.msgpack.encode(asked)))
        longer = msgspec.structs.replace(PLAN, drain=Drain(length_ms=DAY_MS))
        check_done(await node.admin(SetPlan(name=KEY, plan=longer, reason="longer")))
        gate.set()
        (answer,) = await all_of([waiting])
        assert "drain" in check_refused(answer, "approval_required").message


async def test_a_round_whose_reading_fails_is_made_up_for() -> None:
    node = Node()
    async with node.serving():
        rolling = Rolling(node)
        await rolling.make(msgspec.structs.replace(PLAN, schedule=Schedule(every_ms=HOUR_MS)))
        node.clock.advance(HOUR_MS)
        tenant_key = node.store.tenant_key
        node.store.tenant_key = _down  # type: ignore[assignment]  # a store that is away
        await one_round(node)
        node.store.tenant_key = tenant_key  # type: ignore[method-assign]  # it is back
        for _ in range(50):
            await one_round(node)
            if (await rolling.status()).number == 1:
                break
        assert (await rolling.status()).stage == "publish"


def _down(_tenant: str) -> bytes | None:
    raise LogUnavailable("the store does not answer")


# --- weaker --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        ("dual-ecdsa-p256-ml-dsa-65", "ed25519", "weaker"),
        ("ml-dsa-65", "ecdsa-p256-sha256", "weaker"),
        ("ecdsa-p256-sha256", "ed25519", "neutral"),
        ("ecdsa-p256-sha256", "dual-ecdsa-p256-ml-dsa-65", "stronger"),
    ],
)
async def test_an_algorithm_that_holds_less_must_be_said_to_be_meant(
    before: str, after: str, direction: str
) -> None:
    node = Node()
    async with node.serving():
        policy = Policy(firmware=FirmwarePolicy(names=("app",)))
        await node.create("boot", Purpose.FIRMWARE, algorithm=before, plan=PLAN, policy=policy)
        asked = RotateKey(name="boot", algorithm=after, reason="test")
        answer = await node.admin(asked)
        if direction == "weaker":
            assert "algorithm" in check_refused(answer, "approval_required").message
            answer = await node.admin(msgspec.structs.replace(asked, weaker=True))
        check_done(answer)
        assert f"({direction})" in node.log("rollout.publish")[-1].detail


async def test_a_drain_outlasts_what_was_signed_under_a_longer_life() -> None:
    node = Node()
    async with node.serving():
        rolling = Rolling(node)
        slow = msgspec.structs.replace(
            PLAN, drain=Drain(length_ms=DAY_MS), publish=Publish(overlap_ms=10 * SECOND, cache_ms=0)
        )
        await rolling.make(slow)
        longer = Policy(jwt=JwtPolicy(issuer="https://id.example", lifetime_max_s=24 * 3600))
        check_done(await _changed(node, longer))
        await rolling.used("shop/1")
        shorter = Policy(jwt=JwtPolicy(issuer="https://id.example", lifetime_max_s=60))
        check_done(await _changed(node, shorter))
        quick = msgspec.structs.replace(slow, drain=Drain(length_ms=60 * SECOND))
        asked = RotateKey(name=KEY, plan=quick, weaker=True, reason="test")
        assert "drain.length" in check_refused(await node.admin(asked), "conflict").message
        node.clock.advance(DAY_MS - 60 * SECOND)
        check_done(await node.admin(asked))


async def _changed(node: Node, policy: Policy) -> Answer:
    return await node.admin(ChangePolicy(name=KEY, policy=policy, weaker=True, reason="test"))
