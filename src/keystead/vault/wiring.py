"""A vault's services, put together over its ports: once, for the node, the benchmark and tests."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, ThreadPoolExecutor

import msgspec

from keystead.errors import KeysteadError
from keystead.ports import Clock, Custody, Journal, Random, Registry
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
from keystead.vault.server import Service
from keystead.vault.standing import Standing
from keystead.vault.tending import Tending
from keystead.vault.uses import Uses

__all__ = ["Base", "Services", "wire"]

_CUSTODY_THREADS = 2


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What a vault stands on: its ports, its secrets, and the state that was found at its start."""

    registry: Registry
    journal: Journal
    custody: Custody
    secrets: VaultSecrets
    clock: Clock
    random: Random
    snapshot: Snapshot
    deployment: str
    node: str
    protections: dict[str, str]


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The services of a running loop, and what must be ended in order."""

    standing: Standing
    committer: Committer
    reservations: Reservations
    denials: DenialLimiter
    opened: OpenedKeys
    grants: Grants
    uses: Uses
    administration: Administration
    tending: Tending
    service: Service
    executors: tuple[Executor, Executor]

    async def close(self, *, orderly: bool = True) -> None:
        """Finish what is under way, and end; not ``orderly``: without the last records.

        Stores and custody stay open, for whoever opened them.
        """
        for executor in self.executors:
            executor.shutdown(wait=True)
        await asyncio.sleep(0)  # lets what the executors finished queue its records
        if orderly:
            self.tending.finish()
        await asyncio.get_running_loop().run_in_executor(None, self.committer.stop)
        await asyncio.sleep(0)  # lets the last commit's answers go out
        self.opened.close()


def wire(base: Base) -> Services:
    """The services, in the running loop; the committer is not started yet."""
    loop = asyncio.get_running_loop()
    standing = Standing(base.snapshot, deployment=base.deployment, node=base.node)
    opened = OpenedKeys(base.custody, base.registry)
    committer = _committer(base, standing, opened, loop)
    reservations = Reservations(standing, committer, base.clock, base.random)
    denials = DenialLimiter()
    grants = Grants(base.secrets, base.registry)
    executors = (
        ThreadPoolExecutor(_CUSTODY_THREADS, thread_name_prefix="custody"),
        ThreadPoolExecutor(1, thread_name_prefix="custody-ordered"),
    )
    uses = Uses(
        standing=standing,
        admission=Admission(standing, grants, base.registry, base.secrets),
        opened=opened,
        counters=ExpectedCounters(base.registry, base.secrets),
        reservations=reservations,
        denials=denials,
        committer=committer,
        clock=base.clock,
        random=base.random,
        executors=executors,
        loop=loop,
    )
    administration = Administration(
        standing=standing,
        guard=OperatorGuard(),
        secrets=base.secrets,
        registry=base.registry,
        committer=committer,
        reservations=reservations,
        maker=KeyMaker(base.custody, base.registry, base.clock, base.random),
        clock=base.clock,
        random=base.random,
        loop=loop,
        next_request_id=uses.next_request_id,
    )
    tending = Tending(
        standing=standing,
        secrets=base.secrets,
        registry=base.registry,
        committer=committer,
        reservations=reservations,
        denials=denials,
        opened=opened,
        clock=base.clock,
        random=base.random,
        protections=base.protections,
    )
    return Services(
        standing=standing,
        committer=committer,
        reservations=reservations,
        denials=denials,
        opened=opened,
        grants=grants,
        uses=uses,
        administration=administration,
        tending=tending,
        service=Service(standing, uses, administration, tending),
        executors=executors,
    )


def _committer(
    base: Base, standing: Standing, opened: OpenedKeys, loop: asyncio.AbstractEventLoop
) -> Committer:
    def on_snapshot(snapshot: Snapshot) -> None:
        standing.snapshot = snapshot
        opened.follow(snapshot)

    def on_trouble(error: KeysteadError | None) -> None:
        standing.trouble = error

    return Committer(
        journal=base.journal,
        secrets=base.secrets,
        snapshot=base.snapshot,
        clock=base.clock,
        random=base.random,
        loop=loop,
        on_snapshot=on_snapshot,
        on_trouble=on_trouble,
    )
