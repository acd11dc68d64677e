"""What fuzzing and a schema checker found in the admin plane, each found once and for all."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from keystead.front.http import Front
from unit.front.fake_vault import FakeVault
from unit.front.test_dataplane import check_problem
from unit.front.test_limits import raw_request

pytestmark = pytest.mark.anyio

PAST_64_BITS = (2**64, 10**30, -(2**63) - 1)


@pytest.mark.parametrize("number", PAST_64_BITS)
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/keys/web/moves", {"move": "suspend", "reason": "x", "version": None}),
        ("/v1/handles", {"key": "web", "principal": "p", "ttl_s": None}),
    ],
)
async def test_a_number_that_no_frame_holds_is_malformed(
    vault: FakeVault, client: httpx.AsyncClient, path: str, fields: dict[str, Any], number: int
) -> None:
    body = {name: number if value is None else value for name, value in fields.items()}
    check_problem(await client.post(path, json=body), 400, "malformed_request")
    assert vault.requests == []


@pytest.mark.parametrize("before", [*PAST_64_BITS, 2**63, -1])
async def test_a_place_in_the_log_fits_a_database(
    vault: FakeVault, client: httpx.AsyncClient, before: int
) -> None:
    response = await client.get("/v1/log", params={"before": before})
    check_problem(response, 400, "malformed_request")
    assert vault.requests == []


@pytest.mark.parametrize("query", [b"limit=\xff", b"\xc3\xa9", b"limit=x\x80&tenant=\xff"])
async def test_a_query_is_ascii(vault: FakeVault, front: Front, query: bytes) -> None:
    scope = raw_request(authorization="Bearer kso1.a")
    start, body = await exchange_with(front, {**scope, "method": "GET", "path": "/v1/keys"}, query)
    assert start["status"] == 400
    assert json.loads(body["body"])["code"] == "malformed_request"
    assert vault.requests == []


async def exchange_with(front: Front, scope: dict[str, Any], query: bytes) -> list[dict[str, Any]]:
    """What the front sends for a query that no client library would write."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await front({**scope, "query_string": query}, receive, send)
    return sent


@pytest.mark.parametrize(
    "path", ["/v1/keys?limt=5", "/v1/log?keys=web", "/v1/keys/web?name=x", "/v1/handles/h?desk=1"]
)
async def test_a_filter_with_a_wrong_name_is_refused(
    vault: FakeVault, client: httpx.AsyncClient, path: str
) -> None:
    problem = check_problem(await client.get(path), 400, "malformed_request")
    assert path.partition("?")[2].partition("=")[0] not in problem["detail"]
    assert vault.requests == []


@pytest.mark.parametrize("path", ["/v1/keys/{}", "/v1/handles/{}"])
async def test_a_token_in_place_of_a_name_is_not_quoted(
    vault: FakeVault, client: httpx.AsyncClient, path: str
) -> None:
    token = "kso1.LS0tLS1hLXRva2VuLXRoYXQtaXMtc2VjcmV0LS0tLS0"
    problem = check_problem(await client.get(path.format(token)), 400, "malformed_request")
    assert token not in str(problem)
    assert vault.requests == []


async def test_a_batch_answers_under_the_name_it_documents(client: httpx.AsyncClient) -> None:
    api = (await client.get("/openapi.json")).json()
    answer = api["paths"]["/v1/batch"]["post"]["responses"]["200"]["content"]["application/json"]
    item = {"purpose": "jwt", "operation": "sign", "context": "a", "facts": {"claims": {}}}
    response = await client.post("/v1/batch", json={"items": [item]})
    assert set(response.json()) == set(answer["schema"]["required"]) == {"results"}
