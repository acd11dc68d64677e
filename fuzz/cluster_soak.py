"""Strike two real nodes on PostgreSQL for as long as you like; the tests run the short form.

``python fuzz/cluster_soak.py --seconds 300 --seed 1`` deals all kinds of faults in shuffled decks,
one deployment a seed, until the time is over; the deck that is begun is dealt to its end. Needs
root, Linux with network namespaces, and the packages that ``tools/apt_needs.sh`` names. Ends with
status 1 if anything was found, or if a kind of fault did not strike as often as decks were dealt.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fault.cluster.database import missing_server
from fault.cluster.faults import FAULTS, impossible
from fault.cluster.network import missing
from fault.cluster.trial import Report, Trial, floors_missed, work_missed

_DECKS_A_SEED = 2
_UNAVAILABLE = 3


def main() -> int:
    """Run trials; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=300.0, help="begin no deck after this")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--folder", help="where the deployments go, the temporary folder if none")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of `finally`: nothing is left
    why = missing()[0] or missing_server()
    if why:
        print(f"cannot run here: {why}")
        return _UNAVAILABLE
    for kind in FAULTS:
        if without := impossible(kind):
            print(f"without {kind}: {without}")
    until_s = time.monotonic() + chosen.seconds
    reports: list[Report] = []
    while not reports or time.monotonic() < until_s:
        reports.append(_trial(chosen.folder, chosen.seed + len(reports), until_s))
        print("\n".join(reports[-1].lines()), flush=True)
    return _total(reports)


def _trial(where: str | None, seed: int, until_s: float) -> Report:
    decks = 0

    def goes_on() -> bool:
        nonlocal decks
        decks += 1
        return decks < _DECKS_A_SEED and time.monotonic() < until_s

    def say(line: str) -> None:
        print(line, flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="cluster", dir=where) as folder,
        Trial(Path(folder), seed, say=say) as trial,
    ):
        dealt = trial.rounds(goes_on)
        report = trial.judge()
        report.findings += floors_missed(report, dealt) + work_missed(report)
        if report.findings:
            kept = Path(tempfile.mkdtemp(prefix=f"found-{seed}-", dir=where))
            trial.leave_for_a_look(kept)
            print(f"kept for a look: {kept}", flush=True)
    return report


def _total(reports: list[Report]) -> int:
    struck: Counter[str] = Counter()
    for report in reports:
        struck.update(report.struck)
    uses = sum(report.counts.get("ok", 0) for report in reports)
    stops = sum(report.counts.get("stops", 0) for report in reports)
    found = sum(len(report.findings) for report in reports)
    print(
        f"{len(reports)} seeds, {sum(struck.values())} faults of {len(struck)} kinds,"
        f" {uses} uses answered, {stops} stops, {found} findings"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
