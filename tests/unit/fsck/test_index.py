"""What fsck says of the log's own index: whole, behind, forgotten from, and altered."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from keystead import limits
from unit.fsck.conftest import Verify, places
from unit.fsck.written import writing

SIZE, INDEXED = 700, 600
BEHIND = 10**6
AFTER = ("600", "601", "602")
COLUMNS = ("key_id", "handle_id", "principal", "request_id")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log that is in its index up to 600, some of it forgotten on both sides."""
    monkeypatch.setattr(limits, "LOG_INDEX_EVERY", INDEXED - 3)
    with writing(tmp_path / "data") as log:
        log.grow(INDEXED - 3)
        for _ in range(3):  # each commit sees to one column
            log.append(1)
        monkeypatch.setattr(limits, "LOG_INDEX_EVERY", BEHIND)
        log.append(SIZE - INDEXED - 1)
        log.forget([(20, 23), (30, 30), (590, 596), (605, 610)])
    return tmp_path / "data"


@pytest.fixture
def db(data: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(data / "registry.db", isolation_level=None)) as connection:
        yield connection


def test_an_index_that_is_behind_is_sound(db: sqlite3.Connection, fsck: Verify) -> None:
    reached = db.execute("SELECT through FROM log_indexed ORDER BY field").fetchall()
    assert reached == [(INDEXED - 4,), (INDEXED - 3,), (INDEXED - 2,), (INDEXED - 1,)]
    assert fsck().shown == []


@pytest.mark.parametrize("column", COLUMNS)
def test_an_entry_that_was_removed(db: sqlite3.Connection, fsck: Verify, column: str) -> None:
    value = db.execute(f"SELECT {column} FROM records WHERE seq = 299").fetchone()[0]  # noqa: S608  named above
    done = db.execute("DELETE FROM log_index WHERE value = ? AND seq = 299", (value,))
    assert done.rowcount == 1
    report = fsck()
    assert places(report) == [f"log_index, {column} of record 299"]
    assert (report.shown[0].met, report.findings) == ("none", 1)


def test_entries_that_were_removed_are_counted(db: sqlite3.Connection, fsck: Verify) -> None:
    db.execute("DELETE FROM log_index WHERE field = 1 AND seq BETWEEN 250 AND 259")
    assert places(fsck()) == [f"log_index, key_id of record {seq}" for seq in range(250, 260)]


def test_an_entry_that_was_made_up(db: sqlite3.Connection, fsck: Verify) -> None:
    there, other = (
        db.execute("SELECT key_id FROM records WHERE seq = ?", (seq,)).fetchone()[0]
        for seq in (299, 300)
    )
    assert there != other
    db.execute("UPDATE log_index SET value = ? WHERE field = 1 AND seq = 299", (other,))
    report = fsck()
    assert places(report) == ["log_index, key_id of record 299"] * 2
    assert [finding.met for finding in report.shown] == ["none", "another entry"]


def test_a_handle_that_forgetting_left(db: sqlite3.Connection, fsck: Verify) -> None:
    handle = db.execute("SELECT handle_id FROM records WHERE seq = 40").fetchone()[0]
    db.execute("INSERT INTO log_index VALUES (2, ?, 21)", (handle,))
    assert places(fsck()) == ["log_index, handle_id of record 21"]


def test_an_index_that_says_it_goes_further(db: sqlite3.Connection, fsck: Verify) -> None:
    """Searches would leave out what is past it."""
    db.execute("UPDATE log_indexed SET through = through + 3")
    found = places(fsck())
    assert found[0] == "log_index, key_id of record 597"
    assert {place.rpartition(" ")[2] for place in found} <= {"597", "598", "599", *AFTER}
    assert not {*AFTER} - {place.rpartition(" ")[2] for place in found}


def test_an_altered_record_is_the_record_s_finding_alone(
    db: sqlite3.Connection, fsck: Verify
) -> None:
    """The index has what was logged, and so is right."""
    db.execute("UPDATE records SET handle_id = 'h0' WHERE seq = 299")
    db.execute("DELETE FROM records WHERE seq = 400")
    assert places(fsck())[:2] == ["record 299, column handle_id", "record 400"]
    assert not any("log_index" in place for place in places(fsck()))


def test_a_registry_that_does_not_say_how_far_it_goes(db: sqlite3.Connection, fsck: Verify) -> None:
    db.execute("DELETE FROM log_indexed")
    assert {*places(fsck())} == {f"log_indexed, {column}" for column in COLUMNS}


def test_a_damaged_page_of_it(db: sqlite3.Connection, data: Path, fsck: Verify) -> None:
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'log_index'").fetchone()[0]
    db.close()
    with (data / "registry.db").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))
    report = fsck()
    assert {place.partition(" to ")[0] for place in places(report)} == {
        f"log_index, {column} of records 0" for column in COLUMNS
    }
    assert len(report.shown) == 4
    assert "malformed" in report.shown[0].met
