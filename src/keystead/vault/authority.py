"""All that carries authority, as one immutable snapshot of an epoch: keys, revocations, principals.

The registry's rows bear a MAC each, and the epoch row a digest over all of them, so that a row that
is missing, or genuine but old, is found at start and by the steward's rounds. The digest is over
256 buckets, so that a change rehashes one of them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

import msgspec

from keystead.encoding import DECODE_ERRORS, length_prefixed
from keystead.errors import KeyStateError, NotFound, StateRolledBack
from keystead.keys.emergency import Emergency
from keystead.keys.model import Key, Principal
from keystead.keys.rollout.model import Rotation
from keystead.keys.tenants import Tenant
from keystead.ports import EpochRow, ObjectRow
from keystead.vault.macs import VaultSecrets

__all__ = [
    "Credential",
    "Revocation",
    "Snapshot",
    "empty",
    "key_row",
    "load",
    "object_row",
    "rotation_row",
]

_BUCKETS = 256
_KEY = msgspec.msgpack.Decoder(Key)
_ROTATION = msgspec.msgpack.Decoder(Rotation)


class Credential(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a principal is known: the SHA-256 of its token, which has 256 bits of its own."""

    principal: Principal
    token_sha256: bytes
    revision: int


class Revocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A link of a handle's chain that is revoked, or a handle by its id, and why."""

    link: str
    reason: str
    revision: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one epoch. Never changed; :meth:`with_rows` gives the next one.

    ``revoked``: ids of links and handles. ``emergencies``: stops by tenant, also those that were
    ended; ``stopped``: tenants of those that were not. ``rotations``: by key id, of keys that have
    one. ``unread``: (kind, id) of rows that a newer Keystead wrote and this one cannot read: they
    are kept as they are. ``foreign``: ids of the keys that those are of, which are neither used nor
    changed.
    """

    epoch: int
    keys: dict[str, Key]
    names: dict[str, str]
    revoked: frozenset[str]
    credentials: dict[bytes, Credential]
    tenants: dict[str, Tenant]
    emergencies: dict[str, Emergency]
    stopped: frozenset[str]
    rotations: dict[str, Rotation]
    unread: frozenset[tuple[str, str]]
    foreign: frozenset[str]
    buckets: tuple[dict[tuple[str, str], bytes], ...]
    digests: tuple[bytes, ...]

    def key(self, key_id: str) -> Key:
        """The key of an id.

        Raises:
            NotFound: there is none.
            KeyStateError: a newer Keystead wrote it.
        """
        if key_id in self.foreign:
            raise _newer("the handle's key")
        try:
            return self.keys[key_id]
        except KeyError:
            raise NotFound("the handle's key does not exist here") from None

    def named(self, name: str) -> Key:
        """The key of a name.

        Raises:
            NotFound: there is none.
            KeyStateError: a newer Keystead wrote it.
        """
        key_id = self.names.get(name, "")
        if key_id in self.foreign:
            raise _newer(f"key {name}")
        try:
            return self.keys[key_id]
        except KeyError:
            raise NotFound(
                f"no key named {name[:64]!r}", hint="`keystead key list` shows them"
            ) from None

    def with_rows(self, epoch: int, rows: Iterable[ObjectRow]) -> Snapshot:
        """The snapshot after these rows (already held to their MACs) were written."""
        draft = _Draft(self)
        buckets = list(self.buckets)
        touched: set[int] = set()
        for row in rows:
            number = _bucket(row.kind, row.id)
            if number not in touched:
                buckets[number] = dict(buckets[number])
                touched.add(number)
            buckets[number][row.kind, row.id] = row.mac
            draft.take(row)
        digests = list(self.digests)
        for number in touched:
            digests[number] = _digest(buckets[number])
        return Snapshot(
            epoch=epoch,
            keys=draft.keys,
            names=draft.names,
            revoked=frozenset(draft.revoked),
            credentials=draft.credentials,
            tenants=draft.tenants,
            emergencies=draft.emergencies,
            stopped=frozenset(name for name, stop in draft.emergencies.items() if stop.stopped),
            rotations=draft.rotations,
            unread=frozenset(draft.foreign),
            foreign=frozenset(key_id for _, key_id in draft.foreign),
            buckets=tuple(buckets),
            digests=tuple(digests),
        )


class _Draft:
    """A snapshot's tables while rows are taken in."""

    def __init__(self, before: Snapshot) -> None:
        self.keys, self.names = dict(before.keys), dict(before.names)
        self.revoked = set(before.revoked)
        self.credentials, self.tenants = dict(before.credentials), dict(before.tenants)
        self.rotations, self.emergencies = dict(before.rotations), dict(before.emergencies)
        self.foreign = set(before.unread)

    def take(self, row: ObjectRow) -> None:
        """Take in one row.

        Raises:
            StateRolledBack: a newer Keystead wrote it, and without it nobody knows what holds.
        """
        try:
            self._read(row)
        except DECODE_ERRORS as exc:
            if row.kind not in {"key", "rotation"}:
                raise _unknown(row.kind) from exc
            self.foreign.add((row.kind, row.id))
            if row.kind == "key":
                self.keys.pop(row.id, None)
                self.names[row.name] = row.id

    def _read(self, row: ObjectRow) -> None:
        match row.kind:
            case "key":
                key = _KEY.decode(row.doc)
                self.keys[key.id], self.names[key.name] = key, key.id
            case "rotation":
                self.rotations[row.id] = _ROTATION.decode(row.doc)
            case "revocation":
                self.revoked.add(row.id)
            case "credential":
                credential = msgspec.msgpack.decode(row.doc, type=Credential)
                self.credentials[credential.token_sha256] = credential
            case "tenant":
                self.tenants[row.id] = msgspec.msgpack.decode(row.doc, type=Tenant)
            case "emergency":
                self.emergencies[row.id] = msgspec.msgpack.decode(row.doc, type=Emergency)
            case _:
                raise _unknown(row.kind)
        self.foreign.discard((row.kind, row.id))


