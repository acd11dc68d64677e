"""The report as people read it: three tables and one line that sums them up."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from keystead.cli.show import plain
from keystead.cli.tour.report import NOT_SHOWN, RecordRow, RefusalRow, Report, Row

__all__ = ["Steps", "draw", "progress", "stdout_console"]

_PIPE_WIDTH = 160
"""Columns where nobody looks at a terminal: wide enough for a row a line, mostly."""
_STYLES = {"ok": "green", "failed": "bold red", "not checked": "yellow"}
_WHOLE = frozenset({"", "expected", "met", "op", "outcome", "principal", "seq"})
"""Columns of short words, which are easier to read whole."""
_HANDLE_CHARS = 9
_ENTRY_CHARS = 12


def stdout_console(file: IO[str] | None = None) -> Console:
    """A console for the report: in colour on a terminal, plain text anywhere else."""
    out = sys.stdout if file is None else file
    tty = out.isatty()
    return Console(
        file=out,
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=tty,
        no_color=None if tty else True,
        width=None if tty else _PIPE_WIDTH,
    )


class Steps:
    """Says which step is under way; on a pipe it says nothing."""

    def __init__(self, bar: Progress | None, total: int) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=total)

    def begin(self, title: str) -> None:
        """A step begins."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=title)

    def end(self) -> None:
        """The step is done."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)


@contextmanager
def progress(total: int) -> Iterator[Steps]:
    """A bar of so many steps on stderr while the tour runs, gone at its end; on a tty only."""
    if not sys.stderr.isatty():
        yield Steps(None, total)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Steps(bar, total)


def draw(report: Report) -> RenderableType:
    """The whole report."""
    return Group(
        Text(f"Keystead tour {report.run} of {plain(report.url)}", style="bold"),
        _rows(report.rows),
        _refusals(report.refusals),
        _records(report.records),
        Text(f"Not shown, as they need more than a client: {', '.join(NOT_SHOWN)}.", style="dim"),
        _summary(report),
    )


def _rows(rows: Sequence[Row]) -> Table:
    made = _table("What was done", "", "what", "result", "checked by", "log seq")
    for row in rows:
        seqs = ", ".join(map(str, row.seqs))
        made.add_row(*_cells(row.status, row.what, row.result, row.checked_by, seqs))
    return made


def _refusals(rows: Sequence[RefusalRow]) -> Table:
    made = _table("What was refused", "", "what was tried", "expected", "met", "why", "log seq")
    for row in rows:
        seq = "none" if row.seq is None else row.seq
        made.add_row(*_cells(row.status, row.what, row.expected, row.met, row.message, seq))
    return made


def _records(rows: Sequence[RecordRow]) -> Table:
    columns = ["", "seq", "op", "outcome", "principal", "handle", "context", "entry"]
    noted = any(row.note for row in rows)
    columns += ["note"] if noted else []
    made = _table("The record of each use and refusal, found by its request id", *columns)
    for row in sorted(rows, key=lambda row: -1 if row.seq is None else row.seq):
        where = (row.principal, row.handle[:_HANDLE_CHARS], row.context, row.entry[:_ENTRY_CHARS])
        note = (row.note,) if noted else ()
        made.add_row(*_cells(row.status, row.seq, row.op, row.outcome, *where, *note))
    return made


def _summary(report: Report) -> Text:
    counts = report.counts()
    words = (
        f"{counts.held} checks held, {counts.failed} failed, {counts.not_checked} not checked: "
        f"{counts.foreign} things verified by tools that are not Keystead's, "
        f"{counts.refusals} refusals as expected, {counts.records} records found; "
        f"{report.seconds:.1f} s."
    )
    return Text(words, style=_STYLES["ok" if report.ok else "failed"])


def _table(title: str, *columns: str) -> Table:
    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if "seq" in column else "left"
        whole = column in _WHOLE
        made.add_column(column, overflow="fold", justify=justify, no_wrap=whole)
    return made


def _cells(status: str, *values: object) -> list[Text]:
    """The mark of a row, then its values as text: strangers' words are never markup."""
    mark = Text(status, style=_STYLES[status])
    return [mark, *(Text(plain(value)) for value in values)]
