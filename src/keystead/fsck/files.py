"""The published files as they lie there, held against what the records make."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from keystead import limits
from keystead.errors import MalformedRequest
from keystead.fsck.findings import Finding, differs
from keystead.translog.entries import ENTRY_BYTES
from keystead.translog.lines import HASH_BYTES
from keystead.translog.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Bundle,
    Tile,
    decode_bundle,
)

__all__ = ["CHECKPOINT", "POLICY", "VKEY", "Files", "entries_in", "span"]

CHECKPOINT, VKEY, POLICY = "checkpoint", "vkey", "policy"
_LENGTH = ENTRY_BYTES.to_bytes(2, "big")
_ALTERED = "the file was altered, damaged, or is not of this log"


class Files:
    """One log's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = f"{folder}/"  # joining paths by pathlib would take longer than reading

    def read(self, name: str, most: int = limits.NOTE_BYTES_MAX) -> bytes | None:
        """A file's bytes, cut behind so many and one; None if it is not there."""
        try:
            with open(self._prefix + name, "rb", buffering=0) as file:  # noqa: PTH123  as above
                return file.read(most + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def tile(self, tile: Tile, expected: bytes, *, required: bool) -> Iterator[Finding]:
        """What a tile has that is not expected of it."""
        data = self.read(tile.path, len(expected))
        if data is None:
            yield from _missing(tile, required=required)
        elif data != expected:
            yield from _hashes_differ(tile.path, expected, data)

    def bundle(
        self, bundle: Bundle, entries: Sequence[bytes], *, required: bool
    ) -> Iterator[Finding]:
        """The same for a bundle; an entry that is empty is not known, and may be any."""
        expected = _encoded(entries)
        data = self.read(bundle.path, len(expected))
        if data is None:
            yield from _missing(bundle, required=required)
        elif data != expected:
            yield from _entries_differ(bundle, entries, data)

    def names(self) -> Iterator[str]:
        """Paths of all files."""
        return _files_below(self._folder, "")

    def widest(self, item: Tile | Bundle) -> tuple[int, bytes]:
        """The widest form of a tile or bundle that is there, and its bytes; 0 if there is none."""
        whole = msgspec.structs.replace(item, width=TILE_WIDTH)
        data = self.read(whole.path)
        if data is not None:
            return TILE_WIDTH, data
        try:
            names = [path.name for path in (self._folder / f"{whole.path}.p").iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return 0, b""
        width = max((int(name) for name in names if name.isdecimal()), default=0)
        if not 0 < width < TILE_WIDTH:
            return 0, b""
        return width, self.read(msgspec.structs.replace(item, width=width).path) or b""


def _files_below(folder: Path, prefix: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as listing:
            items = list(listing)
    except (FileNotFoundError, NotADirectoryError):
        return  # a partial's folder goes when its tile is full
    for item in items:
        if item.is_dir(follow_symlinks=False):
            yield from _files_below(folder / item.name, f"{prefix}{item.name}/")
        else:
            yield prefix + item.name


def entries_in(width: int, data: bytes) -> list[bytes]:
    """The entries of a bundle, or none if it cannot be read."""
    try:
        return decode_bundle(data, width)
    except MalformedRequest:
        return []


def span(item: Tile | Bundle) -> tuple[int, int]:
    """The records that a tile or bundle covers: the first, and behind the last."""
    shift = TILE_HEIGHT * (item.level if isinstance(item, Tile) else 0)
    first = item.index << TILE_HEIGHT
    return first << shift, first + item.width << shift


def _encoded(entries: Sequence[bytes]) -> bytes:
    """A bundle of entries of 32 bytes each, as all of ours are."""
    return _LENGTH + _LENGTH.join(entries)


def _missing(item: Tile | Bundle, *, required: bool) -> Iterator[Finding]:
    if required:
        first, stop = span(item)
        yield Finding(
            item.path,
            f"a file over the records {first} to {stop - 1}",
            "none",
            "the published checkpoint stands on it, and it is not there",
        )


def _hashes_differ(path: str, expected: bytes, data: bytes) -> Iterator[Finding]:
    """One finding for each hash, and one for a length."""
    if len(data) != len(expected):
        length = f"{len(data)} bytes" if len(data) < len(expected) else "more"
        yield Finding(path, f"{len(expected)} bytes", length, _ALTERED)
    for at in range(0, min(len(data), len(expected)), HASH_BYTES):
        wanted, met = expected[at : at + HASH_BYTES], data[at : at + HASH_BYTES]
        if wanted[: len(met)] != met:
            yield differs(
                f"{path}, hash {at // HASH_BYTES}",
                wanted,
                met,
                "it is not that of the records: the tile was altered, or they were",
            )


def _entries_differ(bundle: Bundle, entries: Sequence[bytes], data: bytes) -> Iterator[Finding]:
    try:
        found = decode_bundle(data, bundle.width)
    except MalformedRequest as exc:
        yield Finding(
            f"{bundle.path}, byte {_agree(data, _encoded(entries))}",
            f"{bundle.width} entries, each behind its length",
            exc.message,
            _ALTERED,
        )
        return
    for at, (wanted, met) in enumerate(zip(entries, found, strict=True)):
        if wanted and wanted != met:
            yield differs(
                f"{bundle.path}, entry {at}",
                wanted,
                met,
                f"it is not that of record {bundle.index * TILE_WIDTH + at}: the bundle was"
                " altered, or the record was",
            )


def _agree(data: bytes, other: bytes) -> int:
    """How many bytes two have in common at their beginning."""
    return next(
        (at for at, (one, two) in enumerate(zip(data, other, strict=False)) if one != two),
        min(len(data), len(other)),
    )
