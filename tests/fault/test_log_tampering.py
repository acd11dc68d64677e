"""Whatever is altered in a log's storage is found, and named exactly (I10).

One byte at a time, each in a log of its own: what fsck says then is that place, and nothing else.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from integration.node import Node
from keystead.cli.main import main
from keystead.errors import ServiceError
from keystead.fsck.run import Options, Report, verify
from keystead.store.tile_files import TileFiles
from keystead.translog.entries import entry_of, leaf_hash
from keystead.translog.heads import parse_checkpoint
from keystead.translog.notes import parse_note
from keystead.translog.proofs import Disclosure, Evidence, LogProof
from keystead.translog.tiles import TileNodes
from keystead.translog.tree import inclusion_proof
from unit.fsck.written import Writer, writing

SEED = 4
SIZE = 560
TEXTS = ("op", "outcome", "key_id", "handle_id", "principal", "request_id", "purpose")
NUMBERS = ("seq", "time_ms", "epoch", "version")
BYTES = ("body", "salt", "entry", "leaf")
HEADS = ("root", "frontier", "note")
HASH = 32
UNAVAILABLE = 3


def check(data: Path) -> Report:
    return verify(Options(data=data), lambda _at, _total, _found: None)


def places(data: Path) -> list[str]:
    return [finding.place for finding in check(data).shown]


def flipped(data: bytes, at: int, with_: int) -> bytes:
    return data[:at] + bytes([data[at] ^ with_]) + data[at + 1 :]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    with writing(tmp_path_factory.mktemp("tampering") / "data") as log:
        for count in (1, 299, 70):
            log.grow(count)
        log.forget([(40, 45)])
        log.grow(SIZE - log.frontier.size)
    assert check(log.data).findings == 0
    return log


@pytest.fixture
def data(written: Writer, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written.data, tmp_path / "data"))


@pytest.fixture
def db(data: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(data / "registry.db", isolation_level=None)) as connection:
        yield connection


def chosen(count: int, most: int) -> list[int]:
    """Some numbers, the same ones each time, the first and the last among them."""
    drawn = random.Random(SEED).sample(range(1, most - 1), count)  # noqa: S311  a test's choice
    return [0, most - 1, *drawn]


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [*BYTES, *TEXTS, *NUMBERS])
def test_a_byte_of_a_record(db: sqlite3.Connection, data: Path, column: str) -> None:
    draw = random.Random(f"{SEED}{column}")  # noqa: S311  a test's choice
    read = f"SELECT {column} FROM records WHERE seq = ?"  # noqa: S608  a constant
    write = f"UPDATE records SET {column} = ? WHERE seq = ?"  # noqa: S608  a constant
    for seq in chosen(6, SIZE):
        old = db.execute(read, (seq,)).fetchone()[0]
        if not old and old != 0:
            continue  # forgotten
        for new in altered(column, old, draw):
            db.execute(write, (new, seq))
            where = new if column == "seq" and isinstance(new, int) else seq
            check_named(places(data), column, seq, where)
            db.execute(write, (old, where))
    assert places(data) == []


def altered(column: str, old: object, draw: random.Random) -> Iterator[object]:
    match old:
        case bytes():
            yield flipped(old, draw.randrange(len(old)), 1 << draw.randrange(8))
        case str():
            yield flipped(old.encode(), draw.randrange(len(old)), draw.randrange(1, 256))
            yield "a" + old[1:]  # text again, where the byte made none
        case int():
            yield old + SIZE if column == "seq" else old ^ 1 << draw.randrange(6)


def check_named(found: list[str], column: str, seq: int, where: int) -> None:
    if column in ("body", "salt"):
        assert found == [f"record {seq}, columns body and salt"]
    elif column != "seq":
        assert found == [f"record {seq}, column {column}"]
    else:
        assert found[0].startswith((f"record {seq}", f"records {seq} to "))
        assert f"record {where}, column seq" in found


@pytest.mark.parametrize("column", TEXTS)
def test_text_that_is_none(db: sqlite3.Connection, data: Path, column: str) -> None:
    """The driver reads no row of a statement behind such a one."""
    write = f"UPDATE records SET {column} = CAST(? AS TEXT) WHERE seq = 300"  # noqa: S608  a constant
    db.execute(write, (b"\xff\xfe",))
    assert places(data) == [f"record 300, column {column}"]


def test_the_times_that_searches_go_by(db: sqlite3.Connection, data: Path) -> None:
    db.execute("UPDATE log_blocks SET last_ms = last_ms - 1")
    assert places(data) == ["log_blocks row 0"]
    db.execute("DELETE FROM log_blocks")
    assert places(data) == ["log_blocks row 0"]


@pytest.mark.parametrize("column", HEADS)
def test_a_byte_of_a_kept_checkpoint(db: sqlite3.Connection, data: Path, column: str) -> None:
    draw = random.Random(f"{SEED}{column}")  # noqa: S311  a test's choice
    write = f"UPDATE checkpoints SET {column} = ? WHERE size = ?"  # noqa: S608  a constant
    for size, old in db.execute(f"SELECT size, {column} FROM checkpoints").fetchall():  # noqa: S608  a constant
        for at in {0, len(old) - 1, *draw.sample(range(len(old)), 12)}:
            db.execute(write, (flipped(old, at, draw.randrange(1, 256)), size))
            assert places(data) == [f"checkpoint row of size {size}, column {column}"]
        db.execute(write, (old, size))
    assert places(data) == []


def test_the_size_of_a_kept_checkpoint(db: sqlite3.Connection, data: Path) -> None:
    db.execute("UPDATE checkpoints SET size = 301 WHERE size = 300")
    found = places(data)
    assert found[0] == "checkpoint row of size 301, column size"
    assert {place.partition(",")[0] for place in found} == {"checkpoint row of size 301"}


# --- files ---------------------------------------------------------------------------------------


def files(data: Path) -> list[str]:
    folder = data / "log"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_byte_of_any_file(data: Path) -> None:
    """Also of those that the next checkpoint has replaced."""
    draw = random.Random(SEED)  # noqa: S311  a test's choice
    names = files(data)
    assert len(names) > 10
    for name in names:
        path = data / "log" / name
        old = path.read_bytes()
        for at in {0, len(old) - 1, *draw.sample(range(len(old)), 6)}:
            path.write_bytes(flipped(old, at, draw.randrange(1, 256)))
            check_file_named(data, name, at)
        for new in (b"", old[:-1], old + b"x"):
            path.write_bytes(new)
            assert {place.partition(",")[0] for place in places(data)} == {name}
        path.write_bytes(old)
    assert places(data) == []


def check_file_named(data: Path, name: str, at: int) -> None:
    found = places(data)
    if name.startswith("tile/entries"):
        place, inside = divmod(at, 2 + HASH)
        where = f"entry {place}" if inside >= 2 else f"byte {at}"
        assert found == [f"{name}, {where}"]
    elif name.startswith("tile/"):
        assert found == [f"{name}, hash {at // HASH}"]
    else:
        assert set(found) == {name}


# --- proofs --------------------------------------------------------------------------------------


def proof_of(log: Writer, seq: int) -> bytes:
    """A proof file with the record, out of what is published."""
    files = TileFiles(log.data / "log")
    note = (log.data / "log/checkpoint").read_text()
    head = parse_checkpoint(parse_note(note).text)
    hashes = inclusion_proof(seq, head.size, TileNodes(files.read, head.size).read)
    row = log.rows[seq]
    evidence = Evidence(row.entry, Disclosure(row.body or b"", row.salt or b""))
    return LogProof(seq, hashes, note, evidence.encode()).encode()


def test_a_byte_of_a_proof(
    written: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(SEED)  # noqa: S311  a test's choice
    file = tmp_path / "proof"
    command = ["log", "verify", str(file), "--key", written.key.encode()]
    for seq in (0, 255, 300, SIZE - 1):
        genuine = proof_of(written, seq)
        file.write_bytes(genuine)
        assert main(command) == 0
        for at in {0, len(genuine) - 1, *draw.sample(range(len(genuine)), 60)}:
            file.write_bytes(flipped(genuine, at, draw.randrange(1, 256)))
            assert main(command) == 1
            assert capsys.readouterr().err.startswith("keystead: ")


# --- whole rows ----------------------------------------------------------------------------------


def test_a_record_is_removed(db: sqlite3.Connection, data: Path) -> None:
    db.execute("DELETE FROM records WHERE seq IN (17, 400, 401)")
    assert places(data) == ["record 17", "records 400 to 401"]


def test_the_last_records_are_removed(db: sqlite3.Connection, data: Path) -> None:
    db.execute("DELETE FROM records WHERE seq >= 512")
    assert places(data) == ["checkpoint", f"checkpoint row of size {SIZE}"]
    db.execute("DELETE FROM checkpoints WHERE size > 512")
    assert places(data) == ["checkpoint"]


def test_the_last_checkpoint_is_removed(db: sqlite3.Connection, data: Path) -> None:
    db.execute("DELETE FROM checkpoints WHERE size = ?", (SIZE,))
    assert places(data) == [f"checkpoint row of size {SIZE}"]


def test_two_records_change_places(db: sqlite3.Connection, data: Path) -> None:
    for old, new in ((5, -1), (500, 5), (-1, 500)):
        db.execute("UPDATE records SET seq = ? WHERE seq = ?", (new, old))
    assert places(data) == ["record 5, column seq", "record 500, column seq"]


def test_a_record_is_written_twice(db: sqlite3.Connection, data: Path) -> None:
    db.execute("CREATE TEMP TABLE copy AS SELECT * FROM records WHERE seq = 17")
    db.execute("UPDATE temp.copy SET seq = ?", (SIZE,))
    db.execute("INSERT INTO records SELECT * FROM temp.copy")
    found = places(data)
    assert found[0] == f"record {SIZE}, column seq"
    assert all(place.startswith(f"record {SIZE}, column") for place in found)


def test_a_sequence_is_there_twice(db: sqlite3.Connection, data: Path) -> None:
    """By one who has taken away what keeps the database from it."""
    db.execute("CREATE TABLE other AS SELECT * FROM records")
    db.execute("INSERT INTO other SELECT * FROM records WHERE seq = 300")
    db.execute("DROP TABLE records")
    db.execute("ALTER TABLE other RENAME TO records")
    assert places(data) == ["record 300"]


def test_a_record_is_rewritten_whole(written: Writer, db: sqlite3.Connection, data: Path) -> None:
    """Body, salt, entry and leaf fit each other: its tile, its bundle and every root tell."""
    row = written.rows[300]
    body = (row.body or b"").replace(b"checkout", b"checkin_")
    entry = entry_of(row.salt or b"", body)
    db.execute(
        "UPDATE records SET body = ?, entry = ?, leaf = ?, principal = ? WHERE seq = 300",
        (body, entry, leaf_hash(entry), row.principal.replace("checkout", "checkin_")),
    )
    report = check(data)
    found = [finding.place for finding in report.shown]
    assert found[:3] == [
        "tile/0/001, hash 44",
        "tile/entries/001, entry 44",
        "checkpoint row of size 370",
    ]
    assert "the first 300 are" in report.shown[2].means
    shutil.rmtree(data / "log")  # nothing to hold it against but what was signed
    assert places(data) == ["checkpoint row of size 370"]


def test_a_page_of_the_database_is_damaged(data: Path) -> None:
    """As by a failing disk: it is found, whatever the driver makes of it."""
    path = data / "registry.db"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(bytes(4096))
    assert check(data).findings > 0


# --- and the vault -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node that has worked, published and ended; its anchor is beside it."""
    folder = tmp_path_factory.mktemp("stopped")
    node = Node(folder / "data", anchor=str(folder / "anchor"))
    with node, node.client() as client:
        client.create_key("books", "ledger")
        handle = client.issue_handle("books", "clerk").handle
        last = -1
        for number in range(20):
            used = client.append_ledger(handle, b"entry %d" % number, context="books")
            last = used.receipt.seq or last
        wait_for(lambda: check(node.data).published > last)
    report = verify(
        Options(data=node.data, anchor=("anchor", (folder / "anchor").read_bytes())),
        lambda _at, _total, _found: None,
    )
    assert (report.findings, report.records > 20) == (0, True)
    return node


