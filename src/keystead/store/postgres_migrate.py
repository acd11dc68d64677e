"""Bring a PostgreSQL database to this version's schema, before a node's vault starts.

What all nodes share and each node's log are migrated each by its own revisions, in one transaction,
one node after the other: whoever comes second finds it done.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import command
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import Connection, Error, errors

from keystead.errors import StartupError
from keystead.store.migrate import alembic_config
from keystead.store.postgres import CONNECT_S, SCHEMA, log_schema, quoted

__all__ = ["migrate_postgres"]

_LOCK = f"SELECT pg_advisory_xact_lock(hashtextextended('{SCHEMA} migrate', 0))"
_LOCK_TIMEOUT_S = 60


def migrate_postgres(database: str, node: str) -> str:
    """Migrate what is shared and one node's log; gives their revisions.

    All of it commits at once, or nothing.

    Raises:
        StartupError: there is no connection, the role may not do it, or the database was written by
            a newer Keystead.
    """
    schema = log_schema(node)
    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: Connection.connect(database, connect_timeout=CONNECT_S),
        poolclass=sa.NullPool,
    )
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'")
            connection.exec_driver_sql(_LOCK)
            shared = _migrate(connection, SCHEMA, "shared")
            log = _migrate(connection, schema, "log")
    except sa.exc.DBAPIError as exc:
        raise _failed(exc.orig) from exc
    except Error as exc:
        raise _failed(exc) from exc
    finally:
        engine.dispose()
    return f"{shared}, log {log}"


def _migrate(connection: sa.Connection, schema: str, part: str) -> str:
    _make_schema(connection, schema)
    connection.exec_driver_sql(f"SET LOCAL search_path = {quoted(schema)}")
    config = alembic_config(f"{part}/versions")
    script = ScriptDirectory.from_config(config)
    found = MigrationContext.configure(connection).get_current_revision()
    known = {revision.revision for revision in script.walk_revisions()}
    if found is not None and found not in known:
        raise StartupError(
            f"the database's {part} part has schema {found}, which this version does not know",
            hint="It was written by a newer Keystead: run that one, or restore an older backup",
        )
    head = script.get_current_head()
    if found != head:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return str(head)


def _make_schema(connection: sa.Connection, schema: str) -> None:
    """Ask first: who only uses a schema may not be allowed to make one, even one that is there."""
    there = "SELECT count(*) FROM pg_namespace WHERE nspname = :schema"
    if not connection.execute(sa.text(there), {"schema": schema}).scalar_one():
        connection.exec_driver_sql(f"CREATE SCHEMA {quoted(schema)}")


def _failed(exc: BaseException | None) -> StartupError:
    hint = (
        "Look at the server, at the URL and at who may connect (pg_hba.conf). Nothing was changed"
    )
    if isinstance(exc, errors.InsufficientPrivilege):
        hint = "Let the role own the database, or give it CREATE on it. Nothing was changed"
    return StartupError(f"cannot open or migrate the database: {str(exc).strip()}", hint=hint)
