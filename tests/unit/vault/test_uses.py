"""Uses, through the whole vault: admitted, done, recorded, committed, and only then answered."""

import asyncio
from typing import TypeVar

import msgspec
import pytest

from keystead import limits
from keystead.crypto.public import spki_from_pem
from keystead.crypto.signatures import verify
from keystead.custody.software import SoftwareCustody
from keystead.frames.messages import Answer, Refused
from keystead.keys.commands import MoveVersion, RevokeHandle
from keystead.keys.framing.data import Derive, DeriveResult, Unwrap, UnwrapResult, Wrap, WrapResult
from keystead.keys.framing.firmware import SignFirmware
from keystead.keys.framing.ledger import AppendLedger, LedgerResult
from keystead.keys.framing.tls import SignDigest, SignTls, TlsResult, certificate_verify_content
from keystead.keys.lifecycle import Move
from keystead.keys.model import FirmwarePolicy, Policy
from keystead.keys.narrowing import Binding, Narrowing, RateLimit
from keystead.keys.purposes import Purpose
from keystead.testing.memory_store import Fault
from keystead.translog.entries import commitment
from unit.vault.node import TLS_FACTS, Node, all_of, check_done, check_refused, result_of

pytestmark = pytest.mark.anyio
C = TypeVar("C", bound=SoftwareCustody)


@pytest.fixture
def node() -> Node:
    return Node()


def entry(number: int) -> AppendLedger:
    return AppendLedger(entry=b"entry %d" % number)


# --- one use -------------------------------------------------------------------------------------


async def test_a_use_is_recorded_before_it_is_answered(node: Node) -> None:
    async with node.serving():
        info = await node.create("web", Purpose.TLS)
        handle = await node.issue("web")
        answer = check_done(await node.ask(node.use_of(handle.token, reason="renewal")))
        result = msgspec.msgpack.decode(answer.result, type=TlsResult)
        message = certificate_verify_content("server", TLS_FACTS.transcript_hash)
        spki = spki_from_pem(info.versions[0].public_pem[0])
        verify("ecdsa-p256-sha256", spki, message, result.signature)
        assert answer.receipt is not None
        row = node.store.records_from(answer.receipt.seq or -1, 1)[0]
    body = node.log("tls.sign")[0]
    assert (body.seq, body.outcome, body.ack) == (answer.receipt.seq, "ok", "durable")
    assert (body.name, body.handle, body.link) == ("web", handle.handle_id, handle.link)
    assert (body.context, body.reason, body.principal) == ("web/eu/shop", "renewal", "ci")
    assert body.signed == commitment(row.salt or b"", message)


