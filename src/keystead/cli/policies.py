"""The policy of a new key: options of its purpose, or a file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from keystead.cli.files import read_bytes
from keystead.cli.parsing import duration_s
from keystead.errors import MalformedRequest
from keystead.keys.model import Ack, CaPolicy, FirmwarePolicy, JwtPolicy, Policy, SshCaPolicy
from keystead.keys.purposes import Purpose

__all__ = ["PolicyFlags", "policy_of"]

_PARTS: dict[Purpose, tuple[str, type[msgspec.Struct]]] = {
    Purpose.JWT: ("jwt", JwtPolicy),
    Purpose.FIRMWARE: ("firmware", FirmwarePolicy),
    Purpose.CA: ("ca", CaPolicy),
    Purpose.SSH_CA: ("ssh_ca", SshCaPolicy),
}
_MEMBERS: dict[Purpose, dict[str, str]] = {
    Purpose.JWT: {"issuer": "issuer", "audience": "audiences", "lifetime": "lifetime_max_s"},
    Purpose.FIRMWARE: {"image_name": "names", "step_max": "step_max"},
    Purpose.CA: {
        "common_name": "common_name",
        "dns_suffix": "dns_suffixes",
        "lifetime": "lifetime_max_s",
        "own_lifetime": "own_lifetime_s",
    },
    Purpose.SSH_CA: {
        "ssh_principal": "principals",
        "ssh_type": "types",
        "lifetime": "lifetime_max_s",
    },
}
"""Purpose to its options, and the member of its policy that each sets."""
_OF_ANY = frozenset({"ack", "verify_before_release", "policy_file"})
_POLICY = "Policy, each for keys of its purpose"


@dataclass(frozen=True, kw_only=True)
class PolicyFlags:
    """What a key may do beyond its purpose, one option a member."""

    policy_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The whole policy as JSON, - for stdin.", rich_help_panel=_POLICY
        ),
    ] = None
    ack: Annotated[
        Ack,
        typer.Option(
            help="best_effort, for tls only: answers before its record.", rich_help_panel=_POLICY
        ),
    ] = "durable"
    verify_before_release: Annotated[
        bool,
        typer.Option(
            "--verify-before-release",
            help="Verify each signature before it leaves.",
            rich_help_panel=_POLICY,
        ),
    ] = False
    lifetime: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="jwt, ca, ssh_ca: the longest life of what it signs, such as 30d.",
            rich_help_panel=_POLICY,
        ),
    ] = None
    issuer: Annotated[
        str | None,
        typer.Option(metavar="ISS", help="jwt: the issuer it sets.", rich_help_panel=_POLICY),
    ] = None
    audience: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AUD", help="jwt: an audience it allows; else any.", rich_help_panel=_POLICY
        ),
    ] = None
    image_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="firmware: a name of images it signs.", rich_help_panel=_POLICY
        ),
    ] = None
    step_max: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="firmware: the most a version counter grows.",
            rich_help_panel=_POLICY,
        ),
    ] = None
    common_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="ca: its own subject.", rich_help_panel=_POLICY),
    ] = None
    dns_suffix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN", help="ca: a domain it issues under.", rich_help_panel=_POLICY
        ),
    ] = None
    own_lifetime: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="ca: life of its own certificate.", rich_help_panel=_POLICY
        ),
    ] = None
    ssh_type: Annotated[
        list[str] | None,
        typer.Option(
            metavar="user|host", help="ssh_ca: certificates it issues.", rich_help_panel=_POLICY
        ),
    ] = None
    ssh_principal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="ssh_ca: a login or host it allows.", rich_help_panel=_POLICY
        ),
    ] = None


def policy_of(purpose: Purpose, flags: PolicyFlags) -> Policy:
    """The policy that options or a file stand for.

    Raises:
        BadParameter: an option of another purpose, or one that the purpose needs is missing.
        MalformedRequest: a file that is no policy.
    """
    given = {
        field.name: getattr(flags, field.name)
        for field in fields(flags)
        if getattr(flags, field.name) != field.default
    }
    if flags.policy_file is not None:
        if len(given) > 1:
            raise typer.BadParameter(
                "stands for the whole policy: no other policy option goes with it",
                param_hint="--policy-file",
            )
        return _read(flags.policy_file)
    own = {name: value for name, value in given.items() if name not in _OF_ANY}
    members: dict[str, object] = {
        "ack": flags.ack,
        "verify_before_release": flags.verify_before_release,
        **_part(purpose, own),
    }
    try:
        return msgspec.convert(members, Policy)
    except msgspec.ValidationError as exc:
        raise typer.BadParameter(f"no such policy of a {purpose!s} key: {exc}") from exc


def _read(path: Path) -> Policy:
    try:
        return msgspec.json.decode(read_bytes(path, "--policy-file"), type=Policy)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise MalformedRequest(
            f"{path} is no policy: {exc}", hint="See docs/purposes.md for its members"
        ) from exc


def _part(purpose: Purpose, given: dict[str, object]) -> dict[str, object]:
    """The part of the policy that is the purpose's own, if it has one."""
    members = _MEMBERS.get(purpose, {})
    for name in given:
        if name not in members:
            owners = ", ".join(str(owner) for owner, theirs in _MEMBERS.items() if name in theirs)
            raise typer.BadParameter(
                f"is for {owners} keys, this one is for {purpose!s}", param_hint=_option(name)
            )
    if purpose not in _PARTS:
        return {}
    part, kind = _PARTS[purpose]
    required = {field.encode_name for field in msgspec.structs.fields(kind) if field.required}
    missing = [
        _option(name)
        for name, member in members.items()
        if member in required and name not in given
    ]
    if missing:
        raise typer.BadParameter(
            f"a {purpose!s} key needs {' and '.join(missing)}", param_hint="--purpose"
        )
    return {part: {members[name]: _value(name, value) for name, value in given.items()}}


def _value(name: str, value: object) -> object:
    return duration_s(str(value), _option(name)) if name.endswith("lifetime") else value


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
