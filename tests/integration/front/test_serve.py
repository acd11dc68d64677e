"""The front as a process, over real sockets, in front of a vault that holds no keys."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import pytest

from keystead import limits
from keystead.front.config import FrontConfig
from unit.front.fake_vault import FakeVault

pytestmark = pytest.mark.anyio

CODE = """
import sys, msgspec
from keystead.errors import StartupError
from keystead.front.config import FrontConfig
from keystead.front.serve import run
try:
    run(msgspec.json.decode(sys.argv[1], type=FrontConfig))
except StartupError as exc:
    sys.exit(str(exc))
"""
JWT = {"context": "web", "facts": {"claims": {}}}
HEADERS = {"authorization": "Bearer ks1.abc"}


class Running(NamedTuple):
    process: asyncio.subprocess.Process
    address: str


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[FakeVault]:
    fake = FakeVault(tmp_path / "vault.sock")
    await fake.start()
    yield fake
    await fake.stop()


async def spawn(config: FrontConfig) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CODE,
        msgspec.json.encode(config).decode(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # As its supervisor starts it; a confined process could not write its coverage either.
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@asynccontextmanager
async def running(config: FrontConfig) -> AsyncIterator[Running]:
    process = await spawn(config)
    assert process.stdout is not None
    line = await process.stdout.readline()
    try:
        if not line:
            _, err = await process.communicate()
            pytest.fail(f"the front did not start: {err.decode()}")
        ready = json.loads(line)
        assert ready["ready"] == "front"
        yield Running(process, ready["address"])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def finish(front: Running) -> tuple[int | None, bytes, bytes]:
    front.process.send_signal(signal.SIGTERM)
    out, err = await front.process.communicate()
    return front.process.returncode, out, err


async def test_it_serves_both_sockets_and_ends_quietly(vault: FakeVault, tmp_path: Path) -> None:
    path = tmp_path / "front.sock"
    async with running(FrontConfig(vault_socket=str(vault.path), unix_socket=str(path))) as front:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with httpx.AsyncClient(base_url=f"http://{front.address}", headers=HEADERS) as client:
            for _ in range(3):  # on one connection
                answer = await client.post("/v1/jwt/sign", json=JWT)
                assert answer.json()["result"]["token"] == "t"
                assert answer.headers["server"] == "keystead"
        local = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(
            transport=local, base_url="http://front", headers=HEADERS
        ) as client:
            assert (await client.post("/v1/jwt/sign", json=JWT)).status_code == 200
            assert (await client.get("/ready")).status_code == 200
            assert (await client.get("/v1/keys")).status_code == 200
        code, out, err = await finish(front)
    assert (code, out) == (0, b"")
    assert path.is_socket()  # a confined front removes nothing; whoever started it does
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events == ["vault_connected", "listening", "stopping", "stopped"]


async def test_large_bodies_and_headers_over_the_wire(vault: FakeVault) -> None:
    async with running(FrontConfig(vault_socket=str(vault.path))) as front:
        async with httpx.AsyncClient(base_url=f"http://{front.address}", headers=HEADERS) as client:
            large = {"context": "a", "facts": {"message": "A" * (limits.DATA_BYTES_MAX)}}
            assert (await client.post("/v1/data/mac", json=large)).status_code == 200
            too_long = await client.post(
                "/v1/data/mac",
                content=b" " * (limits.BODY_BYTES_MAX + 1),
                headers={"content-type": "application/json"},
            )
            assert too_long.status_code == 413
            assert too_long.json()["code"] == "limit_exceeded"
            headers = {"x-filler": "a" * (limits.HEADER_BYTES_MAX + 1)}
            assert (await client.get("/v1/keys", headers=headers)).status_code == 431
            headers = {"x-filler": "a" * (40 * limits.HEADER_BYTES_MAX)}
            assert (await client.get("/v1/keys", headers=headers)).status_code == 431
            assert (await client.get("/health")).status_code == 200
        await finish(front)


async def test_nothing_of_a_request_is_logged(vault: FakeVault, tmp_path: Path) -> None:
    log = tmp_path / "front.log"
    async with running(FrontConfig(vault_socket=str(vault.path), log_path=str(log))) as front:
        async with httpx.AsyncClient(base_url=f"http://{front.address}") as client:
            secret = {"authorization": "Bearer ks1.hunter2", "x-hunter2": "hunter2"}
            for path in ("/v1/jwt/sign", "/v1/keys", "/hunter2", "/v1/handles/hunter2"):
                await client.post(path, json={"hunter2": "hunter2"}, headers=secret)
            vault.raw = b"\xff\xff\xff\xff"
            await client.post("/v1/jwt/sign", json=JWT, headers=secret)
        code, out, err = await finish(front)
    assert (code, out, err) == (0, b"", b"")
    text = log.read_text()
    assert "vault_frame_malformed" in text
    assert "hunter2" not in text
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


async def test_it_lets_open_uses_finish(vault: FakeVault) -> None:
    vault.hold()
    async with running(FrontConfig(vault_socket=str(vault.path))) as front:
        async with httpx.AsyncClient(base_url=f"http://{front.address}", headers=HEADERS) as client:
            open_use = asyncio.create_task(client.post("/v1/jwt/sign", json=JWT))
            await vault.arrived(1)
            front.process.send_signal(signal.SIGTERM)
            refused = 0
            while not refused:  # the signal takes its time to arrive
                answer = await client.get("/v1/keys/web/public", timeout=0.5)
                refused = answer.status_code == 503
            await vault.release()
            assert (await open_use).status_code == 200
        await front.process.wait()
    assert front.process.returncode == 0


async def test_it_starts_before_its_vault(tmp_path: Path) -> None:
    fake = FakeVault(tmp_path / "vault.sock")
    async with running(FrontConfig(vault_socket=str(fake.path))) as front:
        async with httpx.AsyncClient(base_url=f"http://{front.address}") as client:
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/ready")).status_code == 503
            await fake.start()
            status = 503
            while status != 200:
                status = (await client.get("/ready")).status_code
        await finish(front)
        assert fake.requests
    await fake.stop()


async def test_tls_is_1_3_and_nothing_less(vault: FakeVault, tmp_path: Path) -> None:
    cert, key = str(tmp_path / "a.pem"), str(tmp_path / "a.key")
    make = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-subj", "/CN=front", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-days", "2", "-out", cert, "-keyout", key),
        stderr=subprocess.DEVNULL,
    )
    assert await make.wait() == 0
    config = FrontConfig(vault_socket=str(vault.path), tls_cert=cert, tls_key=key)
    async with running(config) as front:
        port = int(front.address.rpartition(":")[2])
        context = ssl.create_default_context(cafile=cert)
        async with httpx.AsyncClient(verify=context, headers=HEADERS) as client:
            answer = await client.post(f"https://127.0.0.1:{port}/v1/jwt/sign", json=JWT)
            assert answer.status_code == 200
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", port, ssl=context)
        await finish(front)


async def test_a_used_port_ends_it_with_a_word(vault: FakeVault) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process = await spawn(FrontConfig(vault_socket=str(vault.path), listen_port=port))
        out, err = await process.communicate()
    assert process.returncode == 1
    assert out == b""
    assert f"port {port} on 127.0.0.1 is in use" in err.decode()


async def test_an_address_in_clear_ends_it_with_a_word(vault: FakeVault) -> None:
    process = await spawn(FrontConfig(vault_socket=str(vault.path), listen_host="192.0.2.1"))
    _, err = await process.communicate()
    assert process.returncode == 1
    assert "in clear" in err.decode()
