"""Searches of the log on SQLite: along an index without a sort, bounded, and beside the writer."""

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystead import limits
from keystead.errors import LogUnavailable
from keystead.ports import RecordRow, RecordsQuery
from keystead.store import sqlite_search
from keystead.store.migrate import migrate_sqlite
from keystead.store.sqlite import connect
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_search import SqliteLogReader
from keystead.testing.memory_store import MemoryStore

WAIT_S = 10
OPS = ("tls.sign", "jwt.sign", "key.move", "log.forget")


def record(seq: int, **changes: object) -> RecordRow:
    row = RecordRow(
        seq,
        seq,
        1,
        "tls.sign",
        "ok",
        "k1",
        1,
        "h1",
        "ann",
        f"r{seq}",
        b"b",
        b"s",
        b"e",
        b"l",
        "tls",
    )
    return msgspec.structs.replace(row, **changes)


def filled(path: Path, rows: list[RecordRow]) -> SqliteLogReader:
    migrate_sqlite(path)
    journal = SqliteJournal(path)
    with journal.transaction() as tx:
        tx.append(rows)
    journal.close()
    return SqliteLogReader(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


# --- plans ---------------------------------------------------------------------------------------


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How SQLite goes about each statement that the reader makes, collected as it makes them."""
    found: list[str] = []
    ask = sqlite_search._Look.ask  # noqa: SLF001  where its SQL passes

    def explaining(look: Any, sql: str, values: Any) -> Any:  # noqa: ANN401  as it is there
        rows = look._connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)  # noqa: SLF001  as above
        found.extend(row[3] for row in rows)
        return ask(look, sql, values)

    monkeypatch.setattr(sqlite_search._Look, "ask", explaining)  # noqa: SLF001  as above
    return found


OWN_INDEX = "log_index USING PRIMARY KEY (field=? AND value=? AND seq>? AND seq<?)"
INDEXED = [
    (RecordsQuery(key_id="k1"), OWN_INDEX),
    (RecordsQuery(key_id="k1", version=2), OWN_INDEX),
    (RecordsQuery(key_id="k1", outcome="ok", before=9), OWN_INDEX),
    (RecordsQuery(key_id="k1", since_ms=1, until_ms=9), OWN_INDEX),
    (RecordsQuery(handle_id="h1"), OWN_INDEX),
    (RecordsQuery(principal="ann"), OWN_INDEX),
    (RecordsQuery(request_id="r1"), OWN_INDEX),
    (RecordsQuery(outcome="key_state"), "records_refused (outcome=?"),
    (RecordsQuery(outcome="key_state", op="tls.sign"), "records_refused (outcome=?"),
    (RecordsQuery(outcome="denied"), "records_denied (seq>? AND seq<?"),
    (RecordsQuery(outcome="denied", principal="ann"), "records_denied (seq>? AND seq<?"),
    (RecordsQuery(op="log.forget"), "records_by_change (op=?"),
    (RecordsQuery(op="key.move", outcome="ok", key_id="k1"), "records_by_change (op=?"),
]


@pytest.mark.parametrize("oldest_first", [False, True], ids=["newest", "oldest"])
@pytest.mark.parametrize(("query", "index"), INDEXED, ids=str)
def test_a_question_of_an_incident_runs_on_an_index(
    path: Path, plans: list[str], query: RecordsQuery, index: str, *, oldest_first: bool
) -> None:
    reader = filled(path, [])
    query = msgspec.structs.replace(query, oldest_first=oldest_first)
    assert reader.search(query).rows == []
    assert reader.choose(query).seqs == []
    reader.close()
    searches = [plan for plan in plans if "INDEX records" in plan or "log_index " in plan]
    assert searches
    assert all(index in plan for plan in searches), searches
    check_no_sort(plans)


def test_forgetting_runs_on_the_index(path: Path) -> None:
    reader = filled(path, [])
    said: list[str] = []
    journal = SqliteJournal(path)
    with journal.transaction() as tx:
        journal._connection.set_trace_callback(said.append)  # noqa: SLF001  what it runs
        tx.forget([(3, 9)], ["tls.sign"])
        journal._connection.set_trace_callback(None)  # noqa: SLF001  as above
        plans = [
            row[3]
            for sql in said
            for row in journal._connection.execute(f"EXPLAIN QUERY PLAN {sql}")  # noqa: SLF001  as above
        ]
    found = [plan for plan in plans if "log_index" in plan]
    assert found == ["SEARCH log_index USING PRIMARY KEY (field=? AND value=? AND seq=?)"] * 3
    assert not any(plan == "SCAN records" or plan.startswith("SCAN r ") for plan in plans), plans
    journal.close()
    reader.close()


@pytest.mark.parametrize(
    "query",
    [
        RecordsQuery(),
        RecordsQuery(since_ms=1, until_ms=9),
        RecordsQuery(purpose="tls"),
        RecordsQuery(op="tls.sign", oldest_first=True),
    ],
    ids=str,
)
def test_any_other_question_runs_along_the_log(
    path: Path, plans: list[str], query: RecordsQuery
) -> None:
    reader = filled(path, [])
    assert reader.search(query).rows == []
    reader.close()
    assert any("USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in plan for plan in plans), plans
    check_no_sort(plans)


def check_no_sort(plans: list[str]) -> None:
    assert not any("TEMP B-TREE" in plan for plan in plans), plans
    # The only scans are of what a statement made itself, and of the rows of 1,024 records each.
    scanned = {plan for plan in plans if re.match(r"SCAN (?!\(subquery-\d+\))", plan)}
    assert scanned <= {"SCAN found", "SCAN looked", "SCAN log_blocks"}


def test_a_time_narrows_any_search(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the blocks it lies in: what is looked at is a few thousand records, not all."""
    monkeypatch.setattr(limits, "LOG_SCAN_ROWS_MAX", 2_100)
    reader = filled(path, [record(seq) for seq in range(30_000)])
    for query in (
        RecordsQuery(since_ms=15_000, until_ms=15_003),
        RecordsQuery(since_ms=15_000, until_ms=15_003, key_id="k1"),
    ):
        for oldest_first in (False, True):
            page = reader.search(msgspec.structs.replace(query, oldest_first=oldest_first))
            assert {row.seq for row in page.rows} == {15_000, 15_001, 15_002}
            assert page.reach.end
    reader.close()


# --- bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        RecordsQuery(purpose="jwt"),
        RecordsQuery(key_id="k1", version=9),
        RecordsQuery(kept=False, principal="ann"),
    ],
    ids=str,
)
def test_a_search_that_finds_nothing_ends_somewhere(
    path: Path, monkeypatch: pytest.MonkeyPatch, query: RecordsQuery
) -> None:
    monkeypatch.setattr(limits, "LOG_SCAN_ROWS_MAX", 100)
    reader = filled(path, [record(seq) for seq in range(1_000)])
    page = reader.search(query)
    assert (page.rows, page.reach.next, page.reach.end, page.reach.top) == ([], 900, False, 999)
    onward = msgspec.structs.replace(query, before=page.reach.next)
    assert reader.search(onward).reach.next == 800
    oldest = reader.search(msgspec.structs.replace(query, oldest_first=True))
    assert (oldest.reach.next, oldest.reach.end) == (99, False)
    reader.close()


