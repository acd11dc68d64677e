"""PostgreSQL as this project uses it: sessions whose every wait ends, and what they are set to.

The driver waits for as long as the network keeps silent; here each wait has a deadline of this
process's own clock, whatever the server does (stopped, suspended, cut off). What a session holds on
the server ends soon after its client does, or falls asleep: see :data:`_SESSION`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import msgspec
import psycopg
from psycopg import conninfo, errors
from psycopg.abc import RV, PQGen

from keystead.errors import LogUnavailable, StartupError
from keystead.store.postgres_terms import FACTS, ServerFacts, judged

__all__ = [
    "COMMIT_S",
    "CONNECT_S",
    "IDLE_IN_TRANSACTION_S",
    "LOCK_WAIT_S",
    "LOG_SCHEMA",
    "RETRY_S",
    "SCHEMA",
    "Session",
    "Target",
    "bound",
    "connect",
    "log_schema",
    "quoted",
    "secret_in",
    "unavailable",
]

SCHEMA = "keystead"
"""What all nodes share. One deployment a database; its lock keys and channels bear this name."""
LOG_SCHEMA = "keystead_log_"
_NAME_BYTES_MAX = 63
"""PostgreSQL cuts longer names off (NAMEDATALEN, postgresql.org/docs/15/limits.html)."""

COMMIT_S = 10.0
"""How long one transaction may take, all its waits together."""
CONNECT_S = 3
"""How long making a connection may take, in whole seconds; the driver takes 2 at least."""
RETRY_S = 0.5
"""For so long after a connection failed nobody tries again: callers hear at once."""
IDLE_IN_TRANSACTION_S = 2
"""For so long a session may leave a transaction alone. A node that sleeps in one holds the fence no
longer; its commit fails when it wakes up."""
LOCK_WAIT_S = 3
"""How long a lock is waited for: longer than a sleeping session can hold one."""
_SESSION = {
    "synchronous_commit": "on",  # whatever the role's default is: durable means this
    "default_transaction_isolation": "read committed",
    "statement_timeout": f"{COMMIT_S - 2:.0f}s",  # before the client gives up
    "lock_timeout": f"{LOCK_WAIT_S}s",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S}s",
    "client_connection_check_interval": "1s",
    "tcp_keepalives_idle": "4",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "8s",
    "client_min_messages": "warning",  # a commit that is not replicated is told by one
    "jit": "off",
}
_CONNECTION: dict[str, int | str] = {
    "connect_timeout": CONNECT_S,
    "target_session_attrs": "read-write",
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8_000,
    "gssencmode": "disable",
}
"""Given to libpq where the URL does not say otherwise."""
_PREPARE_AFTER = 2
_PREPARED_MAX = 200
_CLEAN_UP_S = 1.0


class Target(msgspec.Struct, frozen=True):
    """Which database, and whose log in it."""

    database: str
    node: str
    allow_async_standby: bool = False


def log_schema(node: str) -> str:
    """The schema of a node's log.

    Raises:
        StartupError: the node's name does not fit into the name of a schema.
    """
    name = LOG_SCHEMA + node
    room = _NAME_BYTES_MAX - len(LOG_SCHEMA)
    if not node or len(name.encode()) > _NAME_BYTES_MAX or "\x00" in node:
        raise StartupError(
            f"the node's name {node!r} does not fit: expected 1 to {room} bytes on PostgreSQL",
            hint="Give it a shorter one with --node",
        )
    return name


def quoted(name: str) -> str:
    """An identifier as a statement has it."""
    return '"' + name.replace('"', '""') + '"'


@lru_cache(maxsize=512)
def bound(statement: str) -> bytes:
    """A statement with ``?`` for each value, as the driver takes it: values go in binary."""
    return statement.replace("%", "%%").replace("?", "%b").encode()


def secret_in(database: str) -> bool:
    """Whether a URL holds a password.

    Raises:
        StartupError: it does not parse; what it says is not repeated, as it may be one.
    """
    try:
        given = conninfo.conninfo_to_dict(database)
    except psycopg.ProgrammingError:
        raise StartupError(
            "the database URL does not parse",
            hint="Expected postgresql://[USER@]HOST[:PORT]/NAME[?NAME=VALUE&...]",
        ) from None
    return bool(given.keys() & {"password", "sslpassword"})


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose waits end at ``deadline``, by the monotonic clock in seconds."""

    deadline = math.inf

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As the driver's, until the deadline at most.

        Raises:
            psycopg.OperationalError: it has passed. What the server did then is not known, so that
                the connection is closed.
        """
        left = self.deadline - time.monotonic()
        limit = left if timeout is None else min(left, timeout)
        try:
            return super().wait(gen, interval, None if limit == math.inf else max(limit, 0.0))
        except errors._WaitTimeout:  # noqa: SLF001  its only name; the documentation of wait gives it
            self.close()
            raise psycopg.OperationalError("the server did not answer in time") from None
        except BaseException:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.close()
            raise

    @contextmanager
    def within(self, seconds: float) -> Iterator[Session]:
        """All waits of a block together take no longer."""
        before, self.deadline = self.deadline, time.monotonic() + seconds
        try:
            yield self
        finally:
            self.deadline = before

    def ask(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement."""
        return self.execute(bound(statement), values, binary=True).fetchall()

    def end(self) -> None:
        """Close it; it is told to the server if that listens."""
        with suppress(psycopg.Error):
            self.close()


