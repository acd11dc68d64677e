"""Tiles: the tree as files of 256 hashes, and entry bundles (C2SP tlog-tiles).

A tile at level L holds the roots of the perfect subtrees of 256**L leaves each. The rightmost ones
are partial, with their width in their name; a full one is never written again.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from keystead.errors import MalformedRequest
from keystead.limits import LOG_ENTRY_BYTES_MAX, LOG_SIZE_MAX, TILE_CACHE_MAX
from keystead.translog.lines import HASH_BYTES, decimal, quoted
from keystead.translog.tree import check_size, parents

__all__ = [
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "Bundle",
    "Tile",
    "TileEdge",
    "TileNodes",
    "bundles_between",
    "decode_bundle",
    "edge_tiles",
    "encode_bundle",
    "parse_path",
    "tile_root",
    "tiles_between",
]

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
"""Hashes of a full tile, entries of a full bundle."""
TILE_LEVEL_MAX = 63
_INDEX_MAX = LOG_SIZE_MAX >> TILE_HEIGHT
_GROUP = 1000
_LENGTH_BYTES = 2
_PATH = re.compile(
    r"tile/(?P<level>[0-9]{1,2}|entries)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[0-9]{1,3}))?",
    re.ASCII,
)


class Tile(msgspec.Struct, frozen=True):
    """The name of a hash tile; ``width`` is below 256 for a partial one."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """As under the log's prefix: ``tile/0/x001/234``, partial ``tile/0/x001/234.p/7``."""
        return f"tile/{self.level}/{_index_path(self.index, self.width)}"


class Bundle(msgspec.Struct, frozen=True):
    """The name of an entry bundle, the entries under a tile of level 0."""

    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """As under the log's prefix: ``tile/entries/x001/234``, partial with ``.p/7``."""
        return f"tile/entries/{_index_path(self.index, self.width)}"


def _index_path(index: int, width: int) -> str:
    groups = [f"{index % _GROUP:03}"]
    while index := index // _GROUP:
        groups.append(f"x{index % _GROUP:03}")
    groups.reverse()
    return "/".join(groups) + (f".p/{width}" if width < TILE_WIDTH else "")


def parse_path(path: str) -> Tile | Bundle:
    """The tile or bundle of a path in the one form that tlog-tiles has for it.

    Raises:
        MalformedRequest: any other form, or a level, index or width out of bounds.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise MalformedRequest(
            f"expected a path like tile/0/x001/234 or tile/entries/000.p/7, met {quoted(path)}"
        )
    index = int(re.sub("[x/]", "", found["index"]))
    width = TILE_WIDTH
    if found["width"] is not None:
        width = decimal(found["width"], TILE_WIDTH - 1, "a tile's width")
    named: Tile | Bundle
    if found["level"] == "entries":
        named = Bundle(index, width)
    else:
        named = Tile(decimal(found["level"], TILE_LEVEL_MAX, "a tile's level"), index, width)
    if named.path != path or index > _INDEX_MAX or width == 0:
        raise MalformedRequest(
            f"expected a tile's path without superfluous zeros, met {quoted(path)}",
            hint="an index has no leading x000 group, a partial tile has a width of 1 to 255",
        )
    return named


def tiles_between(old: int, new: int) -> Iterator[Tile]:
    """The hash tiles that a tree of ``new`` has and one of ``old`` has not, lower levels first.

    At each level the full ones, then the partial one if there is one.

    Raises:
        MalformedRequest: sizes out of bounds, or shrinking.
    """
    _check_growth(old, new)
    level, had, has = 0, old, new
    while had < has:
        for index, width in _names_between(had, has):
            yield Tile(level, index, width)
        level, had, has = level + 1, had // TILE_WIDTH, has // TILE_WIDTH


def bundles_between(old: int, new: int) -> Iterator[Bundle]:
    """The entry bundles that a tree of ``new`` has and one of ``old`` has not.

    Raises:
        MalformedRequest: sizes out of bounds, or shrinking.
    """
    _check_growth(old, new)
    if old < new:
        for index, width in _names_between(old, new):
            yield Bundle(index, width)


def _check_growth(old: int, new: int) -> None:
    check_size(new)
    if not 0 <= old <= new:
        raise MalformedRequest(f"expected an old size from 0 to {new}, met {old}")


def _names_between(had: int, has: int) -> Iterator[tuple[int, int]]:
    for index in range(had // TILE_WIDTH, has // TILE_WIDTH):
        yield index, TILE_WIDTH
    if width := has % TILE_WIDTH:
        yield has // TILE_WIDTH, width


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Each entry behind its length, uint16 big-endian.

    Raises:
        MalformedRequest: none, more than a bundle's, or an entry that is too long.
    """
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise MalformedRequest(f"expected 1 to {TILE_WIDTH} entries, met {len(entries)}")
    for entry in entries:
        if len(entry) > LOG_ENTRY_BYTES_MAX:
            raise MalformedRequest(
                f"expected entries of at most {LOG_ENTRY_BYTES_MAX} bytes, met {len(entry)}"
            )
    return b"".join(len(entry).to_bytes(_LENGTH_BYTES, "big") + entry for entry in entries)


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """The ``width`` entries of a bundle.

    Raises:
        MalformedRequest: a width out of bounds, or other entries than so many.
    """
    if not 1 <= width <= TILE_WIDTH:
        raise MalformedRequest(f"expected a bundle's width from 1 to {TILE_WIDTH}, met {width}")
    entries: list[bytes] = []
    at = 0
    for _ in range(width):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or at > len(data):
            raise MalformedRequest(
                f"expected {width} entries in a bundle, met {len(entries)} and a cut one"
            )
        entries.append(data[start:at])
    if at != len(data):
        raise MalformedRequest(
            f"expected {at} bytes in a bundle of {width} entries, met {len(data)}"
        )
    return entries


