"""Revocations of many keys in one commit, their dry run, and what the answer tells."""

import asyncio

import msgspec
import pytest

from keystead import limits
from keystead.errors import PermissionDenied
from keystead.frames.messages import Admin, Use
from keystead.keys.commands import KeyInfo, MoveVersion, ShowKey
from keystead.keys.framing.jwt import SignJwt
from keystead.keys.lifecycle import Move
from keystead.keys.model import JwtPolicy, Key, Policy, Principal
from keystead.keys.purposes import Purpose
from keystead.keys.reservations import BOUND_MS
from keystead.keys.rollout.commands import ListHistory
from keystead.keys.rollout.model import Stage, Status
from keystead.keys.rollout.plan import Schedule
from keystead.keys.stops import Previewed, PreviewRevoke, Revoke, Revoked, What
from keystead.testing.memory_store import Fault
from unit.vault.node import CONTEXT, Node, check_done, check_refused, result_of
from unit.vault.rollouts import PLAN, Rolling

pytestmark = pytest.mark.anyio
JWT = Policy(jwt=JwtPolicy(issuer="https://id.example"))
SHOP = Revoke(tenant="shop", state="compromised", reason="INC-1")


@pytest.fixture
def node() -> Node:
    return Node()


async def keys(node: Node) -> dict[str, str]:
    """Three keys of the shop, one of the bank; name to a handle."""
    found: dict[str, str] = {}
    for name, purpose, tenant, labels in (
        ("shop-a", Purpose.JWT, "shop", {"env": "live", "service": "till"}),
        ("shop-b", Purpose.DATA, "shop", {"env": "test"}),
        ("shop-c", Purpose.JWT, "shop", {"env": "live"}),
        ("bank-a", Purpose.JWT, "bank", {"env": "live"}),
    ):
        policy = JWT if purpose is Purpose.JWT else Policy()
        await node.create(name, purpose, tenant=tenant, labels=labels, policy=policy)
        found[name] = (await node.issue(name)).token
    return found


def signing(node: Node, handle: str, key: str | None = None) -> Use:
    return node.use_of(handle, SignJwt(claims={}), "jwt.sign", key=key)


async def revoked(node: Node, command: Revoke) -> Revoked:
    return result_of(await node.admin(command), Revoked)


async def previewed(node: Node, **fields: object) -> Previewed:
    command = msgspec.structs.replace(PreviewRevoke(state="compromised"), **fields)
    return result_of(await node.admin(command), Previewed)


# --- many at once --------------------------------------------------------------------------------


async def test_a_tenant_is_stopped_in_one_commit_under_one_epoch(node: Node) -> None:
    async with node.serving():
        handles = await keys(node)
        before, commits = node.built.standing.snapshot.epoch, node.built.committer.commits
        told = await revoked(node, SHOP)
        assert node.built.standing.snapshot.epoch == before + 1 == told.fence.epoch
        assert node.built.committer.commits == commits + 1
        assert [key.name for key in told.keys] == ["shop-a", "shop-b", "shop-c"]
        assert {key.states[1] for key in told.keys} == {"compromised"}
        check_refused(await node.ask(signing(node, handles["shop-a"])), "key_state")
        check_done(await node.ask(signing(node, handles["bank-a"])))
    records = node.log("revoke")
    assert [(body.name, body.tenant, body.epoch, body.reason) for body in records] == [
        (name, "shop", before + 1, "INC-1") for name in ("shop-a", "shop-b", "shop-c")
    ]
    assert {body.detail for body in records} == {"version 1 compromised; chosen by tenant shop"}
    assert told.fence.seq == records[0].seq
    assert records[0].principal == "operator"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"purpose": Purpose.JWT}, ["bank-a", "shop-a", "shop-c"]),
        ({"purpose": Purpose.JWT, "tenant": "shop"}, ["shop-a", "shop-c"]),
        ({"labels": {"env": "live"}}, ["bank-a", "shop-a", "shop-c"]),
        ({"labels": {"env": "live", "service": "till"}}, ["shop-a"]),
        ({"labels": {"env": "live"}, "tenant": "bank"}, ["bank-a"]),
        ({"key": "shop-b"}, ["shop-b"]),
        ({"key": "shop-b", "version": 1}, ["shop-b"]),
    ],
)
@pytest.mark.parametrize("what", ["versions", "handles"])
async def test_keys_are_chosen_in_every_way(
    node: Node, choice: dict[str, object], names: list[str], what: What
) -> None:
    if what == "handles" and "version" in choice:
        return
    command = Revoke(reason="x", what=what, state=None if what == "handles" else "suspended")
    command = msgspec.structs.replace(command, **choice)
    async with node.serving():
        handles = await keys(node)
        told = await revoked(node, command)
        assert [key.name for key in told.keys] == names
        code = "handle_revoked" if what == "handles" else "key_state"
        for name in set(names) - {"shop-b"}:
            check_refused(await node.ask(signing(node, handles[name])), code)
        for name in set(handles) - set(names) - {"shop-b"}:
            check_done(await node.ask(signing(node, handles[name])))


