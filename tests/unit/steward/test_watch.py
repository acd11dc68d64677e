"""The steward reads every record after its commit, and says which does not fit, and how."""

from collections.abc import Callable
from typing import Any

import pytest

from keystead.ports import EntryRow
from keystead.steward.watch import RecordWatch
from keystead.translog.entries import Draft, entry_of, leaf_hash
from keystead.vault.rows import record_row


def row(seq: int, epoch: int = 1) -> EntryRow:
    draft = Draft(time_ms=1, node="n", op="tls.sign", outcome="ok", request=f"r{seq}")
    made = record_row(seq, epoch, draft, bytes([seq % 256]) * 16)
    return EntryRow(seq, epoch, made.salt, made.body, made.entry, made.leaf)


ROWS = [row(seq) for seq in range(6)]


def altered(at: int, **fields: Any) -> list[EntryRow]:  # noqa: ANN401  columns of several types
    """The log with one row changed by whoever can write the database."""
    return [*ROWS[:at], ROWS[at]._replace(**fields), *ROWS[at + 1 :]]


def resealed(at: int, body: bytes | None) -> list[EntryRow]:
    """The same, by one who also makes entry and leaf anew: the hashes hold, and tell nothing."""
    entry = entry_of(ROWS[at].salt or b"", body or b"")
    return altered(at, body=body, entry=entry, leaf=leaf_hash(entry))


def test_a_sound_log_has_no_findings() -> None:
    watch = RecordWatch()
    assert watch.check(ROWS) == []
    assert watch.next_seq == 6
    assert watch.check([]) == []
    assert watch.next_seq == 6


def test_it_goes_on_where_it_was() -> None:
    watch = RecordWatch()
    assert [watch.check(ROWS[at : at + 1]) for at in range(6)] == [[]] * 6
    assert RecordWatch(4).check(ROWS[4:]) == []


@pytest.mark.parametrize(
    ("rows", "finding"),
    [
        ([*ROWS[:2], *ROWS[3:]], "I10 expected record 2, met 3"),
        ([ROWS[1]], "I10 expected record 0, met 1"),
        ([*ROWS[:3], ROWS[2]], "I10 expected record 3, met 2"),
        (altered(3, body=ROWS[2].body), "I10 record 3: the body is not that of its entry"),
        (altered(3, salt=bytes(16)), "I10 record 3: the body is not that of its entry"),
        (altered(3, entry=ROWS[2].entry), "I10 record 3: the body is not that of its entry"),
        (altered(3, entry=b""), "I10 record 3: the body is not that of its entry"),
        (altered(3, leaf=ROWS[2].leaf), "I10 record 3: the leaf is not that of its entry"),
        (altered(3, epoch=9), "I10 record 3: the body is of another place"),
        (resealed(3, ROWS[2].body), "I10 record 3: the body is of another place"),
        (resealed(3, b"{}"), "I10 record 3: the body is of another place"),
        (resealed(3, b""), "I10 record 3: the body is of another place"),
        (
            resealed(3, b'{"seq":3,"epoch":11,"x":1}'),
            "I10 record 3: the body is of another place",
        ),
    ],
)
def test_what_does_not_fit_is_found_once(rows: list[EntryRow], finding: str) -> None:
    watch = RecordWatch()
    assert watch.check(rows) == [finding]
    assert watch.next_seq == rows[-1].seq + 1


@pytest.mark.parametrize("alter", [lambda seq: row(seq, epoch=2), lambda seq: row(seq, epoch=0)])
def test_an_epoch_is_part_of_the_place(alter: Callable[[int], EntryRow]) -> None:
    """A genuine row of another epoch is sound by itself: order of epochs is not the watch's."""
    assert RecordWatch(3).check([alter(3)]) == []


def test_every_row_that_does_not_fit_has_its_finding() -> None:
    rows = [each._replace(leaf=bytes(32)) for each in ROWS]
    findings = RecordWatch().check(rows)
    assert findings == [f"I10 record {seq}: the leaf is not that of its entry" for seq in range(6)]
