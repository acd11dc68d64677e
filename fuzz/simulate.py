"""Run the simulator over many seeds: whole vaults in one process, all time and chance from a seed.

``python fuzz/simulate.py --seeds 10000 --seed 1`` goes through all profiles in turn; ``--profile``
stays with one. A seed that fails is run again, shrunk, and told with how to replay it. Ends with
status 1 if anything was found, or if a profile brought fewer faults than its floor.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from sim.batch import Failure, Report, Summary, all_of, summed, told
from sim.profiles import PROFILES

_TOLD_MAX = 3
"""Failing seeds that are shrunk and told in full; each takes up to a minute."""

_TOLD_EVERY = 100
"""Seeds from one line to the next where no bar can be drawn."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """The report as JSON."""

    report: Report
    told: tuple[Failure, ...]


def main() -> int:
    """Run, print, and give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--profile", choices=tuple(PROFILES), help="all in turn if none is named")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--json", type=Path, help="where the report goes, too")
    chosen = parser.parse_args()
    console = Console()
    jobs = min(chosen.jobs, chosen.seeds)
    seeds = range(chosen.seed, chosen.seed + chosen.seeds)
    with _progress(console) as progress:
        task = progress.add_task("seeds", total=chosen.seeds, found=0)
        report = summed(all_of(seeds, chosen.profile, jobs), _Steps(progress, task))
    _print(console, report)
    failures = tuple(told(each.seed, each.profile) for each in report.failed[:_TOLD_MAX])
    for failure in failures:
        _tell(console, failure)
    if chosen.json is not None:
        written = Written(report=report, told=failures)
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=2))
    return 1 if report.failed or report.floors else 0


class _Steps:
    """Moves the bar, and says at once which seed failed."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._done = 0
        self._found = 0

    def __call__(self, summary: Summary) -> None:
        self._done += 1
        self._found += bool(summary.findings)
        self._progress.update(self._task, advance=1, found=self._found)
        if summary.findings:
            said = f"seed {summary.seed} {summary.profile}: {summary.findings[0]}"
            self._progress.console.print(said, markup=False, highlight=False)
        if not self._progress.console.is_terminal and self._done % _TOLD_EVERY == 0:
            self._progress.console.print(f"{self._done} seeds, {self._found} failed")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[found]} failed"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _print(console: Console, report: Report) -> None:
    lines = [
        f"{report.seeds} seeds, {report.operations} operations, {report.commits} commits",
        f"faults that took effect: {_counted(report.faults) or 'none'}",
        f"answers: {_counted(report.answers)}",
        *(f"below its floor: {line}" for line in report.floors),
        f"{len(report.failed)} seeds failed",
    ]
    console.print("\n".join(lines), markup=False, highlight=False)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _tell(console: Console, failure: Failure) -> None:
    lines = [
        "",
        f"seed {failure.seed} {failure.profile}; again: {failure.replay}",
        *(f"  {finding}" for finding in failure.findings),
        "the least of it that fails alike:",
        *(f"  {line}" for line in failure.left),
        "its trace, to the end:",
        *(f"  {line}" for line in failure.trace),
    ]
    console.print("\n".join(lines), markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
