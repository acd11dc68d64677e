"""Uses and batches against a fake node: what is sent, and what comes back."""

import base64
import json
from typing import Any

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from keystead import limits
from keystead.client import Binding, Bound, Narrowing, Use, Used, attenuate, operations
from keystead.encoding import b64u_decode, b64u_encode
from keystead.errors import (
    ContextMismatch,
    HandleInvalid,
    HandleRevoked,
    KeysteadError,
    MalformedRequest,
    Overloaded,
    ServiceError,
)
from keystead.keys.framing.ca import CertificateRequest, CrlRequest
from keystead.keys.framing.data import UnwrapResult, WrapResult
from keystead.keys.framing.jwt import SignJwt
from keystead.keys.framing.ssh_ca import SignSshCa
from keystead.keys.framing.tls import TlsResult
from keystead.keys.operations import FACTS
from keystead.keys.purposes import Purpose
from keystead.keys.use import Asked, proof_message
from unit.client.fake import RECEIPT, FakeNode, answered, handle_for, problem

TLS_RESULT = {"scheme": 0x0807, "signature": "AQID"}
DATA, JWT, TLS = (handle_for(p) for p in (Purpose.DATA, Purpose.JWT, Purpose.TLS))
READY = httpx.Response(200, json={"ready": True, "reasons": [], "deployment": "dep-1"})


def one_of_each() -> list[Use[Any]]:
    ca, ssh = handle_for(Purpose.CA), handle_for(Purpose.SSH_CA)
    certificate = CertificateRequest(csr="PEM", lifetime_s=60)
    ssh_request = SignSshCa(
        public_key="ssh-ed25519 AA", key_id="u", principals=("u",), lifetime_s=9
    )
    return [
        operations.sign_tls(TLS, bytes(32), role="client", context="a"),
        operations.sign_ca(ca, certificate, context="a"),
        operations.sign_ca(ca, CrlRequest(revoked=()), context="a"),
        operations.sign_jwt(JWT, {"sub": "u1", "n": [1, {"x": None}]}, context="a"),
        operations.sign_firmware(
            handle_for(Purpose.FIRMWARE), "router", 7, sha256=bytes(32), size=1, context="a"
        ),
        operations.append_ledger(handle_for(Purpose.LEDGER), b"entry", context="a"),
        operations.sign_ssh_ca(ssh, ssh_request, context="a"),
        operations.wrap(DATA, b"\x00\xff", context="a"),
        operations.unwrap(DATA, "ksw1.AA", context="a"),
        operations.derive(DATA, length=16, info=b"i", context="a"),
        operations.mac(DATA, b"m", tag=bytes(32), context="a"),
    ]


def test_a_use_is_sent_as_the_api_has_it() -> None:
    node = FakeNode(answered(TLS_RESULT))
    used: Used[TlsResult] = node.client().sign_tls(
        TLS, b"\x22" * 32, context="web/eu", reason="why", key_version=3, idempotency_key="once-1"
    )
    assert used.result == TlsResult(scheme=0x0807, signature=b"\x01\x02\x03")
    assert (used.receipt.seq, used.receipt.kid, used.receipt.replayed) == (7, "kid-1", False)
    request = node.requests[0]
    assert (request.method, str(request.url)) == ("POST", "https://node.example/v1/tls/sign")
    assert request.headers["authorization"] == f"Bearer {TLS.reveal()}"
    assert request.headers["idempotency-key"] == "once-1"
    assert request.headers["content-type"] == "application/json"
    assert "keystead-proof" not in request.headers
    assert node.bodies[0] == {
        "context": "web/eu",
        "facts": {
            "role": "server",
            "transcript_hash": base64.b64encode(b"\x22" * 32).decode(),
        },
        "version": 3,
        "reason": "why",
    }


@pytest.mark.parametrize("use", one_of_each(), ids=lambda use: f"{use.purpose}.{use.operation}")
def test_every_operation_sends_facts_that_the_node_reads(use: Use[Any]) -> None:
    facts = msgspec.json.decode(use.facts, type=FACTS[use.purpose, use.operation])
    assert isinstance(facts, use.facts_type)
    assert use.handle.body.purpose == use.purpose


