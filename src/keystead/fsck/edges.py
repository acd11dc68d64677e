"""The files that are no full tiles below the last record: partial ones, those ahead, and strays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from keystead import limits
from keystead.errors import MalformedRequest
from keystead.fsck.files import CHECKPOINT, POLICY, VKEY, Files, span
from keystead.fsck.findings import Finding
from keystead.fsck.rows import Rows
from keystead.translog.lines import HASH_BYTES
from keystead.translog.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Bundle,
    Tile,
    edge_tiles,
    parse_path,
    tile_root,
)

__all__ = ["Edges", "Walked"]

_NEW = ".new"
"""What a file is called until it takes its place; a crash may leave one."""


class Walked(msgspec.Struct, frozen=True):
    """What is known of the tree of all records: hashes of its partial tiles from level 1 up.

    ``tail``: entry and leaf of each record behind the last full tile.
    """

    size: int
    levels: Sequence[Sequence[bytes]]
    tail: Sequence[tuple[bytes, bytes]]


class Edges:
    """List the files first, then walk up to the last record there is then, then check them.

    ``published``: the size that the files must reach. ``left_over``: how many were never put in
    their place.
    """

    def __init__(self, files: Files, rows: Rows, published: int) -> None:
        self._files = files
        self._rows = rows
        self._required: set[Tile | Bundle] = set(edge_tiles(published))
        if published % TILE_WIDTH:
            self._required.add(Bundle(published // TILE_WIDTH, published % TILE_WIDTH))
        self._listed = set(self._required)
        self.left_over = 0

    def list(self, size: int) -> Iterator[Finding]:
        """Take the names of all files but the full tiles below a size; finds strays."""
        for name in self._files.names():
            base = name.removesuffix(_NEW)
            try:
                item = None if base in (CHECKPOINT, VKEY, POLICY) else parse_path(base)
            except MalformedRequest:
                yield Finding(
                    name,
                    "tiles, bundles, checkpoint, vkey and policy",
                    "another file",
                    "no node wrote it here; a server of these files may hand it out",
                )
                continue
            if base != name:
                self.left_over += 1
            elif item is not None and (item.width < TILE_WIDTH or span(item)[1] > size):
                self._listed.add(item)
            if len(self._listed) > limits.FSCK_ODD_FILES_MAX:
                yield Finding(
                    name,
                    f"at most {limits.FSCK_ODD_FILES_MAX} partial files",
                    "more",
                    "no node leaves so many; those behind this one were not looked at",
                )
                return

    def check(self, walked: Walked) -> Iterator[Finding]:
        """Hold the listed files, and those that must be there, against the records."""
        for item in sorted(self._listed, key=lambda item: item.path):
            _, stop = span(item)
            if stop > walked.size:
                if item not in self._required:  # else it is the checkpoint that says too much
                    yield Finding(
                        item.path,
                        f"files over the {walked.size} records that there are",
                        f"one over records up to {stop - 1}",
                        "records were removed, or an older database was put back",
                    )
                continue
            if item.width == TILE_WIDTH:
                continue  # it was looked at with its records
            expected = self._expected(item, walked)
            if expected is None:
                continue  # what is wrong with its records has been found
            if self._files.read(item.path) is None:
                if item in self._required and not self._replaced(item):
                    yield from self._check_one(item, expected, required=True)
                continue
            yield from self._check_one(item, expected, required=False)

    def _replaced(self, item: Tile | Bundle) -> bool:
        """Whether the full form of a partial one has taken its place."""
        return self._files.read(msgspec.structs.replace(item, width=TILE_WIDTH).path) is not None

    def _check_one(
        self, item: Tile | Bundle, expected: Sequence[bytes], *, required: bool
    ) -> Iterator[Finding]:
        if isinstance(item, Bundle):
            yield from self._files.bundle(item, expected, required=required)
        else:
            yield from self._files.tile(item, b"".join(expected), required=required)

    def _expected(self, item: Tile | Bundle, walked: Walked) -> Sequence[bytes] | None:
        """Its entries or hashes, from the records; None if these do not make them."""
        level = item.level if isinstance(item, Tile) else 0
        at_edge = item.index == walked.size >> TILE_HEIGHT * (level + 1)
        if level and at_edge:
            return walked.levels[level - 1][: item.width]
        if level:
            children = (
                self._tile_there(Tile(level - 1, item.index * TILE_WIDTH + at), walked)
                for at in range(item.width)
            )
            roots = [tile_root(data) for data in children if data is not None]
            return roots if len(roots) == item.width else None
        column = isinstance(item, Tile)
        if at_edge:
            return [pair[column] for pair in walked.tail[: item.width]]
        first, _ = span(item)
        found = [pair[column] for pair in self._rows.entries(first, first + item.width)]
        whole = all(isinstance(one, bytes) and len(one) == HASH_BYTES for one in found)
        return found if whole and len(found) == item.width else None

    def _tile_there(self, tile: Tile, walked: Walked) -> bytes | None:
        """A full tile: the file, which was checked on the way, or out of the records."""
        data = self._files.read(tile.path)
        if data is not None and len(data) == TILE_WIDTH * HASH_BYTES:
            return data
        made = self._expected(tile, walked)
        return None if made is None else b"".join(made)
