"""Does the log stay as fast when it is large?

Makes two logs by the vault's own committer, checkpoints and tiles: one of --first entries, one of
--entries. Then, in rounds that take the two in turn, so that a slow minute counts for both:

- appends to each: commits of 64 records, each one on the disk before the next begins;
- publishes what was appended: a signed checkpoint, and the tiles below it;
- asks each for pages of 50 records, along every index that a search has, and for proofs.

At the end the large one is verified as `keystead log fsck` does, in turn with a bare loop that
reads the same rows and hashes the same bytes on the same core. Prints ratios with their intervals
and targets; exit status 1 if one is missed. Takes 1 KiB of disk an entry while it runs, and leaves
nothing behind. Between the rounds it grows by larger commits, as a node under load does.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keystead.cli.bench.machine import Machine, describe
from keystead.cli.bench.stats import Spread, spread
from keystead.cli.bench.vault import NODE, REGISTRY, Vault, open_stores
from keystead.cli.show import table
from keystead.cli.signals import signals_end_quietly
from keystead.errors import KeysteadError
from keystead.frames.messages import Answer, Checkpoint, Request
from keystead.front.admission import Admission
from keystead.front.published import Published
from keystead.fsck import run as fsck
from keystead.net.link import VaultLink
from keystead.ports import IdempotencyRow, RecordsQuery
from keystead.steward.cosigning import Cosigners
from keystead.steward.publishing import Publisher
from keystead.steward.tree import TreeWriter
from keystead.store.migrate import migrate_sqlite
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.store.tile_files import TileFiles
from keystead.store.tree_files import TreeFiles
from keystead.translog.entries import SALT_BYTES, Draft, commitment
from keystead.vault.committer import Committed, Pending

_COMMIT = 64
_GROW_COMMIT, _GROW_CHECKPOINT_EVERY = 1_024, 4 * 1_024
_WINDOW_COMMITS = 40
_KEYS, _HANDLES, _PRINCIPALS = 50, 500, 25
_DENIED_SHARE = 0.01
_DENIALS = ("context_mismatch", "handle_expired", "algorithm_forbidden")
_START_MS, _RECORDS_A_MS = 1_790_000_000_000, 2
_PAGE = 50
_SEARCHES = 20
_PROOFS = 60
_SCAN_ROWS = 2_000
_ENTRIES_MAX = 10_000_000
_SMALL, _LARGE = "small", "large"
_PIPE_WIDTH = 200
_WHOLE_FROM = 100

Outcome = Committed | IdempotencyRow | KeysteadError
Deliver = Callable[[Outcome], None]
Say = Callable[[str, int, int], None]
"""What is under way, how far it has come, and how far it goes."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One log on the disk: allocated bytes of its database and of its published files."""

    entries: int
    database_bytes: int
    published_bytes: int


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """One figure at both sizes, over the rounds; ``ratio`` is paired within each round.

    ``bound``: the least wanted of it, if ``wants`` is ``least``, or the most.
    """

    title: str
    unit: str
    first: Spread
    last: Spread
    ratio: Spread
    wants: Literal["least", "most"]
    bound: float | None

    @property
    def verdict(self) -> str:
        """Whether the median meets its target."""
        if self.bound is None:
            return "no target"
        median = self.ratio.median
        met = median >= self.bound if self.wants == "least" else median <= self.bound
        return "met" if met else "missed"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run."""

    machine: Machine
    rounds: int
    grown_per_s: float
    rss_bytes_max: int
    small: Facts
    large: Facts
    ratios: tuple[Ratio, ...]


class _Target(NamedTuple):
    title: str
    unit: str
    wants: Literal["least", "most"]
    bound: float | None


_TARGETS = {
    "append": _Target("appends, 64 a commit", "records/s", "least", 0.85),
    "cpu": _Target("CPU of an append", "us/record", "most", None),
    "publish": _Target(
        f"checkpoint and tiles of {_COMMIT * _WINDOW_COMMITS:,}", "ms", "most", None
    ),
    "key": _Target(f"a page of {_PAGE} by key", "ms", "most", 2.0),
    "handle": _Target(f"a page of {_PAGE} by handle", "ms", "most", 2.0),
    "principal": _Target(f"a page of {_PAGE} by principal", "ms", "most", 2.0),
    "denied": _Target(f"a page of {_PAGE} refusals", "ms", "most", 2.0),
    "code": _Target(f"a page of {_PAGE} of one refusal's code", "ms", "most", 2.0),
    "request": _Target("a record by its request id", "ms", "most", 2.0),
    "time": _Target(f"a page of {_PAGE} by key and time", "ms", "most", 2.0),
    "prove": _Target("one proof", "ms", "most", 2.0),
    "fsck": _Target("bare scan and SHA-256, then fsck", "records/s of CPU", "least", 0.4),
}


class _Uses:
    """Uses of keys as the vault records them, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        source = random.Random(seed)  # noqa: S311  figures, not secrets
        self._source = source
        self._prefix = source.randbytes(6).hex()
        self.keys = ["k" + source.randbytes(10).hex() for _ in range(_KEYS)]
        self.handles = ["h" + source.randbytes(12).hex() for _ in range(_HANDLES)]
        self._links = [source.randbytes(16).hex() for _ in range(_HANDLES)]
        self.count = 0

    def request_id(self, number: int) -> str:
        return f"{self._prefix}-{number + 1:x}"

    def pending(self, deliver: Deliver) -> Pending:
        """The next use. Some handles are used far more often than others, as in life."""
        source, number = self._source, self.count
        self.count += 1
        handle = int(_HANDLES * source.random() ** 2)
        denied = source.random() < _DENIED_SHARE
        salt = os.urandom(SALT_BYTES)
        draft = Draft(
            time_ms=_START_MS + number // _RECORDS_A_MS,
            node=NODE,
            op="tls.sign",
            outcome=source.choice(_DENIALS) if denied else "ok",
            request=self.request_id(number),
            key=self.keys[handle % _KEYS],
            name=f"service-{handle % _KEYS}.eu",
            version=1,
            purpose="tls",
            algorithm="ecdsa-p256-sha256",
            tenant="bench",
            context=f"web/eu/shop-{handle}",
            handle=self.handles[handle],
            link=self._links[handle],
            principal=principal(handle),
            signed="" if denied else commitment(salt, b"%d" % number),
        )
        return Pending(draft=draft, salt=salt, deliver=deliver)


