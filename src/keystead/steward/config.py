"""How a steward is told what to look after."""

from __future__ import annotations

import msgspec

__all__ = ["StewardConfig"]


class StewardConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a steward finds its vault and registry, and where it publishes the log.

    ``log``: None publishes nothing. ``witnesses``: address and verifier key of each that is asked
    to cosign.
    """

    vault_socket: str
    database: str
    node: str
    log: str | None
    witnesses: tuple[tuple[str, str], ...] = ()
    quorum: int = 0
