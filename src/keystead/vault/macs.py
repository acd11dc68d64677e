"""The vault's own secrets, derived from the root key, and the MACs over its rows in a database.

Whoever can write the database can delete and copy rows; they cannot make one, nor alter one, nor
put one in another's place, without these secrets.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from keystead.crypto.aead import NONCE_BYTES, TAG_BYTES, hkdf, open_into, seal
from keystead.encoding import length_prefixed
from keystead.errors import SignatureInvalid, StateRolledBack
from keystead.keys.handles import handle_root_info
from keystead.keys.leases import Lease
from keystead.keys.rollout.choosing import SUBJECT_BYTES
from keystead.ports import (
    CheckpointRow,
    EpochRow,
    HandleRow,
    IdempotencyRow,
    LeaseRow,
    NodeRow,
    ObjectRow,
    Random,
)

__all__ = ["VaultSecrets"]

_DIGEST_BYTES = 32
_RESTORE = (
    "Stop the node, find out who wrote to the database, and restore the registry from a backup"
)


class VaultSecrets:
    """Secrets by label; none is ever given out, each has one use."""

    def __init__(self, handle_secret: bytes, registry_key: bytes, fingerprint_key: bytes) -> None:
        self._handle_secret = handle_secret
        self._registry_key = registry_key
        self._fingerprint_key = fingerprint_key
        self._outcome_key = hkdf(fingerprint_key, b"keystead/outcome/v1")

    def __repr__(self) -> str:
        return "<VaultSecrets>"

    def handle_root(self, key_id: str, generation: int) -> bytes:
        """The root of one key generation's handles (RFC 5869)."""
        return hkdf(self._handle_secret, handle_root_info(key_id, generation))

    def fingerprint(self, *parts: bytes) -> bytes:
        """What a request's payload is compared by; tells nothing about it without the key (I6)."""
        return hmac.digest(self._fingerprint_key, length_prefixed(parts), hashlib.sha256)

    def _mac(self, *parts: bytes) -> bytes:
        return hmac.digest(self._registry_key, length_prefixed(parts), hashlib.sha256)

    def subject(self, key_id: str, rollout: int, *parts: bytes) -> bytes:
        """Where a subject of a rollout falls: 8 bytes that nobody else can know (section 6)."""
        number = str(rollout).encode()
        return self._mac(b"rollout", key_id.encode(), number, *parts)[:SUBJECT_BYTES]

    def object_mac(self, row: ObjectRow) -> bytes:
        """Over an authority row's content and revision."""
        numbers = f"{row.revision}/{row.epoch}".encode()
        return self._mac(
            b"object", row.kind.encode(), row.id.encode(), row.name.encode(), numbers, row.doc
        )

    def signed_object(self, row: ObjectRow) -> ObjectRow:
        """The row with its MAC."""
        return msgspec.structs.replace(row, mac=self.object_mac(row))

    def check_object(self, row: ObjectRow) -> None:
        """Hold a row to its MAC.

        Raises:
            StateRolledBack: forged, altered, or another row's content.
        """
        if not hmac.compare_digest(self.object_mac(row), row.mac):
            raise StateRolledBack(
                f"the registry's row of {row.kind} {row.name!r} was not written by this vault:"
                " forged, altered or swapped",
                hint=_RESTORE,
            )

    def root_digest(self, buckets: tuple[bytes, ...]) -> bytes:
        """Over the digests of all authority rows."""
        return self._mac(b"root", *buckets)

    def epoch_row(self, epoch: int, root: bytes) -> EpochRow:
        """The epoch row with its MAC."""
        return EpochRow(epoch, root, self._mac(b"epoch", str(epoch).encode(), root))

    def check_epoch(self, row: EpochRow) -> None:
        """Hold the epoch row to its MAC.

        Raises:
            StateRolledBack: forged or altered.
        """
        if not hmac.compare_digest(self.epoch_row(row.epoch, row.root).mac, row.mac):
            raise StateRolledBack("the registry's epoch row was altered", hint=_RESTORE)

    def signed_checkpoint(self, row: CheckpointRow) -> CheckpointRow:
        """The row of a checkpoint with its MAC."""
        numbers = f"{row.size}/{row.time_ms}".encode()
        mac = self._mac(b"checkpoint", numbers, row.root, row.frontier, row.note)
        return msgspec.structs.replace(row, mac=mac)

    def check_checkpoint(self, row: CheckpointRow) -> None:
        """Hold a checkpoint's row to its MAC.

        Raises:
            StateRolledBack: forged or altered.
        """
        if not hmac.compare_digest(self.signed_checkpoint(row).mac, row.mac):
            raise StateRolledBack(
                f"the registry's row of the checkpoint at size {row.size} was altered",
                hint=_RESTORE,
            )

    def node_row(self, node: str, seen_epoch: int, beat: int, url: str) -> NodeRow:
        """How far a node has come, with its MAC: nobody else can confirm for it."""
        numbers = f"{seen_epoch}/{beat}".encode()
        mac = self._mac(b"node", node.encode(), numbers, url.encode())
        return NodeRow(node, seen_epoch, beat, url, mac)

    def check_node(self, row: NodeRow) -> None:
        """Hold a node's row to its MAC.

        Raises:
            StateRolledBack: forged, altered, or another node's.
        """
        made = self.node_row(row.node, row.seen_epoch, row.beat, row.url)
        if not hmac.compare_digest(made.mac, row.mac):
            raise StateRolledBack(
                f"the registry's row of node {row.node} was altered", hint=_RESTORE
            )

    def lease_row(self, name: str, lease: Lease) -> LeaseRow:
        """A lease with its MAC."""
        numbers = f"{lease.fence}/{lease.beat}".encode()
        mac = self._mac(b"lease", name.encode(), lease.holder.encode(), numbers)
        return LeaseRow(name, lease.holder, lease.fence, lease.beat, mac)

    def check_lease(self, row: LeaseRow) -> None:
        """Hold a lease to its MAC.

        Raises:
            StateRolledBack: forged or altered.
        """
        made = self.lease_row(row.name, Lease(row.holder, row.fence, row.beat))
        if not hmac.compare_digest(made.mac, row.mac):
            raise StateRolledBack(f"the registry's lease {row.name} was altered", hint=_RESTORE)

    def handle_mac(self, row: HandleRow) -> bytes:
        """Over whom a handle was issued to."""
        parts = (row.id, row.key_id, row.tenant, row.principal, str(row.issued_ms))
        return self._mac(b"handle", *(part.encode() for part in parts))

    def check_handle(self, row: HandleRow) -> None:
        """Hold a handle's row to its MAC.

        Raises:
            StateRolledBack: forged or altered.
        """
        if not hmac.compare_digest(self.handle_mac(row), row.mac):
            raise StateRolledBack(
                f"the registry's row of handle {row.id} was altered", hint=_RESTORE
            )

    def seal_outcome(self, row: IdempotencyRow, random: Random) -> IdempotencyRow:
        """The row with its result and receipt sealed, for this request under this handle only.

        A result is what was signed for one caller, such as a token that is still good: neither
        whoever reads the database nor a backup has it, and no other request is answered with it.
        """
        result = row.result if row.result is None else self._seal(row, b"result", random)
        receipt = self._seal(row, b"receipt", random)
        return msgspec.structs.replace(row, result=result, receipt=receipt)

    def open_outcome(self, row: IdempotencyRow) -> IdempotencyRow:
        """The row with its result and receipt as they were.

        Raises:
            StateRolledBack: altered, or another request's.
        """
        result = row.result if row.result is None else self._open(row, b"result", row.result)
        receipt = self._open(row, b"receipt", row.receipt)
        return msgspec.structs.replace(row, result=result, receipt=receipt)

    def _seal(self, row: IdempotencyRow, part: bytes, random: Random) -> bytes:
        nonce = random.bytes(NONCE_BYTES)
        plaintext = (row.result or b"") if part == b"result" else row.receipt
        return nonce + seal(self._outcome_key, nonce, plaintext, _outcome_aad(row, part))

    def _open(self, row: IdempotencyRow, part: bytes, sealed: bytes) -> bytes:
        opened = bytearray(max(0, len(sealed) - NONCE_BYTES - TAG_BYTES))
        nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            open_into(self._outcome_key, nonce, ciphertext, _outcome_aad(row, part), opened)
        except SignatureInvalid:
            raise StateRolledBack(
                "the registry's outcome of an earlier request was altered, or is another request's",
                hint=_RESTORE,
            ) from None
        return bytes(opened)

    def seal_counter(self, key_id: str, name: str, state: bytes) -> bytes:
        """A durable counter's state behind its MAC."""
        return self._mac(b"counter", key_id.encode(), name.encode(), state) + state

    def open_counter(self, key_id: str, name: str, stored: bytes | None) -> bytes | None:
        """A counter's state.

        Raises:
            StateRolledBack: forged, altered, or another counter's.
        """
        if stored is None:
            return None
        state = stored[_DIGEST_BYTES:]
        if not hmac.compare_digest(self.seal_counter(key_id, name, state), stored):
            raise StateRolledBack(f"the registry's counter {name!r} was altered", hint=_RESTORE)
        return state


def _outcome_aad(row: IdempotencyRow, part: bytes) -> bytes:
    place = (row.scope.encode(), row.key.encode(), row.fingerprint, str(row.seq).encode())
    return length_prefixed((b"outcome", part, *place))
