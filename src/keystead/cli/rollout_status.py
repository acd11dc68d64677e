"""``keystead key status``: how a rollout stands; with ``--watch`` until it has ended.

Status of the watching command: 0 the rollout finished, 4 it was rolled back, 5 it is halted and
waits for a person; others as everywhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from keystead.cli.command import command
from keystead.cli.key import Name, app
from keystead.cli.options import Operator
from keystead.cli.rollout_drawing import change_line, picture
from keystead.cli.show import render
from keystead.cli.signals import signals_end_quietly
from keystead.errors import NotFound
from keystead.keys.rollout.commands import RolloutInfo
from keystead.keys.rollout.model import Status

if TYPE_CHECKING:
    from keystead.client import Client

__all__ = ["HALTED", "ROLLED_BACK", "status"]

ROLLED_BACK, HALTED = 4, 5
"""Exit statuses beside those of ``cli.main``."""

_POLL_S = 1.0
_ENDS: dict[str, int] = {
    Status.FINISHED: 0,
    Status.ROLLED_BACK: ROLLED_BACK,
    Status.HALTED: HALTED,
}


@command(
    app,
    "status",
    "keystead key status shop-tokens",
    "keystead key status shop-tokens --watch",
    "keystead key status shop-tokens --watch --json",
)
def status(
    name: Name,
    operator: Operator,
    *,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Until the rollout ends: status 0 finished, 4 rolled back, 5 halted."
            " Piped, one line a change; with --json one document a line.",
        ),
    ] = False,
) -> None:
    """How a key's rollout stands: stage, shares, gates, what it waits for, last decisions."""
    with signals_end_quietly(), operator.connect() as client:
        first = client.rollout_status(name)
        if not watch:
            render(operator, first, lambda: picture(first))
            return
        if first.status == "none":
            raise NotFound(
                f"key {name} never had a rollout to watch", hint="`keystead key rotate` starts one"
            )
        ended = _watch(operator, client, first)
    raise typer.Exit(_ENDS[ended])


def _watch(operator: Operator, client: Client, first: RolloutInfo) -> str:
    """Show the rollout as it goes; gives how it ended."""
    with _shown(operator) as show:
        info = first
        while True:
            show(info)
            if info.status in _ENDS:
                return info.status
            time.sleep(_POLL_S)
            info = client.rollout_status(first.key)
            if info.number != first.number:  # it ended, and another began, between two looks
                return client.rollout_evidence(first.key, number=first.number).rollout.status


@contextmanager
def _shown(operator: Operator) -> Iterator[Callable[[RolloutInfo], None]]:
    """A picture that is drawn again and again on a terminal; else a line a change."""
    if operator.as_json or not sys.stdout.isatty():
        told: list[object] = []

        def tell(info: RolloutInfo) -> None:
            change = _change(info)
            if told != [change]:
                told[:] = [change]
                sys.stdout.write(_line(info, as_json=operator.as_json) + "\n")
                sys.stdout.flush()

        yield tell
        return
    from rich.console import Console, Group  # noqa: PLC0415  as in show.render
    from rich.live import Live  # noqa: PLC0415  as above

    console = Console(highlight=False, markup=False, emoji=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        yield lambda info: live.update(Group(*picture(info)), refresh=True)


def _change(info: RolloutInfo) -> object:
    """What two looks must differ in to be told apart; figures alone change all the time."""
    verdicts = tuple((gate.gate, gate.verdict) for gate in info.gates)
    return info.number, info.revision, info.status, info.stage, info.ramp, verdicts


def _line(info: RolloutInfo, *, as_json: bool) -> str:
    return msgspec.json.encode(info).decode() if as_json else change_line(info)
