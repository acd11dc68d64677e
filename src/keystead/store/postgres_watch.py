"""Behind the port ``EpochWatch``: LISTEN wakes, and the epoch that is then read is the truth."""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Callable

import psycopg

from keystead.errors import KeysteadError, LogUnavailable
from keystead.store import statements as sql
from keystead.store.postgres import RETRY_S, Session, Target, connect, log_schema, unavailable
from keystead.store.postgres_transaction import CHANNEL

__all__ = ["PostgresWatch"]

_READ_S = 2.0


class PostgresWatch:
    """One session, made at the first wait, and again when it is lost. ``now_s``: as the others'."""

    def __init__(self, target: Target, now_s: Callable[[], float] = time.monotonic) -> None:
        self._target = target
        self._schema = log_schema(target.node)
        self._now_s = now_s
        self._session: Session | None = None
        self._failed_s = -math.inf
        self._told = False
        self._lock = threading.Lock()
        self._closed = False
        self._waiting = False
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def wait(self, timeout_s: float) -> int:
        """The epoch as it is committed, once another may have moved it or the time is over.

        Raises:
            LogUnavailable: the database does not answer, or the watch was closed.
        """
        with self._lock:
            self._check_open()
            self._waiting = True
        try:
            return self._wait(timeout_s)
        except psycopg.Error as exc:
            self._failed_s = self._now_s()
            if self._session is not None:
                self._session.end()
            raise unavailable(exc) from exc
        finally:
            with self._lock:
                self._waiting = False
                if self._closed:
                    self._release()

    def close(self) -> None:
        """End, also while another thread waits."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.write(self._wake_write, b"x")
            if not self._waiting:
                self._release()

    def _release(self) -> None:
        if self._session is not None:
            self._session.end()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # --- the waiting thread's ----------------------------------------------------------------

    def _wait(self, timeout_s: float) -> int:
        session = self._session
        if session is None or session.closed:
            session = self._listening()  # what was told before is in the epoch that is read now
        elif not self._told:
            self._poll(session, timeout_s)
        self._told = False
        with session.within(_READ_S):
            rows = session.ask(sql.EPOCH)
        return int(rows[0][0]) if rows else 0

    def _poll(self, session: Session, timeout_s: float) -> None:
        poll = select.poll()
        poll.register(session.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        told = poll.poll(timeout_s * 1_000)
        self._check_open()
        if told:
            with session.within(_READ_S):
                session.execute(b"")  # takes in what came, so that it wakes nobody a second time

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable("the watch was closed", hint="The node is ending")

    def _listening(self) -> Session:
        """A session that is told of each new epoch.

        Raises:
            LogUnavailable: there is none, or the last try failed a moment ago.
        """
        if self._now_s() - self._failed_s < RETRY_S:
            raise unavailable(psycopg.OperationalError("there is no connection to the database"))
        try:
            session, _ = connect(self._target, self._schema, "watch", read_only=True)
        except KeysteadError as exc:
            self._failed_s = self._now_s()
            raise LogUnavailable(exc.message, hint=exc.hint, retry_after_s=1.0) from exc
        self._session = session
        session.add_notify_handler(self._hear)
        with session.within(_READ_S):
            session.execute(f"LISTEN {CHANNEL}".encode())
        return session

    def _hear(self, _notify: psycopg.Notify) -> None:
        """One came in with the answer to something else: the next wait does not begin."""
        self._told = True
