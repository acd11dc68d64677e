"""A witness as a process: one HTTP server in one uvloop loop, one thread that decides."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import structlog
import uvloop
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

from keystead import limits
from keystead.errors import MalformedRequest, StartupError
from keystead.net.confine import forbid_dumps
from keystead.net.logs import configure_logs, silence
from keystead.net.system import SystemClock, SystemRandom
from keystead.translog.notes import VerifierKey
from keystead.witness.identity import identify
from keystead.witness.server import WitnessApp
from keystead.witness.service import Service

__all__ = ["Serving", "WitnessOptions", "run"]

_BACKLOG = 128
_LISTEN_TIMEOUT_S = 10.0
_POLL_S = 0.01
_PORT_MAX = 65535

_log = structlog.get_logger("keystead.witness")


class WitnessOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a witness is started with.

    ``logs``: verifier keys of the logs that it cosigns; several of one name are keys of one log.
    ``name``: its own, at the first start; "" for a made-up one. ``listen``: ``HOST:PORT``, port 0
    for any free one. ``tls_cert``, ``tls_key``: PEM files; without them it listens on loopback.
    """

    state: Path
    logs: tuple[VerifierKey, ...]
    name: str = ""
    listen: str = "127.0.0.1:8791"
    tls_cert: Path | None = None
    tls_key: Path | None = None


class Serving(msgspec.Struct, frozen=True):
    """Where a witness answers, and as whom."""

    url: str
    vkey: str
    logs: tuple[str, ...]


def run(options: WitnessOptions, tell: Callable[[Serving], None]) -> None:
    """Serve until SIGTERM or SIGINT; blocks. ``tell`` is called once it listens.

    Raises:
        StartupError: it cannot listen as it is told to, or its state folder cannot be used.
        MalformedRequest: an option that makes no sense.
    """
    os.umask(0o077)
    configure_logs(None)
    forbid_dumps()
    logs = _by_origin(options.logs)
    address, port = _address(options.listen, in_clear=options.tls_cert is None)
    tls = _tls(options.tls_cert, options.tls_key)
    identity, state = identify(options.state, options.name, SystemRandom())
    vkey = identity.key.encode()
    try:
        service = Service(identity.key, identity.sign, logs=logs, state=state, clock=SystemClock())
        words = f"a witness of transparency logs (c2sp.org/tlog-witness): {vkey}"
        with ThreadPoolExecutor(1, "witness") as worker:
            app = WitnessApp(service, worker, words)
            scheme = "http" if tls is None else "https"
            shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            told = Serving(f"{scheme}://{shown}", vkey, tuple(logs))
            uvloop.run(_serve(app, address, port, tls, lambda: tell(told)))
    finally:
        state.close()


async def _serve(
    app: WitnessApp,
    address: str,
    port: int,
    tls: tuple[Path, Path] | None,
    listening: Callable[[], None],
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    cert, key = tls or (None, None)
    server = Server(
        app,
        address=address,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(limits.WITNESS_REQUEST_S * 1000),
            max_buffer_size=limits.HEADER_BYTES_MAX,
        ),
        ssl_cert=cert,
        ssl_key=key,
        ssl_protocol_min=SSLProtocols.tls13,
        log_enabled=False,
        websockets=False,
        backlog=_BACKLOG,
        backpressure=limits.WITNESS_CONNECTIONS_MAX,
    )
    silence("_granian", "granian.access")
    serving = asyncio.create_task(server.serve())
    try:
        await _until_listening(serving, address, port)
        listening()
        _log.info("listening", address=address, port=port, tls=tls is not None)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({stopped, serving}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            stopped.cancel()
            raise StartupError("the HTTP server ended by itself", hint="Its log may say why")
    finally:
        server.stop()  # type: ignore[no-untyped-call]  # Granian leaves it without types
        await asyncio.gather(serving, return_exceptions=True)
    _log.info("stopped")


async def _until_listening(serving: asyncio.Task[None], address: str, port: int) -> None:
    """Wait until the socket takes connections; Granian tells nobody when it does."""
    deadline = asyncio.get_running_loop().time() + _LISTEN_TIMEOUT_S
    while asyncio.get_running_loop().time() < deadline and not serving.done():
        try:
            _, writer = await asyncio.open_connection(address, port)
        except OSError:
            await asyncio.sleep(_POLL_S)
        else:
            writer.close()
            return
    raise StartupError(
        f"the HTTP server takes no connections on {address} port {port}",
        hint="Is the machine out of files or memory, or does a firewall drop them?",
    )


def _by_origin(keys: Sequence[VerifierKey]) -> dict[str, list[VerifierKey]]:
    if not 1 <= len(keys) <= limits.WITNESS_LOGS_MAX:
        raise MalformedRequest(
            f"expected 1 to {limits.WITNESS_LOGS_MAX} keys of logs, met {len(keys)}",
            hint="Give each log's key by --log VKEY",
        )
    found: dict[str, list[VerifierKey]] = {}
    for key in keys:
        found.setdefault(key.name, []).append(key)
    return found


# What the front asks of its listener too, but for the unix socket. The front is of the same rank.


def _address(listen: str, *, in_clear: bool) -> tuple[str, int]:
    """The address and port to listen on, checked to be free."""
    host, _, number = listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        port = int(number)
    except ValueError:
        raise MalformedRequest(
            f"expected HOST:PORT with an IP address to listen on, met {listen[:64]!r}",
            hint="Such as 127.0.0.1:8791",
        ) from None
    if in_clear and not address.is_loopback:
        raise StartupError(
            f"refusing to listen on {address} in clear: a log could not tell who answers it",
            hint="Give --tls-cert and --tls-key, or listen on 127.0.0.1 behind a TLS server",
        )
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004  IP's own number
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Granian binds with SO_REUSEPORT: two witnesses would share the port unnoticed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(address), port))
        except (OSError, OverflowError) as exc:
            raise StartupError(
                f"cannot listen on {address} port {port}: {getattr(exc, 'strerror', exc)}",
                hint="Stop what listens there, or choose another by --listen",
            ) from None
        return str(address), int(probe.getsockname()[1])


def _tls(cert: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if cert is None or key is None:
        if cert is not key:
            raise MalformedRequest("expected --tls-cert and --tls-key together, met one of them")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as exc:
        raise StartupError(
            f"{cert} and {key} are no certificate with its key: {exc}",
            hint="Both in PEM, the key not encrypted, the chain from the leaf upwards",
        ) from None
    return cert, key
