"""What the steward's rounds have the vault do, and what the vault tells of itself."""

from __future__ import annotations

from functools import partial

import msgspec

from keystead.errors import KeysteadError, LogUnavailable, StateRolledBack
from keystead.frames.messages import Metric, NodeView, StatusInfo, Tend
from keystead.keys.standing import EVERYTHING
from keystead.ports import Clock, EpochRow, Random, Registry, Transaction
from keystead.translog.entries import SALT_BYTES, Draft
from keystead.vault.anchors import Anchors
from keystead.vault.authority import Snapshot, load
from keystead.vault.committer import Applied, Change, Committed, Committer, Pending
from keystead.vault.denials import DenialLimiter
from keystead.vault.leading import Leading
from keystead.vault.macs import VaultSecrets
from keystead.vault.opened import OpenedKeys
from keystead.vault.reservations import Reservations
from keystead.vault.rotating import Rotating
from keystead.vault.standing import Standing

__all__ = ["Tending", "encode_status"]

_PRUNE_ROWS = 250
"""Expired outcomes that one commit drops: some 15 ms, as the rows lie scattered."""
_PRUNE_ROWS_A_ROUND = 2_500
_VERIFY_EVERY_MS = 30_000
_INVARIANTS = tuple(f"I{number}" for number in range(1, 13))


class Tending:
    """Rounds and status. All methods run on the loop."""

    def __init__(  # noqa: PLR0913  it looks after all of these
        self,
        *,
        standing: Standing,
        secrets: VaultSecrets,
        registry: Registry,
        committer: Committer,
        reservations: Reservations,
        denials: DenialLimiter,
        opened: OpenedKeys,
        anchors: Anchors,
        rotating: Rotating,
        leading: Leading,
        clock: Clock,
        random: Random,
        protections: dict[str, str],
    ) -> None:
        self._standing = standing
        self._secrets = secrets
        self._registry = registry
        self._committer = committer
        self._reservations = reservations
        self._denials = denials
        self._opened = opened
        self._anchors = anchors
        self._rotating = rotating
        self._leading = leading
        self._clock = clock
        self._random = random
        self._protections = protections
        self._prune_left = 0
        self._started_ms = clock.now_ms() - clock.boottime_ms()
        self._verified_ms = clock.boottime_ms()

    def tend(self, request: Tend) -> dict[str, int]:
        """One round: close reservations, prune, verify the registry, write denial summaries."""
        now = self._clock.boottime_ms()
        for finding in request.findings:
            named = finding.partition(" ")[0]  # a finding begins with its invariant
            known = named if named in _INVARIANTS else "unknown"
            self._standing.count("invariant_violations", known)
        self._reservations.tend()
        self._anchors.told(request.cosigned, request.witnesses, request.behind)
        if self._standing.unanchored is not None:
            self._anchors.look()
        self._summarise()
        self._leading.renew()
        self._rotating.tick()
        if self._leading.leads:
            pruning, self._prune_left = self._prune_left, _PRUNE_ROWS_A_ROUND
            if not pruning:
                self._prune()
        if now - self._verified_ms >= _VERIFY_EVERY_MS:
            self._verified_ms = now
            self.verify_registry()
        return {"last_seq": self._registry.last_sequence()}

    def _prune(self) -> None:
        """Drop a few expired outcomes, and more once they are gone: uses commit in between.

        By whichever clock is behind: one that is set forward for a while must not make the vault
        forget what it did, or a repeated request would have a second effect (I6).
        """
        now_ms = min(self._clock.now_ms(), self._started_ms + self._clock.boottime_ms())

        def deliver(outcome: tuple[object, Committed] | KeysteadError) -> None:
            gone = 0 if isinstance(outcome, KeysteadError) else outcome[0]
            self._prune_left = self._prune_left - _PRUNE_ROWS if gone == _PRUNE_ROWS else 0
            if self._prune_left > 0:
                self._prune()

        self._committer.change(Change(partial(_drop_expired, now_ms), deliver, "shared"))

    def verify_registry(self) -> None:
        """Hold every authority row to its MAC and all to the epoch's digest; stop work if not."""
        try:
            epoch = self._registry.epoch()
            found = self._look(epoch)
            # The reads may straddle a commit: the epoch tells, and the next round looks again.
            if found is not None and self._registry.epoch() == epoch:
                self._standing.tampered = found
                self._standing.count("invariant_violations", "I10")
        except LogUnavailable:
            return  # the store does not answer: the commits tell of it

    def _look(self, epoch: EpochRow | None) -> StateRolledBack | None:
        try:
            snapshot = load(self._registry.objects(), epoch, self._secrets)
        except StateRolledBack as found:
            return found
        seen = self._standing.snapshot.epoch
        if snapshot.epoch >= seen:
            return None
        return StateRolledBack(
            f"the registry is at epoch {snapshot.epoch}, this vault has seen {seen}: an older copy"
            " was put back under it",
            hint="Stop the node and restore the registry that was there",
        )

    def finish(self) -> None:
        """At the end: close reservations, write the last summaries."""
        self._reservations.close()
        self._summarise(ending=True)

    def _summarise(self, *, ending: bool = False) -> None:
        now_ms = self._clock.now_ms()
        for scope, code, count in self._denials.summaries(now_ms, ending=ending):
            draft = Draft(
                time_ms=now_ms,
                node=self._standing.node,
                op="denials.summary",
                outcome=code,
                request=f"summary-{now_ms}",
                handle=scope,
                count=count,
                detail="refusals beyond those recorded one by one in their minute",
            )
            # Released: a flood that fills the queue must not drown what tells of it, nor a commit
            # that fails; what it counts is counted nowhere else any more.
            salt = self._random.bytes(SALT_BYTES)
            self._committer.submit(Pending(draft=draft, salt=salt, deliver=_ignore, released=True))

    def status(self) -> StatusInfo:
        """How the vault is."""
        standing = self._standing
        reasons = tuple(str(error) for error in standing.reasons())
        return StatusInfo(
            ready=not reasons,
            reasons=reasons,
            deployment=standing.deployment,
            node=standing.node,
            epoch=standing.snapshot.epoch,
            last_seq=self._registry.last_sequence(),
            keys=len(standing.snapshot.keys),
            protections=self._protections
            | {"anchor": self._anchors.protection()}
            | _emergency(standing.snapshot),
            metrics=tuple(self._metrics()),
            nodes=tuple(self._nodes()),
        )

    def _nodes(self) -> list[NodeView]:
        """The deployment's nodes; a row that none of them wrote is left out, and counts."""
        found: list[NodeView] = []
        for row in self._registry.nodes():
            try:
                self._secrets.check_node(row)
            except StateRolledBack:
                self._standing.count("invariant_violations", "I10")
                continue
            leads = row.node == self._leading.leader
            found.append(NodeView(node=row.node, epoch=row.seen_epoch, leads=leads, url=row.url))
        return found

    def _metrics(self) -> list[Metric]:
        standing, committer = self._standing, self._committer
        gauges = (
            ("keystead_vault_queue", "Uses waiting for their record.", committer.waiting),
            ("keystead_vault_opened_keys", "Versions whose material is open.", len(self._opened)),
            ("keystead_vault_keys", "Keys in the registry.", len(standing.snapshot.keys)),
            ("keystead_vault_epoch", "The epoch.", standing.snapshot.epoch),
            (
                "keystead_vault_emergency_stops",
                "Emergency stops in force.",
                len(standing.snapshot.stopped),
            ),
            ("keystead_vault_leads", "Whether this node leads.", int(self._leading.leads)),
        )
        counters = (
            ("keystead_vault_commits", "Durable commits.", committer.commits),
            ("keystead_vault_records", "Records made durable.", committer.records),
        )
        found = [Metric(name, "gauge", text, {}, float(value)) for name, text, value in gauges]
        found += [Metric(name, "counter", text, {}, float(value)) for name, text, value in counters]
        for stage, under_way in sorted(self._rotating.stages().items()):
            text = "Rollouts under way, by stage."
            found.append(
                Metric("keystead_rollouts", "gauge", text, {"stage": stage}, float(under_way))
            )
        for (name, label), value in standing.counters.items():
            family, text, key = _FAMILIES[name]
            found.append(Metric(family, "counter", text, {key: label}, float(value)))
        for invariant in _INVARIANTS:
            if ("invariant_violations", invariant) not in standing.counters:
                family, text, key = _FAMILIES["invariant_violations"]
                found.append(Metric(family, "counter", text, {key: invariant}, 0.0))
        return found


