"""A vault's services, put together over its ports: once, for the node, the benchmark and tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from keystead.errors import KeysteadError
from keystead.ports import (
    Clock,
    Custody,
    EpochWatch,
    Guard,
    Journal,
    LogReader,
    Random,
    Registry,
)
from keystead.vault.acknowledging import Acknowledgements
from keystead.vault.admin import Administration
from keystead.vault.admission import Admission
from keystead.vault.anchors import AnchorConfig
from keystead.vault.authority import Snapshot
from keystead.vault.checkpoints import Checkpoints
from keystead.vault.committer import Committer
from keystead.vault.counters import ExpectedCounters
from keystead.vault.denials import DenialLimiter
from keystead.vault.following import Following
from keystead.vault.grants import Grants
from keystead.vault.guard import OperatorGuard
from keystead.vault.histories import Histories
from keystead.vault.leading import Leading
from keystead.vault.logbook import Logbook
from keystead.vault.macs import VaultSecrets
from keystead.vault.making import KeyMaker
from keystead.vault.opened import OpenedKeys
from keystead.vault.previewing import Previews
from keystead.vault.publications import Publications
from keystead.vault.reports import Reports
from keystead.vault.reservations import Reservations
from keystead.vault.rotating import Rotating
from keystead.vault.server import Service
from keystead.vault.signals import VersionSignals
from keystead.vault.standing import Standing
from keystead.vault.tending import Tending
from keystead.vault.uses import Uses

__all__ = ["Base", "Services", "wire"]

_CUSTODY_THREADS = 2


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What a vault stands on: its ports, its secrets, and the state that was found at its start.

    ``began``: the sequence of the record of this start; -1 if none was written. ``watch``: where
    other nodes may be on the same registry. ``url``: where its front listens, for people.
    """

    registry: Registry
    journal: Journal
    log_reader: LogReader
    custody: Custody
    secrets: VaultSecrets
    clock: Clock
    random: Random
    snapshot: Snapshot
    deployment: str
    node: str
    protections: dict[str, str]
    anchors: AnchorConfig = AnchorConfig()
    began: int = -1
    guard: Guard = OperatorGuard()
    watch: EpochWatch | None = None
    url: str = ""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The services of a running loop, and what must be ended in order."""

    standing: Standing
    committer: Committer
    reservations: Reservations
    denials: DenialLimiter
    opened: OpenedKeys
    grants: Grants
    uses: Uses
    rotating: Rotating
    leading: Leading
    following: Following | None
    administration: Administration
    acknowledgements: Acknowledgements
    tending: Tending
    checkpoints: Checkpoints
    publications: Publications
    logbook: Logbook
    service: Service
    executors: tuple[Executor, Executor]

    async def close(self, *, orderly: bool = True) -> None:
        """Finish what is under way, and end; not ``orderly``: without the last records.

        Stores and custody stay open, for whoever opened them.
        """
        self.rotating.close()
        if self.following is not None:
            self.following.close()
        for executor in self.executors:
            executor.shutdown(wait=True)
        self.logbook.close()
        self.acknowledgements.close()
        await asyncio.sleep(0)  # lets what the executors finished queue its records
        if orderly:
            await self.publications.close()
            await self.checkpoints.close()
            self.tending.finish()
        await asyncio.get_running_loop().run_in_executor(None, self.committer.stop)
        await asyncio.sleep(0)  # lets the last commit's answers go out
        self.opened.close()


class _Core(NamedTuple):
    """What the others are built on."""

    standing: Standing
    committer: Committer
    reservations: Reservations
    opened: OpenedKeys
    denials: DenialLimiter
    grants: Grants
    signals: VersionSignals
    counters: ExpectedCounters
    reports: Reports
    maker: KeyMaker
    leading: Leading
    rotating: Rotating
    executors: tuple[Executor, Executor]
    loop: asyncio.AbstractEventLoop


def wire(base: Base) -> Services:
    """The services, in the running loop; the committer is not started yet.

    Raises:
        StateRolledBack: the log is not what its last checkpoint says.
    """
    core = _core(base, asyncio.get_running_loop())
    uses = _uses(base, core)
    checkpoints = _checkpoints(base, core)
    logbook = Logbook(
        reader=base.log_reader,
        standing=core.standing,
        guard=base.guard,
        committer=core.committer,
        clock=base.clock,
        loop=core.loop,
    )
    acknowledgements = _acknowledgements(base, core)
    administration = _administration(base, core, uses, checkpoints, logbook, acknowledgements)
    tending = _tending(base, core, checkpoints)
    publications = Publications(
        standing=core.standing,
        committer=core.committer,
        registry=base.registry,
        opened=core.opened,
        secrets=base.secrets,
        clock=base.clock,
        next_request_id=uses.next_request_id,
    )
    return Services(
        standing=core.standing,
        committer=core.committer,
        reservations=core.reservations,
        denials=core.denials,
        opened=core.opened,
        grants=core.grants,
        uses=uses,
        rotating=core.rotating,
        leading=core.leading,
        following=_following(base, core),
        administration=administration,
        acknowledgements=acknowledgements,
        tending=tending,
        checkpoints=checkpoints,
        logbook=logbook,
        publications=publications,
        service=Service(
            core.standing,
            uses,
            administration,
            tending,
            checkpoints,
            publications=publications,
            now_ms=core.rotating.now_ms,
        ),
        executors=core.executors,
    )


def _core(base: Base, loop: asyncio.AbstractEventLoop) -> _Core:
    standing = Standing(base.snapshot, deployment=base.deployment, node=base.node)
    opened = OpenedKeys(base.custody, base.registry)
    follows: list[Callable[[Snapshot], None]] = [opened.follow]
    committer = _committer(base, standing, follows, loop)
    reservations = Reservations(standing, committer, base.clock, base.random)
    denials = DenialLimiter()
    grants = Grants(base.secrets, base.registry)
    executors = (
        ThreadPoolExecutor(_CUSTODY_THREADS, thread_name_prefix="custody"),
        ThreadPoolExecutor(1, thread_name_prefix="custody-ordered"),
    )
    signals = VersionSignals(base.clock)
    counters = ExpectedCounters(base.registry, base.secrets)
    reports = Reports(base.registry, base.secrets, counters, base.clock, base.node)
    maker = KeyMaker(base.custody, base.registry, base.clock, base.random)
    leading = Leading(
        standing=standing,
        secrets=base.secrets,
        committer=committer,
        clock=base.clock,
        alone=base.watch is None,
    )
    rotating = Rotating(
        standing=standing,
        registry=base.registry,
        secrets=base.secrets,
        committer=committer,
        reservations=reservations,
        maker=maker,
        signals=signals,
        reports=reports,
        leading=leading,
        clock=base.clock,
        loop=loop,
    )
    rotating.follow(base.snapshot)
    rotating.watch()
    follows.append(rotating.follow)
    return _Core(
        standing=standing,
        committer=committer,
        reservations=reservations,
        opened=opened,
        denials=denials,
        grants=grants,
        signals=signals,
        counters=counters,
        reports=reports,
        maker=maker,
        leading=leading,
        rotating=rotating,
        executors=executors,
        loop=loop,
    )


def _acknowledgements(base: Base, core: _Core) -> Acknowledgements:
    return Acknowledgements(
        standing=core.standing,
        registry=base.registry,
        secrets=base.secrets,
        clock=base.clock,
        loop=core.loop,
        alone=base.watch is None,
    )


def _administration(  # noqa: PLR0917  what it stands on, and the services that it has do the work
    base: Base,
    core: _Core,
    uses: Uses,
    checkpoints: Checkpoints,
    logbook: Logbook,
    acknowledgements: Acknowledgements,
) -> Administration:
    return Administration(
        standing=core.standing,
        guard=base.guard,
        secrets=base.secrets,
        registry=base.registry,
        committer=core.committer,
        reservations=core.reservations,
        maker=core.maker,
        logbook=logbook,
        rotating=core.rotating,
        histories=Histories(base.log_reader, base.secrets),
        anchors=checkpoints.anchors,
        acknowledgements=acknowledgements,
        previews=Previews(
            standing=core.standing,
            registry=base.registry,
            reader=base.log_reader,
            secrets=base.secrets,
            clock=base.clock,
        ),
        clock=base.clock,
        random=base.random,
        loop=core.loop,
        next_request_id=uses.next_request_id,
    )


def _uses(base: Base, core: _Core) -> Uses:
    return Uses(
        standing=core.standing,
        admission=Admission(core.standing, core.grants, base.registry, base.secrets),
        opened=core.opened,
        counters=core.counters,
        signals=core.signals,
        reports=core.reports,
        reservations=core.reservations,
        denials=core.denials,
        committer=core.committer,
        clock=base.clock,
        random=base.random,
        executors=core.executors,
        loop=core.loop,
    )


def _tending(base: Base, core: _Core, checkpoints: Checkpoints) -> Tending:
    return Tending(
        standing=core.standing,
        secrets=base.secrets,
        registry=base.registry,
        committer=core.committer,
        reservations=core.reservations,
        denials=core.denials,
        opened=core.opened,
        anchors=checkpoints.anchors,
        rotating=core.rotating,
        leading=core.leading,
        clock=base.clock,
        random=base.random,
        protections=base.protections,
    )


def _following(base: Base, core: _Core) -> Following | None:
    if base.watch is None:
        return None
    return Following(
        standing=core.standing,
        secrets=base.secrets,
        committer=core.committer,
        watch=base.watch,
        loop=core.loop,
        url=base.url,
    )


def _checkpoints(base: Base, core: _Core) -> Checkpoints:
    made = Checkpoints(
        standing=core.standing,
        committer=core.committer,
        registry=base.registry,
        opened=core.opened,
        secrets=base.secrets,
        maker=core.maker,
        clock=base.clock,
        anchors=base.anchors,
        began=base.began,
    )
    made.load()
    return made


def _committer(
    base: Base,
    standing: Standing,
    follows: list[Callable[[Snapshot], None]],
    loop: asyncio.AbstractEventLoop,
) -> Committer:
    def on_snapshot(snapshot: Snapshot) -> None:
        standing.snapshot = snapshot
        for follow in follows:
            follow(snapshot)

    def on_trouble(error: KeysteadError | None) -> None:
        standing.trouble = error

    return Committer(
        journal=base.journal,
        secrets=base.secrets,
        snapshot=base.snapshot,
        random=base.random,
        loop=loop,
        on_snapshot=on_snapshot,
        on_trouble=on_trouble,
    )
