"""Many seeds, in one process or several, and what is told of them."""

from __future__ import annotations

import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

import msgspec

from sim.profiles import FLOORS, scenario_of
from sim.scenario import Scenario
from sim.shrink import shrunk, sort_of
from sim.world import Outcome, run

__all__ = ["Failure", "Report", "Summary", "floors_missed", "ran", "summed", "told"]

_TRACE_LINES = 40
_JUDGED_FROM = 20
"""Seeds of a profile from which on it is held to its floors: fewer may miss one by chance."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One seed, without its trace."""

    seed: int
    profile: str
    nodes: int
    operations: int
    steps: int
    commits: int
    took: dict[str, int]
    answers: dict[str, int]
    findings: tuple[str, ...]
    digest: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A seed that failed: how to run it again, and the least of it that fails alike."""

    seed: int
    profile: str
    findings: tuple[str, ...]
    replay: str
    left: tuple[str, ...]
    trace: tuple[str, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """``faults``: how often each kind took effect. ``floors``: what is below its floor."""

    seeds: int
    steps: int
    commits: int
    operations: int
    faults: dict[str, int]
    answers: dict[str, int]
    by_profile: dict[str, int]
    floors: tuple[str, ...]
    failed: tuple[Summary, ...]


def ran(seed: int, profile: str | None = None) -> Summary:
    """One seed."""
    return summary_of(run(scenario_of(seed, profile)))


def summary_of(outcome: Outcome) -> Summary:
    """What is kept of a run."""
    scenario = outcome.scenario
    return Summary(
        seed=scenario.seed,
        profile=scenario.profile,
        nodes=scenario.nodes,
        operations=len(scenario.ops),
        steps=outcome.steps,
        commits=outcome.commits,
        took=outcome.took,
        answers=outcome.answers,
        findings=outcome.findings,
        digest=outcome.digest,
    )


def _ran(job: tuple[int, str | None]) -> Summary:
    return ran(*job)


def all_of(seeds: Iterable[int], profile: str | None, processes: int) -> Iterator[Summary]:
    """Each seed as it is through; with several processes in any order."""
    jobs = ((seed, profile) for seed in seeds)
    if processes <= 1:
        yield from map(_ran, jobs)
        return
    # spawn: no state of this process, such as a test's patches, comes along
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(_ran, jobs, chunksize=4)


def summed(summaries: Iterable[Summary], progress: Callable[[Summary], None]) -> Report:
    """All of them as one; ``progress`` is called with each."""
    faults: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    seeds: Counter[str] = Counter()
    took: dict[str, Counter[str]] = defaultdict(Counter)
    steps = commits = operations = 0
    failed: list[Summary] = []
    for summary in summaries:
        progress(summary)
        seeds[summary.profile] += 1
        took[summary.profile].update(summary.took)
        faults.update(summary.took)
        answers.update(summary.answers)
        steps += summary.steps
        commits += summary.commits
        operations += summary.operations
        if summary.findings:
            failed.append(summary)
    return Report(
        seeds=seeds.total(),
        steps=steps,
        commits=commits,
        operations=operations,
        faults=dict(sorted(faults.items())),
        answers=dict(sorted(answers.items())),
        by_profile=dict(sorted(seeds.items())),
        floors=tuple(floors_missed(seeds, took)),
        failed=tuple(sorted(failed, key=lambda summary: summary.seed)),
    )


def floors_missed(seeds: Counter[str], took: dict[str, Counter[str]]) -> Iterator[str]:
    """Faults that took effect less often than so many seeds of a profile must bring."""
    for profile, count in sorted(seeds.items()):
        for kind, least in FLOORS[profile].items():
            if count >= _JUDGED_FROM and took[profile][kind] < int(least * count):
                met = took[profile][kind]
                yield f"{profile}: expected {least} {kind} a seed, met {met} in {count} seeds"


def told(
    seed: int, profile: str, run_it: Callable[[Scenario], Outcome] = run, *, runs_max: int = 250
) -> Failure:
    """Run a failing seed again, shrink it, and tell how it fails."""
    whole = run_it(scenario_of(seed, profile))
    sort = sort_of(whole.findings)
    least = shrunk(
        whole.scenario,
        lambda scenario: bool(sort & sort_of(run_it(scenario).findings)),
        runs_max=runs_max,
    )
    small = run_it(least)
    left = [
        f"{fault.at_us:>9} fault {fault.number} {fault.kind} node {fault.node}"
        f" span {fault.span_us} amount {fault.amount} op {fault.op}"
        for fault in least.faults
    ]
    left += [f"{op.at_us:>9} op {op.number} {op.what} {op.key} {op.token}" for op in least.ops]
    return Failure(
        seed=seed,
        profile=profile,
        findings=small.findings,
        replay=f"make simulate SEEDS=1 SEED={seed} PROFILE={profile}",
        left=tuple(sorted(left)),
        trace=small.trace[-_TRACE_LINES:],
    )