def test_retries_keep_the_idempotency_key() -> None:
    lost = httpx.ReadTimeout("late")
    node = FakeNode(lost, problem("overloaded"), httpx.ConnectError("gone"), answered({"tag": ""}))
    node.client().mac(DATA, b"m", context="a")
    keys = node.sent("idempotency-key")
    assert len(keys) == 4
    assert len(set(keys)) == 1
    assert len(str(keys[0])) == 22
    assert len({bytes(request.content) for request in node.requests}) == 1


def test_each_use_has_its_own_key_and_keeps_it() -> None:
    first, second = (operations.mac(DATA, b"m", context="a") for _ in range(2))
    assert first.idempotency_key != second.idempotency_key
    node = FakeNode(problem("handle_revoked", status=403), answered({"tag": "AA=="}))
    client = node.client()
    with pytest.raises(HandleRevoked):
        client.run(first)
    assert client.run(first).result.tag == b"\x00"
    assert node.sent("idempotency-key") == [first.idempotency_key] * 2


def test_a_refusal_is_its_own_class() -> None:
    node = FakeNode(problem("context_mismatch", status=403, detail="not here"))
    with pytest.raises(ContextMismatch, match=r"not here\. what to do") as caught:
        node.client().wrap(DATA, b"x", context="b")
    assert caught.value.__notes__ == ["request id r-9"]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"result": TLS_RESULT}),
        httpx.Response(200, json={"result": {"scheme": "x"}, "receipt": RECEIPT}),
        httpx.Response(200, json=[]),
    ],
)
def test_an_answer_of_another_shape_is_refused(answer: httpx.Response) -> None:
    with pytest.raises(ServiceError, match="expect"):
        FakeNode(answer).client().sign_tls(TLS, bytes(32), context="a")


# --- what cannot be sent -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        {"x": float("nan")},
        {"x": float("inf")},
        {"x": b"bytes"},
        {"x": object()},
        {"x": "\ud800"},
        {"x": 2**70},
    ],
)
def test_claims_that_json_cannot_say_are_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequest, match="expected"):
        operations.sign_jwt(JWT, claims, context="a")


@pytest.mark.parametrize("key", ["", " a", "a\n", "é", "x" * 65])
def test_idempotency_keys_are_held_to_what_a_header_takes(key: str) -> None:
    with pytest.raises(MalformedRequest, match="idempotency key"):
        operations.mac(DATA, b"m", context="a", idempotency_key=key)


def test_what_is_no_handle_is_refused_unsent() -> None:
    with pytest.raises(HandleInvalid):
        operations.mac("kso1.operator", b"m", context="a")


def test_options_are_not_swallowed() -> None:
    with pytest.raises(TypeError, match="context"):
        operations.mac(DATA, b"m")  # type: ignore[call-arg]  # the context is what is missing
    with pytest.raises(TypeError, match="verison"):
        operations.mac(DATA, b"m", context="a", verison=1)  # type: ignore[call-arg]  # a typo


# --- what is printed -----------------------------------------------------------------------------


def test_no_token_and_no_plaintext_is_printed() -> None:
    secret = base64.b64encode(b"s3cret plaintext").decode()
    node = FakeNode(answered({"plaintext": secret}))
    client = node.client(operator="kso1.s3cret")
    use = operations.wrap(DATA, b"s3cret plaintext", context="a")
    used: Used[UnwrapResult] = client.unwrap(DATA.reveal(), "ksw1.s3cret", context="a")
    assert used.result.plaintext == b"s3cret plaintext"
    many = operations.batch([use])
    for value in (client, use, used, many, [use], {"x": used}, DATA, use.handle):
        for text in (repr(value), str(value)):
            assert "s3cret" not in text
            assert secret not in text
            assert DATA.reveal() not in text
            assert b64u_encode(DATA.chain_tag) not in text


# --- batches -------------------------------------------------------------------------------------


def batch_answer(request: httpx.Request) -> httpx.Response:
    """Answers a wrap by its plaintext; a plaintext of ``no`` is refused."""
    results: list[object] = []
    for item in json.loads(request.content)["items"]:
        text = base64.b64decode(item["facts"]["plaintext"]).decode()
        if text == "no":
            results.append({"problem": {"code": "context_mismatch", "detail": "not here"}})
        else:
            results.append({"result": {"wrapped": text}, "receipt": RECEIPT})
    return httpx.Response(200, json={"results": results})