def connect(
    target: Target, schema: str, what: str, *, read_only: bool = False
) -> tuple[Session, ServerFacts]:
    """A session that sees a log's schema and the shared one, and what the server says of itself.

    ``what`` it is for: shown in the server's list of sessions.

    Raises:
        psycopg.Error: there is no connection.
        StartupError: the server is not what durable needs, or has no such schema.
    """
    given = conninfo.conninfo_to_dict(target.database)
    defaults = {name: value for name, value in _CONNECTION.items() if name not in given}
    defaults["application_name"] = f"keystead {target.node} {what}"
    session = Session.connect(
        conninfo.make_conninfo(target.database, **defaults),
        autocommit=True,
        prepare_threshold=_PREPARE_AFTER,
    )
    try:
        with session.within(CONNECT_S):
            session.prepared_max = _PREPARED_MAX
            facts = _set_up(session, target, schema, read_only=read_only)
    except BaseException:
        session.end()
        raise
    return session, facts


def _set_up(session: Session, target: Target, schema: str, *, read_only: bool) -> ServerFacts:
    settings = _SESSION | {"default_transaction_read_only": "on" if read_only else "off"}
    lines = [f"SET {name} = '{value}'" for name, value in settings.items()]
    lines.append(f"SET search_path = {quoted(schema)}, {quoted(SCHEMA)}")
    session.execute("; ".join(lines).encode())
    facts = ServerFacts(*session.ask(FACTS)[0])
    judged(facts, allow_async_standby=target.allow_async_standby)
    names = (f"{quoted(SCHEMA)}.meta", f"{quoted(schema)}.records")
    found = session.ask("SELECT to_regclass(?) IS NOT NULL, to_regclass(?) IS NOT NULL", names)
    if found != [(True, True)]:
        raise StartupError(
            f"the database has no log of a node named {target.node!r}",
            hint="`keystead up` makes it when it starts; start this node with it first",
        )
    return facts


def unavailable(exc: psycopg.Error) -> LogUnavailable:
    """What a failing database is to a caller: nothing was released, ask again."""
    said = (exc.diag.message_primary or str(exc) or type(exc).__name__).strip()
    hint = "Look at the database server and the network to it; then send it again"
    if isinstance(exc, errors.DiskFull):
        hint = "The database server's disk is full: make room; the node goes on by itself"
    elif isinstance(exc, errors.ReadOnlySqlTransaction):
        hint = "The server is a standby now: have the node's database URL lead to the primary"
    return LogUnavailable(
        f"the record could not be made durable ({said})", hint=hint, retry_after_s=1.0
    )
