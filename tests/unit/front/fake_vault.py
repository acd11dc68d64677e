"""A vault that speaks frames and holds no keys: it answers what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import msgspec

from keystead.frames.codec import FrameReader, decode_requests, encode_frame
from keystead.frames.messages import (
    Admin,
    Answer,
    Done,
    Metric,
    Public,
    Receipt,
    Refused,
    Request,
    Status,
    StatusInfo,
    Use,
)

__all__ = ["RECEIPT", "STATUS", "FakeVault", "done"]

RECEIPT = Receipt(
    seq=7,
    epoch=3,
    key="web",
    version=1,
    kid="k1",
    algorithm="ecdsa-p256-sha256",
    ack="durable",
    request_id="r1",
)
STATUS = StatusInfo(
    ready=True,
    reasons=(),
    deployment="dep",
    node="n1",
    epoch=3,
    last_seq=7,
    keys=1,
    protections={"anchor": "off"},
    metrics=(
        Metric("keystead_uses_total", "counter", "Uses", {"purpose": "jwt"}, 5),
        Metric("keystead_uses_total", "counter", "Uses", {"purpose": "tls"}, 2),
        Metric("keystead_queue", "gauge", "Waiting", {}, 1),
    ),
)


def done(request: Request, result: object, receipt: Receipt | None = None) -> Done:
    return Done(request.id, msgspec.msgpack.encode(result), receipt)


def respond(request: Request) -> Answer | None:
    """What a vault in good order says."""
    match request:
        case Use():
            return done(request, {"token": "t", "raw": b"\x00\x01"}, RECEIPT)
        case Admin():
            return done(request, {"name": "web"}, RECEIPT)
        case Public(what="certificate"):
            return done(request, (60, b"-----BEGIN CERTIFICATE-----\n"))
        case Public():
            return done(request, (60, b'{"keys":[]}'))
        case Status():
            return done(request, STATUS)
        case _:
            return Refused(request.id, "malformed_request", "not from a front")


class FakeVault:
    """``frames`` is what came in. While ``held``, nothing goes out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames: list[list[Request]] = []
        self.respond: Callable[[Request], Answer | None] = respond
        self.raw: bytes | None = None
        self._arrived = asyncio.Condition()
        self._held = False
        self._waiting: list[tuple[asyncio.StreamWriter, Request]] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        """As a process that dies: the socket file goes, and every connection with it."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.path.unlink(missing_ok=True)
        self.drop()

    def drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._waiting.clear()

    def read(self, *, on: bool) -> None:
        """Whether the vault reads what is sent to it."""
        for writer in self._writers:
            transport = cast("asyncio.Transport", writer.transport)
            (transport.resume_reading if on else transport.pause_reading)()

    def hold(self) -> None:
        self._held = True

    async def release(self) -> None:
        self._held = False
        waiting, self._waiting = self._waiting, []
        for writer, request in waiting:
            await self._answer(writer, [request])

    @property
    def requests(self) -> list[Request]:
        return [request for frame in self.frames for request in frame]

    @property
    def uses(self) -> list[Use]:
        return [request for request in self.requests if isinstance(request, Use)]

    @property
    def commands(self) -> list[Admin]:
        return [request for request in self.requests if isinstance(request, Admin)]

    async def arrived(self, count: int) -> None:
        """Wait until so many requests have come in."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        frames = FrameReader()
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                for body in frames.feed(data):
                    requests = decode_requests(body)
                    self.frames.append(requests)
                    if self._held:
                        self._waiting += [(writer, request) for request in requests]
                    else:
                        await self._answer(writer, requests)
                    async with self._arrived:
                        self._arrived.notify_all()
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, requests: Sequence[Request]) -> None:
        if self.raw is not None:
            writer.write(self.raw)
            return
        # Backwards: the order of answers is the vault's own.
        answers = [self.respond(request) for request in reversed(requests)]
        writer.write(encode_frame([answer for answer in answers if answer is not None]))
        await writer.drain()
