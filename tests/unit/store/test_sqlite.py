"""SQLite as it is opened here, and what a failing or full disk is to a caller."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from keystead.errors import LogUnavailable, StartupError
from keystead.ports import EpochRow, RecordRow
from keystead.store import sqlite
from keystead.store.migrate import migrate_sqlite
from keystead.store.sqlite import connect, unavailable
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_registry import SqliteRegistry

RECORD = RecordRow(0, 1, 1, "op", "ok", "k", 1, "h", "p", "r", b"body", b"salt", b"e", b"l")
BIG = bytes(64 * 1024)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate_sqlite(tmp_path / "registry.db")
    return tmp_path / "registry.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    opened = SqliteJournal(path)
    yield opened
    opened.close()


def append(
    journal: SqliteJournal,
    rows: list[RecordRow],
    *,
    epoch: int = 0,
    then: Callable[[], None] | None = None,
) -> None:
    with journal.transaction() as tx:
        if epoch:
            tx.set_epoch(EpochRow(epoch, b"root", b"mac"))
        tx.append(rows)
        if then is not None:
            then()


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def record(seq: int, body: bytes = b"body") -> RecordRow:
    return msgspec.structs.replace(RECORD, seq=seq, body=body)


# --- opening -------------------------------------------------------------------------------------


def test_a_commit_is_an_fsync(path: Path) -> None:
    """WAL with synchronous=FULL (2): durable means that."""
    connection = connect(path)
    assert (pragma(connection, "journal_mode"), pragma(connection, "synchronous")) == ("wal", 2)
    assert pragma(connection, "foreign_keys") == 1
    assert connection.isolation_level is None
    connection.close()


def test_a_reader_cannot_write(path: Path) -> None:
    connection = connect(path, read_only=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("INSERT INTO meta VALUES ('a', x'00')")
    connection.close()


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(StartupError, match="unable to open") as caught:
            connect(tmp_path / "none.db", read_only=read_only)
        assert "Nothing was changed" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 50])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "registry.db").write_bytes(content)
    with pytest.raises(StartupError, match="cannot open the registry"):
        connect(tmp_path / "registry.db", read_only=True)
    assert (tmp_path / "registry.db").read_bytes() == content


def test_a_database_of_other_tables_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "registry.db")
    other.execute("CREATE TABLE notes (x)")
    other.close()
    with pytest.raises(StartupError, match="no such table"):
        connect(tmp_path / "registry.db")


def test_a_disk_without_shared_memory_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There SQLite leaves the old mode in place, and says so."""
    closed: list[bool] = []

    class Elsewhere(sqlite3.Connection):
        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            if sql == "PRAGMA journal_mode=WAL":
                sql = "SELECT 'delete'"
            return super().execute(sql, *values)  # type: ignore[arg-type]  # as they came

        def close(self) -> None:
            closed.append(True)
            super().close()

    real = sqlite3.connect

    def elsewhere(*args: object, **options: object) -> sqlite3.Connection:
        return real(*args, factory=Elsewhere, **options)  # type: ignore[call-overload,no-any-return]  # as they came

    monkeypatch.setattr("sqlite3.connect", elsewhere)
    with pytest.raises(StartupError, match="'delete'") as caught:
        connect(path)
    assert "local disk" in caught.value.hint
    assert closed == [True]


@pytest.mark.parametrize("name", ["a b.db", "a?b=c.db", "a#b.db", "a%20b.db", "é.db"])
def test_a_file_of_any_name_will_do(tmp_path: Path, name: str) -> None:
    migrate_sqlite(tmp_path / name)
    connect(tmp_path / name).close()
    assert {item.name.removesuffix("-wal").removesuffix("-shm") for item in tmp_path.iterdir()} == {
        name
    }


# --- failing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("database or disk is full", "make room"),
        ("disk I/O error", "vault's log"),
        ("database is locked", "vault's log"),
    ],
)
def test_a_failure_says_what_to_do(said: str, hint: str) -> None:
    error = unavailable(sqlite3.OperationalError(said))
    assert (said in error.message, hint in error.hint) == (True, True)
    assert error.retry_after_s


def test_another_writer_is_waited_for_and_then_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_MS", 50)
    journal = SqliteJournal(path)
    other = connect(path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnavailable, match="locked"), journal.transaction():
        pytest.fail("two writers at once")
    other.execute("ROLLBACK")
    with journal.transaction() as tx:
        tx.append([RECORD])
    assert other.execute("SELECT count(*) FROM records").fetchone() == (1,)
    other.close()
    journal.close()


