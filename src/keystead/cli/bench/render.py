"""The report as a person reads it: a table of subjects, a table of ratios, and what bounds them."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from keystead.cli.bench.report import Ratio, Report, Row, Saturation
from keystead.cli.bench.stats import Spread
from keystead.cli.show import table

__all__ = ["draw"]

_BUSY = 0.8
"""Share of a core above which a load generator may hold up what it measures."""

_DISTURBED = 0.25
"""Cores above which something else on the machine spoils the figures."""


def draw(report: Report) -> Iterator[RenderableType]:
    """The whole report."""
    machine = report.machine
    yield Text(
        f"Keystead {report.version} on {machine.cpus} CPUs ({machine.model}), Linux"
        f" {machine.kernel}, Python {machine.python}, cryptography {machine.cryptography};"
        f" {report.openbao or 'no OpenBao'}; {report.postgres or 'no PostgreSQL'};"
        f" load by {report.load}; data on {machine.file_system}",
        style="bold",
    )
    yield Text(
        f"{report.rounds} rounds of {report.seconds} s a subject in shuffled order, seed"
        f" {report.seed}; load average before: {machine.load_before:.1f}"
    )
    for line in _warnings(report):
        yield Text(line, style="yellow")
    yield Text("")
    columns = ["signatures a second", "median", "interval", "p50 ms", "p99 ms"]
    columns += ["server CPU us", "of which", "busiest process", "load CPU", "refused"]
    yield table(columns, map(_row, report.rows))
    yield Text("")
    columns = ["where it saturates", "connections", "signatures a second"]
    columns += ["busiest process", "cores, with the load", "others took"]
    yield table(columns, (_saturation(each, machine.cpus) for each in report.saturations))
    yield Text("")
    columns = ["ratio within a round", "median", "interval", "target", ""]
    yield table(columns, map(_ratio, report.ratios))
    yield Text("")
    yield from _keys(report)


def _warnings(report: Report) -> Iterator[str]:
    yield from report.missing
    if report.machine.in_memory:
        yield "The data folder is in memory: nothing was durable. Name another with --folder."
    others = max((row.others for row in report.rows), default=0.0)
    if others > _DISTURBED:
        yield (
            f"Other processes took up to {others:.2f} cores beside what was measured: the rates say"
            " little, the ratios less than they could, and no server came to its own limit."
        )
    for row in report.rows:
        if row.load_share > _BUSY:
            yield (
                f"The load generator took {row.load_share:.0%} of a core for {row.subject}: it may"
                " have been the bottleneck."
            )
    if report.rows and report.rows[0].rate.confidence < 0.95:  # noqa: PLR2004  what is promised
        yield (
            f"With {report.rounds} rounds the interval holds the median with"
            f" {report.rows[0].rate.confidence:.0%} confidence only; 6 rounds give 95 %."
        )


def _row(row: Row) -> tuple[object, ...]:
    return (
        row.title,
        f"{row.rate.median:,.0f}",
        f"{row.rate.low:,.0f} to {row.rate.high:,.0f}",
        None if row.p50_ms is None else f"{row.p50_ms:.1f}",
        None if row.p99_ms is None else f"{row.p99_ms:.1f}",
        f"{row.cpu_us:.0f}",
        _parts(row),
        f"{row.busiest} {row.busiest_share:.0%}" if row.busiest else None,
        f"{row.load_share:.0%}" if row.load_share else None,
        row.refused or None,
    )


def _parts(row: Row) -> str | None:
    """CPU of the parts that took any, in microseconds a signature."""
    parts = sorted(row.parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{role} {used:.0f}" for role, used in parts if used >= 1) or None


def _saturation(found: Saturation, cpus: int) -> tuple[object, ...]:
    return (
        found.title,
        found.connections,
        f"{found.rate:,.0f}",
        f"{found.busiest} {found.busiest_share:.0%}",
        f"{found.cores:.2f} of {cpus}",
        f"{found.others:.2f}",
    )


def _ratio(ratio: Ratio) -> tuple[object, ...]:
    found = ratio.ratio
    most = ratio.title.startswith("start")
    return (
        ratio.title,
        None if found is None else f"{found.median:.2f}",
        None if found is None else _interval(found),
        None if ratio.bound is None else f"{'at most' if most else 'at least'} {ratio.bound:g}",
        ratio.verdict,
    )


def _interval(found: Spread) -> str:
    return f"{found.low:.2f} to {found.high:.2f}"


def _keys(report: Report) -> Iterator[RenderableType]:
    if report.bytes_a_key is not None:
        yield Text(f"Resident memory of the vault: {report.bytes_a_key:,.0f} bytes a key.")
    if report.opening is not None:
        yield Text(
            f"Of {report.opening.used:,} keys that were used one after another,"
            f" {report.opening.still_open:,} stayed open: the cache is bounded."
        )
