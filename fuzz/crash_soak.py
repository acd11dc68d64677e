"""Kill a node's processes under load for as long as you like; CI runs the short form.

``python fuzz/crash_soak.py --seconds 600 --seed 1`` goes from seed to seed until the time is over.
Each seed is a deployment of its own. Ends with status 1 if anything was found.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fault.crash.everywhere import crash_everywhere
from fault.crash.rolling import roll
from fault.crash.siege import Report, besiege, first_starts


def main() -> int:
    """Run sieges; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=300.0, help="begin no kill after this")
    parser.add_argument("--kills", type=int, default=25, help="kills a seed")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--first-starts", type=int, default=10, help="first starts to cut off")
    parser.add_argument("--steps", action="store_true", help="first crash at every commit step")
    parser.add_argument("--rollouts", type=int, default=2, help="seeds of kills in rollouts")
    parser.add_argument("--folder", help="where the deployments go, the temporary folder if none")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of `finally`: no node is left
    until = time.monotonic() + chosen.seconds
    with tempfile.TemporaryDirectory(prefix="first", dir=chosen.folder) as made:
        cut = first_starts(Path(made), seed=chosen.seed, count=chosen.first_starts)
    print("\n".join([f"{chosen.first_starts} first starts cut off, {len(cut)} findings", *cut]))
    if chosen.steps:
        cut += _steps(chosen.folder)
    cut += _rollouts(chosen.folder, range(chosen.seed, chosen.seed + chosen.rollouts))
    reports: list[Report] = []
    while time.monotonic() < until:
        folder = Path(tempfile.mkdtemp(prefix="siege", dir=chosen.folder))
        report = besiege(
            folder,
            seed=chosen.seed + len(reports),
            goes_on=lambda done: done < chosen.kills and time.monotonic() < until,
        )
        reports.append(report)
        print("\n".join(report.lines()), flush=True)
        if report.findings:
            print(f"  kept for a look: {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    kills = sum(len(report.kills) for report in reports)
    worst = max((multiple for report in reports for multiple in report.multiples()), default=0.0)
    found = len(cut) + sum(len(report.findings) for report in reports)
    print(
        f"{len(reports)} seeds, {kills} rounds of kills,"
        f" {sum(sum(report.struck().values()) for report in reports)} kills,"
        f" {sum(report.uses for report in reports)} uses, {found} findings;"
        f" worst restart {worst:.2f} undisturbed starts"
    )
    return 1 if found else 0


def _rollouts(where: str | None, seeds: range) -> list[str]:
    """A node a seed, killed at each stage of a rollout."""
    found: list[str] = []
    for seed in seeds:
        folder = Path(tempfile.mkdtemp(prefix="rollouts", dir=where))
        report = roll(folder, seed=seed)
        found += report.findings
        print("\n".join(report.lines()), flush=True)
        if report.findings:
            print(f"  kept for a look: {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    return found


def _steps(where: str | None) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="steps", dir=where) as folder:
        verdicts = list(crash_everywhere(Path(folder)))
    found = [f"{case.step} {case.moment} {case.nth}: {wrong}" for case, wrong in verdicts if wrong]
    print("\n".join([f"{len(verdicts)} crashes at a commit step, {len(found)} findings", *found]))
    return found


if __name__ == "__main__":
    sys.exit(main())
