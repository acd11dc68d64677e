"""What a run found: samples of every round, what they come to, and which targets they meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Literal

import msgspec

from keystead.cli.bench.machine import Machine
from keystead.cli.bench.registry import Opening
from keystead.cli.bench.stats import Spread, paired, spread

__all__ = [
    "TARGETS",
    "Ratio",
    "Report",
    "Row",
    "Sample",
    "Saturation",
    "Start",
    "Target",
    "ratios_of",
    "rows_of",
    "saturations_of",
    "start_ratio",
]

BAO_AUDIT, BAO = "openbao-audit", "openbao"
"""What the ids of OpenBao's subjects begin with, with its file audit and without."""
UNPUBLISHED = "unpublished"
"""What the ids of a node's subjects begin with that has neither checkpoints nor tiles."""

POSTGRES = "postgres"
"""What the ids of nodes' subjects on PostgreSQL begin with, behind it how many nodes there are."""

Verdict = Literal["met", "missed", "not measured", "no target"]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One subject in one round.

    ``rate``: signatures a second. ``cpu_us``: CPU of the server's processes a signature.
    ``load_share``: CPU of the load generator, as a share of one core; 0 where there is none.
    ``refused``: answers that were not 2xx; they are not in the rate. ``parts``: ``cpu_us`` by what
    the processes are there for. ``busiest``: of the one that took the most, ``busiest_share`` of a
    core. ``cores``: of all and of the load; ``others``: of whatever else ran on the machine.
    """

    round: int
    subject: str
    rate: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_us: float
    load_share: float = 0.0
    refused: int = 0
    parts: dict[str, float] = {}
    busiest: str = ""
    busiest_share: float = 0.0
    cores: float = 0.0
    others: float = 0.0


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a node: seconds until it serves, and the vault's resident bytes then."""

    round: int
    keys: int
    seconds: float
    vault_rss_bytes: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One subject over all rounds."""

    subject: str
    title: str
    rate: Spread
    p50_ms: float | None
    p99_ms: float | None
    cpu_us: float
    load_share: float
    refused: int
    parts: dict[str, float]
    busiest: str
    busiest_share: float
    cores: float
    others: float


class Saturation(msgspec.Struct, frozen=True, kw_only=True):
    """Where more connections bring no more: the fewest that reach :data:`_NEARLY` of the most.

    The other members are of that row.
    """

    title: str
    connections: int
    rate: float
    busiest: str
    busiest_share: float
    cores: float
    others: float


class Target(msgspec.Struct, frozen=True):
    """A ratio of two subjects' rates, and the least that it shall be."""

    title: str
    over: str
    under: str
    least: float | None


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """A ratio over the rounds, each round's paired; ``bound`` is the least, or the most, wanted."""

    title: str
    ratio: Spread | None
    bound: float | None
    verdict: Verdict


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run."""

    version: str
    seed: int
    rounds: int
    seconds: int
    load: str
    openbao: str | None
    postgres: str | None
    machine: Machine
    missing: tuple[str, ...]
    rows: tuple[Row, ...]
    ratios: tuple[Ratio, ...]
    saturations: tuple[Saturation, ...]
    opening: Opening | None
    bytes_a_key: float | None
    samples: tuple[Sample, ...]
    starts: tuple[Start, ...]

    @property
    def ok(self) -> bool:
        """Whether no target was missed."""
        return all(ratio.verdict != "missed" for ratio in self.ratios)


def _on_postgres() -> Iterator[Target]:
    """One node there beside one on SQLite, and two beside one; for people to see."""
    loads = {f"single-{count}": f"one a request, {count} connections" for count in (16, 64, 256)}
    for load, words in (loads | {"batch": "batches of 100"}).items():
        one, two = f"{POSTGRES}1-{load}", f"{POSTGRES}2-{load}"
        yield Target(f"one node on PostgreSQL / on SQLite, {words}", one, load, None)
        yield Target(f"two nodes on PostgreSQL / one, {words}", two, one, None)


TARGETS: tuple[Target, ...] = (
    Target(
        "one signature a request, 64 connections / cryptography alone", "single-64", "alone", 0.2
    ),
    Target(
        "one signature a request, 64 connections / OpenBao with audit",
        "single-64",
        f"{BAO_AUDIT}-single-64",
        2.0,
    ),
    Target(
        "one signature a request, 64 connections / OpenBao without audit",
        "single-64",
        f"{BAO}-single-64",
        1.0,
    ),
    Target("batches of 100 / the pipeline in process", "batch", "pipeline", 0.6),
    Target("batches of 100 / OpenBao's with audit", "batch", f"{BAO_AUDIT}-batch", 1.2),
    Target("batches of 100 / OpenBao's without audit", "batch", f"{BAO}-batch", None),
    Target("the pipeline in process / cryptography alone", "pipeline", "alone", None),
    Target(
        "one signature a request, 64 connections / without the published log",
        "single-64",
        f"{UNPUBLISHED}-single-64",
        0.9,
    ),
    Target("batches of 100 / without the published log", "batch", f"{UNPUBLISHED}-batch", None),
    *_on_postgres(),
)
"""What issue and documentation promise; a ratio without a bound is for people to see."""

_NEARLY = 0.95
_START_TITLE = "start with {many} keys / start with {few}"
_START_MOST = 1.5


def ratios_of(samples: Iterable[Sample]) -> tuple[Ratio, ...]:
    """Every target's ratio, paired within each round."""
    rates: dict[str, dict[int, float]] = {}
    for sample in samples:
        rates.setdefault(sample.subject, {})[sample.round] = sample.rate
    made: list[Ratio] = []
    for target in TARGETS:
        values = paired(rates.get(target.over, {}), rates.get(target.under, {}))
        found = spread(values) if values else None
        made.append(
            Ratio(
                title=target.title,
                ratio=found,
                bound=target.least,
                verdict=_verdict(found, target.least),
            )
        )
    return tuple(made)


