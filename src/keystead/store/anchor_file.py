"""An anchor on another disk: one file that remembers the log's last checkpoint (I10)."""

from __future__ import annotations

from pathlib import Path

from keystead import limits
from keystead.errors import LogUnavailable
from keystead.store.durable import replace_file, sync_folder

__all__ = ["AnchorFile"]

_MODE = 0o600


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
        try:
            replace_file(self._path, note, _MODE)
            sync_folder(self._path.parent)
        except OSError as exc:
            raise _unavailable(self._path, exc) from exc


def _unavailable(path: Path, exc: OSError) -> LogUnavailable:
    return LogUnavailable(
        f"the anchor {path} cannot be used: {exc.strerror}",
        hint="Give this user permission and the disk room",
        retry_after_s=1.0,
    )
