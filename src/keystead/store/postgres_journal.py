"""The one writer of its node, behind the port ``Journal``, on PostgreSQL.

The fence of design section 7 is a lock on a name (an advisory lock): a commit that may change
authority takes it alone, every other one beside others. It is taken in a statement of its own, so
that each later one, READ COMMITTED, sees what was committed before; the server lets go of it after
the commit can be seen, and has whoever asks later wait behind a change that waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from keystead.errors import (
    CommitContended,
    Conflict,
    KeysteadError,
    LogUnavailable,
    StartupError,
    StateRolledBack,
)
from keystead.ports import Fence, Transaction
from keystead.store import statements as sql
from keystead.store.postgres import (
    COMMIT_S,
    IDLE_IN_TRANSACTION_S,
    RETRY_S,
    SCHEMA,
    Session,
    Target,
    bound,
    connect,
    log_schema,
    unavailable,
)
from keystead.store.postgres_terms import FACTS, ServerFacts, judged, protection
from keystead.store.postgres_transaction import Call, PostgresTransaction, Result

__all__ = ["PostgresJournal"]

_FENCE = f"hashtextextended('{SCHEMA} fence', 0)"
_TAKE_FENCE: dict[Fence, bytes] = {
    "shared": f"SELECT pg_advisory_xact_lock_shared({_FENCE})".encode(),
    "exclusive": f"SELECT pg_advisory_xact_lock({_FENCE})".encode(),
}
_END_SLEEPERS = bound(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Client'"  # noqa: S608  constants, values are bound
    " AND xact_start < clock_timestamp() - make_interval(secs => ?) AND pid IN (SELECT pid"
    " FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    f" AND (classid::bigint << 32) + objid::bigint = {_FENCE})"
)
"""Ends sessions that hold the fence while they wait for a client that sends nothing. The server's
own limit (``idle_in_transaction_session_timeout``) does not see one that fell asleep as it sent."""
_NODE_LOCK = bound(f"SELECT pg_try_advisory_lock(hashtextextended('{SCHEMA} node ' || ?, 0))")
_FIRST_LOCK_S, _LATER_LOCK_S, _LOCK_POLL_S = 5.0, 2.0, 0.05
"""How long this node's name is waited for: a session of the process before may be about to end."""
_TERMS_S = 5.0
"""How often a commit also looks whether the server still is what durable needs."""
_COUNTED_MAX = 20_000
_CLEAN_UP_S = 1.0


