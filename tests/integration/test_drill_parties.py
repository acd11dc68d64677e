"""A drill's relying parties against a real node: what they count, refuse and report."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import msgspec
import pytest

from integration.node import Node
from keystead.client import AsyncClient, Client, Issued, Used
from keystead.drills.rotation.parties import ISSUER, Desk
from keystead.drills.rotation.trace import Act, Trace
from keystead.keys.framing.jwt import JwtResult
from keystead.keys.model import JwtPolicy, Policy

LIFETIME_S = 2

Visit = Callable[[Desk, AsyncClient, Issued], Coroutine[Any, Any, None]]


class Stale(httpx.AsyncHTTPTransport):
    """A cache on the way whose first answer for a key set is from before there were any keys."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/jwks.json"):
            self.asked += 1
            if self.asked == 1:
                headers = {"cache-control": "public, max-age=60", "etag": '"old"'}
                return httpx.Response(200, headers=headers, json={"keys": []})
        return await super().handle_async_request(request)


@pytest.fixture
def key(operator: Client) -> str:
    name = f"parties-{secrets.token_hex(4)}"
    policy = Policy(jwt=JwtPolicy(issuer=ISSUER, lifetime_max_s=LIFETIME_S))
    return operator.create_key(name, "jwt", tenant="drill", policy=policy).name


def visit(
    node: Node,
    operator: Client,
    key: str,
    what: Visit,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Trace:
    trace = Trace(run="r", key=key, acts=[Act(name="fault", title="", began_ms=0)])
    signer = operator.issue_handle(key, "signer")
    reporters = [
        operator.issue_handle(key, f"party-{number}", operations=("report",)) for number in (1, 2)
    ]

    async def run() -> None:
        async with AsyncClient(node.url, transport=transport) as client:
            await what(Desk(client, key, reporters, trace), client, signer)

    asyncio.run(run())
    return trace


async def sign(client: AsyncClient, signer: Issued, who: str = "one") -> Used[JwtResult]:
    return await client.sign_jwt(signer.handle, {"sub": who}, context="drill/r/1")


def test_a_token_is_verified_at_once_and_at_the_end_of_its_life(
    node: Node, operator: Client, key: str
) -> None:
    async def what(desk: Desk, client: AsyncClient, signer: Issued) -> None:
        await desk.take(await sign(client, signer), 1)
        desk.stop.set()
        await asyncio.wait_for(desk.verify_again(), LIFETIME_S + 1)

    trace = visit(node, operator, key, what)
    [token] = trace.signed
    assert (token.early, token.late, token.version) == (True, True, 1)
    assert (trace.unverified, trace.unknown, trace.fetches) == ([], 0, 1)


def test_a_key_id_that_the_held_set_lacks_is_counted_and_fetched_again(
    node: Node, operator: Client, key: str
) -> None:
    async def what(desk: Desk, client: AsyncClient, signer: Issued) -> None:
        for _ in range(2):
            await desk.take(await sign(client, signer), 1)

    trace = visit(node, operator, key, what, transport=Stale())
    assert trace.unknown == 1
    assert [token.early for token in trace.signed] == [True, True]


def test_a_token_that_does_not_verify_is_not_taken_for_one(
    node: Node, operator: Client, key: str
) -> None:
    async def what(desk: Desk, client: AsyncClient, signer: Issued) -> None:
        used = await sign(client, signer)
        other = await sign(client, signer, "another")
        head = used.result.token.rpartition(".")[0]
        mixed = f"{head}.{other.result.token.rpartition('.')[2]}"
        forged = msgspec.structs.replace(used.result, token=mixed)
        await desk.take(msgspec.structs.replace(used, result=forged), 1)

    trace = visit(node, operator, key, what)
    assert trace.signed[0].early is False
    assert trace.unverified[0].startswith("at once: ")
    assert trace.signed[0].late is None


def test_each_party_reports_a_rejected_version_once_and_when_it_may(
    node: Node, operator: Client, key: str
) -> None:
    recorded: list[str] = []

    async def what(desk: Desk, client: AsyncClient, signer: Issued) -> None:
        desk.reject(1)
        for _ in range(4):
            await desk.take(await sign(client, signer), 1)
        found = operator.log(key=key, operation="jwt.report")
        recorded.extend(record.principal for record in found)
        desk.let_report()
        for _ in range(4):
            await desk.take(await sign(client, signer), 1)

    trace = visit(node, operator, key, what)
    assert recorded == ["party-1"]
    told = trace.acts[0].told
    assert [one.principal for one in told] == ["party-1", "party-2"]
    assert all(one.counted and one.version == 1 for one in told)
    assert {one.cited for one in told} <= {token.seq for token in trace.signed}
    assert trace.rejected == 8
