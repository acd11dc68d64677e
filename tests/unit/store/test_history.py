"""The history on SQLite: along its indexes, beside a plain implementation, held to its MACs."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystead.errors import LogUnavailable, StateRolledBack
from keystead.ports import HistoryQuery, HistoryRow, ObjectRow
from keystead.store import sqlite_history
from keystead.store.migrate import migrate_sqlite
from keystead.store.sqlite import connect
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_search import SqliteLogReader
from keystead.testing.memory_store import MemoryStore
from keystead.vault.macs import VaultSecrets

SECRETS = VaultSecrets(bytes(32), bytes([1]) * 32, bytes([2]) * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate_sqlite(tmp_path / "registry.db")
    return tmp_path / "registry.db"


def revision(at: int, **changes: object) -> HistoryRow:
    row = HistoryRow("key", "k1", "shop", at, at, at, at, b"doc", b"mac")
    return msgspec.structs.replace(row, **changes)


def keep(path: Path, rows: list[HistoryRow]) -> None:
    journal = SqliteJournal(path)
    with journal.transaction() as tx:
        tx.put_history(rows)
    journal.close()


# --- plans ---------------------------------------------------------------------------------------

NEWEST = "history_newest"
BY_OBJECT = "history_by_object"
PLANS = [
    (HistoryQuery(), f"SCAN object_history USING COVERING INDEX {NEWEST}"),
    (HistoryQuery(kind="key"), f"SCAN object_history USING COVERING INDEX {NEWEST}"),
    (HistoryQuery(before_epoch=9), f"SEARCH object_history USING COVERING INDEX {NEWEST} (epoch<?"),
    (HistoryQuery(object_id="k1"), f"SEARCH object_history USING COVERING INDEX {BY_OBJECT} (id=?"),
    (
        HistoryQuery(kind="key", object_id="k1", at_seq=9),
        f"SEARCH object_history USING COVERING INDEX {BY_OBJECT} (id=? AND kind=?",
    ),
    (HistoryQuery(at_seq=9), f"SCAN object_history USING COVERING INDEX {BY_OBJECT}"),
    (HistoryQuery(at_ms=9), f"SCAN object_history USING COVERING INDEX {BY_OBJECT}"),
]


@pytest.mark.parametrize(("query", "expected"), PLANS, ids=str)
def test_no_document_is_read_but_those_that_are_given(
    path: Path, query: HistoryQuery, expected: str
) -> None:
    """What is chosen is chosen in an index; its rows are then fetched by their primary key."""
    plans = [plan for plan in explained(path, query) if "object_history" in plan or " h " in plan]
    assert plans[0].startswith(expected), plans
    assert plans[1].startswith("SEARCH h USING INDEX sqlite_autoindex_object_history_1"), plans
    assert len(plans) == 2, plans


@pytest.mark.parametrize("query", [HistoryQuery(), HistoryQuery(kind="key", before_epoch=9)])
def test_the_newest_are_found_without_sorting_all(path: Path, query: HistoryQuery) -> None:
    """A sort, if any, is of what has one epoch."""
    sorts = [plan for plan in explained(path, query) if "TEMP B-TREE" in plan]
    assert all("RIGHT PART OF ORDER BY" in plan for plan in sorts), sorts


def test_what_was_in_force_is_grouped_without_a_sort(path: Path) -> None:
    for query in (HistoryQuery(at_seq=9), HistoryQuery(at_ms=9, object_id="k1")):
        assert not any("GROUP BY" in plan for plan in explained(path, query))


def explained(path: Path, query: HistoryQuery) -> list[str]:
    """How SQLite goes about the one statement of a look."""
    found: list[str] = []

    class Explaining:
        def execute(self, sql: str, values: list[object]) -> Any:  # noqa: ANN401  as the driver's
            rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
            found.extend(row[3] for row in rows)
            return connection.execute(sql, values)

    connection = connect(path, read_only=True)
    assert sqlite_history.history(Explaining(), query) == []  # type: ignore[arg-type]  # what it calls of one
    connection.close()
    return found


def test_one_look_is_one_row(path: Path) -> None:
    """Whatever it gives: the driver takes the interpreter's lock for every row it fetches."""
    keep(path, [revision(at, doc=b"d" * at) for at in range(1, 1_001)])
    fetched: list[int] = []

    class Counting:
        def execute(self, sql: str, values: list[object]) -> Any:  # noqa: ANN401  as the driver's
            fetched.append(len(connection.execute(sql, values).fetchall()))
            return connection.execute(sql, values)

    connection = connect(path, read_only=True)
    rows = sqlite_history.history(Counting(), HistoryQuery(limit=1_000))  # type: ignore[arg-type]  # as above
    connection.close()
    assert len(rows) == 1_000
    assert fetched == [1]


