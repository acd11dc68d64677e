"""A vault of its own in this process, for what is measured without sockets and HTTP.

Put together out of the vault's parts as the composition root does, which no command may import.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypeVar

import msgspec

from keystead.custody.root import RootKey
from keystead.custody.seal_file import FileSeal
from keystead.custody.software import SoftwareCustody
from keystead.errors import StartupError, error_for_code
from keystead.frames.messages import Admin, Answer, Done
from keystead.keys.commands import CreateKey, IssuedHandle, IssueHandle, KeyInfo
from keystead.net.system import SystemClock, SystemRandom
from keystead.store.sqlite_journal import SqliteJournal
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.store.sqlite_search import SqliteLogReader
from keystead.vault.authority import Snapshot
from keystead.vault.macs import VaultSecrets
from keystead.vault.start import DEPLOYMENT, SEALED_ROOT, found, initialise
from keystead.vault.wiring import Base, wire

__all__ = ["NODE", "REGISTRY", "SEAL", "Stores", "Vault", "open_stores"]

REGISTRY, SEAL, NODE = "registry.db", "seal.key", "node1"
"""Files of a data folder and the name of its node, as ``keystead up`` has them by default."""
_DEPLOYMENT_BYTES = 8

T = TypeVar("T")


class Stores(msgspec.Struct, frozen=True):
    """A data folder, opened: its database, its root key, and what hangs from that."""

    registry: SqliteRegistry
    journal: SqliteJournal
    log_reader: SqliteLogReader
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
        self.log_reader.close()
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
    reader = SqliteLogReader(path)
    return Stores(
        registry, journal, reader, root, secrets, custody, deployment, token, clock, random
    )


class Vault:
    """Uses, administration and checkpoints on a running loop, over :class:`Stores`."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._services = wire(
            Base(
                registry=stores.registry,
                journal=stores.journal,
                log_reader=stores.log_reader,
                custody=stores.custody,
                secrets=stores.secrets,
                clock=stores.clock,
                random=stores.random,
                snapshot=stores.snapshot(),
                deployment=stores.deployment,
                node=NODE,
                protections={},
            )
        )
        self.committer = self._services.committer
        self.uses = self._services.uses
        self.checkpoints = self._services.checkpoints
        self.committer.start()

    async def administer(self, command: CreateKey | IssueHandle, kind: type[T]) -> T:
        """One command of the operator, and its answer.

        Raises:
            KeysteadError: the vault refused it.
        """
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        request = Admin(0, self._stores.token, msgspec.msgpack.encode(command))
        self._services.administration.begin(request, answered.set_result)
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

    async def close(self) -> None:
        """End the committer, and close what was opened."""
        await self._services.close(orderly=False)
