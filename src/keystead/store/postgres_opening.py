"""Opens all that a node needs of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import msgspec

from keystead.errors import LogUnavailable, StartupError
from keystead.store.postgres import Target
from keystead.store.postgres_journal import PostgresJournal
from keystead.store.postgres_registry import PostgresRegistry
from keystead.store.postgres_search import PostgresLogReader
from keystead.store.postgres_watch import PostgresWatch

__all__ = ["PostgresStore", "open_postgres", "open_postgres_registry"]


class PostgresStore(msgspec.Struct, frozen=True, kw_only=True):
    """A node's sessions; ``closers`` are called in their order."""

    registry: PostgresRegistry
    journal: PostgresJournal
    log_reader: PostgresLogReader
    watch: PostgresWatch
    closers: tuple[Callable[[], None], ...]


def open_postgres(database: str, node: str, *, allow_async_standby: bool) -> PostgresStore:
    """Open them; the journal first, which takes the node's name.

    Raises:
        StartupError: one does not open; what was opened is closed again.
    """
    target = Target(database, node, allow_async_standby)
    with ExitStack() as opened:
        journal = PostgresJournal(target)
        opened.callback(journal.close)
        registry = open_postgres_registry(database, node)
        opened.callback(registry.close)
        try:
            reader = PostgresLogReader(target)
        except LogUnavailable as exc:
            raise StartupError(exc.message, hint=exc.hint) from exc
        opened.pop_all()
    watch = PostgresWatch(target)
    return PostgresStore(
        registry=registry,
        journal=journal,
        log_reader=reader,
        watch=watch,
        closers=(watch.close, reader.close, registry.close, journal.close),
    )


def open_postgres_registry(database: str, node: str) -> PostgresRegistry:
    """Reads only. Nothing is judged durable by it, so standbys do not matter here.

    Raises:
        StartupError: there is no connection, or no log of this node.
    """
    try:
        return PostgresRegistry(Target(database, node, allow_async_standby=True))
    except LogUnavailable as exc:
        raise StartupError(exc.message, hint=exc.hint) from exc
