"""The contracts of journal, log, history and nodes on PostgreSQL; commits fail in both forms."""

from collections.abc import Iterator, Sequence

import psycopg
import pytest

from keystead.store.postgres import Target
from keystead.store.postgres_journal import PostgresJournal
from keystead.store.postgres_registry import PostgresRegistry
from keystead.store.postgres_search import PostgresLogReader
from keystead.store.postgres_transaction import Call, Result
from keystead.store.postgres_watch import PostgresWatch
from keystead.testing.contracts.history import HistoryContract
from keystead.testing.contracts.journal import JournalContract
from keystead.testing.contracts.log import LogContract
from keystead.testing.contracts.nodes import ManyNodesContract, NodesContract
from postgres import PostgresServer


class FailingJournal(PostgresJournal):
    """Its next COMMIT breaks the session: before the server has it, or after it was carried out."""

    applied: bool | None = None

    def _send(self, calls: Sequence[Call]) -> list[Result]:
        if self.applied is None or calls[-1].statement != b"COMMIT":
            return super()._send(calls)
        applied, self.applied = self.applied, None
        results = super()._send(calls if applied else calls[:-1])
        if self._session is not None:
            self._session.close()
        del results
        raise psycopg.OperationalError("the connection broke")


class PostgresBench:
    def __init__(self, url: str, node: str = "a") -> None:
        self.target = Target(url, node)
        self.watch = PostgresWatch(self.target)
        self._open()

    def _open(self) -> None:
        self.journal = FailingJournal(self.target)
        self.registry = PostgresRegistry(self.target)
        self.reader = PostgresLogReader(self.target)

    def reopen(self) -> None:
        """What a crash leaves is on the server; the process that crashed let go of its sessions."""
        self.close()
        self.watch = PostgresWatch(self.target)
        self._open()

    def close(self) -> None:
        self.watch.close()
        self.reader.close()
        self.registry.close()
        self.journal.close()

    def fail_next_commit(self, *, applied: bool) -> None:
        self.journal.applied = applied


class PostgresNodesBench:
    def __init__(self, url: str) -> None:
        self.nodes = {name: PostgresBench(url, name) for name in "ab"}

    def node(self, name: str) -> PostgresBench:
        return self.nodes[name]

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    made = postgres.migrated("a", "b")
    yield made
    postgres.drop(made)


@pytest.fixture
def bench(url: str) -> Iterator[PostgresBench]:
    made = PostgresBench(url)
    yield made
    made.close()


class TestPostgres(JournalContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self, bench: PostgresBench) -> None:
        self.bench = bench


class TestPostgresLog(LogContract):
    scrubs = False

    @pytest.fixture(autouse=True)
    def _on_the_bench(self, bench: PostgresBench) -> None:
        self.bench = bench


class TestPostgresHistory(HistoryContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self, bench: PostgresBench) -> None:
        self.bench = bench


class TestPostgresNodes(NodesContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self, bench: PostgresBench) -> None:
        self.bench = bench


class TestPostgresManyNodes(ManyNodesContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self, url: str) -> Iterator[None]:
        self.bench = bench = PostgresNodesBench(url)
        yield
        bench.close()
