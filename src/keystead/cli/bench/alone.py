"""`cryptography` by itself: what one core signs when nothing else is asked of it."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from keystead.cli.bench.work import message
from keystead.errors import StartupError

__all__ = ["Alone", "measure_alone"]

_SPARE_S = 30.0
_SCRIPT = """
import sys, time
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
seconds, message = float(sys.argv[1]), bytes.fromhex(sys.argv[2])
sign, scheme = ec.generate_private_key(ec.SECP256R1()).sign, ec.ECDSA(hashes.SHA256())
def run(seconds):
    done, cpu, started = 0, time.process_time(), time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        for _ in range(100):
            sign(message, scheme)
        done += 100
    return done, took, time.process_time() - cpu
run(seconds / 5)
print('{"done":%d,"seconds":%f,"cpu_s":%f}' % run(seconds))
"""
"""Nothing of Keystead is loaded in its process, which is also why this is a text: in this package
only `keystead.crypto` may import `cryptography`."""


class Alone(msgspec.Struct, frozen=True):
    """Signatures in so many seconds, and the CPU they took."""

    done: int
    seconds: float
    cpu_s: float


def measure_alone(seconds: float) -> Alone:
    """Sign on one core for so many seconds, after a fifth of that to warm up.

    Raises:
        StartupError: the process failed.
    """
    command = [sys.executable, "-I", "-c", _SCRIPT, str(seconds), message().hex()]
    try:
        done = subprocess.run(  # noqa: S603  this Python, with a script of our own
            command, capture_output=True, check=True, timeout=2 * seconds + _SPARE_S
        )
        return msgspec.json.decode(done.stdout, type=Alone)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as exc:
        raise StartupError("cryptography by itself could not be measured") from exc
