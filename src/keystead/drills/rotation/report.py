"""A drill's report, as a value and as the one document that it makes in JSON."""

from __future__ import annotations

import msgspec

from keystead.drills.findings import Check
from keystead.drills.rotation.timeline import Panel

__all__ = ["Report", "judged"]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. ``left``: what the drill leaves on the node, as a person would say it."""

    run: str
    url: str
    key: str
    seconds: float
    scale: float
    checks: tuple[Check, ...]
    tokens: int
    left: str
    timeline: tuple[Panel, ...]
    picture: str = ""
    ok: bool = False
    failed: int = 0


def judged(report: Report) -> Report:
    """The report with its verdict: something was checked, and all of it holds."""
    failed = sum(not check.held for check in report.checks)
    return msgspec.structs.replace(report, ok=bool(report.checks) and not failed, failed=failed)
