"""Tiles: their names, when they are written, what is in them, and nodes read back out of them."""

from __future__ import annotations

import pytest

from keystead.errors import MalformedRequest, NotFound
from keystead.limits import LOG_ENTRY_BYTES_MAX, LOG_SIZE_MAX, TILE_CACHE_MAX
from keystead.translog.tiles import (
    TILE_WIDTH,
    Bundle,
    Tile,
    TileEdge,
    TileNodes,
    bundles_between,
    decode_bundle,
    edge_tiles,
    encode_bundle,
    parse_path,
    tile_root,
    tiles_between,
)
from keystead.translog.tree import inclusion_proof, root_of, verify_inclusion
from unit.translog.logs import Naive, TileStore, leaves_of

LEAVES = leaves_of(70_000)
NAIVE = Naive(LEAVES)
STORE = TileStore()
for _low, _high in ((0, 1), (1, 255), (255, 256), (256, 300), (300, 65_535), (65_535, 70_000)):
    STORE.append(LEAVES[_low:_high])


@pytest.mark.parametrize(
    ("named", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 0, 1), "tile/0/000.p/1"),
        (Tile(63, 999, 255), "tile/63/999.p/255"),
        (Tile(1, 1000), "tile/1/x001/000"),
        (Tile(2, 1_234_067), "tile/2/x001/x234/067"),
        (Tile(0, 1_000_000_000), "tile/0/x001/x000/x000/000"),
        (Tile(0, LOG_SIZE_MAX >> 8, 255), "tile/0/x036/x028/x797/x018/x963/967.p/255"),
        (Bundle(0, 7), "tile/entries/000.p/7"),
        (Bundle(273), "tile/entries/273"),
        (Bundle(1_234_067, 42), "tile/entries/x001/x234/067.p/42"),
    ],
)
def test_paths_both_ways(named: Tile | Bundle, path: str) -> None:
    assert named.path == path
    assert parse_path(path) == named


@pytest.mark.parametrize(
    "path",
    [
        "",
        "checkpoint",
        "/tile/0/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/x000/001",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/x001/x000",
        "tile/0/x1/000",
        "tile/0/000/",
        "tile/0/000.p/0",
        "tile/0/000.p/00",
        "tile/0/000.p/07",
        "tile/0/000.p/256",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.p/1/",
        "tile/0/000\n",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/../000",
        "tile/entries/0",
        "tile/Entries/000",
        "tile/0/x001/x000/x000/x000/x000/x000/000",
        "tile/0/x036/x028/x797/x018/x963/968",
    ],
)
def test_other_forms_of_a_path_are_refused(path: str) -> None:
    with pytest.raises(MalformedRequest, match="tile"):
        parse_path(path)


def names(old: int, new: int) -> list[str]:
    return [tile.path for tile in tiles_between(old, new)]


def test_the_tiles_of_the_example_in_tlog_tiles() -> None:
    """A tree of 70,000: 273 full ones at level 0 and a width of 112, and so on up to level 2."""
    tiles = list(tiles_between(0, 70_000))
    assert tiles == sorted(tiles, key=lambda tile: (tile.level, tile.index))
    assert tiles[:273] == [Tile(0, index) for index in range(273)]
    assert tiles[273:] == [Tile(0, 273, 112), Tile(1, 0), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert names(0, 256) == ["tile/0/000", "tile/1/000.p/1"]
    assert list(bundles_between(0, 70_000)) == [
        *(Bundle(at) for at in range(273)),
        Bundle(273, 112),
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (0, 0, []),
        (7, 7, []),
        (0, 1, ["tile/0/000.p/1"]),
        (1, 3, ["tile/0/000.p/3"]),
        (255, 256, ["tile/0/000", "tile/1/000.p/1"]),
        (256, 257, ["tile/0/001.p/1"]),
        (300, 511, ["tile/0/001.p/255"]),
        (300, 513, ["tile/0/001", "tile/0/002.p/1", "tile/1/000.p/2"]),
        (65_535, 65_536, ["tile/0/255", "tile/1/000", "tile/2/000.p/1"]),
    ],
)
def test_the_tiles_that_growing_adds(old: int, new: int, expected: list[str]) -> None:
    assert names(old, new) == expected
    assert [bundle.path.replace("entries", "0") for bundle in bundles_between(old, new)] == [
        path for path in expected if path.startswith("tile/0/")
    ]


@pytest.mark.parametrize(("old", "new"), [(-1, 3), (4, 3), (0, LOG_SIZE_MAX + 1)])
def test_trees_grow_within_bounds(old: int, new: int) -> None:
    with pytest.raises(MalformedRequest):
        list(tiles_between(old, new))
    with pytest.raises(MalformedRequest):
        list(bundles_between(old, new))


def test_what_is_written_is_what_growing_adds() -> None:
    edge = TileEdge()
    for low, high in ((0, 0), (0, 3), (3, 700), (700, 700), (700, 66_000), (66_000, 70_000)):
        edge, written = edge.extended(LEAVES[low:high])
        assert [tile for tile, _ in written] == list(tiles_between(low, high))
        edge.check()
        assert edge.size == high


def test_each_hash_of_a_tile_is_its_subtrees() -> None:
    for tile in tiles_between(0, 70_000):
        span = 256**tile.level
        first = tile.index * TILE_WIDTH
        hashes = [
            NAIVE.root((first + at) * span, (first + at + 1) * span) for at in range(tile.width)
        ]
        assert STORE.files[tile.path] == b"".join(hashes)