def tile_root(data: bytes) -> bytes:
    """The root over a power of two of hashes; over a full tile it is a hash of the level above.

    Raises:
        MalformedRequest: another number of hashes.
    """
    count, rest = divmod(len(data), HASH_BYTES)
    if rest or count.bit_count() != 1:
        raise MalformedRequest(f"expected a power of two of hashes, met {len(data)} bytes")
    row = _hashes(data)
    while len(row) > 1:
        row = parents(row)
    return row[0]


def _hashes(data: bytes) -> list[bytes]:
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


class TileEdge(msgspec.Struct, frozen=True):
    """All that writing tiles needs of a tree: the bytes of its partial tile at each level.

    ``partials`` is one item a level from 0 up, empty bytes where the level has no partial tile.
    """

    size: int = 0
    partials: tuple[bytes, ...] = ()

    def check(self) -> None:
        """Hold the shape against the size.

        Raises:
            MalformedRequest: a size out of bounds, or partial tiles of other widths than it has.
        """
        check_size(self.size)
        expected = [tile.width * HASH_BYTES if tile else 0 for tile in _edge_of(self.size)]
        met = [len(data) for data in self.partials]
        if met != expected:
            raise MalformedRequest(
                f"expected partial tiles of {expected} bytes at the edge of a tree of"
                f" {self.size}, met {met}"
            )

    def extended(self, leaves: Iterable[bytes]) -> tuple[TileEdge, list[tuple[Tile, bytes]]]:
        """The edge after these leaf hashes, and the tiles to be written, as `tiles_between` has it.

        All leaves given are held in memory: a caller gives them in runs of some thousands.

        Raises:
            MalformedRequest: the edge's shape is wrong, or the tree would grow past its bound.
        """
        self.check()
        row, had, level = list(leaves), self.size, 0
        size = had + len(row)
        check_size(size)
        written: list[tuple[Tile, bytes]] = []
        partials: list[bytes] = []
        while row or had:
            partial = self.partials[level] if level < len(self.partials) else b""
            first, width = divmod(had, TILE_WIDTH)
            if width + len(row) < TILE_WIDTH:
                edge = partial + b"".join(row)
                above: list[bytes] = []
            else:
                full, edge, above = _cut(_hashes(partial) + row)
                written += [(Tile(level, first + at), data) for at, data in enumerate(full)]
                first += len(full)
            if row and edge:
                written.append((Tile(level, first, len(edge) // HASH_BYTES), edge))
            partials.append(edge)
            row, had, level = above, had // TILE_WIDTH, level + 1
        return TileEdge(size, tuple(partials)), written


def edge_tiles(size: int) -> tuple[Tile, ...]:
    """The partial tiles of a tree, lower levels first: what a :class:`TileEdge` is read from."""
    return tuple(tile for tile in _edge_of(size) if tile is not None)


def _edge_of(size: int) -> Iterator[Tile | None]:
    level = 0
    while size:
        index, width = divmod(size, TILE_WIDTH)
        yield Tile(level, index, width) if width else None
        size, level = index, level + 1


def _cut(row: list[bytes]) -> tuple[list[bytes], bytes, list[bytes]]:
    """A level's hashes as full tiles and the partial one; and the full ones' roots."""
    whole = len(row) - len(row) % TILE_WIDTH
    full = [b"".join(row[at : at + TILE_WIDTH]) for at in range(0, whole, TILE_WIDTH)]
    above = row[:whole]
    for _ in range(TILE_HEIGHT):
        above = parents(above)
    return full, b"".join(row[whole:]), above


class TileNodes:
    """The nodes of a tree of ``size`` by its tiles; :meth:`read` is a ``ReadNode``.

    ``fetch``: a tile to its bytes; what it raises passes through. The hashes are taken as they
    come: whoever reads foreign tiles checks what is built of them against a signed root.
    """

    def __init__(self, fetch: Callable[[Tile], bytes], size: int) -> None:
        check_size(size)
        self._fetch = fetch
        self._size = size
        self._kept: OrderedDict[Tile, bytes] = OrderedDict()

    def read(self, level: int, index: int) -> bytes:
        """The hash of a perfect subtree.

        Raises:
            MalformedRequest: the tree does not reach so far, or the tile has another length.
        """
        if level < 0 or index < 0 or index + 1 << level > self._size:
            raise MalformedRequest(
                f"expected a node of the tree of {self._size}, met level {level} index {index}"
            )
        tile_level, inner = divmod(level, TILE_HEIGHT)
        first = index << inner  # of its hashes at the tile's level
        data = self._tile(tile_level, first // TILE_WIDTH)
        at = first % TILE_WIDTH * HASH_BYTES
        return tile_root(data[at : at + (HASH_BYTES << inner)])

    def _tile(self, level: int, index: int) -> bytes:
        count = (self._size >> TILE_HEIGHT * level) - index * TILE_WIDTH
        tile = Tile(level, index, min(count, TILE_WIDTH))
        data = self._kept.get(tile)
        if data is None:
            data = self._fetch(tile)
            if len(data) != tile.width * HASH_BYTES:
                raise MalformedRequest(
                    f"expected {tile.width * HASH_BYTES} bytes in {tile.path}, met {len(data)}",
                    hint="the tile is damaged, or not of this log: compare it with another copy",
                )
            self._kept[tile] = data
            if len(self._kept) > TILE_CACHE_MAX:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(tile)
        return data
