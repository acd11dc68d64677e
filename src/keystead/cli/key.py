"""``keystead key``: make, show and stop keys; fetch their public parts.

``key_commands`` names the modules of the group's other commands.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import typer

from keystead.cli.command import command, group
from keystead.cli.options import Common, Operator
from keystead.cli.parsing import pairs, version_number
from keystead.cli.policies import PolicyFlags, policy_of
from keystead.cli.rollout_drawing import picture
from keystead.cli.rollout_reading import NewKey, PlanOption, read_plan
from keystead.cli.show import instant, panel, print_json, render, table
from keystead.errors import MalformedRequest, NotFound
from keystead.keys.algorithms import algorithm_named
from keystead.keys.commands import KeyInfo, VersionInfo
from keystead.keys.purposes import Purpose

__all__ = ["Name", "app", "confirm", "is_asked", "steer"]

app = group("key", "Make, show, rotate and stop keys; fetch their public parts.")

_PAGE = 500
Name = Annotated[str, typer.Argument(metavar="NAME", help="The key.")]


@dataclass(frozen=True, kw_only=True)
class MakeFlags:
    """What a new key is, beside its purpose and policy."""

    algorithm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Else the purpose's default.")
    ] = None
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose it is.")] = "default"
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A label; repeat it for more.")
    ] = None
    prehashed: Annotated[
        bool, typer.Option("--prehashed", help="tls: signs digests, for life.")
    ] = False
    plan: PlanOption = None


@dataclass(frozen=True, kw_only=True)
class StopFlags:
    """What a move of versions takes."""

    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")]
    version: Annotated[
        str, typer.Option(metavar="N|all", help="One version, or all that may make the move.")
    ] = "all"


@dataclass(frozen=True, kw_only=True)
class ResumeFlags(StopFlags):
    """What ``resume`` takes: it starts what was suspended, or a rollout that was paused."""

    rollout: Annotated[
        bool, typer.Option("--rollout", help="The rollout that is paused or halted, no version.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class SureFlags(StopFlags):
    """What a move takes that cannot be taken back."""

    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False


@command(
    app,
    "create",
    "keystead key create shop-tokens --purpose jwt --issuer https://id.shop.example --lifetime 15m",
    "keystead key create boot --purpose firmware --algorithm dual-ecdsa-p256-ml-dsa-65"
    " --image-name app",
    "keystead key create web --purpose tls --label service=web --ack best_effort",
    "keystead key create inner --purpose ca --policy-file policy.json",
    "keystead key create drill-tokens --purpose jwt --issuer https://id.shop.example --lifetime 3s"
    " --plan drill",
)
def create(
    name: Name,
    operator: Operator,
    flags: PolicyFlags,
    made_as: MakeFlags,
    *,
    purpose: Annotated[Purpose, typer.Option(help="What it is for, for life.")],
) -> None:
    """Make a key and its first version, active at once."""
    policy = policy_of(purpose, flags)
    labels = pairs(made_as.label, "--label")
    plan = None
    if made_as.plan is not None:
        plan = read_plan(made_as.plan, NewKey(name=name, purpose=purpose, policy=policy))
    with operator.connect() as client:
        made = client.create_key(
            name,
            str(purpose),
            policy=policy,
            algorithm=made_as.algorithm,
            tenant=made_as.tenant,
            labels=labels,
            prehashed=made_as.prehashed,
            plan=plan,
        )
    _show(operator, made)


@command(app, "list", "keystead key list --purpose jwt", "keystead key list --tenant shop --json")
def list_(
    operator: Operator,
    *,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only this tenant's.")] = None,
    purpose: Annotated[Purpose | None, typer.Option(help="Only of this purpose.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="The most to show.")] = 10_000,
) -> None:
    """All keys, in order of their names."""
    found: list[KeyInfo] = []
    with operator.connect() as client:
        while len(found) < limit:
            asked = min(_PAGE, limit - len(found))
            page = client.list_keys(
                tenant=tenant,
                purpose=None if purpose is None else str(purpose),
                after=found[-1].name if found else "",
                limit=asked,
            )
            found.extend(page)
            if len(page) < asked:
                break
    columns = ("name", "purpose", "tenant", "primary", "state", "algorithm", "versions", "labels")
    render(operator, found, lambda: [table(columns, map(_row, found))])


@command(app, "show", "keystead key show shop-tokens")
def show(name: Name, operator: Operator) -> None:
    """One key with its policy and versions."""
    with operator.connect() as client:
        _show(operator, client.show_key(name))


@command(app, "suspend", "keystead key suspend shop-tokens --reason 'odd traffic, INC-7'")
def suspend(name: Name, operator: Operator, flags: StopFlags) -> None:
    """Stop versions for now; resume takes it back."""
    _move(operator, name, "suspend", flags)


@command(
    app,
    "resume",
    "keystead key resume shop-tokens --version 2 --reason 'INC-7 closed'",
    "keystead key resume shop-tokens --rollout --reason 'the freeze is over'",
)
def resume(name: Name, operator: Operator, flags: ResumeFlags) -> None:
    """Start suspended versions again; with --rollout, a rollout that is paused or halted."""
    if not flags.rollout:
        _move(operator, name, "resume", flags)
        return
    if flags.version != "all":
        raise typer.BadParameter(
            "is of versions: it goes without --rollout", param_hint="--version"
        )
    steer(operator, name, "resume", flags.reason)


@command(app, "deactivate", "keystead key deactivate shop-tokens --version 1 --reason 'rotated'")
def deactivate(name: Name, operator: Operator, flags: StopFlags) -> None:
    """End new work for good; what was signed still verifies, what was wrapped still opens."""
    _move(operator, name, "deactivate", flags)


@command(
    app, "destroy", "keystead key destroy shop-tokens --version 1 --reason 'end of retention' --yes"
)
def destroy(name: Name, operator: Operator, flags: SureFlags) -> None:
    """Erase the key material of stopped versions, for good; what they wrapped never opens again."""
    confirm(operator, f"Destroy {name}, version {flags.version}, for good?", yes=flags.yes)
    _move(operator, name, "destroy", flags)


@command(
    app,
    "public",
    "keystead key public shop-tokens > shop-tokens.pem",
    "keystead key public boot --version 2 --component ml-dsa-65",
    "keystead key public boot --json > boot.key.json",
)
def public(
    name: Name,
    common: Common,
    *,
    version: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Else the primary; with --json, all.")
    ] = None,
    component: Annotated[
        str | None, typer.Option(metavar="NAME", help="One of a dual key's algorithms.")
    ] = None,
) -> None:
    """Public keys as PEM; as JSON it is what verify takes as --key-file."""
    with common.connect() as client:
        key = client.public_key(name)
    if common.as_json:
        chosen = [v for v in key.versions if version in (None, v.number)]
        print_json(msgspec.structs.replace(key, versions=tuple(chosen)))
        return
    wanted = version or key.primary
    for found in key.versions:
        if found.number == wanted:
            sys.stdout.write(_pem(found, component))
            return
    raise NotFound(f"key {name} has no version {wanted}")


@command(app, "jwks", "keystead key jwks shop-tokens > jwks.json")
def jwks(name: Name, common: Common) -> None:
    """The JSON Web Key Set of a jwt key (RFC 7517)."""
    with common.connect() as client:
        print_json(client.jwks(name))


@command(app, "certificate", "keystead key certificate inner-ca > inner-ca.pem")
def certificate(name: Name, common: Common) -> None:
    """The certificate of an authority, as PEM."""
    with common.connect() as client:
        text = client.certificate(name)
    if common.as_json:
        print_json({"name": name, "certificate_pem": text})
    else:
        sys.stdout.write(text)


def _move(operator: Operator, name: str, move: str, flags: StopFlags) -> None:
    number = version_number(flags.version, "--version")
    with operator.connect() as client:
        _show(operator, client.move_version(name, move, reason=flags.reason, version=number))


def steer(
    operator: Operator,
    name: str,
    move: Literal["pause", "resume", "promote", "roll_back"],
    reason: str,
) -> None:
    """Have a rollout moved, and show how it stands then."""
    with operator.connect() as client:
        client.steer_rollout(name, move, reason=reason)
        info = client.rollout_status(name)
    render(operator, info, lambda: picture(info))


def is_asked(operator: Operator) -> bool:
    """Whether somebody sits at stdin who can be asked."""
    return not operator.as_json and sys.stdin.isatty()


def confirm(operator: Operator, question: str, *, yes: bool) -> None:
    """Have a person agree to what cannot be taken back; ``yes``: they have.

    Raises:
        BadParameter: nobody is here to ask.
        Abort: they do not agree.
    """
    if yes:
        return
    if not is_asked(operator):
        raise typer.BadParameter(
            "it cannot be taken back, and nobody is here to ask: give --yes", param_hint="--yes"
        )
    typer.confirm(question, abort=True, err=True)


def _show(operator: Operator, key: KeyInfo) -> None:
    columns = ("version", "state", "algorithm", "kid", "created")
    rows = [(v.number, v.state, v.algorithm, v.kid, instant(v.created_ms)) for v in key.versions]
    members = {
        "purpose": key.purpose,
        "tenant": key.tenant,
        "labels": key.labels,
        "prehashed": key.prehashed or None,
        "primary": key.primary,
        **_policy(key),
        "generation": key.generation,
        "revision": f"{key.revision}, of epoch {key.epoch}",
        "created": instant(key.created_ms),
        "id": key.id,
    }
    render(operator, key, lambda: [panel(key.name, members), table(columns, rows)])


def _policy(key: KeyInfo) -> dict[str, object]:
    """The policy, with the members of the purpose's own part beside the others."""
    told: dict[str, object] = msgspec.to_builtins(key.policy)
    members: dict[str, object] = {}
    for name, value in told.items():
        members |= value if isinstance(value, dict) else {name: value}
    return {f"policy: {name}": value for name, value in members.items()}


def _row(key: KeyInfo) -> tuple[object, ...]:
    states = {version.number: version.state for version in key.versions}
    return (
        key.name,
        key.purpose,
        key.tenant,
        key.primary,
        states.get(key.primary, ""),
        key.algorithms,
        len(key.versions),
        key.labels,
    )


def _pem(version: VersionInfo, component: str | None) -> str:
    """The PEM of a version's components, or of one of them.

    Raises:
        MalformedRequest: it is a secret, or has no such component.
    """
    if not version.public_pem:
        raise MalformedRequest(f"version {version.number} is a secret: it has no public part")
    parts = dict(
        zip(algorithm_named(version.algorithm).components, version.public_pem, strict=True)
    )
    if component is None:
        return "".join(parts.values())
    if component not in parts:
        raise MalformedRequest(
            f"version {version.number} has no component {component[:64]!r}",
            hint="It has: " + ", ".join(parts),
        )
    return parts[component]
