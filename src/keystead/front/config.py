"""What a front is started with, apart from the HTTP server that a supervisor need not load."""

from __future__ import annotations

import msgspec

__all__ = ["FrontConfig"]


class FrontConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a front listens, and where its vault is.

    ``listen_port`` 0: any free one. ``unix_socket``: served in clear, mode 0600. ``tls_cert``,
    ``tls_key``: PEM files. ``log_path``: left out, the process's log goes to stderr.
    ``published``: the folder of the Merkle log's tiles, if they are served here: of the log of
    ``node``.
    """

    vault_socket: str
    listen_host: str = "127.0.0.1"
    listen_port: int = 0
    unix_socket: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    log_path: str | None = None
    published: str | None = None
    node: str = ""
