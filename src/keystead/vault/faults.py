"""A fault of Keystead's own: the log tells where it was, never with which values."""

from __future__ import annotations

import traceback

import structlog

from keystead.errors import InvariantViolation

__all__ = ["fault"]

_log = structlog.get_logger("keystead.vault")


def fault(exc: Exception) -> InvariantViolation:
    """The error for the caller; the log gets the exception's type and frames, not its message."""
    frames = traceback.extract_tb(exc.__traceback__)
    _log.error(
        "fault",
        kind=type(exc).__name__,
        at=[f"{frame.filename.rpartition('/keystead/')[2]}:{frame.lineno}" for frame in frames],
    )
    return InvariantViolation(
        f"the vault failed: {type(exc).__name__}", hint="Its log says where; please report it"
    )
