"""Changes under an idempotency key: a repeated one has one effect, and the first answer (I6)."""

from __future__ import annotations

import msgspec

from keystead import limits
from keystead.errors import Conflict, MalformedRequest
from keystead.frames.messages import Receipt
from keystead.keys.commands import IssuedHandle
from keystead.keys.epochs import check_idempotent
from keystead.keys.model import Principal
from keystead.ports import Clock, IdempotencyRow, Random, Registry, Transaction
from keystead.vault.macs import VaultSecrets

__all__ = ["Once", "Repeats"]


class Once(msgspec.Struct, frozen=True):
    """One change that shall have one effect: whose, under which key, and what it asks for."""

    scope: str
    key: str
    fingerprint: bytes


class Repeats:
    """Finds and keeps the answers of changes. A refusal is not kept: it had no effect."""

    def __init__(
        self, registry: Registry, secrets: VaultSecrets, clock: Clock, random: Random
    ) -> None:
        self._registry = registry
        self._secrets = secrets
        self._clock = clock
        self._random = random

    def once(self, principal: Principal, key: str, command: bytes) -> Once:
        """Name a change; ``command`` is its exact bytes.

        Raises:
            MalformedRequest: no idempotency key.
        """
        if not (
            0 < len(key) <= limits.IDEMPOTENCY_KEY_BYTES_MAX and key.isascii() and key.isprintable()
        ):
            raise MalformedRequest(
                f"expected an idempotency key of 1 to {limits.IDEMPOTENCY_KEY_BYTES_MAX} printable"
                " ASCII characters"
            )
        # No handle's scope looks like this: those are hex digits.
        scope = f"principal/{principal.tenant}/{principal.name}"
        return Once(scope, key, self._secrets.fingerprint(b"command", command))

    def done_before(self, once: Once) -> tuple[bytes, Receipt] | None:
        """The first answer, if there was one.

        Raises:
            ReplayConflict: the key was used for another change.
            Conflict: a handle was issued; its token was in the first answer only.
            StateRolledBack: the kept answer was altered.
        """
        stored = self._registry.idempotent(once.scope, once.key)
        if stored is None or not check_idempotent(stored, once.fingerprint):
            return None
        row = self._secrets.open_outcome(stored)
        receipt = msgspec.msgpack.decode(row.receipt, type=Receipt)
        if row.result is None:
            raise Conflict(
                f"this request issued a handle before, in record {row.seq}; its token was in the"
                " first answer only",
                hint="If that answer was lost, revoke the handle by the link that the record shows,"
                " and issue another under a new idempotency key",
            )
        return row.result, msgspec.structs.replace(receipt, replayed=True)

    def keep(self, once: Once, value: object, receipt: Receipt, tx: Transaction) -> None:
        """Keep the answer in the change's own commit.

        Raises:
            Conflict: the same change has committed since it was looked for.
        """
        if tx.idempotent(once.scope, once.key) is not None:
            raise Conflict(
                "the same change was made meanwhile",
                hint="Send it again under the same idempotency key: its answer is kept",
            )
        secret = isinstance(value, IssuedHandle)
        row = IdempotencyRow(
            scope=once.scope,
            key=once.key,
            fingerprint=once.fingerprint,
            seq=receipt.seq or 0,
            result=None if secret else msgspec.msgpack.encode(value),
            receipt=msgspec.msgpack.encode(receipt),
            expires_ms=self._clock.now_ms() + limits.IDEMPOTENCY_TTL_MS,
        )
        tx.put_idempotent([self._secrets.seal_outcome(row, self._random)])
