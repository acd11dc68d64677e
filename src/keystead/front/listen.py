"""Where the front listens, checked before anything starts: address, port, socket, certificate."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
import stat
from pathlib import Path

from keystead.errors import StartupError

__all__ = ["check_listen", "check_tls", "clear_unix_socket", "free_port"]

_PORT_MAX = 65535


def check_listen(host: str, tls: bool) -> str:  # noqa: FBT001  two facts, no options
    """The numeric address to listen on: loopback, or any other under TLS.

    Raises:
        StartupError: a name other than localhost, or another address in clear.
    """
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise StartupError(
            f"expected an IP address to listen on, met {host[:64]!r}",
            hint="Names may mean another address tomorrow: write 127.0.0.1, ::1 or the address",
        ) from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if not (mapped or address).is_loopback and not tls:
        raise StartupError(
            f"refusing to listen on {address} in clear: handles would travel unprotected",
            hint="Give tls_cert and tls_key, or listen on 127.0.0.1",
        )
    return str(address)


def free_port(address: str, port: int) -> int:
    """The port, if nobody listens on it; for 0 one that is free now.

    Raises:
        StartupError: the port is taken, may not be used, or the address is not this machine's.
    """
    if not 0 <= port <= _PORT_MAX:
        raise StartupError(f"expected a port from 0 to {_PORT_MAX}, met {port}")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As Granian binds, but without SO_REUSEPORT: with it, two fronts would share the port and
        # each would see half of the requests.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as exc:
            raise _bind_error(exc, address, port) from None
        return int(probe.getsockname()[1])


def clear_unix_socket(path: Path) -> None:
    """Remove a socket that a dead front left behind.

    Raises:
        StartupError: somebody listens on it, it is no socket, or its folder is missing.
    """
    if not path.parent.is_dir():
        raise StartupError(f"there is no folder {path.parent} for the front's socket")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartupError(f"{path} is there and is no socket", hint="Move it out of the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as exc:
            raise StartupError(f"cannot tell whose socket {path} is: {exc.strerror}") from None
    raise StartupError(
        f"a front listens on {path} already", hint="Stop it first, or give this one another path"
    )


def check_tls(cert: str | None, key: str | None) -> tuple[Path, Path] | None:
    """Certificate chain and key as files that fit each other, or neither.

    Raises:
        StartupError: one without the other, a file that cannot be read, an encrypted key, or a key
            of another certificate.
    """
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise StartupError("expected tls_cert and tls_key together, met one of them")
    for path in (cert, key):
        if not os.access(path, os.R_OK):
            raise StartupError(f"cannot read {path}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, ValueError) as exc:
        why = exc.reason if isinstance(exc, ssl.SSLError) else str(exc)
        raise StartupError(
            f"{cert} and {key} are no certificate with its key: {why}",
            hint="Both in PEM, the key not encrypted, the chain from the leaf upwards",
        ) from None
    return Path(cert), Path(key)


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _bind_error(exc: OSError, address: str, port: int) -> StartupError:
    match exc.errno:
        case errno.EADDRINUSE:
            return StartupError(
                f"port {port} on {address} is in use",
                hint=f"Stop what listens there (ss -ltnp 'sport = :{port}'), or choose another",
            )
        case errno.EACCES:
            return StartupError(
                f"port {port} on {address} needs a privilege that this process lacks",
                hint="Choose a port from 1024 up",
            )
        case errno.EADDRNOTAVAIL:
            return StartupError(f"{address} is not an address of this machine")
        case _:
            return StartupError(f"cannot listen on {address} port {port}: {exc.strerror}")
