"""``keystead log fsck``: the log verified from storage, by code that its writer does not share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keystead import limits
from keystead.cli.command import command
from keystead.cli.files import read_bytes, read_text
from keystead.cli.log import app
from keystead.cli.options import Output
from keystead.cli.show import note, panel, render, table
from keystead.cli.signals import signals_end_quietly
from keystead.errors import MalformedRequest
from keystead.translog.notes import VerifierKey, parse_vkey

if TYPE_CHECKING:
    from rich.console import RenderableType

    from keystead.fsck.run import Report

__all__ = ["FsckFlags", "fsck"]

_REFUSED = 1
_COLUMNS = ("place", "expected", "met", "what it means")


@dataclass(frozen=True, kw_only=True)
class FsckFlags:
    """What is verified, against what, and how."""

    data: Annotated[Path, typer.Option(metavar="DIR", help="The node's data folder.")] = Path(
        ".keystead"
    )
    key: Annotated[
        str | None,
        typer.Option(metavar="VKEY", help="The log's verifier key, or a file that holds it."),
    ] = None
    anchor: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file on another disk, as for up.")
    ] = None
    state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Kept as it goes: an interrupted run goes on from it."),
    ] = None
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="That look at records at a time; else one for each core."
        ),
    ] = None


@command(
    app,
    "fsck",
    "keystead log fsck --data /var/lib/keystead --key log.vkey",
    "keystead log fsck --data /var/lib/keystead --anchor /mnt/other/anchor --state fsck.state",
)
def fsck(output: Output, flags: FsckFlags) -> None:
    """Verify every record, tile and checkpoint from storage; beside a node or offline."""
    from keystead.fsck.run import REGISTRY, Options, verify  # noqa: PLC0415  few commands need it

    if not (flags.data / REGISTRY).is_file():
        raise typer.BadParameter(f"expected a {REGISTRY} in {flags.data}", param_hint="--data")
    options = Options(
        data=flags.data.absolute(),
        key=None if flags.key is None else _vkey(flags.key),
        anchor=None
        if flags.anchor is None
        else (str(flags.anchor), read_bytes(flags.anchor, "--anchor")),
        state=flags.state,
        processes=flags.processes or _cores(),
    )
    try:
        with signals_end_quietly(), _progress(output) as tell:
            report = verify(options, tell)
    except MalformedRequest as exc:  # of all that is read, only the state is the caller's to mend
        raise typer.BadParameter(str(exc), param_hint="--state") from exc
    render(output, report, lambda: _drawn(report))
    note(output, *report.notes)
    if report.findings:
        raise typer.Exit(_REFUSED)


def _vkey(given: str) -> VerifierKey:
    text = given if "+" in given else read_text(Path(given), "--key")
    try:
        return parse_vkey(text.strip())
    except MalformedRequest as exc:
        raise typer.BadParameter(exc.message, param_hint="--key") from exc


def _cores() -> int:
    return min(len(os.sched_getaffinity(0)), limits.FSCK_PROCESSES_MAX)


def _drawn(report: Report) -> Iterator[RenderableType]:
    yield panel(
        "the log holds" if not report.findings else "the log does NOT hold",
        {
            "log": report.log,
            "its key is": report.trust,
            "records": report.records,
            "of them forgotten": report.forgotten,
            "published": report.published,
            "kept checkpoints": report.checkpoints,
            "findings": report.findings or "none",
        },
    )
    if report.shown:
        yield table(
            _COLUMNS, [(one.place, one.expected, one.met, one.means) for one in report.shown]
        )
    if report.findings > len(report.shown):
        yield f"and {report.findings - len(report.shown)} more"


@contextmanager
def _progress(output: Output) -> Iterator[Callable[[int, int, int], None]]:
    """A bar on stderr for whoever looks."""
    if output.as_json or not sys.stderr.isatty():
        yield lambda _at, _total, _findings: None
        return
    from rich.console import Console  # noqa: PLC0415  JSON needs no bars
    from rich.progress import Progress  # noqa: PLC0415  as above

    # No thread of its own: it would take the interpreter from the walk at every row.
    with Progress(console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("records")

        def tell(at: int, total: int, findings: int) -> None:
            words = f"records, {findings} findings" if findings else "records"
            bar.update(task, completed=at, total=total, description=words, refresh=True)

        yield tell
