"""Admin commands: who asks, may they, then one change in one commit under the next epoch."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial

import msgspec

from keystead.errors import (
    Conflict,
    InvariantViolation,
    KeysteadError,
    LogUnavailable,
    MalformedRequest,
    Unauthenticated,
)
from keystead.frames.messages import Admin as AdminRequest
from keystead.frames.messages import Receipt
from keystead.keys.administration import check_reason
from keystead.keys.caveats import Caveat, NotAfter
from keystead.keys.commands import (
    Command,
    CountRecords,
    CreateKey,
    DiscloseRecord,
    ForgetRecords,
    GoOn,
    IssuedHandle,
    IssueHandle,
    LimitTenant,
    ListKeys,
    ListRecords,
    ListTenants,
    MoveVersion,
    ReconcileRecords,
    RevokeHandle,
    RevokeKeyHandles,
    ShowHandle,
    ShowKey,
    WentOn,
)
from keystead.keys.emergency import starts_in
from keystead.keys.handles import Body, issue
from keystead.keys.model import Key, Principal, check_name
from keystead.keys.narrowing import caveats_of
from keystead.keys.purposes import PURPOSES
from keystead.keys.rollout.commands import (
    ChangePolicy,
    ListHistory,
    RotateKey,
    SetPlan,
    ShowEvidence,
    ShowRollout,
    SteerRollout,
)
from keystead.keys.standing import check_not_stopped
from keystead.keys.stops import (
    EmergencyEnd,
    EmergencyStop,
    PreviewRevoke,
    Revoke,
    ShowEmergency,
)
from keystead.keys.tenants import budget_of, limited, weakened
from keystead.ports import Clock, Guard, HandleRow, Random, Registry, Transaction
from keystead.translog.entries import SALT_BYTES, Draft
from keystead.vault.acknowledging import Acknowledgements
from keystead.vault.anchors import Anchors
from keystead.vault.asking import Reply, Request, decode_command, tag_of
from keystead.vault.authority import Snapshot, object_row
from keystead.vault.committer import Applied, Change, Committed, Committer, Pending
from keystead.vault.describe import key_info, tenant_info
from keystead.vault.faults import fault
from keystead.vault.histories import Histories
from keystead.vault.logbook import Inquiry, Logbook
from keystead.vault.macs import VaultSecrets
from keystead.vault.making import KeyMaker, Made, commit_made
from keystead.vault.policies import apply_plan, apply_policy
from keystead.vault.previewing import Previews
from keystead.vault.readings import Readings
from keystead.vault.repeats import Repeats
from keystead.vault.reservations import Reservations
from keystead.vault.revoking import Halt, Revoking, StopCommand, halt, timed
from keystead.vault.rotating import Rotating
from keystead.vault.standing import Standing

__all__ = ["Administration"]

_HANDLE_ID_BYTES = 12
_TTL_MAX_S = 10 * 366 * 24 * 3600

_CHANGES = (
    ChangePolicy,
    CreateKey,
    EmergencyEnd,
    EmergencyStop,
    GoOn,
    IssueHandle,
    LimitTenant,
    MoveVersion,
    Revoke,
    RevokeHandle,
    RevokeKeyHandles,
    RotateKey,
    SetPlan,
    SteerRollout,
)

Apply = Callable[[Transaction, Snapshot, int, int], Applied]


class Administration:
    """All methods run on the loop."""

    def __init__(  # noqa: PLR0913  the services a change passes through
        self,
        *,
        standing: Standing,
        guard: Guard,
        secrets: VaultSecrets,
        registry: Registry,
        committer: Committer,
        reservations: Reservations,
        maker: KeyMaker,
        logbook: Logbook,
        rotating: Rotating,
        histories: Histories,
        anchors: Anchors,
        acknowledgements: Acknowledgements,
        previews: Previews,
        clock: Clock,
        random: Random,
        loop: asyncio.AbstractEventLoop,
        next_request_id: Callable[[], str],
    ) -> None:
        self._standing = standing
        self._guard = guard
        self._secrets = secrets
        self._registry = registry
        self._committer = committer
        self._reservations = reservations
        self._maker = maker
        self._logbook = logbook
        self._rotating = rotating
        self._histories = histories
        self._acknowledgements = acknowledgements
        self._previews = previews
        self._revoking = Revoking(
            node=standing.node, guard=guard, secrets=secrets, registry=registry
        )
        self._readings = Readings(standing, registry, secrets)
        self._anchors = anchors
        self._clock = clock
        self._random = random
        self._loop = loop
        self._next_request_id = next_request_id
        self._repeats = Repeats(registry, secrets, clock, random)

    def begin(self, request: AdminRequest, reply: Reply) -> None:
        """Do one command; ``reply`` is called once, now or later."""
        asked = Request(
            request.id,
            reply,
            self._next_request_id(),
            node=self._standing.node,
            began_us=self._clock.ticks_us(),
        )
        try:
            self._standing.check()
            asked.principal = self._authenticate(request.token)
            asked.command = command = decode_command(request.command)
            target = self._target(command)
            self._guard.decide(asked.principal, _action(command), target)
            asked.starts_in = starts_in(command, target)
            if request.idempotency_key is not None and isinstance(command, _CHANGES):
                key = request.idempotency_key
                asked.once = self._repeats.once(asked.principal, key, request.command)
                before = self._repeats.done_before(asked.once)
                if before is not None:
                    self._done_again(asked, *before)
                    return
            self._check_starts(asked, self._standing.snapshot)
            self._dispatch(asked, command, target)
        except KeysteadError as refusal:
            self._deny(asked, refusal)
        except Exception as exc:  # noqa: BLE001  a fault of ours is answered too
            self._deny(asked, fault(exc))

    def _authenticate(self, token: str) -> Principal:
        digest = hashlib.sha256(token.encode()).digest()
        credential = self._standing.snapshot.credentials.get(digest)
        if credential is None:
            raise Unauthenticated(
                "the token is not one this deployment knows",
                hint="It was shown once, at the first start: set KEYSTEAD_TOKEN to it",
            )
        return credential.principal

    def _target(self, command: Command) -> Key | None:
        name = _key_of(command)
        return None if name is None else self._standing.snapshot.named(name)

    def _dispatch(self, asked: Request, command: Command, target: Key | None) -> None:
        match command:
            case CreateKey():
                self._create(asked, command)
            case IssueHandle() if target is not None:
                self._issue(asked, command, target)
            case (
                MoveVersion()
                | RevokeHandle()
                | RevokeKeyHandles()
                | Revoke()
                | EmergencyStop()
                | EmergencyEnd()
            ):
                self._stop(asked, command, target)
            case PreviewRevoke():
                self._logbook.look(self._previews.page(command), self._inquiry(asked, target))
            case ShowEmergency():
                asked.done(self._previews.emergencies())
            case LimitTenant():
                self._change(asked, partial(self._apply_limit, asked, command))
            case GoOn():
                self._go_on(asked, command)
            case ListTenants() | ListKeys() | ShowKey() | ShowHandle():
                asked.done(self._readings.seen(command, target))
            case (
                ListRecords()
                | CountRecords()
                | DiscloseRecord()
                | ForgetRecords()
                | ReconcileRecords()
            ):
                self._logbook.begin(command, self._inquiry(asked, target))
            case _:
                self._dispatch_rotation(asked, command, target)

    def _dispatch_rotation(self, asked: Request, command: Command, target: Key | None) -> None:
        match command:
            case RotateKey() if target is not None:
                self._rotate(asked, command, target)
            case SteerRollout():
                apply = self._rotating.apply_steer(command, self._draft(asked))
                if command.move == "roll_back":
                    apply = _halting(apply)
                self._change(asked, apply, key_info)
            case SetPlan():
                draft, now_ms = self._draft(asked), self._rotating.now_ms()
                self._change(asked, apply_plan(command, draft, self._secrets, now_ms))
            case ChangePolicy():
                draft, now_ms = self._draft(asked), self._rotating.now_ms()
                self._change(asked, apply_policy(command, draft, self._secrets, now_ms))
            case ShowRollout() if target is not None:
                asked.done(self._rotating.status(target))
            case ShowEvidence() if target is not None:
                read = self._rotating.evidence(target, command.number, self._histories)
                self._logbook.look(read, self._inquiry(asked, target))
            case ListHistory():
                key_id = self._standing.snapshot.names.get(command.name or "")
                read_page = self._histories.page(command, key_id)
                self._logbook.look(read_page, self._inquiry(asked, target))
            case _:
                raise InvariantViolation("a command has no way to be done")

    def _inquiry(self, asked: Request, target: Key | None) -> Inquiry:
        if asked.principal is None:
            raise InvariantViolation("nobody is known to have asked")
        return Inquiry(
            principal=asked.principal,
            target=target,
            draft=self._draft(asked),
            done=asked.done,
            refuse=partial(self._deny, asked),
        )

    # --- changing ----------------------------------------------------------------------------

    def _create(self, asked: Request, command: CreateKey) -> None:
        key, algorithm = self._maker.draft(command)
        if key.name in self._standing.snapshot.names:
            raise Conflict(
                f"there is a key named {key.name} already",
                hint="Names are for life; choose another, or use the key that there is",
            )
        tenant_key = self._maker.tenant_key(key.tenant)
        future = self._loop.run_in_executor(None, self._maker.make, key, algorithm, tenant_key)

        def commit(made: Made) -> Apply:
            draft = self._draft(asked)

            def apply(tx: Transaction, snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
                return commit_made(
                    made,
                    draft,
                    self._secrets,
                    tx=tx,
                    snapshot=snapshot,
                    epoch=epoch,
                    plan=command.plan,
                )

            return apply

        future.add_done_callback(partial(self._made, asked, commit))

    def _made(
        self, asked: Request, commit: Callable[[Made], Apply], future: asyncio.Future[Made]
    ) -> None:
        """Commit what was made in a thread."""
        try:
            self._change(asked, commit(future.result()), key_info)
        except KeysteadError as refusal:
            self._deny(asked, refusal)
        except Exception as exc:  # noqa: BLE001  a fault of ours is answered too
            self._deny(asked, fault(exc))

    def _rotate(self, asked: Request, command: RotateKey, key: Key) -> None:
        future = self._rotating.make(command, key)

        def commit(made: Made) -> Apply:
            draft, now_ms = self._draft(asked, key), self._rotating.now_ms()
            return self._rotating.apply_begin(made, command, draft, now_ms)

        future.add_done_callback(partial(self._made, asked, commit))

    def _issue(self, asked: Request, command: IssueHandle, key: Key) -> None:
        check_name(command.principal, "principal")
        now_ms = self._clock.now_ms()
        caveats: tuple[Caveat, ...] = caveats_of(command.narrowing)
        if command.ttl_s is not None:
            if not 1 <= command.ttl_s <= _TTL_MAX_S:
                raise MalformedRequest(f"expected ttl_s from 1 to {_TTL_MAX_S}")
            caveats = (NotAfter(now_ms + command.ttl_s * 1000), *caveats)
        body = Body(
            key_id=key.id,
            purpose=key.purpose,
            operations=_operations(key) if command.operations is None else command.operations,
            handle_id="h" + self._random.bytes(_HANDLE_ID_BYTES).hex(),
            generation=key.generation,
        )
        handle = issue(self._secrets.handle_root(key.id, key.generation), body, caveats)
        row = HandleRow(body.handle_id, key.id, key.tenant, command.principal, now_ms, b"")
        row = msgspec.structs.replace(row, mac=self._secrets.handle_mac(row))
        issued = IssuedHandle(
            token=handle.reveal(),
            handle_id=body.handle_id,
            link=handle.chain_id,
            key=key.name,
            purpose=str(key.purpose),
            operations=body.operations,
            principal=command.principal,
        )
        draft = msgspec.structs.replace(
            self._draft(asked, key),
            handle=body.handle_id,
            link=handle.chain_id,
            detail=f"to {command.principal}",
        )

        def apply(tx: Transaction, snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
            if snapshot.key(key.id).generation != key.generation:
                raise Conflict("the key's handles were revoked meanwhile", hint="Ask again")
            tx.put_handle(row)
            return Applied(drafts=(draft,), value=issued)

        self._change(asked, apply)

    def _stop(self, asked: Request, command: StopCommand, target: Key | None) -> None:
        if asked.principal is None:
            raise InvariantViolation("nobody is known to have asked")
        now_ms, draft = self._rotating.now_ms(), self._draft(asked, target)
        self._change(asked, self._revoking.apply(command, draft, asked.principal, now_ms))

    def _apply_limit(
        self,
        asked: Request,
        command: LimitTenant,
        _tx: Transaction,
        snapshot: Snapshot,
        epoch: int,
        _seq: int,
    ) -> Applied:
        before = snapshot.tenants.get(command.tenant)
        after = limited(before, command)
        old, new = budget_of(before), after.rate
        direction = " (weaker)" if weakened(old, new) else ""
        draft = msgspec.structs.replace(
            self._draft(asked),
            tenant=after.name,
            revision=after.revision,
            reason=command.reason,
            detail=f"{old.count} in {old.per_s} s -> {new.count} in {new.per_s} s{direction}",
        )
        row = object_row(
            "tenant",
            after.name,
            name=after.name,
            revision=after.revision,
            epoch=epoch,
            doc=after,
            secrets=self._secrets,
        )
        keys = sum(key.tenant == after.name for key in snapshot.keys.values())
        told = tenant_info(after.name, after, keys)
        return Applied(rows=((row, after.revision - 1),), drafts=(draft,), value=told)

    def _go_on(self, asked: Request, command: GoOn) -> None:
        check_reason(command.reason)
        went = WentOn(without=self._anchors.waiting)
        draft = msgspec.structs.replace(
            self._draft(asked), reason=command.reason, detail=went.without
        )

        def apply(_tx: Transaction, _snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
            return Applied(drafts=(draft,), value=went)

        self._change(asked, apply, after=partial(self._anchors.accept, command.reason))

    def _change(
        self,
        asked: Request,
        apply: Apply,
        show: Callable[[Key], object] | None = None,
        *,
        after: Callable[[], None] | None = None,
    ) -> None:
        """Queue a change; best-effort uses pause until it is through (I4).

        ``after``: called once it is durable, before it is answered.
        """
        self._reservations.freeze()

        def shown(value: object) -> object:
            value = value.value if isinstance(value, Halt) else value
            return show(value) if show and isinstance(value, Key) else value

        def apply_once(tx: Transaction, snapshot: Snapshot, epoch: int, seq: int) -> Applied:
            self._check_starts(asked, snapshot)
            applied = apply(tx, snapshot, epoch, seq)
            if asked.once is not None:
                place = Committed(seq, epoch if applied.rows else snapshot.epoch)
                self._repeats.keep(asked.once, shown(applied.value), asked.receipt(place), tx)
            return applied

        def deliver(outcome: tuple[object, Committed] | KeysteadError) -> None:
            self._reservations.thaw()
            if isinstance(outcome, KeysteadError):
                self._deny(asked, outcome)
                return
            value, place = outcome
            self._standing.count("changes", asked.tag)
            if after is not None:
                after()
            if isinstance(value, Halt):
                self._acknowledge(asked, value, place, shown)
            else:
                asked.done(shown(value), place)

        self._committer.change(Change(apply_once, deliver))

    def _check_starts(self, asked: Request, snapshot: Snapshot) -> None:
        """Nothing is started where an emergency stop is in force: asked now, and in the commit."""
        if asked.starts_in is not None:
            check_not_stopped(asked.starts_in, snapshot.stopped)

    # --- acknowledging -----------------------------------------------------------------------

    def _acknowledge(
        self, asked: Request, value: Halt, place: Committed, shown: Callable[[object], object]
    ) -> None:
        """Answer a stop once it holds on every node (design section 7)."""
        commit_ms = round((self._clock.ticks_us() - asked.began_us) / 1000, 3)

        def then(ended_ms: int | None) -> None:
            if ended_ms is None:
                asked.refuse(_unheard())
                return
            told = timed(value, commit_ms=commit_ms, ended_ms=ended_ms)
            asked.done(shown(told), place)

        self._acknowledgements.wait(place.epoch, value.key_ids, then)

    def _done_again(self, asked: Request, result: bytes, receipt: Receipt) -> None:
        """Give the first answer; of a stop no sooner than it holds everywhere, which may be new."""

        def then(ended_ms: int | None) -> None:
            if ended_ms is None:
                asked.refuse(_unheard())
            else:
                asked.done_again(result, receipt)

        about = None if isinstance(asked.command, StopCommand | SteerRollout) else ()
        self._acknowledgements.wait(receipt.epoch, about, then)

    # --- records -----------------------------------------------------------------------------

    def _draft(self, asked: Request, key: Key | None = None, *, outcome: str = "ok") -> Draft:
        return Draft(
            time_ms=self._clock.now_ms(),
            node=self._standing.node,
            op=asked.tag or "admin",
            outcome=outcome,
            request=asked.request_id,
            key=key.id if key else "",
            name=key.name if key else "",
            revision=key.revision if key else 0,
            purpose=str(key.purpose) if key else "",
            tenant=key.tenant if key else "",
            principal=asked.principal.name if asked.principal else "",
        )

    def _deny(self, asked: Request, error: KeysteadError) -> None:
        code = error.code or "internal"
        self._standing.count("denials", code)
        if asked.principal is None or self._standing.tampered is not None:
            asked.refuse(error)  # nobody is known to have asked: counted, not recorded
            return
        pending = Pending(
            draft=self._draft(asked, outcome=code),
            salt=self._random.bytes(SALT_BYTES),
            deliver=lambda _outcome: asked.refuse(error),
        )
        try:
            self._committer.submit(pending)
        except KeysteadError:
            asked.refuse(error)


def _unheard() -> LogUnavailable:
    return LogUnavailable(
        "it is committed; the node ends before it heard that it holds on every other one, too",
        hint="Send it again under the same idempotency key, at another node",
    )


def _halting(apply: Apply) -> Apply:
    """A change whose key's best-effort uses are waited for, as the new version does none more."""

    def halted(tx: Transaction, snapshot: Snapshot, epoch: int, seq: int) -> Applied:
        applied = apply(tx, snapshot, epoch, seq)
        if not isinstance(applied.value, Key):
            return applied
        return msgspec.structs.replace(applied, value=halt(applied.value, (applied.value,)))

    return halted


def _action(command: Command) -> str:
    """What the guard is asked for: who may search may count."""
    return "log.search" if isinstance(command, CountRecords) else tag_of(command)


def _operations(key: Key) -> tuple[str, ...]:
    """What a handle of the key may do unless told otherwise: a prehashed key signs digests only."""
    unfit = "sign" if key.prehashed else "sign_digest"
    return tuple(name for name in PURPOSES[key.purpose].operations if name != unfit)


def _key_of(command: Command) -> str | None:
    """The name of the key that a command is about, if it names one."""
    match command:
        case ShowKey() | MoveVersion() | RotateKey() | SteerRollout() | SetPlan():
            return command.name
        case ChangePolicy() | ShowRollout() | ShowEvidence():
            return command.name
        case IssueHandle() | RevokeKeyHandles() | ReconcileRecords():
            return command.key
        case Revoke() | PreviewRevoke():
            return command.key
        case ListRecords() | CountRecords() | ForgetRecords():
            return command.key
        case _:
            return None
