"""A stretch of the log at a time: its records, the tiles of their leaves, the heads that end there.

Stretches begin with a block, need nothing of each other, and so may be looked at by several
processes. What holds them together is checked by ``keystead.fsck.run``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from keystead.fsck.files import Files, entries_in
from keystead.fsck.findings import Finding, Findings
from keystead.fsck.heads import Head, check_stored
from keystead.fsck.index import Index
from keystead.fsck.records import FORGET, Examined, Named, examine, forgetting, sound
from keystead.fsck.rows import Row, Rows
from keystead.translog.notes import VerifierKey
from keystead.translog.tiles import TILE_WIDTH, Bundle, Tile, tile_root
from keystead.translog.tree import Frontier

__all__ = ["BLOCK", "Chunk", "Chunks", "Place"]

BLOCK = 1024
"""Records of one row of ``log_blocks``."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at. ``published``: the size that the files must reach.

    ``outer``: heads that stand in no row: the published one, and the anchor's.
    """

    registry: str
    log: str
    key: VerifierKey | None
    published: int
    outer: tuple[Head, ...] = ()


class Chunk(msgspec.Struct):
    """What is known of a stretch. ``roots``: of its full tiles. ``heads``: by size.

    ``began`` and ``epoch``: that of its first and last records, -1 without any. ``tail``: entries
    and leaves of the partial tile.
    """

    first: int
    stop: int
    began: int = -1
    epoch: int = -1
    roots: list[bytes] = []
    heads: list[Head] = []
    tail: list[tuple[bytes, bytes]] = []
    forgotten: list[tuple[int, int]] = []
    named: list[Named] = []
    checkpoints: int = 0
    findings: Findings = msgspec.field(default_factory=Findings)


class Chunks:
    """Looks at stretches by one connection of its own; used by one thread."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._rows = Rows(Path(place.registry))
        self._files = Files(Path(place.log))

    def close(self) -> None:
        """Close the connection."""
        self._rows.close()

    def look(self, first: int, stop: int) -> Chunk:
        """A stretch that begins with a block; the last one may end in a tile.

        Raises:
            StartupError, LogUnavailable: the database cannot be asked any more.
        """
        chunk = Chunk(first, stop)
        heads = self._heads(chunk)
        epoch, times, index = -1, _Times(self._rows), Index(self._rows)
        for at, end, found in self._windows(first, stop):
            seen = None if found is None else sound(found, at, epoch)
            if found is not None and seen is not None:
                rows = found
                index.take(rows, at, end, sound=True)
            else:
                rows, seen = self._examined(chunk, at, end, found, epoch)
                index.take(rows, at, end, sound=False)
            chunk.began = seen.began if chunk.began < 0 else chunk.began
            epoch = seen.epoch
            chunk.findings.add(times.take(at, seen.times))
            if FORGET in [row[3] for row in rows]:
                named, findings = forgetting(rows, seen.leaves, at)
                chunk.named += named
                chunk.findings.add(findings)
            self._published(chunk, at, end, seen)
            chunk.heads += _ended(heads, at, end, seen.leaves)
        chunk.findings.add(times.end())
        chunk.findings.add(index.end(first, stop))
        chunk.epoch = epoch
        return chunk

    def _windows(self, first: int, stop: int) -> Iterator[tuple[int, int, list[Row] | None]]:
        """The records of each tile, by one statement; None where they are not all there."""
        cursor: sqlite3.Cursor | None = None
        for at in range(first, stop, TILE_WIDTH):
            end = min(stop, at + TILE_WIDTH)
            rows: list[Row] | None
            try:
                if cursor is None:
                    cursor = self._rows.in_order(at, stop)
                rows = cursor.fetchmany(end - at)
            except sqlite3.Error:  # text that is none, or a damaged page
                rows = None
            if rows is None or len(rows) != end - at or rows[-1][0] != end - 1:
                if cursor is not None:
                    cursor.close()
                rows = cursor = None
            yield at, end, rows

    def _examined(
        self, chunk: Chunk, at: int, end: int, rows: list[Row] | None, epoch: int
    ) -> tuple[list[Row], Examined]:
        unread: dict[int, str] = {}
        if rows is None:
            rows, unread = self._rows.one_by_one(at, end)
        published = entries_in(*self._files.widest(Bundle(at // TILE_WIDTH)))
        seen = examine(rows, at, end, epoch, published)
        chunk.findings.add(
            Finding(f"record {seq}", "a row that can be read", why, "the database is damaged")
            for seq, why in unread.items()
        )
        chunk.findings.add(seen.findings)
        _append_runs(chunk.forgotten, seen.forgotten)
        return rows, seen

    def _published(self, chunk: Chunk, at: int, end: int, seen: Examined) -> None:
        """The tile and the bundle of these leaves, if they fill one."""
        if end - at < TILE_WIDTH:
            chunk.tail = list(zip(seen.entries, seen.leaves, strict=True))
            return
        data = b"".join(seen.leaves)
        required = end <= self._place.published
        index = at // TILE_WIDTH
        chunk.findings.add(self._files.tile(Tile(0, index), data, required=required))
        chunk.findings.add(self._files.bundle(Bundle(index), seen.entries, required=required))
        chunk.roots.append(tile_root(data))

    def _heads(self, chunk: Chunk) -> list[Head]:
        """What is signed of sizes behind the first record and up to the last, by size."""
        heads = [head for head in self._place.outer if chunk.first < head.size <= chunk.stop]
        for row in self._rows.heads(chunk.first, chunk.stop):
            head, findings = check_stored(row, self._place.key)
            chunk.checkpoints += 1
            chunk.findings.add(findings)
            if head is not None:
                heads.append(head)
        return sorted(heads, key=lambda head: head.size)


def _ended(heads: Sequence[Head], at: int, end: int, leaves: Sequence[bytes]) -> Iterator[Head]:
    """Those of the heads that end in this window, with what is theirs of its leaves."""
    frontier = Frontier()
    for head in heads:
        if at < head.size <= end:
            inside = head.size % TILE_WIDTH
            if inside:
                frontier = frontier.extended(leaves[frontier.size : inside])
            yield msgspec.structs.replace(head, inner=frontier.hashes if inside else ())


def _append_runs(runs: list[tuple[int, int]], seqs: Iterable[int]) -> None:
    """Take rising sequences into runs of them."""
    for seq in seqs:
        if runs and runs[-1][1] == seq - 1:
            runs[-1] = (runs[-1][0], seq)
        else:
            runs.append((seq, seq))


class _Times:
    """Holds each block's row, which searches by time go by, against the times of its records."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._block = -1
        self._low = self._high = 0

    def take(self, first: int, times: Sequence[int]) -> Iterator[Finding]:
        """The times of some records, in order of sequence."""
        if not times:
            return
        low, high = min(times), max(times)
        if first // BLOCK == self._block:
            self._low, self._high = min(low, self._low), max(high, self._high)
            return
        yield from self.end()
        self._block, self._low, self._high = first // BLOCK, low, high

    def end(self) -> Iterator[Finding]:
        """What is wrong with the row of the block that was taken last."""
        if self._block < 0:
            return
        row = self._rows.times(self._block)
        first, last = row or (None, None)
        if not (
            isinstance(first, int)
            and isinstance(last, int)
            and first <= self._low
            and self._high <= last
        ):
            yield Finding(
                f"log_blocks row {self._block}",
                f"times from {self._low} to {self._high}",
                "none" if row is None else f"{first} to {last}",
                "searches by time leave records out",
            )
