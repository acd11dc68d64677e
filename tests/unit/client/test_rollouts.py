"""Rotation in the SDK: what operators ask, and what relying parties tell."""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest

from keystead.client import AsyncClient, Bound, Narrowing, admin, attenuate, rollouts
from keystead.encoding import b64u_decode
from keystead.errors import Conflict, HandleInvalid, MalformedRequest, PermissionDenied
from keystead.keys.caveats import BoundTo, ContextPrefix
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.plan import Canary, Drain, Plan, Publish, Retire
from keystead.keys.rollout.reports import ReportFailure
from keystead.keys.use import Asked, proof_message
from unit.client.fake import QUICK, FakeNode, answered, handle_for, problem
from unit.client.test_clients import KEY

HANDLE = handle_for(Purpose.JWT)
PLAN = Plan(
    publish=Publish(overlap_ms=3_000, cache_ms=1_000),
    canary=Canary(share_ppm=200_000, length_ms=3_000),
    drain=Drain(length_ms=3_000),
    retire=Retire(unpublish=True),
)
STATUS: dict[str, Any] = {
    "key": "shop",
    "purpose": "jwt",
    "status": "running",
    "stage": "publish",
    "ramp": 0,
    "number": 1,
    "previous": 1,
    "next": 2,
    "incident": False,
    "reason": "due",
    "began_ms": 1,
    "entered_ms": 1,
    "paused_ms": 0,
    "due_ms": 3_001,
    "now_ms": 2,
    "versions": [],
    "gates": [{"gate": "samples", "verdict": "hold", "value": 1, "limit": 20, "samples": 0}],
    "waits": ["the stage lasts another 3 s"],
    "steps": [],
    "plan": msgspec.to_builtins(PLAN),
    "own_plan": False,
    "starts_ms": 0,
    "uses_left": -1,
    "revision": 1,
    "epoch": 4,
}


# --- operators -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "path", "body"),
    [
        (
            admin.rotate_key("a/b", reason="due"),
            "/v1/keys/a%2Fb/rotate",
            {"plan": None, "algorithm": None, "incident": False, "weaker": False, "reason": "due"},
        ),
        (
            admin.rotate_key("shop", reason="leaked", plan=PLAN, incident=True),
            "/v1/keys/shop/rotate",
            {
                "plan": msgspec.to_builtins(PLAN),
                "algorithm": None,
                "incident": True,
                "weaker": False,
            }
            | {"reason": "leaked"},
        ),
        (
            admin.steer_rollout("shop", "roll_back", reason="odd"),
            "/v1/keys/shop/rollout",
            {"move": "roll_back", "reason": "odd"},
        ),
        (
            admin.set_plan("shop", None, reason="default"),
            "/v1/keys/shop/plan",
            {"plan": None, "weaker": False, "reason": "default"},
        ),
        (
            admin.change_policy(
                "shop", Policy(jwt=JwtPolicy(issuer="i")), reason="longer", weaker=True
            ),
            "/v1/keys/shop/policy",
            {"policy": msgspec.to_builtins(Policy(jwt=JwtPolicy(issuer="i"))), "weaker": True}
            | {"reason": "longer"},
        ),
        (admin.rollout_status("shop"), "/v1/keys/shop/rollout", None),
        (admin.rollout_evidence("shop"), "/v1/keys/shop/evidence", None),
        (admin.rollout_evidence("shop", number=2), "/v1/keys/shop/evidence?number=2", None),
        (admin.history(), "/v1/history?limit=50", None),
        (
            admin.history("shop", kind="rotation", at_seq=9, before=3, limit=5),
            "/v1/history?kind=rotation&name=shop&at_seq=9&before=3&limit=5",
            None,
        ),
    ],
)
def test_each_call_says_what_its_path_does_not(
    call: admin.Ask[object], path: str, body: dict[str, Any] | None
) -> None:
    assert call.path == path
    sent = msgspec.json.decode(call.body) if call.body else None
    assert sent == (None if body is None else msgspec.json.decode(msgspec.json.encode(body)))
    assert call.method == ("GET" if body is None else "POST")
    assert (call.idempotency_key is None) == (body is None)
    assert call.operator


def test_a_rotation_in_doubt_is_sent_again_under_the_same_key() -> None:
    node = FakeNode(httpx.ReadTimeout("late"), httpx.Response(201, json=KEY))
    assert node.client(operator="kso1.root").rotate_key("shop", reason="due").name == "shop"
    first, again = node.sent("idempotency-key")
    assert first == again is not None


def test_a_status_is_read_whole() -> None:
    node = FakeNode(httpx.Response(200, json=STATUS | {"later": "a member of a later release"}))
    told = node.client(operator="kso1.root").rollout_status("shop")
    assert (told.stage, told.next, told.plan) == ("publish", 2, PLAN)
    assert told.gates[0].verdict == "hold"


def test_a_refused_move_is_raised_as_the_node_says_it() -> None:
    node = FakeNode(problem("conflict", status=409, detail="no rollout of shop is under way"))
    with pytest.raises(Conflict, match="no rollout of shop"):
        node.client(operator="kso1.root").steer_rollout("shop", "pause", reason="x")


