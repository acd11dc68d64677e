"""Which records can be forgotten, and how an entry of the log names those that were."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from keystead import limits
from keystead.errors import MalformedRequest
from keystead.keys.purposes import PURPOSES, SIGNALS, Purpose

__all__ = ["FORGETTABLE", "Ranges", "chunks", "merged", "ranges_of", "read_ranges"]

Ranges = list[tuple[int, int]]
"""First and last sequence of each run, in order."""

FORGETTABLE = (
    *(
        f"{purpose!s}.{operation}"
        for purpose, row in PURPOSES.items()
        if purpose is not Purpose.AUDIT
        for operation in (*row.operations, *SIGNALS)
    ),
    "unknown",
    "denials.summary",
)
"""Uses and refused uses. What changed authority stays, and all that tells of the log itself."""

_RUN = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?\Z", re.ASCII)
_BEFORE_RANGES = ": "


def ranges_of(seqs: Iterable[int]) -> Ranges:
    """The runs of some sequences."""
    ranges: Ranges = []
    for seq in sorted(set(seqs)):
        if ranges and ranges[-1][1] == seq - 1:
            ranges[-1] = (ranges[-1][0], seq)
        else:
            ranges.append((seq, seq))
    return ranges


def chunks(words: str, ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    """The details of entries that name these ranges, and how many records each names.

    ``words``: how they were chosen, for people.
    """
    runs: list[str] = []
    size = count = 0
    for first, last in ranges:
        run = str(first) if first == last else f"{first}-{last}"
        if runs and size + len(run) >= limits.LOG_DETAIL_BYTES_MAX:
            yield f"{words}{_BEFORE_RANGES}{','.join(runs)}", count
            runs, size, count = [], 0, 0
        runs.append(run)
        size += len(run) + 1
        count += last - first + 1
    if runs:
        yield f"{words}{_BEFORE_RANGES}{','.join(runs)}", count


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The same sequences, each once."""
    found: Ranges = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def read_ranges(detail: str) -> Ranges:
    """The ranges that an entry of op ``log.forget`` names.

    Raises:
        MalformedRequest: it names none.
    """
    _, found, text = detail.rpartition(_BEFORE_RANGES)
    ranges: Ranges = []
    for run in text.split(","):
        match = _RUN.match(run)
        if not found or match is None:
            raise MalformedRequest("expected ranges of sequences behind a colon")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        ranges.append((first, last))
    return ranges