async def test_hundreds_of_keys_stop_at_once_and_their_history_is_whole(node: Node) -> None:
    count = 300
    async with node.serving():
        await node.create("first", Purpose.DATA, tenant="shop")  # makes the tenant's own key
        await asyncio.gather(
            *(node.create(f"k{n:03}", Purpose.DATA, tenant="shop") for n in range(count))
        )
        told = await revoked(node, SHOP)
        assert len(told.keys) == count + 1
        seen: list[str] = []
        before = None
        while True:
            page = msgspec.msgpack.decode(
                check_done(await node.admin(ListHistory(kind="key", before=before, limit=7))).result
            )
            seen += [e["name"] for e in page["entries"] if e["epoch"] == told.fence.epoch]
            if page["end"]:
                break
            before = page["next"]
        assert sorted(seen) == ["first", *(f"k{n:03}" for n in range(count))]


async def test_more_than_one_commit_takes_are_refused_and_nothing_changes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REVOKE_KEYS_MAX", 2)
    async with node.serving():
        handles = await keys(node)
        refusal = check_refused(await node.admin(SHOP), "limit_exceeded")
        assert "3 keys" in refusal.message
        assert "--label" in refusal.hint
        check_done(await node.ask(signing(node, handles["shop-a"])))


async def test_a_failed_commit_stops_none_and_a_lost_one_all(node: Node) -> None:
    async with node.serving():
        handles = await keys(node)
        node.store.fail_next(Fault.NOT_APPLIED)
        check_refused(await node.admin(SHOP), "log_unavailable")
        check_done(await node.ask(signing(node, handles["shop-a"])))
        node.store.fail_next(Fault.APPLIED)
        check_refused(await node.admin(SHOP), "log_unavailable")
        for name in ("shop-a", "shop-c"):
            check_refused(await node.ask(signing(node, handles[name])), "key_state")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Revoke(reason="x", state="suspended"), "malformed_request"),
        (Revoke(reason="", tenant="shop", state="suspended"), "malformed_request"),
        (Revoke(reason="x", tenant="shop"), "malformed_request"),
        (Revoke(reason="x", tenant="shop", key="shop-a", state="suspended"), "malformed_request"),
        (Revoke(reason="x", key="shop-a", what="handles", version=1), "malformed_request"),
        (Revoke(reason="x", handle="h" + "0" * 24, state="suspended"), "malformed_request"),
        (Revoke(reason="x", handle="zz", what="handles"), "malformed_request"),
        (Revoke(reason="x", handle="h" + "0" * 24, what="handles"), "not_found"),
        (Revoke(reason="x", tenant="nobody", state="suspended"), "not_found"),
        (Revoke(reason="x", key="nothing", state="suspended"), "not_found"),
        (Revoke(reason="x", key="shop-a", version=9, state="suspended"), "not_found"),
        (Revoke(reason="x", labels={"env": "none"}, what="handles"), "not_found"),
    ],
)
async def test_what_cannot_be_revoked_is_refused(node: Node, command: Revoke, code: str) -> None:
    async with node.serving():
        await keys(node)
        epoch = node.built.standing.snapshot.epoch
        check_refused(await node.admin(command), code)
        assert node.built.standing.snapshot.epoch == epoch


async def test_every_chosen_key_is_the_guards_to_decide(node: Node) -> None:
    class OneKey:
        def decide(self, _principal: Principal, action: str, target: Key | None) -> None:
            if action == "revoke" and target is not None and target.name == "shop-b":
                raise PermissionDenied("not shop-b")

    node.guard = OneKey()
    async with node.serving():
        handles = await keys(node)
        check_refused(await node.admin(SHOP), "permission_denied")
        check_done(await node.ask(signing(node, handles["shop-a"])))
        await revoked(node, msgspec.structs.replace(SHOP, tenant=None, key="shop-a"))


# --- what comes back, and what does not ----------------------------------------------------------


async def test_suspended_comes_back_and_compromised_does_not(node: Node) -> None:
    async with node.serving():
        handles = await keys(node)
        await revoked(node, msgspec.structs.replace(SHOP, state="suspended"))
        resume = MoveVersion(name="shop-a", move=Move.RESUME, reason="closed")
        check_done(await node.admin(resume))
        check_done(await node.ask(signing(node, handles["shop-a"])))
        told = await revoked(node, SHOP)
        assert len(told.keys) == 3  # the suspended ones, too
        check_refused(await node.admin(resume), "key_state")
        check_refused(await node.admin(SHOP), "key_state")  # nothing is left to stop
        info = result_of(await node.admin(ShowKey(name="shop-a")), KeyInfo)
        assert info.versions[0].compromised_epoch == told.fence.epoch


