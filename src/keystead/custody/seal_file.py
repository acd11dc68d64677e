"""The `file` seal: the sealing key lies in a file beside the data. For development.

Whoever copies file and folder has the keys; ``/ready`` and ``up`` say so. The file is three lines:
a format line, the key in base64url, and a check value that tells damage from a foreign file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from keystead.encoding import b64u_decode, b64u_encode
from keystead.errors import MalformedRequest, StartupError
from keystead.ports import Random

__all__ = ["FileSeal"]

_FORMAT = "keystead file seal v1"
_KEY_BYTES = 32
_PRIVATE_MODE = 0o077


def _check_value(key: bytes | bytearray) -> str:
    return hashlib.sha256(b"keystead/file-seal-check/v1" + key).hexdigest()[:16]


class FileSeal:
    """A sealing key in a file of mode 0600."""

    kind = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self, random: Random) -> None:
        """Write a new sealing key, durably and whole; an existing file is left alone and raises.

        It is written beside its place and linked there: a process that is killed meanwhile leaves
        no half of a seal, which nobody could tell from a damaged one.

        Raises:
            StartupError: the file is there, or cannot be written.
        """
        key = random.bytes(_KEY_BYTES)
        text = f"{_FORMAT}\n{b64u_encode(key)}\n{_check_value(key)}\n"
        beside = self._path.with_name(f"{self._path.name}.new")
        try:
            beside.unlink(missing_ok=True)
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(beside, self._path)
            beside.unlink()
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as exc:
            raise StartupError(
                f"cannot create the seal file {self._path}: {exc.strerror}",
                hint="Give the data folder room and write permission, or name another with --data",
            ) from exc

    def exists(self) -> bool:
        """Whether there is a file at all."""
        return self._path.exists()

    def open(self) -> bytearray:
        """The sealing key.

        Raises:
            StartupError: missing, readable by others, or damaged.
        """
        restore = "Restore it from where you keep its copy; a new one cannot open the keys sealed"
        try:
            if self._path.stat().st_mode & _PRIVATE_MODE:
                raise StartupError(
                    f"the seal file {self._path} is readable by others than its owner",
                    hint=f"Run: chmod 600 {self._path}",
                )
            lines = self._path.read_text("ascii").splitlines()
        except FileNotFoundError as exc:
            raise StartupError(
                f"the seal file {self._path} is missing, and this data folder was sealed with it",
                hint=f"{restore} under the old. Nothing was changed",
            ) from exc
        except (OSError, UnicodeDecodeError) as exc:
            raise StartupError(f"cannot read the seal file {self._path}", hint=restore) from exc
        return self._parse(lines, restore)

    def _parse(self, lines: list[str], restore: str) -> bytearray:
        damaged = StartupError(
            f"the seal file {self._path} is damaged: expected a format line, a key and its check"
            " value, met something else",
            hint=f"{restore} under the old. Nothing was changed",
        )
        if len(lines) != 3 or lines[0] != _FORMAT:  # noqa: PLR2004  the three lines of the format
            raise damaged
        try:
            key = bytearray(b64u_decode(lines[1]))
        except MalformedRequest:
            raise damaged from None
        if len(key) != _KEY_BYTES or _check_value(key) != lines[2]:
            raise damaged
        return key
