"""A data folder from before there were rollouts: its keys go on, and are rotated.

What the folder held then is written down here by hand: tables up to schema 0003, and documents of
the fields of that time, under the MACs of its own secrets.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic import command
from alembic.config import Config

from fault.crash.core import REGISTRY, Core, make_folder, opened_core
from keystead import app
from keystead.custody.root import RootKey
from keystead.custody.seal_file import FileSeal
from keystead.frames.messages import Answer, Done, Public, Refused, Tend, Use
from keystead.keys.commands import Command, CreateKey, IssuedHandle, IssueHandle, KeyInfo
from keystead.keys.framing.jwt import JwtResult, SignJwt
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import (
    HistoryPage,
    ListHistory,
    RolloutInfo,
    RotateKey,
    ShowRollout,
)
from keystead.keys.rollout.plan import Canary, Drain, Gates, Plan, Publish, Ramp, Retire
from keystead.keys.verify import PublicKey
from keystead.keys.verify.jwt import verify_jwt
from keystead.net.system import SystemRandom
from keystead.ports import ObjectRow
from keystead.store import migrate
from keystead.store.migrate import migrate_sqlite
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.testing.clocks import ManualClock
from keystead.vault.authority import empty

SCHEMA = "0003"
KEY = (
    *("id", "name", "tenant", "labels", "purpose", "algorithms", "prehashed", "policy"),
    *("generation", "primary", "versions", "revision", "epoch", "created_ms"),
)
VERSION = (
    *("number", "state", "algorithm", "public", "kid", "created_ms", "certificate"),
    "compromised_epoch",
)
POLICY = ("ack", "verify_before_release", "jwt", "firmware", "ca", "ssh_ca")
CREDENTIAL = ("principal", "token_sha256", "revision")
"""Fields as they were stored at schema 0003, in their order."""
TOLD_MS = 300_000
"""How long the default plan tells readers that they may keep a key set: longer than 0003 did."""
LIFE_S = 60
CONTEXTS = 64


def plan(overlap_ms: int) -> Plan:
    return Plan(
        publish=Publish(overlap_ms=overlap_ms, cache_ms=1_000),
        canary=Canary(share_ppm=200_000, length_ms=1_000),
        ramp=Ramp(steps_ppm=()),
        drain=Drain(length_ms=LIFE_S * 1_000),
        retire=Retire(unpublish=True),
        gates=Gates(samples=1),
    )


# --- the folder of that time ---------------------------------------------------------------------


def make_aged(folder: Path, clock: ManualClock) -> tuple[IssuedHandle, str]:
    """A deployment with a key that signed, as a binary of that time left it."""
    make_folder(folder)

    async def made() -> tuple[IssuedHandle, str]:
        async with opened_core(folder, clock=clock) as core:
            policy = Policy(jwt=JwtPolicy(issuer="old", lifetime_max_s=LIFE_S))
            key = CreateKey(name="tokens", purpose=Purpose.JWT, policy=policy)
            done(await core.command("create", key), KeyInfo)
            issue = IssueHandle(key="tokens", principal="app")
            issued = done(await core.command("issue", issue), IssuedHandle)
            return issued, (await sign(core, issued, "old/0", key="before")).token

    found = asyncio.run(made())
    age(folder)
    return found


def age(folder: Path) -> None:
    """Take away what came later, and write the documents again as they were."""
    registry = SqliteRegistry(folder / REGISTRY)
    try:
        sealed, deployment = registry.meta("sealed_root"), registry.meta("deployment")
        epoch = registry.epoch()
        assert sealed is not None
        assert deployment is not None
        assert epoch is not None
        seal = FileSeal(folder / "seal.key")
        root = RootKey.unseal(seal, sealed, deployment.decode(), SystemRandom())
        secrets = app._secrets(root)  # noqa: SLF001  the vault's own, of this folder
        rows = [
            secrets.signed_object(msgspec.structs.replace(row, doc=aged(row)))
            for row in registry.objects()
        ]
        snapshot = empty().with_rows(epoch.epoch, rows)
        signed = secrets.epoch_row(epoch.epoch, secrets.root_digest(snapshot.digests))
        root.close()
    finally:
        registry.close()
    written = folder / "written.db"
    (folder / REGISTRY).rename(written)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "command", Earlier)
        migrate_sqlite(folder / REGISTRY)
    with closing(sqlite3.connect(folder / REGISTRY, isolation_level=None)) as db:
        db.execute("ATTACH ? AS written", (str(written),))
        for table in tables(db):
            columns = ", ".join(
                name for _, name, *_ in db.execute(f"PRAGMA main.table_info({table})")
            )
            copied = f"({columns}) SELECT {columns} FROM written.{table}"  # noqa: S608  of the schema
            db.execute(f"DELETE FROM main.{table}")  # noqa: S608  as above
            db.execute(f"INSERT INTO main.{table} {copied}")
        for row in rows:
            db.execute(
                "UPDATE objects SET doc = ?, mac = ? WHERE kind = ? AND id = ?",
                (row.doc, row.mac, row.kind, row.id),
            )
        db.execute("UPDATE epoch SET root = ?, mac = ?", (signed.root, signed.mac))
        assert db.execute("SELECT count(*) FROM epoch").fetchone() == (1,)
        assert "object_history" not in tables(db)
        assert db.execute("SELECT version_num FROM alembic_version").fetchone() == (SCHEMA,)
    written.unlink()


class Earlier:
    """What a binary of that time knew of migrations."""

    @staticmethod
    def upgrade(config: Config, _revision: str) -> None:
        command.upgrade(config, SCHEMA)


def tables(db: sqlite3.Connection) -> list[str]:
    """Those of the schema of that time, but for alembic's own."""
    found = db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")
    return [name for (name,) in found if name != "alembic_version"]