def principal(handle: int) -> str:
    """Whom a handle was issued to."""
    return f"service-account-{handle % _PRINCIPALS}"


class _Link(VaultLink):
    """To a vault of this process."""

    def __init__(self, vault: Vault) -> None:
        super().__init__("")
        self._vault = vault

    async def call(self, request: Request) -> Answer:
        """The answer to a request for a checkpoint, all that a publisher asks for."""
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if isinstance(request, Checkpoint):
            self._vault.checkpoints.begin(request, answered.set_result)
        return await answered


class _Log:
    """One data folder, its vault and its steward's part, in this process and on its loop."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.uses = _Uses(seed)
        migrate_sqlite(folder / REGISTRY)
        self._stores = open_stores(folder)
        self._vault = Vault(self._stores)
        self._rows = SqliteRegistry(folder / REGISTRY)
        files = TileFiles(folder / fsck.LOG)
        writer = TreeWriter(self._rows, TreeFiles(files))
        link = _Link(self._vault)
        self._publisher = Publisher(link, writer, files, Cosigners((), time.monotonic))
        self.reader = self._stores.log_reader
        self.published = Published(files.folder, Admission())
        self.size = 0

    async def close(self) -> None:
        """End the vault; the database's write-ahead log is emptied."""
        await self._vault.close()
        self._rows.close()
        self._stores.close()

    def prepare(self, count: int) -> list[Pending]:
        """Uses that wait for their records, of one commit."""
        return [self.uses.pending(self._committed) for _ in range(count)]

    async def commit(self, group: list[Pending]) -> None:
        """Submit in one turn, of which 64 make one commit; ends when all are durable."""
        self._left = len(group)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for pending in group:
            self._vault.committer.submit(pending)
        await self._done

    def _committed(self, outcome: Outcome) -> None:
        if isinstance(outcome, KeysteadError) and not self._done.done():
            self._done.set_exception(outcome)
        self._left -= 1
        if not self._left and not self._done.done():
            self._done.set_result(None)

    async def publish(self) -> None:
        """What the steward does: a signed head, the tiles below it, and the checkpoint in place."""
        await self._publisher.publish()
        if self._publisher.findings:
            raise SystemExit(f"the tiles are not what was signed: {self._publisher.findings}")
        self.size = self._vault.checkpoints.size

    async def grow(self, entries: int, say: Say) -> None:
        """Up to so many uses."""
        while self.uses.count < entries:
            until = min(entries, self.uses.count + _GROW_CHECKPOINT_EVERY)
            while self.uses.count < until:
                await self.commit(self.prepare(min(_GROW_COMMIT, until - self.uses.count)))
            await self.publish()
            say("growing", self.uses.count, entries)

    def facts(self) -> Facts:
        """What it takes on the disk."""
        return Facts(
            entries=self.size,
            database_bytes=sum(_allocated(path) for path in self.folder.glob(f"{REGISTRY}*")),
            published_bytes=sum(_allocated(path) for path in (self.folder / fsck.LOG).rglob("*")),
        )


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512  # in units of 512 bytes, whatever the file system (stat(2))


