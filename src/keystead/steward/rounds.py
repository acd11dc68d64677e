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


async def make_rounds(link: VaultLink, registry: Registry, stop: asyncio.Event) -> None:
    """Make rounds until stopped. A vault that is away is waited for; nothing unsafe follows."""
    log = structlog.get_logger("steward")
    watch = RecordWatch()
    number = 0
    while not stop.is_set():
        try:
            findings = watch.check(registry.records_from(watch.next_seq, _ROWS))
            for finding in findings:
                log.error("invariant", finding=finding)
            number += 1
            answer = await link.call(Tend(number, tuple(findings)))
            if isinstance(answer, Refused):
                log.warning("refused", code=answer.code, message=answer.message)
        except KeysteadError as exc:
            log.warning("round", error=str(exc))
        try:
            await asyncio.wait_for(stop.wait(), timeout=_ROUND_S)
        except TimeoutError:
            continue
