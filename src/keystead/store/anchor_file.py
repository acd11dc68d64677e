"""An anchor on another disk: one file that remembers the log's last checkpoint (I10)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from keystead import limits
from keystead.errors import LogUnavailable

__all__ = ["AnchorFile"]

_MODE = 0o600
_NEW = ".new"


class AnchorFile:
    """Behind the port ``Anchor``. Its folder must be there: a missing mount is not written over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = str(path)

    def read(self) -> bytes | None:
        """What it remembers; None if its folder is there and the file is not.

        Raises:
            LogUnavailable: the folder is missing, or the file cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                return file.read(limits.TILE_FILE_BYTES_MAX)
        except FileNotFoundError:
            if self._path.parent.is_dir():
                return None
            raise LogUnavailable(
                f"the anchor's folder {self._path.parent} is not there", hint="Is its disk mounted?"
            ) from None
        except OSError as exc:
            raise _unavailable(self._path, exc) from exc

    def write(self, note: bytes) -> None:
        """Remember a checkpoint; durable when this returns.

        Raises:
            LogUnavailable: it could not be written; what it remembered before stays.
        """
        new = self._path.with_name(self._path.name + _NEW)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(new, flags, _MODE), "wb") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as exc:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise _unavailable(self._path, exc) from exc


def _unavailable(path: Path, exc: OSError) -> LogUnavailable:
    return LogUnavailable(
        f"the anchor {path} cannot be used: {exc.strerror}",
        hint="Give this user permission and the disk room",
        retry_after_s=1.0,
    )
