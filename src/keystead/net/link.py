"""A process's one connection to the vault: many calls, one frame a turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, cast

import structlog

from keystead import limits
from keystead.errors import MalformedRequest
from keystead.frames.codec import FrameReader, decode_answers, encode_frame
from keystead.frames.messages import Answer, Refused, Request, Use

__all__ = ["VaultLink"]

_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 1.0
_LENGTH_BYTES = 4
_TIMED_EVERY_S = 0.01
_TIMED_MAX = 256

_log = structlog.get_logger("keystead.link")


class VaultLink:
    """Calls the vault over its unix socket, and connects again when the vault restarts.

    Guarantees: every call gets exactly one answer or is cancelled; what fails on the way is an
    answer too, ``Refused`` as ``log_unavailable``, and says whether the request was sent. Calls
    that are made in one turn of the event loop travel in one frame, up to the limits of a frame;
    the requests of one :meth:`call_many` are not spread over frames unless they do not fit. The
    link sets no deadline: who waits does, and a cancelled call is forgotten. ``on_delay`` is told,
    of a use every few milliseconds, how long it was away, and when it came back (seconds of the
    loop).
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._pending: list[Sequence[Request]] = []
        self._scheduled = False
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False
        self._timed: dict[int, float] = {}
        self._timed_next_s = 0.0
        self.on_delay: Callable[[float, float], None] | None = None
        self.frames_sent = 0
        self.connects = 0

    @property
    def connected(self) -> bool:
        """Whether the vault's socket is open now."""
        return self._transport is not None

    async def start(self) -> None:
        """Try to connect once; if the vault is not there yet, keep trying in the background."""
        if not await self._try_connect():
            self._connecting = asyncio.create_task(self._connect())

    async def close(self) -> None:
        """Close the connection; outstanding calls are answered as lost."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()
        self._lose()

    def take_id(self) -> int:
        """A fresh id for a request; ids of one link are never reused."""
        self._last_id += 1
        return self._last_id

    async def call(self, request: Request) -> Answer:
        """Send one request, and wait for its answer."""
        if self._transport is None:
            return _unreachable(request.id)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting[request.id] = future
        self._gather((request,), loop)
        try:
            return await future
        finally:
            self._waiting.pop(request.id, None)

    async def call_many(self, requests: Sequence[Request]) -> list[Answer]:
        """Send requests together; the answers stand in the requests' order."""
        if self._transport is None:
            return [_unreachable(request.id) for request in requests]
        loop = asyncio.get_running_loop()
        futures: dict[int, asyncio.Future[Answer]] = {
            request.id: loop.create_future() for request in requests
        }
        self._waiting.update(futures)
        if requests:
            self._gather(requests, loop)
        try:
            return [await future for future in futures.values()]
        finally:
            for request_id in futures:
                self._waiting.pop(request_id, None)

    def _gather(self, group: Sequence[Request], loop: asyncio.AbstractEventLoop) -> None:
        self._pending.append(group)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what this turn of the loop has gathered; wait if the vault reads too slowly.

        What is pending is bounded by the front's admission, so it needs no bound of its own.
        """
        self._scheduled = False
        if self._paused or self._transport is None:
            return
        groups, self._pending = self._pending, []
        if self.on_delay is not None:
            self._begin_timing(groups)
        for frame in _pack(groups):
            self._transport.write(frame)
            self.frames_sent += 1

    def _begin_timing(self, groups: Sequence[Sequence[Request]]) -> None:
        """Time a use now and then: a queue delays them all alike."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._timed_next_s or len(self._timed) >= _TIMED_MAX:
            return
        for group in groups:
            for request in group:
                if isinstance(request, Use):
                    self._timed[request.id] = now_s
                    self._timed_next_s = now_s + _TIMED_EVERY_S
                    return

    def _end_timing(self, request_id: int) -> None:
        since_s = self._timed.pop(request_id)
        if self.on_delay is not None:
            now_s = asyncio.get_running_loop().time()
            self.on_delay(now_s - since_s, now_s)

    async def _connect(self) -> None:
        backoff_s = _BACKOFF_FIRST_S
        while not self._closed:
            await asyncio.sleep(backoff_s)
            if await self._try_connect():
                return
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)

    async def _try_connect(self) -> bool:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_unix_connection(self._wire, self._path)
        except OSError:
            return False
        return True

    def _wire(self) -> _Wire:
        return _Wire(self._opened, self._answered, self._pause, self._dropped)

    def _opened(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._paused = False
        self.connects += 1
        _log.info("vault_connected", connects=self.connects)

    def _pause(self, *, paused: bool) -> None:
        self._paused = paused
        if not paused:
            self._flush()

    def _answered(self, body: bytes) -> None:
        for answer in decode_answers(body):
            if answer.id in self._timed:
                self._end_timing(answer.id)
            future = self._waiting.pop(answer.id, None)
            if future is not None and not future.done():
                future.set_result(answer)

    def _lose(self) -> None:
        """Answer what is outstanding: what was not sent may go again, of the rest nobody knows."""
        self._transport = None
        self._timed.clear()
        unsent = {request.id for group in self._pending for request in group}
        self._pending = []
        waiting, self._waiting = self._waiting, {}
        for request_id, future in waiting.items():
            if not future.done():
                lost = _unreachable if request_id in unsent else _outcome_unknown
                future.set_result(lost(request_id))

    def _dropped(self) -> None:
        if self._transport is None:
            return
        _log.warning("vault_connection_lost", outstanding=len(self._waiting))
        self._lose()
        if not self._closed:
            self._connecting = asyncio.create_task(self._connect())


class _Pause(Protocol):
    def __call__(self, *, paused: bool) -> None: ...


class _Wire(asyncio.Protocol):
    """The connection itself: bytes to frames, and events to the link's methods."""

    def __init__(
        self,
        opened: Callable[[asyncio.Transport], None],
        answered: Callable[[bytes], None],
        pause: _Pause,
        dropped: Callable[[], None],
    ) -> None:
        self._opened = opened
        self._answered = answered
        self._pause = pause
        self._dropped = dropped
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._opened(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._reader.feed(data):
                self._answered(body)
        except MalformedRequest as exc:
            _log.error("vault_frame_malformed", problem=exc.message)
            if self._transport is not None:
                self._transport.abort()

    def pause_writing(self) -> None:
        self._pause(paused=True)

    def resume_writing(self) -> None:
        self._pause(paused=False)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # the cause is the vault's restart, or stands in the vault's log
        self._dropped()


def _pack(groups: Sequence[Sequence[Request]]) -> Iterator[bytes]:
    """Frames of whole groups, as many to a frame as its limits allow."""
    chunk: list[Sequence[Request]] = []
    count = 0
    for group in groups:
        if chunk and count + len(group) > limits.FRAME_REQUESTS_MAX:
            yield from _encode(chunk)
            chunk, count = [], 0
        chunk.append(group)
        count += len(group)
    if chunk:
        yield from _encode(chunk)


def _encode(groups: Sequence[Sequence[Request]]) -> Iterator[bytes]:
    """One frame; if it is too large, halves of it. A body's limit keeps a single request below."""
    requests = [request for group in groups for request in group]
    frame = encode_frame(requests)
    if len(frame) <= limits.FRAME_BYTES_MAX + _LENGTH_BYTES or len(requests) == 1:
        yield frame
        return
    whole = groups if len(groups) > 1 else [[request] for request in requests]
    yield from _encode(whole[: len(whole) // 2])
    yield from _encode(whole[len(whole) // 2 :])


def _unreachable(request_id: int) -> Refused:
    return Refused(
        id=request_id,
        code="log_unavailable",
        message="the vault is not reachable; the request was not sent to it",
        hint="Send it again in a moment; /ready says when the vault is back",
        retry_after_s=1.0,
    )


def _outcome_unknown(request_id: int) -> Refused:
    return Refused(
        id=request_id,
        code="log_unavailable",
        message="the vault restarted: the outcome is unknown",
        hint="Retry with the same idempotency key",
        retry_after_s=1.0,
    )