class PostgresJournal:
    """One session, one thread. ``now_s``: a clock that never goes back."""

    def __init__(self, target: Target, now_s: Callable[[], float] = time.monotonic) -> None:
        self._target = target
        self._schema = log_schema(target.node)
        self._now_s = now_s
        self._counted: set[str] = set()
        self._last_seq = -1
        self._anew = False
        self._failed_s = -math.inf
        self._session: Session | None = None
        self._warned = ""
        self._facts: ServerFacts
        self._looked_s = 0.0
        try:
            self._session = self._connect(_FIRST_LOCK_S)
        except psycopg.Error as exc:
            raise _cannot_open(exc) from exc
        if self._session is None:
            raise StartupError(
                f"another node named {target.node} writes to this database",
                hint="Give this one another name with --node, or stop the other first",
            )

    def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            self._session.end()

    def protection(self) -> str:
        """What a record is protected by, as the server said it last."""
        return protection(self._facts)

    @contextmanager
    def transaction(self, fence: Fence = "exclusive") -> Iterator[Transaction]:
        """One commit, durable when the block has ended. It begins with its first read or write.

        Raises:
            CommitContended: another node's commit came between; nothing was applied.
            Conflict: an object is not what it was thought to be; nothing was applied.
            LogUnavailable: the database failed, or does not answer.
        """

        def begin(calls: Sequence[Call]) -> list[Result]:
            return self._begin(fence, calls)

        tx = PostgresTransaction(begin, self._send, self._counted)
        try:
            yield tx
            tx.finish()
            self._check_replicated()
            self._last_seq = max(self._last_seq, tx.appended_to)
        except psycopg.Error as exc:
            self._abandon()
            raise _error(exc) from exc
        except BaseException:
            self._abandon()
            raise
        if len(self._counted) > _COUNTED_MAX:
            self._counted.clear()

    # --- one transaction ---------------------------------------------------------------------

    def _begin(self, fence: Fence, calls: Sequence[Call]) -> list[Result]:
        """Begin, take the fence, and run the first calls: one round trip.

        Nothing was done yet, so it is done anew on another session if this one was lost, and after
        the fence's sleeping holders were ended.
        """
        session = self._connected()
        session.deadline = self._now_s() + COMMIT_S
        try:
            return self._try_begin(fence, calls)
        except errors.LockNotAvailable:
            self._end_sleepers(session)
        except psycopg.OperationalError:
            if not session.closed or self._failed_s > self._now_s() - RETRY_S:
                raise
            self._connected().deadline = session.deadline
        return self._try_begin(fence, calls)

    def _try_begin(self, fence: Fence, calls: Sequence[Call]) -> list[Result]:
        looks = self._now_s() - self._looked_s >= _TERMS_S
        first = [Call(b"BEGIN"), Call(_TAKE_FENCE[fence])]
        if looks:
            first.append(Call(FACTS.encode()))
        if self._anew:
            first.append(Call(sql.LAST_SEQUENCE.encode()))
        results = self._send([*first, *calls])
        if self._anew:
            self._check_kept(int(results[len(first) - 1].rows[0][0]))
        if looks:
            self._look(ServerFacts(*results[2].rows[0]))
        return results[len(first) :]

    def _check_kept(self, last_seq: int) -> None:
        """A server that was reached anew may be another one, which never had the last records.

        Raises:
            StateRolledBack: it lacks what was answered already.
        """
        if last_seq < self._last_seq:
            raise StateRolledBack(
                f"the database's log of {self._target.node} ends at record {last_seq}, and record"
                f" {self._last_seq} was made durable in it: an older copy took its place",
                hint="It may be a standby that was behind. Stop the nodes, and restore the"
                " database that was there",
            )
        self._anew = False

    def _look(self, facts: ServerFacts) -> None:
        try:
            judged(facts, allow_async_standby=self._target.allow_async_standby)
        except StartupError as exc:
            raise LogUnavailable(exc.message, hint=exc.hint, retry_after_s=5.0) from exc
        self._facts, self._looked_s = facts, self._now_s()

    def _end_sleepers(self, session: Session) -> None:
        self._roll_back(session)
        session.execute(_END_SLEEPERS, (float(IDLE_IN_TRANSACTION_S),))

    def _send(self, calls: Sequence[Call]) -> list[Result]:
        """One round trip. It ends with a Sync, so that a session that is left alone now is idle."""
        session = self._session
        if session is None or session.closed:
            raise psycopg.OperationalError("the session is lost")
        self._warned = ""  # what was said before, also by a session that was lost, is not of this
        with session.pipeline():
            cursors = [session.execute(call.statement, call.values, binary=True) for call in calls]
        return [
            Result(
                cursor.fetchall() if cursor.description else [],
                cursor.rowcount,
                cursor.statusmessage or "",
            )
            for cursor in cursors
        ]

    def _check_replicated(self) -> None:
        """A commit whose wait for a standby was cancelled on the server says COMMIT all the same.

        Raises:
            LogUnavailable: this one did, by a warning (``SyncRepWaitForLSN`` in its ``syncrep.c``).
        """
        if self._warned:
            raise LogUnavailable(
                f"the record may be on one server only ({self._warned})",
                hint="Look at the standbys; then send it again, under the same idempotency key",
                retry_after_s=1.0,
            )

    def _warn(self, said: psycopg.errors.Diagnostic) -> None:
        if said.severity_nonlocalized == "WARNING":
            self._warned = said.message_primary or "a warning"

    def _abandon(self) -> None:
        self._counted.clear()
        session = self._session
        if session is None:
            return
        if session.closed:
            if session.deadline <= self._now_s():
                self._failed_s = self._now_s()
            self._session = None  # else each refusal until the next try would put that off again
            return
        self._roll_back(session)

    def _roll_back(self, session: Session) -> None:
        """Where even that fails the session is closed, and the server rolls back."""
        if session.pgconn.transaction_status == TransactionStatus.IDLE:
            return
        try:
            with session.within(_CLEAN_UP_S):
                session.execute(b"ROLLBACK")
        except psycopg.Error:
            session.end()

    # --- the session -------------------------------------------------------------------------

    def _connected(self) -> Session:
        """The session, made again if it was lost.

        Raises:
            LogUnavailable: there is none, or this node's name is still another's.
        """
        if self._session is not None and not self._session.closed:
            return self._session
        if self._now_s() - self._failed_s < RETRY_S:
            raise unavailable(psycopg.OperationalError("there is no connection to the database"))
        try:
            self._session = self._connect(_LATER_LOCK_S)
            self._anew = True
        except StartupError as exc:
            self._failed_s = self._now_s()
            raise LogUnavailable(exc.message, hint=exc.hint, retry_after_s=1.0) from exc
        except psycopg.Error:
            self._failed_s = self._now_s()
            raise
        if self._session is None:
            self._failed_s = self._now_s()
            raise LogUnavailable(
                f"another session writes to the log of {self._target.node}: this node's own from"
                " before its connection was lost, or another node of that name",
                hint="The first ends by itself within seconds; send it again",
                retry_after_s=1.0,
            )
        return self._session

    def _connect(self, lock_s: float) -> Session | None:
        """A session that holds this node's name; None: another one keeps it."""
        session, facts = connect(self._target, self._schema, "journal")
        try:
            until_s = self._now_s() + lock_s
            while not self._named(session):
                if self._now_s() >= until_s:
                    session.end()
                    return None
                time.sleep(_LOCK_POLL_S)
        except BaseException:
            session.end()
            raise
        session.add_notice_handler(self._warn)
        self._facts, self._looked_s = facts, self._now_s()
        return session

    def _named(self, session: Session) -> bool:
        with session.within(_LATER_LOCK_S):
            row = session.execute(_NODE_LOCK, (self._target.node,)).fetchone()
        return bool(row and row[0])


def _cannot_open(exc: psycopg.Error) -> StartupError:
    return StartupError(
        f"cannot open the database: {str(exc).strip()}",
        hint="Look at the server, at the URL and at who may connect (pg_hba.conf). Nothing was"
        " changed",
    )


def _error(exc: psycopg.Error) -> KeysteadError:
    """What a failed transaction is to the committer."""
    if isinstance(exc, errors.DeadlockDetected | errors.SerializationFailure):
        return CommitContended("another node's commit came between", retry_after_s=1.0)
    if isinstance(exc, errors.UniqueViolation):
        if exc.diag.table_name == "idempotency":
            return CommitContended(
                "another node has this idempotency key since a moment ago", retry_after_s=1.0
            )
        if exc.diag.table_name == "objects":
            return Conflict(f"there is one of this name already: {exc.diag.message_detail}")
    return unavailable(exc)
