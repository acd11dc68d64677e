"""The log's own index: exact at any instant, filled in few statements, and never in a commit's way.

``check_exact`` holds it to the records, as the files have them: up to where it goes by a column,
each of their values is in it once, past that none is, and searches find what a plain implementation
does.
"""

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keystead import limits
from keystead.errors import LogUnavailable
from keystead.ports import RecordRow, RecordsPage, RecordsQuery
from keystead.store.log_layout import FIELDS
from keystead.store.migrate import migrate_sqlite
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.store.sqlite_search import SqliteLogReader
from keystead.testing.memory_store import MemoryStore

SMALL = pytest.mark.usefixtures("small")
OPS = ["tls.sign"]
EVERY, AT_ONCE = 8, 20
KILLS = 4
KILLED_COMMIT = 5


def record(seq: int) -> RecordRow:
    """Values that few records share, that many share, that are empty."""
    return RecordRow(
        seq,
        seq,
        1,
        "tls.sign",
        "ok",
        f"k{seq % 3}" if seq % 7 else "",
        1,
        f"h{seq % 5}" if seq % 4 else "",
        f"p{seq % 2}",
        f"r{seq}" if seq % 6 else "",
        b"body",
        b"salt",
        b"entry",
        b"leaf",
        "tls",
    )


def append(journal: SqliteJournal, first: int, count: int) -> None:
    with journal.transaction() as tx:
        tx.append([record(seq) for seq in range(first, first + count)])


def reached(path: Path) -> tuple[int, ...]:
    """Up to where the index goes: by key, handle, principal and request."""
    with closing(sqlite3.connect(path)) as connection:
        found = dict(connection.execute("SELECT field, through FROM log_indexed").fetchall())
    assert found.keys() == set(FIELDS.values())
    return tuple(found[field] for field in FIELDS.values())


def check_exact(path: Path) -> int:
    """Gives the number of records."""
    with closing(SqliteRegistry(path)) as registry:
        rows = registry.records_from(0, 100_000)
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT field, value, seq FROM log_index").fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    upto = reached(path)
    assert all(-1 <= one < len(rows) for one in upto)
    assert sorted(found) == sorted(
        (field, getattr(row, column), row.seq)
        for (column, field), one in zip(FIELDS.items(), upto, strict=True)
        for row in rows[: one + 1]
        if getattr(row, column)
    )
    check_searches(path, rows)
    return len(rows)


def check_searches(path: Path, rows: list[RecordRow]) -> None:
    memory = MemoryStore()
    with memory.transaction() as tx:
        tx.append(rows)
    with closing(SqliteLogReader(path)) as reader:
        for query in queries(len(rows)):
            assert reader.search(query).rows == memory.search(query).rows, query
            assert reader.count(query, "handle") == memory.count(query, "handle"), query


def queries(size: int) -> Iterator[RecordsQuery]:
    for oldest_first in (False, True):
        for asked in (
            RecordsQuery(key_id="k1"),
            RecordsQuery(handle_id="h3", version=1),
            RecordsQuery(principal="p1", limit=size + 1),
            RecordsQuery(request_id=f"r{size - 1}"),
            RecordsQuery(handle_id="", limit=size + 1),
        ):
            yield msgspec.structs.replace(asked, oldest_first=oldest_first)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate_sqlite(tmp_path / "registry.db")
    return tmp_path / "registry.db"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_INDEX_EVERY", EVERY)
    monkeypatch.setattr(limits, "LOG_INDEX_ROWS_MAX", AT_ONCE)


# --- filling -------------------------------------------------------------------------------------


def fill_all(journal: SqliteJournal) -> None:
    """20 records; each of the last commits sees to one column."""
    append(journal, 0, 17)
    for seq in (17, 18, 19):
        append(journal, seq, 1)


@SMALL
def test_commits_see_to_one_column_each_when_enough_wait(path: Path) -> None:
    with closing(SqliteJournal(path)) as journal:
        for first, count, expected in (
            (0, 7, (-1, -1, -1, -1)),
            (7, 1, (7, -1, -1, -1)),
            (8, 1, (7, 8, -1, -1)),
            (9, 1, (7, 8, 9, -1)),
            (10, 1, (7, 8, 9, 10)),
            (11, 3, (7, 8, 9, 10)),
            (14, 2, (15, 8, 9, 10)),
            (16, 20, (15, 28, 9, 10)),
        ):
            append(journal, first, count)
            assert reached(path) == expected
            check_exact(path)


@SMALL
def test_what_waits_is_known_after_a_start(path: Path) -> None:
    for first in range(0, 14, 2):
        with closing(SqliteJournal(path)) as journal:
            append(journal, first, 2)
    assert reached(path) == (7, 9, 11, 13)
    check_exact(path)


