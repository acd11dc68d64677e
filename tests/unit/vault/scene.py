"""The vault's inner services on a store in memory: keys, a handle, a committer on a real loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from threading import Event

import msgspec

from keystead.errors import KeysteadError
from keystead.frames.messages import Receipt
from keystead.keys.caveats import Caveat
from keystead.keys.epochs import Candidate
from keystead.keys.framing.base import CounterStep
from keystead.keys.handles import Body, Grant, attenuate, issue, verify
from keystead.keys.lifecycle import State
from keystead.keys.model import Key, Policy, Version
from keystead.keys.purposes import Purpose
from keystead.ports import IdempotencyRow, ObjectRow, RecordRow, Transaction
from keystead.testing.clocks import ManualClock, SeededRandom
from keystead.testing.memory_store import MemoryDisk, MemoryStore
from keystead.translog.entries import SALT_BYTES, Draft, decode_body
from keystead.translog.entries import Body as RecordBody
from keystead.vault.authority import Revocation, Snapshot, key_row, load, object_row
from keystead.vault.committer import Applied, Change, Committed, Committer, Pending
from keystead.vault.macs import VaultSecrets

Outcome = Committed | IdempotencyRow | KeysteadError
Changed = tuple[object, Committed] | KeysteadError
WAIT_S = 10.0


def secrets_of(seed: int = 1) -> VaultSecrets:
    return VaultSecrets(bytes([seed]) * 32, bytes([seed + 1]) * 32, bytes([seed + 2]) * 32)


def key_of(key_id: str = "k1", **changes: object) -> Key:
    """A data key with two versions: its operations protect and process."""
    versions = tuple(
        Version(
            number=number,
            state=State.ACTIVE,
            algorithm="aes-256-gcm-siv",
            public=(),
            kid=f"kid{number}",
            created_ms=1,
        )
        for number in (1, 2)
    )
    key = Key(
        id=key_id,
        name=f"name-{key_id}",
        tenant="shop",
        labels={},
        purpose=Purpose.DATA,
        algorithms=("aes-256-gcm-siv",),
        prehashed=False,
        policy=Policy(),
        generation=1,
        primary=2,
        versions=versions,
        revision=1,
        epoch=1,
        created_ms=1,
    )
    return msgspec.structs.replace(key, **changes)


def with_state(key: Key, number: int, state: State) -> Key:
    versions = tuple(
        msgspec.structs.replace(version, state=state) if version.number == number else version
        for version in key.versions
    )
    return msgspec.structs.replace(key, versions=versions)


class Scene:
    """A deployment with keys ``k1`` and ``k2``, at epoch 1."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.store = MemoryStore(disk)
        self.secrets = secrets_of()
        self.clock = ManualClock()
        self.random = SeededRandom()
        self.snapshots: list[Snapshot] = []
        self.troubles: list[KeysteadError | None] = []
        if disk is None:
            self.write(
                1, [key_row(key_of("k1"), self.secrets), key_row(key_of("k2"), self.secrets)]
            )
        handle = issue(
            self.secrets.handle_root("k1", 1),
            Body("k1", Purpose.DATA, ("wrap", "unwrap", "derive", "mac"), "h1", 1),
        )
        self.handle = handle
        self.grant = verify(self.secrets.handle_root("k1", 1), handle)
        self._count = 0

    def write(self, epoch: int, rows: Iterable[ObjectRow]) -> None:
        """Rows and their epoch, as a vault of this deployment writes them."""
        rows = list(rows)
        before = load(self.store.objects(), self.store.epoch(), self.secrets)
        after = before.with_rows(epoch, rows)
        with self.store.transaction() as tx:
            for row in rows:
                tx.put_object(row, previous_revision=row.revision - 1)
            tx.set_epoch(self.secrets.epoch_row(epoch, self.secrets.root_digest(after.digests)))

    def load(self) -> Snapshot:
        return load(self.store.objects(), self.store.epoch(), self.secrets)

    def child(self, *caveats: Caveat) -> Grant:
        return verify(self.secrets.handle_root("k1", 1), attenuate(self.handle, *caveats))

    def revocation(self, link: str, epoch: int) -> ObjectRow:
        revocation = Revocation(link=link, reason="lost", revision=1)
        return object_row(
            "revocation",
            link,
            name=link,
            revision=1,
            epoch=epoch,
            doc=revocation,
            secrets=self.secrets,
        )

    # --- the log -----------------------------------------------------------------------------

    def rows(self) -> list[RecordRow]:
        return self.store.records_from(0, 100_000)

    def log(self) -> list[RecordBody]:
        return [decode_body(row.body or b"") for row in self.rows()]

    def outcomes(self) -> list[str]:
        return [body.outcome for body in self.log()]

    # --- the committer -----------------------------------------------------------------------

    @asynccontextmanager
    async def committing(self) -> AsyncIterator["Running"]:
        """A committer on the running loop; what is queued at the end is committed."""
        running = Running(self)
        running.committer.start()
        try:
            yield running
        finally:
            await running.stop()

    def next_request(self) -> str:
        self._count += 1
        return f"r{self._count}"


