"""Versions whose material is open: from first use until their key changes, or room ends."""

from __future__ import annotations

from collections import Counter, OrderedDict

from keystead import limits
from keystead.errors import CustodyUnavailable
from keystead.keys.model import Key, Version
from keystead.ports import Custody, OpenKey, Registry
from keystead.vault.authority import Snapshot

__all__ = ["OpenedKeys"]


class OpenedKeys:
    """A bounded cache over custody; the least recently used version is closed first."""

    def __init__(
        self, custody: Custody, registry: Registry, *, most: int = limits.OPENED_KEYS_MAX
    ) -> None:
        self._custody = custody
        self._registry = registry
        self._most = most
        self._open: OrderedDict[tuple[str, int], tuple[int, OpenKey]] = OrderedDict()
        self._lent: Counter[OpenKey] = Counter()
        self._retired: set[OpenKey] = set()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: Key, version: Version) -> OpenKey:
        """The opened version.

        Raises:
            CustodyUnavailable: there is no material (destroyed), or it does not open.
        """
        at = (key.id, version.number)
        found = self._open.get(at)
        if found is not None and found[0] == key.revision:
            self._open.move_to_end(at)
            return found[1]
        sealed = self._registry.material(key.id, version.number)
        tenant_key = self._registry.tenant_key(key.tenant)
        if sealed is None or tenant_key is None:
            raise CustodyUnavailable(
                f"the material of {key.name} version {version.number} is not in the registry",
                hint="If it was not destroyed on purpose, restore the registry from a backup",
            )
        opened = self._custody.open(key, version, sealed, tenant_key)
        if found is not None:
            self._retire(found[1])
        self._open[at] = (key.revision, opened)
        self._open.move_to_end(at)
        if len(self._open) > self._most:
            _, (_, oldest) = self._open.popitem(last=False)
            self._retire(oldest)
        return opened

    def lend(self, opened: OpenKey) -> None:
        """A thread works with it: it is closed after :meth:`take_back` at the earliest.

        Whether what comes of the work may be released is for the commit to decide, not for this.
        """
        self._lent[opened] += 1

    def take_back(self, opened: OpenKey) -> None:
        """The thread has done."""
        self._lent[opened] -= 1
        if not self._lent[opened]:
            del self._lent[opened]
            if opened in self._retired:
                self._retired.discard(opened)
                opened.close()

    def _retire(self, opened: OpenKey) -> None:
        if self._lent[opened]:
            self._retired.add(opened)
        else:
            opened.close()

    def follow(self, snapshot: Snapshot) -> None:
        """Close what belongs to keys that have changed; they open again if they still may work."""
        for at, (revision, opened) in list(self._open.items()):
            key = snapshot.keys.get(at[0])
            if key is None or key.revision != revision:
                del self._open[at]
                self._retire(opened)

    def close(self) -> None:
        """Close all."""
        for opened in (*(found for _, found in self._open.values()), *self._retired):
            opened.close()
        self._open.clear()
        self._retired.clear()