async def test_keys_that_are_stopped_already_are_left_out(node: Node) -> None:
    async with node.serving():
        await keys(node)
        only = Revoke(key="shop-a", state="compromised", reason="first")
        await revoked(node, only)
        told = await revoked(node, SHOP)
        assert [key.name for key in told.keys] == ["shop-b", "shop-c"]


async def test_a_stored_answer_is_not_given_out_again(node: Node) -> None:
    async with node.serving():
        handles = await keys(node)
        check_done(await node.ask(signing(node, handles["shop-a"], key="once")))
        await revoked(node, msgspec.structs.replace(SHOP, what="handles", state=None))
        again = await node.ask(signing(node, handles["shop-a"], key="once"))
        check_refused(again, "handle_revoked")


async def test_a_revocation_repeated_has_one_effect_and_its_first_place(node: Node) -> None:
    async with node.serving():
        await keys(node)
        command = msgspec.msgpack.encode(SHOP)
        first = check_done(await node.ask(Admin(node.next_id(), node.token, command, "once")))
        again = check_done(await node.ask(Admin(node.next_id(), node.token, command, "once")))
        one, two = (msgspec.msgpack.decode(d.result, type=Revoked) for d in (first, again))
        assert one.keys == two.keys
        assert (one.fence.seq, one.fence.epoch) == (two.fence.seq, two.fence.epoch)
        assert one.fence.commit_ms is not None
        assert two.fence.commit_ms is None
        assert len(node.log("revoke")) == 3


# --- handles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["id", "link"])
async def test_a_handle_is_revoked_by_its_id_or_link_with_its_children(node: Node, by: str) -> None:
    async with node.serving():
        await keys(node)
        lost, kept = await node.issue("shop-a"), await node.issue("shop-a")
        named = lost.handle_id if by == "id" else lost.link
        told = await revoked(node, Revoke(handle=named, what="handles", reason="lost"))
        assert told.revoked == named
        check_refused(await node.ask(signing(node, lost.token)), "handle_revoked")
        check_done(await node.ask(signing(node, kept.token)))
        again = await node.admin(Revoke(handle=named, what="handles", reason="lost"))
        check_refused(again, "conflict")
    [record, denied] = node.log("revoke")
    assert denied.outcome == "conflict"
    assert (record.handle, record.link) == ((named, "") if by == "id" else ("", named))
    assert record.reason == "lost"


async def test_a_revoked_handle_stays_so_after_a_restart(node: Node) -> None:
    async with node.serving():
        await keys(node)
        lost = await node.issue("shop-a")
        await revoked(node, Revoke(handle=lost.handle_id, what="handles", reason="lost"))
    again = node.after_restart()
    async with again.serving():
        check_refused(await again.ask(signing(again, lost.token)), "handle_revoked")


# --- rollouts ------------------------------------------------------------------------------------


async def test_suspending_a_key_pauses_the_rollout_that_would_start_it(node: Node) -> None:
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin()
        told = await revoked(node, Revoke(key="tokens", state="suspended", reason="odd"))
        assert told.keys[0].rollout == 1
        rollout = rolling.rotation().rollout
        assert rollout is not None
        assert rollout.status is Status.PAUSED
        node.clock.advance(3_600_000)
        await rolling.tick()
        check_refused(await rolling.sign(CONTEXT), "key_state")
        [record] = node.log("revoke")
        assert "rollout 1 paused" in record.detail
        resume = MoveVersion(name="tokens", move=Move.RESUME, reason="closed")
        check_done(await node.admin(resume))
        check_done(await rolling.steer("resume"))
        node.clock.advance(20_000)
        await rolling.tick()
        rollout = rolling.rotation().rollout
        assert rollout is not None
        assert rollout.stage is Stage.CANARY


async def test_compromising_a_key_in_a_rollout_halts_it(node: Node) -> None:
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin()
        node.clock.advance(20_000)
        await rolling.tick()
        await revoked(node, Revoke(key="tokens", state="compromised", reason="leaked"))
        await rolling.tick()
        rollout = rolling.rotation().rollout
        assert rollout is not None
        assert rollout.status is Status.HALTED
        check_refused(await rolling.sign(CONTEXT), "key_state")


async def test_compromising_the_old_version_lets_its_rollout_go_on(node: Node) -> None:
    async with node.serving():
        rolling = Rolling(node)
        await rolling.begin(incident=True)
        await revoked(node, Revoke(key="tokens", version=1, state="compromised", reason="leaked"))
        rollout = rolling.rotation().rollout
        assert rollout is not None
        assert rollout.status is Status.RUNNING


