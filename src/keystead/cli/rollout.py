"""``keystead key rotate``, ``pause``, ``promote`` and ``rollback``: start a rollout, and steer it.

``keystead key resume --rollout`` resumes one; without ``--rollout`` it resumes versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from keystead.cli.command import command
from keystead.cli.key import Name, app, confirm, steer
from keystead.cli.options import Operator
from keystead.cli.rollout_drawing import picture
from keystead.cli.rollout_reading import read_plan
from keystead.cli.show import note, render

__all__ = ["pause", "promote", "roll_back", "rotate"]

_BY_HAND = "rotated by hand"

Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")]


@dataclass(frozen=True, kw_only=True)
class RotateFlags:
    """How a key is rotated."""

    plan: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="For this one rollout: a plan file, or default, drill, cautious, incident;"
            " else the key's own.",
        ),
    ] = None
    algorithm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the new version; else as before.")
    ] = None
    incident: Annotated[
        bool,
        typer.Option(
            "--incident",
            help="The key may have leaked: short stages, and it never goes back; halts instead.",
        ),
    ] = False
    reason: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Why, for the record; with --incident it is needed."),
    ] = None
    weaker: Annotated[
        bool,
        typer.Option("--weaker", help="That the plan holds it to less than the one in force."),
    ] = False
    yes: Annotated[
        bool, typer.Option("--yes", help="With --incident: do not ask for confirmation.")
    ] = False


@command(
    app,
    "rotate",
    "keystead key rotate shop-tokens",
    "keystead key rotate shop-tokens --plan drill --weaker --reason 'quarterly drill'",
    "keystead key rotate boot --algorithm dual-ecdsa-p256-ml-dsa-65 --plan boot.plan.toml",
    "keystead key rotate shop-tokens --incident --reason 'key seen in a dump, INC-8' --yes",
)
def rotate(name: Name, operator: Operator, flags: RotateFlags) -> None:
    """Make the next version, publish it, and start the rollout that brings it into use."""
    if flags.incident:
        if not flags.reason:
            raise typer.BadParameter("an incident needs its reason", param_hint="--reason")
        question = f"Rotate {name} as an incident? It never goes back to the version before"
        confirm(operator, question, yes=flags.yes)
    with operator.connect() as client:
        plan = None
        if flags.plan is not None:
            key = client.show_key(name)
            plan = read_plan(flags.plan, key, incident=flags.incident)
        client.rotate_key(
            name,
            plan=plan,
            algorithm=flags.algorithm,
            incident=flags.incident,
            weaker=flags.weaker,
            reason=flags.reason or _BY_HAND,
        )
        info = client.rollout_status(name)
    render(operator, info, lambda: picture(info))
    note(operator, f"Watch it: keystead key status {name} --watch")


@command(app, "pause", "keystead key pause shop-tokens --reason 'release freeze'")
def pause(name: Name, operator: Operator, *, reason: Reason) -> None:
    """Hold a rollout at its stage; a gate that fails still takes it back."""
    steer(operator, name, "pause", reason)
    note(operator, f"Go on: keystead key resume {name} --rollout --reason TEXT")


@command(app, "promote", "keystead key promote shop-tokens --reason 'seen enough, CHG-12'")
def promote(name: Name, operator: Operator, *, reason: Reason) -> None:
    """Give the new version all new work now; never before it stood published for the overlap."""
    steer(operator, name, "promote", reason)


@command(app, "rollback", "keystead key rollback shop-tokens --reason 'gateway 3 refuses it'")
def roll_back(name: Name, operator: Operator, *, reason: Reason) -> None:
    """Make the previous version primary again; the new one signs no more, and never comes back."""
    steer(operator, name, "roll_back", reason)
