"""Admin commands: who asks, may they, then one change in one commit under the next epoch."""

import asyncio
from typing import Any

import msgspec
import pytest

from keystead import limits
from keystead.frames.messages import Admin
from keystead.keys.commands import (
    Command,
    CreateKey,
    HandleInfo,
    IssuedHandle,
    IssueHandle,
    KeyInfo,
    ListKeys,
    ListRecords,
    LogPage,
    MoveVersion,
    RevokedLink,
    RevokeHandle,
    RevokeKeyHandles,
    ShowHandle,
    ShowKey,
)
from keystead.keys.lifecycle import Move
from keystead.keys.model import CaPolicy, JwtPolicy, Policy
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose
from keystead.testing.memory_store import Fault
from unit.vault.node import Node, check_done, check_refused, result_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def node() -> Node:
    return Node()


# --- who asks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "kso1.", "kso1.AAAA", "ks1.AAAA"])
async def test_a_stranger_is_refused_and_not_recorded(node: Node, token: str) -> None:
    """Whoever has no token must not be able to fill the log."""
    async with node.serving():
        before = len(node.log())
        answer = check_refused(await node.admin(ListKeys(), token), "unauthenticated")
        assert len(node.log()) == before
    assert "KEYSTEAD_TOKEN" in answer.hint
    assert not token or token not in answer.message


async def test_the_token_is_stored_nowhere(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
    assert len(node.token) > 40
    assert node.token.encode() not in msgspec.msgpack.encode(
        [[*node.disk.tables.objects.values()], [*node.disk.tables.records.values()]]
    )


@pytest.mark.parametrize(
    "command",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"do": "key.export", "name": "web"}),
        msgspec.msgpack.encode({"do": "key.show"}),
        msgspec.msgpack.encode({"do": "key.show", "name": "web", "more": 1}),
        msgspec.msgpack.encode(["key.show", "web"]),
    ],
    ids=["empty", "no msgpack", "unknown", "a field missing", "a field more", "a list"],
)
async def test_what_is_no_command_is_refused(node: Node, command: bytes) -> None:
    async with node.serving():
        answer = await node.ask(Admin(node.next_id(), node.token, command))
        check_refused(answer, "malformed_request")
    assert (node.log()[-1].op, node.log()[-1].outcome) == ("admin", "malformed_request")


# --- keys ----------------------------------------------------------------------------------------


async def test_a_created_key_is_there_with_its_record(node: Node) -> None:
    async with node.serving():
        command = CreateKey(name="web", purpose=Purpose.TLS, labels={"region": "eu"})
        answer = check_done(await node.admin(command))
        info = msgspec.msgpack.decode(answer.result, type=KeyInfo)
        shown = result_of(await node.admin(ShowKey(name="web")), KeyInfo)
        assert shown == info
    assert answer.receipt is not None
    body = node.log("key.create")[0]
    assert (body.seq, body.epoch) == (answer.receipt.seq, answer.receipt.epoch)
    assert (body.key, body.name, body.principal, body.revision) == (info.id, "web", "operator", 1)
    assert (info.epoch, info.labels) == (2, {"region": "eu"})


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": "Web"}, "malformed_request"),
        ({"tenant": ""}, "malformed_request"),
        ({"labels": {"region": "x" * 129}}, "malformed_request"),
        ({"purpose": Purpose.JWT}, "malformed_request"),
        ({"purpose": Purpose.VPN}, "malformed_request"),
        ({"algorithm": "rot13"}, "malformed_request"),
        ({"algorithm": "aes-256-gcm-siv"}, "algorithm_forbidden"),
        ({"algorithm": "ed25519", "prehashed": True}, "malformed_request"),
        ({"policy": Policy(jwt=JwtPolicy(issuer="x"))}, "malformed_request"),
        ({"purpose": Purpose.DATA, "policy": Policy(ack="best_effort")}, "malformed_request"),
        (
            {
                "purpose": Purpose.CA,
                "policy": Policy(ca=CaPolicy(common_name="", dns_suffixes=())),
            },
            "malformed_request",
        ),
    ],
    ids=str,
)
async def test_keys_that_cannot_be_are_refused_and_recorded(
    node: Node, fields: dict[str, Any], code: str
) -> None:
    async with node.serving():
        command = CreateKey(**({"name": "web", "purpose": Purpose.TLS} | fields))
        check_refused(await node.admin(command), code)
        assert result_of(await node.admin(ListKeys()), list[KeyInfo]) == []
    assert (node.log()[-1].op, node.log()[-1].outcome) == ("key.create", code)