@pytest.fixture
def node(stopped: Node, tmp_path: Path) -> Node:
    """A copy of it, without its anchor."""
    away = shutil.ignore_patterns("*.sock")
    return Node(Path(shutil.copytree(stopped.data, tmp_path / "data", ignore=away)))


@pytest.mark.parametrize(
    ("tamper", "said", "found"),
    [
        (
            "DELETE FROM records WHERE seq >= (SELECT max(size) FROM checkpoints) - 2",
            "records were removed",
            "checkpoint",
        ),
        ("UPDATE checkpoints SET mac = zeroblob(32)", "was altered", ""),
        ("UPDATE checkpoints SET time_ms = time_ms + 1", "was altered", ""),
        ("UPDATE checkpoints SET root = zeroblob(32)", "was altered", "checkpoint row of size"),
    ],
    ids=["truncated", "mac", "time", "root"],
)
def test_the_vault_refuses_what_it_can_know_of(
    node: Node, tamper: str, said: str, found: str
) -> None:
    with closing(sqlite3.connect(node.data / "registry.db", isolation_level=None)) as db:
        db.execute(tamper)
    status, refusal = node.refusal()
    assert status == UNAVAILABLE
    assert said in refusal["error"]
    met = places(node.data)
    assert met[0].startswith(found) if found else met == []


def test_the_anchor_tells_of_records_that_are_gone_with_their_checkpoints(
    stopped: Node, node: Node, tmp_path: Path
) -> None:
    anchor = shutil.copy(stopped.data.parent / "anchor", tmp_path / "anchor")
    with closing(sqlite3.connect(node.data / "registry.db", isolation_level=None)) as db:
        db.execute("DELETE FROM records WHERE seq > 10")
        db.execute("DELETE FROM checkpoints WHERE size > 10")
    shutil.rmtree(node.data / "log")
    held = ("disk", Path(anchor).read_bytes())
    report = verify(Options(data=node.data, anchor=held), lambda _at, _total, _found: None)
    assert [finding.place for finding in report.shown] == ["anchor disk"]
    anchored = Node(node.data, anchor=str(anchor))
    anchored.token_file = stopped.token_file
    with anchored, anchored.client() as client, pytest.raises(ServiceError, match="its anchor"):
        client.create_key("another", "tls")


def wait_for(reached: Callable[[], bool], within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not reached():
        if time.monotonic() > until:
            pytest.fail(f"not reached within {within_s} s")
        time.sleep(0.1)
