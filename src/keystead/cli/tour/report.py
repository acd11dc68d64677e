"""What the tour found: rows of three kinds, as values, and the one document they make in JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from keystead.client import Receipt
from keystead.errors import KeysteadError

__all__ = [
    "NOT_SHOWN",
    "CheckFailed",
    "Counts",
    "Finding",
    "NotInstalled",
    "RecordRow",
    "RefusalRow",
    "Report",
    "Row",
    "Status",
    "check",
    "checked",
]

NOT_SHOWN = (
    "approval_required",
    "overloaded",
    "reservation_ended",
    "custody_unavailable",
    "log_unavailable",
    "state_rolled_back",
)
"""Codes that need a second person, a flood or a broken node."""
Status = Literal["ok", "failed", "not checked"]


class CheckFailed(Exception):
    """A check of the tour does not hold; the message says what was expected and met."""


class NotInstalled(Exception):
    """A tool is missing, which fails the tour if it is ``required``, as the documentation says."""

    def __init__(self, package: str, *, required: bool) -> None:
        super().__init__(f"not checked: install {package}")
        self.status: Status = "failed" if required else "not checked"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One thing done and checked.

    ``foreign``: ``checked_by`` is a tool that is not Keystead's. ``seqs``: log index of each use.
    """

    what: str
    result: str
    checked_by: str
    foreign: bool = False
    status: Status = "ok"
    seqs: tuple[int, ...] = ()


class RefusalRow(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the node must refuse: by which code, by which it did, where that stands."""

    what: str
    expected: str
    met: str
    message: str
    status: Status
    seq: int | None = None


class RecordRow(msgspec.Struct, frozen=True, kw_only=True):
    """One record as the log search gave it; ``note``: what is wrong with it."""

    seq: int | None
    op: str
    outcome: str
    principal: str = ""
    handle: str = ""
    context: str = ""
    entry: str = ""
    status: Status = "ok"
    note: str = ""


Finding = Row | RefusalRow | RecordRow


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows of any kind held or not, and of those that held, how many of which kind."""

    held: int
    failed: int
    not_checked: int
    foreign: int
    refusals: int
    records: int


class Report:
    """Findings in the order they came."""

    def __init__(self, *, url: str, run: str) -> None:
        self.url = url
        self.run = run
        self.seconds = 0.0
        self.rows: list[Row] = []
        self.refusals: list[RefusalRow] = []
        self.records: list[RecordRow] = []

    def add(self, finding: Finding) -> None:
        """Put a finding to those of its kind."""
        match finding:
            case Row():
                self.rows.append(finding)
            case RefusalRow():
                self.refusals.append(finding)
            case RecordRow():
                self.records.append(finding)

    @property
    def ok(self) -> bool:
        """Whether something was checked, and nothing failed."""
        counts = self.counts()
        return counts.held > 0 and counts.failed == 0

    def counts(self) -> Counts:
        """What the summary says."""
        kinds: tuple[Sequence[Finding], ...] = (self.rows, self.refusals, self.records)
        states = [row.status for rows in kinds for row in rows]
        return Counts(
            held=states.count("ok"),
            failed=states.count("failed"),
            not_checked=states.count("not checked"),
            foreign=sum(row.foreign and row.status == "ok" for row in self.rows),
            refusals=sum(row.status == "ok" for row in self.refusals),
            records=sum(row.status == "ok" for row in self.records),
        )

    def document(self) -> bytes:
        """The report as one JSON document."""
        members = {
            "run": self.run,
            "url": self.url,
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "counts": self.counts(),
            "rows": self.rows,
            "refusals": self.refusals,
            "records": self.records,
            "not_shown": NOT_SHOWN,
        }
        return msgspec.json.format(msgspec.json.encode(members), indent=2)


def check(held: bool, what: str) -> None:  # noqa: FBT001  reads as a statement: check(a == b, ...)
    """Hold the tour to something.

    Raises:
        CheckFailed: it does not hold.
    """
    if not held:
        raise CheckFailed(what)


def checked(
    what: str,
    by: str,
    result: Callable[[], str],
    *receipts: Receipt,
    foreign: bool = True,
) -> Row:
    """A row whose check is carried out now: ``result`` checks, and says what came of it."""
    seqs = tuple(receipt.seq for receipt in receipts if receipt.seq is not None)
    status: Status = "ok"
    try:
        text = result()
    except NotInstalled as missing:
        text, status = str(missing), missing.status
    except (CheckFailed, KeysteadError) as wrong:
        text, status = str(wrong), "failed"
    return Row(what=what, result=text, checked_by=by, foreign=foreign, status=status, seqs=seqs)
