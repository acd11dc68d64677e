"""SQLite as this project opens it: WAL, ``synchronous=FULL``, explicit transactions, the driver."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from keystead.errors import LogUnavailable, StartupError

__all__ = ["connect", "unavailable"]

_BUSY_MS = 5_000
_CACHE_KIB = 16_384
_CHECKPOINT_PAGES = 2_000
"""Pages of the write-ahead log, 8 MB, before they are written to the database. Few pages change
twice within so many, so that more of them save little, and hold up the commit that does it."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection that never begins a transaction by itself.

    ``synchronous=FULL`` in WAL mode fsyncs the log at each commit: durable means that
    (sqlite.org/pragma.html#pragma_synchronous).

    Raises:
        StartupError: the file is missing, is no database, or cannot be opened.
    """
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
    except sqlite3.Error as exc:
        raise _cannot_open(path, exc) from exc
    try:
        _prepare(connection, path, read_only=read_only)
    except sqlite3.Error as exc:
        connection.close()
        raise _cannot_open(path, exc) from exc
    except StartupError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    connection.execute("PRAGMA foreign_keys=ON")
    # What is sorted or journalled on the way stays in memory, never in a file elsewhere.
    connection.execute("PRAGMA temp_store=MEMORY")
    if not read_only:
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise StartupError(
                f"the registry {path} cannot use write-ahead logging (it is {mode!r})",
                hint="Put the data folder on a local disk with shared-memory support",
            )
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        # What is forgotten or destroyed is overwritten in the file, not only let go of.
        connection.execute("PRAGMA secure_delete=ON")
    connection.execute("SELECT count(*) FROM meta").fetchone()


def _cannot_open(path: Path, exc: sqlite3.Error) -> StartupError:
    return StartupError(
        f"cannot open the registry {path}: {exc}",
        hint="Check the folder's owner, permissions and free space; if the file is damaged,"
        " restore it from a backup. Nothing was changed",
    )


def unavailable(exc: sqlite3.Error) -> LogUnavailable:
    """What a failing database is to a caller: nothing was released, ask again."""
    full = "full" in str(exc)
    return LogUnavailable(
        f"the record could not be made durable ({exc})",
        hint="The disk of the data folder is full: make room; the node goes on by itself"
        if full
        else "Look at the vault's log and the disk of the data folder; then send it again",
        retry_after_s=1.0,
    )
