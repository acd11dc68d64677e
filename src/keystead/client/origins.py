"""Whose log a proof is of, as the proof itself says."""

from __future__ import annotations

from keystead.errors import MalformedRequest
from keystead.translog.heads import parse_checkpoint
from keystead.translog.notes import parse_note
from keystead.translog.proofs import parse_proof

__all__ = ["is_of_node"]


def is_of_node(proof: bytes, node: str) -> bool:
    """Whether a proof says that it is of this node's log; ``<deployment>/<node>`` is its origin.

    It is to find the right log, and is no check: that is ``translog``'s, under a known key.
    """
    try:
        checkpoint = parse_checkpoint(parse_note(parse_proof(proof).checkpoint).text)
    except MalformedRequest:
        return False
    return checkpoint.origin.rpartition("/")[2] == node
