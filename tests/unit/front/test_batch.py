from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from keystead import limits
from keystead.frames.messages import Answer, Proof, Refused, Request, Use
from keystead.front.http import Front
from unit.front.fake_vault import RECEIPT, FakeVault, done
from unit.front.test_dataplane import check_problem

pytestmark = pytest.mark.anyio


def item(**more: object) -> dict[str, object]:
    return {
        "purpose": "jwt",
        "operation": "sign",
        "context": "web/eu",
        "facts": {"claims": {}},
        **more,
    }


async def post(client: httpx.AsyncClient, *items: dict[str, object]) -> list[dict[str, Any]]:
    response = await client.post("/v1/batch", json={"items": items})
    assert response.status_code == 200, response.text
    answers: list[dict[str, Any]] = response.json()["results"]
    return answers


async def test_items_travel_in_one_frame_and_keep_their_order(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    vault.respond = lambda request: done(
        request, {"context": request.context if isinstance(request, Use) else ""}, RECEIPT
    )
    answers = await post(client, *(item(context=f"web/{n}") for n in range(100)))
    assert [answer["result"]["context"] for answer in answers] == [f"web/{n}" for n in range(100)]
    assert all(answer["receipt"]["seq"] == 7 for answer in answers)
    assert [len(frame) for frame in vault.frames] == [100]


async def test_the_largest_batch_is_one_frame(vault: FakeVault, client: httpx.AsyncClient) -> None:
    answers = await post(client, *(item() for _ in range(limits.BATCH_ITEMS_MAX)))
    assert len(answers) == limits.BATCH_ITEMS_MAX
    assert [len(frame) for frame in vault.frames] == [limits.BATCH_ITEMS_MAX]


async def test_items_fail_alone(vault: FakeVault, client: httpx.AsyncClient) -> None:
    def refuse_some(request: Request) -> Answer:
        if isinstance(request, Use) and request.context == "bad":
            return Refused(request.id, "context_mismatch", "elsewhere", request_id="r2")
        return done(request, {"token": "t"}, RECEIPT)

    vault.respond = refuse_some
    answers = await post(
        client,
        item(),
        item(context="bad"),
        item(facts={"claims": 1}),
        item(operation="wrap"),
        item(handle="a" * limits.HANDLE_BYTES_MAX),
        item(),
    )
    codes = [answer.get("problem", {}).get("code", "ok") for answer in answers]
    assert codes == [
        "ok",
        "context_mismatch",
        "malformed_request",
        "malformed_request",
        "ok",
        "ok",
    ]
    assert answers[1]["problem"]["status"] == 403
    assert answers[1]["problem"]["request_id"] == "r2"
    assert len(vault.uses) == 4


async def test_items_have_their_own_handle_key_and_proof(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    proof = {"time_ms": 5, "signature": "c2ln", "certificate": "ZGVy"}
    await post(client, item(handle="ks1.own", idempotency_key="k", proof=proof, reason="r"), item())
    own, default = vault.uses
    assert (own.handle, own.idempotency_key, own.reason) == ("ks1.own", "k", "r")
    assert own.proof == Proof(5, b"sig", b"der")
    assert (default.handle, default.idempotency_key, default.proof) == ("ks1.abc", None, None)


async def test_an_item_without_any_handle_is_unauthenticated(front: Front) -> None:
    transport = httpx.ASGITransport(app=front)  # type: ignore[arg-type]  # a dict is a MutableMapping
    async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
        answers = await post(client, item(), item(handle="ks1.own"))
    assert answers[0]["problem"]["code"] == "unauthenticated"
    assert answers[1]["result"]["token"] == "t"


async def test_a_batch_of_bad_items_is_no_frame(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    [answer] = await post(client, item(purpose="vpn"))
    assert answer["problem"]["code"] == "malformed_request"
    assert vault.frames == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"items": []}, 400, "malformed_request"),
        ({}, 400, "malformed_request"),
        ({"items": [item(version="1")]}, 400, "malformed_request"),
        ({"items": [item(more=1)]}, 400, "malformed_request"),
        ({"items": [item()] * (limits.BATCH_ITEMS_MAX + 1)}, 429, "limit_exceeded"),
    ],
)
async def test_a_malformed_batch_is_refused_whole(
    vault: FakeVault, client: httpx.AsyncClient, body: object, status: int, code: str
) -> None:
    check_problem(await client.post("/v1/batch", json=body), status, code)
    assert vault.frames == []


@pytest.mark.parametrize("header", ["idempotency-key", "keystead-proof"])
async def test_a_batch_has_no_key_or_proof_of_its_own(
    client: httpx.AsyncClient, header: str
) -> None:
    response = await client.post("/v1/batch", json={"items": [item()]}, headers={header: "a"})
    check_problem(response, 400, "malformed_request")


async def test_a_restart_leaves_every_item_unknown(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    vault.hold()
    call = asyncio.create_task(post(client, item(), item()))
    await vault.arrived(2)
    vault.drop()
    assert [answer["problem"]["code"] for answer in await call] == ["log_unavailable"] * 2
