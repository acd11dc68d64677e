"""The steward's loop: once a second, check what was recorded and have the vault tend to itself."""

from __future__ import annotations

import asyncio

import structlog

from keystead.errors import KeysteadError
from keystead.frames.messages import Refused, Tend
from keystead.net.link import VaultLink
from keystead.ports import Registry
from keystead.steward.publishing import Publisher
from keystead.steward.watch import RecordWatch

__all__ = ["make_rounds"]

_ROUND_S = 1.0
_ROWS = 500
"""Records that a patrol looks at again a round, from the first on; each was looked at, too, when it
was published."""
_UNTOLD_MAX = 1_000
"""Findings kept for a vault that is away; past it the log alone has them."""


async def make_rounds(
    link: VaultLink, registry: Registry, stop: asyncio.Event, publisher: Publisher | None = None
) -> None:
    """Make rounds until stopped. A vault that is away is waited for; nothing unsafe follows.

    ``publisher``: whose findings are told, too.
    """
    log = structlog.get_logger("steward")
    watch = RecordWatch()
    untold: list[str] = []  # the watch does not look at a record twice
    while not stop.is_set():
        try:
            findings = watch.check(registry.entries_from(watch.next_seq, _ROWS))
            for finding in findings:
                log.error("invariant", finding=finding)
            if publisher is not None:
                findings, publisher.findings = findings + publisher.findings, []
            untold = (untold + findings)[:_UNTOLD_MAX]
            told = (
                Tend(link.take_id(), tuple(untold))
                if publisher is None
                else publisher.telling(untold)
            )
            answer = await link.call(told)
            if isinstance(answer, Refused):
                log.warning("refused", code=answer.code, message=answer.message)
            else:
                untold = []
        except KeysteadError as exc:
            log.warning("round", error=str(exc))
        await _pause(stop, publisher)


async def _pause(stop: asyncio.Event, publisher: Publisher | None) -> None:
    """Until the next round; a vault that waits for its witnesses is told at once."""
    waits = [asyncio.ensure_future(stop.wait())]
    if publisher is not None:
        waits.append(asyncio.ensure_future(publisher.news.wait()))
    await asyncio.wait(waits, timeout=_ROUND_S, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if publisher is not None:
        publisher.news.clear()