# --- rounds --------------------------------------------------------------------------------------


class _Figures:
    """Two figures a round, by what was measured."""

    def __init__(self) -> None:
        self.of: dict[str, list[tuple[float, float]]] = {}

    def add(self, what: str, both: Sequence[float]) -> None:
        """The figure of the small log and that of the large one."""
        first, last = both
        self.of.setdefault(what, []).append((first, last))

    def ratios(self) -> Iterator[Ratio]:
        for what, target in _TARGETS.items():
            pairs = self.of.get(what)
            if not pairs:
                continue
            yield Ratio(
                title=target.title,
                unit=target.unit,
                first=spread([first for first, _ in pairs]),
                last=spread([last for _, last in pairs]),
                ratio=spread([last / first for first, last in pairs]),
                wants=target.wants,
                bound=target.bound,
            )


async def _round(logs: Sequence[_Log], number: int, figures: _Figures) -> None:
    """Everything once on both, the one that begins changing from round to round."""
    order = (0, 1) if number % 2 else (1, 0)
    appended, cpu, published = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for at in order:
        appended[at], cpu[at] = await _append(logs[at])
    for at in order:
        begun = time.perf_counter()
        await logs[at].publish()
        published[at] = (time.perf_counter() - begun) * 1e3
    figures.add("append", appended)
    figures.add("cpu", cpu)
    figures.add("publish", published)
    for what, repeats, ask in _questions(number):
        figures.add(what, _asked(logs, order, repeats, ask))


async def _append(log: _Log) -> tuple[float, float]:
    """Records a second of a window, and microseconds of this process's CPU a record."""
    groups = [log.prepare(_COMMIT) for _ in range(_WINDOW_COMMITS)]
    used, begun = time.process_time(), time.perf_counter()
    for group in groups:
        await log.commit(group)
    took, used = time.perf_counter() - begun, time.process_time() - used
    count = _COMMIT * _WINDOW_COMMITS
    return count / took, used / count * 1e6


Ask = Callable[[_Log, int], object]


def _asked(logs: Sequence[_Log], order: tuple[int, ...], repeats: int, ask: Ask) -> list[float]:
    """Median milliseconds of a question to each log; its first answer warms caches, uncounted."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(-1, repeats):
        for at in order:
            begun = time.perf_counter()
            ask(logs[at], turn)
            if turn >= 0:
                times[at].append((time.perf_counter() - begun) * 1e3)
    return [statistics.median(each) for each in times]


def _questions(number: int) -> Iterator[tuple[str, int, Ask]]:
    source = random.Random(number)  # noqa: S311  figures, not secrets
    handles = [source.randrange(_HANDLES // 25) for _ in range(_SEARCHES + 1)]  # have a page each

    def by(make: Callable[[_Log, int], RecordsQuery]) -> Ask:
        def ask(log: _Log, turn: int) -> None:
            page = log.reader.search(make(log, handles[turn]))
            if not page.rows:
                raise SystemExit("a search found nothing: more entries are needed for --first")

        return ask

    def middle(log: _Log, handle: int) -> RecordsQuery:
        half = _START_MS + log.size // _RECORDS_A_MS // 2
        return RecordsQuery(key_id=log.uses.keys[handle], until_ms=half)

    yield "key", _SEARCHES, by(lambda log, h: RecordsQuery(key_id=log.uses.keys[h % _KEYS]))
    yield "handle", _SEARCHES, by(lambda log, h: RecordsQuery(handle_id=log.uses.handles[h]))
    yield "principal", _SEARCHES, by(lambda _, h: RecordsQuery(principal=principal(h)))
    yield "denied", _SEARCHES, by(lambda *_: RecordsQuery(outcome="denied"))
    yield "code", _SEARCHES, by(lambda *_: RecordsQuery(outcome=_DENIALS[0]))
    yield "time", _SEARCHES, by(middle)

    def request(log: _Log, turn: int) -> RecordsQuery:
        del turn
        return RecordsQuery(request_id=log.uses.request_id(source.randrange(log.uses.count)))

    yield "request", _SEARCHES, by(request)
    yield "prove", _PROOFS, lambda log, _: log.published.proof(source.randrange(log.size)).encode()


# --- the run -------------------------------------------------------------------------------------


def _measure(asked: argparse.Namespace, folder: Path, say: Say) -> Report:
    machine, figures = describe(folder), _Figures()
    grown = uvloop.run(_grow_and_ask(asked, folder, figures, say))
    _fsck(folder / _SMALL)  # warms up, uncounted
    for number in range(asked.fsck_rounds):
        say("fsck", number, asked.fsck_rounds)
        _verify(folder / _LARGE, number, figures)
    return Report(
        machine=machine,
        rounds=asked.rounds,
        grown_per_s=grown.per_s,
        rss_bytes_max=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        small=grown.small,
        large=grown.large,
        ratios=tuple(figures.ratios()),
    )


class _Grown(NamedTuple):
    per_s: float
    small: Facts
    large: Facts


async def _grow_and_ask(
    asked: argparse.Namespace, folder: Path, figures: _Figures, say: Say
) -> _Grown:
    small, large = _Log(folder / _SMALL, asked.seed), _Log(folder / _LARGE, asked.seed)
    try:
        await small.grow(asked.first, say)
        begun = time.perf_counter()
        await large.grow(asked.entries, say)
        per_s = asked.entries / (time.perf_counter() - begun)
        for number in range(asked.rounds):
            say("rounds", number, asked.rounds)
            await _round((small, large), number, figures)
    finally:
        await small.close()
        await large.close()
    return _Grown(per_s, small.facts(), large.facts())


def _verify(folder: Path, number: int, figures: _Figures) -> None:
    """The bare loop and fsck in turn, in this process: records a second of its CPU."""
    rates: dict[Callable[[Path], int], float] = {}
    for check in (_bare, _fsck) if number % 2 else (_fsck, _bare):
        begun = time.process_time()
        count = check(folder)
        rates[check] = count / (time.process_time() - begun)
    figures.add("fsck", (rates[_bare], rates[_fsck]))


def _fsck(folder: Path) -> int:
    report = fsck.verify(fsck.Options(data=folder), lambda _at, _total, _findings: None)
    if report.findings:
        raise SystemExit(f"fsck found {report.findings}: {report.shown[:3]}")
    return report.records


def _bare(folder: Path) -> int:
    """Read each row's salt and body, and hash them: what no check can do without."""
    connection = sqlite3.connect(f"{(folder / REGISTRY).as_uri()}?mode=ro", uri=True)
    rows = connection.execute("SELECT seq, salt, body FROM records ORDER BY seq")
    count = 0
    while batch := rows.fetchmany(_SCAN_ROWS):
        for _, salt, body in batch:
            hashlib.sha256(salt + body).digest()
        count += len(batch)
    connection.close()
    return count


