"""What the database holds after a run: both nodes' logs and what they share, read as it stands.

Nothing of the vault or its store reads rows here: the rules of ``checker`` are held against them as
they are, so that a fault of theirs is not shared. Only kept answers are sealed, and opened with the
deployment's own seal, to know which node's record they stand for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from keystead.custody.root import RootKey
from keystead.custody.seal_file import FileSeal
from keystead.frames.messages import Receipt
from keystead.net.system import SystemRandom
from keystead.ports import IdempotencyRow
from keystead.vault.macs import VaultSecrets
from keystead.vault.start import DEPLOYMENT, SEALED_ROOT

__all__ = ["Log", "Place", "Row", "Storage"]

_MAC_BYTES = 32
_SHARED = "keystead"
_LOG = "keystead_log_"
_COLUMNS = (
    "seq, epoch, op, outcome, key_id, version, handle_id, request_id, body, salt, entry, leaf"
)
_COMMITTED = "(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint"
_USES = frozenset(
    {"jwt.sign", "firmware.sign", "ledger.append", "data.wrap", "data.unwrap", "tls.sign"}
)

Place = tuple[str, int]
"""Node and sequence: one record of one log."""
Session = psycopg.Connection[tuple[Any, ...]]


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A record: what is searched by, the exact body, the hashes beside it, and the parsed body.

    ``committed_us``: when the server committed it, by its own clock (``track_commit_timestamp``);
    0: not known.
    """

    seq: int
    epoch: int
    op: str
    outcome: str
    key_id: str
    version: int
    handle_id: str
    request_id: str
    raw: bytes
    salt: bytes
    entry: bytes
    leaf: bytes
    body: dict[str, Any]
    committed_us: int = 0

    @property
    def done(self) -> bool:
        """Whether it is the record of a use that was done."""
        return self.op in _USES and self.outcome == "ok"


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """One node's log: its records in order, and (size, root) of its checkpoints."""

    rows: list[Row]
    checkpoints: list[tuple[int, bytes]] = []


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the rules look at, as of one transaction.

    ``idempotency``: (scope, key) to the record it stands for. ``found``: by node, what a search
    through its front gave, as (sequence, epoch, outcome, request).
    """

    epoch: int
    logs: dict[str, Log]
    idempotency: dict[tuple[str, str], Place] = {}
    spent: dict[str, int] = {}
    counters: dict[tuple[str, str], list[Any]] = {}
    found: dict[str, list[tuple[int, int, str, str]]] = {}

    def row(self, place: Place) -> Row | None:
        """The record at a place, if there is one."""
        node, seq = place
        rows = self.logs[node].rows if node in self.logs else []
        return rows[seq] if 0 <= seq < len(rows) else None

    @staticmethod
    def read(session: Session, seal: Path) -> Storage:
        """Read it all, in one transaction, beside nodes that may be writing.

        ``seal``: the file that the deployment is sealed with.
        """
        with session.transaction():
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            schemas = [
                str(name)
                for (name,) in session.execute(
                    "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'keystead\\_log\\_%'"
                )
            ]
            session.execute(f"SET LOCAL search_path TO {_SHARED}")
            return Storage(
                epoch=int(_one(session, "SELECT coalesce(max(epoch), 0) FROM epoch")),
                logs={name.removeprefix(_LOG): _log(session, name) for name in sorted(schemas)},
                idempotency=dict(_idempotency(session, seal)),
                spent=dict(session.execute("SELECT link, uses FROM spent").fetchall()),
                counters={
                    (key_id, name): msgspec.msgpack.decode(value[_MAC_BYTES:])
                    for key_id, name, value in session.execute(
                        "SELECT key_id, name, value FROM counters"
                    )
                },
            )


def _one(session: Session, query: str) -> Any:  # noqa: ANN401  a column of any type
    row = session.execute(query.encode()).fetchone()
    return None if row is None else row[0]


def _log(session: Session, schema: str) -> Log:
    quoted = '"' + schema.replace('"', '""') + '"'
    rows = session.execute(
        f"SELECT {_COLUMNS}, {_COMMITTED} FROM {quoted}.records ORDER BY seq".encode()  # noqa: S608  constants, and a name of the catalogue
    )
    noted = session.execute(
        f"SELECT size, root FROM {quoted}.checkpoints ORDER BY size".encode()  # noqa: S608  as above
    )
    return Log(
        rows=[
            msgspec.convert([*values[:-1], json.loads(values[8]), values[-1] or 0], Row)
            for values in rows
        ],
        checkpoints=[(int(size), bytes(root)) for size, root in noted],
    )


def _idempotency(session: Session, seal: Path) -> Iterator[tuple[tuple[str, str], Place]]:
    """A repeat is given the receipt that is kept, which names node and sequence."""
    secrets = _secrets(dict(session.execute("SELECT name, value FROM meta").fetchall()), seal)
    for values in session.execute(
        "SELECT scope, key, fingerprint, seq, result, receipt, expires_ms FROM idempotency"
    ):
        row = secrets.open_outcome(IdempotencyRow(*values))
        told = msgspec.msgpack.decode(row.receipt, type=Receipt)
        if told.seq != row.seq:
            raise ValueError(f"{row.key} is kept with record {row.seq}, its receipt says {told}")
        yield (row.scope, row.key), (told.node, row.seq)


def _secrets(meta: dict[str, bytes], seal: Path) -> VaultSecrets:
    random = SystemRandom()
    deployment = meta[DEPLOYMENT].decode()
    root = RootKey.unseal(FileSeal(seal), meta[SEALED_ROOT], deployment, random)
    return VaultSecrets(
        root.derive(b"handles"), root.derive(b"registry"), root.derive(b"fingerprints")
    )
