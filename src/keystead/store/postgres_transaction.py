"""One commit on PostgreSQL, in as few round trips as its reads allow.

Writes are kept and go out with the next read, or with the COMMIT. So a commit that reads nothing
but the epoch and what it said it would read takes two or three round trips, however much it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from keystead.errors import Conflict, LogUnavailable
from keystead.ports import EpochRow, IdempotencyRow, LeaseRow, ObjectRow, RecordRow
from keystead.store import statements as sql
from keystead.store.log_blocks import block_times
from keystead.store.postgres import bound
from keystead.store.sql_transaction import SqlTransaction, object_change

__all__ = ["CHANNEL", "Call", "PostgresTransaction", "Result"]

CHANNEL = "keystead_epoch"
"""Where a new epoch is told; a channel is seen in its own database only."""


def _unnested(into: str, columns: str, types: str, then: str = "") -> bytes:
    """Many rows as one array a column: the driver takes a fifth of the time that rows take it."""
    arrays = ", ".join(f"?::{name}[]" for name in types.split())
    return bound(f"INSERT INTO {into} ({columns}) SELECT * FROM unnest({arrays}){then}")  # noqa: S608  made of constants, values are bound


_APPEND = _unnested(
    "records",
    sql.RECORD_COLUMNS,
    "bigint bigint bigint text text text int text text text bytea bytea bytea bytea text",
)
_PUT_BLOCKS = _unnested(
    "log_blocks",
    "block, first_ms, last_ms",
    "bigint bigint bigint",
    " ON CONFLICT (block) DO UPDATE SET first_ms = least(log_blocks.first_ms, excluded.first_ms),"
    " last_ms = greatest(log_blocks.last_ms, excluded.last_ms)",
)
_PUT_IDEMPOTENT = _unnested(
    "idempotency", sql.IDEMPOTENT_COLUMNS, "text text bytea bigint bytea bytea bigint"
)
_PUT_SPENT = _unnested(
    "spent", "link, uses", "text bigint", " ON CONFLICT (link) DO UPDATE SET uses = excluded.uses"
)
_PUT_COUNTERS = _unnested(
    "counters",
    "key_id, name, value",
    "text text bytea",
    " ON CONFLICT (key_id, name) DO UPDATE SET value = excluded.value",
)
_NOTIFY = bound(f"SELECT pg_notify('{CHANNEL}', ?)")
_IDEMPOTENT = bound(
    f"SELECT {sql.IDEMPOTENT_COLUMNS} FROM idempotency"  # noqa: S608  as above
    " WHERE (scope, key) IN (SELECT * FROM unnest(?::text[], ?::text[]))"
)
_COUNTS = bound(
    "SELECT scope, count(*) FROM idempotency WHERE scope = ANY(?::text[]) GROUP BY scope"
)
_SPENT = bound(
    "SELECT link, uses FROM spent WHERE link = ANY(?::text[]) ORDER BY link FOR NO KEY UPDATE"
)
_COUNTERS = bound(
    "SELECT key_id, name, value FROM counters"
    " WHERE (key_id, name) IN (SELECT * FROM unnest(?::text[], ?::text[]))"
    " ORDER BY key_id, name FOR NO KEY UPDATE OF counters"
)
"""Rows are locked in their order, the same on all nodes: what two commits both spend or step is
decided by one after the other, on what the other has committed."""
_LOCK_NAMES = bound(
    "SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) FROM unnest(?::text[]) AS name"
)
"""A row that is not there yet cannot be locked: its name is, in the order of the array."""
_NAME_LOCKS = 256
"""Names share so many locks: the server's table of them is bounded, and links are free to make."""
_FORGET = (
    "UPDATE records SET body = NULL, salt = NULL, handle_id = '', principal = '', request_id = ''"
    " WHERE seq IN (SELECT r.seq FROM unnest(?::bigint[], ?::bigint[]) AS wanted(low, high)"
    " JOIN records AS r ON r.seq BETWEEN wanted.low AND wanted.high"
    " WHERE r.body IS NOT NULL AND r.op = ANY(?::text[]))"
)
_COMMIT = b"COMMIT"


class Call(NamedTuple):
    """A statement with its values; ``check`` is told how many rows it changed, and may raise."""

    statement: bytes
    values: Sequence[object] = ()
    check: Callable[[int], None] | None = None


class Result(NamedTuple):
    """Rows that a statement gave, how many it changed, and the server's word for it."""

    rows: list[tuple[Any, ...]]
    changed: int
    word: str


_Send = Callable[[Sequence[Call]], list[Result]]


