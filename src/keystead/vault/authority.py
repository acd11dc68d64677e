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

from keystead.encoding import length_prefixed
from keystead.errors import NotFound, StateRolledBack
from keystead.keys.model import Key, Principal
from keystead.keys.tenants import Tenant
from keystead.ports import EpochRow, ObjectRow
from keystead.vault.macs import VaultSecrets

__all__ = ["Credential", "Revocation", "Snapshot", "empty", "key_row", "load", "object_row"]

_BUCKETS = 256
_KEY = msgspec.msgpack.Decoder(Key)


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """How a principal is known: the SHA-256 of its token, which has 256 bits of its own."""

    principal: Principal
    token_sha256: bytes
    revision: int


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """A link of a handle's chain that is revoked, and why."""

    link: str
    reason: str
    revision: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one epoch. Never changed; :meth:`with_rows` gives the next one."""

    epoch: int
    keys: dict[str, Key]
    names: dict[str, str]
    revoked: frozenset[str]
    credentials: dict[bytes, Credential]
    tenants: dict[str, Tenant]
    buckets: tuple[dict[tuple[str, str], bytes], ...]
    digests: tuple[bytes, ...]

    def key(self, key_id: str) -> Key:
        """The key of an id.

        Raises:
            NotFound: there is none.
        """
        try:
            return self.keys[key_id]
        except KeyError:
            raise NotFound("the handle's key does not exist here") from None

    def named(self, name: str) -> Key:
        """The key of a name.

        Raises:
            NotFound: there is none.
        """
        try:
            return self.keys[self.names[name]]
        except KeyError:
            raise NotFound(
                f"no key named {name[:64]!r}", hint="`keystead key list` shows them"
            ) from None

    def with_rows(self, epoch: int, rows: Iterable[ObjectRow]) -> Snapshot:
        """The snapshot after these rows (already held to their MACs) were written."""
        keys, names, revoked = dict(self.keys), dict(self.names), set(self.revoked)
        credentials, tenants = dict(self.credentials), dict(self.tenants)
        buckets = list(self.buckets)
        touched: set[int] = set()
        for row in rows:
            number = _bucket(row.kind, row.id)
            if number not in touched:
                buckets[number] = dict(buckets[number])
                touched.add(number)
            buckets[number][row.kind, row.id] = row.mac
            match row.kind:
                case "key":
                    key = _KEY.decode(row.doc)
                    keys[key.id], names[key.name] = key, key.id
                case "revocation":
                    revoked.add(row.id)
                case "credential":
                    credential = msgspec.msgpack.decode(row.doc, type=Credential)
                    credentials[credential.token_sha256] = credential
                case "tenant":
                    tenants[row.id] = msgspec.msgpack.decode(row.doc, type=Tenant)
                case _:
                    raise StateRolledBack(
                        f"the registry holds a row of unknown kind {row.kind!r}",
                        hint="It was written by a newer Keystead: run that one",
                    )
        digests = list(self.digests)
        for number in touched:
            digests[number] = _digest(buckets[number])
        return Snapshot(
            epoch=epoch,
            keys=keys,
            names=names,
            revoked=frozenset(revoked),
            credentials=credentials,
            tenants=tenants,
            buckets=tuple(buckets),
            digests=tuple(digests),
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
