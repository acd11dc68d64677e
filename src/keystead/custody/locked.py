"""Buffers for secrets: locked into memory while they are in use, overwritten when they are not."""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import NoReturn, Self

__all__ = ["LockedBuffer", "wipe"]

_libc = ctypes.CDLL(None, use_errno=True)


def wipe(buffer: bytearray) -> None:
    """Overwrite a buffer with zeros, in place."""
    ctypes.memset((ctypes.c_char * len(buffer)).from_buffer(buffer), 0, len(buffer))


class LockedBuffer:
    """Fixed-size bytes that are mlock(2)ed where the kernel allows it, and wiped at the end.

    ``locked`` tells whether it is. The vault's process locks all its memory at start where it may;
    this covers the secrets themselves where it may not.
    """

    __slots__ = ("_view", "data", "locked")

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self._view = (ctypes.c_char * size).from_buffer(self.data)  # pins it: no resize, no move
        self.locked: bool = _libc.mlock(ctypes.byref(self._view), ctypes.c_size_t(size)) == 0

    @classmethod
    def take(cls, source: bytearray) -> Self:
        """Move a secret in; the source is wiped."""
        buffer = cls(len(source))
        buffer.data[:] = source
        wipe(source)
        return buffer

    def wipe(self) -> None:
        """Overwrite, and leave the memory locked: neighbours on the page may still need it."""
        ctypes.memset(self._view, 0, len(self.data))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wipe()

    def __del__(self) -> None:
        self.wipe()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<LockedBuffer of {len(self.data)} bytes>"
