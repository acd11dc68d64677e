"""Opens the store that a node was given: SQLite in a file, or PostgreSQL by a URL.

What is outside this package sees ports only, and never which of the two it is. The driver of
PostgreSQL is loaded where a URL asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from keystead.errors import StartupError
from keystead.ports import EpochWatch, Journal, LogReader, Registry
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.store.sqlite_search import SqliteLogReader

__all__ = [
    "ClosableRegistry",
    "Store",
    "check_database",
    "is_server",
    "migrate",
    "open_registry",
    "open_store",
]


class ClosableRegistry(Registry, Protocol):
    """A registry that its holder closes."""

    def close(self) -> None:
        """End; nothing is read any more."""
        ...


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """What a vault reads and writes by. ``watch``: None where no other node can write.

    ``protection`` says what protects a record once it is answered, for people. ``closers`` are
    called in their order.
    """

    registry: Registry
    journal: Journal
    log_reader: LogReader
    watch: EpochWatch | None = None
    protection: Callable[[], str]
    closers: tuple[Callable[[], None], ...]

    def close(self) -> None:
        """Close all."""
        for close in self.closers:
            close()


def is_server(database: str) -> bool:
    """Whether it is the URL of a database server, and no path."""
    return database.startswith(("postgresql://", "postgres://"))


def check_database(text: str) -> str:
    """A database as it was given: a path, or a URL that holds no password.

    Raises:
        StartupError: the URL does not parse, names no such server, or has a password in it, where
            lists of processes and logs would show it.
    """
    if not is_server(text):
        if "://" in text:
            raise StartupError(
                f"the database {text.partition('://')[0]}:// is none of Keystead's",
                hint="Expected postgresql://[USER@]HOST[:PORT]/NAME, or the path of a SQLite file",
            )
        return text
    from keystead.store.postgres import secret_in  # noqa: PLC0415  as open_store

    if secret_in(text):
        raise StartupError(
            "the database URL holds a password, which lists of processes and logs would show",
            hint="Take it out, and give it by a password file (PGPASSFILE, ~/.pgpass), a service"
            " file, or PGPASSWORD in the environment",
        )
    return text


def open_store(database: str, node: str, *, allow_async_standby: bool = False) -> Store:
    """The store of a node whose schema :func:`migrate` has made.

    Raises:
        StartupError: it cannot be opened, another process writes under this node's name, or the
            server is not what durable needs. ``allow_async_standby`` accepts one of these: standbys
            that may lack the newest records.
    """
    if is_server(database):
        from keystead.store.postgres_opening import open_postgres  # noqa: PLC0415  the driver loads where it is used

        found = open_postgres(database, node, allow_async_standby=allow_async_standby)
        return Store(
            registry=found.registry,
            journal=found.journal,
            log_reader=found.log_reader,
            watch=found.watch,
            protection=found.journal.protection,
            closers=found.closers,
        )
    path = Path(database)
    journal, registry, reader = SqliteJournal(path), SqliteRegistry(path), SqliteLogReader(path)
    return Store(
        registry=registry,
        journal=journal,
        log_reader=reader,
        protection=lambda: "sqlite, synchronous=FULL: a lost disk loses what no backup has",
        # The journal's last: a read-only connection could not checkpoint the log.
        closers=(reader.close, registry.close, journal.close),
    )


def open_registry(database: str, node: str) -> ClosableRegistry:
    """Reads only, for processes beside the vault.

    Raises:
        StartupError: it cannot be opened.
    """
    if is_server(database):
        from keystead.store.postgres_opening import open_postgres_registry  # noqa: PLC0415  as open_store

        return open_postgres_registry(database, node)
    return SqliteRegistry(Path(database))


def migrate(database: str, node: str) -> str:
    """Bring it to this version's schema, and make a node's log in it; gives the revision.

    Raises:
        StartupError: it cannot be opened or changed, or was written by a newer Keystead.
    """
    if is_server(database):
        from keystead.store.postgres_migrate import migrate_postgres  # noqa: PLC0415  only one role loads SQLAlchemy

        return migrate_postgres(database, node)
    from keystead.store.migrate import migrate_sqlite  # noqa: PLC0415  as above

    return migrate_sqlite(Path(database))
