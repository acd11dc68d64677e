"""The contracts of journal, log, history and nodes on SQLite; its commits fail in both forms."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keystead import limits
from keystead.store.migrate import migrate_sqlite
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.store.sqlite_search import SqliteLogReader
from keystead.testing.contracts.history import HistoryContract
from keystead.testing.contracts.journal import JournalContract
from keystead.testing.contracts.log import LogContract
from keystead.testing.contracts.nodes import NodesContract


class FailingConnection:
    """Its next COMMIT reports a failing disk: before it was carried out, or after."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self.real = real
        self.applied: bool | None = None

    def execute(self, sql: str, *values: Any) -> object:  # noqa: ANN401  as the driver's
        if sql != "COMMIT" or self.applied is None:
            return self.real.execute(sql, *values)
        applied, self.applied = self.applied, None
        if applied:
            self.real.execute(sql)
        raise sqlite3.OperationalError("disk I/O error")

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever else a connection has
        return getattr(self.real, name)


class SqliteBench:
    def __init__(self, path: Path) -> None:
        migrate_sqlite(path)
        self.path = path
        self._open()

    def _open(self) -> None:
        self.journal = SqliteJournal(self.path)
        self.registry = SqliteRegistry(self.path)
        self.reader = SqliteLogReader(self.path)
        self.connection = FailingConnection(self.journal._connection)  # noqa: SLF001  the seam
        self.journal._connection = self.connection  # type: ignore[assignment]  # noqa: SLF001  the seam

    def reopen(self) -> None:
        """Open what a crash would leave: the files as they are, before anything is closed."""
        crashed = self.path.with_name("crashed-" + self.path.name)
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{crashed}{suffix}")
        self.close()
        self.path = crashed
        self._open()

    def close(self) -> None:
        self.reader.close()
        self.registry.close()
        self.journal.close()

    def fail_next_commit(self, *, applied: bool) -> None:
        self.connection.applied = applied


class TestSqlite(JournalContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self, tmp_path: Path) -> Iterator[None]:
        self.bench = bench = SqliteBench(tmp_path / "registry.db")
        yield
        bench.close()


class TestSqliteLog(LogContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self, tmp_path: Path) -> Iterator[None]:
        self.bench = bench = SqliteBench(tmp_path / "registry.db")
        yield
        bench.close()


class TestSqliteLogIndex(TestSqliteLog):
    """The same where commits fill the index at every other record, three of them at a time."""

    @pytest.fixture(autouse=True)
    def _often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "LOG_INDEX_EVERY", 2)
        monkeypatch.setattr(limits, "LOG_INDEX_ROWS_MAX", 3)


class TestSqliteHistory(HistoryContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self, tmp_path: Path) -> Iterator[None]:
        self.bench = bench = SqliteBench(tmp_path / "registry.db")
        yield
        bench.close()


class TestSqliteNodes(NodesContract):
    """One node, as only one can have the file."""

    @pytest.fixture(autouse=True)
    def _on_the_bench(self, tmp_path: Path) -> Iterator[None]:
        self.bench = bench = SqliteBench(tmp_path / "registry.db")
        yield
        bench.close()
