"""The two shells: they carry a flow's effects out over httpx, one by blocking, one by awaiting.

Nothing is decided here. Connections are kept and reused; addresses are ``https://host[:port]``,
``unix:/path/of/socket``, or ``http://`` on this machine only, because a handle in clear on a
network is everybody's. Proxies of the environment are not used: they would read the handles too.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from secrets import SystemRandom
from types import TracebackType
from typing import Final, Generic, NamedTuple, Self, TypeVar

import httpx
import msgspec

from keystead import __version__
from keystead.client.core import Call, Effect, Failed, Flow, Pause, Reply, Send, Session, Turn
from keystead.client.methods import AwaitingRunner, BlockingRunner, Methods
from keystead.client.proof import Bound
from keystead.client.retry import Retry
from keystead.errors import MalformedRequest

__all__ = ["CONNECTIONS_MAX", "AsyncClient", "Client"]

T = TypeVar("T")

CONNECTIONS_MAX: Final = 32
"""Connections one client opens; more callers than that wait for one, inside their deadline.

httpcore looks at every connection for every waiting request: of 500 calls at once, 100 connections
made 5 s, 32 and a gate before the pool 1 s, on two cores. Who has more to do sends batches."""
_LIMITS = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
_HEADERS = {
    "user-agent": f"keystead/{__version__}",
    "accept-encoding": "identity",  # compressing secrets beside chosen text tells their length
}
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_random = SystemRandom().random


class Client(Methods, BlockingRunner):
    """A node, for code that blocks; safe to share between threads. Close it, or use ``with``.

    ``url``: see the module. ``operator``: an operator's token, for admin methods. ``bound``: who
    proves possession, for bound handles. ``tls``: trust and client certificate, the system's trust
    if not given. ``transport``: in place of httpx's own, for tests and special networks.

    Raises:
        MalformedRequest: an address that is none of the three, or no token.
    """

    def __init__(
        self,
        url: str,
        *,
        operator: str | None = None,
        bound: Bound | None = None,
        retry: Retry | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        address = _address(url)
        self._session = Session(url, retry or Retry(), operator=_token(operator), bound=bound)
        self._http = httpx.Client(
            base_url=address.base,
            headers=_HEADERS,
            transport=transport
            or httpx.HTTPTransport(verify=_trust(tls), uds=address.uds, limits=_LIMITS),
            trust_env=False,
        )

    def __repr__(self) -> str:
        return f"<Client of {self._session.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, call: Call[T]) -> T:
        """Run a call that ``operations`` or ``admin`` made, for example a batch's refused one."""
        flow = call.flow(self._session, _turn(None))
        step = _begin(flow)
        while not isinstance(step, _End):
            step = _resume(flow, self._carry_out(step))
        return step.value

    def _carry_out(self, effect: Effect) -> Reply | Failed | None:
        if isinstance(effect, Pause):
            time.sleep(effect.seconds)
            return None
        try:
            return _reply(self._http.send(_built(self._http, effect)))
        except httpx.RequestError as exc:
            return _failed(exc)


class AsyncClient(Methods, AwaitingRunner):
    """A node, for code on asyncio; as :class:`Client`, and used by ``async with``.

    Raises:
        MalformedRequest: an address that is none of the three, or no token.
    """

    def __init__(
        self,
        url: str,
        *,
        operator: str | None = None,
        bound: Bound | None = None,
        retry: Retry | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        address = _address(url)
        self._session = Session(url, retry or Retry(), operator=_token(operator), bound=bound)
        self._http = httpx.AsyncClient(
            base_url=address.base,
            headers=_HEADERS,
            transport=transport
            or httpx.AsyncHTTPTransport(verify=_trust(tls), uds=address.uds, limits=_LIMITS),
            trust_env=False,
        )
        self._gate = asyncio.Semaphore(CONNECTIONS_MAX)

    def __repr__(self) -> str:
        return f"<AsyncClient of {self._session.url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, call: Call[T]) -> T:
        """Run a call that ``operations`` or ``admin`` made, for example a batch's refused one."""
        flow = call.flow(self._session, _turn(None))
        step = _begin(flow)
        while not isinstance(step, _End):
            step = _resume(flow, await self._carry_out(step))
        return step.value

    async def _carry_out(self, effect: Effect) -> Reply | Failed | None:
        if isinstance(effect, Pause):
            await asyncio.sleep(effect.seconds)
            return None
        try:
            async with asyncio.timeout(effect.timeout_s):
                await self._gate.acquire()
        except TimeoutError:
            return Failed(why="every connection is busy", sent=False)
        try:
            return _reply(await self._http.send(_built(self._http, effect)))
        except httpx.RequestError as exc:
            return _failed(exc)
        finally:
            self._gate.release()


# --- what both share -----------------------------------------------------------------------------


class _End(msgspec.Struct, Generic[T], frozen=True):
    """A flow has ended, and gives this."""

    value: T


def _turn(came: Reply | Failed | None) -> Turn:
    return Turn(
        monotonic_s=time.monotonic(),
        now_ms=time.time_ns() // 1_000_000,
        random=_random(),
        came=came,
    )


def _begin(flow: Flow[T]) -> Effect | _End[T]:
    try:
        return next(flow)
    except StopIteration as end:
        return _End(end.value)


def _resume(flow: Flow[T], came: Reply | Failed | None) -> Effect | _End[T]:
    try:
        return flow.send(_turn(came))
    except StopIteration as end:
        return _End(end.value)


def _built(http: httpx.Client | httpx.AsyncClient, effect: Send) -> httpx.Request:
    request = effect.request
    return http.build_request(
        request.method,
        request.path,
        headers=request.headers,
        content=request.body or None,
        timeout=effect.timeout_s,
    )


def _reply(response: httpx.Response) -> Reply:
    return Reply(status=response.status_code, headers=dict(response.headers), body=response.content)


def _failed(exc: httpx.RequestError) -> Failed:
    why = f"{type(exc).__name__} {exc}".strip()
    return Failed(why=why, sent=not isinstance(exc, _NOT_SENT))


def _trust(tls: ssl.SSLContext | None) -> ssl.SSLContext:
    """The machine's own trust, where httpx would bring a list of its own."""
    return ssl.create_default_context() if tls is None else tls


def _token(operator: str | None) -> str | None:
    if operator is not None and not (operator.isascii() and operator.isprintable()):
        raise MalformedRequest("expected an operator's token of printable ASCII")  # not the token
    return operator


class _Address(NamedTuple):
    base: str
    uds: str | None = None


def _address(url: str) -> _Address:
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise MalformedRequest("expected an absolute path in unix:/path/of/socket")
        return _Address("http://keystead", path)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise MalformedRequest("expected an address such as https://keystead.example:8443") from exc
    if parsed.userinfo or parsed.query or parsed.fragment or not parsed.host:
        raise MalformedRequest("expected an address of scheme, host and port only")
    if parsed.scheme == "https" or (parsed.scheme == "http" and _is_this_machine(parsed.host)):
        return _Address(url)
    raise MalformedRequest(
        f"expected https://, unix:/path, or http:// on this machine, met {parsed.scheme}://"
        f"{parsed.host}",
        hint="A handle in clear on a network can be used by whoever sees it",
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