class PostgresTransaction(SqlTransaction):
    """``begin`` begins and runs the first calls, ``send`` runs more: a round trip each.

    ``counted``: scopes whose idempotency keys the caller has counted already.
    """

    def __init__(self, begin: _Send, send: _Send, counted: set[str]) -> None:
        self._begin = begin
        self._send = send
        self._counted = counted
        self._queue: list[Call] = []
        self._epoch: EpochRow | None = None
        self._idempotent: dict[tuple[str, str], IdempotencyRow | None] = {}
        self._counts: dict[str, int] = {}
        self._spent: dict[str, int] = {}
        self._counters: dict[tuple[str, str], bytes | None] = {}
        self.begun = False
        self.appended_to = -1

    def finish(self) -> None:
        """Commit what was done, if anything was.

        Raises:
            Conflict: an object is not what it was thought to be.
            LogUnavailable: the server rolled it back.
        """
        if not self.begun and not self._queue:
            return
        if not self.begun or any(call.check for call in self._queue):
            self._flush()
        done = self._send([*self._taken(), Call(_COMMIT)])[-1]
        if done.word != "COMMIT":
            raise LogUnavailable(
                f"the server answered the commit with {done.word}",
                hint="Send it again, under the same idempotency key",
            )

    # --- round trips -------------------------------------------------------------------------

    def _taken(self) -> list[Call]:
        queue, self._queue = self._queue, []
        return queue

    def _flush(self, *reads: Call) -> list[Result]:
        """Send what is kept, and read; the first time also begin, and read the epoch."""
        calls = [*self._taken(), *reads]
        if self.begun:
            results = self._send(calls) if calls else []
        else:
            epoch, *results = self._begin([Call(bound(sql.EPOCH)), *calls])
            self.begun = True
            self._epoch = self._epoch or _epoch_row(epoch.rows)
        for call, result in zip(calls, results, strict=True):
            if call.check is not None:
                call.check(result.changed)
        return results[len(results) - len(reads) :]

    def _one(self, statement: str, *values: object) -> Any:  # noqa: ANN401  a row of the driver's
        rows = self._all(statement, *values)
        return rows[0] if rows else None

    def _all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._flush(Call(bound(statement), values))[0].rows

    def _write(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        self._queue.extend(Call(bound(statement), row) for row in rows)

    def _change(self, statement: str, *values: object) -> int:
        return self._flush(Call(bound(statement), values))[0].changed

    def _put(self, statement: bytes, rows: Sequence[Sequence[object]]) -> None:
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            self._queue.append(Call(statement, columns))

    # --- what is read at once ----------------------------------------------------------------

    def expect(
        self,
        *,
        idempotent: Sequence[tuple[str, str]],
        spent: Sequence[str],
        counters: Sequence[tuple[str, str]],
    ) -> None:
        """Read all of it in one round trip; two if a budget or counter was never used before."""
        scopes = sorted({scope for scope, _ in idempotent} - self._counted)
        found = self._flush(
            *([Call(_IDEMPOTENT, _columns(idempotent))] if idempotent else []),
            *([Call(_COUNTS, (scopes,))] if scopes else []),
            *self._locking(spent, counters),
        )
        if idempotent:
            rows = [IdempotencyRow(*row) for row in found.pop(0).rows]
            self._idempotent |= dict.fromkeys(idempotent)
            self._idempotent |= {(row.scope, row.key): row for row in rows}
        if scopes:
            self._counts = dict.fromkeys(scopes, 0) | dict(found.pop(0).rows)
            self._counted.update(scopes)
        self._take_locked(found, spent, counters)
        new_links = sorted(link for link in spent if link not in self._spent)
        new_counters = sorted(at for at in counters if at not in self._counters)
        if new_links or new_counters:
            self._lock_new(new_links, new_counters)

    def _locking(self, spent: Sequence[str], counters: Sequence[tuple[str, str]]) -> list[Call]:
        calls = [Call(_SPENT, (list(spent),))] if spent else []
        return calls + ([Call(_COUNTERS, _columns(counters))] if counters else [])

    def _take_locked(
        self, found: list[Result], spent: Sequence[str], counters: Sequence[tuple[str, str]]
    ) -> None:
        if spent:
            self._spent |= dict(found.pop(0).rows)
        if counters:
            self._counters |= {(key, name): value for key, name, value in found.pop(0).rows}

    def _lock_new(self, links: list[str], counters: list[tuple[str, str]]) -> None:
        """Whoever holds a name's lock makes its row; who comes second finds it."""
        names = [f"keystead spent {link}" for link in links]
        names += [f"keystead counter {key_id} {name}" for key_id, name in counters]
        locks = sorted({crc32(name.encode()) % _NAME_LOCKS for name in names})
        _, *found = self._flush(
            Call(_LOCK_NAMES, ([f"keystead name {n}" for n in locks],)),
            *self._locking(links, counters),
        )
        self._take_locked(found, links, counters)
        self._spent |= dict.fromkeys(set(links) - self._spent.keys(), 0)
        self._counters |= dict.fromkeys(set(counters) - self._counters.keys())

    def idempotent(self, scope: str, key: str) -> IdempotencyRow | None:
        """The outcome under an idempotency key."""
        at = (scope, key)
        if at not in self._idempotent:
            row = self._one(sql.IDEMPOTENT, scope, key)
            self._idempotent[at] = IdempotencyRow(*row) if row else None
        return self._idempotent[at]

    def idempotent_count(self, scope: str) -> int:
        """Idempotency keys kept of a scope."""
        known = self._counts.pop(scope, None)
        return super().idempotent_count(scope) if known is None else known

    def spent(self, link: str) -> int:
        """Uses spent under a link."""
        if link not in self._spent:
            self.expect(idempotent=(), spent=[link], counters=())
        return self._spent[link]

    def counter(self, key_id: str, name: str) -> bytes | None:
        """A durable counter's state."""
        at = (key_id, name)
        if at not in self._counters:
            self.expect(idempotent=(), spent=(), counters=[at])
        return self._counters[at]

    # --- what is written ---------------------------------------------------------------------

    def put_idempotent(self, rows: Sequence[IdempotencyRow]) -> None:
        """Keep outcomes."""
        self._counts.clear()
        self._idempotent |= {(row.scope, row.key): row for row in rows}
        self._put(_PUT_IDEMPOTENT, [msgspec.structs.astuple(row) for row in rows])

    def prune_idempotent(self, now_ms: int, limit: int) -> int:
        """Drop outcomes that have expired."""
        self._counts.clear()
        self._idempotent.clear()
        # By whichever clock is behind: a leader's that is ahead would end what other nodes keep.
        server_ms = self._one("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")[0]
        return super().prune_idempotent(min(now_ms, server_ms), limit)

    def put_spent(self, spent: dict[str, int]) -> None:
        """Set the uses spent."""
        self._spent |= spent
        self._put(_PUT_SPENT, sorted(spent.items()))

    def put_counters(self, values: dict[tuple[str, str], bytes]) -> None:
        """Set counters."""
        self._counters |= values
        self._put(_PUT_COUNTERS, [(*at, value) for at, value in sorted(values.items())])

    def append(self, rows: Sequence[RecordRow]) -> None:
        """Add records."""
        self.appended_to = max(self.appended_to, rows[-1].seq if rows else -1)
        self._put(_APPEND, [msgspec.structs.astuple(row) for row in rows])
        self._put(_PUT_BLOCKS, block_times(rows))

    def forget(self, ranges: Sequence[tuple[int, int]], ops: Sequence[str]) -> int:
        """Erase body and salt of records of these operations."""
        lows, highs = [low for low, _ in ranges], [high for _, high in ranges]
        return self._change(_FORGET, lows, highs, list(ops)) if ranges and ops else 0

    # --- authority ---------------------------------------------------------------------------

    def epoch(self) -> EpochRow:
        """The epoch row."""
        if self._epoch is None:
            self._flush()
        return self._epoch or EpochRow(0, b"", b"")

    def set_epoch(self, row: EpochRow) -> None:
        """Replace the epoch row, and wake who waits for it."""
        super().set_epoch(row)
        self._queue.append(Call(_NOTIFY, (str(row.epoch),)))
        self._epoch = row

    def put_object(self, row: ObjectRow, *, previous_revision: int) -> None:
        """Insert or replace; a conflict shows at the next read, or at the commit."""

        def check(count: int) -> None:
            if count != 1:
                raise Conflict(f"{row.kind} {row.name} has changed meanwhile")

        statement, values = object_change(row, previous_revision)
        self._queue.append(Call(bound(statement), values, check))

    def lease(self, name: str) -> LeaseRow | None:
        """Who leads; who else asks here waits until this transaction ends."""
        names = Call(_LOCK_NAMES, ([f"keystead lease {name}"],))
        rows = self._flush(names, Call(bound(sql.LEASE), (name,)))[1].rows
        return LeaseRow(*rows[0]) if rows else None


def _columns(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


def _epoch_row(rows: list[tuple[Any, ...]]) -> EpochRow:
    return EpochRow(*rows[0]) if rows else EpochRow(0, b"", b"")
