"""A data folder as a node leaves it: rows, checkpoints and tiles by the real writers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
from nacl.signing import SigningKey

from keystead.ports import CheckpointRow, RecordRow
from keystead.store.migrate import migrate_sqlite
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.store.tile_files import TileFiles
from keystead.store.tree_files import TreeFiles
from keystead.translog.entries import Draft
from keystead.translog.heads import Checkpoint
from keystead.translog.notes import ED25519, Note, VerifierKey, encode_note, sign_note, vkey_of
from keystead.translog.policy import policy_of
from keystead.translog.tree import Frontier
from keystead.vault.rows import record_row

ORIGIN = "d1/node1"
START_MS = 1_790_000_000_000
_COMMIT_ROWS = 512
_OPS = ("jwt.sign", "data.wrap", "tls.sign")


class Writer:
    """Writes a log; the key is a test's own. ``close`` it before somebody else opens the folder."""

    def __init__(self, data: Path, *, seed: int = 1) -> None:
        self.data = data
        data.mkdir(mode=0o700, exist_ok=True)
        migrate_sqlite(data / "registry.db")
        self.journal = SqliteJournal(data / "registry.db")
        self.files = TileFiles(data / "log")
        self.tree = TreeFiles(self.files)
        self.signer = SigningKey(hashlib.sha256(b"log %d" % seed).digest())
        self.key: VerifierKey = vkey_of(ORIGIN, ED25519, bytes(self.signer.verify_key))
        self.frontier = Frontier()
        self.rows: list[RecordRow] = []
        self._seed = seed

    def close(self) -> None:
        self.journal.close()

    def take_up(self) -> None:
        """Know what another one has written to the folder."""
        with closing(SqliteRegistry(self.data / "registry.db")) as registry:
            self.rows = registry.records_from(0, 100_000)
        self.frontier = Frontier().extended(row.leaf for row in self.rows)

    # --- rows --------------------------------------------------------------------------------

    def append(self, count: int) -> None:
        """Commit so many uses, the seventh of each seven refused."""
        self.commit([self.row(self.frontier.size + at) for at in range(count)])

    def row(self, seq: int, draft: Draft | None = None) -> RecordRow:
        salt = hashlib.sha256(b"salt %d %d" % (self._seed, seq)).digest()[:16]
        return record_row(seq, 1 + seq // 50, draft or use(seq), salt)

    def commit(self, rows: Sequence[RecordRow]) -> None:
        for at in range(0, len(rows), _COMMIT_ROWS):
            with self.journal.transaction() as tx:
                tx.append(rows[at : at + _COMMIT_ROWS])
        self.frontier = self.frontier.extended(row.leaf for row in rows)
        self.rows += rows

    def forget(self, ranges: Sequence[tuple[int, int]]) -> None:
        """As the vault does: the rows are erased in the commit of the entry that names them."""
        runs = ",".join(f"{first}-{last}" for first, last in ranges)
        draft = Draft(
            time_ms=START_MS,
            node="node1",
            op="log.forget",
            outcome="ok",
            request=f"f{self.frontier.size}",
            detail=f"before 2026-11-01T00:00:00Z: {runs}",
        )
        row = self.row(self.frontier.size, draft)
        with self.journal.transaction() as tx:
            tx.forget(ranges, _OPS)
            tx.append([row])
        self.frontier = self.frontier.extended([row.leaf])
        self.rows.append(row)

    # --- checkpoints and files ---------------------------------------------------------------

    def note(self, frontier: Frontier | None = None) -> bytes:
        at = frontier or self.frontier
        text = Checkpoint(ORIGIN, at.size, at.root()).encode()
        sign = sign_note(text, self.key, lambda message: self.signer.sign(message).signature)
        return encode_note(Note(text, (sign,)))

    def sign(self) -> CheckpointRow:
        """Commit a checkpoint over what is committed."""
        row = CheckpointRow(
            self.frontier.size,
            self.frontier.root(),
            b"".join(self.frontier.hashes),
            self.note(),
            START_MS + self.frontier.size,
            bytes(32),
        )
        with self.journal.transaction() as tx:
            tx.put_checkpoint(row)
        return row

    def publish(self) -> None:
        """Tiles up to what is committed, and the checkpoint, as the steward does."""
        self.files.publish_words(policy_of(self.key))
        self.tree.append([row.entry for row in self.rows[self.tree.size :]])
        self.files.publish(self.note())

    def grow(self, count: int) -> None:
        self.append(count)
        self.sign()
        self.publish()


def use(seq: int) -> Draft:
    """One of the uses that a node records."""
    purpose, _, _ = _OPS[seq % 3].partition(".")
    refused = seq % 7 == 6
    return Draft(
        time_ms=START_MS + seq,
        node="node1",
        op=_OPS[seq % 3],
        outcome="handle_expired" if refused else "ok",
        request=f"{seq:016x}",
        key=f"k{seq % 5:024x}",
        name=f"shop-tokens-{seq % 5}",
        version=1 + seq % 2,
        revision=1,
        purpose=purpose,
        algorithm="ES256",
        tenant="default",
        context="auth/eu/shop",
        handle=f"h{seq % 9:024x}",
        link=f"{seq % 9:032x}",
        principal=f"checkout-{seq % 4}",
        signed=hashlib.sha256(b"%d" % seq).hexdigest(),
    )


@contextmanager
def writing(data: Path, *, seed: int = 1) -> Iterator[Writer]:
    """A writer on a folder, closed at the end."""
    with closing(Writer(data, seed=seed)) as writer:
        yield writer


def with_entry(row: RecordRow, **fields: object) -> RecordRow:
    """A row with some of its fields replaced."""
    return msgspec.structs.replace(row, **fields)