@pytest.mark.parametrize("state", ["suspended", "compromised"])
async def test_a_schedule_does_not_start_a_stopped_key_again(node: Node, state: str) -> None:
    async with node.serving():
        rolling = Rolling(node)
        await rolling.make(msgspec.structs.replace(PLAN, schedule=Schedule(every_ms=3_600_000)))
        stop = {"do": "revoke", "key": "tokens", "as": state, "reason": "odd"}
        command = msgspec.convert(stop, Revoke)
        await revoked(node, command)
        for _ in range(5):
            node.clock.advance(24 * 3_600_000)
            await rolling.tick()
            await asyncio.sleep(0.02)  # a version is made in a thread
        info = result_of(await node.admin(ShowKey(name="tokens")), KeyInfo)
        assert [version.state for version in info.versions] == [state]


# --- dry run -------------------------------------------------------------------------------------


async def test_a_dry_run_tells_what_would_stop_and_how_often_it_was_used(node: Node) -> None:
    async with node.serving():
        handles = await keys(node)
        second = await node.issue("shop-a")
        for _ in range(3):
            check_done(await node.ask(signing(node, handles["shop-a"])))
        node.clock.advance(25 * 3_600_000)
        for token, count in ((handles["shop-a"], 2), (second.token, 1), (handles["bank-a"], 4)):
            for _ in range(count):
                check_done(await node.ask(signing(node, token)))
        epoch = node.built.standing.snapshot.epoch
        told = await previewed(node, tenant="shop")
        assert node.built.standing.snapshot.epoch == epoch
        assert told.end
        assert {key.name: (key.uses, key.handles, key.versions) for key in told.keys} == {
            "shop-a": (3, 2, (1,)),
            "shop-b": (0, 1, (1,)),
            "shop-c": (0, 1, (1,)),
        }
        uses = {handle.id: handle.uses for handle in told.handles if handle.key == "shop-a"}
        assert uses[second.handle_id] == 1
        assert sorted(uses.values()) == [1, 2]
        assert {handle.principal for handle in told.handles} == {"ci"}
        assert told.logs == ("node-a",)
    assert node.log("revoke.preview") == []


async def test_a_dry_run_goes_on_page_by_page(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REVOKE_KEYS_A_PAGE", 2)
    async with node.serving():
        await keys(node)
        first = await previewed(node, tenant="shop")
        rest = await previewed(node, tenant="shop", after=first.next)
        assert [key.name for key in first.keys] == ["shop-a", "shop-b"]
        assert [key.name for key in rest.keys] == ["shop-c"]
        assert (first.end, rest.end) == (False, True)
        assert first.keys_in_all == rest.keys_in_all == 3


async def test_a_dry_run_says_that_there_are_more_handles_and_uses(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REVOKE_HANDLES_A_KEY", 2)
    monkeypatch.setattr(limits, "REVOKE_LOOKS_A_PAGE", 0)
    async with node.serving():
        await keys(node)
        ids = sorted([(await node.issue("shop-b")).handle_id for _ in range(4)])
        told = await previewed(node, key="shop-b")
        assert told.keys[0].more_handles
        assert told.keys[0].more_uses
        rest = await previewed(node, key="shop-b", handles_after=told.handles[-1].id)
        last = await previewed(node, key="shop-b", handles_after=rest.handles[-1].id)
        listed = [handle.id for page in (told, rest, last) for handle in page.handles]
        assert set(ids) < set(listed)
        assert listed == sorted(listed)
        assert not last.keys[0].more_handles


async def test_a_dry_run_of_one_handle_counts_its_uses(node: Node) -> None:
    async with node.serving():
        handles = await keys(node)
        own = await node.issue("shop-a")
        for token in (handles["shop-a"], own.token, own.token):
            check_done(await node.ask(signing(node, token)))
        told = await previewed(node, handle=own.handle_id, what="handles", state=None)
        assert [(handle.id, handle.uses) for handle in told.handles] == [(own.handle_id, 2)]
        asked = PreviewRevoke(handle=own.link, what="handles")
        check_refused(await node.admin(asked), "malformed_request")


# --- acknowledging -------------------------------------------------------------------------------


async def test_alone_a_revocation_is_answered_at_its_commit(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS, policy=Policy(ack="best_effort"))
        handle = (await node.issue("web")).token
        for _ in range(3):
            check_done(await node.ask(node.use_of(handle)))
        told = await revoked(node, Revoke(key="web", state="compromised", reason="x"))
        assert told.fence.commit_ms is not None
        assert told.best_effort is not None
        assert (told.best_effort.bound_ms, told.best_effort.ended_ms) == (BOUND_MS, 0)
        await keys(node)
        told = await revoked(node, SHOP)
        assert told.best_effort is None
