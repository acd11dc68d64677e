"""An emergency stop in a whole vault: nothing is used or started, and all that stops goes on."""

import asyncio
import threading

import msgspec
import pytest

from keystead import limits
from keystead.errors import PermissionDenied
from keystead.frames.messages import Admin, Checkpoint, Public, Status, StatusInfo, Use
from keystead.keys.commands import (
    Command,
    CreateKey,
    GoOn,
    IssueHandle,
    ListKeys,
    ListRecords,
    MoveVersion,
    RevokeKeyHandles,
)
from keystead.keys.framing.jwt import SignJwt
from keystead.keys.lifecycle import Move
from keystead.keys.model import JwtPolicy, Key, Policy, Principal
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import ListHistory, RotateKey
from keystead.keys.rollout.model import Stage
from keystead.keys.rollout.model import Status as RolloutStatus
from keystead.keys.stops import (
    EmergencyEnd,
    EmergencyInfo,
    EmergencyList,
    EmergencyStop,
    Revoke,
    ShowEmergency,
)
from unit.vault.node import CONTEXT, Node, check_done, check_refused, result_of
from unit.vault.rollouts import KEY, Rolling
from unit.vault.scene import eventually
from unit.vault.test_custody_uses import Slow, custody_of

pytestmark = pytest.mark.anyio
JWT = Policy(jwt=JwtPolicy(issuer="https://id.example"))
STOP = EmergencyStop(tenant="shop", reason="INC-1")
END = EmergencyEnd(tenant="shop", reason="over")
STOP_ALL = EmergencyStop(tenant=None, reason="INC-2")
END_ALL = EmergencyEnd(tenant=None, reason="over")


@pytest.fixture
def node() -> Node:
    return Node()


async def handles(node: Node) -> dict[str, str]:
    """A handle of a key of each of two tenants, by the tenant."""
    found: dict[str, str] = {}
    for tenant in ("shop", "bank"):
        await node.create(f"{tenant}-key", Purpose.JWT, tenant=tenant, policy=JWT)
        found[tenant] = (await node.issue(f"{tenant}-key")).token
    return found


def signing(node: Node, handle: str, key: str | None = None) -> Use:
    return node.use_of(handle, SignJwt(claims={}), "jwt.sign", key=key)


async def test_a_stopped_tenant_uses_nothing_until_it_is_ended(node: Node) -> None:
    async with node.serving():
        held = await handles(node)
        told = result_of(await node.admin(STOP), EmergencyInfo)
        assert (told.tenant, told.stopped, told.by, told.keys) == ("shop", True, "operator", 1)
        assert told.fence is not None
        assert told.fence.epoch == node.built.standing.snapshot.epoch
        refused = check_refused(await node.ask(signing(node, held["shop"])), "key_state")
        assert "emergency" in refused.message
        check_done(await node.ask(signing(node, held["bank"])))
        check_done(await node.admin(END))
        check_done(await node.ask(signing(node, held["shop"])))
    [stopped] = node.log("emergency.stop")
    [ended] = node.log("emergency.end")
    assert (stopped.tenant, stopped.reason, stopped.count) == ("shop", "INC-1", 1)
    assert stopped.detail == "stopped: tenant shop, 1 keys"
    assert ended.reason == "over"


async def test_everything_is_stopped_and_each_stop_is_ended_as_it_was_asked_for(node: Node) -> None:
    async with node.serving():
        held = await handles(node)
        check_done(await node.admin(STOP))
        check_done(await node.admin(STOP_ALL))
        check_refused(await node.admin(STOP_ALL), "conflict")
        for tenant in ("shop", "bank"):
            check_refused(await node.ask(signing(node, held[tenant])), "key_state")
        listed = result_of(await node.admin(ShowEmergency()), EmergencyList)
        assert [(stop.tenant, stop.keys) for stop in listed.stops] == [("*", 2), ("shop", 1)]
        check_done(await node.admin(END_ALL))
        check_refused(await node.ask(signing(node, held["shop"])), "key_state")
        check_done(await node.ask(signing(node, held["bank"])))
        check_refused(await node.admin(END_ALL), "conflict")
        check_done(await node.admin(END))
        check_done(await node.ask(signing(node, held["shop"])))
        assert result_of(await node.admin(ShowEmergency()), EmergencyList).stops == ()


async def test_a_use_that_is_on_its_way_to_the_commit_is_stopped_there(node: Node) -> None:
    """I4: admitted before the stop, behind it in the commit."""
    async with node.serving():
        held = await handles(node)
        release = node.hold()
        stop = node.begin(Admin(node.next_id(), node.token, msgspec.msgpack.encode(STOP)))
        use = node.begin(signing(node, held["shop"]))
        release()
        check_done(await stop)
        check_refused(await use, "key_state")
    [record] = node.log("jwt.sign")
    assert record.outcome == "key_state"
    assert not record.signed


