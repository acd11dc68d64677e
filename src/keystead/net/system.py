"""The machine's clocks and random generator, behind the ports ``Clock`` and ``Random``."""

from __future__ import annotations

import os
import time

__all__ = ["SystemClock", "SystemRandom"]

_NS_PER_MS = 1_000_000
_NS_PER_US = 1_000


class SystemClock:
    """``CLOCK_REALTIME`` for people and expiries, ``CLOCK_BOOTTIME`` for leases."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // _NS_PER_MS

    def boottime_ms(self) -> int:
        """Milliseconds since boot, suspended time counted (clock_gettime(2))."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _NS_PER_MS

    def ticks_us(self) -> int:
        """Microseconds of ``CLOCK_MONOTONIC``."""
        return time.monotonic_ns() // _NS_PER_US


class SystemRandom:
    """getrandom(2), by way of ``os.urandom``."""

    def bytes(self, count: int) -> bytes:
        """``count`` bytes from the kernel's generator."""
        return os.urandom(count)
