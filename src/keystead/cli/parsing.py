"""How people write durations, rates, bindings and pairs on a command line."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Literal

import typer

from keystead.cli.files import read_bytes
from keystead.encoding import b64u_encode
from keystead.keys.narrowing import Binding, RateLimit

__all__ = ["binding", "duration_s", "hex_bytes", "instant_ms", "pairs", "rate", "version_number"]

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_DURATION = re.compile(r"(?:\d{1,12}[smhdw])+\Z|\d{1,12}\Z", re.ASCII)
_PART = re.compile(r"(\d+)([smhdw]?)", re.ASCII)
_RATE = re.compile(r"(\d{1,10})(?:/(.+))?\Z", re.ASCII)
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}:?)+\Z")


def duration_s(text: str, option: str) -> int:
    """Seconds of ``15m``, ``1h30m``, ``30d`` or a bare number of seconds.

    Raises:
        BadParameter: none of these.
    """
    if not _DURATION.match(text):
        raise typer.BadParameter(
            f"expected a time such as 90s, 15m, 1h30m or 30d, met {text!r}", param_hint=option
        )
    return sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(text))


def instant_ms(text: str, option: str, now_ms: int) -> int:
    """Unix milliseconds of ``2h`` or ``3d`` (so long ago), or of a time as RFC 3339 writes it.

    Raises:
        BadParameter: neither, or a time without its offset from UTC.
    """
    if _DURATION.match(text):
        return max(now_ms - duration_s(text, option) * 1000, 0)
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return max(int(found.timestamp() * 1000), 0)
    except (ValueError, OverflowError):
        pass
    raise typer.BadParameter(
        f"expected a time such as 2h, 3d or 2026-11-03T14:00:00Z, met {text!r}", param_hint=option
    )


def rate(text: str, option: str) -> RateLimit:
    """``100/60s``: at most so many uses in that time; ``100`` is in one second.

    Raises:
        BadParameter: none of these.
    """
    found = _RATE.match(text)
    if found is None:
        raise typer.BadParameter(
            f"expected a rate such as 100/60s, met {text!r}", param_hint=option
        )
    per = found[2]
    return RateLimit(
        count=int(found[1]), per_s=1 if per is None else duration_s(per.lstrip("/"), option)
    )


def hex_bytes(text: str, option: str) -> bytes:
    """The bytes of hex digits, with or without colons between them.

    Raises:
        BadParameter: other characters.
    """
    if not _HEX.match(text):
        raise typer.BadParameter(f"expected hex digits, met {text[:80]!r}", param_hint=option)
    return bytes.fromhex(text.replace(":", ""))


def binding(text: str, option: str) -> Binding:
    """``ed25519:VALUE``, ``certificate:VALUE`` or ``unix:SOCKET:UID``.

    A value is 32 bytes in base64url or hex, or ``@FILE``: the public key or certificate as PEM.

    Raises:
        BadParameter: none of these, or a file that cannot be read.
        MalformedRequest: a file that holds something else.
    """
    kind, _, value = text.partition(":")
    match kind:
        case "unix" if value:
            return Binding(kind="unix", value=value)
        case "ed25519" | "certificate" if value:
            return _key_binding(kind, value, option)
        case _:
            raise typer.BadParameter(
                f"expected ed25519:, certificate: or unix: and a value, met {text[:80]!r}",
                param_hint=option,
            )


def _key_binding(kind: Literal["ed25519", "certificate"], value: str, option: str) -> Binding:
    if value.startswith("@"):
        from keystead.crypto import proofkey  # noqa: PLC0415  only a PEM file needs it

        read = proofkey.ed25519_raw if kind == "ed25519" else proofkey.certificate_digest
        value = b64u_encode(read(read_bytes(Path(value[1:]), option)))
    elif _HEX.match(value) and len(value.replace(":", "")) == 64:  # noqa: PLR2004  32 bytes in hex
        value = b64u_encode(hex_bytes(value, option))
    return Binding(kind=kind, value=value)


def pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """``name=value`` of each text.

    Raises:
        BadParameter: no ``=``, or a name twice.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name or name in found:
            raise typer.BadParameter(
                f"expected name=value, each name once, met {text!r}", param_hint=option
            )
        found[name] = value
    return found


def version_number(text: str, option: str) -> int | None:
    """A version's number, or ``None`` for ``all``.

    Raises:
        BadParameter: neither.
    """
    if text == "all":
        return None
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise typer.BadParameter(
            f"expected a version's number, or all, met {text!r}", param_hint=option
        )
    return int(text)
