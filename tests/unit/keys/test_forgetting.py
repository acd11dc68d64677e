"""Which records can be forgotten, and how entries name them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead import limits
from keystead.errors import MalformedRequest
from keystead.keys.forgetting import FORGETTABLE, chunks, merged, ranges_of, read_ranges

SEQS = st.sets(st.integers(0, 400), max_size=200)


def test_only_uses_can_be_forgotten() -> None:
    """Not what changed authority, not what tells of the log, not the log's own key."""
    assert {"jwt.sign", "tls.sign_digest", "data.unwrap", "unknown"} < set(FORGETTABLE)
    kept = ("key.", "handle.", "tenant.", "log.", "reservation.", "deployment.", "audit.", "admin")
    assert not [name for name in FORGETTABLE if name.startswith(kept)]


@given(SEQS)
def test_ranges_are_the_same_sequences(seqs: set[int]) -> None:
    ranges = ranges_of(seqs)
    assert {seq for first, last in ranges for seq in range(first, last + 1)} == seqs
    starts = [first for first, _ in ranges]
    assert starts == sorted(starts)
    assert all(after > last + 1 for (_, last), after in zip(ranges, starts[1:], strict=False))


@given(SEQS, st.sampled_from(["before 2026-11-03T14:00:00Z", "key a, handle h: 5-6"]))
def test_entries_name_all_ranges_once(seqs: set[int], words: str) -> None:
    named = list(chunks(words, ranges_of(seqs)))
    assert sum(count for _, count in named) == len(seqs)
    read = [found for detail, _ in named for found in read_ranges(detail)]
    assert read == ranges_of(seqs)
    assert all(len(detail) <= len(words) + 2 + limits.LOG_DETAIL_BYTES_MAX for detail, _ in named)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=20))
def test_merged_ranges_are_the_same_sequences(starts: list[tuple[int, int]]) -> None:
    ranges = [(first, first + more) for first, more in starts]
    seqs = {seq for first, last in ranges for seq in range(first, last + 1)}
    assert merged(ranges) == ranges_of(seqs)


def test_many_ranges_make_several_entries() -> None:
    named = list(chunks("all", ranges_of(range(0, 10**6, 2000))))
    assert len(named) == 4
    assert all(count > 100 for _, count in named[:-1])


@pytest.mark.parametrize(
    "detail", ["", "1-2", "all: ", "all: 1,,2", "all: 1-", "all: -1", "all: 1 2", "all: ٣"]
)
def test_a_detail_without_ranges_is_refused(detail: str) -> None:
    with pytest.raises(MalformedRequest, match="ranges"):
        read_ranges(detail)
