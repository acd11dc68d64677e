"""Rows and questions as the ports of registry and log have them: values, without any behaviour."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

__all__ = [
    "CheckpointRow",
    "EntryRow",
    "EpochRow",
    "HandleRow",
    "HistoryQuery",
    "HistoryRow",
    "IdempotencyRow",
    "LeaseRow",
    "NodeRow",
    "ObjectRow",
    "Reach",
    "RecordRow",
    "RecordsChoice",
    "RecordsCount",
    "RecordsPage",
    "RecordsQuery",
    "ReservationRow",
]


class EpochRow(msgspec.Struct, frozen=True):
    """The deployment's epoch and the digest over all authority rows, under the vault's MAC."""

    epoch: int
    root: bytes
    mac: bytes


class ObjectRow(msgspec.Struct, frozen=True):
    """One row that carries authority: ``doc`` is msgpack; ``name`` is unique within ``kind``."""

    kind: str
    id: str
    name: str
    revision: int
    epoch: int
    doc: bytes
    mac: bytes


class HandleRow(msgspec.Struct, frozen=True):
    """Whom a handle was issued to, under the vault's MAC."""

    id: str
    key_id: str
    tenant: str
    principal: str
    issued_ms: int
    mac: bytes


class RecordRow(msgspec.Struct, frozen=True):
    """One record: the exact body, its salt, entry and leaf hash, and what it is searched by.

    Forgotten: ``body`` and ``salt`` are None; handle, principal and request id are empty.
    """

    seq: int
    time_ms: int
    epoch: int
    op: str
    outcome: str
    key_id: str
    version: int
    handle_id: str
    principal: str
    request_id: str
    body: bytes | None
    salt: bytes | None
    entry: bytes
    leaf: bytes
    purpose: str = ""


class EntryRow(NamedTuple):
    """One record as the tree has it; salt and body are ``None`` where they were forgotten."""

    seq: int
    epoch: int
    salt: bytes | None
    body: bytes | None
    entry: bytes
    leaf: bytes


class CheckpointRow(msgspec.Struct, frozen=True):
    """A tree head that the vault signed, under its MAC.

    ``frontier``: the hashes that appending to that tree needs, one after the other, 32 bytes each.
    ``note``: the signed note, without cosignatures.
    """

    size: int
    root: bytes
    frontier: bytes
    note: bytes
    time_ms: int
    mac: bytes


class IdempotencyRow(msgspec.Struct, frozen=True):
    """The outcome of a request under its idempotency key; ``result`` is None for secrets."""

    scope: str
    key: str
    fingerprint: bytes
    seq: int
    result: bytes | None
    receipt: bytes
    expires_ms: int


class ReservationRow(msgspec.Struct, frozen=True):
    """Uses reserved for a best-effort key on one node (I2); open until ``closed``."""

    id: str
    node: str
    key_id: str
    epoch: int
    count: int
    expires_boot_ms: int
    opened_seq: int
    closed: bool


class NodeRow(msgspec.Struct, frozen=True):
    """How far one node has come, as it says itself, under the vault's MAC.

    ``seen_epoch``: whatever it releases from now on was held to the state of this epoch or a later
    one, and the records of all that it released before are committed. ``beat`` grows with every
    round. ``url``: where its front listens, for people.
    """

    node: str
    seen_epoch: int
    beat: int
    url: str
    mac: bytes


class LeaseRow(msgspec.Struct, frozen=True):
    """Who leads, under the vault's MAC: see ``keys.leases``."""

    name: str
    holder: str
    fence: int
    beat: int
    mac: bytes


class HistoryRow(msgspec.Struct, frozen=True):
    """One revision of an authority row, as it was committed; ``mac`` is that of the row itself.

    ``seq``: of the first record of its commit; -1: it is older than the history.
    """

    kind: str
    id: str
    name: str
    revision: int
    epoch: int
    seq: int
    time_ms: int
    doc: bytes
    mac: bytes


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which revisions; what is None does not matter.

    Newest first by epoch, then by kind and id, then the newer revision. ``at_seq``, ``at_ms``: of
    each object only the last revision whose record is not after that. ``before_epoch``: of what is
    chosen so, revisions of lower epochs only.
    """

    kind: str | None = None
    object_id: str | None = None
    revision: int | None = None
    at_seq: int | None = None
    at_ms: int | None = None
    before_epoch: int | None = None
    limit: int = 50


class RecordsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which records; what is None does not matter.

    ``outcome``: a code, or ``denied`` for all but ``ok``. ``ops``: any of these. ``kept``: not
    forgotten. Times from ``since_ms`` to before ``until_ms``; sequences between ``after`` and
    ``before``, neither included.
    """

    key_id: str | None = None
    version: int | None = None
    purpose: str | None = None
    handle_id: str | None = None
    principal: str | None = None
    op: str | None = None
    ops: tuple[str, ...] | None = None
    outcome: str | None = None
    request_id: str | None = None
    kept: bool | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    after: int | None = None
    before: int | None = None
    oldest_first: bool = False
    limit: int = 50


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """How far a search came. ``next``: what ``before`` (oldest first: ``after``) is to go on.

    ``end``: nothing more lies that way as of now. ``top``: the last sequence as the search saw it.
    """

    next: int
    end: bool
    top: int


class RecordsPage(msgspec.Struct, frozen=True):
    """Records in the order asked for; an empty page may still have a next one."""

    rows: list[RecordRow]
    reach: Reach


class RecordsCount(msgspec.Struct, frozen=True):
    """How many records have each value of a column, as far as the search came."""

    counts: dict[str, int]
    reach: Reach


class RecordsChoice(msgspec.Struct, frozen=True):
    """Which records match: sequences in the order asked for; earliest and latest time, else 0."""

    seqs: list[int]
    first_ms: int
    last_ms: int
    reach: Reach
