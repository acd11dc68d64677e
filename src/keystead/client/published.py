"""The published log of a node, one function each: what anyone may read, and nobody need believe.

Whoever relies on it checks it with ``keystead.translog`` against a verifier key they got elsewhere.
Each node has a log of its own. Of several fronts the first is asked and no other, except for the
proof of a record: a receipt names its node, and any front may turn out to be that node's.
"""

from __future__ import annotations

from keystead.client.admin import Ask
from keystead.client.core import Call, Flow, Request, Session, Turn, exchange, front_by_front
from keystead.client.origins import is_of_node
from keystead.errors import KeysteadError, NotFound, ServiceError
from keystead.translog.tiles import Bundle, Tile

__all__ = [
    "FetchProof",
    "log_checkpoint",
    "log_proof",
    "log_tile",
    "log_vkey",
]


class FetchProof(Call[bytes], frozen=True, kw_only=True):
    """Fetch the proof of a record of the log of ``node``; see :func:`log_proof`."""

    seq: int
    node: str

    def flow(self, session: Session, turn: Turn) -> Flow[bytes]:
        """Ask front by front until one has it, if the node is known; else the first front."""
        if not self.node:
            return (yield from _read(f"proof/{self.seq}").flow(session, turn))

        def ask(front: str, turn: Turn, until_s: float) -> Flow[bytes]:
            request = Request(method="GET", path=f"/log/proof/{self.seq}")
            reply, _ = yield from exchange(session, lambda _: request, turn, until_s, only=front)
            if not is_of_node(reply.body, self.node):
                raise NotFound(f"expected the log of node {self.node}, met another node's")
            return reply.body

        try:
            return (yield from front_by_front(session, ask, turn, passed=(NotFound, ServiceError)))
        except NotFound as exc:
            raise _nowhere(exc, self) from exc


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
        of_log=True,
    )


def log_proof(seq: int, *, node: str = "") -> Call[bytes]:
    """The proof file of a record (C2SP tlog-proof), under the checkpoint of this moment.

    ``node``: whose log ``seq`` is of, as the receipt has it: all fronts are asked for it, and a
    proof from another node's log is passed over. Empty: the log of the first front.

    Raises:
        NotFound: when it is run: there is no such record, no checkpoint covers it yet, or no front
            is that node's.
    """
    return FetchProof(seq=seq, node=node)


def log_tile(item: Tile | Bundle) -> Ask[bytes]:
    """A tile of hashes, or a bundle of entries (C2SP tlog-tiles)."""
    return _read(item.path)


def _nowhere(exc: KeysteadError, asked: FetchProof) -> NotFound:
    return NotFound(
        f"no proof of record {asked.seq} in the log of node {asked.node}: {exc.message}",
        hint="A record just made is covered within seconds; else name a front of that node",
    )


def _read(name: str) -> Ask[bytes]:
    return Ask(
        method="GET",
        path=f"/log/{name}",
        read=lambda reply: reply.body,
        operator=False,
        of_log=True,
    )
