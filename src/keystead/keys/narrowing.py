"""Caveats as people and JSON write them: one optional field a caveat type."""

from __future__ import annotations

from typing import Literal

import msgspec

from keystead.encoding import b64u_decode
from keystead.errors import MalformedRequest
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
    check_caveat,
)

__all__ = ["Binding", "Narrowing", "RateLimit", "caveats_of"]


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most ``count`` uses in ``per_s`` seconds."""

    count: int
    per_s: int = 1


class Binding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``value``: base64url of 32 bytes (certificate digest, Ed25519 key), or ``socket:uid``."""

    kind: Literal["certificate", "ed25519", "unix"]
    value: str


class Narrowing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a handle shall be narrowed to; what is left out is not narrowed."""

    operations: tuple[str, ...] | None = None
    context_prefix: str | None = None
    algorithms: tuple[str, ...] | None = None
    versions: tuple[int, ...] | None = None
    not_after_ms: int | None = None
    rate: RateLimit | None = None
    uses: int | None = None
    bound_to: Binding | None = None


def caveats_of(narrowing: Narrowing) -> tuple[Caveat, ...]:
    """The caveats a narrowing stands for, in a fixed order.

    Raises:
        MalformedRequest: a value that no caveat may have.
    """
    found: list[Caveat] = []
    if narrowing.operations is not None:
        found.append(Operations(tuple(sorted(set(narrowing.operations)))))
    if narrowing.context_prefix is not None:
        found.append(ContextPrefix(narrowing.context_prefix))
    if narrowing.algorithms is not None:
        found.append(Algorithms(tuple(sorted(set(narrowing.algorithms)))))
    if narrowing.versions is not None:
        found.append(Versions(tuple(sorted(set(narrowing.versions)))))
    if narrowing.not_after_ms is not None:
        found.append(NotAfter(narrowing.not_after_ms))
    if narrowing.rate is not None:
        found.append(Rate(narrowing.rate.count, narrowing.rate.per_s))
    if narrowing.uses is not None:
        found.append(Uses(narrowing.uses))
    if narrowing.bound_to is not None:
        found.append(_bound(narrowing.bound_to))
    for caveat in found:
        check_caveat(caveat)
    return tuple(found)


def _bound(binding: Binding) -> BoundTo:
    if binding.kind == "unix":
        return BoundTo("unix", binding.value.encode())
    try:
        return BoundTo(binding.kind, b64u_decode(binding.value))
    except MalformedRequest as exc:
        raise MalformedRequest(f"expected {binding.kind} to bind to as base64url") from exc
