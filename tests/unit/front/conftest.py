"""A front in this process, with a fake vault behind it and a client before it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from keystead.front.http import Front
from keystead.net.link import VaultLink
from unit.front.fake_vault import FakeVault


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[FakeVault]:
    fake = FakeVault(tmp_path / "vault.sock")
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def link(vault: FakeVault) -> AsyncIterator[VaultLink]:
    opened = VaultLink(str(vault.path))
    await opened.start()
    yield opened
    await opened.close()


@pytest.fixture
def front(link: VaultLink) -> Front:
    return Front(link)


@pytest.fixture
async def client(front: Front) -> AsyncIterator[httpx.AsyncClient]:
    # The front answers for every fault itself; the transport would raise it again.
    transport = httpx.ASGITransport(app=front, raise_app_exceptions=False)  # type: ignore[arg-type]  # a dict is a MutableMapping
    async with httpx.AsyncClient(
        transport=transport,
        base_url="http://front",
        headers={"authorization": "Bearer ks1.abc"},
    ) as opened:
        yield opened
