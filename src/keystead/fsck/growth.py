"""The tree as it grows over full tiles: its upper levels, and the roots that were signed of it."""

from __future__ import annotations

from collections.abc import Iterator

from keystead.fsck.chunks import Chunk
from keystead.fsck.files import Files, span
from keystead.fsck.findings import Finding, differs
from keystead.fsck.heads import Head
from keystead.fsck.state import State
from keystead.translog.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, tile_root
from keystead.translog.tree import Frontier

__all__ = ["Growth"]


class Growth:
    """Extends the tree of a state by what is known of stretches, and checks on the way."""

    def __init__(self, state: State, files: Files, published: int) -> None:
        self._state = state
        self._files = files
        self._published = published
        self._tiles = Frontier(state.size // TILE_WIDTH, tuple(state.tiles))
        self._after = 0
        """Signed roots that were not right, behind the first."""

    def take(self, chunk: Chunk) -> Iterator[Finding]:
        """What does not fit in the upper levels and heads of a stretch."""
        heads = iter(chunk.heads)
        head = next(heads, None)
        for root in [*chunk.roots, None]:
            while head is not None and head.size // TILE_WIDTH == self._tiles.size:
                yield from self._agree(head)
                head = next(heads, None)
            if root is not None:
                self._tiles = self._tiles.extended([root])
                yield from self._climb(root)
        self._state.tiles = self._tiles.hashes
        self._state.size = chunk.stop

    def root(self, head: Head) -> bytes:
        """The root of the tree that a head is of, up to which it has grown."""
        return Frontier(head.size, self._tiles.hashes + head.inner).root()

    def _agree(self, head: Head) -> Iterator[Finding]:
        state = self._state
        met = self.root(head)
        if met == head.root:
            if not state.forked:
                state.agreed = head.size
            return
        if state.forked:
            self._after += 1
            return
        state.forked = head.size
        yield differs(
            head.place,
            head.root,
            met,
            f"the first {head.size} records are not those that were signed; the first"
            f" {state.agreed} are: something between them was altered",
        )

    def _climb(self, root: bytes) -> Iterator[Finding]:
        levels = self._state.levels
        level = 0
        while True:
            if len(levels) == level:
                levels.append([])
            levels[level].append(root)
            if len(levels[level]) < TILE_WIDTH:
                return
            data = b"".join(levels[level])
            levels[level] = []
            index = (self._tiles.size >> TILE_HEIGHT * (level + 1)) - 1
            tile = Tile(level + 1, index)
            required = span(tile)[1] <= self._published
            yield from self._files.tile(tile, data, required=required)
            root = tile_root(data)
            level += 1

    @property
    def more(self) -> int:
        """Signed roots behind the first that was not right, that were not right either."""
        return self._after