def wraps(*texts: str) -> list[Use[WrapResult]]:
    return [operations.wrap(DATA, text.encode(), context="a") for text in texts]


def told(found: list[Used[Any] | KeysteadError]) -> list[str]:
    return [type(f).__name__ if isinstance(f, KeysteadError) else f.result.wrapped for f in found]


def test_a_batch_answers_in_order_with_problems_in_their_place() -> None:
    node = FakeNode(batch_answer)
    found = node.client().batch(wraps("a", "no", "b"))
    assert told(found) == ["a", "ContextMismatch", "b"]
    assert str(node.requests[0].url).endswith("/v1/batch")


def test_a_batch_sends_each_use_under_its_own_key_and_handle() -> None:
    other = attenuate(DATA, Narrowing(context_prefix="a"))
    uses = [*wraps("a"), operations.wrap(other, b"b", context="a", reason="why", key_version=2)]
    node = FakeNode(batch_answer)
    node.client().batch(uses)
    first, second = node.bodies[0]["items"]
    assert node.sent("authorization") == [f"Bearer {DATA.reveal()}"]
    assert node.sent("idempotency-key") == [None]
    assert "handle" not in first
    assert second["handle"] == other.reveal()
    assert (second["version"], second["reason"]) == (2, "why")
    assert [first["idempotency_key"], second["idempotency_key"]] == [
        use.idempotency_key for use in uses
    ]
    assert (first["purpose"], first["operation"], first["context"]) == ("data", "wrap", "a")


def test_no_uses_are_no_request() -> None:
    assert FakeNode().client().batch([]) == []


def test_a_long_batch_goes_in_chunks_and_comes_back_whole() -> None:
    texts = [str(n) for n in range(2 * limits.BATCH_ITEMS_MAX + 5)]
    node = FakeNode(batch_answer, batch_answer, batch_answer)
    assert told(node.client().batch(wraps(*texts))) == texts
    assert [len(body["items"]) for body in node.bodies] == [1000, 1000, 5]


