"""The upper levels of a tree that grows by full tiles, without the many records below them."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path

import pytest

from keystead.fsck.chunks import Chunk
from keystead.fsck.files import Files
from keystead.fsck.findings import Finding
from keystead.fsck.growth import Growth
from keystead.fsck.heads import Head
from keystead.fsck.state import State
from keystead.translog.tiles import TileEdge, tile_root
from keystead.translog.tree import Frontier

ROOTS = [hashlib.sha256(b"%d" % at).digest() for at in range(300)]
"""Of full tiles: 76,800 records."""
SIZE = 300 * 256
INNER = [hashlib.sha256(b"leaf %d" % at).digest() for at in range(70)]


def root_at(size: int) -> bytes:
    """A second way: the frontier of the tiles, and below it that of the leaves."""
    tiles = Frontier().extended(ROOTS[: size // 256])
    inner = Frontier().extended(INNER[: size % 256])
    return Frontier(size, tiles.hashes + inner.hashes).root()


def grown(folder: Path, heads: list[Head], published: int = SIZE) -> tuple[State, list[Finding]]:
    state = State()
    growth = Growth(state, Files(folder), published)
    found: list[Finding] = []
    waiting = iter(ROOTS)
    for first in range(0, SIZE, 64 * 256):
        roots = list(islice(waiting, 64))
        stop = first + len(roots) * 256
        inside = [head for head in heads if first < head.size <= stop]
        found += growth.take(Chunk(first, stop, roots=roots, heads=inside))
    return state, found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The one full tile of level 1."""
    _, tiles = TileEdge().extended(ROOTS)
    (tmp_path / "tile/1").mkdir(parents=True)
    (tmp_path / "tile/1/000").write_bytes(tiles[0][1])
    return tmp_path


def test_levels_and_frontier(folder: Path) -> None:
    state, found = grown(folder, [])
    assert found == []
    assert state.size == SIZE
    assert state.tiles == Frontier().extended(ROOTS).hashes
    assert state.levels == [ROOTS[256:], [tile_root(b"".join(ROOTS[:256]))]]


def test_a_tile_of_an_upper_level(folder: Path) -> None:
    tile = folder / "tile/1/000"
    data = tile.read_bytes()
    tile.write_bytes(data[:320] + b"x" + data[321:])
    assert [one.place for one in grown(folder, [])[1]] == ["tile/1/000, hash 10"]
    tile.unlink()
    assert [one.place for one in grown(folder, [])[1]] == ["tile/1/000"]
    assert grown(folder, [], published=SIZE - 256 * 45)[1] == []  # no checkpoint stands on it


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_535, 65_536, 65_606, SIZE - 256 + 70, SIZE])
def test_heads(folder: Path, size: int) -> None:
    inner = Frontier().extended(INNER[: size % 256]).hashes
    if size % 256 > len(INNER):
        inner = Frontier().extended(ROOTS[: size % 256]).hashes  # any leaves do
        root = Frontier(size, Frontier().extended(ROOTS[: size // 256]).hashes + inner).root()
    else:
        root = root_at(size)
    state, found = grown(folder, [Head(size, root, "right", inner)])
    assert (found, state.agreed) == ([], size)
    state, found = grown(folder, [Head(size, bytes(32), "wrong", inner)])
    assert [one.place for one in found] == ["wrong"]
    assert (state.agreed, state.forked) == (0, size)


def test_what_follows_a_false_head_is_counted(folder: Path) -> None:
    heads = [
        Head(512, root_at(512), "right"),
        Head(768, bytes(32), "wrong"),
        Head(1024, bytes(32), "as wrong"),
        Head(60_160, bytes(32), "as wrong"),
    ]
    state = State()
    growth = Growth(state, Files(folder), 0)
    found = list(growth.take(Chunk(0, SIZE, roots=ROOTS, heads=heads)))
    assert [one.place for one in found] == ["wrong"]
    assert "the first 512 are" in found[0].means
    assert growth.more == 2
