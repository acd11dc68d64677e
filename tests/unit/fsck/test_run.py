"""What fsck says of whole logs: sound ones, growing ones, and those that lost a part."""

from __future__ import annotations

import ast
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from house.tree import imports, sources
from keystead import limits
from keystead.errors import MalformedRequest, StartupError
from keystead.fsck.run import Options, Report, verify
from keystead.store.migrate import migrate_sqlite
from unit.fsck.conftest import SIZE, Verify, places
from unit.fsck.written import ORIGIN, use, writing

SHARED = {"errors", "limits", "encoding", "crypto", "translog", "fsck", "keystead"}
"""What fsck may have in common with what wrote the log."""


def quiet(_at: int, _total: int, _found: int) -> None:
    pass


def test_it_shares_only_the_pure_tree_with_the_writer() -> None:
    tree = sources("src")
    modules = {source.module for source in tree}
    parts = {
        (target.target + "..").split(".")[1] or "keystead"
        for source in tree
        if source.part in SHARED
        for target in imports(source, modules)
        if target.target.partition(".")[0] == "keystead"
    }
    assert parts <= SHARED
    assert any(source.part == "fsck" and isinstance(source.tree, ast.Module) for source in tree)


def test_a_sound_log(fsck: Verify) -> None:
    report = fsck()
    assert (report.findings, report.shown, report.notes) == (0, [], [])
    assert (report.records, report.published, report.checkpoints) == (SIZE, SIZE - 1, 6)
    assert report.forgotten == 16
    assert report.log.startswith(f"{ORIGIN}+")
    assert "own word" in report.trust


def test_a_key_that_was_pinned(fsck: Verify, tmp_path: Path) -> None:
    with writing(tmp_path / "one") as log, writing(tmp_path / "two", seed=2) as other:
        assert fsck(key=log.key).findings == 0
        assert fsck(key=log.key).trust == "the one you gave"
        report = fsck(key=other.key)
    assert places(report)[:3] == ["vkey", "checkpoint", "policy"]
    assert report.findings == 3 + 6  # each kept checkpoint is another's, too


def test_a_log_of_nothing(tmp_path: Path) -> None:
    migrate_sqlite(tmp_path / "registry.db")
    report = verify(Options(data=tmp_path), quiet)
    assert (report.records, report.findings) == (0, 0)
    assert report.notes == ["no checkpoint is published"]


def test_a_log_that_was_never_published(data: Path, fsck: Verify) -> None:
    shutil.rmtree(data / "log")
    report = fsck()
    assert report.findings == 0
    assert report.trust == "none: no signature was checked"


