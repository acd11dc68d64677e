"""One Python process of the load: ``python -m keystead.cli.bench.generator SECONDS``, job on stdin.

It speaks just enough HTTP/1.1 for answers that tell their length, which all of ours do.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import cast

import msgspec
import uvloop

from keystead.cli.bench.load import Job, Part

__all__ = ["main"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"
_STATUS = slice(9, 10)  # of "HTTP/1.1 200": its first digit
_DRAIN_S = 5.0


class _Connection(asyncio.Protocol):
    """Sends its request, waits for the whole answer, sends it again."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answered = self.refused = 0
        self.latencies_us: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._send(self._transport)

    def _send(self, transport: asyncio.Transport) -> None:
        self._sent = time.perf_counter()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(_END)
        if head < 0 or self._transport is None:
            return
        length = _LENGTH.search(self._buffer, 0, head + 2)
        if length is None or len(self._buffer) < head + len(_END) + int(length[1]):
            if length is None:
                self._transport.close()
            return
        now = time.perf_counter()
        self.latencies_us.append(int((now - self._sent) * 1e6))
        if self._buffer[_STATUS] == b"2":
            self.answered += 1
        else:
            self.refused += 1
        self._buffer = b""
        if now < self._until:
            self._send(self._transport)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.refused += 1
        if not self.closed.done():
            self.closed.set_result(None)


def _request(job: Job) -> bytes:
    body = job.body.encode()
    lines = [f"POST {job.path} HTTP/1.1", f"host: 127.0.0.1:{job.ports[0]}"]
    lines += [f"{name}: {value}" for name, value in job.headers.items()]
    lines += [f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


async def _run(job: Job, seconds: float) -> Part:
    loop = asyncio.get_running_loop()
    request = _request(job)
    started = time.perf_counter()
    connections: list[_Connection] = []
    for _ in range(job.connections):
        _, made = await loop.create_connection(
            lambda: _Connection(request, started + seconds), "127.0.0.1", job.ports[0]
        )
        connections.append(made)
    await asyncio.wait([made.closed for made in connections], timeout=seconds + _DRAIN_S)
    return Part(
        answered=sum(made.answered for made in connections),
        refused=sum(made.refused for made in connections),
        seconds=time.perf_counter() - started,
        latencies_us=[each for made in connections for each in made.latencies_us],
    )


def main(arguments: list[str]) -> int:
    """Send the job on stdin for so many seconds; prints a :class:`Part`."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    part = uvloop.run(_run(job, float(arguments[0])))
    sys.stdout.write(msgspec.json.encode(part).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
