"""What stands against one machine right now, and how often it took effect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from keystead.errors import CustodyUnavailable
from keystead.keys.framing.data import (
    Derive,
    DeriveResult,
    Mac,
    MacResult,
    UnwrapResult,
    WrapResult,
)
from keystead.keys.model import Key, Version
from keystead.ports import Custody, Material, OpenKey
from keystead.testing.faulty_journal import Moment, Step, Trips
from keystead.testing.memory_store import Fault

__all__ = ["Crashed", "Hazards", "SlowCustody", "StepsToLive"]


class Crashed(BaseException):
    """The process is gone at this point: nothing of the vault catches it."""


class Hazards:
    """All times in microseconds of the simulation. ``took``: how often each kind took effect."""

    def __init__(self, took: Counter[str]) -> None:
        self.took = took
        self.heal()

    def heal(self) -> None:
        """Nothing stands against it any more."""
        self.full_until = 0
        self.down_until = 0
        self.deaf_until = 0
        self.slow_until = 0
        self.slow_us = 0
        self.late_until = 0
        self.late_us = 0
        self.applied_fails = 0
        self.contended = 0
        self.steps_to_live = 0

    def commit_fault(self, now_us: int) -> Fault | None:
        """How the commit that begins now fails, if it does."""
        if now_us < self.full_until:
            self.took["disk_full"] += 1
            return Fault.NOT_APPLIED
        if self.applied_fails:
            self.applied_fails -= 1
            self.took["fsync"] += 1
            return Fault.APPLIED
        return None

    def contends(self) -> bool:
        """Whether another node comes between the commit that would be made now."""
        if not self.contended:
            return False
        self.contended -= 1
        self.took["contention"] += 1
        return True


class StepsToLive(Trips):
    """Counts steps of commits down; at the last one the process is gone."""

    def __init__(self, hazards: Hazards) -> None:
        super().__init__()
        self._hazards = hazards

    def at(self, step: Step, moment: Moment) -> None:
        """Pass a step of a commit, or die there."""
        self._hazards.steps_to_live -= 1
        if self._hazards.steps_to_live == 0:
            raise Crashed(f"{moment} {step}")


class SlowCustody:
    """A custody that takes its time, and sometimes gives up: behind the port ``Custody``.

    ``slowly``: called with each signature, it makes the vault wait, or raises.
    """

    def __init__(self, custody: Custody, slowly: Callable[[], None]) -> None:
        self._custody = custody
        self._slowly = slowly

    def new_tenant_key(self, tenant: str) -> bytes:
        return self._custody.new_tenant_key(tenant)

    def generate(self, key: Key, number: int, algorithm: str, tenant_key: bytes) -> Material:
        return self._custody.generate(key, number, algorithm, tenant_key)

    def open(self, key: Key, version: Version, sealed: bytes, tenant_key: bytes) -> OpenKey:
        return _SlowKey(self._custody.open(key, version, sealed, tenant_key), self._slowly)

    def close(self) -> None:
        self._custody.close()


class _SlowKey:
    def __init__(self, opened: OpenKey, slowly: Callable[[], None]) -> None:
        self._opened = opened
        self._slowly = slowly

    def sign(self, message: bytes, *, prehashed: bool) -> tuple[bytes, ...]:
        self._slowly()
        return self._opened.sign(message, prehashed=prehashed)

    def wrap(self, plaintext: bytes, info: bytes, aad: bytes) -> WrapResult:
        self._slowly()
        return self._opened.wrap(plaintext, info, aad)

    def unwrap(self, wrapped: str, info: bytes, aad: bytes) -> UnwrapResult:
        self._slowly()
        return self._opened.unwrap(wrapped, info, aad)

    def derive(self, facts: Derive, info: bytes) -> DeriveResult:
        self._slowly()
        return self._opened.derive(facts, info)

    def mac(self, facts: Mac, info: bytes) -> MacResult:
        self._slowly()
        return self._opened.mac(facts, info)

    def close(self) -> None:
        self._opened.close()


def give_up() -> None:
    """The custody does not answer in time.

    Raises:
        CustodyUnavailable: as a remote one does.
    """
    raise CustodyUnavailable("the custody did not answer in time", hint="Send it again")
