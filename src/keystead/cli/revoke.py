"""``keystead key revoke``: stop versions of one key, or of many at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from keystead.cli.command import command
from keystead.cli.key import app, confirm
from keystead.cli.options import Operator
from keystead.cli.parsing import version_number
from keystead.cli.revoking import Many, Reason, act, need_reason

if TYPE_CHECKING:
    from keystead.client.revoking import Chosen

__all__ = ["revoke"]


@dataclass(frozen=True, kw_only=True)
class VersionFlags:
    """Which versions, and what becomes of them."""

    version: Annotated[
        str | None,
        typer.Option(metavar="N|all", help="One version of the key; else all that can be."),
    ] = None
    every: Annotated[
        bool, typer.Option("--all", help="All versions of the key, as without --version.")
    ] = False
    state: Annotated[
        Literal["suspended", "compromised"],
        typer.Option(
            "--as", help="suspended can be resumed; compromised never, and what it signed is void."
        ),
    ] = "compromised"
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False


@command(
    app,
    "revoke",
    "keystead key revoke shop-tokens --version 2 --reason 'key leaked, INC-8' --yes",
    "keystead key revoke --tenant shop --as suspended --reason 'INC-9'",
    "keystead key revoke --purpose jwt --label env=live --dry-run",
)
def revoke(
    operator: Operator,
    many: Many,
    flags: VersionFlags,
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The key; or choose many by options.")
    ] = None,
    reason: Reason = None,
) -> None:
    """Stop versions: compromised for good, so that what they signed is void, or suspended.

    All that is chosen is stopped in one commit; the answer comes once it holds on every node.
    """
    chosen = _chosen(name, many, flags)
    if not many.dry_run:
        need_reason(reason)
        if flags.state == "compromised":
            what = f"{name}, version {flags.version or 'all'}" if name else _words(many)
            confirm(operator, f"Revoke {what}, for good?", yes=flags.yes)
    with operator.connect() as client:
        act(operator, client, chosen, reason=reason, dry_run=many.dry_run)


def _chosen(name: str | None, many: Many, flags: VersionFlags) -> Chosen:
    chosen = many.given()
    if (name is None) != bool(chosen):
        raise typer.BadParameter(
            "name a key, or choose by --purpose, --tenant or --label; not both", param_hint="NAME"
        )
    number = version_number(flags.version or "all", "--version")
    if flags.every and number is not None:
        raise typer.BadParameter("goes without --version", param_hint="--all")
    if number is not None:
        if name is None:
            raise typer.BadParameter("is of one key: name it", param_hint="--version")
        chosen["version"] = number
    if name is not None:
        chosen["key"] = name
    chosen["state"] = flags.state
    return chosen


def _words(many: Many) -> str:
    parts = [f"purpose {many.purpose!s}"] * (many.purpose is not None)
    parts += [f"label {label}" for label in many.label or ()]
    parts += [f"tenant {many.tenant}"] * (many.tenant is not None)
    return f"every key of {', '.join(parts)}"
