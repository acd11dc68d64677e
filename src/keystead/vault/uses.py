"""Uses, in the order of their steps: admit, do, record, commit, and only then answer.

This is the hot path: one pass on the loop without a task, a signature, one queue entry. Algorithms
that are slow run in threads beside it, those with a durable counter in one thread, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

import msgspec

from keystead import limits
from keystead.crypto.signatures import verify
from keystead.encoding import length_prefixed
from keystead.errors import (
    Conflict,
    InvariantViolation,
    KeyStateError,
    KeysteadError,
    LimitExceeded,
    ReplayConflict,
    SignatureInvalid,
)
from keystead.frames.messages import Answer, Receipt, Use
from keystead.keys.algorithms import ALGORITHMS
from keystead.keys.epochs import Candidate
from keystead.keys.framing.base import Framed, Result, Scene
from keystead.keys.framing.data import Derive, Mac, Unwrap, Wrap, WrapResult, subkey_info
from keystead.keys.lifecycle import check_may_process
from keystead.keys.model import Key
from keystead.keys.operations import FRAMINGS
from keystead.keys.purposes import PURPOSES, SIGNALS, Purpose
from keystead.keys.tenants import budget_of
from keystead.keys.use import check_standing
from keystead.ports import Clock, IdempotencyRow, OpenKey, Random
from keystead.translog.entries import SALT_BYTES, commitment
from keystead.vault.admission import Admission
from keystead.vault.buckets import RateBuckets
from keystead.vault.committer import Committed, Committer, Pending
from keystead.vault.counters import ExpectedCounters, uses_of
from keystead.vault.denials import DenialLimiter
from keystead.vault.faults import fault
from keystead.vault.opened import OpenedKeys
from keystead.vault.reports import Reports
from keystead.vault.reservations import Reservations
from keystead.vault.running import Running
from keystead.vault.signals import VersionSignals
from keystead.vault.standing import Standing

__all__ = ["Uses"]

_SECRET_OPERATIONS = frozenset({"unwrap", "derive"})
"""Their results are never stored: a replay runs again (I6)."""
_RETRIES_MAX = 8
_SCENE_RANDOM_BYTES = 32
_RECEIPT = msgspec.msgpack.Decoder(Receipt)


class Uses:
    """Does uses, all on the loop; ``begin`` never raises: every use is answered once."""

    def __init__(  # noqa: PLR0913  the services a use passes through
        self,
        *,
        standing: Standing,
        admission: Admission,
        opened: OpenedKeys,
        counters: ExpectedCounters,
        reservations: Reservations,
        denials: DenialLimiter,
        signals: VersionSignals,
        reports: Reports,
        committer: Committer,
        clock: Clock,
        random: Random,
        executors: tuple[Executor, Executor],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._standing = standing
        self._admission = admission
        self._opened = opened
        self._counters = counters
        self._reservations = reservations
        self._denials = denials
        self._signals = signals
        self._reports = reports
        self._committer = committer
        self._clock = clock
        self._random = random
        self._free, self._ordered = executors
        self._loop = loop
        self._buckets = RateBuckets()
        self._tenants = RateBuckets()  # apart: many handles never push out a tenant's
        self._under_way: dict[tuple[str, str], list[Running]] = {}
        self._prefix = random.bytes(6).hex()
        self._count = 0

    def next_request_id(self) -> str:
        """A name for one request, the vault's own."""
        self._count += 1
        return f"{self._prefix}-{self._count:x}"

    def begin(self, use: Use, reply: Callable[[Answer], None]) -> None:
        """Do one use; ``reply`` is called once, now or later."""
        running = Running(
            use, reply, now_ms=self._clock.now_ms(), request_id=self.next_request_id()
        )
        try:
            self._admission.admit(running)
            stored = self._admission.replay(running)
            if stored is not None:
                self._replay(running, stored)
            elif not self._join(running):
                self._budget(running)
                self._do(running)
        except KeysteadError as refusal:
            self._deny(running, refusal)
        except Exception as exc:  # noqa: BLE001  a fault of ours is answered too, and names no input
            self._deny(running, fault(exc))

    # --- replays -----------------------------------------------------------------------------

    def _replay(self, running: Running, stored: IdempotencyRow) -> None:
        """Give the stored outcome; what is a secret is made again, without a second record (I6)."""
        receipt = _RECEIPT.decode(stored.receipt)
        self._check_replayed(running, receipt)
        if stored.result is not None:
            running.done(receipt, replayed=True, result=stored.result)
            return
        self._budget(running)  # it is work anew, if no use anew: at its rate, not at the wire's
        self._do_again(running, receipt)

    def _do_again(self, running: Running, receipt: Receipt) -> None:
        """Do a use again by the version that did it first, whichever would be chosen now."""
        key, held = running.key, running.held
        if key is None or held is None:
            raise InvariantViolation("a use was not admitted")
        current = self._standing.snapshot
        check_standing(
            held.grant,
            current.key(key.id),
            running.asked.operation,
            receipt.version,
            current.revoked,
            current.rotations.get(key.id),
            stopped=current.stopped,
        )
        running.replay_of = receipt
        running.version = key.version(receipt.version)
        running.algorithm = receipt.algorithm
        self._do(running)

    def _check_replayed(self, running: Running, receipt: Receipt) -> None:
        """What a version gave is not given out again once it was stopped (I6).

        Raises:
            KeyStateError: it is suspended, compromised or destroyed by now.
        """
        if running.key is None or running.asked.operation in SIGNALS or not receipt.version:
            return
        key = self._standing.snapshot.key(running.key.id)
        try:
            check_may_process(key.version(receipt.version).state)
        except KeyStateError as stopped:
            raise KeyStateError(
                f"version {receipt.version} of {key.name} answered this request before;"
                f" {stopped.message}",
                hint="Send it as a new request, under a new idempotency key",
            ) from None

    def _join(self, running: Running) -> bool:
        """Wait for the same request if it is under way; else be the one that others wait for."""
        if running.idempotency is None:
            return False
        scope, key, fingerprint = running.idempotency
        waiting = self._under_way.get((scope, key))
        if waiting is None:
            self._under_way[scope, key] = [running]
            return False
        first = waiting[0].idempotency
        if first is not None and first[2] != fingerprint:
            running.idempotency = None  # it is not the one under way: its refusal ends only itself
            raise ReplayConflict(
                "the idempotency key is in use for another request that is under way",
                hint="Make a new key for each new request",
            )
        waiting.append(running)
        return True

    def _others(self, running: Running) -> list[Running]:
        """Who waited for this use, now that it has an outcome."""
        if running.idempotency is None:
            return []
        scope, key, _ = running.idempotency
        waiting = self._under_way.get((scope, key))
        if not waiting or waiting[0] is not running:
            return []
        del self._under_way[scope, key]
        return waiting[1:]

    # --- doing -------------------------------------------------------------------------------

    def _budget(self, running: Running) -> None:
        if running.held is None or running.key is None:
            return
        now_ms = self._clock.boottime_ms()  # a step of the wall clock fills no bucket
        tenant = running.key.tenant
        rate = budget_of(self._standing.snapshot.tenants.get(tenant))
        self._tenants.take(((tenant, rate),), now_ms, whose=f"the budget of tenant {tenant}")
        if running.held.rates:
            try:
                self._buckets.take(running.held.rates, now_ms)
            except LimitExceeded:
                self._tenants.give_back(tenant)
                raise

    def _do(self, running: Running) -> None:
        key, version = running.key, running.version
        if key is None or version is None:
            raise InvariantViolation("a use was not admitted")
        if running.asked.operation in SIGNALS:
            self._record(running, *self._reports.take(running))
            return
        opened = self._opened.get(key, version)
        work: Callable[[], tuple[bytes, Result]]
        if key.purpose is Purpose.DATA:  # whose facts no framing takes
            work = partial(_do_data, running, opened)
            ordered = False
        else:
            framed = self._frame(running)
            work = partial(_do_sign, running, opened, framed)
            ordered = framed.step is not None
        if self._signals.watches(key.id):
            work = partial(_timed, running, self._clock, work)
        if not ALGORITHMS[running.algorithm].blocking:
            self._record(running, *work())
            return
        self._opened.lend(opened)
        future = self._loop.run_in_executor(self._ordered if ordered else self._free, work)
        future.add_done_callback(partial(self._done_aside, running, opened))

    def _done_aside(
        self, running: Running, opened: OpenKey, future: asyncio.Future[tuple[bytes, Result]]
    ) -> None:
        self._opened.take_back(opened)
        try:
            self._record(running, *future.result())
        except KeysteadError as refusal:
            self._deny(running, refusal)
        except Exception as exc:  # noqa: BLE001  as in begin
            self._deny(running, fault(exc))

    def _frame(self, running: Running) -> Framed:
        key, version = running.key, running.version
        if key is None or version is None:
            raise InvariantViolation("a use was not admitted")
        framing = FRAMINGS[key.purpose, running.asked.operation]
        name = framing.counter_name(running.facts)
        framed = framing.frame(
            running.facts,
            Scene(
                key=key,
                version=version,
                context=running.asked.context,
                now_ms=running.now_ms,
                random=self._random.bytes(_SCENE_RANDOM_BYTES),
                counter=self._counters.get(key.id, name) if name else None,
            ),
        )
        if framed.step is not None:
            running.step = framed.step
            running.reading = self._counters.advance(key.id, framed.step)
        return framed

    # --- recording ---------------------------------------------------------------------------

    def _record(self, running: Running, message: bytes, result: Result) -> None:
        """Queue the record; or, for best-effort uses within a reservation, answer first (I2)."""
        running.result = msgspec.msgpack.encode(result)
        if running.replay_of is not None:
            for each in (running, *self._others(running)):
                each.done(running.replay_of, replayed=True, result=running.result)
            return
        salt = self._random.bytes(SALT_BYTES)
        signed = commitment(salt, message)
        reservation = self._reservation(running)
        if reservation is not None:
            running.ack = "best_effort"
            draft = msgspec.structs.replace(
                running.draft(self._standing.node, signed=signed), reservation=reservation
            )
            running.done(running.receipt(self._standing.node, seq=None, epoch=running.epoch))
            self._standing.count("uses", str(running.asked.purpose))
            self._seen(running)
            self._committer.submit(Pending(draft=draft, salt=salt, deliver=_forget, released=True))
            return
        self._committer.submit(
            Pending(
                draft=running.draft(self._standing.node, signed=signed),
                salt=salt,
                deliver=partial(self._committed, running),
                candidate=self._candidate(running),
                receipt=running.receipt(self._standing.node, seq=None, epoch=running.epoch)
                if running.idempotency
                else None,
                result=None if running.asked.operation in _SECRET_OPERATIONS else running.result,
            )
        )

    def _reservation(self, running: Running) -> str | None:
        key, held, version = running.key, running.held, running.version
        if key is None or held is None or version is None or key.policy.ack != "best_effort":
            return None
        if running.idempotency is not None or held.uses or running.step is not None:
            return None  # these are decided in the commit, so they wait for it
        if running.epoch != self._standing.snapshot.epoch:
            current = self._standing.snapshot
            if current.key(key.id).policy.ack != "best_effort":
                return None
            check_standing(
                held.grant,
                current.key(key.id),
                running.asked.operation,
                version.number,
                current.revoked,
                current.rotations.get(key.id),
                stopped=current.stopped,
            )
        return self._reservations.spend(key.id)

    def _candidate(self, running: Running) -> Candidate:
        key, held, version = running.key, running.held, running.version
        if key is None or held is None or version is None:
            raise InvariantViolation("a use was not admitted")
        budgets = held.uses
        if running.asked.operation == "wrap" or self._is_scheduled(running, key):
            budgets = (*budgets, (uses_of(key.id, version.number), limits.VERSION_USES_MAX))
        return Candidate(
            grant=held.grant,
            key_id=key.id,
            operation=running.asked.operation,
            version=version.number,
            epoch=running.epoch,
            budgets=budgets,
            idempotency=running.idempotency,
            step=running.step,
            revokes=running.asked.revokes,
        )

    def _is_scheduled(self, running: Running, key: Key) -> bool:
        """Whether the key's uses are counted, as its plan rotates it after so many."""
        rotation = self._standing.snapshot.rotations.get(key.id)
        if rotation is None or rotation.plan is None or not rotation.plan.schedule.uses:
            return False
        return running.asked.operation not in SIGNALS

    def _committed(
        self, running: Running, outcome: Committed | IdempotencyRow | KeysteadError
    ) -> None:
        """The commit's answer: release the result, give the stored one, refuse, or do it again."""
        if isinstance(outcome, KeysteadError):
            self._not_committed(running, outcome)
            return
        if isinstance(outcome, IdempotencyRow):
            self._replayed_in_commit(running, outcome)
            return
        self._standing.count("uses", str(running.asked.purpose))
        self._seen(running)
        receipt = running.receipt(self._standing.node, seq=outcome.seq, epoch=outcome.epoch)
        running.done(receipt)
        for waiter in self._others(running):
            waiter.done(receipt, replayed=True, result=running.result)

    def _replayed_in_commit(self, running: Running, outcome: IdempotencyRow) -> None:
        receipt = _RECEIPT.decode(outcome.receipt)
        self._take_back(running)
        try:
            self._check_replayed(running, receipt)
            number = receipt.version if running.version is None else running.version.number
            if outcome.result is None and number != receipt.version:
                self._do_again(running, receipt)  # what it gave just now is another secret
                return
        except KeysteadError as refusal:
            self._deny(running, refusal)
            return
        for each in (running, *self._others(running)):
            each.result = running.result
            each.done(receipt, replayed=True, result=outcome.result)

    def _seen(self, running: Running) -> None:
        """Count a use that is done, where the key's rollout is under way."""
        key, version = running.key, running.version
        if key is not None and running.asked.operation in SIGNALS:
            self._reports.heard(key.id)
        elif running.took_us is not None and key is not None and version is not None:
            self._signals.used(key.id, version.number, running.took_us)

    def _failed(self, running: Running, error: KeysteadError) -> None:
        """Count a use that is refused, where the key's rollout is under way."""
        key = running.key
        if key is None or not self._signals.watches(key.id):
            return
        number = running.version.number if running.version is not None else running.chosen
        if number:
            self._signals.failed(key.id, number, error)
        principal = self._admission.refused_by_next(running, error)
        if principal is not None:
            self._signals.denied(key.id, principal)

    def _due_again(self, running: Running, error: KeysteadError) -> bool:
        """Whether what failed in the commit is due again, as the state has moved on under it.

        A counter that another use has stepped; or a version that a rollout took out of use: the
        one that it puts in its place does the work, and the caller sees nothing of it.
        """
        moved = isinstance(error, KeyStateError) and running.chosen is not None
        stepped = isinstance(error, Conflict) and running.step is not None
        return (moved or stepped) and running.retries < _RETRIES_MAX

    def _take_back(self, running: Running) -> None:
        """Its step did not commit, so that nothing may be framed on it."""
        if running.step is not None and running.key is not None:
            self._counters.forget(running.key.id, running.step.name, running.reading)

    def _not_committed(self, running: Running, error: KeysteadError) -> None:
        self._take_back(running)
        if self._due_again(running, error):
            running.retries += 1
            running.step = None
            try:
                self._admission.admit(running)
                self._do(running)
            except KeysteadError as refusal:
                self._deny(running, refusal)
            except Exception as exc:  # noqa: BLE001  as in begin; others wait behind this answer
                self._deny(running, fault(exc))
            return
        self._standing.count("denials", error.code or "internal")
        self._failed(running, error)
        for each in (running, *self._others(running)):
            each.refuse(error)

    # --- denying -----------------------------------------------------------------------------

    def _deny(self, running: Running, error: KeysteadError) -> None:
        """Refuse; the denial's record is durable first, unless there is a flood of them (I11)."""
        code = error.code or "internal"
        self._take_back(running)
        self._standing.count("denials", code)
        self._failed(running, error)
        everyone = [running, *self._others(running)]
        scope = running.held.grant.body.handle_id if running.held else "(no valid handle)"
        recordable = not isinstance(error, InvariantViolation) and self._standing.tampered is None
        if recordable and self._denials.admit(scope, code, running.now_ms):
            draft = running.draft(self._standing.node, outcome=code)
            salt = self._random.bytes(SALT_BYTES)
            try:
                self._committer.submit(
                    Pending(draft=draft, salt=salt, deliver=partial(_refuse_all, everyone, error))
                )
            except KeysteadError:
                _refuse_all(everyone, error, None)
            return
        _refuse_all(everyone, error, None)