def test_a_heavy_batch_is_cut_by_bytes() -> None:
    texts = [letter * (limits.DATA_BYTES_MAX * 3 // 4) for letter in "abcdefg"]
    node = FakeNode(*[batch_answer] * 3)
    assert told(node.client().batch(wraps(*texts))) == texts
    assert [len(body["items"]) for body in node.bodies] == [3, 3, 1]
    assert all(len(request.content) <= limits.BODY_BYTES_MAX for request in node.requests)


def test_a_chunk_that_fails_does_not_take_the_others_along() -> None:
    texts = [str(n) for n in range(limits.BATCH_ITEMS_MAX + 2)]
    node = FakeNode(*[problem("overloaded")] * 4, batch_answer)
    found = told(node.client().batch(wraps(*texts)))
    assert found[:1000] == [Overloaded.__name__] * 1000
    assert found[1000:] == texts[1000:]


def test_a_batch_is_sent_again_under_the_same_keys() -> None:
    node = FakeNode(httpx.ReadError("cut"), batch_answer)
    assert told(node.client().batch(wraps("a", "b"))) == ["a", "b"]
    assert node.bodies[0] == node.bodies[1]


def test_a_batch_answer_of_another_length_is_refused() -> None:
    answer = httpx.Response(200, json={"results": []})
    assert told(FakeNode(answer).client().batch(wraps("a", "b"))) == ["ServiceError"] * 2


def test_one_unreadable_result_is_one_error() -> None:
    results = [{"result": {"wrapped": 1}, "receipt": RECEIPT}, {"result": {"wrapped": "b"}}]
    results.append({"result": {"wrapped": "c"}, "receipt": RECEIPT})
    answer = httpx.Response(200, json={"results": results})
    found = told(FakeNode(answer).client().batch(wraps("a", "b", "c")))
    assert found == ["ServiceError", "ServiceError", "c"]


# --- proof of possession -------------------------------------------------------------------------


def bound_to_key() -> tuple[ed25519.Ed25519PrivateKey, Narrowing]:
    key = ed25519.Ed25519PrivateKey.generate()
    value = b64u_encode(key.public_key().public_bytes_raw())
    return key, Narrowing(bound_to=Binding(kind="ed25519", value=value))


def check_proof(
    key: ed25519.Ed25519PrivateKey, use: Use[Any], proof: dict[str, Any], facts: bytes
) -> None:
    asked = Asked(purpose=use.purpose, operation=use.operation, context="a", version=use.version)
    message = proof_message(
        "dep-1", use.handle.chain_id, asked, facts, use.idempotency_key, proof["time_ms"]
    )
    key.public_key().verify(base64.b64decode(proof["signature"]), message)
    assert "certificate" not in proof


def test_a_bound_handle_proves_each_try_and_asks_for_the_deployment_once() -> None:
    key, narrowing = bound_to_key()
    handle = attenuate(JWT, narrowing)
    claims = {"sub": "u1", "f": 1.0, "list": (1, 2)}
    token = answered({"token": "t"})
    node = FakeNode(READY, problem("overloaded"), token, token)
    client = node.client(bound=Bound(key.sign, certificate=b"unused"))
    uses = [operations.sign_jwt(handle, claims, context="a", key_version=2) for _ in range(2)]
    for use in uses:
        client.run(use)
    paths = [request.url.path for request in node.requests]
    assert paths == ["/ready", "/v1/jwt/sign", "/v1/jwt/sign", "/v1/jwt/sign"]
    assert node.sent("authorization")[0] is None
    for request, use in zip(node.requests[1:], [uses[0], *uses], strict=True):
        proof = json.loads(b64u_decode(request.headers["keystead-proof"]))
        # The facts as the node reads them from the body.
        read = msgspec.convert(json.loads(request.content)["facts"], SignJwt)
        check_proof(key, use, proof, msgspec.msgpack.encode(read))


def test_a_node_that_is_not_ready_still_says_what_it_is_called() -> None:
    key, narrowing = bound_to_key()
    unready = {"ready": False, "reasons": ["why"], "deployment": ""}
    node = FakeNode(
        httpx.Response(503, json=unready),
        httpx.Response(503, text="<html>"),
        httpx.Response(503, json=unready | {"deployment": "dep-1"}),
        answered({"tag": ""}),
    )
    handle = attenuate(DATA, narrowing)
    used = node.client(bound=Bound(key.sign)).mac(handle, b"m", context="a")
    assert used.receipt.seq == 7


def test_a_certificate_goes_along_where_the_handle_is_bound_to_one() -> None:
    narrowing = Narrowing(bound_to=Binding(kind="certificate", value=b64u_encode(bytes(32))))
    handle = attenuate(DATA, narrowing)
    node = FakeNode(READY, answered({"tag": ""}))
    node.client(bound=Bound(lambda _: b"sig", certificate=b"DER")).mac(handle, b"m", context="a")
    proof = json.loads(b64u_decode(node.requests[1].headers["keystead-proof"]))
    assert base64.b64decode(proof["certificate"]) == b"DER"


def test_a_batch_proves_its_bound_uses_only() -> None:
    key, narrowing = bound_to_key()
    bound = operations.wrap(attenuate(DATA, narrowing), b"b", context="a")
    node = FakeNode(READY, batch_answer)
    node.client(bound=Bound(key.sign)).batch([*wraps("a"), bound])
    first, second = node.bodies[1]["items"]
    assert "proof" not in first
    facts = msgspec.msgpack.encode(msgspec.json.decode(bound.facts, type=bound.facts_type))
    check_proof(key, bound, second["proof"], facts)


def test_an_unbound_handle_proves_nothing() -> None:
    node = FakeNode(answered({"tag": ""}))
    node.client(bound=Bound(lambda _: pytest.fail("asked to sign"))).mac(DATA, b"m", context="a")
    assert node.sent("keystead-proof") == [None]


def test_who_is_bound_prints_without_its_key() -> None:
    assert repr(Bound(lambda _: b"s3cret", certificate=b"s3cret")) == "<Bound to a certificate>"