async def test_of_two_keys_of_one_name_made_at_once_one_is(node: Node) -> None:
    """Both drafts pass the first look; the commit decides."""
    async with node.serving():
        command = CreateKey(name="web", purpose=Purpose.TLS)
        await node.create("first", Purpose.TLS)  # the tenant's key is there already
        answers = await asyncio.gather(node.admin(command), node.admin(command))
        codes = sorted(getattr(answer, "code", "done") for answer in answers)
        assert codes == ["conflict", "done"]
        check_refused(await node.admin(command), "conflict")


async def test_of_two_first_keys_of_a_tenant_one_is_sent_again(node: Node) -> None:
    async with node.serving():
        commands = [
            CreateKey(name=name, purpose=Purpose.TLS, tenant="new") for name in ("one", "two")
        ]
        answers = await asyncio.gather(*(node.admin(command) for command in commands))
        failed = [at for at, answer in enumerate(answers) if getattr(answer, "code", "")]
        assert len(failed) == 1
        assert "again" in check_refused(answers[failed[0]], "conflict").hint
        check_done(await node.admin(commands[failed[0]]))
        for name in ("one", "two"):
            check_done(await node.ask(node.use_of((await node.issue(name)).token)))


@pytest.mark.parametrize("fault", list(Fault), ids=str)
async def test_a_key_whose_commit_failed_is_whole_or_not_there(node: Node, fault: Fault) -> None:
    async with node.serving():
        node.store.fail_next(fault)
        command = CreateKey(name="web", purpose=Purpose.TLS)
        check_refused(await node.admin(command), "log_unavailable")
        again = await node.admin(command)
        if fault is Fault.APPLIED:
            check_refused(again, "conflict")
        else:
            check_done(again)
        check_done(await node.ask(node.use_of((await node.issue("web")).token)))


async def test_keys_are_listed_in_pages_and_by_what_they_are(node: Node) -> None:
    async with node.serving():
        for name, purpose, tenant in (
            ("a", Purpose.TLS, "one"),
            ("b", Purpose.DATA, "one"),
            ("c", Purpose.TLS, "two"),
        ):
            await node.create(name, purpose, tenant=tenant)

        async def names(**fields: object) -> list[str]:
            answer = await node.admin(msgspec.structs.replace(ListKeys(), **fields))
            return [info.name for info in result_of(answer, list[KeyInfo])]

        assert await names() == ["a", "b", "c"]
        assert await names(limit=2) == ["a", "b"]
        assert await names(after="b") == ["c"]
        assert await names(tenant="one") == ["a", "b"]
        assert await names(purpose=Purpose.TLS, after="a") == ["c"]
        assert await names(tenant="nobody") == []
        for limit in (0, -1, limits.LIST_ITEMS_MAX + 1):
            check_refused(await node.admin(ListKeys(limit=limit)), "malformed_request")
        check_refused(await node.admin(ShowKey(name="d")), "not_found")


# --- versions ------------------------------------------------------------------------------------


