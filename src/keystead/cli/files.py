"""Files in and out: inputs by name or ``-``, outputs that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

__all__ = ["STDIN_OR_STDOUT", "destination", "read_bytes", "read_text"]

STDIN_OR_STDOUT = Path("-")
"""What stands for stdin where a file is read, and for stdout where one is written."""
_PUBLIC_MODE = 0o666
_PRIVATE_MODE = 0o600


def read_bytes(path: Path, option: str) -> bytes:
    """The bytes of a file, or of stdin for ``-``.

    Raises:
        BadParameter: it cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if path == STDIN_OR_STDOUT else path.read_bytes()
    except OSError as exc:
        raise typer.BadParameter(f"cannot read {path}: {exc.strerror}", param_hint=option) from exc


def read_text(path: Path, option: str) -> str:
    """The text of a file in UTF-8, or of stdin for ``-``.

    Raises:
        BadParameter: it cannot be read, or is no text.
    """
    try:
        return read_bytes(path, option).decode()
    except UnicodeDecodeError as exc:
        raise typer.BadParameter(f"expected text in {path}", param_hint=option) from exc


@contextmanager
def destination(path: Path | None, *, private: bool = False) -> Iterator[Callable[[bytes], object]]:
    """Where a result goes: a file that takes its place whole at the end, or stdout for ``None``.

    The place is made before the node is asked, so that no result is lost for want of one.
    ``private``: mode 0600, for tokens, plaintext and secrets.

    Raises:
        BadParameter: nothing can be written there.
    """
    if path is None:
        yield _write_stdout
        return
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as exc:
        raise typer.BadParameter(
            f"cannot write {path}: {exc.strerror}", param_hint="--out"
        ) from exc
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file.write
            file.flush()
            os.fchmod(file.fileno(), _PRIVATE_MODE if private else _PUBLIC_MODE & ~_umask())
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def _write_stdout(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