def test_a_count_of_too_many_values_looks_at_fewer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LIST_ITEMS_MAX", 10)
    rows = [record(seq, handle_id=f"h{seq % 90}") for seq in range(1_000)]
    reader = filled(path, rows)
    counts: dict[str, int] = {}
    query, end = RecordsQuery(), False
    while not end:
        found = reader.count(query, "handle")
        assert 0 < len(found.counts) <= 10
        for value, count in found.counts.items():
            counts[value] = counts.get(value, 0) + count
        query, end = RecordsQuery(before=found.reach.next), found.reach.end
    assert counts == {f"h{number}": 11 + (number < 10) for number in range(90)}
    reader.close()


# --- against a plain implementation --------------------------------------------------------------

VALUES = st.sampled_from(["", "a", "b"])
RECORDS: st.SearchStrategy[list[dict[str, object]]] = st.lists(
    st.builds(
        dict,
        time_ms=st.integers(0, 9),
        op=st.sampled_from(OPS),
        outcome=st.sampled_from(["ok", "ok", "key_state", "not_found"]),
        key_id=VALUES,
        version=st.integers(0, 2),
        handle_id=VALUES,
        principal=VALUES,
        request_id=VALUES,
        purpose=VALUES,
    ),
    max_size=40,
)
QUERIES = st.builds(
    RecordsQuery,
    key_id=st.none() | VALUES,
    version=st.none() | st.integers(0, 2),
    purpose=st.none() | VALUES,
    handle_id=st.none() | VALUES,
    principal=st.none() | VALUES,
    op=st.none() | st.sampled_from(OPS),
    ops=st.none() | st.lists(st.sampled_from(OPS), max_size=2).map(tuple),
    outcome=st.sampled_from([None, "ok", "denied", "key_state"]),
    request_id=st.none() | VALUES,
    kept=st.sampled_from([None, True, False]),
    since_ms=st.none() | st.integers(0, 9),
    until_ms=st.none() | st.integers(0, 9),
    after=st.none() | st.integers(-1, 41),
    before=st.none() | st.integers(0, 41),
    oldest_first=st.booleans(),
    limit=st.integers(1, 5),
)
RANGES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 5)).map(lambda at: (at[0], sum(at))), max_size=3
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SqliteJournal, Path]]:
    path = tmp_path_factory.mktemp("pair") / "registry.db"
    migrate_sqlite(path)
    journal = SqliteJournal(path)
    yield journal, path
    journal.close()


