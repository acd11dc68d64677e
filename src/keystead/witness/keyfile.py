"""A witness's key in its file: made once, never overwritten, for its owner alone.

The file is four lines: a format line, the witness's name, the Ed25519 private key in base64url, and
a check value that tells damage from a foreign file. The name is in the file because it is part of
who the witness is: under another name the same key would be another witness to everybody.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from keystead.encoding import b64u_decode, b64u_encode
from keystead.errors import MalformedRequest, StartupError

__all__ = ["create_key", "read_key"]

_FORMAT = "keystead witness key v1"
_OTHERS = 0o077
_LINES = 4


def create_key(path: Path, name: str, seed: bytes) -> None:
    """Write a new key, durably and whole; an existing file is left alone and raises.

    It is written beside its place and linked there, as a seal is: a process that is killed
    meanwhile leaves no half of a key.

    Raises:
        StartupError: the file is there, or cannot be written.
    """
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{_FORMAT}\n{name}\n{b64u_encode(seed)}\n{_check_value(name, seed)}\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)
        beside.unlink()
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as exc:
        raise StartupError(
            f"cannot create the witness's key {path}: {exc.strerror}",
            hint="Give the state folder room and write permission, or name another with --state",
        ) from exc


def read_key(path: Path) -> tuple[str, bytes] | None:
    """Name and private key, or nothing where there is no file.

    Raises:
        StartupError: readable by others, or damaged.
    """
    try:
        if path.stat().st_mode & _OTHERS:
            raise StartupError(
                f"the witness's key {path} is readable by others than its owner",
                hint=f"Run: chmod 600 {path}; if others may have read it, start a new witness",
            )
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise StartupError(
            f"cannot read the witness's key {path}", hint="Check its owner and the disk"
        ) from exc
    if len(lines) == _LINES and lines[0] == _FORMAT:
        _, name, encoded, check = lines
        try:
            seed = b64u_decode(encoded)
        except MalformedRequest:
            seed = b""
        if seed and _check_value(name, seed) == check:
            return name, seed
    raise StartupError(
        f"the witness's key {path} is damaged: expected a format line, a name, a key and its check"
        " value, met something else",
        hint="Start a new witness in an empty folder, and give its key to whoever relied on this"
        " one. Nothing was changed",
    )


def _check_value(name: str, seed: bytes) -> str:
    return hashlib.sha256(b"keystead/witness-key-check/v1\n" + name.encode() + seed).hexdigest()[
        :16
    ]
