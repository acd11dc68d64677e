"""What a drill's picture shows: uses by how long before or after the acknowledgement they began."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import ceil

import msgspec

from keystead.drills.revocation.figures import Times, figures, uses_by_target
from keystead.drills.revocation.trace import OK, Trace

__all__ = ["BINS", "Bin", "Panel", "timeline"]

BINS = 30
"""So many before the acknowledgement, and after it."""
_BIN_STEP_MS = 5

_NS_PER_MS = 1_000_000


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Uses begun in one bin from ``at_ms`` on, with their answers."""

    at_ms: int
    done: int
    refused: int


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """All revocations of keys that answer in one way, each with its acknowledgement at 0 ms.

    ``bin_ms``: how long a bin is; long enough that almost all were sent within the picture.
    """

    ack: str
    revocations: int
    acknowledged: Times
    bin_ms: int
    bins: tuple[Bin, ...]


def timeline(trace: Trace) -> tuple[Panel, ...]:
    """The picture of each way."""
    return tuple(_panels(trace))


def _panels(trace: Trace) -> Iterator[Panel]:
    uses = uses_by_target(trace)
    for found in figures(trace):
        bin_ms = _BIN_STEP_MS * max(1, ceil(found.acknowledged.p99 / (BINS * _BIN_STEP_MS)))
        done: Counter[int] = Counter()
        refused: Counter[int] = Counter()
        for _, one in trace.of(found.ack):
            for use in uses.get(one.target, []):
                if use.how != "hot":
                    continue
                at = (use.began_ns - one.answered_ns) // (bin_ms * _NS_PER_MS)
                (done if use.outcome == OK else refused)[at] += 1
        yield Panel(
            ack=found.ack,
            revocations=found.revocations,
            acknowledged=found.acknowledged,
            bin_ms=bin_ms,
            bins=tuple(
                Bin(at_ms=at * bin_ms, done=done[at], refused=refused[at])
                for at in range(-BINS, BINS)
                if done[at] or refused[at]
            ),
        )
