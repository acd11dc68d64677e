"""``keystead key plan`` and ``policy``: see what a key is held to, and change it knowingly.

Each difference to what is in force is shown with its direction before anything is sent; what
weakens wants ``--weaker``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keystead.cli.command import command
from keystead.cli.key import Name, app, is_asked
from keystead.cli.options import Operator
from keystead.cli.policies import PolicyFlags, policy_of
from keystead.cli.rollout_reading import PlanOption, read_plan
from keystead.cli.show import note, plain, print_json, render, table
from keystead.differences import Difference, is_weaker
from keystead.keys.commands import KeyInfo
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import ChangedPolicy, RolloutInfo
from keystead.keys.rollout.model import Status
from keystead.keys.rollout.plan import Plan, default_plan

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["difference_table", "plan", "policy"]

_COLUMNS = ("path", "before", "after", "direction", "reason")
_LIVE = frozenset({Status.RUNNING, Status.PAUSED, Status.HALTED})
_PIPE_WIDTH = 4096
"""Columns where nobody looks at a terminal, as in ``show``."""


@dataclass(frozen=True, kw_only=True)
class ChangeFlags:
    """What every change of a plan or policy takes."""

    weaker: Annotated[
        bool,
        typer.Option("--weaker", help="It may weaken: without this, what weakens is refused."),
    ] = False
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why, for the record; a change needs it.")
    ] = None
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False

    def needed(self) -> str:
        """The reason.

        Raises:
            BadParameter: there is none.
        """
        if not self.reason:
            raise typer.BadParameter("a change needs its reason", param_hint="--reason")
        return self.reason


@command(
    app,
    "plan",
    "keystead key plan shop-tokens > shop.plan.toml",
    "keystead key plan shop-tokens --plan shop.plan.toml --reason 'slower canary, CHG-31'",
    "keystead key plan shop-tokens --plan drill --weaker --reason 'drill of 2026-11' --yes",
    "keystead key plan shop-tokens --default --reason 'drill is over'",
)
def plan(
    name: Name,
    operator: Operator,
    flags: ChangeFlags,
    *,
    plan: PlanOption = None,
    default: Annotated[
        bool, typer.Option("--default", help="No plan of its own: its purpose's default.")
    ] = False,
) -> None:
    """The plan of a key's rollouts: without an option show it as a plan file, else set it."""
    from keystead.keys.rollout.differ import plan_differences  # noqa: PLC0415  few commands compare

    if default and plan is not None:
        raise typer.BadParameter("goes without --plan", param_hint="--default")
    with operator.connect() as client:
        key, now = client.show_key(name), client.rollout_status(name)
        before, whose = _coming(now, key)
        if plan is None and not default:
            _show_plan(operator, before or now.plan, whose)
            return
        reason = flags.needed()
        after = None if plan is None else read_plan(plan, key)
        if before is not None:
            differences = plan_differences(before, after or default_plan(key))
            _agree(operator, flags, f"Change the plan of {name}?", differences)
        changed = client.set_plan(name, after, reason=reason, weaker=flags.weaker)
    _show_changed(operator, changed, "plan")


@command(
    app,
    "policy",
    "keystead key policy shop-tokens > policy.json",
    "keystead key policy shop-tokens --policy-file policy.json --reason 'shorter tokens, CHG-32'",
    "keystead key policy shop-tokens --policy-file policy.json --weaker --reason 'CHG-33' --yes",
)
def policy(
    name: Name,
    operator: Operator,
    flags: ChangeFlags,
    *,
    policy_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The whole policy as JSON, - for stdin.")
    ] = None,
) -> None:
    """What a key may do beyond its purpose: without an option show it as JSON, else set it."""
    from keystead.keys.rollout.differ import policy_differences  # noqa: PLC0415  as in plan

    with operator.connect() as client:
        key = client.show_key(name)
        if policy_file is None:
            print_json(key.policy)
            return
        reason = flags.needed()
        after = policy_of(Purpose(key.purpose), PolicyFlags(policy_file=policy_file))
        differences = policy_differences(key.policy, after)
        _agree(operator, flags, f"Change the policy of {name}?", differences)
        changed = client.change_policy(name, after, reason=reason, weaker=flags.weaker)
    _show_changed(operator, changed, "policy")


def difference_table(differences: Iterable[Difference]) -> RenderableType:
    """What changes, which way, and why that matters."""
    rows = ((d.path, d.before, d.after, d.direction, d.reason) for d in differences)
    return table(_COLUMNS, rows)


def _coming(now: RolloutInfo, key: KeyInfo) -> tuple[Plan | None, str]:
    """The plan of the key's coming rollouts, and whose it is; None: the node does not tell it now.

    While a rollout is under way, the node tells that one's plan, which may be another.
    """
    if not now.own_plan:
        return default_plan(key), "It is the default of the key's purpose."
    if now.status in _LIVE:
        return None, "It is the plan of the rollout that is under way."
    return now.plan, "It is the key's own plan."


def _agree(
    operator: Operator, flags: ChangeFlags, question: str, differences: tuple[Difference, ...]
) -> None:
    """Show what changes, and have whoever sits here agree.

    Where nobody can be asked, it goes on: what weakens was asked for by its own option.

    Raises:
        BadParameter: it weakens, and nobody said that it may.
    """
    weakens = is_weaker(differences) and not flags.weaker
    asks = not flags.yes and is_asked(operator)
    if differences and (asks or weakens):
        _preview(operator, differences)
    if weakens:
        paths = ", ".join(d.path for d in differences if is_weaker((d,)))
        raise typer.BadParameter(
            f"this weakens {paths}: give --weaker if that is meant", param_hint="--weaker"
        )
    if asks and differences:
        typer.confirm(question, abort=True, err=True)


def _preview(operator: Operator, differences: tuple[Difference, ...]) -> None:
    if operator.as_json:
        return
    from rich.console import Console  # noqa: PLC0415  as in show.render

    width = None if sys.stderr.isatty() else _PIPE_WIDTH
    console = Console(stderr=True, highlight=False, markup=False, emoji=False, width=width)
    console.print(difference_table(differences))


def _show_plan(operator: Operator, plan: Plan, whose: str) -> None:
    if operator.as_json:
        print_json(plan)
        return
    from keystead.keys.rollout.plans import print_plan  # noqa: PLC0415  as in read_plan

    sys.stdout.write(print_plan(plan))
    note(operator, whose)


def _show_changed(operator: Operator, changed: ChangedPolicy, what: str) -> None:
    if changed.differences:
        render(operator, changed, lambda: [difference_table(changed.differences)])
    else:
        render(operator, changed, lambda: [f"The {what} of {plain(changed.key)} stays as it was."])
