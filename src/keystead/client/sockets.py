"""Sockets of the blocking client, on which a whole try has one end.

httpx bounds each read alone, so a server that sends a byte a second holds a caller for as long as
it likes; here each read, write and connect has what is left of the try. The awaiting client has
``asyncio.timeout`` for that. Looking up a host's name is the system's, and is not bounded.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable

import httpcore
import httpx

__all__ = ["BoundedTransport"]

_NOT_SENT: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
}
_SOCKET_OPTION = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)


class _End(threading.local):
    """When the try that this thread makes is to end; a connection serves one try at a time."""

    at_s: float = float("inf")

    def left_s(self, timeout: float | None, late: type[httpcore.TimeoutException]) -> float | None:
        """Seconds that an operation has: its own time, or less."""
        left_s = self.at_s - time.monotonic()
        if left_s <= 0:
            raise late("the time of this try is over")
        if timeout is None:
            return None if left_s == float("inf") else left_s
        return min(timeout, left_s)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, end: _End) -> None:
        self._inner = inner
        self._end = end

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._end.left_s(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._end.left_s(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left_s = self._end.left_s(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left_s), self._end)

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, end: _End) -> None:
        self._inner = httpcore.SyncBackend()
        self._end = end

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[_SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        left_s = self._end.left_s(timeout, httpcore.ConnectTimeout)
        stream = self._inner.connect_tcp(host, port, left_s, local_address, socket_options)
        return _Stream(stream, self._end)

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[_SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        left_s = self._end.left_s(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.connect_unix_socket(path, left_s, socket_options), self._end)


class BoundedTransport(httpx.BaseTransport):
    """HTTP/1.1 over kept connections to one front; a request ends with its ``read`` timeout.

    ``uds``: the path of its unix socket, in place of TCP.
    """

    def __init__(self, trust: ssl.SSLContext, *, uds: str | None, connections_max: int) -> None:
        self._end = _End()
        self._pool = httpcore.ConnectionPool(
            ssl_context=trust,
            max_connections=connections_max,
            max_keepalive_connections=connections_max,
            keepalive_expiry=httpx.Limits().keepalive_expiry,
            uds=uds,
            network_backend=_Backend(self._end),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it, and read all of the answer.

        Raises:
            TransportError: as httpx's own transport, for what was not sent; else the base class.
        """
        url = request.url
        sent = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.read(),
            extensions=request.extensions,
        )
        limit_s: float | None = request.extensions.get("timeout", {}).get("read")
        self._end.at_s = float("inf") if limit_s is None else time.monotonic() + limit_s
        try:
            answer = self._pool.handle_request(sent)
            try:
                body = answer.read()
            finally:
                answer.close()
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as exc:
            kind = _NOT_SENT.get(type(exc), httpx.TransportError)
            why = f"{type(exc).__name__}: {exc}" if kind is httpx.TransportError else str(exc)
            raise kind(why) from exc
        return httpx.Response(answer.status, headers=answer.headers, content=body)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()
