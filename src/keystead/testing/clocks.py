"""Time and randomness that a test decides: behind the ports ``Clock`` and ``Random``."""

from __future__ import annotations

import hashlib
import threading

__all__ = ["ManualClock", "SeededRandom"]

_START_MS = 1_790_000_000_000
_START_BOOT_MS = 3_600_000


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self, now_ms: int = _START_MS, boottime_ms: int = _START_BOOT_MS) -> None:
        self._now_ms = now_ms
        self._boottime_ms = boottime_ms

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return self._now_ms

    def boottime_ms(self) -> int:
        """Milliseconds since boot."""
        return self._boottime_ms

    def ticks_us(self) -> int:
        """Boot time in microseconds."""
        return self._boottime_ms * 1000

    def advance(self, ms: int) -> None:
        """Let time pass: both clocks go on by ``ms``.

        Raises:
            ValueError: time does not pass backwards; see :meth:`jump`.
        """
        if ms < 0:
            raise ValueError(f"expected time to pass forwards, met {ms} ms")
        self._now_ms += ms
        self._boottime_ms += ms

    def jump(self, ms: int) -> None:
        """Someone sets the wall clock by ``ms``, forwards or back; boot time stays."""
        self._now_ms += ms


class SeededRandom:
    """The same bytes at every run, no two draws alike; thread-safe. For tests only: predictable."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._draws = 0
        self._lock = threading.Lock()

    def bytes(self, count: int) -> bytes:
        """``count`` bytes of SHAKE-256 over seed and number of the draw."""
        with self._lock:
            self._draws += 1
            label = f"keystead/testing/random/{self._seed}/{self._draws}"
        return hashlib.shake_256(label.encode()).digest(count)