async def test_a_moved_version_is_recorded_with_its_reason(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        for move, code in (
            (Move.SUSPEND, "key_state"),
            (Move.RESUME, ""),
            (Move.DEACTIVATE, "key_state"),
        ):
            check_done(await node.admin(MoveVersion(name="web", move=move, reason="drill")))
            answer = await node.ask(node.use_of(handle))
            assert getattr(answer, "code", "") == code
    bodies = node.log("key.move")
    assert [body.detail for body in bodies] == [
        "suspend version 1",
        "resume version 1",
        "deactivate version 1",
    ]
    assert {body.reason for body in bodies} == {"drill"}
    assert [body.revision for body in bodies] == [2, 3, 4]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"reason": ""}, "malformed_request"),
        ({"reason": "two\nlines"}, "malformed_request"),
        ({"version": 2}, "not_found"),
        ({"move": Move.RESUME}, "key_state"),
        ({"move": Move.RESUME, "version": 1}, "key_state"),
        ({"name": "nobody"}, "not_found"),
    ],
    ids=str,
)
async def test_moves_that_cannot_be_change_nothing(
    node: Node, fields: dict[str, Any], code: str
) -> None:
    async with node.serving():
        info = await node.create("web", Purpose.TLS)
        command = MoveVersion(**({"name": "web", "move": Move.SUSPEND, "reason": "x"} | fields))
        check_refused(await node.admin(command), code)
        assert result_of(await node.admin(ShowKey(name="web")), KeyInfo) == info
    assert node.log()[-1].outcome == code


async def test_a_destroyed_version_has_no_material_any_more(node: Node) -> None:
    async with node.serving():
        await node.create("vault", Purpose.DATA)
        assert len(node.disk.tables.materials) == 1
        for move in (Move.DEACTIVATE, Move.DESTROY):
            check_done(await node.admin(MoveVersion(name="vault", move=move, reason="end of life")))
        assert node.disk.tables.materials == {}


# --- handles -------------------------------------------------------------------------------------


async def test_an_issued_handle_is_known_by_its_id(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        issued = await node.issue("web")
        info = result_of(await node.admin(ShowHandle(handle_id=issued.handle_id)), HandleInfo)
        assert (info.key, info.tenant, info.principal) == ("web", "default", "ci")
        check_refused(await node.admin(ShowHandle(handle_id="h" * 100)), "not_found")
    body = node.log("handle.issue")[0]
    assert (body.handle, body.link, body.detail) == (issued.handle_id, issued.link, "to ci")
    assert issued.token not in str(node.log())


async def test_a_handle_has_the_operations_of_its_key(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        await node.create("nginx", Purpose.TLS, prehashed=True)
        assert (await node.issue("web")).operations == ("sign",)
        assert (await node.issue("nginx")).operations == ("sign_digest",)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"principal": "Ann B"}, "malformed_request"),
        ({"ttl_s": 0}, "malformed_request"),
        ({"ttl_s": 10**12}, "malformed_request"),
        ({"operations": ("wrap",)}, "malformed_request"),
        ({"operations": ()}, "malformed_request"),  # not: all of them
        ({"narrowing": Narrowing(uses=0)}, "malformed_request"),
        ({"narrowing": Narrowing(context_prefix="no context")}, "malformed_request"),
        ({"key": "nobody"}, "not_found"),
    ],
    ids=str,
)
async def test_handles_that_cannot_be_are_refused(
    node: Node, fields: dict[str, Any], code: str
) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        command = IssueHandle(**({"key": "web", "principal": "ci"} | fields))
        answer = await node.admin(command)
        assert getattr(answer, "code", "") == code
    assert len(node.disk.tables.handles) == (not code)


