"""Asks a node how it is: unlike any other call, "not ready" is an answer here, not a refusal."""

from __future__ import annotations

import msgspec

from keystead.client.core import Call, Flow, Reply, Request, Send, Session, Turn, decode
from keystead.errors import ServiceError
from keystead.frames.messages import NodeView

__all__ = ["Readiness", "readiness"]

_TIMEOUT_S = 5.0


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """What ``/ready`` says. ``reasons``: why it is not ready; ``protections``: name to state."""

    ready: bool
    reasons: tuple[str, ...] = ()
    protections: dict[str, str] = {}
    deployment: str = ""
    node: str = ""
    epoch: int | None = None
    last_seq: int | None = None
    keys: int | None = None
    nodes: tuple[NodeView, ...] = ()


class _Ask(Call[Readiness], frozen=True, kw_only=True):
    def flow(self, session: Session, turn: Turn) -> Flow[Readiness]:
        """Ask each front once until one answers, and read that whatever its status is."""
        silent: list[str] = []
        for url in session.fronts.order(turn.monotonic_s):
            turn = yield Send(Request(method="GET", path="/ready"), _TIMEOUT_S, url)
            if isinstance(turn.came, Reply):
                return decode(turn.came.body, Readiness)
            why = turn.came.why if turn.came is not None else "nothing came back"
            silent.append(f"{url}: {why}")
        raise ServiceError(
            f"no answer from {'; '.join(silent)}",
            hint="Is the node up? Start one with keystead up, or name another with --url",
        )


def readiness() -> Call[Readiness]:
    """A call that gives a node's readiness."""
    return _Ask()