def aged(row: ObjectRow) -> bytes:
    """A document with the fields that it had, and no other."""
    doc: dict[str, Any] = msgspec.msgpack.decode(row.doc)
    if row.kind == "key":
        doc = only(doc, KEY)
        doc["policy"] = only(doc["policy"], POLICY)
        doc["versions"] = [only(version, VERSION) for version in doc["versions"]]
    else:
        assert row.kind == "credential"
        doc = only(doc, CREDENTIAL)
    return msgspec.msgpack.encode(doc)


def only(doc: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: doc[name] for name in fields}


# --- asking --------------------------------------------------------------------------------------


def done(answer: Answer, form: type[Any]) -> Any:  # noqa: ANN401  what was asked for
    assert isinstance(answer, Done), answer
    return msgspec.msgpack.decode(answer.result, type=form)


async def asked(core: Core, command: Command, form: type[Any]) -> Any:  # noqa: ANN401  as above
    return done(await core.command("ask", command), form)


async def sign(core: Core, issued: IssuedHandle, context: str, key: str | None = None) -> JwtResult:
    facts = msgspec.msgpack.encode(SignJwt(claims={}))

    def make(number: int) -> Use:
        return Use(number, issued.token, "jwt", "sign", context, facts, idempotency_key=key)

    result: JwtResult = done(await core.ask("sign", make), JwtResult)
    return result


async def public(core: Core) -> PublicKey:
    answer = await core.ask("public", lambda number: Public(number, "keys", "tokens"))
    _, document = done(answer, tuple[int, bytes])
    return msgspec.json.decode(document, type=PublicKey)


def verified(token: str, key: PublicKey, clock: ManualClock) -> int:
    """The version that signed it, once it is verified."""
    return verify_jwt(token, key, audience=None, now_ms=clock.now_ms()).signer.version


async def reach(
    core: Core, clock: ManualClock, issued: IssuedHandle, reached: Callable[[RolloutInfo], bool]
) -> RolloutInfo:
    """Let hours pass with uses and rounds, until the rollout is there."""
    until = time.monotonic() + 60
    while True:
        status: RolloutInfo = await asked(core, ShowRollout(name="tokens"), RolloutInfo)
        if reached(status):
            return status
        assert time.monotonic() < until, status.waits
        for number in range(CONTEXTS):
            await sign(core, issued, f"old/{number}")
        clock.advance(3_600_000)
        await core.ask("tend", Tend)
        await asyncio.sleep(0.02)


# --- what holds ----------------------------------------------------------------------------------


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now_ms=time.time_ns() // 1_000_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deployment"


def test_a_folder_from_before_rollouts_goes_on(folder: Path, clock: ManualClock) -> None:
    """Its key signs, a repeated use gives what it gave, and its history begins with what it was."""
    issued, token = make_aged(folder, clock)
    migrate_sqlite(folder / REGISTRY)

    async def run() -> None:
        async with opened_core(folder, clock=clock) as core:
            assert (await sign(core, issued, "old/0", key="before")).token == token
            fresh = await sign(core, issued, "old/1")
            assert verified(fresh.token, await public(core), clock) == 1
            page = await asked(core, ListHistory(), HistoryPage)
            met = {(entry.kind, entry.name, entry.seq, entry.action) for entry in page.entries}
            assert met == {("key", "tokens", -1, ""), ("credential", "operator", -1, "")}
            (kept,) = (await asked(core, ListHistory(name="tokens"), HistoryPage)).entries
            assert tuple(kept.doc) == KEY
            status = await asked(core, ShowRollout(name="tokens"), RolloutInfo)
            assert (status.status, status.own_plan) == ("none", False)

    asyncio.run(run())


def test_a_key_from_before_rollouts_rotates_to_the_end(folder: Path, clock: ManualClock) -> None:
    """Never before what readers were told of it has run out; its whole history is one line."""
    issued, token = make_aged(folder, clock)
    migrate_sqlite(folder / REGISTRY)

    def rotate(overlap_ms: int) -> RotateKey:
        wanted = plan(overlap_ms)
        return RotateKey(name="tokens", plan=wanted, weaker=True, reason="first")

    async def run() -> None:
        async with opened_core(folder, clock=clock) as core:
            early = await core.command("early", rotate(TOLD_MS - 1))
            assert isinstance(early, Refused)
            assert early.code == "conflict"
            key = await asked(core, rotate(TOLD_MS), KeyInfo)
            before = await public(core)
            assert [version.kid for version in before.versions] == [v.kid for v in key.versions]
            assert verified(token, before, clock) == 1
            status = await reach(core, clock, issued, lambda status: status.status == "finished")
            assert (status.previous, status.next) == (1, 2)
            fresh = await sign(core, issued, "old/1")
            assert verified(fresh.token, await public(core), clock) == 2
            page = await asked(core, ListHistory(name="tokens", kind="key"), HistoryPage)
            revisions = [entry.revision for entry in page.entries]
            assert revisions == list(range(len(revisions), 0, -1))
            assert len(revisions) > 4
            first, second = page.entries[-1], page.entries[-2]
            assert (first.seq, first.action, first.until_seq) == (-1, "", second.seq)
            assert second.action == "rollout.publish"

    asyncio.run(run())