_FAMILIES = {
    "gap_uses": ("keystead_vault_gap_uses", "Best-effort uses without a record (I2).", "node"),
    "uses": ("keystead_vault_uses", "Uses done, by purpose.", "purpose"),
    "denials": ("keystead_vault_denials", "Uses and commands refused, by code.", "code"),
    "changes": ("keystead_vault_changes", "Changes of authority, by action.", "action"),
    "rollout_steps": (
        "keystead_rollout_steps",
        "Stages that rollouts came to, and how they ended, by step.",
        "step",
    ),
    "rollout_failures": (
        "keystead_rollout_failures",
        "Rollouts that went back or halted, by what set it off.",
        "trigger",
    ),
    "reconcile_unrecorded": (
        "keystead_reconcile_unrecorded",
        "Artefacts that verify under a key and have no record, by key.",
        "key",
    ),
    "invariant_violations": (
        "keystead_invariant_violations",
        "Invariants found violated; anything but 0 is an incident.",
        "invariant",
    ),
}


def _emergency(snapshot: Snapshot) -> dict[str, str]:
    """Whether an emergency stop is in force; whose, operators are told: anyone may read this."""
    if not snapshot.stopped:
        return {}
    count = len(snapshot.stopped)
    what = "all tenants" if EVERYTHING in snapshot.stopped else f"{count} tenant{'s'[: count > 1]}"
    return {"emergency": f"stopped: {what}"}


def _drop_expired(
    now_ms: int, tx: Transaction, _snapshot: Snapshot, _epoch: int, _seq: int
) -> Applied:
    gone = tx.prune_idempotent(now_ms, _PRUNE_ROWS)
    return Applied(value=gone, pruned=gone > 0)


def _ignore(_outcome: tuple[object, Committed] | object) -> None:
    """Nobody waits for this."""


def encode_status(info: StatusInfo) -> bytes:
    """The status as an answer's result."""
    return msgspec.msgpack.encode(info)
