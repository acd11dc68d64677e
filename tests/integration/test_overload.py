"""Far more load than a node can serve: it says no by reason, serves on, and can be stopped."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from integration.node import Node
from keystead.errors import HandleRevoked

pytestmark = pytest.mark.slow

CLIENTS = 64
SECONDS = 6.0
USE = {
    "purpose": "tls",
    "operation": "sign",
    "context": "load",
    "facts": {"role": "server", "transcript_hash": "A" * 43 + "="},
}
BATCH = {"items": [USE] * 10}


async def hammer(http: httpx.AsyncClient, token: str, until_s: float, seen: Counter[int]) -> None:
    """Ask again at once, whatever the answer: no Retry-After is kept to."""
    headers = {"authorization": f"Bearer {token}"}
    while time.monotonic() < until_s:
        answer = await http.post("/v1/batch", json=BATCH, headers=headers)
        seen[answer.status_code] += 1


async def flood(url: str, token: str, seen: Counter[int]) -> None:
    bounds = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=url, limits=bounds, timeout=60) as http:
        until_s = time.monotonic() + SECONDS
        await asyncio.gather(*(hammer(http, token, until_s, seen) for _ in range(CLIENTS)))


def test_a_flood_is_refused_by_reason_and_a_stop_command_goes_through(tmp_path: Path) -> None:
    """Ten RSA signatures take tens of milliseconds: a few clients are a flood on any machine."""
    node = Node(tmp_path / "data")
    seen: Counter[int] = Counter()
    with node, node.client() as operator:
        operator.create_key("load", "tls", algorithm="rsa-pss-3072-sha256")
        loading = operator.issue_handle("load", "crowd").handle
        victim = operator.issue_handle("load", "victim")

        async def run() -> float:
            load = asyncio.create_task(flood(node.url, loading.reveal(), seen))
            await asyncio.sleep(SECONDS / 2)
            begun = time.monotonic()
            await asyncio.to_thread(operator.revoke_handle, victim.link, reason="test")
            took_s = time.monotonic() - begun
            async with httpx.AsyncClient(base_url=node.url, timeout=60) as http:
                assert (await http.get("/health")).status_code == 200
                assert (await http.get("/ready")).status_code == 200
                page = (await http.get("/metrics")).text
            await load
            assert 'keystead_front_refusals_total{reason="queue_delay"}' in page
            return took_s

        took_s = asyncio.run(run())
        with pytest.raises(HandleRevoked):
            operator.sign_tls(victim.handle, bytes(32), context="load")
    assert set(seen) == {200, 503}
    assert seen[200] > CLIENTS
    assert took_s < SECONDS / 2, "the revocation waited for the flood to end"
