"""Opens the store that a node was given: SQLite in a file, or PostgreSQL by a URL."""

from __future__ import annotations

from pathlib import Path

import msgspec

from keystead.errors import StartupError
from keystead.ports import EpochWatch
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.store.sqlite_search import SqliteLogReader

__all__ = ["Store", "check_database", "is_server", "migrate", "open_registry", "open_store"]


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """What a vault reads and writes by."""

    registry: SqliteRegistry
    journal: SqliteJournal
    log_reader: SqliteLogReader
    watch: EpochWatch | None = None

    def protection(self) -> str:
        """How durable it is, for people."""
        return "sqlite, synchronous=FULL"

    def close(self) -> None:
        """Close all."""
        self.log_reader.close()
        self.registry.close()
        self.journal.close()  # last: a read-only connection could not checkpoint the log


def is_server(database: str) -> bool:
    """Whether it is a database server's."""
    return database.startswith(("postgresql://", "postgres://"))


def check_database(text: str) -> str:
    """A URL without a password, or a path."""
    if is_server(text):
        raise StartupError("not yet")
    return text


def open_store(database: str, node: str, *, allow_async_standby: bool = False) -> Store:
    """Open it."""
    del node, allow_async_standby
    path = Path(database)
    return Store(
        registry=SqliteRegistry(path),
        journal=SqliteJournal(path),
        log_reader=SqliteLogReader(path),
    )


def open_registry(database: str, node: str) -> SqliteRegistry:
    """Read only."""
    del node
    return SqliteRegistry(Path(database))


def migrate(database: str, node: str) -> str:
    """Bring it to this version's schema."""
    del node
    from keystead.store.migrate import migrate_sqlite  # noqa: PLC0415  only one role loads SQLAlchemy

    return migrate_sqlite(Path(database))
