"""Writes the log's tiles out of its records; each record is checked on its way.

What it builds is published only if the vault signed the same root. All that it keeps in memory can
be read again from the files, and all files can be made again from the records.
"""

from __future__ import annotations

from keystead import limits
from keystead.errors import MalformedRequest, NotFound, SignatureInvalid
from keystead.ports import Registry
from keystead.steward.watch import RecordWatch
from keystead.store.tree_files import TreeFiles
from keystead.translog.checkpoints import Checkpoint, open_checkpoint
from keystead.translog.notes import VerifierKey
from keystead.translog.tiles import TileNodes

__all__ = ["TreeWriter"]


class TreeWriter:
    """The tiles of one log, extended from where the files stand. Called from one thread."""

    def __init__(self, registry: Registry, tree: TreeFiles) -> None:
        self._registry = registry
        self._tree = tree
        self._again = 0

    @property
    def size(self) -> int:
        """Leaves in the tiles."""
        return self._tree.size

    def resume(self, vkey: VerifierKey) -> tuple[Checkpoint | None, str]:
        """Take up what was published last; gives it, and what was wrong with it, if anything.

        Where a file is missing or damaged, everything is made again from the records: tiles are
        not evidence by themselves, the signed root is.
        """
        self._tree.restart()
        self._again = 0
        note = self._tree.files.checkpoint()
        if note is None:
            return None, ""
        try:
            published, _ = open_checkpoint(note, vkey)
        except (MalformedRequest, SignatureInvalid) as exc:
            return None, f"the published checkpoint is not this log's: {exc.message}"
        try:
            self._tree.resume(published)
        except (NotFound, MalformedRequest, SignatureInvalid) as exc:
            self._again = published.size
            return published, f"a tile is missing or damaged: {exc.message}"
        return published, ""

    def extend(self, size: int) -> list[str]:
        """Write the tiles up to a size that is committed; gives findings, as the watch does.

        Raises:
            LogUnavailable: the disk or the database fails; the next call goes on.
        """
        findings: list[str] = []
        while self._tree.size < size:
            first = self._tree.size
            # Partial files of a size whose files were damaged are written over only at that size.
            until = self._again if first < self._again <= size else size
            count = min(limits.TREE_ROWS_AT_ONCE, until - first)
            rows = self._registry.entries_from(first, count)
            # A new watch: what the disk refuses below is read and checked again.
            found = RecordWatch(first).check(rows)
            findings += found
            if len(rows) != count or rows[-1].seq != first + count - 1:
                return [*findings, f"I10 expected records {first} to {size - 1}, met a gap"]
            # Leaves that do not fit are made anew: the tree is of what the entries are.
            leaves = None if found else [row.leaf for row in rows]
            self._tree.append([row.entry for row in rows], leaves)
        return findings

    def nodes(self) -> TileNodes:
        """The nodes of the tree as it is written."""
        return self._tree.nodes()

    def root(self) -> bytes:
        """The root over what is written."""
        return self._tree.root()
