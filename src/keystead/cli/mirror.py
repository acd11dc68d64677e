"""A copy of a published tree, built from its entries alone and held against its signed head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from keystead import limits
from keystead.errors import ProofInvalid
from keystead.store.tile_files import TileFiles
from keystead.store.tree_files import TreeFiles
from keystead.translog.checkpoints import Checkpoint, open_checkpoint
from keystead.translog.notes import VerifierKey
from keystead.translog.policy import policy_of
from keystead.translog.tiles import TILE_WIDTH, Bundle

__all__ = ["Mirror"]


class Mirror:
    """A folder of static files; goes on from the checkpoint that is in it.

    Raises:
        ProofInvalid: the folder holds a tree that its own checkpoint does not sign.
        SignatureInvalid: its checkpoint is another log's.
        NotFound, MalformedRequest: a file of it is missing or damaged.
    """

    def __init__(self, folder: Path, log: VerifierKey) -> None:
        self._tree = TreeFiles(TileFiles(folder))
        self._log = log
        self._gathered: list[bytes] = []
        note = self._tree.files.checkpoint()
        if note is not None:
            head, _ = open_checkpoint(note, log)
            self._tree.resume(head)

    @property
    def size(self) -> int:
        """Entries that it holds."""
        return self._tree.size

    def take(self, bundle: Bundle, entries: Sequence[bytes]) -> None:
        """The next bundle's entries; those that are there already are passed over."""
        known = self.size + len(self._gathered) - bundle.index * TILE_WIDTH
        self._gathered += entries[max(0, known) :]
        if len(self._gathered) >= limits.TREE_ROWS_AT_ONCE:
            self._write()

    def _write(self) -> None:
        if self._gathered:
            self._tree.append(self._gathered)
            self._gathered = []

    def finish(self, head: Checkpoint, note: bytes) -> None:
        """Write the rest, and put the checkpoint in place if the tree has its root.

        Raises:
            ProofInvalid: it has another: the log has forked, shrunk, or serves false entries.
        """
        self._write()
        if self.size != head.size or self._tree.root() != head.root:
            raise ProofInvalid(
                f"the entries served do not make the tree of {head.size} that {head.origin} signed,"
                f" after the {self.size} that are here",
                hint="Keep this folder and the checkpoint: together they show that the log was"
                " changed. Export into an empty folder to see what is served now",
            )
        self._tree.files.publish_words(policy_of(self._log))
        self._tree.files.publish(note)
