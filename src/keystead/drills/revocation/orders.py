"""What a drill and the processes of its load say to each other: one JSON document a line."""

from __future__ import annotations

from typing import Literal

import msgspec

from keystead.drills.revocation.targets import Work

__all__ = ["Held", "Job", "Order", "Said"]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A handle and what it is good for. ``target``: -1 for one that nobody revokes."""

    target: int
    work: Work
    token: str

    def __repr__(self) -> str:
        return f"<Held of target {self.target}>"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The load of one front. ``out``: the file that it leaves its uses in; ``context``: of all."""

    url: str
    front: int
    context: str
    held: tuple[Held, ...]
    out: str


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """``heat``: use a target from now on; ``stopped``: its revocation was acknowledged; ``end``."""

    do: Literal["heat", "stopped", "end"]
    target: int = -1


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """``warm``: a target is in use; ``over``: it is refused again and again; ``failed``: why."""

    what: Literal["warm", "over", "failed", "done"]
    target: int = -1
    why: str = ""
