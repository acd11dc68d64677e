"""A whole vault in this process: its own services on a store in memory, under software custody.

Only disk, clock and random generator are the tests' own; nothing stands in for a service.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import TypeVar

import msgspec

from keystead.custody.locked import LockedBuffer
from keystead.custody.root import RootKey
from keystead.custody.software import SoftwareCustody
from keystead.frames.messages import Admin, Answer, Done, Proof, Refused, Request, Tend, Use
from keystead.keys.commands import Command, CreateKey, IssuedHandle, IssueHandle, KeyInfo
from keystead.keys.framing.base import Facts
from keystead.keys.framing.tls import SignTls
from keystead.keys.model import Policy
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose
from keystead.ports import Custody, Guard, LogReader
from keystead.testing.clocks import ManualClock, SeededRandom
from keystead.testing.memory_store import MemoryDisk, MemoryStore, MemoryWatch
from keystead.translog.entries import Body, decode_body
from keystead.vault.anchors import AnchorConfig
from keystead.vault.authority import Snapshot
from keystead.vault.guard import OperatorGuard
from keystead.vault.start import found, initialise, record_gaps
from keystead.vault.wiring import Base, Services, wire
from unit.vault.scene import WAIT_S, secrets_of

DEPLOYMENT = "d1"
NODE = "node-a"
CONTEXT = "web/eu/shop"
TLS_FACTS = SignTls(role="server", transcript_hash=bytes(range(32)))

T = TypeVar("T")
Future = asyncio.Future[Answer]


@dataclass
class Node:
    """One node on a disk; a second one on the same disk is the node after a restart.

    ``shared``: the disk is a database that other nodes are on, too, each with a log of its own.
    """

    disk: MemoryDisk = field(default_factory=MemoryDisk)
    clock: ManualClock = field(default_factory=ManualClock)
    seed: int = 1
    token: str = ""
    custody: Custody | None = None
    gap_uses: int = 0
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    began: int = -1
    guard: Guard = field(default_factory=OperatorGuard)
    reader: LogReader | None = None
    name: str = NODE
    shared: bool = False

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.disk, self.name if self.shared else "")
        self.watch = MemoryWatch(self.disk) if self.shared else None
        self.secrets = secrets_of()
        self.random = SeededRandom(self.seed)
        if self.custody is None:
            root = RootKey(LockedBuffer.take(bytearray(b"\1" * 32)), self.random)
            self.custody = SoftwareCustody(root, self.random)
        if self.store.epoch() is None:
            self.token = initialise(
                self.store,
                self.secrets,
                deployment=DEPLOYMENT,
                sealed_root=b"sealed",
                node=self.name,
                clock=self.clock,
                random=self.random,
            )
        self._count = 0
        self._built: Services | None = None

    def after_restart(self, custody: Custody | None = None) -> "Node":
        """The same node, started anew on the same disk."""
        return Node(self.disk, self.clock, self.seed + 1, self.token, custody or self.custody)

    @property
    def built(self) -> Services:
        assert self._built is not None
        return self._built

    # --- running -----------------------------------------------------------------------------

    @asynccontextmanager
    async def serving(self, *, orderly: bool = True) -> AsyncIterator["Node"]:
        """The vault at work. Not ``orderly``: it ends without its last steps, as by SIGKILL."""
        snapshot = found(self.store, self.secrets)
        self.gap_uses = record_gaps(
            self.store,
            self.store,
            epoch=snapshot.epoch,
            node=self.name,
            clock=self.clock,
            random=self.random,
        )
        self._built = self._build(snapshot)
        built = self._built
        built.committer.start()
        if built.following is not None:
            built.following.start()
        try:
            yield self
        finally:
            self.store.before_commit = None
            await built.close(orderly=orderly)

    def _build(self, snapshot: Snapshot) -> Services:
        assert self.custody is not None
        return wire(
            Base(
                registry=self.store,
                journal=self.store,
                log_reader=self.reader or self.store,
                guard=self.guard,
                custody=self.custody,
                secrets=self.secrets,
                clock=self.clock,
                random=self.random,
                snapshot=snapshot,
                deployment=DEPLOYMENT,
                node=self.name,
                watch=self.watch,
                protections={"seal": "none"},
                anchors=self.anchors,
                began=self.began,
            )
        )

    # --- asking ------------------------------------------------------------------------------

    def next_id(self) -> int:
        self._count += 1
        return self._count

    def begin(self, request: Request) -> Future:
        """Ask, and do not wait. A second answer to one request would raise."""
        done: Future = asyncio.get_running_loop().create_future()
        self.built.service.begin(request, done.set_result)
        return done

    async def ask(self, request: Request) -> Answer:
        return await asyncio.wait_for(self.begin(request), WAIT_S)

    def use_of(
        self,
        handle: str,
        facts: Facts = TLS_FACTS,
        operation: str = "tls.sign",
        *,
        context: str = CONTEXT,
        key: str | None = None,
        version: int = 0,
        proof: Proof | None = None,
        reason: str | None = None,
    ) -> Use:
        purpose, _, name = operation.partition(".")
        return Use(
            self.next_id(),
            handle,
            purpose,
            name,
            context,
            msgspec.msgpack.encode(facts),
            version=version,
            idempotency_key=key,
            proof=proof,
            reason=reason,
        )

    async def admin(self, command: Command, token: str | None = None) -> Answer:
        encoded = msgspec.msgpack.encode(command)
        return await self.ask(
            Admin(self.next_id(), self.token if token is None else token, encoded)
        )

    async def tend(self, *findings: str) -> Answer:
        return await self.ask(Tend(self.next_id(), findings))

    async def create(self, name: str, purpose: Purpose, **fields: object) -> KeyInfo:
        command = msgspec.structs.replace(CreateKey(name=name, purpose=purpose), **fields)
        return result_of(await self.admin(command), KeyInfo)

    async def issue(self, key: str, narrowing: Narrowing | None = None) -> IssuedHandle:
        command = IssueHandle(key=key, principal="ci", narrowing=narrowing or Narrowing())
        return result_of(await self.admin(command), IssuedHandle)

    async def handle(self, purpose: Purpose, narrowing: Narrowing | None = None) -> str:
        """A new key of a purpose, and a handle of it."""
        name = f"key-{self.next_id()}"
        policy = {"policy": Policy(ack="best_effort")} if purpose is Purpose.TLS else {}
        await self.create(name, purpose, **policy)
        return (await self.issue(name, narrowing)).token

    # --- the log -----------------------------------------------------------------------------

    def log(self, op: str = "") -> list[Body]:
        rows = self.store.records_from(0, 100_000)
        bodies = [decode_body(row.body) for row in rows if row.body is not None]
        return [body for body in bodies if op in ("", body.op)]

    def hold(self) -> Callable[[], None]:
        """Hold up the disk from the next commit on; gives what releases it."""
        gate = Event()

        def wait() -> None:
            gate.wait(WAIT_S)

        def release() -> None:
            self.store.before_commit = None
            gate.set()

        self.store.before_commit = wait

        return release


def check_done(answer: Answer) -> Done:
    assert isinstance(answer, Done), answer
    return answer


def result_of(answer: Answer, form: type[T]) -> T:
    return msgspec.msgpack.decode(check_done(answer).result, type=form)


def check_refused(answer: Answer, code: str) -> Refused:
    assert isinstance(answer, Refused), answer
    assert answer.code == code, answer
    return answer


async def all_of(waiting: list[Future]) -> list[Answer]:
    return await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)
