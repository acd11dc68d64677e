"""``keystead emergency``: stop a tenant or everything by one command, and end that by another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from keystead.cli.command import command, group
from keystead.cli.key import confirm
from keystead.cli.options import Operator
from keystead.cli.revoking import fence_facts
from keystead.cli.show import instant, panel, render, table
from keystead.keys.standing import EVERYTHING
from keystead.keys.stops import EmergencyInfo

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["app"]

app = group("emergency", "Stop a tenant, or everything, at once; and end that again.")

Tenant = Annotated[str | None, typer.Option(metavar="NAME", help="This tenant.")]
Everything = Annotated[bool, typer.Option("--all", help="All tenants.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")]


@command(
    app,
    "stop",
    "keystead emergency stop --tenant shop --reason 'INC-9'",
    "keystead emergency stop --all --reason 'INC-10'",
)
def stop(
    operator: Operator, *, tenant: Tenant = None, every: Everything = False, reason: Reason
) -> None:
    """No key of it is used from now on, and nothing of it is started, until the stop is ended.

    It asks for no confirmation: nothing of any key changes, and ending it brings all of it back.
    """
    from keystead.client.revoking import emergency_stop  # noqa: PLC0415  the HTTP client

    with operator.connect() as client:
        done = client.run(emergency_stop(tenant=_tenant(tenant, every=every), reason=reason))
    render(operator, done, lambda: _draw(done))


@command(
    app,
    "end",
    "keystead emergency end --tenant shop --reason 'INC-9 closed' --yes",
    "keystead emergency end --all --reason 'INC-10 closed' --yes",
)
def end(
    operator: Operator,
    *,
    tenant: Tenant = None,
    every: Everything = False,
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Take a stop back, as it was asked for: everything that it held is used again."""
    from keystead.client.revoking import emergency_end  # noqa: PLC0415  the HTTP client

    named = _tenant(tenant, every=every)
    whose = "all tenants" if named is None else f"tenant {named}"
    confirm(operator, f"End the emergency stop of {whose}, so that its keys are used?", yes=yes)
    with operator.connect() as client:
        done = client.run(emergency_end(tenant=named, reason=reason))
    render(operator, done, lambda: _draw(done))


@command(app, "status", "keystead emergency status", "keystead emergency status --json")
def status(operator: Operator) -> None:
    """Which stops are in force, since when, by whom, and why."""
    from keystead.client.revoking import emergency_status  # noqa: PLC0415  the HTTP client

    with operator.connect() as client:
        found = client.run(emergency_status())
    columns = ("tenant", "keys", "since", "by", "reason")
    rows = [(_whose(s), s.keys, instant(s.since_ms), s.by, s.reason) for s in found.stops]
    render(operator, found, lambda: [table(columns, rows)] if rows else ["No stop is in force."])


def _tenant(tenant: str | None, *, every: bool) -> str | None:
    if (tenant is None) != every:
        raise typer.BadParameter("give --tenant, or --all", param_hint="--tenant")
    return tenant


def _whose(info: EmergencyInfo) -> str:
    return "all tenants" if info.tenant == EVERYTHING else info.tenant


def _draw(done: EmergencyInfo) -> list[RenderableType]:
    members = {
        "tenant": _whose(done),
        "keys": done.keys,
        "reason": done.reason,
        **fence_facts(done.fence, done.best_effort),
    }
    return [panel("stopped" if done.stopped else "ended: its keys are used again", members)]
