"""What a drill of revocations found, as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from keystead.cli.show import facts, panel, plain, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from keystead.drills.revocation.figures import Times
    from keystead.drills.revocation.report import Report

__all__ = ["draw_revocation"]

_COLUMNS = ("milliseconds, but counts of uses", "durable", "best effort")
_ROWS = (
    ("acknowledged, from sending", "acknowledged"),
    ("its commit, as the node says", "commit"),
    ("a use of the same keys", "use"),
    ("from the commit to the last answer", "held"),
    ("after the commit, until reservations ended", "ended"),
)


def draw_revocation(report: Report) -> Iterator[RenderableType]:
    """The report, and what comes of it at the end."""
    yield panel(
        f"Revocation drill {report.run}",
        {
            "nodes": ", ".join(f"{front.node} at {plain(front.url)}" for front in report.fronts),
            "revocations": sum(each.revocations for each in report.figures),
            "uses": f"{report.uses:,}",
            "took": f"{report.seconds:.1f} s",
            "left out": "; ".join(report.left_out),
        },
    )
    yield table(("", "keys", "what", "expected", "met"), _checks(report))
    yield ""
    yield table(_COLUMNS, _times(report))
    yield ""
    held = len(report.checks) - report.failed
    yield facts(
        {
            "verdict": f"{held} checks hold, {report.failed} fail",
            "picture": report.picture,
            "left": report.left,
        }
    )


def _checks(report: Report) -> Iterator[tuple[object, ...]]:
    act = ""
    for one in report.checks:
        shown, act = ("" if one.act == act else one.act), one.act
        yield "pass" if one.held else "fail", shown, one.what, one.expected, one.met


def _times(report: Report) -> Iterator[tuple[object, ...]]:
    found = {each.ack: each for each in report.figures}
    ways = ("durable", "best_effort")
    for words, name in _ROWS:
        yield words, *(_cell(getattr(found.get(way), name, None)) for way in ways)
    raced = (f"{found[way].raced:,}" if way in found else None for way in ways)
    yield "uses that met a revocation on its way", *raced
    refused = (f"{found[way].refused:,}" if way in found else None for way in ways)
    yield "uses refused", *refused


def _cell(times: Times | None) -> str | None:
    if times is None:
        return None
    return f"{times.median:.1f}, p99 {times.p99:.1f}, most {times.most:.1f}"
