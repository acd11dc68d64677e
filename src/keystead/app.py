"""The composition root: builds each process out of its parts, and supervises them as one node.

``python -m keystead.app up`` is what ``keystead up`` runs. The other roles are its children; each
gets its configuration, which holds no secret, as one JSON argument.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from functools import partial
from pathlib import Path

import msgspec
import uvloop

from keystead.custody.root import RootKey
from keystead.custody.seal_file import FileSeal
from keystead.custody.software import SoftwareCustody
from keystead.errors import KeysteadError, LogUnavailable, StartupError
from keystead.front.config import FrontConfig
from keystead.net.files import write_private
from keystead.net.logs import configure_logs
from keystead.net.processes import die_with_parent, report_error, report_ready
from keystead.net.system import SystemClock, SystemRandom
from keystead.ports import Custody
from keystead.steward.config import StewardConfig
from keystead.store.anchor_file import AnchorFile
from keystead.store.opening import Store, migrate, open_store
from keystead.store.tile_files import CHECKPOINT
from keystead.supervisor import NodeOptions, run_node
from keystead.translog.notes import parse_vkey
from keystead.vault.anchors import AnchorConfig
from keystead.vault.authority import Snapshot
from keystead.vault.hygiene import harden
from keystead.vault.logbook import forget_again
from keystead.vault.macs import VaultSecrets
from keystead.vault.server import listen
from keystead.vault.start import (
    DEPLOYMENT,
    SEALED_ROOT,
    found,
    initialise,
    record_gaps,
    record_start,
)
from keystead.vault.wiring import Base, wire

__all__ = ["VaultConfig", "main"]

_UNAVAILABLE = 3
_DEPLOYMENT_BYTES = 8


class VaultConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a vault's registry, seal and socket are; paths are relative to the data folder.

    ``database``: the path of an SQLite file, or a PostgreSQL URL. ``url``: where the node's front
    listens, for people. ``token_file``: where a first start leaves the operator's token for the
    supervisor. ``log``: the folder that the steward publishes to. ``anchor``: the file on another
    disk that remembers the log. ``witnesses``: verifier keys of those who cosign it, of whom
    ``quorum`` must be heard at a start.
    """

    database: str
    seal_file: str
    socket: str
    node: str
    token_file: str
    log: str | None = None
    anchor: str | None = None
    witnesses: tuple[str, ...] = ()
    quorum: int = 0
    url: str = ""
    allow_async_standby: bool = False


class MigrateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which registry to migrate, and whose log in it."""

    database: str
    node: str


# --- the vault -----------------------------------------------------------------------------------


class _Opened(msgspec.Struct, frozen=True):
    """What a vault stands on once its root key is unsealed."""

    store: Store
    root: RootKey
    secrets: VaultSecrets
    deployment: str
    snapshot: Snapshot
    gap: int
    forgotten: int
    began: int


def _open_deployment(config: VaultConfig, clock: SystemClock, random: SystemRandom) -> _Opened:
    """Unseal and check what is there; at the very first start, make it."""
    store = open_store(config.database, config.node, allow_async_standby=config.allow_async_standby)
    registry, journal = store.registry, store.journal
    seal = FileSeal(Path(config.seal_file))
    stored, sealed = registry.meta(DEPLOYMENT), registry.meta(SEALED_ROOT)
    if stored is None or sealed is None:
        deployment = random.bytes(_DEPLOYMENT_BYTES).hex()
        if (
            not seal.exists()
        ):  # it may be there: from a first start that was cut off before its commit
            seal.create(random)
        root, sealed = RootKey.create(seal, deployment, random)
        secrets = _secrets(root)
        try:
            initialise(
                journal,
                secrets,
                deployment=deployment,
                sealed_root=sealed,
                node=config.node,
                clock=clock,
                random=random,
                hand_over=partial(write_private, Path(config.token_file)),
            )
        except LogUnavailable:
            _check_first(registry.meta(DEPLOYMENT), deployment, config)
            raise
    else:
        deployment = stored.decode()
        root = RootKey.unseal(seal, sealed, deployment, random)
        secrets = _secrets(root)
    snapshot = found(registry, secrets)
    gap = record_gaps(
        registry, journal, epoch=snapshot.epoch, node=config.node, clock=clock, random=random
    )
    forgotten = forget_again(store.log_reader, journal)
    began = -1
    if config.witnesses:
        began = record_start(
            journal, epoch=snapshot.epoch, node=config.node, clock=clock, random=random
        )
    return _Opened(store, root, secrets, deployment, snapshot, gap, forgotten, began)


def _check_first(found: bytes | None, deployment: str, config: VaultConfig) -> None:
    """Whether another node made the deployment at the same moment.

    Raises:
        StartupError: it did; what this one made for its own opens nothing.
    """
    if found is None or found.decode() == deployment:
        return
    Path(config.token_file).unlink(missing_ok=True)
    raise StartupError(
        "another node has made its deployment in this database at the same moment",
        hint=f"Put that node's seal in the place of {config.seal_file}, which opens nothing, and"
        " start this one again",
    )


def _secrets(root: RootKey) -> VaultSecrets:
    return VaultSecrets(
        root.derive(b"handles"), root.derive(b"registry"), root.derive(b"fingerprints")
    )


def _base(
    config: VaultConfig,
    opened: _Opened,
    custody: Custody,
    protections: dict[str, str],
) -> Base:
    return Base(
        registry=opened.store.registry,
        journal=opened.store.journal,
        log_reader=opened.store.log_reader,
        watch=opened.store.watch,
        url=config.url,
        custody=custody,
        secrets=opened.secrets,
        clock=SystemClock(),
        random=SystemRandom(),
        snapshot=opened.snapshot,
        deployment=opened.deployment,
        node=config.node,
        protections=protections,
        anchors=AnchorConfig(
            file=AnchorFile(Path(config.anchor)) if config.anchor else None,
            published=AnchorFile(Path(config.log) / CHECKPOINT) if config.log else None,
            witnesses=tuple(map(parse_vkey, config.witnesses)),
            quorum=config.quorum,
        ),
        began=opened.began,
    )


async def _serve_vault(config: VaultConfig, opened: _Opened, protections: dict[str, str]) -> None:
    custody = SoftwareCustody(opened.root, SystemRandom())
    vault = wire(_base(config, opened, custody, protections))
    vault.standing.count("gap_uses", "", opened.gap)
    vault.committer.start()
    if vault.following is not None:
        vault.following.start()
    server = await listen(vault.service, config.socket)
    stop = _stop_event()
    gc.collect()
    gc.freeze()  # what start-up made lives as long as the process: keep it out of collections
    report_ready(
        deployment=opened.deployment,
        keys=len(opened.snapshot.keys),
        gap_uses=opened.gap,
        waiting=[str(error) for error in vault.standing.reasons()],
        forgotten_again=opened.forgotten,
    )
    await stop.wait()
    server.close()
    await vault.close()
    custody.close()
    opened.store.close()


def _run_vault(config: VaultConfig) -> None:
    configure_logs(None)
    protections = harden()
    os.umask(0o077)
    opened = _open_deployment(config, SystemClock(), SystemRandom())
    protections |= {
        "seal": "file: for development; who copies seal and registry has the keys",
        "database": opened.store.protection(),
    }
    Path(config.socket).unlink(missing_ok=True)  # of a node that was killed; the lock is ours
    uvloop.run(_serve_vault(config, opened, protections))


# --- the other roles -----------------------------------------------------------------------------


def _run_migrate(config: MigrateConfig) -> None:
    os.umask(0o077)
    report_ready(schema=migrate(config.database, config.node))


def _run_front(config: FrontConfig) -> None:
    from keystead.front.serve import run  # noqa: PLC0415  only this role loads the HTTP server

    run(config)


def _run_steward(config: StewardConfig) -> None:
    from keystead.steward.serve import run  # noqa: PLC0415  only this role loads the HTTP client

    run(config)


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _child(role: str, config_json: str) -> None:
    """Run one child process."""
    die_with_parent()
    data = config_json.encode()
    match role:
        case "vault":
            _run_vault(msgspec.json.decode(data, type=VaultConfig))
        case "migrate":
            _run_migrate(msgspec.json.decode(data, type=MigrateConfig))
        case "front":
            _run_front(msgspec.json.decode(data, type=FrontConfig))
        case "steward":
            _run_steward(msgspec.json.decode(data, type=StewardConfig))


def main(arguments: list[str] | None = None) -> int:
    """Run a role; gives the exit status: 0 done, 3 cannot start."""
    parser = argparse.ArgumentParser(prog="keystead.app")
    parser.add_argument("role", choices=("up", "vault", "migrate", "front", "steward"))
    parser.add_argument("--config-json", required=True)
    chosen = parser.parse_args(arguments)
    if chosen.role == "up":
        options = msgspec.json.decode(chosen.config_json.encode(), type=NodeOptions)
        return asyncio.run(run_node(options))
    try:
        _child(chosen.role, chosen.config_json)
    except (StartupError, KeysteadError) as exc:
        report_error(exc)
        return _UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
