"""The front as a process: two Granian servers, TCP and unix socket, in one uvloop loop."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvloop
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

from keystead import limits
from keystead.errors import StartupError
from keystead.front.config import FrontConfig
from keystead.front.http import Front
from keystead.front.listen import check_listen, check_tls, clear_unix_socket, free_port
from keystead.net.confine import confine, forbid_dumps, program_folders
from keystead.net.link import VaultLink
from keystead.net.logs import configure_logs, silence

__all__ = ["CONNECTIONS_MAX", "FrontConfig", "run", "serve"]

CONNECTIONS_MAX = 2 * limits.FRONT_IN_FLIGHT_MAX
"""Connections of one server: as many as may work, and as many again that wait between requests, so
that a stop command finds a place when the data plane is full."""
_BACKLOG = 1024  # connections the kernel holds while the loop is busy; Linux's own bound is 4096
_SPARE_FILES = 64
_GRACE_S = 5.0
_LISTEN_TIMEOUT_S = 10.0
_POLL_S = 0.01
_CONFINED = "confined: it cannot open the files of the data folder"
_UNCONFINED = "not confined: it may read the seal; run Linux 5.13 or newer with Landlock"

_log = structlog.get_logger("keystead.front")


def run(config: FrontConfig) -> None:
    """Serve until SIGTERM or SIGINT; blocks.

    Raises:
        StartupError: the front cannot listen as it is told to.
    """
    os.umask(0o077)
    configure_logs(config.log_path)
    _allow_files()
    forbid_dumps()
    if config.unix_socket is not None:
        clear_unix_socket(Path(config.unix_socket))  # while it still may
    read = (config.tls_cert, config.tls_key, config.published)
    readable = [Path(path) for path in read if path is not None]
    confined = confine([*program_folders(), *readable], Path(config.vault_socket).parent)
    uvloop.run(serve(config, {"front": _CONFINED if confined else _UNCONFINED}))


async def serve(config: FrontConfig, protections: dict[str, str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, in the running loop. Prints one line when it listens.

    ``protections``: what this process does without, for ``/ready``.

    Raises:
        StartupError: the front cannot listen as it is told to.
    """
    tls = check_tls(config.tls_cert, config.tls_key)
    address = check_listen(config.listen_host, tls is not None)
    port = free_port(address, config.listen_port)
    unix_socket = Path(config.unix_socket) if config.unix_socket else None
    if unix_socket is not None:
        clear_unix_socket(unix_socket)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    link = VaultLink(config.vault_socket)
    published = Path(config.published) if config.published else None
    front = Front(link, protections=protections, published=published, node=config.node)
    servers = _servers(front, address, port, unix_socket, tls)
    silence("_granian", "granian.access", "litestar")
    await link.start()
    serving = [asyncio.create_task(server.serve()) for server in servers]
    try:
        await _until_listening(serving, address, port, unix_socket)
        shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        sys.stdout.write(msgspec.json.encode({"ready": "front", "address": shown}).decode() + "\n")
        sys.stdout.flush()
        _log.info("listening", address=shown, tls=tls is not None, unix_socket=bool(unix_socket))
        await _first(stop.wait(), *serving)
        if not stop.is_set():
            raise StartupError("the HTTP server ended by itself", hint="Its log may say why")
        await front.admission.drain(_GRACE_S)
        _log.info("stopping", unfinished=front.admission.in_flight)
    finally:
        for server in servers:
            server.stop()  # type: ignore[no-untyped-call]  # Granian leaves it without types
        await asyncio.gather(*serving, return_exceptions=True)
        await link.close()
    _log.info("stopped")


def _servers(
    front: Callable[..., Awaitable[None]],
    address: str,
    port: int,
    unix_socket: Path | None,
    tls: tuple[Path, Path] | None,
) -> list[Server]:
    common: dict[str, Any] = {
        "interface": Interfaces.ASGINL,
        "http": HTTPModes.http1,
        "http1_settings": HTTP1Settings(
            # Of a head, and between two requests of one connection; bodies have the front's watch.
            header_read_timeout=int(limits.REQUEST_TIMEOUT_S * 1000),
            # Four times the bound on headers: what passes is answered by the front with a problem
            # document, what does not by Granian with a bare 431.
            max_buffer_size=4 * limits.HEADER_BYTES_MAX,
        ),
        "log_enabled": False,
        "websockets": False,
        "backlog": _BACKLOG,
        "backpressure": _connections(2 if unix_socket else 1),
    }
    cert, key = tls or (None, None)
    servers = [
        Server(
            front,
            address=address,
            port=port,
            ssl_cert=cert,
            ssl_key=key,
            ssl_protocol_min=SSLProtocols.tls13,
            **common,
        )
    ]
    if unix_socket is not None:
        local = Server(front, uds=unix_socket, **common)
        local.uds_permissions = 0o600  # Granian's embedded constructor lacks the argument
        servers.append(local)
    return servers


async def _until_listening(
    serving: list[asyncio.Task[None]], address: str, port: int, unix_socket: Path | None
) -> None:
    """Wait until both sockets take connections; Granian tells nobody when they do."""
    try:
        async with asyncio.timeout(_LISTEN_TIMEOUT_S):
            while not await _connects(asyncio.open_connection(address, port)):
                _raise_ended(serving)
                await asyncio.sleep(_POLL_S)
            path = str(unix_socket)
            while unix_socket and not await _connects(asyncio.open_unix_connection(path)):
                _raise_ended(serving)
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise StartupError(
            f"the HTTP server takes no connections on {address} port {port}",
            hint="Is the machine out of files or memory, or does a firewall drop them?",
        ) from None


async def _connects(
    attempt: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
) -> bool:
    try:
        _, writer = await attempt
    except OSError:
        return False
    writer.close()
    return True


def _raise_ended(serving: list[asyncio.Task[None]]) -> None:
    for task in serving:
        if task.done():
            why = task.exception() if not task.cancelled() else None
            raise StartupError(f"the HTTP server did not start: {type(why).__name__}") from why


async def _first(stopped: Awaitable[Any], *serving: asyncio.Task[None]) -> None:
    waiter = asyncio.ensure_future(stopped)
    await asyncio.wait({waiter, *serving}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()


def _allow_files() -> None:
    """Raise the soft limit of open files to the hard one: every connection is a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _connections(servers: int) -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(1, min(CONNECTIONS_MAX, (soft - _SPARE_FILES) // servers))
