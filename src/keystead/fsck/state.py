"""Where an interrupted run goes on: what it had found, and the tree as far as it had come."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from keystead import limits
from keystead.encoding import DECODE_ERRORS
from keystead.errors import MalformedRequest, StartupError
from keystead.fsck.findings import Findings
from keystead.fsck.records import Named

__all__ = ["State", "load", "save"]

_VERSION = 1
_MODE = 0o600
_NEW = ".new"


class State(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is known of the records before ``size``, a multiple of a stretch.

    ``log``: the verifier key that heads were held to, or empty. ``tiles``: the frontier over full
    tiles. ``levels``: the hashes of the partial tiles of level 1 and up. ``agreed``: the greatest
    signed size whose root was right; ``forked``: a later one's was not.
    """

    version: int = _VERSION
    log: str = ""
    size: int = 0
    tiles: tuple[bytes, ...] = ()
    levels: list[list[bytes]] = []
    epoch: int = 0
    agreed: int = 0
    forked: int = 0
    checkpoints: int = 0
    forgotten: list[tuple[int, int]] = []
    named: list[Named] = []
    findings: Findings = msgspec.field(default_factory=Findings)


def load(path: Path) -> State | None:
    """What an earlier run left; None if it left nothing.

    Raises:
        MalformedRequest: the file is another's: it is not written over.
        StartupError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limits.FSCK_STATE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _unusable(path, exc) from exc
    try:
        state = msgspec.msgpack.decode(data, type=State)
    except DECODE_ERRORS as exc:
        raise MalformedRequest(
            f"expected the state of a run of fsck in {path}, met something else",
            hint="Name another file, or remove it",
        ) from exc
    if state.version != _VERSION:
        raise MalformedRequest(
            f"expected a state of version {_VERSION} in {path}, met {state.version}",
            hint="Remove it, and verify from the first record on",
        )
    return state


def save(path: Path, state: State) -> bool:
    """Keep it, whole or not at all; False if it has become too much to keep.

    Raises:
        StartupError: it cannot be written.
    """
    data = msgspec.msgpack.encode(state)
    if len(data) > limits.FSCK_STATE_BYTES_MAX:
        return False
    new = path.with_name(path.name + _NEW)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(new, flags, _MODE), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as exc:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise _unusable(path, exc) from exc
    return True


def _unusable(path: Path, exc: OSError) -> StartupError:
    return StartupError(
        f"the state {path} cannot be used: {exc.strerror}",
        hint="Name a file in a folder that this user may write",
    )
