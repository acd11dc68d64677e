"""A process's own log: JSON lines of what happens to it, never of what passes through it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TextIO

import structlog

__all__ = ["configure_logs", "silence"]


def configure_logs(path: str | None) -> None:
    """Log to a file, which is appended to, or to stderr; stdout belongs to the supervisor."""
    stream = sys.stderr if path is None else _opened(path)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )


def _opened(path: str) -> TextIO:
    # Line by line, and for as long as the process lives.
    return Path(path).open("a", encoding="utf-8", buffering=1)


def silence(*names: str) -> None:
    """Take the handlers off other people's loggers: what they say may quote a request."""
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = False
