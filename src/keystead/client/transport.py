"""The two shells: they carry a flow's effects out over httpx, one by blocking, one by awaiting.

Nothing is decided here. Connections are kept and reused, some for each front; addresses are
``https://host[:port]``, ``unix:/path/of/socket``, or ``http://`` on this machine only, because a
handle in clear on a network is everybody's. Proxies of the environment are not used: they would
read the handles too.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from secrets import SystemRandom
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

import httpx
import msgspec

from keystead import __version__
from keystead.client.addresses import parse_addresses
from keystead.client.core import Call, Effect, Failed, Flow, Pause, Reply, Send, Session, Turn
from keystead.client.methods import AwaitingRunner, BlockingRunner, Methods
from keystead.client.proof import Bound
from keystead.client.retry import Retry
from keystead.client.sockets import BoundedTransport
from keystead.errors import MalformedRequest

__all__ = ["CONNECTIONS_MAX", "AsyncClient", "Client"]

T = TypeVar("T")

CONNECTIONS_MAX: Final = 32
"""Connections one client opens to a front; more callers than that wait, inside their deadline.

httpcore looks at every connection for every waiting request: of 500 calls at once, 100 connections
made 5 s, 32 and a gate before the pool 1 s, on two cores. Who has more to do sends batches."""
_LIMITS = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
_HEADERS = {
    "user-agent": f"keystead/{__version__}",
    "accept-encoding": "identity",  # compressing secrets beside chosen text tells their length
}
_CONNECT_SHARE = 0.5
"""Of a try's time: who has no connection by then is known to have sent nothing, and may go on."""
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_random = SystemRandom().random


class Client(Methods, BlockingRunner):
    """A deployment, for code that blocks; threads may share it. Close it, or use ``with``.

    ``url``: see the module; of several fronts, whose addresses stand in a sequence or with commas
    between, another takes over when one fails. ``operator``: an operator's token, for admin
    methods. ``bound``: who proves possession, for bound handles. ``tls``: trust and client
    certificate, the system's trust if not given. ``transport``: in place of those to all fronts,
    for tests and special networks.

    Raises:
        MalformedRequest: an address that is none of the three, too many, or no token.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        operator: str | None = None,
        bound: Bound | None = None,
        retry: Retry | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        fronts, trust = parse_addresses(url), _trust(tls)
        self._session = Session(
            tuple(fronts), retry or Retry(), operator=_token(operator), bound=bound
        )
        self._https = {
            front: httpx.Client(
                base_url=address.base,
                headers=_HEADERS,
                transport=transport
                or BoundedTransport(trust, uds=address.uds, connections_max=CONNECTIONS_MAX),
                trust_env=False,
            )
            for front, address in fronts.items()
        }

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
        for http in self._https.values():
            http.close()

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
        http = self._https[effect.front or self._session.fronts.preferred]
        try:
            return _reply(http.send(_built(http, effect)))
        except httpx.RequestError as exc:
            return _failed(exc)


class AsyncClient(Methods, AwaitingRunner):
    """A deployment, for code on asyncio; as :class:`Client`, and used by ``async with``.

    Raises:
        MalformedRequest: an address that is none of the three, too many, or no token.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        operator: str | None = None,
        bound: Bound | None = None,
        retry: Retry | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        fronts, trust = parse_addresses(url), _trust(tls)
        self._session = Session(
            tuple(fronts), retry or Retry(), operator=_token(operator), bound=bound
        )
        self._https = {
            front: httpx.AsyncClient(
                base_url=address.base,
                headers=_HEADERS,
                transport=transport
                or httpx.AsyncHTTPTransport(verify=trust, uds=address.uds, limits=_LIMITS),
                trust_env=False,
            )
            for front, address in fronts.items()
        }
        self._gates = {front: asyncio.Semaphore(CONNECTIONS_MAX) for front in fronts}

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
        for http in self._https.values():
            await http.aclose()

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
        front = effect.front or self._session.fronts.preferred
        http, gate, passed = self._https[front], self._gates[front], False
        try:
            async with asyncio.timeout(effect.timeout_s):
                async with gate:
                    passed = True
                    return _reply(await http.send(_built(http, effect)))
        except TimeoutError:
            why = f"no whole answer in {effect.timeout_s:.3g} s"
            return Failed(why=why if passed else "every connection is busy", sent=passed)
        except httpx.RequestError as exc:
            return _failed(exc)


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
        timeout=httpx.Timeout(effect.timeout_s, connect=effect.timeout_s * _CONNECT_SHARE),
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
