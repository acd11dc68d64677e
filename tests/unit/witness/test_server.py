"""The witness's routes and bounds, without a socket before them."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from keystead import limits
from keystead.errors import LogUnavailable
from keystead.testing.clocks import ManualClock, SeededRandom
from keystead.witness.identity import identify
from keystead.witness.server import WitnessApp
from keystead.witness.service import Answer, Service
from unit.witness.logs import Log

LOG = Log()
HASH = hashlib.sha256(LOG.key.name.encode()).hexdigest()


class Got(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


async def ask(app: WitnessApp, method: str, path: str, *chunks: bytes, ends: bool = True) -> Got:
    """One request; ``ends`` false: the client goes away behind the last chunk."""
    waiting: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    last = {"type": "http.request", "body": b"", "more_body": False}
    waiting.append(last if ends else {"type": "http.disconnect"})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": path}, receive, send)
    start, body = sent
    return Got(start["status"], dict(start["headers"]), body["body"])


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def app(tmp_path: Path, worker: ThreadPoolExecutor) -> Iterator[WitnessApp]:
    identity, state = identify(tmp_path / "w", "w1", SeededRandom())
    logs = {LOG.key.name: [LOG.key]}
    service = Service(identity.key, identity.sign, logs=logs, state=state, clock=ManualClock())
    yield WitnessApp(service, worker, "a witness")
    state.close()


def test_the_routes(app: WitnessApp) -> None:
    async def run() -> None:
        request = LOG.submission(0, 5)
        got = await ask(app, "POST", "/add-checkpoint", request[:7], request[7:])
        assert got.status == 200
        assert got.body.startswith("— w1 ".encode())
        assert got.headers[b"content-length"] == b"%d" % len(got.body)
        got = await ask(app, "POST", "/add-checkpoint", LOG.submission(0, 6))
        assert (got.status, got.headers[b"content-type"]) == (409, b"text/x.tlog.size")
        assert got.body == b"5\n"
        got = await ask(app, "GET", f"/{HASH}/checkpoint")
        assert got.status == 200
        assert got.body.startswith(LOG.checkpoint(5).encode().encode())
        assert (await ask(app, "HEAD", f"/{HASH}/checkpoint")).body == b""
        assert (await ask(app, "GET", f"/{HASH.upper()}/checkpoint")).status == 404
        assert (await ask(app, "GET", "/")).body == b"a witness\n"
        assert (await ask(app, "GET", "/nothing")).status == 404
        metrics = (await ask(app, "GET", "/metrics")).body.decode()
        assert re.search(
            r'^keystead_witness_answers_total{outcome="cosigned"} 1', metrics, re.MULTILINE
        )
        assert f'keystead_witness_log_size{{origin="{LOG.key.name}"}} 5' in metrics

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/add-checkpoint", b"POST"),
        ("POST", "/", b"GET, HEAD"),
        ("PUT", f"/{HASH}/checkpoint", b"GET, HEAD"),
    ],
)
def test_another_method(app: WitnessApp, method: str, path: str, allow: bytes) -> None:
    got = asyncio.run(ask(app, method, path))
    assert (got.status, got.headers[b"allow"]) == (405, allow)


def test_a_body_that_is_too_long(app: WitnessApp) -> None:
    chunk = b"x" * 1000
    short = limits.WITNESS_BODY_BYTES_MAX // len(chunk)
    assert asyncio.run(ask(app, "POST", "/add-checkpoint", *[chunk] * short)).status == 400
    for much in (short + 1, 100 * short):
        got = asyncio.run(ask(app, "POST", "/add-checkpoint", *[chunk] * much))
        assert got.status == 413


def test_a_client_that_goes_away(app: WitnessApp) -> None:
    request = LOG.submission(0, 5)
    got = asyncio.run(ask(app, "POST", "/add-checkpoint", request, ends=False))
    assert got.status == 400
    assert asyncio.run(ask(app, "GET", f"/{HASH}/checkpoint")).status == 404


def test_a_body_that_stalls(app: WitnessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WITNESS_REQUEST_S", 0.05)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/add-checkpoint"}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408


class Held:
    """A service on a disk that takes its time."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def add_checkpoint(self, body: bytes) -> Answer:
        self.go_on.wait(10)
        return Answer(200, body, "cosigned")


def test_past_what_it_can_do_it_says_so_at_once(worker: ThreadPoolExecutor) -> None:
    held = Held()
    app = WitnessApp(held, worker, "")  # type: ignore[arg-type]  # stands in for a service

    async def run() -> None:
        most = limits.WITNESS_IN_FLIGHT_MAX
        asked = [asyncio.create_task(ask(app, "POST", "/add-checkpoint")) for _ in range(most)]
        await asyncio.sleep(0.05)
        got = await ask(app, "POST", "/add-checkpoint")
        assert (got.status, got.headers[b"retry-after"]) == (503, b"1")
        held.go_on.set()
        assert {each.status for each in await asyncio.gather(*asked)} == {200}
        assert (await ask(app, "POST", "/add-checkpoint")).status == 200

    asyncio.run(run())


class Broken:
    def __init__(self, exc: Exception) -> None:
        self._exc = exc

    def add_checkpoint(self, _body: bytes) -> Answer:
        raise self._exc


@pytest.mark.parametrize(
    ("exc", "status"), [(LogUnavailable("the disk is full"), 503), (KeyError("secret"), 500)]
)
def test_what_fails_is_said_without_its_values(
    worker: ThreadPoolExecutor, exc: Exception, status: int
) -> None:
    app = WitnessApp(Broken(exc), worker, "")  # type: ignore[arg-type]  # stands in for a service
    got = asyncio.run(ask(app, "POST", "/add-checkpoint"))
    assert got.status == status
    assert b"secret" not in got.body
