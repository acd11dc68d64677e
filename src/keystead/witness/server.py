"""The witness over HTTP: one ASGI application, small bodies, few requests at a time.

The service works in one thread of its own, so that a slow disk holds up no connection; what waits
for it is bounded, and past the bound the answer is 503 at once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from keystead import limits
from keystead.errors import CallerError, LogUnavailable, Overloaded, ServiceError
from keystead.witness.service import Answer, Service

__all__ = ["WitnessApp"]

T = TypeVar("T")
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_ADD = "/add-checkpoint"
_CHECKPOINT = re.compile(r"/(?P<hash>[0-9a-f]{64})/checkpoint")
_READS = ("GET", "HEAD")
_METRICS = b"text/plain; version=0.0.4; charset=utf-8"
_DISCARD_BYTES_MAX = 4 * limits.WITNESS_BODY_BYTES_MAX

_log = structlog.get_logger("keystead.witness")


class WitnessApp:
    """The routes of a witness; ``words``: the line that it says of itself at its root."""

    def __init__(self, service: Service, worker: Executor, words: str) -> None:
        self._service = service
        self._worker = worker
        self._words = f"{words}\n".encode()
        self._in_flight = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._answers = Counter(
            "keystead_witness_answers",
            "Answers, by outcome",
            ("outcome",),
            registry=self._registry,
        )
        self._sizes = Gauge(
            "keystead_witness_log_size",
            "Size of the latest checkpoint that was cosigned, by log",
            ("origin",),
            registry=self._registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        answer = await self._answered(scope, receive)
        self._answers.labels(answer.outcome).inc()
        headers = [
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"server", b"keystead"),
        ]
        if answer.status == 503:  # noqa: PLR2004  HTTP's own number
            headers.append((b"retry-after", b"1"))
        if answer.status == 405:  # noqa: PLR2004  as above; RFC 9110 section 15.5.6 wants it
            headers.append((b"allow", b"POST" if scope["path"] == _ADD else b"GET, HEAD"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    async def _answered(self, scope: Scope, receive: Receive) -> Answer:
        try:
            return await self._routed(scope, receive)
        except TimeoutError:
            return Answer(408, b"the body did not arrive in time\n", "timeout")
        except CallerError as exc:
            return Answer(400, f"{exc}\n".encode(), exc.code)
        except ServiceError as exc:
            if isinstance(exc, LogUnavailable):
                _log.error("state_unavailable", why=exc.message)
            return Answer(503, f"{exc}\n".encode(), exc.code)
        except Exception as exc:  # noqa: BLE001  the edge: nothing goes further than this
            _log.error("unexpected_error", exception=type(exc).__name__)
            return Answer(500, b"something failed that should not\n", "internal")

    async def _routed(self, scope: Scope, receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        if path == _ADD:
            if method != "POST":
                return Answer(405, b"expected POST at this path\n", "method")
            return await self._submitted(receive)
        found = _CHECKPOINT.fullmatch(path)
        if path not in {"/", "/metrics"} and not found:
            return Answer(
                404, b"there is POST /add-checkpoint (c2sp.org/tlog-witness)\n", "no_path"
            )
        if method not in _READS:
            return Answer(405, b"expected GET at this path\n", "method")
        if found:
            return await self._run(partial(self._service.checkpoint, found["hash"]))
        return await self._metrics() if path == "/metrics" else Answer(200, self._words, "words")

    async def _submitted(self, receive: Receive) -> Answer:
        body = await _read(receive)
        if isinstance(body, Answer):
            return body
        return await self._run(partial(self._service.add_checkpoint, body))

    async def _metrics(self) -> Answer:
        for origin, size in (await self._run(self._service.sizes)).items():
            self._sizes.labels(origin).set(size)
        return Answer(200, generate_latest(self._registry), "metrics", _METRICS)

    async def _run(self, work: Callable[[], T]) -> T:
        """Have the service do it, in its thread.

        Raises:
            Overloaded: too much waits for it already.
        """
        if self._in_flight >= limits.WITNESS_IN_FLIGHT_MAX:
            raise Overloaded(
                f"expected at most {limits.WITNESS_IN_FLIGHT_MAX} requests at a time",
                hint="Ask again",
            )
        self._in_flight += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work)
        finally:
            self._in_flight -= 1


async def _read(receive: Receive) -> bytes | Answer:
    """The whole body, or why there is none.

    What is too long is read on for a while, and not kept: of a connection that is closed while
    bytes come in, the client never sees the answer.

    Raises:
        TimeoutError: it did not arrive in time.
    """
    chunks: list[bytes] = []
    size, more = 0, True
    async with asyncio.timeout(limits.WITNESS_REQUEST_S):
        while more and size <= _DISCARD_BYTES_MAX:
            message = await receive()
            if message["type"] == "http.disconnect":
                return Answer(400, b"the body broke off\n", "disconnected")
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if size <= limits.WITNESS_BODY_BYTES_MAX:
                chunks.append(chunk)
    if size > limits.WITNESS_BODY_BYTES_MAX:
        words = f"expected a body of at most {limits.WITNESS_BODY_BYTES_MAX} bytes\n"
        return Answer(413, words.encode(), "too_long")
    return b"".join(chunks)
