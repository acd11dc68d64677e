"""The plan that an option names: a file, or one of the plans that have a name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from keystead.cli.files import STDIN_OR_STDOUT, read_bytes
from keystead.cli.show import plain
from keystead.keys.model import Policy
from keystead.keys.rollout.plan import Plan, PlannedKey, default_plan

__all__ = ["NewKey", "PlanOption", "read_plan"]

PlanOption = Annotated[
    str | None,
    typer.Option(metavar="FILE|NAME", help="A plan file, or default, drill, cautious, incident."),
]


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan depends on of a key that is about to be made."""

    name: str
    purpose: str
    policy: Policy


def read_plan(named: str, key: PlannedKey, *, incident: bool = False) -> Plan:
    """The plan of a file, or of one of the names; what it leaves out is the purpose's default.

    Raises:
        BadParameter: the file cannot be read.
        MalformedRequest: it is no plan; says where.
    """
    from keystead.keys.rollout.plans import NAMED, parse_plan  # noqa: PLC0415  few read a plan

    defaults = default_plan(key, incident=incident)
    if named in NAMED:
        return parse_plan(f'extends = "{named}"\n', named, defaults, key=key)
    path = Path(named)
    if path != STDIN_OR_STDOUT and not path.exists():
        known = ", ".join(sorted(NAMED))
        raise typer.BadParameter(
            f"no plan is named {plain(named)}, and there is no such file; named are: {known}",
            param_hint="--plan",
        )
    return parse_plan(read_bytes(path, "--plan"), named, defaults, key=key)
