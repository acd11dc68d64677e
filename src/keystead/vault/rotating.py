"""Rollouts in the vault: begun, moved on by the steward's rounds, steered by a person.

What moves is decided by ``keys.rollout.machine``, here on the state as it stands, and again inside
the commit, on the state as it is there. Who asks for a round could be anyone: it carries nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import msgspec
import structlog

from keystead import limits
from keystead.differences import Difference
from keystead.errors import (
    Conflict,
    KeysteadError,
    NotFound,
    StateRolledBack,
)
from keystead.keys.administration import check_algorithm, check_reason
from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.caching import check_drain, check_overlap, kept_ms
from keystead.keys.rollout.commands import (
    EvidenceInfo,
    ReportInfo,
    RolloutInfo,
    RotateKey,
    SteerRollout,
)
from keystead.keys.rollout.differ import algorithm_differences, plan_differences
from keystead.keys.rollout.gates import Signals, failed
from keystead.keys.rollout.machine import Decision, begin, decide
from keystead.keys.rollout.model import (
    GateFigure,
    Rollout,
    Rotation,
    Status,
    Step,
    live,
    rotation_of,
)
from keystead.keys.rollout.plan import Plan, check_plan, check_rotates, default_plan
from keystead.keys.rollout.table import ROLLOUT, Asked, Wish
from keystead.keys.rollout.view import rollout_info
from keystead.keys.standing import check_not_stopped, is_stopped
from keystead.ports import Clock, Registry, Transaction
from keystead.translog.entries import Draft
from keystead.vault.authority import Snapshot, key_row, rotation_row
from keystead.vault.committer import Applied, Change, Committed, Committer
from keystead.vault.counters import uses_of
from keystead.vault.faults import fault
from keystead.vault.histories import Histories
from keystead.vault.leading import Leading
from keystead.vault.macs import VaultSecrets
from keystead.vault.making import KeyMaker, Made
from keystead.vault.policies import check_said, told
from keystead.vault.reports import Reports
from keystead.vault.reservations import Reservations
from keystead.vault.signals import VersionSignals
from keystead.vault.standing import Standing

__all__ = ["Rotating", "plan_in_force", "starts"]

_DETAIL_CHARS = 400
_WATCH_S = 1.0
_ALONE_MS = 3_000
"""Rounds come once a second; after so long without one the vault looks by itself."""
_SLICE = 100
"""Rollouts that are evaluated at a time: some milliseconds of the loop."""
_STOPS = frozenset({"rolled back", "halted"})

Apply = Callable[[Transaction, Snapshot, int, int], Applied]


class Rotating:
    """All methods run on the loop, but what is named ``apply``: that runs in the commit."""

    def __init__(  # noqa: PLR0913  what a rollout is decided on, and where it goes
        self,
        *,
        standing: Standing,
        registry: Registry,
        secrets: VaultSecrets,
        committer: Committer,
        reservations: Reservations,
        maker: KeyMaker,
        signals: VersionSignals,
        reports: Reports,
        leading: Leading,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._leading = leading
        self._standing = standing
        self._registry = registry
        self._secrets = secrets
        self._committer = committer
        self._reservations = reservations
        self._maker = maker
        self._signals = signals
        self._reports = reports
        self._clock = clock
        self._loop = loop
        self._now_ms, self._read_ms = clock.now_ms(), clock.boottime_ms()
        self._ticked_ms = clock.boottime_ms()
        self._watching: asyncio.TimerHandle | None = None
        self._moving: set[str] = set()
        self._attended: tuple[str, ...] = ()
        self._counted = standing.snapshot.epoch
        self._log = structlog.get_logger("vault")

    def now_ms(self) -> int:
        """The wall clock, but from one reading to the next never faster than boot time passes.

        So one that is set forward cuts no overlap short (I12), nor one that was behind when a stage
        began, and is set right.
        """
        boot_ms = self._clock.boottime_ms()
        self._now_ms = min(self._clock.now_ms(), self._now_ms + boot_ms - self._read_ms)
        self._read_ms = boot_ms
        return self._now_ms

    # --- beginning ---------------------------------------------------------------------------

    def make(self, command: RotateKey, key: Key) -> asyncio.Future[Made]:
        """Check what is asked for, and make the next version in a thread.

        Raises:
            MalformedRequest, AlgorithmForbidden, Conflict, KeyStateError: it cannot be.
            ApprovalRequired: its plan is weaker than the one in force, and nobody said so.
        """
        check_reason(command.reason)
        rotation = rotation_of(self._standing.snapshot.rotations.get(key.id), key.id)
        algorithm = command.algorithm or key.primary_version().algorithm
        check_rotates(key)
        check_algorithm(key.purpose, algorithm, prehashed=key.prehashed)
        plan = command.plan or self._plan_for(rotation, key, incident=command.incident)
        self._check(command, key, rotation, plan, algorithm)
        under_way = live(rotation)
        if under_way is not None and under_way.status is not Status.HALTED:
            raise Conflict(
                f"rollout {under_way.number} of {key.name} is under way, at {under_way.stage}",
                hint="Let it end, or roll it back; `keystead key status` shows it",
            )
        return self._made(key, algorithm)

    def _check(
        self, command: RotateKey, key: Key, rotation: Rotation, plan: Plan, algorithm: str
    ) -> tuple[Difference, ...]:
        """Hold what is asked for to the key as it is: now, and again in the commit.

        Gives how it differs from what was in force; what an incident's own plan leaves out is told,
        and asks nobody.
        """
        check_plan(plan, key)
        check_overlap(plan, key, rotation, self.now_ms())
        check_drain(plan, key, rotation, self.now_ms())
        usual = self._plan_for(rotation, key, incident=command.incident)
        other = algorithm_differences(key.primary_version().algorithm, algorithm)
        check_said((*_differing(usual, plan), *other), "rollout", weaker=command.weaker)
        return (*_differing(plan_in_force(rotation, key), plan), *other)

    def _plan_for(self, rotation: Rotation, key: Key, *, incident: bool) -> Plan:
        """An incident does not wait for a plan that was made for quiet days, but for readers."""
        if not incident:
            return plan_in_force(rotation, key)
        plan = default_plan(key, incident=True)
        now_ms = self.now_ms()
        overlap = max(plan.publish.overlap_ms, kept_ms(key, rotation, now_ms))
        drain = max(plan.drain.length_ms, rotation.signed_until_ms - now_ms)
        return msgspec.structs.replace(
            plan,
            publish=msgspec.structs.replace(plan.publish, overlap_ms=overlap),
            drain=msgspec.structs.replace(plan.drain, length_ms=drain),
        )

    def _made(self, key: Key, algorithm: str) -> asyncio.Future[Made]:
        tenant_key = self._maker.tenant_key(key.tenant)
        return self._loop.run_in_executor(None, self._maker.make_next, key, algorithm, tenant_key)

    def apply_begin(self, made: Made, command: RotateKey, draft: Draft, now_ms: int) -> Apply:
        """The change that starts a rollout with a version that was made.

        While it was made, the key's plan and policy may have changed: all is checked again.
        """

        def apply(tx: Transaction, snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
            key = snapshot.key(made.key.id)
            rotation = rotation_of(snapshot.rotations.get(key.id), key.id)
            asked = Asked(
                wish=Wish.TICK,
                now_ms=now_ms,
                epoch=epoch,
                by=draft.principal or ROLLOUT,
                reason=command.reason,
            )
            plan = command.plan or self._plan_for(rotation, key, incident=command.incident)
            differing = self._check(command, key, rotation, plan, made.version.algorithm)
            decision = begin(rotation, key, made.version, plan, asked, incident=command.incident)
            tx.put_material(key.id, made.version.number, made.material.sealed)
            detail = f"not as was in force, {told(differing)}" if differing else ""
            described = msgspec.structs.replace(draft, detail=detail)
            return self._applied(tx, key, rotation, decision, described)

        return apply

    # --- steering ----------------------------------------------------------------------------

    def apply_steer(self, command: SteerRollout, draft: Draft) -> Apply:
        """The change that a person asks for. What it comes to is decided in the commit.

        Raises:
            MalformedRequest: no reason. LogUnavailable: the store does not answer.
        """
        check_reason(command.reason)
        key = self._standing.snapshot.named(command.name)
        rollout = live(self._standing.snapshot.rotations.get(key.id))
        signals = Signals() if rollout is None else self.signals(key, rollout)
        now_ms = self.now_ms()

        def apply(tx: Transaction, snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
            key = snapshot.named(command.name)
            rotation = rotation_of(snapshot.rotations.get(key.id), key.id)
            asked = Asked(
                wish=Wish(command.move),
                now_ms=now_ms,
                epoch=epoch,
                by=draft.principal,
                reason=command.reason,
            )
            decision = decide(rotation, key, asked, signals)
            if decision is None:
                raise Conflict("nothing came of it", hint="`keystead key status` shows why")
            return self._applied(tx, key, rotation, decision, draft)

        return apply

    # --- following ---------------------------------------------------------------------------

    def follow(self, snapshot: Snapshot) -> None:
        """Watch what the rollouts of this snapshot are judged by, and count how they moved."""
        self._signals.follow(snapshot)
        self._attended = tuple(
            key_id
            for key_id, rotation in snapshot.rotations.items()
            if live(rotation) is not None or _is_scheduled(rotation)
        )
        for rotation in snapshot.rotations.values():
            if rotation.epoch <= self._counted or rotation.rollout is None:
                continue
            step = rotation.rollout.steps[-1]
            if step.epoch != rotation.epoch:
                continue  # its plan was changed
            self._standing.count("rollout_steps", step.event.replace(" ", "_"))
            for trigger in _triggers(step):
                self._standing.count("rollout_failures", trigger)
        self._counted = snapshot.epoch

    # --- rounds ------------------------------------------------------------------------------

    def watch(self) -> None:
        """Look once a second whether rounds come; without any, only what has failed is stopped.

        A steward that is away holds up what goes on, and never what must go back.
        """
        self._watching = self._loop.call_later(_WATCH_S, self.watch)
        if self._clock.boottime_ms() - self._ticked_ms > _ALONE_MS:
            self._evaluate(stops_only=True)

    def close(self) -> None:
        """Watch no more."""
        if self._watching is not None:
            self._watching.cancel()

    def tick(self) -> None:
        """One evaluation of every rollout that is under way, and of every schedule.

        Only the leader's moves one on. What this node sees fail it stops, whoever leads.
        """
        self._ticked_ms = self._clock.boottime_ms()
        self._evaluate(stops_only=not self._leading.leads)

    def _evaluate(self, *, stops_only: bool) -> None:
        if self._standing.tampered is not None:
            return
        self._evaluate_some(self._attended, stops_only)

    def _evaluate_some(self, key_ids: tuple[str, ...], stops_only: bool) -> None:  # noqa: FBT001  by call_soon
        """A slice of them, and the rest after what waits on the loop."""
        snapshot, now_ms = self._standing.snapshot, self.now_ms()
        for key_id in key_ids[:_SLICE]:
            if key_id in self._moving or key_id in snapshot.foreign:
                continue
            try:
                rotation = snapshot.rotations[key_id]
                self._tick(snapshot.key(key_id), rotation, now_ms, stops_only=stops_only)
            except StateRolledBack as found:
                # What it is judged by was altered: as with any other row, nothing is done any more.
                self._standing.tampered = found
                self._standing.count("invariant_violations", "I10")
                return
            except KeysteadError as exc:  # the others go on
                self._log.warning("rollout", key=key_id, error=str(exc))
        if len(key_ids) > _SLICE:
            self._loop.call_soon(self._evaluate_some, key_ids[_SLICE:], stops_only)

    def _tick(self, key: Key, rotation: Rotation, now_ms: int, *, stops_only: bool) -> None:
        rollout = live(rotation)
        # In an emergency nothing goes on, and what has failed still goes back.
        stops_only = stops_only or is_stopped(key.tenant, self._standing.snapshot.stopped)
        if rollout is None:
            due = "" if stops_only else self._scheduled(key, rotation, now_ms)
            if due:
                self._begin_by_itself(key, due)
            return
        signals = self.signals(key, rollout)
        asked = Asked(wish=Wish.TICK, now_ms=now_ms, epoch=self._standing.snapshot.epoch + 1)
        foreseen = decide(rotation, key, asked, signals)
        if foreseen is None or (stops_only and foreseen.step.event not in _STOPS):
            return

        fence = self._leading.fence

        def apply(tx: Transaction, snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
            key = snapshot.key(rotation.key_id)
            if foreseen.step.event not in _STOPS:
                self._leading.check(tx, fence)
                check_not_stopped(key.tenant, snapshot.stopped)
            held = snapshot.rotations[key.id]
            again = msgspec.structs.replace(asked, epoch=epoch)
            decision = decide(held, key, again, signals)
            if decision is None or decision.step.event != foreseen.step.event:
                return Applied()
            return self._applied(tx, key, held, decision, self._draft(key))

        self._change(key.id, apply)

    def _scheduled(self, key: Key, rotation: Rotation, now_ms: int) -> str:
        """Why the next rotation is due now; empty: it is not."""
        schedule = None if rotation.plan is None else rotation.plan.schedule
        if schedule is None or not key.primary or not self._may_begin(key, rotation, now_ms):
            return ""
        starts_ms = starts(key, rotation)
        if starts_ms and now_ms >= starts_ms:
            return f"by its schedule: every {schedule.every_ms // 1000} s"
        if schedule.uses and self.uses_left(key, rotation) == 0:
            return f"by its schedule: after {schedule.uses} uses"
        return ""

    def _may_begin(self, key: Key, rotation: Rotation, now_ms: int) -> bool:
        """Whether a rollout could begin by itself: else a version would be made each round."""
        if _went_back(rotation) or key.purpose is Purpose.AUDIT:
            return False
        if key.primary_version().state is not State.ACTIVE:
            return False  # what a person stopped only a person starts again
        plan = plan_in_force(rotation, key)
        return (
            plan.publish.overlap_ms >= kept_ms(key, rotation, now_ms)
            and plan.drain.length_ms >= rotation.signed_until_ms - now_ms
            and len(key.versions) < limits.KEY_VERSIONS_MAX
        )

    def uses_left(self, key: Key, rotation: Rotation) -> int:
        """Uses until the schedule rotates the key; -1: it does not by uses."""
        schedule = None if rotation.plan is None else rotation.plan.schedule
        if schedule is None or not schedule.uses or _went_back(rotation):
            return -1
        spent = self._registry.spent(uses_of(key.id, key.primary))
        return max(0, schedule.uses - spent)

    def _begin_by_itself(self, key: Key, why: str) -> None:
        command = RotateKey(name=key.name, reason=why)
        future = self._made(key, key.primary_version().algorithm)
        self._moving.add(key.id)
        fence = self._leading.fence

        def made(future: asyncio.Future[Made]) -> None:
            try:
                result = future.result()
            except Exception as exc:  # noqa: BLE001  whatever it is, the next round tries again
                self._moving.discard(key.id)
                self._log.warning("rollout", key=key.id, error=str(fault(exc)))
                return
            draft = msgspec.structs.replace(self._draft(key), reason=why)
            begin = self.apply_begin(result, command, draft, self.now_ms())

            def apply(tx: Transaction, snapshot: Snapshot, epoch: int, seq: int) -> Applied:
                self._leading.check(tx, fence)
                check_not_stopped(key.tenant, snapshot.stopped)
                return begin(tx, snapshot, epoch, seq)

            self._change(key.id, apply)

        future.add_done_callback(made)

    def _change(self, key_id: str, apply: Apply) -> None:
        """Queue a change that nobody waits for; the key is left alone until it is through.

        Best-effort uses pause as long: none is answered by a version that the change stops (I4).
        """
        self._moving.add(key_id)
        self._reservations.freeze()

        def deliver(outcome: tuple[object, Committed] | KeysteadError) -> None:
            self._reservations.thaw()
            self._moving.discard(key_id)
            if isinstance(outcome, KeysteadError):
                self._log.warning("rollout", key=key_id, error=str(outcome))

        self._committer.change(Change(apply, deliver))

    # --- what it is decided on, and what is written ------------------------------------------

    def signals(self, key: Key, rollout: Rollout) -> Signals:
        """All that the rollout is judged by, as it stands.

        Raises:
            LogUnavailable: the store does not answer. StateRolledBack: a report was altered.
        """
        seen = self._signals
        return Signals(
            window_next=seen.window(key.id, rollout.next),
            window_previous=seen.window(key.id, rollout.previous),
            stage_next=seen.stage(key.id, rollout.next),
            stage_previous=seen.stage(key.id, rollout.previous),
            denied=seen.denied_count(key.id),
            reporters=self._reports.reporters(key, rollout),
            acknowledged=self._reports.acknowledged(key, rollout.next),
        )

    def stages(self) -> Counter[str]:
        """How many rollouts are at each stage."""
        under_way = map(live, self._standing.snapshot.rotations.values())
        return Counter(str(rollout.stage) for rollout in under_way if rollout is not None)

    def status(self, key: Key) -> RolloutInfo:
        """How the key's rollout stands.

        Raises:
            LogUnavailable: the store does not answer. StateRolledBack: a report was altered.
        """
        rotation = rotation_of(self._standing.snapshot.rotations.get(key.id), key.id)
        rollout = live(rotation)
        return rollout_info(
            rotation,
            key,
            Signals() if rollout is None else self.signals(key, rollout),
            plan=plan_in_force(rotation, key),
            now_ms=self.now_ms(),
            starts_ms=starts(key, rotation),
            uses_left=self.uses_left(key, rotation),
        )

    def evidence(
        self, key: Key, number: int | None, histories: Histories
    ) -> Callable[[], EvidenceInfo]:
        """What reads the evidence of a rollout: the last one, if none is named.

        Raises:
            NotFound: the key had none.
        """
        rotation = self._standing.snapshot.rotations.get(key.id)
        if rotation is None or rotation.rollout is None:
            raise NotFound(f"key {key.name} had no rollout yet")
        wanted = rotation.rollout.number if number is None else number
        reports = [
            ReportInfo(
                principal=principal,
                seq=said.seq,
                at_ms=said.at_ms,
                version=version.number,
                problem=said.problem,
            )
            for version in key.versions
            for principal, said in self._reports.reported(key, version.number)
        ]
        acknowledged = {
            name
            for version in key.versions
            for name in self._reports.acknowledged(key, version.number)
        }
        return histories.evidence(key, rotation, wanted, reports, acknowledged)

    def _draft(self, key: Key) -> Draft:
        return Draft(
            time_ms=self._clock.now_ms(),
            node=self._standing.node,
            op="",
            outcome="ok",
            request=f"round-{self._clock.now_ms()}",
            key=key.id,
            name=key.name,
            purpose=str(key.purpose),
            tenant=key.tenant,
        )

    def _applied(
        self,
        tx: Transaction,
        key: Key,
        rotation: Rotation,
        decision: Decision,
        draft: Draft,
    ) -> Applied:
        for number in decision.destroyed:
            tx.put_material(key.id, number, None)
        rollout = decision.rotation.rollout
        step = decision.step
        draft = msgspec.structs.replace(
            draft,
            op=f"rollout.{step.event.replace(' ', '_')}",
            key=key.id,
            name=key.name,
            purpose=str(key.purpose),
            tenant=key.tenant,
            version=rollout.next if rollout else 0,
            revision=decision.key.revision,
            reason=step.reason or draft.reason,
            detail=draft.detail or _detail(rollout, step.figures),
        )
        return Applied(
            rows=(
                (key_row(decision.key, self._secrets), key.revision),
                (rotation_row(decision.rotation, key.name, self._secrets), rotation.revision),
            ),
            drafts=(draft,),
            value=decision.key,
        )


def plan_in_force(rotation: Rotation | None, key: Key) -> Plan:
    """The plan of the key's next rollout, unless another is given for it."""
    own = None if rotation is None else rotation.plan
    return default_plan(key) if own is None else own


