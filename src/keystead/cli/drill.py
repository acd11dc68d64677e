"""``keystead drill``: a running node goes through what it is made for, and is held to it.

Status: 0 if every check holds, 1 if one does not; others as everywhere.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from keystead.cli.command import command, group
from keystead.cli.files import STDIN_OR_STDOUT
from keystead.cli.options import Operator
from keystead.cli.show import facts, note, panel, plain, render, table
from keystead.cli.signals import signals_end_quietly

if TYPE_CHECKING:
    from rich.console import RenderableType

    from keystead.drills.rotation.report import Report

__all__ = ["RotationFlags", "app", "draw"]

app = group("drill", "Put a running node through a drill, and hold it to what it is made for.")

_FAILED = 1
_SCALE_MIN, _SCALE_MAX = 0.25, 4.0  # as in drills.rotation.lengths, which help does not load


@dataclass(frozen=True, kw_only=True)
class RotationFlags:
    """How a drill of rotations is made."""

    seconds_scale: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            min=_SCALE_MIN,
            max=_SCALE_MAX,
            help="How long a second of the plan lasts: 0.5 for half the time, 2 for twice.",
        ),
    ] = 1.0
    algorithm: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the versions rotated to; else as the first one's."),
    ] = None
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the picture of the timeline goes, an SVG.")
    ] = Path()


@command(
    app,
    "rotation",
    "keystead drill rotation",
    "keystead drill rotation --algorithm ml-dsa-65 --out /tmp --json",
)
def rotation(operator: Operator, flags: RotationFlags) -> int:
    """Rotate a key of its own under load: a healthy one, one with a fault, and an incident.

    Takes about 50 seconds, and leaves some 7,000 records and a key without material.
    """
    if flags.out == STDIN_OR_STDOUT or not flags.out.is_dir():
        raise typer.BadParameter(f"no folder {plain(flags.out)}", param_hint="--out")
    token = operator.token()
    run: Any = importlib.import_module("keystead.drills.rotation.run")  # loads the HTTP client
    with _stoppable(operator), _progress(operator) as tell:
        report: Report = run.run_rotation(
            operator.address,
            token,
            scale=flags.seconds_scale,
            algorithm=flags.algorithm,
            tell=tell,
        )
    report = _with_picture(report, flags.out)
    render(operator, report, lambda: draw(report))
    return 0 if report.ok else _FAILED


def draw(report: Report) -> Iterator[RenderableType]:
    """The report as people read it, and what comes of it at the end."""
    title = f"Rotation drill {report.run} of {plain(report.url)}"
    yield panel(
        title,
        {
            "key": report.key,
            "tokens": f"{report.tokens:,}",
            "took": f"{report.seconds:.1f} s",
            "a second lasts": f"{report.scale:g} s" if report.scale != 1 else None,
        },
    )
    yield table(("", "act", "what", "expected", "met"), _rows(report))
    yield ""
    held = len(report.checks) - report.failed
    yield facts(
        {
            "verdict": f"{held} checks hold, {report.failed} fail",
            "picture": report.picture,
            "left": report.left,
        }
    )


def _rows(report: Report) -> Iterator[tuple[object, ...]]:
    act = ""
    for one in report.checks:
        shown, act = ("" if one.act == act else one.act), one.act
        yield "pass" if one.held else "fail", shown, one.what, one.expected, one.met


def _with_picture(report: Report, folder: Path) -> Report:
    svg: Callable[..., str] = importlib.import_module("keystead.drills.rotation.picture").svg
    path = folder / f"rotation-drill-{report.run}.svg"
    title = (
        f"Keystead: rotation drill {report.run}, {len(report.checks)} checks,"
        f" {report.failed} failed"
    )
    path.write_text(svg(title, report.timeline), encoding="utf-8")
    return msgspec.structs.replace(report, picture=str(path))


@contextmanager
def _stoppable(operator: Operator) -> Iterator[None]:
    """A signal ends the drill in order, and says what that left on the node."""
    try:
        with signals_end_quietly():
            yield
    except SystemExit as stopped:
        note(operator, "Stopped.", *getattr(stopped, "__notes__", ()))
        raise


@contextmanager
def _progress(operator: Operator) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr while the drill runs, gone at its end; on a terminal only."""
    if operator.as_json or not sys.stderr.isatty():
        yield lambda _words, _share: None
        return
    from rich.console import Console  # noqa: PLC0415  as in show.render: JSON needs no bar
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415  as above

    columns = (
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda words, share: bar.update(task, description=plain(words), completed=share)
