"""Where each durable counter will stand once what is under way has committed.

A ledger's next entry names the one before it, which may not be committed yet; so the vault frames
on the expected state and the commit compares. If an earlier use fails, those behind it conflict,
and are framed again on the state that did commit. Only the first of them makes the vault read that
state; the others come behind the use that was framed on it, or each would undo the last one's work.
"""

from __future__ import annotations

from keystead import limits
from keystead.keys.framing.base import CounterStep
from keystead.ports import Registry
from keystead.vault.macs import VaultSecrets

__all__ = ["ExpectedCounters", "uses_of"]


def uses_of(key_id: str, version: int) -> str:
    """What the uses of a version are counted under, where they are."""
    return f"version/{key_id}/{version}"


class ExpectedCounters:
    """Expected states by (key id, counter name)."""

    def __init__(self, registry: Registry, secrets: VaultSecrets) -> None:
        self._registry = registry
        self._secrets = secrets
        self._expected: dict[tuple[str, str], bytes | None] = {}
        self._readings: dict[tuple[str, str], int] = {}
        self._count = 0

    def get(self, key_id: str, name: str) -> bytes | None:
        """The state a use that is framed now builds on.

        Raises:
            StateRolledBack: the registry's row was altered.
        """
        at = (key_id, name)
        if at not in self._expected:
            if len(self._expected) >= limits.HANDLE_CACHE_MAX:
                self._expected.clear()
                self._readings.clear()  # only costs a read; a stale guess would conflict, not harm
            stored = self._registry.counter(key_id, name)
            self._expected[at] = self._secrets.open_counter(key_id, name, stored)
            self._count += 1
            self._readings[at] = self._count
        return self._expected[at]

    def advance(self, key_id: str, step: CounterStep) -> int:
        """A use that takes this step is on its way to the commit; gives the reading behind it."""
        at = (key_id, step.name)
        self._expected[at] = step.new
        return self._readings.get(at, 0)

    def forget(self, key_id: str, name: str, reading: int) -> None:
        """A step did not commit: read the state again, unless that was done since its reading."""
        at = (key_id, name)
        if self._readings.get(at, 0) == reading:
            self._expected.pop(at, None)
            self._readings.pop(at, None)
