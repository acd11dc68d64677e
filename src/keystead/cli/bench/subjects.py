"""What is measured, each behind one method, so that a round can take them in any order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from keystead.cli.bench.alone import measure_alone
from keystead.cli.bench.children import run_helper
from keystead.cli.bench.load import Job, Load
from keystead.cli.bench.machine import Watch, busy_s
from keystead.cli.bench.report import BAO, BAO_AUDIT, POSTGRES, UNPUBLISHED, Sample
from keystead.cli.bench.work import BATCH

__all__ = [
    "BATCH_CONNECTIONS",
    "Serving",
    "Subject",
    "bao_subjects",
    "own_subjects",
    "postgres_subjects",
    "unpublished_subjects",
]

BATCH_CONNECTIONS = 4
"""Connections that send batches: 400 signatures under way, as the pipeline in process has."""
_COMPARED_CONNECTIONS = 64
"""Single requests are compared at so many connections only, if they are measured at so many."""
_SPARE_S = 60.0


class Serving(Protocol):
    """A server with one key."""

    def roles(self) -> dict[int, str]:
        """The processes that are the server, with what each is there for."""
        ...

    def single(self, connections: int) -> Job:
        """Single requests."""
        ...

    def batch(self, connections: int) -> Job:
        """Batches."""
        ...


class Subject(NamedTuple):
    """One thing that is measured: (round, seconds) to a sample.

    ``warm``: it is a new process each time, which warms up by itself.
    """

    id: str
    title: str
    measure: Callable[[int, int], Sample]
    warm: bool = False


class _Piped(msgspec.Struct, frozen=True):
    done: int
    seconds: float
    cpu_s: float


def own_subjects(node: Serving, load: Load, folder: Path, connections: list[int]) -> list[Subject]:
    """`cryptography` alone, the pipeline in process, and a node over HTTP."""
    return [
        Subject("alone", "cryptography alone, one core", _alone, warm=True),
        Subject("pipeline", "the vault's pipeline in process", _pipeline(folder), warm=True),
        *_served("", "Keystead on SQLite", node, load, connections),
    ]


def unpublished_subjects(server: Serving, load: Load, connections: list[int]) -> list[Subject]:
    """A node that publishes no log: what checkpoints and tiles cost the other one."""
    compared = [count for count in connections if count == _COMPARED_CONNECTIONS]
    return _served(f"{UNPUBLISHED}-", "Keystead without the published log", server, load, compared)


def postgres_subjects(
    server: Serving, load: Load, connections: list[int], *, nodes: int
) -> list[Subject]:
    """Nodes on PostgreSQL, over HTTP; what has fewer connections than nodes is left out."""
    name = f"Keystead on PostgreSQL, {'one node' if nodes == 1 else 'two nodes'}"
    enough = [count for count in connections if count >= nodes]
    return _served(f"{POSTGRES}{nodes}-", name, server, load, enough)


def bao_subjects(
    server: Serving, load: Load, connections: list[int], *, audit: bool
) -> list[Subject]:
    """OpenBao over HTTP."""
    name = f"OpenBao {'with' if audit else 'without'} file audit"
    return _served(f"{BAO_AUDIT if audit else BAO}-", name, server, load, connections)


def _served(
    prefix: str, name: str, server: Serving, load: Load, connections: list[int]
) -> list[Subject]:
    singles = [
        Subject(
            f"{prefix}single-{count}",
            f"{name}, one a request, {count} connection{'s' * (count != 1)}",
            _loaded(f"{prefix}single-{count}", server, server.single(count), load, 1),
        )
        for count in connections
    ]
    batch = Subject(
        f"{prefix}batch",
        f"{name}, batches of {BATCH}, {BATCH_CONNECTIONS} connections",
        _loaded(f"{prefix}batch", server, server.batch(BATCH_CONNECTIONS), load, BATCH),
    )
    return [*singles, batch]


def _alone(number: int, seconds: int) -> Sample:
    made = measure_alone(seconds)
    return Sample(
        round=number,
        subject="alone",
        rate=made.done / made.seconds,
        cpu_us=made.cpu_s / made.done * 1e6,
    )


def _pipeline(folder: Path) -> Callable[[int, int], Sample]:
    def measure(number: int, seconds: int) -> Sample:
        with tempfile.TemporaryDirectory(prefix="pipeline-", dir=folder) as own:
            made = run_helper(
                "pipeline", own, seconds, within_s=2 * seconds + _SPARE_S, kind=_Piped
            )
        return Sample(
            round=number,
            subject="pipeline",
            rate=made.done / made.seconds,
            cpu_us=made.cpu_s / max(1, made.done) * 1e6,
        )

    return measure


def _loaded(
    subject: str, server: Serving, job: Job, load: Load, items: int
) -> Callable[[int, int], Sample]:
    def measure(number: int, seconds: int) -> Sample:
        watch, busy_before_s = Watch(server.roles), busy_s()
        made = load.run(job, seconds)
        spent, all_s = watch.spent(), busy_s() - busy_before_s
        ours_s = spent.total_s + made.cpu_s
        done = max(1, made.answered * items)
        return Sample(
            round=number,
            subject=subject,
            rate=made.answered * items / made.seconds,
            p50_ms=made.p50_ms,
            p99_ms=made.p99_ms,
            cpu_us=spent.total_s / done * 1e6,
            parts={role: used / done * 1e6 for role, used in sorted(spent.by_role.items())},
            busiest=spent.busiest,
            busiest_share=spent.busiest_s / made.seconds,
            cores=ours_s / made.seconds,
            others=max(0.0, all_s - ours_s) / made.seconds,
            load_share=made.cpu_s / made.seconds,
            refused=made.refused,
        )

    return measure
