"""A registry of many keys, made in one commit by the vault's own core; the node starts on it after.

``python -m keystead.cli.bench.registry FOLDER KEYS`` prints one JSON line: how many were made, and
how many versions stay open when more are used than the cache holds.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import uvloop

from keystead import limits
from keystead.cli.bench.vault import NODE, REGISTRY, Stores, Vault, open_stores
from keystead.cli.bench.work import ALGORITHM, PURPOSE, TENANT
from keystead.errors import KeysteadError
from keystead.keys.commands import CreateKey
from keystead.keys.purposes import Purpose
from keystead.ports import ObjectRow, Transaction
from keystead.store.migrate import migrate_sqlite
from keystead.translog.entries import Draft
from keystead.vault.authority import Snapshot
from keystead.vault.committer import Applied, Change, Committed
from keystead.vault.making import KeyMaker, Made, commit_made
from keystead.vault.opened import OpenedKeys

__all__ = ["Opening", "main"]

_UNAVAILABLE = 3


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """Keys made, versions used, and versions that are open after."""

    keys: int
    used: int
    still_open: int


def _make(stores: Stores, count: int) -> list[Made]:
    maker = KeyMaker(stores.custody, stores.registry, stores.clock, stores.random)
    tenant_key = maker.tenant_key(TENANT)
    made: list[Made] = []
    for number in range(count):
        command = CreateKey(
            name=f"key-{number}",
            purpose=Purpose(PURPOSE),
            tenant=TENANT,
            algorithm=ALGORITHM,
            labels={"service": f"service-{number % 100}", "region": "eu", "environment": "bench"},
        )
        key, algorithm = maker.draft(command)
        made.append(maker.make(key, algorithm, tenant_key))
    return made


async def _commit(stores: Stores, made: list[Made]) -> None:
    """All keys in one change, each with its row, its material and its record."""
    draft = Draft(
        time_ms=stores.clock.now_ms(), node=NODE, op="key.create", outcome="ok", request="bench"
    )

    def apply(tx: Transaction, snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
        rows: list[tuple[ObjectRow, int]] = []
        drafts: list[Draft] = []
        for each in made:
            applied = commit_made(
                each, draft, stores.secrets, tx=tx, snapshot=snapshot, epoch=epoch
            )
            rows += applied.rows
            drafts += applied.drafts
        return Applied(rows=tuple(rows), drafts=tuple(drafts))

    vault = Vault(stores)
    done: asyncio.Future[tuple[object, Committed] | KeysteadError] = (
        asyncio.get_running_loop().create_future()
    )
    try:
        vault.committer.change(Change(apply, done.set_result))
        outcome = await done
    finally:
        await vault.close()
    if isinstance(outcome, KeysteadError):
        raise outcome


def _open(stores: Stores) -> Opening:
    """Use twice as many keys as may be open at a time, or all there are."""
    snapshot = stores.snapshot()
    keys = list(snapshot.keys.values())[: 2 * limits.OPENED_KEYS_MAX]
    opened = OpenedKeys(stores.custody, stores.registry)
    for key in keys:
        opened.get(key, key.primary_version()).sign(b"bench", prehashed=False)
    still_open = len(opened)
    opened.close()
    return Opening(keys=len(snapshot.keys), used=len(keys), still_open=still_open)


def main(arguments: list[str]) -> int:
    """Make the registry; prints an :class:`Opening`, or the error: 0 done, 3 refused."""
    folder, count = Path(arguments[0]), int(arguments[1])
    try:
        migrate_sqlite(folder / REGISTRY)
        stores = open_stores(folder)
        try:
            uvloop.run(_commit(stores, _make(stores, count)))
            told = msgspec.json.encode(_open(stores))
        finally:
            stores.close()
    except KeysteadError as exc:
        sys.stdout.write(msgspec.json.encode({"error": exc.message}).decode() + "\n")
        return _UNAVAILABLE
    sys.stdout.write(told.decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
