"""Bring a database to this version's schema, in a process of its own before the vault starts."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from keystead.errors import StartupError

__all__ = ["alembic_config", "migrate_sqlite"]

_MAGIC = b"SQLite format 3\x00"
"""What a database file begins with (sqlite.org/fileformat2.html section 1.3)."""


def alembic_config(versions: str = "versions") -> Config:
    """Alembic's configuration, from this package alone. ``versions``: the folder of revisions."""
    config = Config()
    migrations = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(migrations))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(migrations / versions))
    return config


def migrate_sqlite(path: Path) -> str:
    """Migrate the SQLite database at a path, creating it if it is not there; gives its revision.

    All of it commits at once, or nothing.

    Raises:
        StartupError: the disk is full or read-only, the file is no database, or it was written by
            a newer Keystead.
    """
    _refuse_foreign(path)
    config = alembic_config()
    head = ScriptDirectory.from_config(config).get_current_head()
    engine = sa.create_engine("sqlite://", creator=lambda: _open(path), poolclass=sa.NullPool)
    sa.event.listen(engine, "begin", _begin)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection)
            found = context.get_current_revision()
            _refuse_newer(config, found, path)
            if found != head:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
    except sa.exc.DatabaseError as exc:
        raise StartupError(
            f"cannot open or migrate the registry {path}: {exc.orig}",
            hint="Give the data folder room and write permission; if the file is damaged, restore"
            " it from a backup. Nothing was changed",
        ) from exc
    finally:
        engine.dispose()
    return str(head)


def _refuse_foreign(path: Path) -> None:
    """Look before SQLite does: opening a damaged file would drop its write-ahead log."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StartupError(f"cannot read the registry {path}: {exc.strerror}") from exc
    if start not in (b"", _MAGIC):
        raise StartupError(
            f"the registry {path} is damaged: it does not begin as a SQLite database does",
            hint="Restore it from a backup, with its -wal file if it has one. Nothing was changed",
        )


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        # What a migration drops names handles and principals, which may be forgotten later.
        connection.execute("PRAGMA secure_delete=ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _begin(connection: sa.Connection) -> None:
    # By itself the driver begins a transaction before an INSERT, and none before a CREATE TABLE:
    # a full disk in the midst of a migration would leave half a schema, and no way on.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _refuse_newer(config: Config, found: str | None, path: Path) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StartupError(
            f"the registry {path} has schema {found}, which this version does not know",
            hint="It was written by a newer Keystead: run that one, or restore an older backup",
        )
