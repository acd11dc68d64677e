"""One schema, said once: migrations make it on PostgreSQL, for all nodes and for each."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from keystead.errors import StartupError
from keystead.store.opening import migrate
from keystead.store.postgres import log_schema
from keystead.store.postgres_schema import LOG, SHARED
from postgres import ROLE, PostgresServer

COLUMNS = (
    "SELECT table_name, column_name, ordinal_position, data_type, is_nullable, column_default,"
    " collation_name FROM information_schema.columns WHERE table_schema = %s"
)
INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = %s"


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    made = postgres.database()
    yield made
    postgres.drop(made)


def described(url: str, schema: str) -> set[tuple[object, ...]]:
    """Every column and index of a schema, without its name."""
    with psycopg.connect(url) as session:
        rows = [*session.execute(COLUMNS, [schema]), *session.execute(INDEXES, [schema])]
    names = re.compile(rf'"?{re.escape(schema)}"?\.')
    return {
        tuple(names.sub("", item) if isinstance(item, str) else item for item in row)
        for row in rows
        if row[0] != "alembic_version"
    }


def create(url: str, schema: str, metadata: sa.MetaData) -> None:
    """Make the tables straight from their definition."""
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        connection.exec_driver_sql(f"SET LOCAL search_path = {schema}")
        metadata.create_all(connection)
    engine.dispose()


def test_migrations_make_the_schema_to_the_letter(url: str) -> None:
    """Columns, their types, order and collations, keys, indexes and their conditions."""
    assert migrate(url, "a") == "0001, log 0001"
    for schema, metadata, straight in (
        ("keystead", SHARED, "straight_shared"),
        (log_schema("a"), LOG, "straight_log"),
    ):
        create(url, straight, metadata)
        assert described(url, schema) == described(url, straight)
        assert len(metadata.tables) > 2


def test_migrating_again_changes_nothing(url: str) -> None:
    migrate(url, "a")
    before = [described(url, name) for name in ("keystead", "keystead_log_a")]
    assert migrate(url, "a") == "0001, log 0001"
    assert [described(url, name) for name in ("keystead", "keystead_log_a")] == before


def test_nodes_that_start_at_once_migrate_one_after_the_other(url: str) -> None:
    done: list[str] = []
    threads = [
        threading.Thread(target=lambda node=node: done.append(migrate(url, node)))
        for node in ("a", "b", "c")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["0001, log 0001"] * 3
    logs = [described(url, log_schema(node)) for node in ("a", "b", "c")]
    assert logs[0] == logs[1] == logs[2]


@pytest.mark.parametrize("schema", ["keystead", "keystead_log_a"])
def test_a_newer_schema_is_refused(url: str, schema: str) -> None:
    migrate(url, "a")
    with psycopg.connect(url) as session:
        session.execute(f"UPDATE {schema}.alembic_version SET version_num = '9999'".encode())  # noqa: S608  a test's own names
    with pytest.raises(StartupError, match="schema 9999, which this version does not know"):
        migrate(url, "a")


def test_a_migration_that_fails_leaves_nothing(postgres: PostgresServer, url: str) -> None:
    """The role may not make a schema."""
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    postgres.sql(f"ALTER DATABASE {name} OWNER TO postgres")
    with pytest.raises(StartupError, match="permission denied") as caught:
        migrate(url, "a")
    assert "CREATE" in caught.value.hint
    with psycopg.connect(url) as session:
        found = session.execute("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^keystead'")
        assert found.fetchone() == (0,)
    postgres.sql(f"ALTER DATABASE {name} OWNER TO {ROLE}")


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot open or migrate the database") as caught:
        migrate(f"postgresql:///none?host={tmp_path}", "a")
    assert "Nothing was changed" in caught.value.hint


@pytest.mark.parametrize("node", ["", "n" * 51, "é" * 26, "a\x00b"])
def test_a_node_whose_log_has_no_name_is_refused(node: str) -> None:
    with pytest.raises(StartupError, match="does not fit"):
        log_schema(node)


def test_any_name_of_a_node_is_taken_as_it_is(url: str) -> None:
    """Quotes and all: it is a part of an identifier."""
    node = 'Node "1"; DROP'
    migrate(url, node)
    assert described(url, log_schema(node)) != set()
    assert log_schema("n" * 50) == "keystead_log_" + "n" * 50
