"""What does not fit: where exactly, what was expected there and what was met, what it means."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from keystead import limits

__all__ = ["Finding", "Findings", "differs", "shown"]

_VALUE_CHARS = 48


class Finding(msgspec.Struct, frozen=True):
    """One place that does not fit. ``place`` names row and column, or file and index."""

    place: str
    expected: str
    met: str
    means: str


class Findings(msgspec.Struct):
    """The first of them in full, all of them counted."""

    total: int = 0
    kept: list[Finding] = []

    def add(self, found: Iterable[Finding]) -> None:
        """Take some more."""
        for finding in found:
            self.total += 1
            if len(self.kept) < limits.FSCK_FINDINGS_MAX:
                self.kept.append(finding)


def shown(value: object) -> str:
    """A value as a finding may show it: short, bytes in hex."""
    match value:
        case None:
            return "nothing"
        case bytes():
            text = f"{len(value)} bytes {value.hex()}"
        case str():
            text = ascii(value)
        case _:
            text = str(value)
    return text if len(text) <= _VALUE_CHARS else f"{text[:_VALUE_CHARS]}..."


def differs(place: str, expected: object, met: object, means: str) -> Finding:
    """A finding of two values."""
    return Finding(place, shown(expected), shown(met), means)