def test_history_comes_with_its_differences() -> None:
    entry = {"kind": "key", "id": "k-1", "name": "shop", "revision": 2, "epoch": 5, "seq": 9}
    entry |= {"time_ms": 7, "doc": {"policy": {"ack": "durable"}}, "until_seq": -1}
    change = {"path": "jwt.lifetime_max_s", "before": "900", "after": "3600"}
    change |= {"direction": "weaker", "reason": "tokens live longer"}
    page = {"entries": [entry | {"differences": [change]}], "next": 5, "end": True}
    node = FakeNode(httpx.Response(200, json=page))
    [found] = node.client(operator="kso1.root").history("shop").entries
    assert found.differences[0].direction == "weaker"
    assert found.doc == {"policy": {"ack": "durable"}}


# --- relying parties -----------------------------------------------------------------------------


def test_a_report_cites_a_use_under_the_reporters_handle() -> None:
    node = FakeNode(answered({"version": 2, "counted": True}))
    told = node.client().report_failure("a/b", HANDLE.reveal(), 41, "signature", reason="gateway 3")
    assert (told.result.version, told.result.counted, told.receipt.seq) == (2, True, 7)
    [request] = node.requests
    assert str(request.url) == "https://node.example/v1/keys/a%2Fb/reports"
    assert request.headers["authorization"] == f"Bearer {HANDLE.reveal()}"
    assert request.headers["idempotency-key"]
    [body] = node.bodies
    assert body["facts"] == {"seq": 41, "problem": "signature", "key": "a/b"}
    assert body["reason"] == "gateway 3"
    assert HANDLE.reveal() not in repr(rollouts.report_failure("shop", HANDLE, 1, "other"))
    elsewhere = rollouts.report_failure("shop", HANDLE, 1, "other", node="node-2")
    assert b'"node":"node-2"' in elsewhere.facts  # a sequence is of one node's log


def test_an_acknowledgement_is_one_however_often_it_is_sent() -> None:
    node = FakeNode(httpx.ReadTimeout("late"), problem("overloaded"), answered({"version": 2}))
    told = node.client().acknowledge_key("shop", HANDLE, "kid-2")
    assert told.result.version == 2
    assert str(node.requests[0].url) == "https://node.example/v1/keys/shop/acknowledgements"
    assert [body["facts"] for body in node.bodies] == [{"kid": "kid-2", "key": "shop"}] * 3
    assert len(set(node.sent("idempotency-key"))) == 1


def test_awaiting_clients_tell_the_same() -> None:
    async def run() -> None:
        async with AsyncClient(
            "https://node.example",
            operator="kso1.root",
            retry=QUICK,
            transport=httpx.MockTransport(node),
        ) as client:
            told = await client.report_failure("shop", HANDLE, 4, "unknown_key", context="a/b")
            assert not told.result.counted
            assert (await client.rollout_status("shop")).waits == ("the stage lasts another 3 s",)

    node = FakeNode(answered({"version": 2, "counted": False}), httpx.Response(200, json=STATUS))
    asyncio.run(run())
    assert node.bodies[0]["context"] == "a/b"


def test_the_context_is_what_the_handle_is_narrowed_to() -> None:
    narrowed = attenuate(HANDLE, Narrowing(context_prefix="shop/eu"))
    further = attenuate(narrowed, Narrowing(context_prefix="shop/eu/till"))
    assert ContextPrefix("shop/eu") in further.caveats
    told = [rollouts.acknowledge_key("shop", h, "k").context for h in (HANDLE, narrowed, further)]
    assert told[1:] == ["shop/eu", "shop/eu/till"]
    assert told[0] == "relying"
    assert rollouts.acknowledge_key("shop", narrowed, "k", context="shop/eu/x").context == (
        "shop/eu/x"
    )


def test_a_bound_handle_proves_who_reports() -> None:
    handle = handle_for(Purpose.JWT, BoundTo("ed25519", bytes(32)))
    signed: list[bytes] = []
    ready = httpx.Response(200, json={"ready": True, "reasons": [], "deployment": "dep-1"})
    node = FakeNode(ready, answered({"version": 2, "counted": True}))

    def sign(message: bytes) -> bytes:
        signed.append(message)
        return b"\x07" * 64

    node.client(bound=Bound(sign)).report_failure(
        "shop", handle, 41, "other", idempotency_key="once-1"
    )
    proof = msgspec.json.decode(b64u_decode(str(node.sent("keystead-proof")[1])))
    facts = msgspec.msgpack.encode(ReportFailure(seq=41, problem="other", key="shop"))
    asked = Asked(purpose="jwt", operation="report", context="relying")
    assert signed == [
        proof_message("dep-1", handle.chain_id, asked, facts, "once-1", proof["time_ms"])
    ]


def test_what_cannot_be_told_is_refused_unsent() -> None:
    with pytest.raises(HandleInvalid):
        rollouts.report_failure("shop", "ks1.nothing", 1, "other")
    with pytest.raises(MalformedRequest, match="problem"):
        rollouts.report_failure("shop", HANDLE, 1, "bored")  # type: ignore[arg-type]  # what a typo gives
    with pytest.raises(MalformedRequest, match="seq"):
        rollouts.report_failure("shop", HANDLE, -1, "other")
    with pytest.raises(MalformedRequest, match="kid"):
        rollouts.acknowledge_key("shop", HANDLE, "")
    with pytest.raises(TypeError, match="contxt"):
        rollouts.acknowledge_key("shop", HANDLE, "k", contxt="a")  # type: ignore[call-arg]  # a typo


def test_a_handle_without_the_operation_is_refused_by_the_node() -> None:
    node = FakeNode(problem("permission_denied", status=403))
    with pytest.raises(PermissionDenied):
        node.client().acknowledge_key("shop", HANDLE, "kid-2")
    assert len(node.requests) == 1