@SMALL
def test_a_log_that_is_far_behind_is_caught_up_with(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pieces, whatever else a commit does; searches are right at each."""
    with closing(SqliteJournal(path)) as journal, monkeypatch.context() as patch:
        patch.setattr(limits, "LOG_INDEX_EVERY", 10**6)
        append(journal, 0, 70)
    assert reached(path) == (-1, -1, -1, -1)
    passed = []
    with closing(SqliteJournal(path)) as journal:
        for seq in range(70, 86):
            append(journal, seq, 1)
            check_exact(path)
            passed.append(reached(path))
    assert passed[:3] == [(19, -1, -1, -1), (19, 19, -1, -1), (19, 19, 19, -1)]
    assert passed[3::4] == [(upto,) * 4 for upto in (19, 39, 59, 79)]


@SMALL
def test_few_statements_are_added_to_a_commit(path: Path) -> None:
    """Each lets go of the interpreter: none where nothing is filled, two where it is."""
    said: list[str] = []
    with closing(SqliteJournal(path)) as journal:
        append(journal, 0, 1)
        journal._connection.set_trace_callback(said.append)  # noqa: SLF001  what it runs
        append(journal, 1, 1)
        usual = len(said)
        append(journal, 2, 8)
        assert (len(said) - usual, reached(path)[0]) == (usual + 2, 9)
        with journal.transaction():
            said.clear()
        assert said == ["COMMIT"]


@SMALL
def test_what_is_in_the_index_already_is_in_no_commits_way(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO log_index VALUES (1, 'k1', 1)")
        connection.commit()
    with closing(SqliteJournal(path)) as journal:
        append(journal, 0, 8)
    assert reached(path)[0] == 7
    assert check_exact(path) == 8


# --- failing and crashing ------------------------------------------------------------------------


class Connection:
    """Does something before, or after, one of the statements of a fill, or before the commit."""

    def __init__(self, real: sqlite3.Connection, start: str, do: Any, *, after: bool) -> None:  # noqa: ANN401  any call
        self.real = real
        self._start = start
        self._do = do
        self._after = after

    def execute(self, sql: str, *values: Any) -> Any:  # noqa: ANN401  as the driver's
        hit = sql.startswith(self._start)
        if hit and not self._after:
            self._do()
        done = self.real.execute(sql, *values)
        if hit and self._after:
            self._do()
        return done

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever else a connection has
        return getattr(self.real, name)


STEPS = pytest.mark.parametrize(
    ("start", "after"),
    [
        ("INSERT OR IGNORE INTO log_index", False),
        ("INSERT OR IGNORE INTO log_index", True),
        ("UPDATE log_indexed", False),
        ("COMMIT", False),
        ("COMMIT", True),
    ],
)


def watch(journal: SqliteJournal, start: str, do: Any, *, after: bool) -> None:  # noqa: ANN401  any call
    watched: Any = Connection(journal._connection, start, do, after=after)  # noqa: SLF001  the seam
    journal._connection = watched  # noqa: SLF001  as above


@STEPS
@SMALL
def test_a_crash_leaves_it_exact(path: Path, start: str, *, after: bool) -> None:
    """What the files hold then is read again, and gone on with."""
    crashed = path.with_name("crashed.db")

    def copy() -> None:
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")

    with closing(SqliteJournal(path)) as journal:
        append(journal, 0, 5)
        watch(journal, start, copy, after=after)
        append(journal, 5, 5)
    kept = start == "COMMIT" and after
    assert check_exact(crashed) == (10 if kept else 5)
    assert reached(crashed) == (9 if kept else -1, -1, -1, -1)
    with closing(SqliteJournal(crashed)) as journal:
        append(journal, 10 if kept else 5, 9)
    check_exact(crashed)
    assert reached(crashed) == ((9, 18, -1, -1) if kept else (13, -1, -1, -1))


@STEPS
@SMALL
def test_a_step_that_fails_leaves_it_exact(path: Path, start: str, *, after: bool) -> None:
    """With it the whole commit, unless that was done; the next one counts again."""

    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with closing(SqliteJournal(path)) as journal:
        append(journal, 0, 5)
        real = journal._connection  # noqa: SLF001  the seam
        watch(journal, start, fail, after=after)
        with pytest.raises(LogUnavailable, match="disk I/O"):
            append(journal, 5, 5)
        journal._connection = real  # noqa: SLF001  as above
        size = check_exact(path)
        assert size == (10 if start == "COMMIT" and after else 5)
        append(journal, size, 3)
        assert reached(path) == ((9, 12, -1, -1) if size == 10 else (7, -1, -1, -1))
        check_exact(path)


KILLED = f"""
import pathlib, sys
from keystead import limits
from keystead.store.sqlite_journal import SqliteJournal
from unit.store.test_log_index import append
limits.LOG_INDEX_EVERY, limits.LOG_INDEX_ROWS_MAX = {EVERY}, {AT_ONCE}
journal = SqliteJournal(pathlib.Path(sys.argv[1]))
with journal.transaction() as tx:
    at = tx.last_sequence() + 1
print("begun", flush=True)
while True:
    append(journal, at, {KILLED_COMMIT})
    at += {KILLED_COMMIT}
"""


def test_killed_while_it_fills(path: Path) -> None:
    """At any instant of commits of which most fill the index by some column."""
    size = 0
    for number in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, path],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        ) as killed:
            assert killed.stdout is not None
            assert killed.stdout.readline() == b"begun\n"
            time.sleep(0.05 + 0.013 * number)
            killed.send_signal(signal.SIGKILL)
        assert killed.returncode == -signal.SIGKILL
        grown = check_exact(path)
        assert grown > size
        assert grown - 1 - min(reached(path)) < EVERY + 5 * KILLED_COMMIT
        size = grown


# --- forgetting ----------------------------------------------------------------------------------


@SMALL
def test_what_is_forgotten_leaves_the_index(path: Path) -> None:
    """Of records that are in it, and of those that wait; and what waits never comes into it."""
    with closing(SqliteJournal(path)) as journal:
        fill_all(journal)
        append(journal, 20, 5)
        assert reached(path) == (24, 17, 18, 19)
        with journal.transaction() as tx:
            assert tx.forget([(3, 9), (17, 22)], OPS) == 13
        check_exact(path)
        for seq in range(25, 35):
            append(journal, seq, 1)
            check_exact(path)
    assert min(reached(path)) > 22
    with closing(sqlite3.connect(path)) as connection:
        left = connection.execute(
            "SELECT DISTINCT field FROM log_index WHERE seq BETWEEN 3 AND 9 ORDER BY 1"
        ).fetchall()
    assert left == [(FIELDS["key_id"],)]


@SMALL
def test_a_forgetting_that_fails_leaves_the_index_whole(path: Path) -> None:
    with closing(SqliteJournal(path)) as journal:
        fill_all(journal)
        with pytest.raises(ZeroDivisionError):
            forget_and_fail(journal)
    assert check_exact(path) == 20


def forget_and_fail(journal: SqliteJournal) -> None:
    with journal.transaction() as tx:
        assert tx.forget([(0, 9)], OPS) == 10
        raise ZeroDivisionError


# --- bounds --------------------------------------------------------------------------------------


@pytest.fixture
def halfway(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteLogReader]:
    """1,000 records of which 500 are in the index; a search looks at 100."""
    monkeypatch.setattr(limits, "LOG_INDEX_EVERY", 10**6)
    with closing(SqliteJournal(path)) as journal:
        append(journal, 0, 996)
        monkeypatch.setattr(limits, "LOG_INDEX_EVERY", 1)
        monkeypatch.setattr(limits, "LOG_INDEX_ROWS_MAX", 500)
        for seq in range(996, 1_000):
            append(journal, seq, 1)
    assert reached(path) == (499,) * 4
    monkeypatch.setattr(limits, "LOG_SCAN_ROWS_MAX", 100)
    with closing(SqliteLogReader(path)) as reader:
        yield reader


def look(reader: SqliteLogReader, **asked: Any) -> RecordsPage:  # noqa: ANN401  fields of a query
    return reader.search(RecordsQuery(**{"principal": "p1", "limit": 200, **asked}))


@pytest.mark.parametrize(
    ("asked", "found", "following"),
    [
        ({}, 50, 900),  # as much of what waits as may be looked at
        ({"before": 560}, 30, 500),  # what waits is more than half of that, so it is alone
        ({"before": 520}, 80, 361),  # 20 that wait are looked at, and 80 be found
        ({"before": 500}, 100, 301),
        ({"before": 150}, 75, None),
        ({"oldest_first": True}, 100, 199),
        ({"oldest_first": True, "after": 399}, 50, 499),
        ({"oldest_first": True, "after": 399, "before": 540}, 60, 519),
        ({"oldest_first": True, "after": 499}, 50, 599),
        ({"oldest_first": True, "after": 949}, 25, None),
        ({"oldest_first": True, "version": 9}, 0, 199),
        ({"version": 9}, 0, 900),
    ],
    ids=str,
)
def test_a_look_is_bounded_on_both_sides_of_the_index(
    halfway: SqliteLogReader, asked: dict[str, Any], found: int, following: int | None
) -> None:
    page = look(halfway, **asked)
    assert len(page.rows) == found
    if following is None:
        assert page.reach.end
    else:
        assert (page.reach.next, page.reach.end) == (following, False)


@pytest.mark.parametrize("oldest_first", [False, True], ids=["newest", "oldest"])
@pytest.mark.parametrize("most", [1, 2, 3, 7, 100, 1_001, 3_000])
def test_looks_meet_at_the_edge_of_the_index(
    halfway: SqliteLogReader, monkeypatch: pytest.MonkeyPatch, most: int, *, oldest_first: bool
) -> None:
    """However few each is: nothing is left out, nothing comes twice."""
    monkeypatch.setattr(limits, "LOG_SCAN_ROWS_MAX", most)
    asked: dict[str, Any] = {"oldest_first": oldest_first, "after": 459, "before": 540}
    way = "after" if oldest_first else "before"
    seqs: list[int] = []
    for _ in range(200):
        page = look(halfway, handle_id="h3", principal=None, limit=3, **asked)
        seqs += [row.seq for row in page.rows]
        if page.reach.end:
            break
        asked[way] = page.reach.next
    expected = [seq for seq in range(460, 540) if record(seq).handle_id == "h3"]
    assert seqs == (expected if oldest_first else expected[::-1])
