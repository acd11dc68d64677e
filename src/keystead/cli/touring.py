"""``keystead tour``: the whole cycle on the running node, on real files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from keystead.cli.command import alone, command
from keystead.cli.options import Operator

__all__ = ["app"]

app = alone()


@command(app, "tour", "keystead tour", "keystead tour --image firmware.img --json")
def tour(
    operator: Operator,
    *,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file of yours to sign; else a made one.")
    ] = None,
) -> int:
    """Make keys, use them by handles, stop one, read the log: the whole cycle on real files."""
    run = importlib.import_module("keystead.cli.tour.run").run_tour
    status: int = run(
        url=operator.address, token=operator.token(), image=image, as_json=operator.as_json
    )
    return status
