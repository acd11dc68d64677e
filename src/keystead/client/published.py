"""The published log of a node, one function each: what anyone may read, and nobody need believe.

Whoever relies on it checks it with ``keystead.translog`` against a verifier key they got elsewhere.
"""

from __future__ import annotations

from keystead.client.admin import Ask
from keystead.translog.tiles import Bundle, Tile

__all__ = ["log_checkpoint", "log_proof", "log_tile", "log_vkey"]


def log_checkpoint() -> Ask[bytes]:
    """The log's checkpoint: a signed note (C2SP tlog-checkpoint), with cosignatures if it has."""
    return _read("checkpoint")


def log_vkey() -> Ask[str]:
    """The log's verifier key as this node tells it: to compare, or to pin at first sight."""
    return Ask(
        method="GET",
        path="/log/vkey",
        read=lambda reply: reply.body.decode("ascii", errors="replace").strip(),
        operator=False,
    )


def log_proof(seq: int) -> Ask[bytes]:
    """The proof file of a record (C2SP tlog-proof), under the checkpoint of this moment.

    Raises:
        NotFound: when it is run: there is no such record, or no checkpoint covers it yet.
    """
    return _read(f"proof/{seq}")


def log_tile(item: Tile | Bundle) -> Ask[bytes]:
    """A tile of hashes, or a bundle of entries (C2SP tlog-tiles)."""
    return _read(item.path)


def _read(name: str) -> Ask[bytes]:
    return Ask(method="GET", path=f"/log/{name}", read=lambda reply: reply.body, operator=False)