def test_a_transaction_in_a_transaction_is_refused(journal: SqliteJournal, path: Path) -> None:
    """There is one at a time: neither is applied."""
    with pytest.raises(LogUnavailable):
        append(journal, [RECORD], then=lambda: append(journal, [record(1)]))
    registry = SqliteRegistry(path)
    assert registry.last_sequence() == -1
    registry.close()
    with journal.transaction() as tx:
        tx.append([RECORD])


def test_a_statement_that_fails_takes_the_commit_with_it(
    journal: SqliteJournal, path: Path
) -> None:
    with pytest.raises(LogUnavailable, match="UNIQUE"):
        append(journal, [RECORD, RECORD], epoch=1)
    registry = SqliteRegistry(path)
    assert registry.epoch() is None
    registry.close()


def test_a_database_that_went_away_is_log_unavailable(path: Path) -> None:
    journal, registry = SqliteJournal(path), SqliteRegistry(path)
    journal.close()
    registry.close()
    with pytest.raises(LogUnavailable), journal.transaction():
        pytest.fail("a closed database began a transaction")
    for read in (
        registry.epoch,
        registry.objects,
        registry.last_sequence,
        lambda: registry.meta("deployment"),
        lambda: registry.records_from(0, 1),
    ):
        with pytest.raises(LogUnavailable):
            read()


def test_a_failed_rollback_is_log_unavailable_too(journal: SqliteJournal) -> None:
    """A disk that fails the commit may fail the rollback: what comes out is still the first."""

    class Failing:
        in_transaction = True

        def execute(self, sql: str, *_values: object) -> None:
            if sql != "BEGIN IMMEDIATE":
                raise sqlite3.OperationalError(f"disk I/O error in {sql}")

        executemany = execute

    real = journal._connection  # noqa: SLF001  the seam
    journal._connection = Failing()  # type: ignore[assignment]  # noqa: SLF001  the seam
    with pytest.raises(LogUnavailable, match="in COMMIT"), journal.transaction():
        pass
    with pytest.raises(KeyboardInterrupt), journal.transaction():
        raise KeyboardInterrupt
    journal._connection = real  # noqa: SLF001  the seam


def fill(journal: SqliteJournal) -> int:
    """Append until there is no room; gives how many fitted."""
    fitted: list[int] = []

    def fill_up() -> None:
        for seq in range(1_000):
            append(journal, [record(seq, BIG)], epoch=seq + 1)
            fitted.append(seq)

    with pytest.raises(LogUnavailable, match="full") as caught:
        fill_up()
    assert "make room" in caught.value.hint
    return len(fitted)


@pytest.mark.root
def test_a_full_disk(small_disk: Path) -> None:
    """Writes fail, nothing of them is applied, reads go on; with room it works by itself."""
    path = small_disk / "registry.db"
    ballast = small_disk / "ballast"
    migrate_sqlite(path)
    ballast.write_bytes(bytes(200 * 1024))
    journal, registry = SqliteJournal(path), SqliteRegistry(path)
    fitted = fill(journal)
    for _ in range(3):
        with pytest.raises(LogUnavailable):
            append(journal, [record(fitted, BIG), record(fitted + 1, BIG)], epoch=99)
    assert registry.last_sequence() == fitted - 1
    assert registry.epoch() == (EpochRow(fitted, b"root", b"mac") if fitted else None)
    ballast.unlink()
    with journal.transaction() as tx:
        assert tx.last_sequence() == fitted - 1
        tx.append([record(fitted, BIG)])
    registry.close()
    journal.close()
    again = SqliteRegistry(path)
    assert [row.seq for row in again.records_from(0, 1_000)] == list(range(fitted + 1))
    assert again.epoch() == (EpochRow(fitted, b"root", b"mac") if fitted else None)
    again.close()
    check_sound(path)


def check_sound(path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


@pytest.mark.root
def test_a_disk_that_turns_read_only(small_disk: Path, read_only: Callable[[], None]) -> None:
    path = small_disk / "registry.db"
    migrate_sqlite(path)
    read_only()
    with pytest.raises(StartupError) as caught:
        SqliteJournal(path)
    assert "permissions" in caught.value.hint
