"""The vault's socket: frames in, answers out, one frame a turn of the loop; peers by their uid."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import cast

import msgspec

from keystead import limits
from keystead.errors import KeysteadError, MalformedRequest
from keystead.frames.codec import FrameReader, decode_requests, encode_frame
from keystead.frames.messages import (
    Admin,
    Answer,
    Checkpoint,
    Done,
    Public,
    Refused,
    Request,
    Status,
    Tend,
    Use,
)
from keystead.keys.rollout.caching import as_of
from keystead.vault.admin import Administration
from keystead.vault.checkpoints import Checkpoints
from keystead.vault.describe import cache_s, certificate, jwks, public_view
from keystead.vault.faults import fault
from keystead.vault.publications import LIST_PARTS, Publications
from keystead.vault.standing import Standing
from keystead.vault.tending import Tending, encode_status
from keystead.vault.uses import Uses

__all__ = ["Listener", "Service", "VaultProtocol", "listen"]

_PEER = struct.Struct("3i")
_ANSWERS_BYTES = limits.FRAME_BYTES_MAX // 2


class Service:
    """Gives each kind of request to who does it."""

    def __init__(
        self,
        standing: Standing,
        uses: Uses,
        administration: Administration,
        tending: Tending,
        checkpoints: Checkpoints,
        *,
        publications: Publications,
        now_ms: Callable[[], int],
    ) -> None:
        self._standing = standing
        self._publications = publications
        self._now_ms = now_ms
        self._checkpoints = checkpoints
        self._uses = uses
        self._administration = administration
        self._tending = tending

    def begin(self, request: Request, reply: Callable[[Answer], None]) -> None:
        """Do one request; ``reply`` is called once, now or later."""
        match request:
            case Use():
                self._uses.begin(request, reply)
            case Admin():
                self._administration.begin(request, reply)
            case Checkpoint():
                self._checkpoints.begin(request, reply)
            case Public(what=what) if what in LIST_PARTS:
                self._publications.begin(request, reply)
            case Public() | Status() | Tend():
                reply(self._read(request))

    def _read(self, request: Public | Status | Tend) -> Answer:
        try:
            match request:
                case Status():
                    return Done(request.id, encode_status(self._tending.status()))
                case Tend():
                    return Done(request.id, msgspec.msgpack.encode(self._tending.tend(request)))
                case Public():
                    return Done(request.id, msgspec.msgpack.encode(self._public(request)))
        except KeysteadError as refusal:
            return Refused(request.id, refusal.code or "internal", refusal.message, refusal.hint)
        except Exception as exc:  # noqa: BLE001  a fault of ours is answered too
            error = fault(exc)
            return Refused(request.id, error.code, error.message)

    def _public(self, request: Public) -> tuple[int, bytes]:
        """How many seconds it may be kept, and the document."""
        self._standing.check()
        snapshot = self._standing.snapshot
        key = snapshot.named(request.name)
        rotation = as_of(snapshot.rotations.get(key.id), self._now_ms())
        match request.what:
            case "keys":
                made = public_view(key, rotation)
            case "jwks":
                made = jwks(key, rotation)
            case "certificate":
                made = certificate(key, rotation)
            case _:
                lists = ", ".join(LIST_PARTS)
                raise MalformedRequest(f"expected keys, jwks, certificate, {lists}")
        return cache_s(key, rotation), made


class VaultProtocol(asyncio.Protocol):
    """One connection of a front, remote process or steward, of this process's own user."""

    def __init__(self, service: Service, connections: set[VaultProtocol]) -> None:
        self._service = service
        self._connections = connections
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._answers: list[Answer] = []
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection if its peer runs as this user (SO_PEERCRED, unix(7))."""
        peer = transport.get_extra_info("socket")
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _pid, uid, _gid = _PEER.unpack(raw)
        if uid != os.geteuid():
            transport.close()
            return
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Take in bytes; a stream that is not frames is closed, as it cannot be answered."""
        try:
            for body in self._reader.feed(data):
                for request in decode_requests(body):
                    self._service.begin(request, self._reply)
        except MalformedRequest:
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's shape
        """What is still under way commits all the same; its answers go nowhere."""
        self._transport = None
        self._connections.discard(self)

    def close(self) -> None:
        """End the connection, after what was written to it."""
        if self._transport is not None:
            self._transport.close()

    def _reply(self, answer: Answer) -> None:
        if not self._answers:
            self._loop.call_soon(self._flush)
        self._answers.append(answer)

    def _flush(self) -> None:
        answers, self._answers = self._answers, []
        if self._transport is None:
            return
        chunk: list[Answer] = []
        size = 0
        for answer in answers:
            chunk.append(answer)
            size += len(answer.result) if isinstance(answer, Done) else 0
            if size > _ANSWERS_BYTES:
                self._transport.write(encode_frame(chunk))
                chunk, size = [], 0
        if chunk:
            self._transport.write(encode_frame(chunk))


class Listener:
    """The socket and its connections. They end together: a loop with one open does not close."""

    def __init__(self, server: asyncio.Server, connections: set[VaultProtocol]) -> None:
        self._server = server
        self._connections = connections

    def close(self) -> None:
        """Take no more connections and no more requests.

        A front whose supervisor was killed is still connected here, as both are told at once.
        """
        self._server.close()
        for connection in list(self._connections):
            connection.close()


async def listen(service: Service, path: str) -> Listener:
    """Serve on a unix socket of mode 0600."""
    connections: set[VaultProtocol] = set()
    previous = os.umask(0o177)
    try:
        server = await asyncio.get_running_loop().create_unix_server(
            partial(VaultProtocol, service, connections), path=path, backlog=16
        )
    finally:
        os.umask(previous)
    return Listener(server, connections)
