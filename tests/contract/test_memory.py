"""The contracts of journal, log, history and nodes on the store in memory."""

import pytest

from keystead.testing.contracts.history import HistoryContract
from keystead.testing.contracts.journal import JournalContract
from keystead.testing.contracts.log import LogContract
from keystead.testing.contracts.nodes import ManyNodesContract, NodesContract
from keystead.testing.memory_store import Fault, MemoryDisk, MemoryStore, MemoryWatch


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


class TestMemoryNodes(NodesContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self) -> None:
        self.bench = MemoryBench()


class MemoryNode:
    def __init__(self, disk: MemoryDisk, name: str) -> None:
        self.journal = self.registry = self.reader = MemoryStore(disk, name)
        self.watch = MemoryWatch(disk)


class MemoryNodesBench:
    def __init__(self) -> None:
        disk = MemoryDisk()
        self.nodes = {name: MemoryNode(disk, name) for name in "ab"}

    def node(self, name: str) -> MemoryNode:
        return self.nodes[name]


class TestMemoryManyNodes(ManyNodesContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self) -> None:
        self.bench = MemoryNodesBench()
