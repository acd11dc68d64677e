from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import msgspec
import pytest

from keystead import limits
from keystead.encoding import b64u_encode
from keystead.frames.messages import Answer, Proof, Refused, Request, Use
from keystead.front.http import Front
from keystead.keys.operations import FACTS
from keystead.keys.purposes import SIGNALS
from keystead.net.link import VaultLink
from unit.front.fake_vault import RECEIPT, FakeVault, done

pytestmark = pytest.mark.anyio

JWT = {"context": "web/eu", "facts": {"claims": {"sub": "a"}}}
MAC = {"context": "web/eu", "facts": {"message": base64.b64encode(b"hello").decode()}}


def check_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code
    assert problem["type"] == f"urn:keystead:problem:{code}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    return problem


async def test_a_use_reaches_the_vault_and_its_result_the_caller(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    proof = {"time_ms": 5, "signature": base64.b64encode(b"sig").decode()}
    response = await client.post(
        "/v1/data/mac",
        json={**MAC, "version": 2, "reason": "order 7"},
        headers={
            "idempotency-key": "once",
            "keystead-proof": b64u_encode(json.dumps(proof).encode()),
        },
    )
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert body["result"] == {"token": "t", "raw": "AAE="}
    assert body["receipt"] == {
        "seq": 7,
        "epoch": 3,
        "key": "web",
        "version": 1,
        "kid": "k1",
        "algorithm": "ecdsa-p256-sha256",
        "ack": "durable",
        "request_id": "r1",
        "replayed": False,
        "node": "",
    }
    [use] = vault.uses
    assert use == Use(
        id=use.id,
        handle="ks1.abc",
        purpose="data",
        operation="mac",
        context="web/eu",
        facts=msgspec.msgpack.encode({"message": b"hello", "tag": None}),
        version=2,
        idempotency_key="once",
        reason="order 7",
        proof=Proof(5, b"sig"),
    )


async def test_every_operation_has_a_route(client: httpx.AsyncClient) -> None:
    for purpose, operation in FACTS:
        if operation in SIGNALS:
            continue
        response = await client.get(f"/v1/{purpose}/{operation}")
        check_problem(response, 405, "malformed_request")
        assert response.headers["allow"] == "POST"


async def test_a_use_without_a_receipt_says_so(vault: FakeVault, client: httpx.AsyncClient) -> None:
    vault.respond = lambda request: done(request, {"token": "t"})
    answer = (await client.post("/v1/jwt/sign", json=JWT)).json()
    assert answer == {"result": {"token": "t"}, "receipt": None}


async def test_facts_may_be_left_at_their_defaults(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    response = await client.post("/v1/data/derive", json={"context": "a", "facts": {}})
    assert response.status_code == 200
    assert msgspec.msgpack.decode(vault.uses[0].facts) == {"length": 32, "info": b""}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/jwt/sign", b'{"context":"a","facts":{"claims":{"sub":"a","sub":"b"}}}'),
        ("/v1/jwt/sign", b'{"context":"a","facts":{"claims":{"x":{"y":1,"y":2}}}}'),
        (
            "/v1/jwt/sign",
            b'{"context":"a","facts":{"claims":{"x":' + b"[" * 17 + b"]" * 17 + b"}}}",
        ),
        ("/v1/jwt/sign", b'{"context":"a","facts":{"claims":{"x":NaN}}}'),
        ("/v1/jwt/sign", b'{"context":"a","facts":{"claims":{"x":' + b"9" * 30 + b"}}}"),
        ("/v1/jwt/sign", b'{"context":"a","facts":{"claims":{"x":"\\ud800"}}}'),
        ("/v1/jwt/sign", b'{"context":"a","facts":{"claims":{"x":"\xff"}}}'),
        ("/v1/jwt/sign", b'{"context":"a","facts":{"claims":[]}}'),
        ("/v1/jwt/sign", b'{"context":"a","facts":{"claims":{},"typ":"at-jwt"}}'),
        ("/v1/jwt/sign", b'{"context":"a","facts":{"claims":{},"header":{}}}'),
        ("/v1/jwt/sign", b'{"context":"a","facts":' + b"[" * 100_000),
        ("/v1/data/mac", b'{"context":"a","facts":{"message":"not base64"}}'),
        ("/v1/data/mac", b'{"context":"a","facts":{"message":"AA==","more":1}}'),
        ("/v1/data/mac", b'{"context":"a","facts":{}}'),
        ("/v1/data/mac", b'{"context":"a","facts":{"message":"\xff"}}'),
        ("/v1/data/mac", b'{"context":"a","facts":{"message":"AA=="},"more":1}'),
        ("/v1/data/mac", b'{"context":"a","facts":{"message":"AA=="},"version":-1}'),
        ("/v1/data/mac", b'{"context":"a","facts":{"message":"AA=="},"version":"1"}'),
        ("/v1/data/mac", b'{"context":"","facts":{"message":"AA=="}}'),
        ("/v1/data/mac", b'{"context":"\xff","facts":{"message":"AA=="}}'),
        ("/v1/data/mac", b'{"facts":{"message":"AA=="}}'),
        ("/v1/data/mac", b'{"context":"a"}'),
        ("/v1/data/mac", b'{"context":"a","facts":{"message":"AA=="}'),
        ("/v1/data/mac", b"[]"),
        ("/v1/data/mac", b""),
    ],
)
async def test_what_does_not_parse_is_refused_before_the_vault(
    vault: FakeVault, client: httpx.AsyncClient, path: str, body: bytes
) -> None:
    response = await client.post(path, content=body, headers={"content-type": "application/json"})
    check_problem(response, 400, "malformed_request")
    assert vault.frames == []


