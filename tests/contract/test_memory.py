"""The contracts of journal, log and history on the store in memory."""

import pytest

from keystead.testing.contracts.history import HistoryContract
from keystead.testing.contracts.journal import JournalContract
from keystead.testing.contracts.log import LogContract
from keystead.testing.memory_store import Fault, MemoryStore


class MemoryBench:
    """A store in memory; what survives a crash is its disk."""

    def __init__(self) -> None:
        self.journal = self.registry = self.reader = MemoryStore()

    def reopen(self) -> None:
        self.journal = self.registry = self.reader = MemoryStore(self.journal.disk)

    def fail_next_commit(self, *, applied: bool) -> None:
        self.journal.fail_next(Fault.APPLIED if applied else Fault.NOT_APPLIED)


class TestMemory(JournalContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self) -> None:
        self.bench = MemoryBench()


class TestMemoryLog(LogContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self) -> None:
        self.bench = MemoryBench()


class TestMemoryHistory(HistoryContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self) -> None:
        self.bench = MemoryBench()
