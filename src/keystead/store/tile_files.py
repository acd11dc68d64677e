"""A log's tiles, bundles and checkpoint as files, laid out as tlog-tiles serves them.

Every file can be made again from the records, which are the write-ahead; so what counts is that a
checkpoint is never there before all that it stands on. Each file is written under another name,
synced, and renamed; the folders are synced before the checkpoint is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from keystead import limits
from keystead.errors import LogUnavailable, NotFound
from keystead.store.durable import replace_file, sync_folder
from keystead.translog.lines import HASH_BYTES
from keystead.translog.policy import WitnessPolicy
from keystead.translog.tiles import TILE_WIDTH, Bundle, Tile, decode_bundle, encode_bundle

__all__ = ["CHECKPOINT", "POLICY", "VKEY", "TileFiles"]

CHECKPOINT, VKEY, POLICY = "checkpoint", "vkey", "policy"
_MODE = 0o644  # what is published


class TileFiles:
    """One log's folder. Safe for one writer and any readers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._named: set[Path] = set()  # folders whose own names are synced

    # --- reading -----------------------------------------------------------------------------

    def read(self, item: Tile | Bundle) -> bytes:
        """The bytes of a tile or bundle; a partial one also out of the full one that replaced it.

        Raises:
            NotFound: it is not there.
            MalformedRequest: the bundle that replaced it is damaged.
        """
        try:
            return self._read(item.path)
        except NotFound:
            if item.width == TILE_WIDTH:
                raise
        whole = self._read(msgspec.structs.replace(item, width=TILE_WIDTH).path)
        if isinstance(item, Tile):
            return whole[: item.width * HASH_BYTES]
        return encode_bundle(decode_bundle(whole, TILE_WIDTH)[: item.width])

    def checkpoint(self) -> bytes | None:
        """The signed note that was published last, with the cosignatures it had."""
        try:
            return self._read(CHECKPOINT)
        except NotFound:
            return None

    def words(self, name: str) -> bytes:
        """The log's verifier key or its trust policy, as text.

        Raises:
            NotFound: nothing was published yet.
        """
        return self._read(name)

    def _read(self, name: str) -> bytes:
        path = self.folder / name
        try:
            with path.open("rb") as file:
                return file.read(limits.TILE_FILE_BYTES_MAX + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"the log has no {name}") from None
        except OSError as exc:
            raise _unavailable(path, exc) from exc

    # --- writing -----------------------------------------------------------------------------

    def write(self, items: Iterable[tuple[Tile | Bundle, bytes]]) -> None:
        """Write tiles and bundles, durable when this returns.

        Raises:
            LogUnavailable: the disk is full or failing; what was written before stays.
        """
        folders: set[Path] = set()
        made: set[Path] = set()
        for item, data in items:
            path = self.folder / item.path
            self._make_folders(path.parent, made)
            _replace(path, data)
            folders.add(path.parent)
        self._sync(folders, made)

    def publish(self, note: bytes) -> None:
        """Put a checkpoint in place; all that it stands on is written already.

        Raises:
            LogUnavailable: the disk is full or failing; the one before stays.
        """
        self._put(CHECKPOINT, note)

    def publish_words(self, policy: WitnessPolicy) -> None:
        """Put the log's verifier key and its policy beside it, for people: others pin their own."""
        (log,) = policy.logs
        self._put(VKEY, f"{log.key.encode()}\n".encode())
        self._put(POLICY, policy.encode())

    def drop_partials(self, items: Iterable[Tile | Bundle]) -> None:
        """Remove the partial forms of full tiles and bundles."""
        for item in items:
            if item.width == TILE_WIDTH:
                folder = self.folder / f"{item.path}.p"
                shutil.rmtree(folder, ignore_errors=True)
                self._named.discard(folder)

    def _put(self, name: str, data: bytes) -> None:
        made: set[Path] = set()
        self._make_folders(self.folder, made)
        _replace(self.folder / name, data)
        self._sync({self.folder}, made)

    def _make_folders(self, folder: Path, made: set[Path]) -> None:
        """Make a folder and those above it; ``made`` gets those whose names may not be synced.

        One that is there counts, too: a round that failed may have made it.
        """
        if folder in self._named:
            return
        if folder != self.folder:
            self._make_folders(folder.parent, made)
        try:
            folder.mkdir(mode=0o755, parents=folder == self.folder, exist_ok=True)
        except OSError as exc:
            raise _unavailable(folder, exc) from exc
        made.add(folder)

    def _sync(self, folders: set[Path], made: set[Path]) -> None:
        for folder in folders | {one.parent for one in made}:
            _sync_folder(folder)
        self._named |= made


def _replace(path: Path, data: bytes) -> None:
    try:
        replace_file(path, data, _MODE)
    except OSError as exc:
        raise _unavailable(path, exc) from exc


def _sync_folder(folder: Path) -> None:
    try:
        sync_folder(folder)
    except OSError as exc:
        raise _unavailable(folder, exc) from exc


def _unavailable(path: Path, exc: OSError) -> LogUnavailable:
    return LogUnavailable(
        f"the log's file {path} cannot be used: {exc.strerror}",
        hint="Give the data folder room and this user's permission; the node goes on by itself",
    )