async def test_nothing_is_answered_while_the_disk_is_held_up(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = await node.issue("web")
        release = node.hold()
        waiting = node.begin(node.use_of(handle.token))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        release()
        check_done((await all_of([waiting]))[0])


@pytest.mark.parametrize("fault", list(Fault), ids=str)
async def test_a_result_without_a_record_is_withheld(node: Node, fault: Fault) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        node.store.fail_next(fault)
        check_refused(await node.ask(node.use_of(handle)), "log_unavailable")
        check_done(await node.ask(node.use_of(handle)))


# --- one request, sent twice ---------------------------------------------------------------------


async def test_duplicates_under_way_join_and_have_one_record(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        release = node.hold()
        waiting = [node.begin(node.use_of(handle, key="once")) for _ in range(5)]
        release()
        answers = [check_done(answer) for answer in await all_of(waiting)]
        assert len({answer.result for answer in answers}) == 1
        assert len({answer.receipt.seq for answer in answers if answer.receipt}) == 1
        assert [answer.receipt.replayed for answer in answers if answer.receipt] == [False] + (
            [True] * 4
        )
        assert sorted(answer.id for answer in answers) == [answer.id for answer in answers]
    assert len(node.log("tls.sign")) == 1


async def test_another_payload_under_the_key_of_one_under_way_is_refused(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        release = node.hold()
        first = node.begin(node.use_of(handle, key="once"))
        other = SignTls(role="client", transcript_hash=bytes(32))
        second = node.begin(node.use_of(handle, other, key="once"))
        third = node.begin(node.use_of(handle, key="once"))
        release()
        answers = await all_of([first, second, third])
    check_refused(answers[1], "replay_conflict")
    assert check_done(answers[0]).result == check_done(answers[2]).result
    assert [body.outcome for body in node.log("tls.sign")] == ["ok", "replay_conflict"]


async def test_a_joined_duplicate_shares_the_refusal(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        node.store.fail_next(Fault.NOT_APPLIED)
        release = node.hold()
        waiting = [node.begin(node.use_of(handle, key="once")) for _ in range(3)]
        release()
        for answer in await all_of(waiting):
            check_refused(answer, "log_unavailable")
        assert check_done(await node.ask(node.use_of(handle, key="once"))).receipt


async def test_a_repeat_gets_the_stored_signature(node: Node) -> None:
    """ECDSA differs each time, so an equal signature is the stored one."""
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        first = check_done(await node.ask(node.use_of(handle, key="once")))
        again = check_done(await node.ask(node.use_of(handle, key="once")))
        assert again.result == first.result
        assert first.receipt is not None
        assert again.receipt == msgspec.structs.replace(first.receipt, replayed=True)
        other = SignTls(role="client", transcript_hash=bytes(32))
        check_refused(await node.ask(node.use_of(handle, other, key="once")), "replay_conflict")
        check_refused(
            await node.ask(node.use_of(handle, key="once", context="web/us")), "replay_conflict"
        )
    assert [body.outcome for body in node.log("tls.sign")] == ["ok", *["replay_conflict"] * 2]


async def test_a_commit_that_was_applied_but_failed_answers_a_repeat(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        node.store.fail_next(Fault.APPLIED)
        check_refused(await node.ask(node.use_of(handle, key="once")), "log_unavailable")
        again = check_done(await node.ask(node.use_of(handle, key="once")))
        assert again.receipt is not None
        assert again.receipt.replayed
    assert len(node.log("tls.sign")) == 1


async def test_a_stored_signature_is_not_given_out_after_its_handle_is_revoked(
    node: Node,
) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = await node.issue("web")
        check_done(await node.ask(node.use_of(handle.token, key="once")))
        check_done(await node.admin(RevokeHandle(link=handle.link, reason="lost")))
        check_refused(await node.ask(node.use_of(handle.token, key="once")), "handle_revoked")


async def test_a_stored_signature_is_not_given_out_by_a_suspended_version(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        check_done(await node.ask(node.use_of(handle, key="once")))
        check_done(await node.admin(MoveVersion(name="web", move=Move.SUSPEND, reason="incident")))
        check_refused(await node.ask(node.use_of(handle, key="once")), "key_state")


async def test_a_secret_is_made_again_and_never_stored(node: Node) -> None:
    async with node.serving():
        await node.create("vault", Purpose.DATA)
        handle = (await node.issue("vault")).token
        wrap = node.use_of(handle, Wrap(plaintext=b"hidden"), "data.wrap")
        wrapped = result_of(await node.ask(wrap), WrapResult).wrapped
        for facts, operation, form in (
            (Unwrap(wrapped=wrapped), "data.unwrap", UnwrapResult),
            (Derive(info=b"x"), "data.derive", DeriveResult),
        ):
            first = await node.ask(node.use_of(handle, facts, operation, key=operation))
            again = await node.ask(node.use_of(handle, facts, operation, key=operation))
            assert result_of(first, form) == result_of(again, form)
            once, twice = check_done(first).receipt, check_done(again).receipt
            assert once is not None
            assert twice == msgspec.structs.replace(once, replayed=True)
            assert len(node.log(operation)) == 1
        assert [row.result for row in node.disk.tables.idempotency.values()] == [None, None]


async def test_joined_duplicates_of_a_secret_all_get_it(node: Node) -> None:
    async with node.serving():
        await node.create("vault", Purpose.DATA)
        handle = (await node.issue("vault")).token
        release = node.hold()
        waiting = [
            node.begin(node.use_of(handle, Derive(info=b"x"), "data.derive", key="once"))
            for _ in range(3)
        ]
        release()
        secrets = {result_of(answer, DeriveResult).secret for answer in await all_of(waiting)}
        assert len(secrets) == 1
    assert len(node.log("data.derive")) == 1


# --- budgets -------------------------------------------------------------------------------------


async def test_a_replay_spends_no_budget(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        narrowing = Narrowing(uses=1, rate=RateLimit(count=1, per_s=60))
        handle = (await node.issue("web", narrowing)).token
        check_done(await node.ask(node.use_of(handle, key="once")))
        for _ in range(3):
            check_done(await node.ask(node.use_of(handle, key="once")))
        rated = check_refused(await node.ask(node.use_of(handle, key="twice")), "limit_exceeded")
        assert rated.retry_after_s
        node.clock.advance(60_000)
        spent = check_refused(await node.ask(node.use_of(handle, key="twice")), "limit_exceeded")
        assert spent.retry_after_s is None


async def test_a_full_queue_refuses_and_keeps_no_effect(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.serving():
        await node.create("book", Purpose.LEDGER)
        handle = (await node.issue("book")).token
        release = node.hold()
        first = node.begin(node.use_of(handle, entry(1), "ledger.append"))
        await asyncio.sleep(0.05)  # it is in its commit, and not in the queue any more
        monkeypatch.setattr(limits, "VAULT_QUEUE_MAX", 0)
        late = await node.ask(node.use_of(handle, entry(2), "ledger.append"))
        assert check_refused(late, "overloaded").retry_after_s
        monkeypatch.undo()
        release()
        assert result_of((await all_of([first]))[0], LedgerResult).sequence == 1
        third = await node.ask(node.use_of(handle, entry(3), "ledger.append"))
        assert result_of(third, LedgerResult).sequence == 2


# --- counters ------------------------------------------------------------------------------------


def check_chain(answers: list[Answer], count: int) -> None:
    """One ledger, without a gap, whatever the order of the answers."""
    results = [result_of(answer, LedgerResult) for answer in answers]
    assert sorted(result.sequence for result in results) == list(range(1, count + 1))
    by_place = {result.sequence: result for result in results}
    for place in range(2, count + 1):
        document = msgspec.json.decode(by_place[place].document)
        assert document["previous"] == by_place[place - 1].head.hex()


async def test_appends_under_way_build_one_chain(node: Node) -> None:
    async with node.serving():
        await node.create("book", Purpose.LEDGER)
        handle = (await node.issue("book")).token
        release = node.hold()
        waiting = [
            node.begin(node.use_of(handle, entry(number), "ledger.append")) for number in range(30)
        ]
        release()
        check_chain(await all_of(waiting), 30)


async def test_appends_behind_a_refused_one_are_framed_again(node: Node) -> None:
    """However many there are: one of them that fails must not fail those behind it."""
    async with node.serving():
        await node.create("book", Purpose.LEDGER)
        spent = (await node.issue("book", Narrowing(uses=1))).token
        handle = (await node.issue("book")).token
        first = await node.ask(node.use_of(spent, entry(0), "ledger.append"))
        release = node.hold()
        over = node.begin(node.use_of(spent, entry(1), "ledger.append"))
        waiting = [
            node.begin(node.use_of(handle, entry(number), "ledger.append"))
            for number in range(2, 42)
        ]
        release()
        check_refused((await all_of([over]))[0], "limit_exceeded")
        check_chain([first, *await all_of(waiting)], 41)
    outcomes = [body.outcome for body in node.log("ledger.append")]
    assert outcomes.count("ok") == 41


async def test_a_step_that_did_not_commit_is_taken_back(node: Node) -> None:
    async with node.serving():
        await node.create("book", Purpose.LEDGER)
        handle = (await node.issue("book")).token
        node.store.fail_next(Fault.NOT_APPLIED, Fault.APPLIED)
        for number in (1, 2):
            use = node.use_of(handle, entry(number), "ledger.append", key=f"i{number}")
            check_refused(await node.ask(use), "log_unavailable")
        applied = await node.ask(node.use_of(handle, entry(2), "ledger.append", key="i2"))
        again = await node.ask(node.use_of(handle, entry(1), "ledger.append", key="i1"))
        check_chain([applied, again], 2)


async def test_a_slow_firmware_signature_keeps_the_order(node: Node) -> None:
    """ML-DSA runs beside the loop, in one thread, so that a later version does not overtake."""
    async with node.serving():
        policy = Policy(firmware=FirmwarePolicy(names=("router",)))
        await node.create("fw", Purpose.FIRMWARE, policy=policy, algorithm="ml-dsa-65")
        handle = (await node.issue("fw")).token
        waiting = [
            node.begin(
                node.use_of(
                    handle,
                    SignFirmware(name="router", version=number, sha256=bytes(32), size=1),
                    "firmware.sign",
                )
            )
            for number in range(1, 9)
        ]
        receipts = [check_done(answer).receipt for answer in await all_of(waiting)]
        places = [receipt.seq for receipt in receipts if receipt and receipt.seq is not None]
        assert places == sorted(places)
        old = SignFirmware(name="router", version=3, sha256=bytes(32), size=1)
        answer = await node.ask(node.use_of(handle, old, "firmware.sign"))
        assert isinstance(answer, Refused)
    outcomes = [body.outcome for body in node.log("firmware.sign")]
    assert outcomes[:8] == ["ok"] * 8
    assert outcomes[8] != "ok"


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"handle": "ks1.AAAA"}, "handle_invalid"),
        ({"purpose": "jwt"}, "purpose_mismatch"),
        ({"operation": "wrap"}, "malformed_request"),
        ({"facts": b"\xc1"}, "malformed_request"),
        ({"facts": msgspec.msgpack.encode({"entry": b"x"})}, "malformed_request"),
        ({"context": "not a context"}, "malformed_request"),
        ({"version": 7}, "not_found"),
        ({"idempotency_key": ""}, "malformed_request"),
        ({"idempotency_key": "x" * 65}, "malformed_request"),
        ({"idempotency_key": "\u00e9"}, "malformed_request"),
        ({"reason": "two\nlines"}, "malformed_request"),
        ({"reason": "x" * 257}, "malformed_request"),
    ],
    ids=str,
)
async def test_what_is_refused_is_recorded_without_what_was_sent(
    node: Node, changes: dict[str, object], code: str
) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        use = node.use_of((await node.issue("web")).token)
        check_refused(await node.ask(msgspec.structs.replace(use, **changes)), code)
    body = node.log()[-1]
    assert body.outcome == code
    sent = {
        str(value) for name, value in changes.items() if name in ("context", "reason") and value
    }
    assert not sent & {body.context, body.reason}


@pytest.mark.parametrize("field", ["purpose", "operation"])
async def test_a_made_up_operation_is_not_recorded(node: Node, field: str) -> None:
    """Whoever has no handle would otherwise write into the log what they like (I9)."""
    async with node.serving():
        use = msgspec.structs.replace(node.use_of("ks1.AAAA"), **{field: "ann@shop.example"})
        check_refused(await node.ask(use), "handle_invalid")
    body = node.store.records_from(0, 100)[-1].body or b""
    assert b"handle_invalid" in body
    assert b"ann@shop.example" not in body


async def test_a_handle_that_this_registry_never_issued_is_refused(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        node.disk.tables = msgspec.structs.replace(node.disk.tables, handles={})
        answer = check_refused(await node.ask(node.use_of(handle)), "handle_invalid")
        assert "backup" in answer.hint


async def test_a_handle_whose_row_was_altered_is_refused(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = await node.issue("web")
        row = node.disk.tables.handles[handle.handle_id]
        forged = msgspec.structs.replace(row, principal="root")
        node.disk.tables = msgspec.structs.replace(
            node.disk.tables, handles={handle.handle_id: forged}
        )
        check_refused(await node.ask(node.use_of(handle.token)), "state_rolled_back")


async def test_a_flood_of_denials_is_answered_and_counted(node: Node) -> None:
    async with node.serving():
        answers = await all_of([node.begin(node.use_of("ks1.AAAA")) for _ in range(100)])
        for answer in answers:
            check_refused(answer, "handle_invalid")
        assert len(node.log("tls.sign")) == limits.DENIALS_RECORDED_PER_MINUTE
    (summary,) = node.log("denials.summary")
    assert (summary.count, summary.outcome) == (
        100 - limits.DENIALS_RECORDED_PER_MINUTE,
        "handle_invalid",
    )


async def test_a_prehashed_key_signs_digests_for_socket_bound_handles(node: Node) -> None:
    async with node.serving():
        await node.create("nginx", Purpose.TLS, prehashed=True)
        bound = Narrowing(bound_to=Binding(kind="unix", value="nginx:33"))
        handle = (await node.issue("nginx", bound)).token
        free = (await node.issue("nginx")).token
        facts = SignDigest(digest=bytes(32))
        use = node.use_of(handle, facts, "tls.sign_digest")
        peer = msgspec.structs.replace(use, unix_peer=b"nginx:33")
        check_done(await node.ask(peer))
        other = msgspec.structs.replace(use, unix_peer=b"nginx:34")
        check_refused(await node.ask(other), "permission_denied")
        check_refused(await node.ask(use), "permission_denied")
        check_refused(
            await node.ask(node.use_of(free, facts, "tls.sign_digest")), "permission_denied"
        )
    assert all(body.prehashed for body in node.log("tls.sign_digest"))
