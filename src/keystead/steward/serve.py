"""The steward as a process: its rounds, and the publication of the log."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import uvloop

from keystead.net.link import VaultLink
from keystead.net.logs import configure_logs
from keystead.net.processes import report_ready
from keystead.net.witnesses import Witness
from keystead.steward.config import StewardConfig
from keystead.steward.cosigning import Cosigners
from keystead.steward.publishing import Publisher
from keystead.steward.rounds import make_rounds
from keystead.steward.tree import TreeWriter
from keystead.store.opening import open_registry
from keystead.store.tile_files import TileFiles
from keystead.store.tree_files import TreeFiles
from keystead.translog.notes import parse_vkey

__all__ = ["run"]


def run(config: StewardConfig) -> None:
    """Look after a node until SIGTERM or SIGINT; blocks."""
    configure_logs(None)
    os.umask(0o022)  # the log's files are published
    uvloop.run(_serve(config))


async def _serve(config: StewardConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    link = VaultLink(config.vault_socket)
    # Two connections, as each is used from one thread at a time.
    registry, rows = (open_registry(config.database, config.node) for _ in range(2))
    cosigners = Cosigners(
        [Witness(url, parse_vkey(vkey)) for url, vkey in config.witnesses],
        time.monotonic,
        quorum=config.quorum,
    )
    publisher = None
    if config.log is not None:
        files = TileFiles(Path(config.log))
        publisher = Publisher(link, TreeWriter(rows, TreeFiles(files)), files, cosigners)
    await link.start()
    report_ready()
    publishing = None if publisher is None else asyncio.create_task(publisher.run(stop))
    try:
        await make_rounds(link, registry, stop, publisher)
    finally:
        stop.set()
        if publishing is not None:
            await asyncio.gather(publishing, return_exceptions=True)
        await cosigners.aclose()
        await link.close()
        registry.close()
        rows.close()