@pytest.mark.parametrize(
    "facts",
    [
        {"role": "hunter2", "transcript_hash": "AAAA"},
        {"role": "server", "transcript_hash": "AAAA", "hunter2 is the password": 1},
        {"role": "server", "transcript_hash": "AAAA", "hunter2" * 9: 1},
    ],
)
async def test_refusals_do_not_echo_values(
    client: httpx.AsyncClient, facts: dict[str, object]
) -> None:
    response = await client.post("/v1/tls/sign", json={"context": "a", "facts": facts})
    check_problem(response, 400, "malformed_request")
    assert "hunter2" not in response.text


async def test_an_unknown_field_is_named(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/jwt/sign", json={**JWT, "contxt": "a"})
    assert "`contxt`" in check_problem(response, 400, "malformed_request")["detail"]


@pytest.mark.parametrize("value", ["Basic abc", "Bearer", "Bearer ", "ks1.abc"])
async def test_another_scheme_is_unauthenticated(
    vault: FakeVault, client: httpx.AsyncClient, value: str
) -> None:
    response = await client.post("/v1/jwt/sign", json=JWT, headers={"authorization": value})
    check_problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"] == 'Bearer realm="keystead"'
    assert vault.frames == []


async def test_no_handle_is_unauthenticated(front: Front) -> None:
    transport = httpx.ASGITransport(app=front)  # type: ignore[arg-type]  # a dict is a MutableMapping
    async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
        response = await client.post("/v1/jwt/sign", json=JWT)
    check_problem(response, 401, "unauthenticated")


async def test_a_huge_handle_is_invalid(client: httpx.AsyncClient) -> None:
    token = "ks1." + "a" * limits.HANDLE_BYTES_MAX
    response = await client.post(
        "/v1/jwt/sign", json=JWT, headers={"authorization": f"Bearer {token}"}
    )
    check_problem(response, 401, "handle_invalid")
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


@pytest.mark.parametrize("kind", ["text/plain", "", "application/jsonp", "multipart/form-data"])
async def test_another_content_type_is_refused(client: httpx.AsyncClient, kind: str) -> None:
    response = await client.post(
        "/v1/jwt/sign", content=json.dumps(JWT), headers={"content-type": kind}
    )
    check_problem(response, 415, "malformed_request")


async def test_a_content_type_may_name_its_charset(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/v1/jwt/sign",
        content=json.dumps(JWT),
        headers={"content-type": "Application/JSON; charset=utf-8"},
    )
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/v1/vpn/sign", "/v1/jwt/wrap", "/v1/nothing/here"])
async def test_an_unknown_operation_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    problem = check_problem(await client.post(path, json=JWT), 404, "not_found")
    assert "jwt/sign" in problem["hint"]


@pytest.mark.parametrize("proof", ["%%%", "AAAA", b64u_encode(b'{"time_ms":1}')])
async def test_a_malformed_proof_is_refused(client: httpx.AsyncClient, proof: str) -> None:
    response = await client.post("/v1/jwt/sign", json=JWT, headers={"keystead-proof": proof})
    check_problem(response, 400, "malformed_request")


@pytest.mark.parametrize("key", ["", "a" * 65, "caf\u00e9"])
async def test_a_malformed_idempotency_key_is_refused(client: httpx.AsyncClient, key: str) -> None:
    response = await client.post(
        "/v1/jwt/sign", json=JWT, headers=[(b"idempotency-key", key.encode("latin-1"))]
    )
    check_problem(response, 400, "malformed_request")


@pytest.mark.parametrize(
    ("code", "status", "retried"),
    [
        ("malformed_request", 400, False),
        ("unauthenticated", 401, False),
        ("handle_invalid", 401, False),
        ("permission_denied", 403, False),
        ("purpose_mismatch", 403, False),
        ("context_mismatch", 403, False),
        ("algorithm_forbidden", 403, False),
        ("handle_expired", 403, False),
        ("handle_revoked", 403, False),
        ("approval_required", 403, False),
        ("not_found", 404, False),
        ("key_state", 409, False),
        ("replay_conflict", 409, False),
        ("conflict", 409, False),
        ("limit_exceeded", 429, True),
        ("overloaded", 503, True),
        ("reservation_ended", 503, True),
        ("custody_unavailable", 503, True),
        ("log_unavailable", 503, True),
        ("state_rolled_back", 503, False),
        ("internal", 500, False),
    ],
)
async def test_every_code_has_its_status(
    vault: FakeVault, client: httpx.AsyncClient, code: str, status: int, *, retried: bool
) -> None:
    vault.respond = lambda request: Refused(
        request.id, code, "what was met", "what to do", request_id="r9"
    )
    response = await client.post("/v1/jwt/sign", json=JWT)
    problem = check_problem(response, status, code)
    assert (problem["detail"], problem["hint"]) == ("what was met", "what to do")
    assert problem["request_id"] == "r9"
    assert ("retry-after" in response.headers) == retried
    assert ("www-authenticate" in response.headers) == (status == 401)


async def test_a_code_of_a_later_vault_is_internal(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    vault.respond = lambda request: Refused(request.id, "from_the_future", "what was met")
    check_problem(await client.post("/v1/jwt/sign", json=JWT), 500, "internal")


async def test_retry_after_is_in_whole_seconds(vault: FakeVault, client: httpx.AsyncClient) -> None:
    vault.respond = lambda request: Refused(request.id, "limit_exceeded", "m", retry_after_s=2.1)
    response = await client.post("/v1/jwt/sign", json=JWT)
    assert response.headers["retry-after"] == "3"


async def test_uses_of_one_turn_are_one_frame(vault: FakeVault, client: httpx.AsyncClient) -> None:
    await asyncio.gather(*(client.post("/v1/jwt/sign", json=JWT) for _ in range(16)))
    assert len(vault.uses) == 16
    assert len(vault.frames) == 1


async def test_a_restart_in_mid_call_is_a_problem(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    vault.hold()
    call = asyncio.create_task(client.post("/v1/jwt/sign", json=JWT))
    await vault.arrived(1)
    vault.drop()
    problem = check_problem(await call, 503, "log_unavailable")
    assert "idempotency key" in problem["hint"]


async def test_a_silent_vault_is_a_problem_in_time(vault: FakeVault, link: VaultLink) -> None:
    vault.hold()
    transport = httpx.ASGITransport(app=Front(link, timeout_s=0.05))  # type: ignore[arg-type]  # a dict is a MutableMapping
    async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
        response = await client.post(
            "/v1/jwt/sign", json=JWT, headers={"authorization": "Bearer ks1.a"}
        )
    problem = check_problem(response, 503, "log_unavailable")
    assert "outcome is unknown" in problem["detail"]


async def test_an_unforeseen_fault_is_internal_and_says_nothing(
    vault: FakeVault, client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    def garbled(request: Request) -> Answer:
        return done(request, None, RECEIPT) if not isinstance(request, Use) else _bad(request)

    vault.respond = garbled
    problem = check_problem(await client.post("/v1/jwt/sign", json=JWT), 500, "internal")
    assert problem["request_id"] in capsys.readouterr().out
    assert "msgpack" not in json.dumps(problem)


def _bad(request: Request) -> Answer:
    answer = done(request, None, RECEIPT)
    return msgspec.structs.replace(answer, result=b"\xc1")
