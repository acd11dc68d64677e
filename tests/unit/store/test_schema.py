"""One schema, said once: migrations make it, and the driver's statements and rows fit it."""

import sqlite3
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from keystead.keys.purposes import PURPOSES
from keystead.ports import (
    HandleRow,
    HistoryRow,
    IdempotencyRow,
    ObjectRow,
    RecordRow,
    ReservationRow,
)
from keystead.store.log_layout import CHANGES
from keystead.store.migrate import migrate_sqlite
from keystead.store.schema import METADATA
from keystead.store.sqlite import connect


@pytest.fixture
def database(tmp_path: Path) -> Path:
    migrate_sqlite(tmp_path / "registry.db")
    return tmp_path / "registry.db"


def statements(path: Path) -> set[str]:
    """The DDL of every table and index, without differences of spacing and quoting."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    found = {" ".join(sql.replace('"', "").split()) for (sql,) in rows}
    return {sql for sql in found if "alembic_version" not in sql}


def test_migrations_make_the_schema(database: Path) -> None:
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(database)))
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_migrations_make_it_to_the_letter(database: Path, tmp_path: Path) -> None:
    """Also what Alembic does not compare: WITHOUT ROWID, conditions of indexes, primary keys."""
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(tmp_path / "straight.db")))
    METADATA.create_all(engine)
    engine.dispose()
    assert statements(database) == statements(tmp_path / "straight.db")
    assert len(statements(database)) == len(METADATA.tables) + 10


def test_the_comparison_can_fail(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("DROP INDEX records_refused")
        connection.execute("ALTER TABLE meta ADD COLUMN more TEXT")
    connection.close()
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(database)))
    with engine.connect() as connected:
        found = compare_metadata(MigrationContext.configure(connected), METADATA)
    engine.dispose()
    assert {change[0] for change in found} == {"add_index", "remove_column"}


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("objects", ObjectRow),
        ("object_history", HistoryRow),
        ("handles", HandleRow),
        ("records", RecordRow),
        ("idempotency", IdempotencyRow),
        ("reservations", ReservationRow),
    ],
)
def test_rows_are_the_tables_columns(table: str, row: type[msgspec.Struct]) -> None:
    """In their order: the driver's statements bind rows as they are."""
    columns = tuple(column.name for column in METADATA.tables[table].columns)
    assert columns == row.__struct_fields__


def test_every_use_is_left_out_of_the_index_of_changes() -> None:
    """One that is not costs its place there at every use."""
    uses = {f"{purpose!s}.{name}" for purpose, row in PURPOSES.items() for name in row.operations}
    assert set(CHANGES.split("'")[1::2]) == uses


def test_a_version_is_one_row_of_the_log(database: Path) -> None:
    """Sequences are SQLite's own row numbers, so the log costs no second tree."""
    connection = connect(database)
    connection.execute(
        "INSERT INTO records VALUES (7,1,1,'op','ok','k',1,'h','p','r',NULL,NULL,x'01',x'02','')"
    )
    assert connection.execute("SELECT rowid FROM records").fetchall() == [(7,)]
    connection.close()
