"""A process that passes packets on later: it reads a TUN device, waits, and writes them back.

It runs on the router, which sends packets here by a rule. Each line on stdin is a delay in seconds
from now on; each is answered with the number of packets that were passed on so far. Packets keep
their order. It needs nothing but Python, and ends with its stdin.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

__all__ = ["DEVICE", "TUN"]

TUN = "/dev/net/tun"
DEVICE = "relay"
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TUN_NO_PI = 0x0001 | 0x1000
_PACKET_BYTES = 65_536
_HELD_MAX = 20_000
"""Packets on the way; past them they are dropped, as a router's queue does."""


def _open() -> int:
    descriptor = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", DEVICE.encode(), _IFF_TUN_NO_PI))
    return descriptor


def _main() -> None:
    tun, held, passed, delay_s = _open(), deque[tuple[float, bytes]](), 0, 0.0
    while True:
        left_s = max(0.0, held[0][0] - time.monotonic()) if held else None
        ready, _, _ = select.select([tun, sys.stdin], [], [], left_s)
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            delay_s = float(line)
            sys.stdout.write(f"{passed}\n")
            sys.stdout.flush()
        if tun in ready:
            packet = os.read(tun, _PACKET_BYTES)
            if len(held) < _HELD_MAX:
                held.append((time.monotonic() + delay_s, packet))
        while held and held[0][0] <= time.monotonic():
            os.write(tun, held.popleft()[1])
            passed += 1


if __name__ == "__main__":
    _main()