async def test_no_stored_result_goes_out(node: Node) -> None:
    async with node.serving():
        held = await handles(node)
        first = check_done(await node.ask(signing(node, held["shop"], key="once")))
        check_done(await node.admin(STOP))
        check_refused(await node.ask(signing(node, held["shop"], key="once")), "key_state")
        check_done(await node.admin(END))
        again = check_done(await node.ask(signing(node, held["shop"], key="once")))
        assert again.result == first.result


async def test_best_effort_uses_stop_with_it(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS, tenant="shop", policy=Policy(ack="best_effort"))
        handle = (await node.issue("web")).token
        check_done(await node.ask(node.use_of(handle)))
        await eventually(lambda: len(node.log("reservation.open")) == 1)
        told = result_of(await node.admin(STOP), EmergencyInfo)
        assert told.best_effort is not None
        count = len(node.log("tls.sign"))
        for _ in range(3):
            check_refused(await node.ask(node.use_of(handle)), "key_state")
        assert {body.outcome for body in node.log("tls.sign")[count:]} == {"key_state"}


@pytest.mark.parametrize(
    "command",
    [
        CreateKey(name="new", purpose=Purpose.DATA, tenant="shop"),
        IssueHandle(key="shop-key", principal="ci"),
        RotateKey(name="shop-key", reason="x"),
        MoveVersion(name="shop-key", move=Move.RESUME, reason="x"),
    ],
)
@pytest.mark.parametrize("stop", [STOP, STOP_ALL])
async def test_nothing_is_started(node: Node, command: Command, stop: EmergencyStop) -> None:
    async with node.serving():
        await handles(node)
        suspend = MoveVersion(name="shop-key", move=Move.SUSPEND, reason="x")
        if isinstance(command, MoveVersion):
            check_done(await node.admin(suspend))
        check_done(await node.admin(stop))
        epoch = node.built.standing.snapshot.epoch
        refused = check_refused(await node.admin(command), "key_state")
        assert "emergency" in refused.message
        assert node.built.standing.snapshot.epoch == epoch


async def test_a_key_that_is_being_made_when_it_stops_is_not_there(node: Node) -> None:
    """Checked in the commit, too: the stop came between."""
    async with node.serving():
        await handles(node)
        release = node.hold()
        stop = node.begin(Admin(node.next_id(), node.token, msgspec.msgpack.encode(STOP)))
        issue = IssueHandle(key="shop-key", principal="ci")
        issued = node.begin(Admin(node.next_id(), node.token, msgspec.msgpack.encode(issue)))
        release()
        check_done(await stop)
        check_refused(await issued, "key_state")
    assert len(node.log("handle.issue")) == 3  # two handles, and one denial
    assert node.log("handle.issue")[-1].outcome == "key_state"


async def test_what_stops_shows_and_publishes_goes_on(node: Node) -> None:
    async with node.serving():
        await handles(node)
        check_done(await node.admin(STOP_ALL))
        for command in (
            MoveVersion(name="shop-key", move=Move.SUSPEND, reason="x"),
            Revoke(tenant="bank", state="compromised", reason="x"),
            RevokeKeyHandles(key="shop-key", reason="x"),
            ListKeys(),
            ListRecords(),
            ListHistory(kind="emergency"),
            GoOn(reason="x"),
        ):
            check_done(await node.admin(command))
        check_done(await node.ask(Public(node.next_id(), "jwks", "shop-key")))
        check_done(await node.ask(Checkpoint(node.next_id())))  # the log's own key signs on
        check_done(await node.ask(Public(node.next_id(), "deny.note", "bank-key")))


async def test_the_status_says_it_without_names_and_stays_ready(node: Node) -> None:
    async with node.serving():
        await handles(node)

        async def status() -> StatusInfo:
            return result_of(await node.ask(Status(node.next_id())), StatusInfo)

        assert "emergency" not in (await status()).protections
        check_done(await node.admin(STOP))
        told = await status()
        assert (told.ready, told.protections["emergency"]) == (True, "stopped: 1 tenant")
        gauges = {metric.name: metric.value for metric in told.metrics}
        assert gauges["keystead_vault_emergency_stops"] == 1.0
        changes = {m.labels["action"]: m.value for m in told.metrics if "action" in m.labels}
        assert changes["emergency.stop"] == 1.0
        check_done(await node.admin(STOP_ALL))
        assert (await status()).protections["emergency"] == "stopped: all tenants"


