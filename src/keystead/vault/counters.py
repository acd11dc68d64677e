"""Where each durable counter will stand once what is under way has committed.

A ledger's next entry names the one before it, which may not be committed yet; so the vault frames
on the expected state and the commit compares. If an earlier use fails, those behind it conflict,
and are framed again on the state that did commit.
"""

from __future__ import annotations

from keystead import limits
from keystead.keys.framing.base import CounterStep
from keystead.ports import Registry
from keystead.vault.macs import VaultSecrets

__all__ = ["ExpectedCounters"]


class ExpectedCounters:
    """Expected states by (key id, counter name)."""

    def __init__(self, registry: Registry, secrets: VaultSecrets) -> None:
        self._registry = registry
        self._secrets = secrets
        self._expected: dict[tuple[str, str], bytes | None] = {}

    def get(self, key_id: str, name: str) -> bytes | None:
        """The state a use that is framed now builds on.

        Raises:
            StateRolledBack: the registry's row was altered.
        """
        at = (key_id, name)
        if at not in self._expected:
            if len(self._expected) >= limits.HANDLE_CACHE_MAX:
                self._expected.clear()  # only costs a read; a stale guess would conflict, not harm
            stored = self._registry.counter(key_id, name)
            self._expected[at] = self._secrets.open_counter(key_id, name, stored)
        return self._expected[at]

    def advance(self, key_id: str, step: CounterStep) -> None:
        """A use that takes this step is on its way to the commit."""
        self._expected[key_id, step.name] = step.new

    def forget(self, key_id: str, name: str) -> None:
        """The step did not commit: read the state again."""
        self._expected.pop((key_id, name), None)
