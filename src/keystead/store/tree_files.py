"""A log's tree on files, extended entry by entry from where it stands."""

from __future__ import annotations

from collections.abc import Sequence

from keystead.errors import ProofInvalid
from keystead.store.tile_files import TileFiles
from keystead.translog.checkpoints import Checkpoint
from keystead.translog.entries import leaf_hash
from keystead.translog.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Bundle,
    Tile,
    TileEdge,
    TileNodes,
    decode_bundle,
    edge_tiles,
    encode_bundle,
)
from keystead.translog.tree import root_of

__all__ = ["TreeFiles"]


class TreeFiles:
    """The tiles and bundles of one log. Called from one thread."""

    def __init__(self, files: TileFiles) -> None:
        self.files = files
        self._edge = TileEdge()
        self._open: list[bytes] = []  # entries of the partial bundle

    @property
    def size(self) -> int:
        """Entries in the files."""
        return self._edge.size

    def restart(self) -> None:
        """Begin at nothing; what is there is written over."""
        self._edge, self._open = TileEdge(), []

    def resume(self, head: Checkpoint) -> None:
        """Take up the files of a tree head; they must have its root.

        Raises:
            NotFound: a file is missing.
            MalformedRequest: one has another length.
            ProofInvalid: they have another root, or entries that are not its leaves'.
        """
        size = head.size
        tiles = {tile.level: self.files.read(tile) for tile in edge_tiles(size)}
        levels = -(-size.bit_length() // TILE_HEIGHT)
        edge = TileEdge(size, tuple(tiles.get(level, b"") for level in range(levels)))
        edge.check()
        met = root_of(size, TileNodes(self.files.read, size).read)
        if met != head.root:
            raise ProofInvalid(
                f"the tiles of size {size} do not hash to their checkpoint: expected"
                f" {head.root.hex()}, met {met.hex()}"
            )
        width = size % TILE_WIDTH
        last = Bundle(size // TILE_WIDTH, width)
        entries = decode_bundle(self.files.read(last), width) if width else []
        if width and b"".join(map(leaf_hash, entries)) != edge.partials[0]:
            raise ProofInvalid(f"the entries of {last.path} are not those of its tile")
        self._edge, self._open = edge, entries

    def append(self, entries: Sequence[bytes], leaves: Sequence[bytes] | None = None) -> None:
        """Write the tiles and bundles that these entries make, full ones and the partial last.

        ``leaves``: their leaf hashes, if they are known.

        Raises:
            LogUnavailable: the disk is full or failing; nothing is lost, the next call does it.
        """
        edge, tiles = self._edge.extended(leaves or [leaf_hash(entry) for entry in entries])
        first = self._edge.size // TILE_WIDTH
        pending = [*self._open, *entries]
        written: list[tuple[Tile | Bundle, bytes]] = []
        for offset, at in enumerate(range(0, len(pending), TILE_WIDTH)):
            part = pending[at : at + TILE_WIDTH]
            written.append((Bundle(first + offset, len(part)), encode_bundle(part)))
        written += tiles
        self.files.write(written)
        self.files.drop_partials([item for item, _ in written])
        self._edge = edge
        rest = edge.size % TILE_WIDTH
        self._open = pending[-rest:] if rest else []

    def nodes(self) -> TileNodes:
        """The nodes of the tree as it is written."""
        return TileNodes(self.files.read, self._edge.size)

    def root(self) -> bytes:
        """The root over what is written."""
        return root_of(self._edge.size, self.nodes().read)