def test_no_registry(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read"):
        verify(Options(data=tmp_path), quiet)
    (tmp_path / "registry.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StartupError, match="cannot be read"):
        verify(Options(data=tmp_path), quiet)


def test_beside_a_writer(tmp_path: Path) -> None:
    """What is committed and published while it reads is no finding, whenever it is."""
    with writing(tmp_path / "data") as log:
        log.grow(1100)
        steps: list[Callable[[], None]] = [lambda: log.forget([(3, 5)]), lambda: log.grow(300)]

        def meanwhile(_at: int, _total: int, _found: int) -> None:
            if steps:
                steps.pop()()

        assert verify(Options(data=log.data), meanwhile).findings == 0
        log.grow(80)
        report = verify(Options(data=log.data), quiet)
    assert (report.records, report.findings, report.forgotten) == (1481, 0, 3)


def test_an_anchor(tmp_path: Path, fsck: Verify) -> None:
    with writing(tmp_path / "again") as log:
        log.append(500)
        behind = log.note()
    other = behind.replace(b"\n500\n", b"\n501\n")
    assert places(fsck(anchor=("disk", other))) == ["anchor disk"]
    report = fsck(anchor=("disk", behind))  # of the same key, and of other records from 399 on
    assert places(report) == ["anchor disk"]
    assert "the first 399 are" in report.shown[0].means


def test_an_anchor_that_is_ahead(tmp_path: Path, fsck: Verify) -> None:
    with writing(tmp_path / "again") as log:
        log.append(800)
        ahead = log.note()
    [finding] = fsck(anchor=("disk", ahead)).shown
    assert finding.place == "anchor disk"
    assert "older database" in finding.means


# --- files ---------------------------------------------------------------------------------------


def test_files_that_are_none_of_the_log(data: Path, fsck: Verify) -> None:
    for name in ("index.html", "tile/0/7", "tile/0/000.p/300", "tile/0/x000/001", "tile/64/000"):
        (data / "log" / name).parent.mkdir(parents=True, exist_ok=True)
        (data / "log" / name).write_bytes(b"")
    (data / "log" / "link").symlink_to(data / "registry.db")
    assert sorted(places(fsck())) == [
        "index.html",
        "link",
        "tile/0/000.p/300",
        "tile/0/7",
        "tile/0/x000/001",
        "tile/64/000",
    ]


def test_what_a_crash_leaves_is_no_finding(data: Path, fsck: Verify) -> None:
    folder = data / "log"
    for name in ("checkpoint.new", "tile/0/001.new", "tile/0/002.p/9.new"):
        (folder / name).write_bytes(b"half")
    kept = folder / "tile/0/000.p"  # a full tile's partial forms
    kept.mkdir()
    (kept / "7").write_bytes((folder / "tile/0/000").read_bytes()[: 7 * 32])
    report = fsck()
    assert report.findings == 0
    assert report.notes == ["3 files were never put in place, as after a crash: harmless"]


def test_tiles_ahead_of_the_checkpoint(tmp_path: Path) -> None:
    """They are written first; they must agree with the records, and may not exceed them."""
    with writing(tmp_path / "data") as log:
        log.grow(300)
        log.append(280)
        log.tree.append([row.entry for row in log.rows[300:]])
        assert verify(Options(data=log.data), quiet).findings == 0
        partial = log.data / "log/tile/0/002.p/68"
        partial.write_bytes(b"x" + partial.read_bytes()[1:])
        whole = log.data / "log/tile/entries/001"
        whole.write_bytes(whole.read_bytes()[:-1] + b"x")
        report = verify(Options(data=log.data), quiet)
    assert places(report) == ["tile/entries/001, entry 255", "tile/0/002.p/68, hash 0"]


def test_tiles_beyond_the_records(tmp_path: Path) -> None:
    with writing(tmp_path / "data") as log:
        log.grow(300)
        log.tree.append([log.row(seq).entry for seq in range(300, 530)])
        report = verify(Options(data=log.data), quiet)
    assert places(report) == [
        "tile/0/001",
        "tile/0/002.p/18",
        "tile/1/000.p/2",
        "tile/entries/001",
        "tile/entries/002.p/18",
    ]


@pytest.mark.parametrize(
    ("name", "covered"),
    [
        ("tile/0/000", True),
        ("tile/entries/001", True),
        ("tile/0/002.p/187", True),
        ("tile/1/000.p/2", True),
        ("tile/entries/002.p/187", True),
        ("vkey", True),
        ("policy", True),
        ("tile/0/002.p/38", False),  # of an earlier checkpoint
        ("tile/1/000.p/1", False),
    ],
)
def test_a_file_is_gone(data: Path, fsck: Verify, name: str, covered: bool) -> None:  # noqa: FBT001  a parameter
    (data / "log" / name).unlink()
    assert places(fsck()) == ([name] if covered else [])


def test_a_full_tile_stands_for_the_partial_one_of_the_checkpoint(tmp_path: Path) -> None:
    """The steward drops partial forms when it has written the full one, before it publishes."""
    with writing(tmp_path / "data") as log:
        log.grow(300)
        log.append(300)
        log.tree.append([row.entry for row in log.rows[300:]])
        assert not (log.data / "log/tile/0/001.p/44").exists()
        assert verify(Options(data=log.data), quiet).findings == 0


# --- erasures ------------------------------------------------------------------------------------


def test_a_record_that_nobody_names_as_forgotten(db: sqlite3.Connection, fsck: Verify) -> None:
    db.execute(
        "UPDATE records SET body = NULL, salt = NULL, handle_id = '', principal = '',"
        " request_id = '' WHERE seq IN (24, 25, 402)"
    )
    report = fsck()
    assert places(report) == ["records 24 to 25", "record 402"]
    assert report.forgotten == 19


def test_a_record_that_was_put_back(template: Path, tmp_path: Path, fsck: Verify) -> None:
    with writing(tmp_path / "again") as log:
        row = log.row(22)
    with sqlite3.connect(tmp_path / "data" / "registry.db", isolation_level=None) as db:
        db.execute("UPDATE records SET body = ?, salt = ? WHERE seq = 22", (row.body, row.salt))
    db.close()
    found = places(fsck())
    assert found[-1] == "record 22, column body"
    assert set(found) == {"record 22, column body"} | {
        f"record 22, column {name}" for name in ("request_id", "handle_id", "principal")
    }
    assert template.exists()


def test_a_forgotten_record_that_still_says_who(db: sqlite3.Connection, fsck: Verify) -> None:
    db.execute("UPDATE records SET principal = 'alice' WHERE seq = 30")
    assert places(fsck()) == ["record 30, column principal"]


# --- going on ------------------------------------------------------------------------------------


class Stop(Exception):
    """Ends a run in the middle."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short stretches, each of which is kept."""
    monkeypatch.setattr(limits, "FSCK_CHUNK", 1024)
    monkeypatch.setattr(limits, "FSCK_STATE_EVERY", 1024)


def interrupted(options: Options, at: int) -> None:
    def tell(size: int, _total: int, _found: int) -> None:
        if size >= at:
            raise Stop

    with pytest.raises(Stop):
        verify(options, tell)


@pytest.fixture
def long(long_template: Path, tmp_path: Path, short: None) -> Path:  # noqa: ARG001  its limits
    return Path(shutil.copytree(long_template, tmp_path / "long"))


def test_a_run_goes_on_where_it_was_interrupted(long: Path, tmp_path: Path) -> None:
    options = Options(data=long, state=tmp_path / "state")
    interrupted(options, 2048)
    seen: list[int] = []
    report = verify(options, lambda at, _total, _found: seen.append(at))
    assert seen == [3072, 4096, 4500]
    assert (report.resumed, report.records, report.findings) == (2048, 4500, 0)
    assert report.checkpoints == 5
    assert "were not looked at again" in report.notes[0]
    assert not (tmp_path / "state").exists()


def test_what_was_found_before_is_told_again(long: Path, tmp_path: Path) -> None:
    with sqlite3.connect(long / "registry.db") as db:
        db.execute("UPDATE records SET op = 'x' WHERE seq IN (7, 4400)")
    db.close()
    options = Options(data=long, state=tmp_path / "state")
    interrupted(options, 3072)
    assert places(verify(options, quiet)) == ["record 7, column op", "record 4400, column op"]


def test_a_state_of_other_records_is_not_gone_on_with(long: Path, tmp_path: Path) -> None:
    options = Options(data=long, state=tmp_path / "state")
    interrupted(options, 2048)
    tile = long / "log/tile/1/000.p/17"
    tile.write_bytes(b"x" + tile.read_bytes()[1:])
    report = verify(options, quiet)
    assert report.resumed == 0
    assert "looked at again" in report.notes[0]
    assert places(report) == ["tile/1/000.p/17, hash 0"]


def test_records_that_went_after_the_state_was_kept_are_missed(long: Path, tmp_path: Path) -> None:
    options = Options(data=long, state=tmp_path / "state")
    interrupted(options, 4096)
    with sqlite3.connect(long / "registry.db") as db:
        db.execute("DELETE FROM records WHERE seq >= 3000")
    db.close()
    report = verify(options, quiet)
    assert (report.resumed, report.records) == (0, 3000)
    assert "checkpoint" in places(report)


def test_a_state_of_another_log_is_left_alone(long: Path, tmp_path: Path) -> None:
    options = Options(data=long, state=tmp_path / "state")
    interrupted(options, 2048)
    before = (tmp_path / "state").read_bytes()
    with writing(tmp_path / "other", seed=2) as other:
        other.grow(10)
    with pytest.raises(MalformedRequest, match="a state of this log"):
        verify(Options(data=other.data, state=tmp_path / "state"), quiet)
    assert (tmp_path / "state").read_bytes() == before


def test_another_file_is_not_written_over(long: Path, tmp_path: Path) -> None:
    mine = tmp_path / "thesis"
    mine.write_bytes(b"years of work")
    with pytest.raises(MalformedRequest, match="state of a run"):
        verify(Options(data=long, state=mine), quiet)
    assert mine.read_bytes() == b"years of work"


def test_heads_behind_the_state_are_held_to_the_tiles(long: Path, tmp_path: Path) -> None:
    """They are read anew in each run, and the records that they are over are not."""
    options = Options(data=long, state=tmp_path / "state")
    with writing(tmp_path / "again") as again:
        again.append(900)
        same = again.note()
    with writing(tmp_path / "fork") as fork:
        fork.append(899)
        fork.commit([fork.row(899, use(1))])
        other = fork.note()
    for note, found in ((same, []), (other, ["anchor disk"])):
        interrupted(options, 4096)
        report = verify(msgspec.structs.replace(options, anchor=("disk", note)), quiet)
        assert report.resumed == 4096
        assert places(report) == found


def test_findings_are_the_same_by_many_processes(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FSCK_ALONE_MAX", 0)
    with sqlite3.connect(long / "registry.db") as db:
        db.execute("DELETE FROM records WHERE seq IN (5, 6, 2000)")
        db.execute("UPDATE records SET epoch = epoch + 9 WHERE seq = 1023")
        db.execute("UPDATE checkpoints SET root = zeroblob(32) WHERE size = 2700")
    db.close()
    reports: list[Report] = [
        verify(Options(data=long, processes=count), quiet) for count in (1, 2, 3)
    ]
    assert reports[0] == reports[1] == reports[2]
    assert places(reports[0]) == [
        "records 5 to 6",
        "record 1023, column epoch",
        "record 2000",
        "checkpoint row of size 2700, column root",
    ]


def test_findings_are_counted_past_the_last_that_is_shown(
    db: sqlite3.Connection, fsck: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FSCK_FINDINGS_MAX", 3)
    db.execute("UPDATE records SET op = 'x' WHERE seq > 100 AND seq < 120")
    report = fsck()
    assert (report.findings, len(report.shown)) == (19, 3)


def test_a_record_far_behind_the_others(
    db: sqlite3.Connection, fsck: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FSCK_GAP_MAX", 10)
    db.execute("UPDATE records SET seq = 1 << 40 WHERE seq = 650")
    found = places(fsck())
    assert found[0] == "record 650"
    assert f"record {1 << 40}" in found
