"""What a case may do: give a value or one of Keystead's errors, soon, and within some memory."""

from __future__ import annotations

import gc
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fuzz.choices import Choices
from keystead.errors import InvariantViolation, KeysteadError, SignatureInvalid
from keystead.front.problems import Rejection

__all__ = ["Finding", "Judge", "Target"]

_UNITS_MAX = 2_000.0  # a tenth of a second: what a busy machine takes away is far below
_UNITS_PER_KIB = 10.0
_SLOW_REPLAYS = 3
_PEAK_BYTES = 512 * 1024
_PEAK_PER_BYTE = 64
_TRACED_ONE_IN = 8


class Target(NamedTuple):
    """``make`` gives a hostile input; ``feed`` hands it to the code under test.

    ``size`` is the input's bytes, which the bounds of time and memory are tied to.
    """

    name: str
    make: Callable[[Choices], object]
    feed: Callable[[object], object]
    size: Callable[[object], int]


class Finding(NamedTuple):
    """One case that broke the rule; ``data`` in hex brings it back."""

    target: str
    what: str
    data: str


class Judge:
    """Runs cases, counts their outcomes, keeps what is wrong.

    Time is measured in units: one P-256 verification on this machine, in this process. So the bound
    is the same on a slow or busy machine, and a case that passes it must do so three times more.
    """

    def __init__(self, *, unit_s: float | None = None) -> None:
        self.outcomes: Counter[str] = Counter()
        self.findings: list[Finding] = []
        self.slowest_units: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.cases = 0
        self._unit_s = unit_s or _unit_s()

    def run(self, target: Target, data: bytes) -> None:
        """One case."""
        given = target.make(Choices(data))
        self.cases += 1
        traced = self.cases % _TRACED_ONE_IN == 0
        if traced:
            tracemalloc.start()
        started = time.perf_counter()
        outcome = _outcome(target, given)
        took_s = time.perf_counter() - started
        if traced:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self._weigh(target, given, peak, data)
        else:
            self._time(target, given, took_s, data)
        self.outcomes[f"{target.name}: {outcome.partition(' ')[0]}"] += 1
        if outcome.startswith("!"):
            self.findings.append(Finding(target.name, outcome[1:], data.hex()))

    def _weigh(self, target: Target, given: object, peak: int, data: bytes) -> None:
        self.peaks[target.name] = max(peak, self.peaks.get(target.name, 0))
        most = _PEAK_BYTES + _PEAK_PER_BYTE * target.size(given)
        if peak > most:
            self.findings.append(Finding(target.name, f"{peak} bytes, expected {most}", data.hex()))

    def _time(self, target: Target, given: object, took_s: float, data: bytes) -> None:
        most = _UNITS_MAX + _UNITS_PER_KIB * target.size(given) / 1024
        replays = 0
        while took_s / self._unit_s > most and replays < _SLOW_REPLAYS:
            gc.collect()
            started = time.perf_counter()
            _outcome(target, given)
            took_s = min(took_s, time.perf_counter() - started)
            replays += 1
        units = took_s / self._unit_s
        self.slowest_units[target.name] = max(units, self.slowest_units.get(target.name, 0.0))
        if units > most:
            what = f"as long as {units:.0f} P-256 verifications, expected {most:.0f}"
            self.findings.append(Finding(target.name, what, data.hex()))


def _outcome(target: Target, given: object) -> str:
    """``value``, an error's code, or behind ``!`` what should not be."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pyca warns of odd certificates; it is no fault
            target.feed(given)
    except Rejection as exc:
        return _text_of(exc.error, exc.error.code)
    except InvariantViolation as exc:
        return f"!InvariantViolation: {exc.message}"
    except SignatureInvalid as exc:
        return _text_of(exc, "signature_invalid")
    except KeysteadError as exc:
        return _text_of(exc, exc.code)
    except BaseException as exc:
        if isinstance(exc, KeyboardInterrupt | MemoryError):
            raise
        return f"!{type(exc).__module__}.{type(exc).__name__}: {str(exc)[:200]}"
    return "value"


def _text_of(exc: KeysteadError, code: str) -> str:
    """The code, if the error renders and can be sent: a message with half a character cannot."""
    if not code or not str(exc):
        return f"!{type(exc).__name__} without a code or text"
    try:
        str(exc).encode()
    except UnicodeEncodeError:
        return f"!{type(exc).__name__} with a message that is not valid Unicode"
    return code


def _unit_s() -> float:
    key = ec.derive_private_key(7, ec.SECP256R1())
    scheme = ec.ECDSA(hashes.SHA256())
    signature, public = key.sign(b"unit", scheme), key.public_key()
    best = 1.0
    for _ in range(50):
        started = time.perf_counter()
        public.verify(signature, b"unit", scheme)
        best = min(best, time.perf_counter() - started)
    return best
