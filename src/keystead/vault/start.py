"""The first start of a deployment, and every start after: what must be there, and what must fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from keystead.encoding import b64u_encode
from keystead.errors import StartupError
from keystead.ports import Clock, HistoryRow, Journal, Random, Registry
from keystead.translog.entries import SALT_BYTES, Draft
from keystead.vault.authority import Credential, Snapshot, empty, load, object_row
from keystead.vault.guard import OPERATOR
from keystead.vault.macs import VaultSecrets
from keystead.vault.reservations import gaps
from keystead.vault.rows import record_row

__all__ = ["DEPLOYMENT", "SEALED_ROOT", "found", "initialise", "record_gaps", "record_start"]

DEPLOYMENT = "deployment"
SEALED_ROOT = "sealed_root"
_TOKEN_PREFIX = "kso1."  # noqa: S105  what tokens begin with, so that scanners find leaked ones
_TOKEN_BYTES = 32
_READS_MAX = 100
"""How often the rows are read again at a start while other nodes change them."""


def initialise(
    journal: Journal,
    secrets: VaultSecrets,
    *,
    deployment: str,
    sealed_root: bytes,
    node: str,
    clock: Clock,
    random: Random,
    hand_over: Callable[[str], None] | None = None,
) -> str:
    """Write a new deployment in one commit; gives the operator's token, of which it keeps a hash.

    ``hand_over`` is given the token before the commit, and puts it where it outlives a crash until
    a person has it: whatever happens, no deployment is left that nobody can administer.

    Raises:
        LogUnavailable: the disk is full or failing; nothing was written.
    """
    token = _TOKEN_PREFIX + b64u_encode(random.bytes(_TOKEN_BYTES))
    if hand_over is not None:
        hand_over(token)
    credential = Credential(
        principal=OPERATOR, token_sha256=hashlib.sha256(token.encode()).digest(), revision=1
    )
    row = object_row(
        "credential",
        OPERATOR.name,
        name=OPERATOR.name,
        revision=1,
        epoch=1,
        doc=credential,
        secrets=secrets,
    )
    snapshot = empty().with_rows(1, [row])
    draft = Draft(
        time_ms=clock.now_ms(),
        node=node,
        op="deployment.init",
        outcome="ok",
        request="init",
        principal=OPERATOR.name,
        detail=f"deployment {deployment}",
    )
    with journal.transaction() as tx:
        tx.put_meta(DEPLOYMENT, deployment.encode())
        tx.put_meta(SEALED_ROOT, sealed_root)
        tx.put_object(row, previous_revision=0)
        kept = HistoryRow(**msgspec.structs.asdict(row), seq=0, time_ms=draft.time_ms)
        tx.put_history([kept])
        tx.set_epoch(secrets.epoch_row(1, secrets.root_digest(snapshot.digests)))
        tx.append([record_row(0, 1, draft, random.bytes(SALT_BYTES))])
    return token


def found(registry: Registry, secrets: VaultSecrets) -> Snapshot:
    """The snapshot of the registry as it is found at a start.

    Raises:
        StateRolledBack: forged, swapped, missing or old rows.
    """
    epoch, rows = registry.epoch(), list(registry.objects())
    for _ in range(_READS_MAX):
        now = registry.epoch()
        if now == epoch:
            break
        epoch, rows = now, list(registry.objects())  # another node changed something in between
    if epoch is None:
        raise StartupError(
            "the registry has a deployment and no epoch: its epoch row was removed",
            hint="Restore the registry from a backup. Nothing was changed",
        )
    return load(rows, epoch, secrets)


def record_start(journal: Journal, *, epoch: int, node: str, clock: Clock, random: Random) -> int:
    """Record that a vault starts; gives the record's sequence.

    With its salt it is unlike every record before: a cosignature on a tree that holds it was made
    after this start.
    """
    draft = Draft(
        time_ms=clock.now_ms(), node=node, op="vault.start", outcome="ok", request="start"
    )
    with journal.transaction() as tx:
        epoch = max(epoch, tx.epoch().epoch)
        seq = tx.last_sequence() + 1
        tx.append([record_row(seq, epoch, draft, random.bytes(SALT_BYTES))])
    return seq


def record_gaps(
    registry: Registry, journal: Journal, *, epoch: int, node: str, clock: Clock, random: Random
) -> int:
    """Record what a crash left of best-effort reservations; gives how many uses that is (I2)."""
    open_gaps = gaps(registry, node, clock.now_ms())
    if not open_gaps:
        return 0
    with journal.transaction() as tx:
        epoch = max(epoch, tx.epoch().epoch)  # another node may have moved it since it was read
        seq = tx.last_sequence() + 1
        tx.append(
            [
                record_row(seq + offset, epoch, draft, random.bytes(SALT_BYTES))
                for offset, (_, draft) in enumerate(open_gaps)
            ]
        )
        for row, _ in open_gaps:
            tx.put_reservation(row)
    return sum(draft.count for _, draft in open_gaps)
