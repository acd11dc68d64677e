"""What moves a rollout back: reports, refusals, errors. And what must not, whoever tries."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import msgspec
import pytest

from keystead.errors import CustodyUnavailable
from keystead.frames.messages import Answer
from keystead.keys.commands import IssuedHandle, IssueHandle, MoveVersion
from keystead.keys.framing.jwt import SignJwt
from keystead.keys.lifecycle import Move
from keystead.keys.model import Key, Version
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import ShowRollout
from keystead.keys.rollout.model import live
from keystead.keys.rollout.reports import Acknowledge, AcknowledgeResult, ReportResult
from keystead.ports import Custody, OpenKey
from keystead.testing.clocks import ManualClock
from keystead.testing.memory_store import Fault
from unit.vault.node import Node, all_of, check_done, check_refused, result_of
from unit.vault.rollouts import KEY, PLAN, Rolling

pytestmark = pytest.mark.anyio


@pytest.fixture
async def rolling() -> AsyncIterator[Rolling]:
    """A rollout at its canary, with some uses of both versions."""
    node = Node()
    async with node.serving():
        found = Rolling(node)
        await found.begin()
        await found.until("canary")
        yield found


async def ended(rolling: Rolling) -> tuple[str, list[str]]:
    """How the rollout stands after one round, and the states of its versions."""
    await rolling.tick()
    status = await rolling.status()
    return status.status, [share.state for share in status.versions]


def reported(answer: Answer) -> ReportResult:
    return result_of(answer, ReportResult)


# --- reports -------------------------------------------------------------------------------------


async def test_reports_of_two_principals_roll_back_within_one_round(rolling: Rolling) -> None:
    seq = await rolling.seq_of(2)
    for name in ("shop", "bank"):
        said = reported(await rolling.report(await rolling.reporter(name), seq))
        assert said == ReportResult(version=2, counted=True)
    assert await ended(rolling) == ("rolled_back", ["active", "suspended"])
    assert set((await rolling.uses()).values()) == {1}
    step = (await rolling.status()).steps[-1]
    assert [(f.gate, f.value, f.limit) for f in step.figures if f.verdict == "fail"] == [
        ("reporters", 2, 1)
    ]
    counters = rolling.node.built.standing.counters
    assert counters["rollout_failures", "reporters"] == 1


async def test_one_principal_counts_once_however_many_handles_and_reports(
    rolling: Rolling,
) -> None:
    first, second = await rolling.reporter("shop"), await rolling.reporter("shop")
    counted = [
        reported(await rolling.report(handle, await rolling.seq_of(2))).counted
        for handle in (first, first, second, second)
    ]
    assert counted == [True, False, False, False]
    assert (await ended(rolling))[0] == "running"


async def test_reports_survive_a_crash() -> None:
    node = Node()
    async with node.serving(orderly=False):
        rolling = Rolling(node)
        await rolling.begin()
        await rolling.until("canary")
        seq = await rolling.seq_of(2)
        for name in ("shop", "bank"):
            check_done(await rolling.report(await rolling.reporter(name), seq))
    again = node.after_restart()
    async with again.serving():
        assert (await ended(Rolling(again, rolling.handle)))[0] == "rolled_back"


async def test_a_thief_of_the_old_versions_handle_moves_nothing(rolling: Rolling) -> None:
    """The attack: uses of the old version by a stolen handle, and reports that they fail."""
    stolen = await rolling.narrowed("ci", Narrowing(versions=(1,)))
    use = rolling.node.use_of(stolen, SignJwt(claims={}), "jwt.sign", context="any/1", version=1)
    receipt = check_done(await rolling.node.ask(use)).receipt
    assert receipt is not None
    # It may not report at all,
    check_refused(await rolling.report(stolen, receipt.seq), "permission_denied")
    # and with two reporters' handles stolen, too, what they cite is of the old version,
    for name in ("shop", "bank", "mill"):
        handle = await rolling.reporter(name)
        assert reported(await rolling.report(handle, receipt.seq)).version == 1
    assert (await ended(rolling))[0] == "running"
    # or no use at all.
    handle = await rolling.reporter("fair")
    rows = rolling.node.store.records_from(0, 100_000)
    other = [row.seq for row in rows if row.version != 2 or row.outcome != "ok"]
    for seq in (*other, 10_000_000):
        answer = await rolling.report(handle, seq)
        if seq in other and rows[seq].op == "jwt.sign" and rows[seq].outcome == "ok":
            assert reported(answer).version == 1
        else:
            check_refused(answer, "not_found")
    assert (await ended(rolling))[0] == "running"


async def test_a_signing_handle_refused_by_the_new_version_counts_one_principal_only(
    rolling: Rolling,
) -> None:
    """Whoever attenuates a handle so that the new version refuses it has one voice."""
    for _ in range(3):
        handle = await rolling.narrowed("ci", Narrowing(versions=(1,)))
        for number in range(20):
            use = rolling.node.use_of(handle, SignJwt(claims={}), "jwt.sign", context=f"a/{number}")
            await rolling.node.ask(use)
    status = await rolling.status()
    assert {figure.gate: figure.value for figure in status.gates}["denied"] == 1
    assert (await ended(rolling))[0] == "running"


async def test_principals_that_the_new_algorithm_shuts_out_roll_it_back() -> None:
    node = Node()
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin(algorithm="ed25519")
        await rolling.until("canary")
        for name in ("shop", "bank"):
            narrowing = Narrowing(algorithms=("ecdsa-p256-sha256",))
            handle = await rolling.narrowed(name, narrowing)
            answers = [
                await node.ask(
                    node.use_of(handle, SignJwt(claims={}), "jwt.sign", context=f"any/{number}")
                )
                for number in range(20)
            ]
            codes = {getattr(answer, "code", "ok") for answer in answers}
            assert codes == {"ok", "algorithm_forbidden"}
        assert (await ended(rolling))[0] == "rolled_back"
        step = (await rolling.status()).steps[-1]
        assert [f.gate for f in step.figures if f.verdict == "fail"] == ["denied"]


async def test_a_report_needs_its_operation_and_names_its_own_key(rolling: Rolling) -> None:
    seq = await rolling.seq_of(2)
    check_refused(await rolling.report(rolling.handle, seq), "permission_denied")
    node = rolling.node
    await node.create("other", Purpose.TLS)
    command = IssueHandle(key="other", principal="shop", operations=("report",))
    foreign = result_of(await node.admin(command), IssuedHandle).token
    check_refused(await rolling.report(foreign, seq), "purpose_mismatch")


# --- the vault's own signals ---------------------------------------------------------------------


class BrokenFrom:
    """Custody whose versions from one on do not sign."""

    def __init__(self, inner: Custody, number: int) -> None:
        self._inner = inner
        self._number = number

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def open(self, key: Key, version: Version, sealed: bytes, tenant_key: bytes) -> OpenKey:
        if version.number >= self._number and key.name == KEY:
            raise CustodyUnavailable("the HSM does not answer")
        return self._inner.open(key, version, sealed, tenant_key)


async def test_errors_of_the_new_version_roll_back() -> None:
    node = Node()
    assert node.custody is not None
    broken = BrokenFrom(node.custody, 2)
    node.custody = broken  # type: ignore[assignment]  # it has all of custody by __getattr__
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin()
        await rolling.until("canary")
        answers = [await rolling.sign(f"any/{number}") for number in range(40)]
        assert {getattr(a, "code", "ok") for a in answers} == {"ok", "custody_unavailable"}
        assert await ended(rolling) == ("rolled_back", ["active", "suspended"])


async def test_mistakes_of_callers_are_no_errors_of_the_version(rolling: Rolling) -> None:
    for number in range(60):
        check_refused(await rolling.sign(f"any/{number}", facts=b"\x00"), "malformed_request")
    status = await rolling.status()
    assert {figure.gate: figure.verdict for figure in status.gates}["errors"] == "pass"
    assert (await ended(rolling))[0] == "running"


class SlowFrom(BrokenFrom):
    """Custody whose versions from one on take their time, as an HSM far away does."""

    def __init__(self, inner: Custody, number: int, clock: ManualClock) -> None:
        super().__init__(inner, number)
        self._clock = clock

    def open(self, key: Key, version: Version, sealed: bytes, tenant_key: bytes) -> OpenKey:
        opened = self._inner.open(key, version, sealed, tenant_key)
        slow = version.number >= self._number and key.name == KEY
        return cast("OpenKey", _Slow(opened, self._clock)) if slow else opened


class _Slow:
    def __init__(self, opened: OpenKey, clock: ManualClock) -> None:
        self._opened = opened
        self._clock = clock

    def sign(self, message: bytes, *, prehashed: bool) -> tuple[bytes, ...]:
        self._clock.advance(60)
        return self._opened.sign(message, prehashed=prehashed)

    def close(self) -> None:
        self._opened.close()


async def test_a_slow_new_version_rolls_back() -> None:
    node = Node()
    assert node.custody is not None
    slow = SlowFrom(node.custody, 2, node.clock)
    node.custody = slow  # type: ignore[assignment]  # it has all of custody by __getattr__
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin()
        await rolling.until("canary")
        await rolling.uses()
        status = await rolling.status()
        p99 = {figure.gate: figure for figure in status.gates}["p99"]
        assert p99.verdict == "fail", p99
        assert (await ended(rolling))[0] == "rolled_back"


async def test_waits_of_a_callers_own_making_do_not_count_as_slow(rolling: Rolling) -> None:
    """One holder of a handle sends a great batch: how long it waits says nothing of the version."""
    waiting = [rolling.node.begin(rolling.use_in("any/2")) for _ in range(500)]
    rolling.node.clock.advance(300)
    await all_of(waiting)
    status = await rolling.status()
    assert {figure.gate: figure.verdict for figure in status.gates}["p99"] != "fail"


async def test_a_commit_that_fails_is_no_error_of_the_version(rolling: Rolling) -> None:
    rolling.node.store.fail_next(Fault.NOT_APPLIED)
    waiting = [rolling.node.begin(rolling.use_in(f"any/{number}")) for number in range(60)]
    answers = await all_of(waiting)
    assert {getattr(answer, "code", "ok") for answer in answers} == {"log_unavailable"}
    assert (await ended(rolling))[0] == "running"


async def test_a_halted_incident_goes_on_once_a_person_says_so() -> None:
    """What was counted before says nothing of what follows; who reported may report again."""
    node = Node()
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin(incident=True)
        await rolling.until("canary")
        handles = [await rolling.reporter(name) for name in ("shop", "bank")]
        for handle in handles:
            check_done(await rolling.report(handle, await rolling.seq_of(2)))
        assert (await ended(rolling))[0] == "halted"
        check_done(await rolling.steer("resume", "the gateway was at fault"))
        node.clock.jump(-3_600_000)  # no clock decides what counts
        assert (await ended(rolling))[0] == "running"
        for handle in handles:
            check_done(await rolling.report(handle, await rolling.seq_of(2)))
        assert (await ended(rolling))[0] == "halted"


@pytest.mark.parametrize("move", [Move.SUSPEND, Move.COMPROMISE])
async def test_a_new_version_that_a_responder_stops_is_rolled_back(
    rolling: Rolling, move: Move
) -> None:
    stop = MoveVersion(name=KEY, move=move, version=2, reason="seen elsewhere")
    check_done(await rolling.node.admin(stop))
    assert (await ended(rolling))[0] == "rolled_back"
    assert set((await rolling.uses()).values()) == {1}


async def test_there_is_no_way_back_to_a_compromised_version(rolling: Rolling) -> None:
    stop = MoveVersion(name=KEY, move=Move.COMPROMISE, version=1, reason="stolen")
    check_done(await rolling.node.admin(stop))
    seq = None
    for number in range(60):
        answer = await rolling.sign(f"any/{number}")
        receipt = getattr(answer, "receipt", None)
        seq = receipt.seq if receipt is not None else seq
    for name in ("shop", "bank"):
        check_done(await rolling.report(await rolling.reporter(name), seq))
    assert (await ended(rolling))[0] == "halted"
    check_refused(await rolling.steer("roll_back"), "key_state")
    check_done(await rolling.steer("promote", "the other one is stolen"))
    assert set((await rolling.uses()).values()) == {2}


# --- acknowledgements ----------------------------------------------------------------------------


async def test_a_publication_waits_for_who_must_acknowledge_it() -> None:
    node = Node()
    async with node.serving():
        rolling = Rolling(node)
        asked = msgspec.structs.replace(PLAN.publish, acknowledged_by=("edge", "gateway"))
        plan = msgspec.structs.replace(PLAN, publish=asked)
        await rolling.begin(plan=plan)
        node.clock.advance(plan.publish.overlap_ms)
        kid = (await rolling.status()).versions[1].kid

        async def acknowledge(principal: str) -> None:
            handle = await rolling.reporter(principal)
            use = node.use_of(handle, Acknowledge(kid=kid), "jwt.acknowledge", context="edge")
            assert result_of(await node.ask(use), AcknowledgeResult).version == 2

        for principal in ("edge", "nobody"):
            await acknowledge(principal)
            await rolling.tick()
            assert (await rolling.status()).stage == "publish"
        await acknowledge("gateway")
        await rolling.tick()
        assert (await rolling.status()).stage == "canary"


async def test_what_failed_goes_back_also_while_the_steward_is_dead(rolling: Rolling) -> None:
    seq = await rolling.seq_of(2)
    for name in ("shop", "bank"):
        check_done(await rolling.report(await rolling.reporter(name), seq))
    rolling.node.clock.advance(10_000)  # without any round
    for _ in range(40):
        await asyncio.sleep(0.1)
        if (await rolling.status()).status != "running":
            break
    assert (await rolling.status()).status == "rolled_back"


async def test_nothing_goes_on_while_the_steward_is_dead(rolling: Rolling) -> None:
    await rolling.uses()
    rolling.node.clock.advance(PLAN.canary.length_ms)
    await asyncio.sleep(1.5)
    assert (await rolling.status()).stage == "canary"


async def test_an_acknowledgement_that_the_database_made_up_moves_nothing() -> None:
    node = Node()
    async with node.serving():
        rolling = Rolling(node)
        asked = msgspec.structs.replace(PLAN.publish, acknowledged_by=("edge",))
        await rolling.begin(plan=msgspec.structs.replace(PLAN, publish=asked))
        with node.store.transaction() as tx:
            at = (rolling.rotation().key_id, "acknowledged/2/edge")
            tx.put_counters({at: b"\0" * 32 + b"1"})
        node.clock.advance(PLAN.publish.overlap_ms)
        await rolling.tick()
        rollout = live(rolling.rotation())
        assert rollout is not None
        assert rollout.stage == "publish"
        check_refused(await node.admin(ShowRollout(name=KEY)), "state_rolled_back")
        check_refused(await rolling.sign("shop/1"), "state_rolled_back")