async def test_a_ttl_is_by_the_vaults_clock(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        command = IssueHandle(key="web", principal="ci", ttl_s=60)
        handle = result_of(await node.admin(command), IssuedHandle).token
        node.clock.advance(60_000)
        check_done(await node.ask(node.use_of(handle)))
        node.clock.advance(1)
        check_refused(await node.ask(node.use_of(handle)), "handle_expired")


async def test_a_handle_issued_while_all_are_revoked_is_not_given_out(node: Node) -> None:
    """Its generation was the old one: it would be born revoked."""
    async with node.serving():
        await node.create("web", Purpose.TLS)
        release = node.hold()
        answers = [
            asyncio.create_task(node.admin(command))
            for command in (
                RevokeKeyHandles(key="web", reason="lost"),
                IssueHandle(key="web", principal="ci"),
            )
        ]
        await asyncio.sleep(0.02)
        release()
        revoked, issued = await asyncio.gather(*answers)
        assert result_of(revoked, KeyInfo).generation == 2
        check_refused(issued, "conflict")
        check_done(await node.ask(node.use_of((await node.issue("web")).token)))


async def test_a_revoked_link_ends_its_handle_and_no_other(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        lost, kept = await node.issue("web"), await node.issue("web")
        check_done(await node.ask(node.use_of(lost.token)))
        command = RevokeHandle(link=lost.link, reason="lost")
        answer = await node.admin(command)
        assert result_of(answer, RevokedLink).revoked == lost.link
        check_refused(await node.ask(node.use_of(lost.token)), "handle_revoked")
        check_done(await node.ask(node.use_of(kept.token)))
        check_refused(await node.admin(command), "conflict")
    body = node.log("handle.revoke")[0]
    assert (body.link, body.reason) == (lost.link, "lost")


@pytest.mark.parametrize(
    ("link", "reason"), [("", "x"), ("a" * 31, "x"), ("../" + "a" * 29, "x"), ("a" * 32, "")]
)
async def test_revocations_that_cannot_be_are_refused(node: Node, link: str, reason: str) -> None:
    async with node.serving():
        check_refused(await node.admin(RevokeHandle(link=link, reason=reason)), "malformed_request")
        check_refused(await node.admin(RevokeKeyHandles(key="web", reason="x")), "not_found")
        await node.create("web", Purpose.TLS)
        check_refused(await node.admin(RevokeKeyHandles(key="web", reason="")), "malformed_request")


# --- records -------------------------------------------------------------------------------------


async def test_records_are_found_by_what_they_say(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        await node.create("other", Purpose.TLS)
        issued = await node.issue("web")
        receipt = check_done(await node.ask(node.use_of(issued.token))).receipt
        assert receipt is not None
        check_refused(await node.ask(node.use_of(issued.token, version=9)), "not_found")

        async def found(**fields: object) -> list[str]:
            command = msgspec.structs.replace(ListRecords(), **fields)
            page = result_of(await node.admin(command), LogPage)
            return [str(row.body["op"]) for row in page.records]

        assert await found(limit=2) == ["tls.sign", "tls.sign"]
        assert await found(key="web") == ["tls.sign", "tls.sign", "handle.issue", "key.create"]
        assert await found(key="other") == ["key.create"]
        assert await found(handle_id=issued.handle_id) == ["tls.sign", "tls.sign", "handle.issue"]
        assert await found(outcome="not_found") == ["tls.sign"]
        assert await found(operation="key.create") == ["key.create", "key.create"]
        assert await found(request_id=receipt.request_id) == ["tls.sign"]
        assert await found(before=1) == ["deployment.init"]
        check_refused(await node.admin(ListRecords(limit=0)), "malformed_request")
        check_refused(await node.admin(ListRecords(key="nobody")), "not_found")


async def test_a_denial_that_cannot_be_recorded_is_still_answered(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.serving():
        with monkeypatch.context() as patch:
            patch.setattr(limits, "VAULT_QUEUE_MAX", 0)
            check_refused(await node.admin(ShowKey(name="nobody")), "not_found")
        node.store.fail_next(Fault.NOT_APPLIED)
        check_refused(await node.admin(ShowKey(name="nobody")), "not_found")


COMMANDS: list[Command] = [
    CreateKey(name="web", purpose=Purpose.TLS),
    MoveVersion(name="web", move=Move.SUSPEND, reason="x"),
    IssueHandle(key="web", principal="ci"),
    RevokeKeyHandles(key="web", reason="x"),
    RevokeHandle(link="a" * 32, reason="x"),
]


async def test_stops_get_through_a_full_queue(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """I11: changes are never refused for the load."""
    async with node.serving():
        monkeypatch.setattr(limits, "VAULT_QUEUE_MAX", 0)
        for command in COMMANDS:
            check_done(await node.admin(command))
