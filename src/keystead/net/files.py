"""Files that hold a secret: for their owner alone, durable, and never through somebody's link."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["write_private"]

_MODE = 0o600


def write_private(path: Path, text: str) -> None:
    """Write one line to a file of mode 0600, also where a file with another mode is there already.

    Raises:
        OSError: the folder is missing or full, or the path is a symbolic link (open(2) O_NOFOLLOW).
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(path, flags, _MODE)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), _MODE)  # before there is anything to read
        file.truncate()
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
