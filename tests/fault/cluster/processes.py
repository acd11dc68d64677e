"""Processes of others: who runs, whose children they are, and how they are stopped and let go."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["children_of", "descendants_of", "resume", "runs", "state_of", "suspend", "wait_until"]

_POLL_S = 0.02


def state_of(pid: int) -> str:
    """The letter of a process's state (proc(5)): ``T`` is stopped; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def runs(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    return state_of(pid) not in {"", "Z", "X"}


def children_of(parent: int) -> list[int]:
    """The processes that a process has started and that have not been waited for."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError, ValueError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def descendants_of(ancestor: int) -> list[int]:
    """Its children, and theirs."""
    found = children_of(ancestor)
    for pid in list(found):
        found += descendants_of(pid)
    return found


def suspend(pids: Iterable[int]) -> int:
    """SIGSTOP, and wait until each has stopped; gives how many there were."""
    stopped = [pid for pid in pids if _signal(pid, signal.SIGSTOP)]
    wait_until(lambda: all(state_of(pid) in {"T", "", "Z"} for pid in stopped), 10.0)
    return len(stopped)


def resume(pids: Iterable[int]) -> None:
    """SIGCONT."""
    for pid in pids:
        _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def wait_until(reached: Callable[[], bool], within_s: float) -> None:
    """Look again and again.

    Raises:
        AssertionError: it was not reached in time.
    """
    until = time.monotonic() + within_s
    while not reached():
        if time.monotonic() > until:
            raise AssertionError(f"not reached within {within_s:.0f} s")
        time.sleep(_POLL_S)