def _verdict(found: Spread | None, least: float | None) -> Verdict:
    if found is None:
        return "not measured"
    if least is None:
        return "no target"
    return "met" if found.median >= least else "missed"


def start_ratio(starts: Iterable[Start]) -> tuple[Ratio, float] | None:
    """How much longer a start with many keys takes, and the resident bytes that a key costs."""
    seconds: dict[int, dict[int, float]] = {}
    rss: dict[int, dict[int, float]] = {}
    for start in starts:
        seconds.setdefault(start.keys, {})[start.round] = start.seconds
        rss.setdefault(start.keys, {})[start.round] = start.vault_rss_bytes
    if len(seconds) < 2:  # noqa: PLR2004  few and many
        return None
    few, many = min(seconds), max(seconds)
    found = spread(paired(seconds[many], seconds[few]))
    grown = [rss[many][each] - rss[few][each] for each in rss[many].keys() & rss[few].keys()]
    ratio = Ratio(
        title=_START_TITLE.format(many=f"{many:,}", few=few),
        ratio=found,
        bound=_START_MOST,
        verdict="met" if found.median <= _START_MOST else "missed",
    )
    return ratio, spread(grown).median / (many - few)


def rows_of(samples: Iterable[Sample], titles: dict[str, str]) -> tuple[Row, ...]:
    """A row a subject, in the order of ``titles``."""
    by_subject: dict[str, list[Sample]] = {}
    for sample in samples:
        by_subject.setdefault(sample.subject, []).append(sample)
    return tuple(
        _row(subject, title, by_subject[subject])
        for subject, title in titles.items()
        if subject in by_subject
    )


def saturations_of(rows: Iterable[Row]) -> tuple[Saturation, ...]:
    """Of each server whose single requests were measured at more than one number of connections."""
    series: dict[str, dict[int, Row]] = {}
    for row in rows:
        server, single, count = row.subject.rpartition("single-")
        if single:
            series.setdefault(server, {})[int(count)] = row
    return tuple(_saturation(found) for found in series.values() if len(found) > 1)


def _saturation(found: dict[int, Row]) -> Saturation:
    most = max(row.rate.median for row in found.values())
    count = min(count for count, row in found.items() if row.rate.median >= _NEARLY * most)
    row = found[count]
    return Saturation(
        title=row.title.rpartition(", one a request")[0],
        connections=count,
        rate=row.rate.median,
        busiest=row.busiest,
        busiest_share=row.busiest_share,
        cores=row.cores,
        others=row.others,
    )


def _row(subject: str, title: str, samples: list[Sample]) -> Row:
    p50 = [each.p50_ms for each in samples if each.p50_ms is not None]
    p99 = [each.p99_ms for each in samples if each.p99_ms is not None]
    return Row(
        subject=subject,
        title=title,
        rate=spread([each.rate for each in samples]),
        p50_ms=spread(p50).median if p50 else None,
        p99_ms=spread(p99).median if p99 else None,
        cpu_us=spread([each.cpu_us for each in samples]).median,
        load_share=max(each.load_share for each in samples),
        refused=sum(each.refused for each in samples),
        parts={
            role: median(each.parts.get(role, 0.0) for each in samples)
            for role in sorted({role for each in samples for role in each.parts})
        },
        busiest=Counter(each.busiest for each in samples).most_common(1)[0][0],
        busiest_share=median(each.busiest_share for each in samples),
        cores=median(each.cores for each in samples),
        others=median(each.others for each in samples),
    )
