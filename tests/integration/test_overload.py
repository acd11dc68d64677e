"""Far more load than a node can serve: it says no by reason, serves on, and can be stopped."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from integration.node import Node
from keystead.errors import HandleRevoked

pytestmark = pytest.mark.slow

CLIENTS = 400
SECONDS = 8.0
USE = {"context": "load", "facts": {"role": "server", "transcript_hash": "A" * 43 + "="}}


async def hammer(address: tuple[str, int], request: bytes, seen: Counter[int]) -> None:
    """Ask again at once on one connection, whatever the answer: no Retry-After is kept to."""
    reader, writer = await asyncio.open_connection(*address)
    until_s = time.monotonic() + SECONDS
    while time.monotonic() < until_s:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None, head
        await reader.readexactly(int(length[1]))
        seen[int(head.split(b" ", 2)[1])] += 1
    writer.close()
    await writer.wait_closed()


async def flood(url: str, token: str, seen: Counter[int]) -> None:
    body = json.dumps(USE).encode()
    head = (
        "POST /v1/tls/sign HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    place = urlsplit(url)
    address = (str(place.hostname), int(place.port or 0))
    asked = head.encode() + body
    await asyncio.gather(*(hammer(address, asked, seen) for _ in range(CLIENTS)))


def test_a_flood_is_refused_by_reason_and_a_stop_command_goes_through(tmp_path: Path) -> None:
    """RSA signatures take a millisecond or more: so many clients are a flood on any machine."""
    node = Node(tmp_path / "data")
    seen: Counter[int] = Counter()
    with node, node.client() as operator:
        operator.create_key("load", "tls", algorithm="rsa-pss-2048-sha256")
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
                await load
                page = (await http.get("/metrics")).text
            assert 'keystead_front_refusals_total{reason="queue_delay"}' in page
            return took_s

        took_s = asyncio.run(run())
        with pytest.raises(HandleRevoked):
            operator.sign_tls(victim.handle, bytes(32), context="load")
    assert set(seen) == {200, 503}
    assert seen[200] > CLIENTS / 2
    assert took_s < SECONDS / 2, "the revocation waited for the flood to end"
