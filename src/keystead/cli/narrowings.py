"""Narrowings of a handle: from options, and into words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import typer

from keystead.cli.parsing import binding, duration_s, rate
from keystead.cli.show import instant
from keystead.encoding import b64u_encode
from keystead.keys.caveats import (
    Algorithms,
    BoundTo,
    Caveat,
    ContextPrefix,
    NotAfter,
    Operations,
    Rate,
    Uses,
    Versions,
)
from keystead.keys.narrowing import Narrowing

__all__ = ["NarrowingFlags", "caveat_facts", "caveat_words"]

_NARROW = "Narrowing, each only ever narrows"


@dataclass(frozen=True, kw_only=True)
class NarrowingFlags:
    """What a handle is narrowed to; what is left out is not narrowed."""

    operation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only this operation; repeat it.", rich_help_panel=_NARROW
        ),
    ] = None
    ttl: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Only for so long, such as 15m.", rich_help_panel=_NARROW
        ),
    ] = None
    context_prefix: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Only this context, and those below.", rich_help_panel=_NARROW
        ),
    ] = None
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only this algorithm; repeat it.", rich_help_panel=_NARROW
        ),
    ] = None
    version: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N", help="Only this key version; repeat it.", rich_help_panel=_NARROW
        ),
    ] = None
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="COUNT/TIME", help="At most, such as 100/60s.", rich_help_panel=_NARROW
        ),
    ] = None
    uses: Annotated[
        int | None,
        typer.Option(metavar="N", help="At most so many uses, ever.", rich_help_panel=_NARROW),
    ] = None
    bind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:VALUE",
            help="Only with proof of possession: ed25519:VALUE or certificate:VALUE (base64url, hex"
            " or @FILE in PEM), or unix:SOCKET:UID.",
            rich_help_panel=_NARROW,
        ),
    ] = None

    @property
    def ttl_s(self) -> int | None:
        """Seconds it shall live.

        Raises:
            BadParameter: no duration.
        """
        return None if self.ttl is None else duration_s(self.ttl, "--ttl")

    def narrowing(self, **members: Any) -> Narrowing:  # noqa: ANN401  a Narrowing's own members
        """The narrowing but for operations and time, which ``members`` may hold.

        Raises:
            BadParameter: a value that does not parse.
            MalformedRequest: a file to bind to that holds something else.
        """
        return Narrowing(
            context_prefix=self.context_prefix,
            algorithms=None if self.algorithm is None else tuple(self.algorithm),
            versions=None if self.version is None else tuple(self.version),
            rate=None if self.rate is None else rate(self.rate, "--rate"),
            uses=self.uses,
            bound_to=None if self.bind is None else binding(self.bind, "--bind"),
            **members,
        )


def caveat_words(caveat: Caveat, now_ms: int) -> str:  # noqa: PLR0911  one a caveat
    """What a caveat allows, as people say it; ``now_ms`` tells whether a time has passed."""
    match caveat:
        case Operations(names):
            return f"only to {' or '.join(names)}"
        case ContextPrefix(prefix):
            return f"only in {prefix} and below"
        case Algorithms(names):
            return f"only with {' or '.join(names)}"
        case Versions(numbers):
            return f"only key version {' or '.join(map(str, numbers))}"
        case NotAfter(instant_ms):
            passed = ", which has passed" if instant_ms < now_ms else ""
            return f"not after {instant(instant_ms)}{passed}"
        case Rate(count, per_s):
            return f"at most {count} uses in {per_s} s on each node"
        case Uses(count):
            return f"at most {count} uses ever, with all its children"
        case BoundTo(kind, value):
            return f"only for whoever proves to be {kind} {_peer(kind, value)}"


def caveat_facts(caveat: Caveat, now_ms: int) -> dict[str, object]:
    """A caveat for programs: its type, its fields, and the words."""
    fields = msgspec.structs.asdict(caveat)
    if isinstance(caveat, BoundTo):
        fields["value"] = _peer(caveat.kind, caveat.value)
    kind = caveat.__struct_config__.tag
    return {"type": kind, **fields, "words": caveat_words(caveat, now_ms)}


def _peer(kind: str, value: bytes) -> str:
    return value.decode(errors="replace") if kind == "unix" else b64u_encode(value)
