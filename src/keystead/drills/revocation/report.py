"""A drill's report, as a value and as the one document that it makes in JSON."""

from __future__ import annotations

import msgspec

from keystead.drills.findings import Check
from keystead.drills.revocation.figures import Figures
from keystead.drills.revocation.timeline import Panel
from keystead.drills.revocation.trace import Front

__all__ = ["Report", "judged"]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. ``left``: what the drill leaves on the nodes, as a person would say it.

    ``left_out``: what it did not look at, and why.
    """

    run: str
    fronts: tuple[Front, ...]
    seconds: float
    uses: int
    checks: tuple[Check, ...]
    figures: tuple[Figures, ...]
    left: str
    left_out: tuple[str, ...]
    timeline: tuple[Panel, ...]
    picture: str = ""
    ok: bool = False
    failed: int = 0


def judged(report: Report) -> Report:
    """The report with its verdict: something was checked, and all of it holds."""
    failed = sum(not check.held for check in report.checks)
    return msgspec.structs.replace(report, ok=bool(report.checks) and not failed, failed=failed)
