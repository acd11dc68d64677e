"""``keystead tenant``: what each tenant may spend of a node."""

from __future__ import annotations

from typing import Annotated

import typer

from keystead.cli.command import command, group
from keystead.cli.options import Operator
from keystead.cli.parsing import rate
from keystead.cli.show import plain, render, table
from keystead.keys.commands import TenantInfo

__all__ = ["app"]

app = group("tenant", "Show and set what each tenant may spend of a node.")

_PAGE = 500


@command(
    app,
    "limit",
    "keystead tenant limit shop --rate 500/1s --reason 'shares the node with payments'",
)
def limit(
    operator: Operator,
    *,
    tenant: Annotated[str, typer.Argument(metavar="NAME", help="The tenant.")],
    budget: Annotated[
        str, typer.Option("--rate", metavar="COUNT/TIME", help="At most, such as 500/1s.")
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")],
) -> None:
    """Set a tenant's budget of uses on each node; what is over it is refused, by its reason."""
    asked = rate(budget, "--rate")
    with operator.connect() as client:
        after = client.limit_tenant(tenant, asked.count, per_s=asked.per_s, reason=reason)
    told = f"Tenant {plain(after.tenant)}: at most {after.count} uses in {after.per_s} s a node."
    render(operator, after, lambda: [told])


@command(app, "list", "keystead tenant list", "keystead tenant list --json")
def list_(operator: Operator) -> None:
    """Every tenant that has a key or a budget of its own."""
    found: list[TenantInfo] = []
    with operator.connect() as client:
        while True:
            page = client.list_tenants(after=found[-1].tenant if found else "", limit=_PAGE)
            found.extend(page)
            if len(page) < _PAGE:
                break
    render(operator, found, lambda: [table(("tenant", "keys", "budget", "set"), map(_row, found))])


def _row(tenant: TenantInfo) -> tuple[str, str, str, str]:
    budget = f"{tenant.count} in {tenant.per_s} s"
    return tenant.tenant, str(tenant.keys), budget, "yes" if tenant.own else "default"