@settings(max_examples=150, deadline=None)
@given(
    records=RECORDS,
    ranges=RANGES,
    commits=st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9)),
    queries=st.lists(QUERIES, min_size=1, max_size=6),
)
def test_both_stores_find_the_same(
    pair: tuple[SqliteJournal, Path],
    records: list[dict[str, object]],
    ranges: list[tuple[int, int]],
    commits: tuple[int, int, int],
    queries: list[RecordsQuery],
) -> None:
    """Wherever the log's own index ends.

    ``commits``: records of each; those that wait when one fills the index; how many it puts there.
    """
    commit, every, most = commits
    journal, path = pair
    new_log(journal)
    rows = [record(seq, **fields) for seq, fields in enumerate(records)]
    memory = MemoryStore()
    for store in (journal, memory):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(limits, "LOG_INDEX_EVERY", every)
            patch.setattr(limits, "LOG_INDEX_ROWS_MAX", most)
            for at in range(0, len(rows), commit):
                with store.transaction() as tx:
                    tx.append(rows[at : at + commit])
        with store.transaction() as tx:
            forgotten = tx.forget(ranges, OPS[:2])
        assert forgotten == len(
            {
                seq
                for low, high in ranges
                for seq in range(low, high + 1)
                if seq < len(rows) and rows[seq].op in OPS[:2]
            }
        )
    reader = SqliteLogReader(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "LOG_SCAN_ROWS_MAX", 7)
        for query in queries:
            assert pages(reader.search, query) == pages(memory.search, query)
    for query in queries:
        assert reader.search(query).rows == memory.search(query).rows
        assert reader.choose(query) == memory.choose(query)
        assert reader.count(query, "principal") == memory.count(query, "principal")
    assert reader.forgotten_in(ranges) == memory.forgotten_in(ranges)
    reader.close()


def new_log(journal: SqliteJournal) -> None:
    with journal.transaction():
        for sql in (
            "DELETE FROM records",
            "DELETE FROM log_blocks",
            "DELETE FROM log_index",
            "UPDATE log_indexed SET through = -1",
        ):
            journal._connection.execute(sql)  # noqa: SLF001  no port takes records away
    journal._index.unsettled()  # noqa: SLF001  as above


def pages(search: Callable[[RecordsQuery], Any], query: RecordsQuery) -> list[RecordRow]:
    found: list[RecordRow] = []
    for _ in range(100):
        page = search(query)
        found.extend(page.rows)
        if page.reach.end:
            return found
        way = "after" if query.oldest_first else "before"
        query = msgspec.structs.replace(query, **{way: page.reach.next})
    pytest.fail("no end")


# --- beside the writer ---------------------------------------------------------------------------


def test_a_search_and_a_commit_do_not_wait_for_each_other(path: Path) -> None:
    """A search in the midst of its work, a transaction in the midst of its own."""
    reader = filled(path, [record(seq) for seq in range(10)])
    journal = SqliteJournal(path)
    searching = connect(path, read_only=True)
    rows = searching.execute("SELECT seq FROM records")
    assert rows.fetchone() == (0,)
    with journal.transaction() as tx:
        tx.append([record(10)])
        assert reader.search(RecordsQuery(limit=1)).rows[0].seq == 9
    assert reader.search(RecordsQuery(limit=1)).rows[0].seq == 10
    assert len(rows.fetchall()) == 9  # what it began with, as it was then
    for each in (searching, journal, reader):
        each.close()