async def test_stops_get_through_a_full_queue(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async with node.serving():
        held = await handles(node)
        monkeypatch.setattr(limits, "VAULT_QUEUE_MAX", 0)
        check_refused(await node.ask(signing(node, held["shop"])), "overloaded")
        check_done(await node.admin(STOP))
        check_done(await node.admin(Revoke(tenant="bank", state="suspended", reason="x")))
        check_done(await node.admin(END))


async def test_it_is_still_in_force_after_a_restart(node: Node) -> None:
    async with node.serving():
        held = await handles(node)
        check_done(await node.admin(STOP))
    again = node.after_restart()
    async with again.serving():
        check_refused(await again.ask(signing(again, held["shop"])), "key_state")


async def test_ending_is_an_action_of_its_own_for_the_guard(node: Node) -> None:
    """A responder may stop, and not start."""

    class Responder:
        def decide(self, _principal: Principal, action: str, _target: Key | None) -> None:
            if action == "emergency.end":
                raise PermissionDenied("not yours")

    node.guard = Responder()
    async with node.serving():
        held = await handles(node)
        check_done(await node.admin(STOP))
        check_refused(await node.admin(END), "permission_denied")
        check_refused(await node.ask(signing(node, held["shop"])), "key_state")


@pytest.mark.parametrize(
    "command",
    [
        EmergencyStop(tenant=None, reason=""),
        EmergencyEnd(tenant=None, reason=""),
        EmergencyStop(tenant="*", reason="x"),
        EmergencyStop(tenant="", reason="x"),
        EmergencyEnd(tenant="No Name", reason="x"),
    ],
)
async def test_what_names_nobody_or_no_reason_is_refused(
    node: Node, command: EmergencyStop | EmergencyEnd
) -> None:
    async with node.serving():
        check_refused(await node.admin(command), "malformed_request")


async def test_history_says_which_way_each_went(node: Node) -> None:
    async with node.serving():
        await handles(node)
        check_done(await node.admin(STOP))
        check_done(await node.admin(END))
        page = msgspec.msgpack.decode(
            check_done(await node.admin(ListHistory(kind="emergency"))).result
        )
        ended, stopped = page["entries"]
        assert [d["direction"] for d in ended["differences"]] == ["weaker"]
        assert (ended["revision"], stopped["revision"]) == (2, 1)


async def test_a_rollout_does_not_go_on_and_may_go_back(node: Node) -> None:
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin()
        node.clock.advance(11_000)
        await rolling.tick()
        check_done(await node.admin(STOP_ALL))
        for _ in range(5):
            node.clock.advance(60_000)
            await rolling.tick()
        rollout = rolling.rotation().rollout
        assert rollout is not None
        assert (rollout.stage, rollout.status) == (Stage.CANARY, RolloutStatus.RUNNING)
        for move in ("promote",):
            check_refused(await rolling.steer(move), "key_state")
        check_done(await rolling.steer("pause"))
        check_refused(await rolling.steer("resume"), "key_state")
        check_done(await rolling.steer("roll_back"))
        rollout = rolling.rotation().rollout
        assert rollout is not None
        assert rollout.status is RolloutStatus.ROLLED_BACK
        check_refused(await rolling.sign(CONTEXT), "key_state")
        check_done(await node.admin(END_ALL))
        check_done(await rolling.sign(CONTEXT))


async def test_a_failed_rollout_goes_back_by_itself_in_an_emergency(node: Node) -> None:
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin()
        node.clock.advance(11_000)
        await rolling.tick()
        check_done(await node.admin(STOP_ALL))
        lost = Revoke(key=KEY, version=2, state="compromised", reason="leaked")
        check_done(await node.admin(lost))
        await rolling.tick()
        rollout = rolling.rotation().rollout
        assert rollout is not None
        assert rollout.status is RolloutStatus.ROLLED_BACK


async def test_a_rollouts_step_that_waits_for_the_disk_is_behind_the_stop(node: Node) -> None:
    """The round foresaw it before; the commit decides."""
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin()
        node.clock.advance(11_000)
        release = node.hold()
        stop = node.begin(Admin(node.next_id(), node.token, msgspec.msgpack.encode(STOP_ALL)))
        await node.tend()
        release()
        check_done(await stop)
        await rolling.tick()
        rollout = rolling.rotation().rollout
        assert rollout is not None
        assert rollout.stage is Stage.PUBLISH
        check_done(await node.admin(END_ALL))
        await rolling.tick()
        rollout = rolling.rotation().rollout
        assert rollout is not None
        assert rollout.stage is Stage.CANARY


async def test_a_best_effort_use_that_was_signed_aside_is_not_answered_behind_it() -> None:
    custody = custody_of(Slow)
    custody.gate = threading.Event()
    custody.gate.set()
    node = Node(custody=custody)
    async with node.serving():
        policy = Policy(ack="best_effort")
        await node.create("web", Purpose.TLS, policy=policy, algorithm="ml-dsa-44")
        handle = (await node.issue("web")).token
        check_done(await node.ask(node.use_of(handle)))
        await eventually(lambda: len(node.log("reservation.open")) == 1)
        await asyncio.sleep(0.02)
        custody.gate.clear()
        use = node.begin(node.use_of(handle))
        check_done(await node.admin(STOP_ALL))
        custody.gate.set()
        check_refused(await use, "key_state")
    assert [body.outcome for body in node.log("tls.sign")] == ["ok", "key_state"]
    assert [body.ack for body in node.log("tls.sign")] == ["durable", "durable"]
