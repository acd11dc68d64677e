"""Hostile values out of plain bytes, so that random, Hypothesis and atheris can all drive them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

__all__ = ["INTEGERS", "TEXTS", "Choices", "mutate"]

_T = TypeVar("_T")

INTEGERS: Final = (
    *(0, 1, -1, 2, 31, 32, 127, 128, 255, 256, 65_535, 65_536),
    *(2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53, 2**53 + 1),
    *(2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 10**400),
    *(-(2**31), -(2**63), -(2**63) - 1, -(10**30)),
)
"""The edges of what fits 1, 2, 4 and 8 bytes, a double, a database's integer, and nothing."""
TEXTS: Final = (
    *("", "a", "web", "web/eu", "0", " ", "\0", "a\nb", "\x7f", "*", ".", "..", "/", "a//b"),
    *("\xe9", "\u202e", "\U0001f511", "\ud800", "\udfff", "'\";--", "%s", "{}", "${a}", "\\"),
    *("x" * 65, "x" * 257, "x" * 5_000, "a/" * 13 + "a", "ks1.", "kso1.", "ksw1.", "-----BEGIN"),
)
"""Text that parsers, shells, databases and terminals read differently; lone surrogates too."""


class Choices:
    """Decisions that are read off ``data``; past its end all are the first, the harmless one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def below(self, bound: int) -> int:
        """A number from 0, below ``bound``."""
        width = (bound - 1).bit_length() // 8 + 1
        return int.from_bytes(self.take(width), "big") % bound

    def take(self, count: int) -> bytes:
        """So many bytes, or what is left of them."""
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece

    def rarely(self, out_of: int) -> bool:
        """True once in ``out_of`` times."""
        return self.below(out_of) == out_of - 1

    def pick(self, items: Sequence[_T]) -> _T:
        """One of them."""
        return items[self.below(len(items))]

    def integer(self) -> int:
        """A number, mostly a small one, else an edge."""
        return self.below(8) if not self.rarely(3) else self.pick(INTEGERS)

    def text(self) -> str:
        """A text, mostly one of those that somebody reads differently."""
        if self.rarely(4):
            return self.take(self.below(40)).decode("latin-1")
        return self.pick(TEXTS)

    def blob(self, most: int = 64) -> bytes:
        """Bytes, rarely many."""
        if self.rarely(32):
            return self.take(8) * self.below(2_000)
        return self.take(self.below(most + 1))


def mutate(choices: Choices, seed: bytes) -> bytes:
    """``seed`` with a few edits: bits, bytes, lengths, pieces taken out, put in, or doubled."""
    data = bytearray(seed)
    for _ in range(choices.below(6)):
        at = choices.below(len(data) + 1)
        match choices.below(8):
            case 0 if at < len(data):
                data[at] ^= 1 << choices.below(8)
            case 1 if at < len(data):
                data[at] = choices.pick((0x00, 0x01, 0x7F, 0x80, 0xC1, 0xDC, 0xDF, 0xFF))
            case 2:
                data[at:at] = choices.blob(16)
            case 3:
                del data[at : at + choices.below(16)]
            case 4:
                data[at:at] = data[at : at + choices.below(200)]
            case 5:
                del data[at:]
            case 6:
                data[at : at + 4] = choices.integer().to_bytes(200, "big", signed=True)[-4:]
            case _:
                data[at : at + 1] = choices.text().encode(errors="surrogatepass")
    return bytes(data)
