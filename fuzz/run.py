"""Run hostile cases by the million: `make fuzz`, or `python fuzz/run.py --cases 20000 --seed 7`.

Nine in ten go to the parsers and checks, on every processor; the rest goes to a node of this run's
own, half as HTTP and half as frames. A seed and a count give the same cases again. Exit status 1 if
one did what it should not; each is printed with the bytes that bring it back.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzz.artefacts import ARTEFACTS
from fuzz.judge import Finding, Judge
from fuzz.pure import PURE
from fuzz.served import Served, furnish, rss_kib, told
from integration.node import Node

_TARGETS = {target.name: target for target in (*PURE, *ARTEFACTS)}
_SIZES = (8, 40, 200, 900)
_CHUNK = 5_000
_SERVED_ONE_IN = 10
_SERVED_CHUNK = 2_000


def pure_chunk(name: str, seed: str, count: int) -> tuple[Counter[str], list[Finding], float, int]:
    """Cases of one target: outcomes, findings, the slowest in units, the largest peak in bytes."""
    judge, source = Judge(), random.Random(seed)  # noqa: S311  cases, not secrets
    for _ in range(count):
        judge.run(_TARGETS[name], source.randbytes(source.choice(_SIZES)))
    slowest = judge.slowest_units.get(name, 0.0)
    return judge.outcomes, judge.findings, slowest, judge.peaks.get(name, 0)


def run_pure(cases: int, seed: int) -> tuple[Counter[str], list[Finding]]:
    """All targets in turn, in processes."""
    each = -(-cases // len(_TARGETS))
    chunks = [
        (name, f"{seed}/{name}/{start}", min(_CHUNK, each - start))
        for start in range(0, each, _CHUNK)
        for name in _TARGETS
    ]
    outcomes: Counter[str] = Counter()
    findings: list[Finding] = []
    slowest: dict[str, float] = {}
    peaks: dict[str, int] = {}
    started, done = time.monotonic(), 0
    with ProcessPoolExecutor() as pool:
        waiting = {pool.submit(pure_chunk, *chunk): chunk for chunk in chunks}
        for future in as_completed(waiting):
            name, _, count = waiting[future]
            counted, found, slow, peak = future.result()
            outcomes += counted
            findings += found
            slowest[name] = max(slow, slowest.get(name, 0.0))
            peaks[name] = max(peak, peaks.get(name, 0))
            done += count
            _progress("parsers and checks", done, each * len(_TARGETS), started, len(findings))
    print()
    print(f"{'target':<18} {'slowest, in P-256 verifications':>32} {'peak, bytes':>12}")
    for name in _TARGETS:
        print(f"{name:<18} {slowest.get(name, 0.0):>32.0f} {peaks.get(name, 0):>12}")
    return outcomes, findings


async def _serve_cases(served: Served, cases: int, seed: int) -> None:
    started = time.monotonic()
    source = random.Random(seed)  # noqa: S311  cases, not secrets
    while served.cases < cases:
        ask = served.http if served.cases % (2 * _SERVED_CHUNK) < _SERVED_CHUNK else served.frames
        await ask(source, _SERVED_CHUNK)
        _progress("a node", served.cases, cases, started, len(served.findings))
    print()


def run_served(cases: int, seed: int) -> tuple[Counter[str], list[Finding]]:
    """Cases against a node that is made for it and gone after it."""
    with tempfile.TemporaryDirectory() as folder, Node(Path(folder) / "data") as node:
        served = Served(furnish(node))
        vault = node.children()["vault"]
        before_kib = rss_kib(vault)
        asyncio.run(_serve_cases(served, cases, seed))
        print(f"memory of the vault: {before_kib} KiB before, {rss_kib(vault)} KiB after")
        if node.children().get("vault") != vault:
            served.findings.append(Finding("vault", "it ended, and was started again", ""))
        faults = (node.data / "logs" / "vault.log").read_text()
        if faults:
            served.findings.append(Finding("vault", f"it logged {faults[:500]}", ""))
    return served.outcomes, served.findings


def _progress(what: str, done: int, total: int, started: float, findings: int) -> None:
    rate = done / max(time.monotonic() - started, 1e-6)
    end = "\r" if sys.stdout.isatty() else "\n"
    share = min(done / total, 1.0)
    print(
        f"{what}: {done:>9} of {total}, {share:>4.0%}, {rate:6.0f}/s, {findings} findings", end=end
    )


def main() -> int:
    """Run, print outcomes and findings; 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("pure", "node"), help="half of it")
    chosen = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # the cases speak for it
    for_node = chosen.cases // _SERVED_ONE_IN if chosen.only is None else chosen.cases
    outcomes: Counter[str] = Counter()
    findings: list[Finding] = []
    if chosen.only != "node":
        counted, found = run_pure(
            chosen.cases - (for_node if chosen.only is None else 0), chosen.seed
        )
        outcomes, findings = outcomes + counted, findings + found
    if chosen.only != "pure":
        counted, found = run_served(for_node, chosen.seed)
        outcomes, findings = outcomes + counted, findings + found
    for name, count in sorted(outcomes.items()):
        print(f"{count:>9}  {name}")
    print(f"{outcomes.total()} cases, seed {chosen.seed}, {len(findings)} findings")
    print(told(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
