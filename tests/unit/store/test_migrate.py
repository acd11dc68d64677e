"""Migration: all or nothing, repeatable, and what is not ours or not yet ours is left alone."""

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from keystead.errors import StartupError
from keystead.ports import EpochRow, HistoryQuery, HistoryRow, ObjectRow, RecordRow, RecordsQuery
from keystead.store.migrate import alembic_config, migrate_sqlite
from keystead.store.schema import METADATA
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.store.sqlite_search import SqliteLogReader

HEAD = ScriptDirectory.from_config(alembic_config()).get_current_head()


def tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    return {name for (name,) in rows}


def execute(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(sql)
    connection.commit()
    connection.close()


def check_refused(path: Path, said: str) -> StartupError:
    with pytest.raises(StartupError, match=said) as caught:
        migrate_sqlite(path)
    assert str(path) in caught.value.message
    return caught.value


def test_a_new_database_is_made(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    assert migrate_sqlite(path) == HEAD
    assert tables(path) == {*METADATA.tables, "alembic_version"}


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.touch()
    assert migrate_sqlite(path) == HEAD
    assert tables(path) >= set(METADATA.tables)


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    migrate_sqlite(path)
    journal = SqliteJournal(path)
    with journal.transaction() as tx:
        tx.put_meta("deployment", b"d1")
    journal.close()
    before = path.read_bytes()
    assert migrate_sqlite(path) == HEAD
    assert path.read_bytes() == before


def test_a_folder_of_any_name_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "a ?b=c#d%20é"
    folder.mkdir()
    migrate_sqlite(folder / "registry.db")
    assert (folder / "registry.db").exists()
    SqliteJournal(folder / "registry.db").close()
    assert sorted(tmp_path.iterdir()) == [folder]


def test_the_chain_of_migrations_has_one_head() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    assert script.get_heads() == [HEAD]
    assert script.get_bases() == ["0001"]


def test_the_database_is_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    migrate_sqlite(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


# --- what is refused -----------------------------------------------------------------------------


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    migrate_sqlite(path)
    execute(path, "UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    error = check_refused(path, "schema 9999")
    assert "newer Keystead" in error.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [1, 15, 100, 5_000])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"x" * size)
    error = check_refused(path, "damaged|not a database|cannot open")
    assert "Nothing was changed" in error.hint
    assert path.read_bytes() == b"x" * size
    assert [item.name for item in tmp_path.iterdir()] == ["registry.db"]


@pytest.mark.parametrize("at", [0, 16, 18, 28, 100, 105, 4096])
def test_a_damaged_database_is_refused_or_unharmed(tmp_path: Path, at: int) -> None:
    """Its first pages overwritten: the header, the schema's page, the first table's."""
    path = tmp_path / "registry.db"
    migrate_sqlite(path)
    data = bytearray(path.read_bytes())
    data[at : at + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(StartupError) as caught:
        start(path)
    assert caught.value.hint


def start(path: Path) -> None:
    """What a node does first; damage behind the schema shows later, SQLite's own check finds it."""
    migrate_sqlite(path)
    SqliteJournal(path).close()
    connection = sqlite3.connect(path)
    [first, *_] = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    if first != "ok":
        raise StartupError(first, hint="found by the integrity check")


def test_a_database_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    migrate_sqlite(path)
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(StartupError) as caught:
        start(path)
    assert "restore" in caught.value.hint


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    error = check_refused(tmp_path / "none" / "registry.db", "unable to open")
    assert "write permission" in error.hint
    assert not (tmp_path / "none").exists()


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.mkdir()
    check_refused(path, "Is a directory|unable to open")
    assert list(path.iterdir()) == []


def test_a_read_only_file_is_refused(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """By permission bits; root, whom they do not stop, gets a read-only disk."""
    root = os.geteuid() == 0
    path = (request.getfixturevalue("small_disk") if root else tmp_path) / "registry.db"
    migrate_sqlite(path)
    if root:
        request.getfixturevalue("read_only")()
    else:
        path.chmod(0o400)
        path.parent.chmod(0o500)
    try:
        with pytest.raises(StartupError) as caught:
            start(path)
        assert "permission" in caught.value.hint
        with pytest.raises(StartupError, match="unable to open"):
            migrate_sqlite(path.with_name("other.db"))
    finally:
        if not root:
            path.parent.chmod(0o700)


# --- all or nothing ------------------------------------------------------------------------------


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The last table is in the way: those made before it must be gone."""
    path = tmp_path / "registry.db"
    last = list(METADATA.tables)[-1]
    execute(path, f"CREATE TABLE {last} (x)")
    error = check_refused(path, "already exists")
    assert "Nothing was changed" in error.hint
    assert tables(path) == {last}
    execute(path, f"DROP TABLE {last}")
    assert migrate_sqlite(path) == HEAD


def test_a_migration_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    program = (
        "import os, sys, pathlib\n"
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        "from keystead.store.migrate import migrate_sqlite\n"
        "real, made = op.create_table, []\n"
        "def create(*args, **options):\n"
        "    made.append(1)\n"
        "    if len(made) == 7: os.kill(os.getpid(), 9)\n"
        "    return real(*args, **options)\n"
        "op.create_table = create\n"
        "migrate_sqlite(pathlib.Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    assert tables(path) == set()
    assert migrate_sqlite(path) == HEAD


@pytest.mark.root
def test_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    path = small_disk / "registry.db"
    ballast.write_bytes(bytes(700 * 1024))
    error = check_refused(path, "full|disk I/O error")
    assert "room" in error.hint
    ballast.unlink()
    if path.exists():
        assert tables(path) == set()
    assert migrate_sqlite(path) == HEAD


def test_two_at_once_make_one_schema(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    program = (
        "import sys, pathlib\n"
        "from keystead.store.migrate import migrate_sqlite\n"
        "print(migrate_sqlite(pathlib.Path(sys.argv[1])))\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    ended = [process.communicate() for process in started]
    assert [out.decode().strip() for out, _ in ended] == [HEAD] * 3, ended
    assert tables(path) == {*METADATA.tables, "alembic_version"}


def test_sqlalchemy_sees_what_the_driver_sees(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    migrate_sqlite(path)
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    assert set(sa.inspect(engine).get_table_names()) == tables(path)
    engine.dispose()


# --- from one version to the next ----------------------------------------------------------------


def test_a_log_from_before_its_search_is_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Purposes from the bodies, more than one batch of them; times by blocks of 1,024 records."""
    path = tmp_path / "registry.db"
    migrate_to("0001", path, monkeypatch)
    bodies = [b'{"seq":0,"purpose":"jwt"}', b"{}", None, b"no json", b'{"purpose":7}']
    rows = [
        (seq, 20_000 - seq, bodies[seq % 5] if seq else b'{"purpose":"tls"}')
        for seq in range(10_300)
    ]
    connection = sqlite3.connect(path)
    connection.executemany(
        "INSERT INTO records VALUES (?1,?2,1,'op','ok','k',1,'h','p','r',?3,x'00',x'01',x'02')",
        rows,
    )
    connection.commit()
    connection.close()
    assert migrate_sqlite(path) == HEAD
    connection = sqlite3.connect(path)
    found = dict(connection.execute("SELECT seq, purpose FROM records").fetchall())
    blocks = connection.execute("SELECT * FROM log_blocks ORDER BY block").fetchall()
    connection.close()
    assert found == {seq: "jwt" if seq % 5 == 0 else "" for seq in range(1, 10_300)} | {0: "tls"}
    assert len(blocks) == 11
    assert blocks[0] == (0, 20_000 - 1_023, 20_000)
    assert blocks[10] == (10, 20_000 - 10_299, 20_000 - 10_240)


def migrate_to(revision: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a version of that time did, which knew no later migration."""

    class Earlier:
        @staticmethod
        def upgrade(config: Config, _revision: str) -> None:
            command.upgrade(config, revision)

    with monkeypatch.context() as patch:
        patch.setattr(ScriptDirectory, "get_current_head", lambda _: revision)
        patch.setattr("keystead.store.migrate.command", Earlier)
        assert migrate_sqlite(path) == revision


OBJECTS = [
    ObjectRow("key", "k1", "shop", 7, 12, b"\x00doc\xff", b"mac-1"),
    ObjectRow("key", "k2", "other", 1, 3, b"doc-2", b"mac-2"),
    ObjectRow("tenant", "k1", "shop", 2, 12, b"", b"mac-3"),
]


def folder_from_before_history(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made by migrations up to 0003, with rows in it."""
    migrate_to("0003", path, monkeypatch)
    journal = SqliteJournal(path)
    with journal.transaction() as tx:
        for row in OBJECTS:
            tx.put_object(row, previous_revision=0)
        tx.set_epoch(EpochRow(12, b"root", b"mac"))
    journal.close()
    assert "object_history" not in tables(path)


def test_a_folder_from_before_history_begins_with_its_present_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At no record and no time, as it was written; and it goes on from there."""
    path = tmp_path / "registry.db"
    folder_from_before_history(path, monkeypatch)
    assert migrate_sqlite(path) == HEAD
    first = [beginning(OBJECTS[at]) for at in (0, 2, 1)]
    registry, reader, journal = SqliteRegistry(path), SqliteLogReader(path), SqliteJournal(path)
    assert list(registry.objects()) == OBJECTS
    assert reader.history(HistoryQuery()) == first
    assert reader.history(HistoryQuery(at_seq=-1)) == first
    assert reader.history(HistoryQuery(at_ms=0)) == first
    new = ObjectRow("key", "k1", "shop", 8, 13, b"new", b"mac-4")
    changed = HistoryRow("key", "k1", "shop", 8, 13, 40, 9_000, b"new", b"mac-4")
    with journal.transaction() as tx:
        tx.put_object(new, previous_revision=7)
        tx.put_history([msgspec.structs.replace(first[0], seq=39, doc=b"other"), changed])
    assert reader.history(HistoryQuery()) == [changed, *first]
    assert reader.history(HistoryQuery(at_seq=39)) == first
    assert reader.history(HistoryQuery(at_seq=40, object_id="k1")) == [changed, first[1]]
    for each in (registry, reader, journal):
        each.close()
    assert migrate_sqlite(path) == HEAD
    again = SqliteLogReader(path)
    assert again.history(HistoryQuery()) == [changed, *first]
    again.close()


def beginning(row: ObjectRow) -> HistoryRow:
    values = msgspec.structs.asdict(row)
    return HistoryRow(**values, seq=-1, time_ms=0)


def test_a_folder_from_before_history_that_fails_to_migrate_is_unharmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index in the way is made last: the table filled before it must be gone."""
    path = tmp_path / "registry.db"
    folder_from_before_history(path, monkeypatch)
    execute(path, "CREATE INDEX history_by_object ON objects (name)")
    before = tables(path)
    error = check_refused(path, "already exists")
    assert "Nothing was changed" in error.hint
    assert tables(path) == before
    execute(path, "DROP INDEX history_by_object")
    assert migrate_sqlite(path) == HEAD
    reader = SqliteLogReader(path)
    assert len(reader.history(HistoryQuery())) == len(OBJECTS)
    reader.close()


def test_a_log_from_before_its_own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is searched at once, and filled by commits; of what it drops no name stays in the file."""
    path = tmp_path / "registry.db"
    migrate_to("0004", path, monkeypatch)
    connection = sqlite3.connect(path)
    connection.executemany(
        "INSERT INTO records VALUES (?1,?1,1,'tls.sign','ok','k1',1,'canary-handle-'||?1,"
        "'canary-principal-'||?1,'canary-request-'||?1,x'00',x'00',x'01',x'02','tls')",
        [(seq,) for seq in range(15_000)],
    )
    connection.commit()
    connection.close()
    assert migrate_sqlite(path) == HEAD
    journal, reader = SqliteJournal(path), SqliteLogReader(path)
    assert reader.scrub()
    assert canaries(path) < 45_000 + 100  # each once, in its record; the indexes had them, too
    reached = []
    for seq in range(15_000, 15_010):
        check_found(reader, 7, 4_100, 14_900)
        with journal.transaction() as tx:
            tx.append([RecordRow(seq, seq, 1, "o", "ok", "k", 1, "h", "", "", b"", b"", b"", b"")])
        row = journal._connection.execute("SELECT through FROM log_indexed")  # noqa: SLF001  no port gives it
        reached.append(tuple(found for (found,) in row))
    assert reached[:2] == [(12_287, -1, -1, -1), (12_287, 12_287, -1, -1)]
    assert reached[3] == (12_287,) * 4
    assert reached[7] == reached[9] == (15_004, 15_005, 15_006, 15_007)
    check_found(reader, 7, 4_100, 14_900)
    for first in range(0, 15_000, 500):
        with journal.transaction() as tx:
            assert tx.forget([(first, first + 499)], ["tls.sign"]) == 500
    assert reader.scrub()
    for each in (reader, journal):
        each.close()
    assert canaries(path) < 100  # in the slack of pages, as docs/log.md has it


def canaries(path: Path) -> int:
    return len(re.findall(rb"canary-[a-z]+-[0-9]+", path.read_bytes()))


def check_found(reader: SqliteLogReader, *seqs: int) -> None:
    for seq in seqs:
        page = reader.search(RecordsQuery(handle_id=f"canary-handle-{seq}"))
        assert [row.seq for row in page.rows] == [seq]
        assert page.reach.end