def starts(key: Key, rotation: Rotation) -> int:
    """When the schedule begins the next rotation by time, in Unix milliseconds; 0: it does not."""
    schedule = None if rotation.plan is None else rotation.plan.schedule
    if schedule is None or not schedule.every_ms or _went_back(rotation):
        return 0
    return (rotation.promoted_ms or key.created_ms) + schedule.every_ms


def _is_scheduled(rotation: Rotation) -> bool:
    """Whether the key's plan rotates it by itself."""
    schedule = None if rotation.plan is None else rotation.plan.schedule
    return schedule is not None and bool(schedule.every_ms or schedule.uses)


def _went_back(rotation: Rotation) -> bool:
    """Whether the last rollout was rolled back: the next one is a person's to begin.

    Else a schedule would begin it anew at once, and again, as the old version is still overdue.
    """
    rollout = rotation.rollout
    return rollout is not None and rollout.status is Status.ROLLED_BACK


def _differing(usual: Plan, plan: Plan) -> tuple[Difference, ...]:
    """How a plan for one rollout differs from the usual one; it schedules nothing."""
    return plan_differences(usual, msgspec.structs.replace(plan, schedule=usual.schedule))


def _detail(rollout: Rollout | None, figures: tuple[GateFigure, ...]) -> str:
    if rollout is None:
        return ""
    said = f"{rollout.previous} -> {rollout.next}, {rollout.stage}, {rollout.status}"
    gates = "".join(
        f"; {figure.gate} {figure.verdict} {figure.value}/{figure.limit}"
        for figure in figures
        if figure.verdict != "off"
    )
    return (said + gates)[:_DETAIL_CHARS]


def _triggers(step: Step) -> list[str]:
    """What set off a rollout's going back, or its halt."""
    if step.event not in _STOPS:
        return []
    if step.by != ROLLOUT:
        return ["person"]
    return [figure.gate for figure in failed(step.figures)] or ["state"]
