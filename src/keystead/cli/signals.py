"""Signals as exceptions, for commands that start things and have to end them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["signals_end_quietly"]


@contextmanager
def signals_end_quietly() -> Iterator[None]:
    """Have SIGTERM and SIGINT end the block as an exception does, so that it can clean up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)  # as a shell tells it

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