# --- against a plain implementation --------------------------------------------------------------

SMALL = st.integers(0, 6)
ROWS = st.lists(
    st.builds(
        HistoryRow,
        kind=st.sampled_from(["key", "rotation"]),
        id=st.sampled_from(["a", "b", "c"]),
        name=st.sampled_from(["x", "y"]),
        revision=st.integers(1, 6),
        epoch=SMALL,
        seq=st.integers(-1, 6),
        time_ms=SMALL,
        doc=st.binary(max_size=3),
        mac=st.binary(max_size=3),
    ),
    max_size=25,
)
QUERIES = st.builds(
    HistoryQuery,
    kind=st.sampled_from([None, None, "key", "rotation", "none"]),
    object_id=st.sampled_from([None, None, "a", "b", "none"]),
    at_seq=st.none() | st.integers(-2, 7),
    at_ms=st.none() | st.integers(-1, 7),
    before_epoch=st.none() | st.integers(0, 8),
    limit=st.integers(1, 8),
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SqliteJournal, Path]]:
    path = tmp_path_factory.mktemp("pair") / "registry.db"
    migrate_sqlite(path)
    journal = SqliteJournal(path)
    yield journal, path
    journal.close()


@settings(max_examples=150, deadline=None)
@given(commits=st.lists(ROWS, max_size=3), queries=st.lists(QUERIES, min_size=1, max_size=8))
def test_both_stores_show_the_same(
    pair: tuple[SqliteJournal, Path],
    commits: list[list[HistoryRow]],
    queries: list[HistoryQuery],
) -> None:
    """Whatever is kept, also what no node would: epochs and sequences in any order."""
    journal, path = pair
    journal._connection.execute("DELETE FROM object_history")  # noqa: SLF001  a new one each time
    memory = MemoryStore()
    for store in (journal, memory):
        for rows in commits:
            with store.transaction() as tx:
                tx.put_history(rows)
    reader = SqliteLogReader(path)
    for query in queries:
        assert reader.history(query) == memory.history(query)
    reader.close()


# --- who can write the database ------------------------------------------------------------------


def test_a_revision_keeps_the_mac_of_its_row(path: Path) -> None:
    """Long after the object has moved on: what it was is held to what the vault wrote then."""
    rows = [
        SECRETS.signed_object(ObjectRow("key", "k1", "shop", at, at, b"doc-%d" % at, b""))
        for at in (1, 2, 3)
    ]
    keep(path, [HistoryRow(**msgspec.structs.asdict(row), seq=9, time_ms=9) for row in rows])
    reader = SqliteLogReader(path)
    shown = reader.history(HistoryQuery())
    assert [authority_row(row) for row in shown] == rows[::-1]
    for row in shown:
        SECRETS.check_object(authority_row(row))
    execute(path, "UPDATE object_history SET doc = CAST('doc-2' AS BLOB) WHERE revision = 1")
    altered = reader.history(HistoryQuery())[-1]
    with pytest.raises(StateRolledBack, match="not written by this vault"):
        SECRETS.check_object(authority_row(altered))
    reader.close()


def authority_row(row: HistoryRow) -> ObjectRow:
    return ObjectRow(row.kind, row.id, row.name, row.revision, row.epoch, row.doc, row.mac)


def execute(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute(sql).rowcount == 1
    connection.commit()
    connection.close()


@pytest.mark.parametrize("column", ["epoch", "seq", "time_ms"])
def test_a_row_that_no_node_wrote_is_log_unavailable(path: Path, column: str) -> None:
    keep(path, [revision(1), revision(2)])
    execute(path, f"UPDATE object_history SET {column} = 'many' WHERE revision = 1")  # noqa: S608  a constant above
    reader = SqliteLogReader(path)
    with pytest.raises(LogUnavailable, match="no node wrote") as caught:
        reader.history(HistoryQuery())
    assert "backup" in caught.value.hint
    reader.close()


def test_a_store_that_fails_is_log_unavailable(path: Path) -> None:
    reader = SqliteLogReader(path)
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE object_history")
    connection.commit()
    connection.close()
    with pytest.raises(LogUnavailable, match="no such table"):
        reader.history(HistoryQuery())
    reader.close()
