"""What happens in one run, as values: operations of clients and faults, all known before it begins.

So a run is replayed by its seed, and shrunk by leaving items out.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["HORIZON_US", "NODES", "Fault", "Kind", "Op", "Scenario", "What", "Window"]

HORIZON_US = 14_000_000
"""Operations and faults come before this; then all is healed, and what is unfinished ends."""
NODES = ("node-a", "node-b", "node-c")

What = Literal[
    "jwt",
    "slow",
    "edge",
    "strict",
    "ledger",
    "firmware",
    "wrap",
    "unwrap",
    "derive",
    "budget",
    "child",
    "narrow",
    "off",
    "outside",
    "other",
    "suspend",
    "resume",
    "compromise",
    "revoke_link",
    "revoke_key",
    "revoke_many",
    "emergency",
    "emergency_end",
    "issue",
    "rotate",
    "roll_back",
    "promote",
]

Kind = Literal[
    "crash",
    "delay",
    "duplicate",
    "reorder",
    "disk_full",
    "fsync",
    "slow_custody",
    "clock_jump",
    "suspend",
    "database",
    "lost_notice",
    "contention",
]


class Op(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of one client.

    ``key``: by name, or what else is chosen. ``once``: its idempotency key, "" if none. ``home``:
    which node it asks first. ``token``: by which handle, by its name. ``value``: of an image.
    """

    number: int
    at_us: int
    what: What
    key: str
    token: str = ""
    once: str = ""
    home: int = 0
    value: int = 0


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault. Which fields count, its kind says.

    ``crash``: node, span (until it starts again), amount (which step of a commit from now on it
    dies at; 0: at once; -1: it ends in order). ``delay``: op's first request by the span, or,
    without an op, every commit of a node for the span, by ``amount`` microseconds. ``duplicate``:
    op's request comes to ``node`` as well. ``reorder``: op's request is overtaken. ``disk_full``,
    ``slow_custody``, ``database``, ``lost_notice``, ``suspend``: node, span. ``fsync``,
    ``contention``: the node's next ``amount`` commits. ``clock_jump``: by ``amount`` milliseconds.
    """

    number: int
    kind: Kind
    at_us: int
    node: int = 0
    span_us: int = 0
    amount: int = 0
    op: int = -1


class Window(msgspec.Struct, frozen=True):
    """From when until when something lasts, in microseconds."""

    from_us: int
    until_us: int

    def holds(self, now_us: int) -> bool:
        return self.from_us <= now_us < self.until_us


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One whole run. ``skews_ms``, ``drifts_ppm``: of the nodes' clocks, in the order of NODES."""

    seed: int
    profile: str
    nodes: int
    skews_ms: tuple[int, ...]
    drifts_ppm: tuple[int, ...]
    ops: tuple[Op, ...]
    faults: tuple[Fault, ...]