def _unknown(kind: str) -> StateRolledBack:
    return StateRolledBack(
        f"the registry holds a row of kind {kind!r} that this Keystead does not know",
        hint="It was written by a newer Keystead: run that one",
    )


def _newer(what: str) -> KeyStateError:
    return KeyStateError(
        f"{what} was last changed by a newer Keystead, in a way that this one does not know: it is"
        " kept as it is, and neither used nor changed here",
        hint="Run the newer Keystead on this node, too",
    )


def empty() -> Snapshot:
    """Nothing, at epoch 0."""
    return Snapshot(
        epoch=0,
        keys={},
        names={},
        revoked=frozenset(),
        credentials={},
        tenants={},
        emergencies={},
        stopped=frozenset(),
        rotations={},
        unread=frozenset(),
        foreign=frozenset(),
        buckets=tuple({} for _ in range(_BUCKETS)),
        digests=(_digest({}),) * _BUCKETS,
    )


def load(rows: Iterable[ObjectRow], epoch: EpochRow | None, secrets: VaultSecrets) -> Snapshot:
    """The snapshot of a registry, every row held to its MAC and all of them to the epoch's digest.

    Raises:
        StateRolledBack: a row was forged, altered, swapped, removed, or is an old one put back.
    """
    rows = list(rows)
    if epoch is None:
        if rows:
            raise StateRolledBack("the registry has rows and no epoch: its epoch row was removed")
        return empty()
    secrets.check_epoch(epoch)
    for row in rows:
        secrets.check_object(row)
    snapshot = empty().with_rows(epoch.epoch, rows)
    if not hmac.compare_digest(secrets.root_digest(snapshot.digests), epoch.root):
        raise StateRolledBack(
            "the registry's rows are not those of its epoch: one was removed, or an older one put"
            " back in its place",
            hint="Stop the node, find out who wrote to the database, restore the registry from a"
            " backup; the log's records of op key.* and handle.* show each change since",
        )
    return snapshot


def object_row(
    kind: str,
    row_id: str,
    *,
    name: str,
    revision: int,
    epoch: int,
    doc: object,
    secrets: VaultSecrets,
) -> ObjectRow:
    """A row that carries authority, under the vault's MAC."""
    encoded = msgspec.msgpack.encode(doc)
    return secrets.signed_object(ObjectRow(kind, row_id, name, revision, epoch, encoded, b""))


def key_row(key: Key, secrets: VaultSecrets) -> ObjectRow:
    """A key's row."""
    return object_row(
        "key",
        key.id,
        name=key.name,
        revision=key.revision,
        epoch=key.epoch,
        doc=key,
        secrets=secrets,
    )


def rotation_row(rotation: Rotation, name: str, secrets: VaultSecrets) -> ObjectRow:
    """The row of how a key rotates; ``name``: the key's."""
    return object_row(
        "rotation",
        rotation.key_id,
        name=name,
        revision=rotation.revision,
        epoch=rotation.epoch,
        doc=rotation,
        secrets=secrets,
    )


def _bucket(kind: str, row_id: str) -> int:
    return hashlib.sha256(f"{kind}/{row_id}".encode()).digest()[0]


def _digest(bucket: dict[tuple[str, str], bytes]) -> bytes:
    return hashlib.sha256(
        length_prefixed(
            part
            for (kind, row_id), mac in sorted(bucket.items())
            for part in (kind.encode(), row_id.encode(), mac)
        )
    ).digest()
