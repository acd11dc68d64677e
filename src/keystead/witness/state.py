"""What a witness remembers: for each log the latest checkpoint that it cosigned, and never less.

One SQLite file with a rollback journal, so that at rest everything is in that file: beside it lies
no write-ahead log that somebody could leave behind. ``synchronous=EXTRA`` is ``FULL``, and syncs
the folder once the journal is gone, which is the commit
(sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import msgspec

from keystead.errors import LogUnavailable, StartupError

__all__ = ["NEW_WITNESS", "State", "Stored"]

_BUSY_MS = 5_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS logs (
    origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS witness (
    one INTEGER PRIMARY KEY CHECK (one = 1), vkey TEXT NOT NULL, inode INTEGER NOT NULL
) STRICT;
"""
NEW_WITNESS = (
    "A witness that forgot would cosign a fork: start a new one in an empty folder, and give its"
    " key to whoever relied on this one. Nothing was changed"
)
"""What to do where a witness's memory or key is lost."""


class Stored(msgspec.Struct, frozen=True):
    """The latest checkpoint of one log; ``note``: as the log and the witness signed it."""

    size: int
    root: bytes
    note: bytes


class State:
    """Origin to latest checkpoint, in one file. One thread at a time; processes may share it.

    Nothing is cached: what :meth:`latest` gives has been committed, by whichever process.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            StartupError: it cannot be opened or made, or is no database.
        """
        self._path = path
        try:
            # The driver would create the file for everybody to read.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as exc:
            raise _cannot_open(path, exc) from exc
        try:
            self._connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
            self._connection.execute("PRAGMA journal_mode=DELETE")
            self._connection.execute("PRAGMA synchronous=EXTRA")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as exc:
            self._connection.close()
            raise _cannot_open(path, exc) from exc

    def claim(self, vkey: str) -> None:
        """Tie this file to the key that a first start is about to write.

        It may be tied to another already, by a first start that was cut off before its key was
        there; but not once it has cosigned anything.

        Raises:
            StartupError: it has cosigned, so its key is lost.
        """
        try:
            used = self._connection.execute("SELECT 1 FROM logs").fetchone()
            if used is None:
                self._connection.execute(
                    "INSERT OR REPLACE INTO witness (one, vkey, inode) VALUES (1, ?, ?)",
                    (vkey, self._path.stat().st_ino),
                )
        except (OSError, sqlite3.Error) as exc:
            raise _cannot_open(self._path, exc) from exc
        if used is not None:
            raise StartupError(
                f"the key of the witness whose state is {self._path} is missing", hint=NEW_WITNESS
            )

    def check(self, vkey: str) -> None:
        """See that this is the file that :meth:`claim` tied to the key.

        A copy is another file, with another inode: two witnesses of one key would cosign two
        histories. That is a tripwire: contents restored into the same file pass it.

        Raises:
            StartupError: it has lost its contents, belongs to another key, or was copied.
        """
        try:
            owner = self._connection.execute("SELECT vkey, inode FROM witness").fetchone()
            inode = self._path.stat().st_ino
        except (OSError, sqlite3.Error) as exc:
            raise _cannot_open(self._path, exc) from exc
        if owner is None:
            wrong = "is empty, and the key beside it is not new"
        elif owner[0] != vkey:
            wrong = "belongs to another key than the one beside it"
        elif owner[1] != inode:
            wrong = "was copied or restored: it is another file than the one this witness wrote"
        else:
            return
        raise StartupError(f"the witness's state {self._path} {wrong}", hint=NEW_WITNESS)

    def latest(self, origin: str) -> Stored | None:
        """The latest checkpoint of a log, or nothing if none was ever cosigned.

        Raises:
            LogUnavailable: it cannot be read.
        """
        try:
            row = self._connection.execute(
                "SELECT size, root, note FROM logs WHERE origin = ?", (origin,)
            ).fetchone()
        except sqlite3.Error as exc:
            raise _unavailable("read", exc) from exc
        return None if row is None else Stored(*row)

    def advance(self, origin: str, before: Stored | None, after: Stored) -> bool:
        """Put ``after`` in the place of ``before``, unless something else has taken it meanwhile.

        Durable once it returns true. An error leaves open which of the two is there; either way
        nothing was released, and the next request is decided on what is there.

        Raises:
            LogUnavailable: it cannot be written.
        """
        try:
            if before is None:
                done = self._connection.execute(
                    "INSERT INTO logs (origin, size, root, note) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT DO NOTHING",
                    (origin, after.size, after.root, after.note),
                )
            else:
                done = self._connection.execute(
                    "UPDATE logs SET size = ?, root = ?, note = ?"
                    " WHERE origin = ? AND size = ? AND root = ?",
                    (after.size, after.root, after.note, origin, before.size, before.root),
                )
        except sqlite3.Error as exc:
            raise _unavailable("written", exc) from exc
        return done.rowcount == 1

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _cannot_open(path: Path, exc: Exception) -> StartupError:
    return StartupError(
        f"cannot open the witness's state {path}: {exc}",
        hint="Check the folder's owner, permissions and free space. Nothing was changed",
    )


def _unavailable(what: str, exc: sqlite3.Error) -> LogUnavailable:
    return LogUnavailable(
        f"the witness's state cannot be {what} ({exc}); nothing was cosigned",
        hint="Its operator should look at the disk of the state folder",
        retry_after_s=1.0,
    )