def test_searches_of_many_threads_have_a_connection_each(path: Path) -> None:
    reader = filled(path, [record(seq) for seq in range(2_000)])
    failures: list[BaseException] = []
    barrier = threading.Barrier(4)

    def look() -> None:
        try:
            barrier.wait(WAIT_S)
            for before in range(0, 2_000, 50):
                page = reader.search(RecordsQuery(key_id="k1", before=before, limit=5))
                assert [row.seq for row in page.rows] == list(range(before - 1, -1, -1))[:5]
        except BaseException as exc:  # noqa: BLE001  told below
            failures.append(exc)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    reader.close()


def test_a_store_that_fails_is_log_unavailable(path: Path) -> None:
    reader = filled(path, [record(0)])
    connection = sqlite3.connect(path)
    connection.execute("UPDATE records SET version = 'many'")
    connection.commit()
    with pytest.raises(LogUnavailable, match="no node wrote") as caught:
        reader.search(RecordsQuery())
    assert "fsck" in caught.value.hint
    connection.execute("DROP TABLE records")
    connection.commit()
    connection.close()
    with pytest.raises(LogUnavailable, match="no such table"):
        reader.search(RecordsQuery())
    reader.close()


# --- what is erased is gone ----------------------------------------------------------------------


def test_nothing_of_a_forgotten_record_is_left_in_the_files(path: Path) -> None:
    """Bodies of a page and of many, salts, and what the index holds, of some among many.

    The last of them are not in the index yet. SQLite moves the entries of an index when a page is
    full, and a stale one may be left in the slack of a page it came from: handles, principals and
    request ids are all gone after a VACUUM only.
    """
    rows = [
        record(
            seq,
            handle_id=f"canary-handle-{seq % 37}-{seq}-",
            principal=f"canary-principal-{seq % 7}-{seq}-",
            request_id=f"canary-request-{seq}-",
            body=b"canary-body-%d-" % seq * (1 + seq % 11 * (200 if seq % 50 == 0 else 1)),
            salt=b"canary-salt-%d-" % seq,
        )
        for seq in range(6_000)
    ]
    reader = filled(path, rows[:5_500])
    journal = SqliteJournal(path)
    for at in range(5_500, 6_000, 125):  # each commit sees to one column of the index
        with journal.transaction() as tx:
            tx.append(rows[at : at + 125])
    gone = [seq for seq in range(6_000) if seq * 7 % 10 < 6]
    assert left(path, gone, "body|salt|request|handle-[0-9]+|principal-[0-9]+") == 5 * len(gone)
    for at in range(0, len(gone), 400):
        with journal.transaction() as tx:
            batch = gone[at : at + 400]
            assert tx.forget([(seq, seq) for seq in batch], ["tls.sign"]) == len(batch)
    assert reader.scrub()
    assert left(path, gone, "body|salt") == 0
    assert left(path, gone, "request|handle-[0-9]+|principal-[0-9]+") < 10
    journal._connection.execute("VACUUM")  # noqa: SLF001  as whoever maintains it
    assert reader.scrub()
    assert left(path, gone, "request|handle-[0-9]+|principal-[0-9]+") == 0
    reader.close()
    journal.close()


def left(path: Path, seqs: list[int], kinds: str) -> int:
    """How many canaries of these records are in the files, each kind counted once."""
    found = re.findall(f"canary-({kinds})-([0-9]+)-".encode(), files(path))
    wanted = {b"%d" % seq for seq in seqs}
    return len({(kind[:4], seq) for kind, seq in found if seq in wanted})


def files(path: Path) -> bytes:
    return b"".join(
        file.read_bytes()
        for file in sorted(path.parent.iterdir())
        if not file.name.endswith("-shm")
    )


def test_scrubbing_gives_way_to_who_reads(path: Path) -> None:
    reader = filled(path, [record(0)])
    journal = SqliteJournal(path)
    reading = connect(path, read_only=True)
    reading.execute("BEGIN")
    assert reading.execute("SELECT count(*) FROM records").fetchone() == (1,)
    with journal.transaction() as tx:
        tx.append([record(1)])
    assert not reader.scrub()
    reading.execute("COMMIT")
    assert reader.scrub()
    assert path.with_name("registry.db-wal").stat().st_size == 0
    for each in (reading, journal, reader):
        each.close()
