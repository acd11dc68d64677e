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
from keystead.cli.drill_revocation import draw_revocation
from keystead.cli.files import STDIN_OR_STDOUT
from keystead.cli.options import Operator
from keystead.cli.show import facts, note, panel, plain, render, table
from keystead.cli.signals import signals_end_quietly

if TYPE_CHECKING:
    from rich.console import RenderableType

    from keystead.drills.revocation.report import Report as RevocationReport
    from keystead.drills.rotation.report import Report

__all__ = ["RevocationFlags", "RotationFlags", "app", "draw", "fronts"]

app = group("drill", "Put a running node through a drill, and hold it to what it is made for.")

_FAILED = 1
_SCALE_MIN, _SCALE_MAX = 0.25, 4.0  # as in drills.rotation.lengths, which help does not load
_COUNT_MIN, _COUNT_MAX = 15, 1_000  # as in drills.revocation.targets
_FRONTS_MAX = 2


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


@dataclass(frozen=True, kw_only=True)
class RevocationFlags:
    """How a drill of revocations is made."""

    peer: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="KEYSTEAD_PEER",
            help="The front of a second node on the same database.",
        ),
    ] = None
    revocations: Annotated[
        int,
        typer.Option(min=_COUNT_MIN, max=_COUNT_MAX, help="How many things are revoked."),
    ] = 100
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the picture of the answers goes, an SVG.")
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
    _check_folder(flags.out)
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


@command(
    app,
    "revocation",
    "keystead drill revocation",
    "keystead drill revocation --url http://127.0.0.1:7410 --peer http://127.0.0.1:7420 --json",
)
def revocation(operator: Operator, flags: RevocationFlags) -> int:
    """Revoke handles, keys and versions of its own while they are in use, on one node or two.

    Takes about half a minute, and leaves some 4,000 records and 61 keys without material.
    """
    _check_folder(flags.out)
    urls = fronts(operator.address, flags.peer)
    token = operator.token()
    run: Any = importlib.import_module("keystead.drills.revocation.run")  # loads the HTTP client
    with _stoppable(operator), _progress(operator) as tell:
        report: RevocationReport = run.run_revocation(
            urls, token, count=flags.revocations, tell=tell
        )
    svg: Callable[..., str] = importlib.import_module("keystead.drills.revocation.picture").svg
    path = flags.out / f"revocation-drill-{report.run}.svg"
    title = (
        f"Keystead: revocation drill {report.run}, {len(report.checks)} checks,"
        f" {report.failed} failed"
    )
    path.write_text(svg(title, report.timeline), encoding="utf-8")
    report = msgspec.structs.replace(report, picture=str(path))
    render(operator, report, lambda: draw_revocation(report))
    return 0 if report.ok else _FAILED


def fronts(address: str, peer: str | None) -> tuple[str, ...]:
    """The one or two addresses: with a peer, or the two of a list with commas between.

    Raises:
        BadParameter: more than two.
    """
    found = [part for part in address.split(",") if part.strip()]
    found += [] if peer is None else [peer]
    if not 1 <= len(found) <= _FRONTS_MAX:
        raise typer.BadParameter(
            f"expected the fronts of one or two nodes, met {len(found)}", param_hint="--peer"
        )
    return tuple(part.strip() for part in found)


def _check_folder(out: Path) -> None:
    if out == STDIN_OR_STDOUT or not out.is_dir():
        raise typer.BadParameter(f"no folder {plain(out)}", param_hint="--out")


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
