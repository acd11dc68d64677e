"""Runs the script in a process that is killed at a named step; the file is all that is left.

A server forks a process a case: it imports the vault once, and is single-threaded when it forks.
``python -m fault.crash.gone`` reads a case a line and answers with the status of its process.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from fault.crash.core import opened_core
from fault.crash.script import first_start, play
from keystead.testing.faulty_journal import Moment, Step, Trip, Trips, crash

__all__ = ["Case", "CrashServer"]

_TESTS = Path(__file__).resolve().parents[2]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process is killed. ``first``: at the first start of a deployment, not in the run."""

    folder: str
    step: Step
    moment: Moment
    nth: int = 1
    first: bool = False


class CrashServer:
    """Gives each case a process of its own; ends with its ``with`` block."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fault.crash.gone"],
            cwd=_TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=20)

    def run(self, case: Case) -> int:
        """The exit status of the case's process: -9 if it was killed."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the server has no pipes")
        self._process.stdin.write(msgspec.json.encode(case).decode() + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _child(case: Case) -> None:
    trips = Trips(Trip(case.step, case.moment, crash, case.nth))

    async def run() -> None:
        async with opened_core(Path(case.folder), trips) as core:
            await play(core)

    if case.first:
        first_start(Path(case.folder), trips)
    else:
        asyncio.run(run())


def _serve() -> None:
    for line in sys.stdin:
        case = msgspec.json.decode(line, type=Case)
        number = os.fork()
        if number == 0:
            status = 1
            os.dup2(2, 1)  # what the vault logs is no status
            try:
                _child(case)
                status = 0
            finally:
                os._exit(status)
        _, ended = os.waitpid(number, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(ended)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