# --- the report ----------------------------------------------------------------------------------


def _draw(report: Report) -> None:
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    machine = report.machine
    console.print(
        f"{report.large.entries:,} entries beside {report.small.entries:,}, on {machine.cpus} CPUs"
        f" ({machine.model}), {machine.file_system}, Python {machine.python}; {report.rounds}"
        f" rounds; load average before: {machine.load_before:.1f}"
    )
    console.print(
        f"Grown at {report.grown_per_s:,.0f} records a second with checkpoints and tiles; peak of"
        f" this process {report.rss_bytes_max / 1e6:,.0f} MB."
    )
    for facts in (report.small, report.large):
        database = facts.database_bytes / facts.entries
        published = facts.published_bytes / facts.entries
        console.print(
            f"{facts.entries:,} entries: {database:,.0f} bytes an entry in the database,"
            f" {published:,.0f} in published files."
        )
    columns = ["", "small", "large", "ratio", "interval", "target", ""]
    console.print(table(columns, map(_row, report.ratios)))


def _row(ratio: Ratio) -> tuple[object, ...]:
    found = ratio.ratio
    return (
        f"{ratio.title}, {ratio.unit}",
        _figure(ratio.first.median),
        _figure(ratio.last.median),
        f"{found.median:.2f}",
        f"{found.low:.2f} to {found.high:.2f}",
        None if ratio.bound is None else f"at {ratio.wants} {ratio.bound:g}",
        ratio.verdict,
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= _WHOLE_FROM else f"{value:.3g}"


@contextmanager
def _progress() -> Iterator[Say]:
    """A bar on a terminal, drawn when something is said: a thread would slow what is timed."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
    ) as bar:
        task = bar.add_task("")

        def say(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total, refresh=True)

        yield say


def main() -> int:
    """Measure and report; exit status 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries", type=int, default=200_000, help="of the large log")
    parser.add_argument("--first", type=int, default=10_000, help="of the small one")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--fsck-rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))  # noqa: S108  as in bench
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    asked.folder = asked.folder.absolute()
    if not 1 <= asked.first <= asked.entries <= _ENTRIES_MAX:
        parser.error(f"expected 1 <= --first <= --entries <= {_ENTRIES_MAX}")
    with (
        signals_end_quietly(),
        tempfile.TemporaryDirectory(prefix="keystead-growth-", dir=asked.folder) as made,
        _progress() as say,
    ):
        report = _measure(asked, Path(made), say)
    _draw(report)
    if asked.json is not None:
        asked.json.write_bytes(msgspec.json.encode(report) + b"\n")
    return int(any(ratio.verdict == "missed" for ratio in report.ratios))


if __name__ == "__main__":
    sys.exit(main())