def _refuse_all(everyone: list[Running], error: KeysteadError, _outcome: object) -> None:
    for each in everyone:
        each.refuse(error)


def _forget(_outcome: object) -> None:
    """A released use needs no answer."""


def _timed(
    running: Running, clock: Clock, work: Callable[[], tuple[bytes, Result]]
) -> tuple[bytes, Result]:
    """The work, and how long it took by itself: no wait of the caller's own making counts."""
    began = clock.ticks_us()
    done = work()
    running.took_us = clock.ticks_us() - began
    return done


def _do_sign(running: Running, opened: OpenKey, framed: Framed) -> tuple[bytes, Result]:
    key, version = running.key, running.version
    if key is None or version is None:
        raise InvariantViolation("a use was not admitted")
    signatures = opened.sign(framed.message, prehashed=framed.prehashed)
    if not framed.prehashed and (
        PURPOSES[key.purpose].verify_before_release or key.policy.verify_before_release
    ):
        components = ALGORITHMS[version.algorithm].components
        try:
            for component, spki, signature in zip(
                components, version.public, signatures, strict=True
            ):
                verify(component, spki, framed.message, signature)
        except SignatureInvalid as exc:
            raise InvariantViolation(
                "custody gave a signature that does not verify; it was withheld",
                hint="Suspend the version and check the custody's hardware",
            ) from exc
    return framed.message, framed.finish(signatures)


def _do_data(running: Running, opened: OpenKey) -> tuple[bytes, Result]:
    key, version, facts = running.key, running.version, running.facts
    if key is None or version is None:
        raise InvariantViolation("a use was not admitted")
    context = running.asked.context
    # wrap and unwrap are two directions of one subkey
    operation = "wrap" if running.asked.operation == "unwrap" else running.asked.operation
    info = subkey_info(key.id, version.number, operation, context)
    aad = length_prefixed((version.kid.encode(), context.encode()))
    match facts:
        case Wrap(plaintext=plaintext):
            wrapped: WrapResult = opened.wrap(plaintext, info, aad)
            return wrapped.wrapped.encode(), wrapped
        case Unwrap(wrapped=text):
            return text.encode(), opened.unwrap(text, info, aad)
        case Derive():
            return info + facts.info, opened.derive(facts, info)
        case Mac():
            return facts.message, opened.mac(facts, info)
        case _:
            raise InvariantViolation("facts of no data operation")
