"""The report as a picture: rates over connections, and the ratios beside their targets."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from keystead.cli.bench.report import BAO, BAO_AUDIT, POSTGRES, Report, Row

__all__ = ["draw_plot", "has_matplotlib"]

_INCHES = (13, 5.5)
_DPI = 120
_SERIES = (
    ("single-", "Keystead on SQLite", "C0"),
    (f"{POSTGRES}1-single-", "Keystead on PostgreSQL, one node", "C3"),
    (f"{POSTGRES}2-single-", "Keystead on PostgreSQL, two nodes", "C4"),
    (f"{BAO_AUDIT}-single-", "OpenBao, file audit", "C1"),
    (f"{BAO}-single-", "OpenBao, no audit", "C2"),
)


def has_matplotlib() -> bool:
    """Whether a plot can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_plot(report: Report, path: Path) -> None:
    """Write a PNG.

    Raises:
        OSError: the file cannot be written.
    """
    figure_module: Any = importlib.import_module("matplotlib.figure")
    figure = figure_module.Figure(figsize=_INCHES, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_rates(left, report)
    _draw_ratios(right, report)
    machine = report.machine
    figure.suptitle(
        f"Keystead {report.version}: ECDSA P-256 signatures, {machine.cpus} CPUs,"
        f" {machine.file_system}, {report.rounds} rounds"
    )
    figure.savefig(path, dpi=_DPI, format="png")


def _draw_rates(axes: Any, report: Report) -> None:  # noqa: ANN401  matplotlib is not installed everywhere
    for prefix, label, colour in _SERIES:
        rows = {
            int(row.subject.removeprefix(prefix)): row
            for row in report.rows
            if row.subject.startswith(prefix)
        }
        if not rows:
            continue
        counts = sorted(rows)
        medians = [rows[count].rate.median for count in counts]
        axes.errorbar(
            counts,
            medians,
            yerr=_bars([rows[count] for count in counts]),
            marker="o",
            capsize=3,
            label=label,
            color=colour,
        )
    axes.set_xscale("log", base=2)
    counts = sorted(_connections(report))
    axes.set_xticks(counts, list(map(str, counts)))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("connections, one signature a request")
    axes.set_ylabel("signatures a second (median, interval)")
    axes.grid(alpha=0.3)
    axes.legend()


def _connections(report: Report) -> set[int]:
    subjects = [row.subject for row in report.rows if "single-" in row.subject]
    return {int(subject.rpartition("-")[2]) for subject in subjects}


def _bars(rows: list[Row]) -> list[list[float]]:
    return [
        [row.rate.median - row.rate.low for row in rows],
        [row.rate.high - row.rate.median for row in rows],
    ]


def _draw_ratios(axes: Any, report: Report) -> None:  # noqa: ANN401  as above
    ratios = [ratio for ratio in report.ratios if ratio.ratio is not None][::-1]
    for place, ratio in enumerate(ratios):
        found = ratio.ratio
        if found is None:
            continue
        colour = "C3" if ratio.verdict == "missed" else "C0"
        axes.barh(place, found.median, color=colour, alpha=0.7)
        axes.plot([found.low, found.high], [place, place], color="black", linewidth=2)
        if ratio.bound is not None:
            axes.plot([ratio.bound] * 2, [place - 0.4, place + 0.4], color="C2", linewidth=2)
    axes.set_yticks(range(len(ratios)), [ratio.title for ratio in ratios], fontsize=8)
    axes.set_xlabel("ratio within a round (black: interval, green: target)")
    axes.grid(axis="x", alpha=0.3)
