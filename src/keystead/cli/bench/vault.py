"""A vault of its own in this process, for what is measured without sockets and HTTP.

Put together out of the vault's parts as the composition root does, which no command may import.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from keystead.custody.root import RootKey
from keystead.custody.seal_file import FileSeal
from keystead.custody.software import SoftwareCustody
from keystead.errors import KeysteadError, StartupError, error_for_code
from keystead.frames.messages import Admin, Answer, Done
from keystead.keys.commands import CreateKey, IssuedHandle, IssueHandle, KeyInfo
from keystead.net.system import SystemClock, SystemRandom
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.vault.admin import Administration
from keystead.vault.admission import Admission
from keystead.vault.authority import Snapshot
from keystead.vault.committer import Committer
from keystead.vault.counters import ExpectedCounters
from keystead.vault.denials import DenialLimiter
from keystead.vault.grants import Grants
from keystead.vault.guard import OperatorGuard
from keystead.vault.macs import VaultSecrets
from keystead.vault.making import KeyMaker
from keystead.vault.opened import OpenedKeys
from keystead.vault.reservations import Reservations
from keystead.vault.standing import Standing
from keystead.vault.start import DEPLOYMENT, SEALED_ROOT, found, initialise
from keystead.vault.uses import Uses

__all__ = ["NODE", "REGISTRY", "SEAL", "Stores", "Vault", "open_stores"]

REGISTRY, SEAL, NODE = "registry.db", "seal.key", "node1"
"""Files of a data folder and the name of its node, as ``keystead up`` has them by default."""
_DEPLOYMENT_BYTES = 8

T = TypeVar("T")


class Stores(msgspec.Struct, frozen=True):
    """A data folder, opened: its database, its root key, and what hangs from that."""

    registry: SqliteRegistry
    journal: SqliteJournal
    root: RootKey
    secrets: VaultSecrets
    custody: SoftwareCustody
    deployment: str
    token: str
    clock: SystemClock
    random: SystemRandom

    def snapshot(self) -> Snapshot:
        """The authority rows as they are found, held to their MACs."""
        return found(self.registry, self.secrets)

    def close(self) -> None:
        """Wipe the root key, close the database."""
        self.custody.close()
        self.registry.close()
        self.journal.close()


def open_stores(folder: Path) -> Stores:
    """Open a migrated data folder that no node runs on; at its first start, make the deployment.

    ``token`` is the operator's, empty if the deployment was there before.
    """
    clock, random = SystemClock(), SystemRandom()
    path = folder / REGISTRY
    registry, journal, seal = SqliteRegistry(path), SqliteJournal(path), FileSeal(folder / SEAL)
    stored, sealed = registry.meta(DEPLOYMENT), registry.meta(SEALED_ROOT)
    token = ""
    if stored is None or sealed is None:
        deployment = random.bytes(_DEPLOYMENT_BYTES).hex()
        seal.create(random)
        root, sealed = RootKey.create(seal, deployment, random)
    else:
        deployment = stored.decode()
        root = RootKey.unseal(seal, sealed, deployment, random)
    secrets = VaultSecrets(
        root.derive(b"handles"), root.derive(b"registry"), root.derive(b"fingerprints")
    )
    if stored is None:
        token = initialise(
            journal,
            secrets,
            deployment=deployment,
            sealed_root=sealed,
            node=NODE,
            clock=clock,
            random=random,
        )
    custody = SoftwareCustody(root, random)
    return Stores(registry, journal, root, secrets, custody, deployment, token, clock, random)


class Vault:
    """Uses and administration on a running loop, over :class:`Stores`."""

    def __init__(self, stores: Stores) -> None:
        loop = asyncio.get_running_loop()
        clock, random, secrets, registry = (
            stores.clock,
            stores.random,
            stores.secrets,
            stores.registry,
        )
        snapshot = stores.snapshot()
        self._stores = stores
        self._standing = Standing(snapshot, deployment=stores.deployment, node=NODE)
        self._opened = OpenedKeys(stores.custody, registry)
        self._executors = (ThreadPoolExecutor(1), ThreadPoolExecutor(1))
        self.committer = Committer(
            journal=stores.journal,
            secrets=secrets,
            snapshot=snapshot,
            clock=clock,
            random=random,
            loop=loop,
            on_snapshot=self._follow,
            on_trouble=self._heed,
        )
        reservations = Reservations(self._standing, self.committer, clock, random)
        self.uses = Uses(
            standing=self._standing,
            admission=Admission(self._standing, Grants(secrets, registry), registry, secrets),
            opened=self._opened,
            counters=ExpectedCounters(registry, secrets),
            reservations=reservations,
            denials=DenialLimiter(),
            committer=self.committer,
            clock=clock,
            random=random,
            executors=self._executors,
            loop=loop,
        )
        self._administration = Administration(
            standing=self._standing,
            guard=OperatorGuard(),
            secrets=secrets,
            registry=registry,
            committer=self.committer,
            reservations=reservations,
            maker=KeyMaker(stores.custody, registry, clock, random),
            clock=clock,
            random=random,
            loop=loop,
            next_request_id=self.uses.next_request_id,
        )
        self.committer.start()

    def _follow(self, snapshot: Snapshot) -> None:
        self._standing.snapshot = snapshot
        self._opened.follow(snapshot)

    def _heed(self, error: KeysteadError | None) -> None:
        self._standing.trouble = error

    async def administer(self, command: CreateKey | IssueHandle, kind: type[T]) -> T:
        """One command of the operator, and its answer.

        Raises:
            KeysteadError: the vault refused it.
        """
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        request = Admin(0, self._stores.token, msgspec.msgpack.encode(command))
        self._administration.begin(request, answered.set_result)
        answer = await answered
        if not isinstance(answer, Done):
            raise error_for_code(answer.code, answer.message, hint=answer.hint)
        return msgspec.msgpack.decode(answer.result, type=kind)

    async def handle(self, name: str, create: CreateKey) -> str:
        """Make a key and issue a handle of it; gives the handle's token."""
        made = await self.administer(create, KeyInfo)
        if made.name != name:
            raise StartupError(f"expected a key named {name}, met {made.name}")
        command = IssueHandle(key=name, principal="bench")
        return (await self.administer(command, IssuedHandle)).token

    def close(self) -> None:
        """End the committer, and close what was opened."""
        for executor in self._executors:
            executor.shutdown(wait=True)
        self.committer.stop()
        self._opened.close()
