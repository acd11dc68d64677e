"""Two ways through a run of records: the quick one says nothing, the other says where."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.fsck.records import Examined, Named, examine, forgetting, read_runs, sound
from keystead.fsck.rows import COLUMNS, Row
from keystead.ports import RecordRow
from keystead.translog.entries import Draft, entry_of, leaf_hash
from keystead.vault.rows import record_row
from unit.fsck.written import use

FIRST = 256


def stored(row: RecordRow) -> Row:
    """A row as the driver gives it."""
    fields = msgspec.structs.asdict(row)
    return tuple(fields[name] for name in COLUMNS)


def made(seq: int, epoch: int = 0, draft: Draft | None = None) -> Row:
    return stored(
        record_row(seq, epoch or 1 + seq // 4, draft or use(seq), bytes([seq % 256]) * 16)
    )


ROWS = [made(seq) for seq in range(FIRST, FIRST + 12)]
ENTRIES = [row[COLUMNS.index("entry")] for row in ROWS]


def altered(at: int, **columns: object) -> list[Row]:
    row = tuple(columns.get(name, old) for name, old in zip(COLUMNS, ROWS[at], strict=True))
    return [*ROWS[:at], row, *ROWS[at + 1 :]]


def look(rows: list[Row], epoch: int = 0) -> Examined:
    return examine(rows, FIRST, FIRST + 12, epoch, ENTRIES)


def places(rows: list[Row]) -> list[str]:
    return [finding.place for finding in look(rows).findings]


def test_both_ways_know_the_same_of_sound_records() -> None:
    quick, slow = sound(ROWS, FIRST, 1), look(ROWS)
    assert quick == slow
    assert slow.entries == ENTRIES
    assert (slow.began, slow.epoch) == (65, 67)
    assert sound(ROWS, FIRST, 66) is None
    assert [one.place for one in look(ROWS, 66).findings] == [
        f"record {seq}, column epoch" for seq in range(FIRST, FIRST + 4)
    ]


VALUES = st.none() | st.integers(-1, 3) | st.floats() | st.text(max_size=3) | st.binary(max_size=40)


@given(st.integers(0, 11), st.sampled_from(COLUMNS), VALUES, st.data())
def test_whatever_is_stored_is_said_where(
    at: int, name: str, value: object, data: st.DataObject
) -> None:
    """Any other value in any column is found, names the row, and spoils nothing of the others."""
    old = ROWS[at][COLUMNS.index(name)]
    if isinstance(old, bytes) and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(old) - 1))
        value = (
            old[:place] + bytes([old[place] ^ data.draw(st.integers(1, 255))]) + old[place + 1 :]
        )
    rows = altered(at, **{name: value})
    if value == old or name == "seq":
        return
    assert sound(rows, FIRST, 1) is None
    seen = look(rows)
    assert seen.findings
    for finding in seen.findings:
        assert finding.place.startswith(f"record {FIRST + at}, column")
        assert name in finding.place
    assert seen.leaves == [leaf_hash(entry) for entry in ENTRIES]
    assert seen.entries == ENTRIES


def test_a_record_that_is_another() -> None:
    """Whole in itself, and at another's place: what was published is gone on with."""
    moved = (FIRST + 3, *ROWS[7][1:])
    seen = look([*ROWS[:3], moved, *ROWS[4:]])
    [finding] = seen.findings
    assert finding.place == f"record {FIRST + 3}, column seq"
    assert f"record {FIRST + 7}'s" in finding.means
    assert seen.entries == ENTRIES


def test_a_record_that_nobody_published_is_gone_on_with() -> None:
    """Which one is wrong, its tile tells."""
    other = made(FIRST + 5, epoch=66, draft=use(1))
    seen = look([*ROWS[:5], other, *ROWS[6:]])
    assert seen.findings == []
    assert seen.entries[5] == other[COLUMNS.index("entry")]


def test_what_is_missing_comes_from_what_was_published() -> None:
    seen = look([*ROWS[:2], *ROWS[5:9], *ROWS[10:]])
    assert [finding.place for finding in seen.findings] == ["records 258 to 260", "record 265"]
    assert seen.entries == ENTRIES
    bare = examine(ROWS[:11], FIRST, FIRST + 12, 0, [])
    assert bare.entries[11] == b""
    assert bare.leaves[11] == bytes(32)


def test_a_sequence_that_is_there_twice() -> None:
    assert places([*ROWS[:3], ROWS[2], *ROWS[3:]]) == ["record 258"]


@pytest.mark.parametrize("name", ["body", "salt"])
def test_half_of_a_record_is_erased(name: str) -> None:
    [finding] = look(altered(4, **{name: None})).findings
    assert finding.place == "record 260, columns body and salt"
    assert "no longer be disclosed" in finding.means


def test_a_forgotten_record() -> None:
    gone = {"body": None, "salt": None, "request_id": "", "handle_id": "", "principal": ""}
    seen = look(altered(4, **gone))
    assert (seen.findings, seen.forgotten) == ([], [260])
    assert places(altered(4, **gone | {"leaf": bytes(32)})) == ["record 260, column leaf"]
    assert places(altered(4, **gone | {"entry": bytes(32)})) == ["record 260, column entry"]
    assert places(altered(4, **gone | {"handle_id": "h1"})) == ["record 260, column handle_id"]


def test_a_body_that_is_no_record() -> None:
    salt = ROWS[4][COLUMNS.index("salt")]
    entry = entry_of(salt, b"[]")
    rows = altered(4, body=b"[]", entry=entry, leaf=leaf_hash(entry))
    assert sound(rows, FIRST, 1) is None
    assert places(rows) == ["record 260, column body"]


# --- forgetting ----------------------------------------------------------------------------------


def forget(seq: int, detail: str, **fields: object) -> Row:
    draft = msgspec.structs.replace(use(seq), op="log.forget", outcome="ok", detail=detail)
    return made(seq, draft=msgspec.structs.replace(draft, **fields))


@pytest.mark.parametrize(
    ("detail", "named"),
    [
        ("before 2026-01-01T00:00:00Z: 3", [Named(3, 3)]),
        (
            "before 2026-01-01T00:00:00Z, key a: 3,5-9,11-299",
            [Named(3, 3), Named(5, 9), Named(11, 299)],
        ),
    ],
)
def test_what_is_named(detail: str, named: list[Named]) -> None:
    row = forget(300, detail)
    leaf = row[COLUMNS.index("leaf")]
    assert forgetting([row], [leaf], 300) == (named, [])
    assert forgetting([row], [bytes(32)], 300) == ([], [])  # it is not what was logged


@pytest.mark.parametrize("detail", ["", "nothing", "x: ", "x: 5-3", "x: 300", "x: 1-400", "x: -1"])
def test_what_cannot_have_been_forgotten(detail: str) -> None:
    row = forget(300, detail)
    _, [finding] = forgetting([row], [row[COLUMNS.index("leaf")]], 300)
    assert finding.place == "record 300"


def test_a_refused_request_names_nothing() -> None:
    row = forget(300, "x: 5", outcome="permission_denied")
    assert forgetting([row], [row[COLUMNS.index("leaf")]], 300) == ([], [])


@given(st.binary(max_size=60))
def test_any_body_names_runs_or_none(body: bytes) -> None:
    assert isinstance(read_runs(body), list)
