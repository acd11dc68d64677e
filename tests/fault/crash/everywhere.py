"""The long form of crashes at a step: at each passing of each step, one after another."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

from fault.crash.core import opened_core
from fault.crash.gone import Case, CrashServer
from fault.crash.script import play, prepare
from fault.crash.verdict import check_folder
from keystead.testing.faulty_journal import Trips

__all__ = ["crash_everywhere", "run"]

_KILLED = -9


def run(folder: Path, trips: Trips | None = None) -> None:
    """One run of the script in this process, on what the folder holds."""

    async def running() -> None:
        async with opened_core(folder, trips) as core:
            await play(core)

    asyncio.run(running())


def crash_everywhere(folder: Path) -> Iterator[tuple[Case, str]]:
    """Each crash, and what is wrong after it: nothing, if the text is empty."""
    template, undisturbed, crashed = (folder / name for name in ("template", "whole", "crashed"))
    prepare(template)
    shutil.copytree(template, undisturbed)
    trips = Trips()
    run(undisturbed, trips)
    with CrashServer() as server:
        for (step, moment), count in sorted(trips.hits.items()):
            for nth in range(1, count + 1):
                shutil.copytree(template, crashed)
                case = Case(folder=str(crashed), step=step, moment=moment, nth=nth)
                yield case, _verdict(crashed, server.run(case))
                shutil.rmtree(crashed)


def _verdict(folder: Path, status: int) -> str:
    """Groups differ from run to run: the last passings of a step may not come."""
    if status not in (0, _KILLED):
        return f"expected the process to be killed, it ended with {status}"
    try:
        check_folder(folder, settled=status == 0)
        run(folder)
        check_folder(folder, settled=True)
    except (AssertionError, RuntimeError) as exc:
        return str(exc)
    return ""
