"""Reads outside the commit, behind the port ``Registry``, on PostgreSQL.

They are made on the vault's event loop, so none holds it for longer than a second, and none waits
for a connection to be made: that is done by a thread, which is there only meanwhile.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psycopg
from psycopg import errors

from keystead.errors import KeysteadError, LogUnavailable
from keystead.ports import EntryRow, IdempotencyRow, ObjectRow, RecordRow
from keystead.store import statements as sql
from keystead.store.postgres import (
    RETRY_S,
    Session,
    Target,
    connect,
    log_schema,
    quoted,
    unavailable,
)
from keystead.store.sql_registry import SqlRegistry

__all__ = ["PostgresRegistry"]

_READ_S = 1.0
"""How long a read may take, a new connection for it included."""
_MANY_S = 10.0
"""The same of reads of many rows, which are made in threads, or before the loop runs."""


class PostgresRegistry(SqlRegistry):
    """One read-only session, used by one thread at a time; others wait for it, or hear of it.

    ``now_s``: a clock that never goes back.
    """

    def __init__(self, target: Target, now_s: Callable[[], float] = time.monotonic) -> None:
        self._target = target
        self._schema = log_schema(target.node)
        self._now_s = now_s
        self._use = threading.Lock()
        self._changed = threading.Condition()
        self._connecting = False
        self._failed_s = -math.inf
        self._closed = False
        self._session: Session | None = self._connect()

    def close(self) -> None:
        """Close the session, once nobody reads."""
        with self._changed:
            self._closed = True
        with self._use:
            if self._session is not None:
                self._session.end()

    # --- the port ----------------------------------------------------------------------------

    def objects(self) -> Iterable[ObjectRow]:
        """All authority rows."""
        return [ObjectRow(*row) for row in self._read(sql.OBJECTS, (), _MANY_S)]

    def entries_from(self, seq: int, limit: int) -> list[EntryRow]:
        """What the tree is made of, in order."""
        return [EntryRow(*row) for row in self._read(sql.ENTRIES_FROM, (seq, limit), _MANY_S)]

    def records_from(self, seq: int, limit: int) -> list[RecordRow]:
        """Records in order from a sequence on."""
        return [RecordRow(*row) for row in self._read(sql.RECORDS_FROM, (seq, limit), _MANY_S)]

    def idempotent_at_hand(self, scope: str, key: str) -> IdempotencyRow | None:  # noqa: ARG002  a round trip
        """None: the commit decides."""
        return None

    def record_of(self, node: str, seq: int) -> RecordRow | None:
        """One record of a node's log."""
        records = f"{quoted(log_schema(node))}.records"
        statement = f"SELECT {sql.RECORD_COLUMNS} FROM {records} WHERE seq = ?"  # noqa: S608  constants and a quoted name
        try:
            row = self._one(statement, seq)
        except LogUnavailable as exc:
            if isinstance(exc.__cause__, errors.UndefinedTable):
                return None
            raise
        return RecordRow(*row) if row else None

    # --- the session -------------------------------------------------------------------------

    def _all(self, statement: str, values: Sequence[object] = ()) -> Sequence[Any]:
        return self._read(statement, values, _READ_S)

    def _read(self, statement: str, values: Sequence[object], most_s: float) -> Sequence[Any]:
        """All rows; once more on another session if this one was lost while nobody used it."""
        until_s = self._now_s() + most_s
        if not self._use.acquire(timeout=most_s):
            raise unavailable(psycopg.OperationalError("another read does not end"))
        try:
            try:
                return self._ask(statement, values, until_s)
            except psycopg.OperationalError:
                lost = self._session is None or bool(self._session.closed)
                if not lost or self._now_s() >= until_s:
                    raise
            return self._ask(statement, values, until_s)
        except psycopg.Error as exc:
            raise unavailable(exc) from exc
        finally:
            self._use.release()

    def _ask(self, statement: str, values: Sequence[object], until_s: float) -> Sequence[Any]:
        session = self._connected(until_s)
        with session.within(max(until_s - self._now_s(), 0.0)):
            return session.ask(statement, values)

    def _connected(self, until_s: float) -> Session:
        """The session, or one that is made meanwhile.

        Raises:
            LogUnavailable: there is none yet.
        """
        session = self._session
        if session is not None and not session.closed:
            return session
        with self._changed:
            if not self._connecting:
                if self._closed or self._now_s() - self._failed_s < RETRY_S:
                    raise _unconnected()
                self._connecting = True
                threading.Thread(target=self._reconnect, name="registry", daemon=True).start()
                self._changed.wait_for(lambda: not self._connecting, until_s - self._now_s())
            made = self._session
        if made is None or made is session:
            raise _unconnected()
        return made

    def _reconnect(self) -> None:
        session: Session | None = None
        try:
            session = self._connect()
        except (KeysteadError, psycopg.Error):
            pass
        finally:
            with self._changed:
                if session is None:
                    self._failed_s = self._now_s()
                elif self._closed:
                    session.end()
                else:
                    self._session = session
                self._connecting = False
                self._changed.notify_all()

    def _connect(self) -> Session:
        try:
            session, _ = connect(self._target, self._schema, "registry", read_only=True)
        except psycopg.Error as exc:
            raise unavailable(exc) from exc
        return session


def _unconnected() -> LogUnavailable:
    return unavailable(psycopg.OperationalError("there is no connection to the database"))