def test_an_edge_is_read_back_from_its_tiles() -> None:
    assert edge_tiles(70_000) == (Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1))
    assert edge_tiles(65_536) == (Tile(2, 0, 1),)
    assert edge_tiles(0) == ()
    parts = {tile.level: STORE.fetch(tile) for tile in edge_tiles(70_000)}
    assert STORE.edge == TileEdge(70_000, tuple(parts.get(level, b"") for level in range(3)))


@pytest.mark.parametrize(
    "edge",
    [
        TileEdge(1, ()),
        TileEdge(0, (b"",)),
        TileEdge(1, (bytes(31),)),
        TileEdge(2, (bytes(32),)),
        TileEdge(256, (bytes(256 * 32), bytes(32))),
        TileEdge(256, (bytes(32),)),
        TileEdge(-1, ()),
    ],
)
def test_an_edge_of_another_shape_is_refused(edge: TileEdge) -> None:
    with pytest.raises(MalformedRequest):
        edge.extended(LEAVES[:1])


@pytest.mark.parametrize("size", [1, 255, 256, 300, 65_535, 70_000])
def test_nodes_by_tiles_are_the_trees(size: int) -> None:
    nodes = TileNodes(STORE.fetch, size)
    assert root_of(size, nodes.read) == NAIVE.root(0, size)
    for index in {0, size // 3, size // 2, size - 1}:
        proof = inclusion_proof(index, size, nodes.read)
        assert list(proof) == NAIVE.path(index, 0, size)
        verify_inclusion(LEAVES[index], index, size, proof, NAIVE.root(0, size))


def test_every_node_up_to_the_root_of_a_full_tile() -> None:
    nodes = TileNodes(STORE.fetch, 300)
    for level in range(9):
        for index in range(300 >> level):
            assert nodes.read(level, index) == NAIVE.read(level, index)


@pytest.mark.parametrize(("level", "index"), [(0, 300), (8, 1), (9, 0), (-1, 0), (0, -1), (64, 0)])
def test_no_node_past_the_tree(level: int, index: int) -> None:
    with pytest.raises(MalformedRequest, match="tree of 300"):
        TileNodes(STORE.fetch, 300).read(level, index)


def test_tiles_are_kept_and_bounded() -> None:
    store = TileStore()
    store.append(LEAVES)
    nodes = TileNodes(store.fetch, 70_000)
    for _ in range(3):
        inclusion_proof(12_345, 70_000, nodes.read)
    assert len(store.fetched) == len(set(store.fetched)) == 4  # two at level 0, two at 1
    for index in range(TILE_CACHE_MAX):
        nodes.read(0, index * TILE_WIDTH)
    store.fetched.clear()
    nodes.read(0, (TILE_CACHE_MAX - 1) * TILE_WIDTH)
    assert store.fetched == []
    nodes.read(0, 12_345)  # tile 48: among the last
    nodes.read(8, 0)  # of level 1: pushed out
    assert store.fetched == ["tile/1/000"]


@pytest.mark.parametrize("change", [b"", bytes(32)])
def test_a_tile_of_another_length_is_refused(change: bytes) -> None:
    files = {tile.path: STORE.files[tile.path][:-32] + change * 2 for tile in tiles_between(0, 300)}
    with pytest.raises(MalformedRequest, match=r"bytes in tile/0/001\.p/44"):
        TileNodes(lambda tile: files[tile.path], 300).read(0, 299)


def test_what_fetching_raises_passes_through() -> None:
    def fetch(tile: Tile) -> bytes:
        raise NotFound(f"no {tile.path}")

    with pytest.raises(NotFound, match="no tile/0/000"):
        TileNodes(fetch, 300).read(0, 0)


def test_a_flipped_bit_in_any_tile_changes_the_root() -> None:
    size = 66_000
    store = TileStore()
    store.append(LEAVES[:size])
    root = root_of(size, TileNodes(store.fetch, size).read)
    assert root == NAIVE.root(0, size)
    for tile in (Tile(0, 257, size % 256), Tile(1, 1, 1), Tile(2, 0, 1)):
        right = store.files[tile.path]
        for bit in (0, 77, tile.width * 256 - 1):
            bent = int.from_bytes(right, "big") ^ 1 << bit
            store.files[tile.path] = bent.to_bytes(len(right), "big")
            assert root_of(size, TileNodes(store.fetch, size).read) != root
        store.files[tile.path] = right


@pytest.mark.parametrize("length", [0, 31, 33, 96, 64 * 3])
def test_a_root_is_over_a_power_of_two(length: int) -> None:
    with pytest.raises(MalformedRequest):
        tile_root(bytes(length))


@pytest.mark.parametrize("width", [1, 2, 255, 256])
def test_bundles_both_ways(width: int) -> None:
    entries = [bytes([at]) * (at * at % 300) for at in range(width)]
    data = encode_bundle(entries)
    assert decode_bundle(data, width) == entries
    for cut in (data[:-1], data[1:], data + b"\0", data + b"\0\0"):
        with pytest.raises(MalformedRequest):
            decode_bundle(cut, width)
    for other in (width - 1, width + 1):
        with pytest.raises(MalformedRequest):
            decode_bundle(data, other)


def test_bundles_are_bounded() -> None:
    longest = [bytes(LOG_ENTRY_BYTES_MAX)]
    assert decode_bundle(encode_bundle(longest), 1) == longest
    for entries in ([], [b""] * 257, [bytes(LOG_ENTRY_BYTES_MAX + 1)]):
        with pytest.raises(MalformedRequest):
            encode_bundle(entries)
    assert encode_bundle([b"\1\2", b""]) == b"\0\2\1\2\0\0"
