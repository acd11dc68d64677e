"""The steward's loop: once a second, check what was recorded and have the vault tend to itself."""

from __future__ import annotations

import asyncio

import structlog

from keystead.errors import KeysteadError
from keystead.frames.messages import Refused, Tend
from keystead.net.link import VaultLink
from keystead.ports import Registry
from keystead.steward.watch import RecordWatch

__all__ = ["make_rounds"]

_ROUND_S = 1.0
_ROWS = 2_000
"""Records checked a round: keeps up with 2,000 uses a second, and catches up after a burst."""
_UNTOLD_MAX = 1_000
"""Findings kept for a vault that is away; past it the log alone has them."""


async def make_rounds(link: VaultLink, registry: Registry, stop: asyncio.Event) -> None:
    """Make rounds until stopped. A vault that is away is waited for; nothing unsafe follows."""
    log = structlog.get_logger("steward")
    watch = RecordWatch()
    number = 0
    untold: list[str] = []  # the watch does not look at a record twice
    while not stop.is_set():
        try:
            findings = watch.check(registry.records_from(watch.next_seq, _ROWS))
            for finding in findings:
                log.error("invariant", finding=finding)
            untold = (untold + findings)[:_UNTOLD_MAX]
            number += 1
            answer = await link.call(Tend(number, tuple(untold)))
            if isinstance(answer, Refused):
                log.warning("refused", code=answer.code, message=answer.message)
            else:
                untold = []
        except KeysteadError as exc:
            log.warning("round", error=str(exc))
        try:
            await asyncio.wait_for(stop.wait(), timeout=_ROUND_S)
        except TimeoutError:
            continue