class Running:
    """The committer, and the loop's side of it."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.loop = asyncio.get_running_loop()
        self.gate = Event()
        self.held = Event()
        self.committer = Committer(
            journal=scene.store,
            secrets=scene.secrets,
            snapshot=scene.load(),
            random=scene.random,
            loop=self.loop,
            on_snapshot=scene.snapshots.append,
            on_trouble=scene.troubles.append,
        )

    async def stop(self) -> None:
        self.release()
        await self.loop.run_in_executor(None, self.committer.stop)
        await asyncio.sleep(0)

    async def hold(self) -> "asyncio.Future[Outcome]":
        """Hold up the disk: one denial is in its commit, what is queued now gathers behind it."""
        self.scene.store.before_commit = self._wait
        first = self.submit(candidate=None)
        await self.loop.run_in_executor(None, self.held.wait, WAIT_S)
        return first

    def _wait(self) -> None:
        self.held.set()
        self.gate.wait(WAIT_S)

    def release(self) -> None:
        self.scene.store.before_commit = None
        self.gate.set()

    def submit(
        self,
        *,
        candidate: Candidate | None,
        result: bytes | None = b"signature",
        released: bool = False,
    ) -> "asyncio.Future[Outcome]":
        done: asyncio.Future[Outcome] = self.loop.create_future()
        scene = self.scene
        request = scene.next_request()
        draft = Draft(
            time_ms=scene.clock.now_ms(),
            node="node-a",
            op="data.wrap",
            outcome="ok" if candidate is not None or released else "permission_denied",
            request=request,
            key="k1",
            signed="c0ffee" if candidate is not None else "",
        )
        receipt = Receipt(None, 0, "name-k1", 2, "kid2", "aes-256-gcm-siv", "durable", request)
        pending = Pending(
            draft=draft,
            salt=scene.random.bytes(SALT_BYTES),
            deliver=done.set_result,
            candidate=candidate,
            receipt=receipt,
            result=result,
            released=released,
        )
        self.committer.submit(pending)
        return done

    def use(
        self,
        key: str | None = None,
        *,
        fingerprint: bytes = b"payload",
        grant: Grant | None = None,
        step: CounterStep | None = None,
        budgets: tuple[tuple[str, int], ...] = (),
        epoch: int | None = None,
        operation: str = "wrap",
        result: bytes | None = b"signature",
    ) -> "asyncio.Future[Outcome]":
        """A use by the handle, checked at the epoch that the registry has now."""
        grant = grant or self.scene.grant
        if epoch is None:
            row = self.scene.store.disk.tables.epoch
            epoch = row.epoch if row else 0
        candidate = Candidate(
            grant=grant,
            key_id="k1",
            operation=operation,
            version=2,
            epoch=epoch,
            budgets=budgets,
            idempotency=(grant.chain_id, key, fingerprint) if key else None,
            step=step,
        )
        return self.submit(candidate=candidate, result=result)

    def change(
        self, apply: Callable[[Transaction, Snapshot, int, int], Applied]
    ) -> "asyncio.Future[Changed]":
        done: asyncio.Future[Changed] = self.loop.create_future()
        self.committer.change(Change(apply, done.set_result))
        return done

    def change_key(self, alter: Callable[[Key], Key]) -> "asyncio.Future[Changed]":
        """Put another ``k1`` in place, with a record of it."""

        def apply(_tx: Transaction, snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
            old = snapshot.key("k1")
            new = msgspec.structs.replace(alter(old), revision=old.revision + 1, epoch=epoch)
            row = key_row(new, self.scene.secrets)
            return Applied(
                rows=((row, old.revision),), drafts=(self.draft("key.change"),), value=new
            )

        return self.change(apply)

    def revoke(self, link: str) -> "asyncio.Future[Changed]":
        def apply(_tx: Transaction, _snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
            row = self.scene.revocation(link, epoch)
            return Applied(rows=((row, 0),), drafts=(self.draft("handle.revoke"),), value=link)

        return self.change(apply)

    def draft(self, op: str) -> Draft:
        return Draft(
            time_ms=self.scene.clock.now_ms(),
            node="node-a",
            op=op,
            outcome="ok",
            request=self.scene.next_request(),
        )


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110  it comes about in another thread or process
            await asyncio.sleep(0.005)


async def outcome_of(waiting: "asyncio.Future[Outcome]") -> Outcome:
    return await asyncio.wait_for(waiting, WAIT_S)


async def committed(waiting: "asyncio.Future[Outcome]") -> Committed:
    outcome = await outcome_of(waiting)
    assert isinstance(outcome, Committed), outcome
    return outcome


async def replayed(waiting: "asyncio.Future[Outcome]") -> IdempotencyRow:
    outcome = await outcome_of(waiting)
    assert isinstance(outcome, IdempotencyRow), outcome
    return outcome


async def refused(waiting: "asyncio.Future[Outcome]", kind: type[KeysteadError]) -> KeysteadError:
    outcome = await outcome_of(waiting)
    assert isinstance(outcome, kind), outcome
    return outcome


async def changed(waiting: "asyncio.Future[Changed]") -> Committed:
    outcome = await asyncio.wait_for(waiting, WAIT_S)
    assert isinstance(outcome, tuple), outcome
    return outcome[1]


async def not_changed(
    waiting: "asyncio.Future[Changed]", kind: type[KeysteadError]
) -> KeysteadError:
    outcome = await asyncio.wait_for(waiting, WAIT_S)
    assert isinstance(outcome, kind), outcome
    return outcome
