"""``keystead bench``: how fast a node is beside what bounds it, and beside OpenBao."""

from __future__ import annotations

import importlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from keystead.cli.command import alone, command
from keystead.cli.options import Output
from keystead.cli.show import note, render
from keystead.store.opening import check_database, is_server

if TYPE_CHECKING:
    from keystead.cli.bench.report import Report

__all__ = ["BenchFlags", "app", "parse_connections"]

app = alone()

_MISSED = 1
_CONNECTIONS_MAX = 1024
_REAL_DISK = Path("/var/tmp")  # noqa: S108  the folder in it is made by tempfile, mode 0700


@dataclass(frozen=True, kw_only=True)
class BenchFlags:
    """How a run is made."""

    rounds: Annotated[
        int, typer.Option(min=1, max=1000, help="Rounds; in each everything is measured once.")
    ] = 7
    seconds: Annotated[
        int, typer.Option(min=1, max=600, help="Seconds for each thing in a round.")
    ] = 3
    connections: Annotated[
        str, typer.Option(metavar="N,N,...", help="Connections that send single requests.")
    ] = "1,16,64,256"
    keys: Annotated[
        int,
        typer.Option(min=0, max=1_000_000, help="Keys of the greater start; 0 times no starts."),
    ] = 10_000
    load: Annotated[Literal["auto", "wrk", "python"], typer.Option(help="What makes the load.")] = (
        "auto"
    )
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where data folders are made, and removed after."),
    ] = None
    without_openbao: Annotated[
        bool, typer.Option("--without-openbao", help="Do not compare with OpenBao.")
    ] = False
    openbao: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="OpenBao's program; else bao on PATH."),
    ] = None
    without_postgres: Annotated[
        bool, typer.Option("--without-postgres", help="Do not measure on PostgreSQL.")
    ] = False
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An empty database to measure on; else its own server."),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Of the order within each round.")] = 1
    json_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every sample there, as JSON.")
    ] = None
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw a PNG there (needs matplotlib).")
    ] = None


@command(
    app,
    "bench",
    "keystead bench --rounds 9 --json-file bench.json --plot bench.png",
    "keystead bench --without-openbao --connections 64 --keys 0",
)
def bench(output: Output, flags: BenchFlags) -> int:
    """Measure signing, alone, in the vault, over HTTP and on OpenBao; show ratios with targets.

    Ends with 1 if a target is missed. Nothing is left behind, and no running node is touched.
    """
    connections = parse_connections(flags.connections)
    folder = _folder(flags.folder)
    if flags.openbao is not None and flags.without_openbao:
        raise typer.BadParameter("says the opposite of --openbao", param_hint="--without-openbao")
    if flags.database is not None and flags.without_postgres:
        raise typer.BadParameter("says the opposite of --database", param_hint="--without-postgres")
    for path, hint in ((flags.json_file, "--json-file"), (flags.plot, "--plot")):
        if path is not None and not path.absolute().parent.is_dir():
            raise typer.BadParameter(f"no folder {path.absolute().parent}", param_hint=hint)
    run: Any = importlib.import_module("keystead.cli.bench.run")  # loads the vault's parts
    plan = run.Plan(
        rounds=flags.rounds,
        seconds=flags.seconds,
        connections=connections,
        keys=flags.keys,
        seed=flags.seed,
        folder=folder,
        load=flags.load,
        with_openbao=not flags.without_openbao,
        openbao=flags.openbao,
        with_postgres=not flags.without_postgres,
        database=None if flags.database is None else _server(flags.database),
    )
    report: Report = run.run_bench(plan, lambda words: _progress(output, words))
    _keep(output, flags, report)
    draw = importlib.import_module("keystead.cli.bench.render").draw
    render(output, report, lambda: draw(report))
    return 0 if report.ok else _MISSED


def parse_connections(text: str) -> list[int]:
    """The numbers of a list such as ``1,16,64``, in order, each once.

    Raises:
        BadParameter: something else.
    """
    numbers = {int(part) for part in text.split(",") if part.strip().isdecimal()}
    if len(numbers) != len(text.split(",")) or not all(
        1 <= number <= _CONNECTIONS_MAX for number in numbers
    ):
        raise typer.BadParameter(
            f"expected different numbers from 1 to {_CONNECTIONS_MAX}, as 1,16,64",
            param_hint="--connections",
        )
    return sorted(numbers)


def _folder(named: Path | None) -> Path:
    """Where data folders go: what was named, else a folder that is on a disk on most machines."""
    if named is not None and not named.is_dir():
        raise typer.BadParameter(f"no folder {named}", param_hint="--folder")
    if named is not None:
        return named.absolute()
    return _REAL_DISK if _REAL_DISK.is_dir() else Path(tempfile.gettempdir())


def _server(url: str) -> str:
    """A URL of a database server, without a password.

    Raises:
        BadParameter: something else. StartupError: there is a password in it.
    """
    if not is_server(url):
        raise typer.BadParameter(
            "expected postgresql://..., without a password", param_hint="--database"
        )
    return check_database(url)


def _progress(output: Output, words: str) -> None:
    """Which step is under way, in one line on a terminal that the next one overwrites."""
    if not output.as_json and sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{words}")
        sys.stderr.flush()


def _keep(output: Output, flags: BenchFlags, report: Report) -> None:
    _progress(output, "")
    if flags.json_file is not None:
        encode = importlib.import_module("msgspec").json.encode
        flags.json_file.write_bytes(encode(report) + b"\n")
        note(output, f"Every sample is in {flags.json_file}.")
    if flags.plot is None:
        return
    plot: Any = importlib.import_module("keystead.cli.bench.plot")
    if not plot.has_matplotlib():
        note(output, "No plot: matplotlib is not installed (pip install matplotlib).")
        return
    plot.draw_plot(report, flags.plot)
    note(output, f"The plot is in {flags.plot}.")
