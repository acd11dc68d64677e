"""Reports and acknowledgements of relying parties on their way to the commit."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from keystead import limits
from keystead.encoding import DECODE_ERRORS
from keystead.errors import InvariantViolation, KeyStateError
from keystead.keys.framing.base import CounterStep, Result
from keystead.keys.model import Key
from keystead.keys.rollout.model import Rollout
from keystead.keys.rollout.reports import (
    Acknowledge,
    AcknowledgeResult,
    Cited,
    Report,
    ReportFailure,
    ReportResult,
    acknowledged_name,
    acknowledged_version,
    check_cited,
    check_named,
    report_name,
    report_prefix,
    since_epoch,
)
from keystead.ports import Clock, Registry
from keystead.vault.counters import ExpectedCounters
from keystead.vault.macs import VaultSecrets
from keystead.vault.running import Running

__all__ = ["Reports"]

_REPORT = msgspec.msgpack.Decoder(Report)


_KNOWN_MS = 5_000
"""How long what was read of a key is relied on: other nodes write to the same registry."""


class _Known(NamedTuple):
    """What was read of a key, and when (boot time): by prefix, then by principal."""

    read_ms: int
    told: dict[str, dict[str, bytes]]


class Reports:
    """All methods run on the loop."""

    def __init__(
        self,
        registry: Registry,
        secrets: VaultSecrets,
        counters: ExpectedCounters,
        clock: Clock,
        node: str,
    ) -> None:
        self._node = node
        self._registry = registry
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._secrets = secrets
        self._counters = counters

    def take(self, running: Running) -> tuple[bytes, Result]:
        """What is recorded of it, and its result; sets the version it is about, and its step.

        Raises:
            NotFound: it cites no use of this key, or a key id that is none of its.
        """
        key, held = running.key, running.held
        if key is None or held is None:
            raise InvariantViolation("a report was not admitted")
        principal = held.issued.principal
        result: Result
        match running.facts:
            case ReportFailure() as said:
                check_named(said, key)
                number = check_cited(self._cited(said), key, said.seq)
                report = Report(said.seq, running.now_ms, said.problem, running.epoch)
                new = msgspec.msgpack.encode(report)
                counted = self._step(running, report_name(number, principal), new)
                of_node = f" of {said.node}" if said.node else ""
                running.detail = f"cites record {said.seq}{of_node}: {said.problem}"
                result = ReportResult(version=number, counted=counted)
            case Acknowledge() as said:
                check_named(said, key)
                number = acknowledged_version(key, said.kid)
                self._step(running, acknowledged_name(number, principal), b"1")
                running.detail = f"holds {said.kid}"
                result = AcknowledgeResult(version=number)
            case _:
                raise InvariantViolation("facts of no report")
        running.version = key.version(number)
        running.algorithm = running.version.algorithm
        return running.use.facts, result

    def reported(self, key: Key, version: int) -> list[tuple[str, Report]]:
        """Each principal's last report of a version.

        Raises:
            LogUnavailable: the store does not answer. StateRolledBack: one was altered.
            KeyStateError: a newer Keystead wrote one.
        """
        return [
            (principal, _decoded(key, state))
            for principal, state in self._told(key, report_prefix(version)).items()
        ]

    def reporters(self, key: Key, rollout: Rollout) -> int:
        """How many principals' reports of the new version count in its rollout."""
        since = since_epoch(rollout)
        return sum(report.epoch >= since for _, report in self.reported(key, rollout.next))

    def acknowledged(self, key: Key, version: int) -> frozenset[str]:
        """Who has said to hold a version's public part; raises as :meth:`reported`."""
        return frozenset(self._told(key, acknowledged_name(version)))

    def heard(self, key_id: str) -> None:
        """Something was told of a key and has committed: read it again when it is asked for."""
        self._known.pop(key_id, None)

    def _told(self, key: Key, prefix: str) -> dict[str, bytes]:
        """What is stored of each principal, every row held to its MAC; read once, until heard of.

        Rounds ask each second of every rollout that is under way.
        """
        now_ms = self._clock.boottime_ms()
        known = self._known.get(key.id)
        if known is None or now_ms - known.read_ms > _KNOWN_MS:
            if len(self._known) >= limits.HANDLE_CACHE_MAX:
                self._known.clear()
            known = self._known[key.id] = _Known(now_ms, {})
        if prefix not in known.told:
            found = self._registry.counters(key.id, prefix)
            known.told[prefix] = {
                name.removeprefix(prefix): self._secrets.open_counter(key.id, name, state) or b""
                for name, state in found.items()
            }
        return known.told[prefix]

    def _cited(self, said: ReportFailure) -> Cited | None:
        row = self._registry.record_of(said.node or self._node, said.seq)
        if row is None:
            return None
        return Cited(key_id=row.key_id, version=row.version, outcome=row.outcome, operation=row.op)

    def _step(self, running: Running, name: str, new: bytes) -> bool:
        """Whether it is the first of its principal; the last one is kept."""
        key = running.key
        if key is None:
            raise InvariantViolation("a report was not admitted")
        old = self._counters.get(key.id, name)
        running.step = CounterStep(name, old, new)
        running.reading = self._counters.advance(key.id, running.step)
        return old is None


def _decoded(key: Key, state: bytes) -> Report:
    try:
        return _REPORT.decode(state)
    except DECODE_ERRORS:
        raise KeyStateError(
            f"a report of {key.name} was written by a newer Keystead",
            hint="Run the newer Keystead on this node, too",
        ) from None
