"""What clients did, when, and what came of it; kept by the clients themselves, read by the checker.

Times are of ``CLOCK_MONOTONIC`` in nanoseconds, one for all clients, as they run on one machine;
the nodes never see it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from keystead.client import Receipt

__all__ = ["Attempt", "History", "Outcome", "Stop", "Target", "Window", "windows"]


class Outcome(StrEnum):
    """What a client knows after an attempt. ``UNKNOWN``: it may have had its effect, or have it."""

    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a use stands on: its key, its handle, and the links of its chain, the last its own."""

    key: str
    key_id: str
    handle_id: str
    links: tuple[str, ...]

    @property
    def link(self) -> str:
        """The id that stands in records."""
        return self.links[-1]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One use, sent once or by a client that fails over.

    ``front``: who was asked; ``key``: the idempotency key, empty if there was none. ``result``:
    what was answered; ``message``: what the record commits to, if the client can know it. ``code``:
    of a refusal, or why there was no answer.
    """

    client: str
    front: str
    operation: str
    target: Target
    key: str
    invoked_ns: int
    completed_ns: int
    outcome: Outcome
    code: str = ""
    receipt: Receipt | None = None
    result: Any = None
    message: bytes | None = None


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to stop something, or to start it again.

    ``what``: ``suspend``, ``resume`` or ``compromise`` of a key's version, ``revoke_handle`` of a
    link, ``revoke_key`` of all handles of a key. ``target``: the key's id, or the link. ``epoch``:
    of the key after it, where the answer tells.
    """

    front: str
    what: str
    target: str
    invoked_ns: int
    completed_ns: int
    outcome: Outcome
    code: str = ""
    epoch: int = 0


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One use over all its attempts: its effect lies between the first one and the first answer.

    ``answer``: the first attempt that was answered.
    """

    invoked_ns: int
    completed_ns: int
    answer: Attempt


def windows(attempts: Iterable[Attempt]) -> list[Window]:
    """Of every use that was answered."""
    begun: dict[tuple[str, str], int] = {}
    answered: dict[tuple[str, str], Attempt] = {}
    for number, attempt in enumerate(attempts):
        at = (attempt.target.link, attempt.key or f"without a key, {number}")
        begun[at] = min(begun.get(at, attempt.invoked_ns), attempt.invoked_ns)
        first = answered.get(at)
        if attempt.outcome is Outcome.OK and (
            first is None or attempt.completed_ns < first.completed_ns
        ):
            answered[at] = attempt
    return [
        Window(invoked_ns=begun[at], completed_ns=attempt.completed_ns, answer=attempt)
        for at, attempt in answered.items()
    ]


class History:
    """All attempts of all clients; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: list[Attempt] = []
        self._stops: list[Stop] = []
        self._surprises: list[str] = []

    def used(self, attempt: Attempt) -> None:
        """An attempt at a use has ended."""
        with self._lock:
            self._attempts.append(attempt)

    def stopped(self, stop: Stop) -> None:
        """An attempt to stop or start something has ended."""
        with self._lock:
            self._stops.append(stop)

    def surprise(self, what: str) -> None:
        """Something that no fault excuses."""
        with self._lock:
            self._surprises.append(what)

    def attempts(self) -> list[Attempt]:
        with self._lock:
            return list(self._attempts)

    def stops(self) -> list[Stop]:
        with self._lock:
            return list(self._stops)

    def surprises(self) -> list[str]:
        with self._lock:
            return list(self._surprises)

    def counts(self) -> Counter[str]:
        """How many attempts ended how, and how many stops."""
        with self._lock:
            counted = Counter(str(attempt.outcome) for attempt in self._attempts)
            counted["stops"] = sum(stop.outcome is Outcome.OK for stop in self._stops)
            return counted

    def write(self, path: Path) -> None:
        """Leave it for a person, a JSON object a line."""
        told = [*self.attempts(), *self.stops(), {"surprises": self.surprises()}]
        path.write_bytes(b"\n".join(map(_line, told)) + b"\n")


def _line(item: object) -> bytes:
    return msgspec.json.encode(item, enc_hook=repr)
