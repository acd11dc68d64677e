"""Admin commands: who asks, may they, then one change in one commit under the next epoch."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from functools import partial

import msgspec

from keystead.encoding import DECODE_ERRORS
from keystead.errors import (
    Conflict,
    InvariantViolation,
    KeysteadError,
    MalformedRequest,
    Unauthenticated,
)
from keystead.frames.messages import Admin as AdminRequest
from keystead.frames.messages import Answer, Done, Receipt, Refused
from keystead.keys.administration import check_reason, moved, new_generation
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
    RevokedLink,
    RevokeHandle,
    RevokeKeyHandles,
    ShowHandle,
    ShowKey,
    WentOn,
)
from keystead.keys.handles import Body, issue
from keystead.keys.lifecycle import Move
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
from keystead.keys.tenants import budget_of, limited, weakened
from keystead.ports import Clock, Guard, HandleRow, Random, Registry, Transaction
from keystead.translog.entries import SALT_BYTES, Draft
from keystead.vault.anchors import Anchors
from keystead.vault.authority import Revocation, Snapshot, key_row, object_row
from keystead.vault.committer import Applied, Change, Committed, Committer, Pending
from keystead.vault.describe import key_info, tenant_info
from keystead.vault.faults import fault
from keystead.vault.histories import Histories
from keystead.vault.logbook import Inquiry, Logbook
from keystead.vault.macs import VaultSecrets
from keystead.vault.making import KeyMaker, Made, commit_made
from keystead.vault.policies import apply_plan, apply_policy
from keystead.vault.readings import Readings
from keystead.vault.repeats import Once, Repeats
from keystead.vault.reservations import Reservations
from keystead.vault.rotating import Rotating
from keystead.vault.standing import Standing

__all__ = ["Administration"]

_HANDLE_ID_BYTES = 12
_LINK_CHARS = 32
_LINK = re.compile(r"[0-9a-f]{32}\Z")
_TTL_MAX_S = 10 * 366 * 24 * 3600
_COMMAND = msgspec.msgpack.Decoder(Command)

_CHANGES = (
    ChangePolicy,
    CreateKey,
    GoOn,
    IssueHandle,
    LimitTenant,
    MoveVersion,
    RevokeHandle,
    RevokeKeyHandles,
    RotateKey,
    SetPlan,
    SteerRollout,
)

Reply = Callable[[Answer], None]
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
        self._readings = Readings(standing, registry, secrets)
        self._anchors = anchors
        self._clock = clock
        self._random = random
        self._loop = loop
        self._next_request_id = next_request_id
        self._repeats = Repeats(registry, secrets, clock, random)

    def begin(self, request: AdminRequest, reply: Reply) -> None:
        """Do one command; ``reply`` is called once, now or later."""
        asked = _Asked(request.id, reply, self._next_request_id(), self._standing.node)
        try:
            self._standing.check()
            asked.principal = self._authenticate(request.token)
            asked.command = command = _decode(request.command)
            target = self._target(command)
            self._guard.decide(asked.principal, _action(command), target)
            if request.idempotency_key is not None and isinstance(command, _CHANGES):
                key = request.idempotency_key
                asked.once = self._repeats.once(asked.principal, key, request.command)
                before = self._repeats.done_before(asked.once)
                if before is not None:
                    asked.done_again(*before)
                    return
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

    def _dispatch(self, asked: _Asked, command: Command, target: Key | None) -> None:
        match command:
            case CreateKey():
                self._create(asked, command)
            case IssueHandle() if target is not None:
                self._issue(asked, command, target)
            case MoveVersion() | RevokeHandle() | RevokeKeyHandles():
                self._change(asked, partial(self._apply_stop, asked, command))
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

    def _dispatch_rotation(self, asked: _Asked, command: Command, target: Key | None) -> None:
        match command:
            case RotateKey() if target is not None:
                self._rotate(asked, command, target)
            case SteerRollout():
                self._change(
                    asked, self._rotating.apply_steer(command, self._draft(asked)), key_info
                )
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

    def _inquiry(self, asked: _Asked, target: Key | None) -> Inquiry:
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

    def _create(self, asked: _Asked, command: CreateKey) -> None:
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
        self, asked: _Asked, commit: Callable[[Made], Apply], future: asyncio.Future[Made]
    ) -> None:
        """Commit what was made in a thread."""
        try:
            self._change(asked, commit(future.result()), key_info)
        except KeysteadError as refusal:
            self._deny(asked, refusal)
        except Exception as exc:  # noqa: BLE001  a fault of ours is answered too
            self._deny(asked, fault(exc))

    def _rotate(self, asked: _Asked, command: RotateKey, key: Key) -> None:
        future = self._rotating.make(command, key)

        def commit(made: Made) -> Apply:
            draft, now_ms = self._draft(asked, key), self._rotating.now_ms()
            return self._rotating.apply_begin(made, command, draft, now_ms)

        future.add_done_callback(partial(self._made, asked, commit))

    def _issue(self, asked: _Asked, command: IssueHandle, key: Key) -> None:
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

    def _apply_stop(
        self,
        asked: _Asked,
        command: MoveVersion | RevokeHandle | RevokeKeyHandles,
        tx: Transaction,
        snapshot: Snapshot,
        epoch: int,
        _seq: int,
    ) -> Applied:
        if isinstance(command, RevokeHandle):
            return self._revoke_link(asked, command, snapshot, epoch)
        if isinstance(command, RevokeKeyHandles):
            check_reason(command.reason)
            before = snapshot.named(command.key)
            after, detail = new_generation(before, epoch=epoch), ""
        else:
            before = snapshot.named(command.name)
            after, versions = moved(before, command, epoch=epoch)
            detail = f"{command.move} version {', '.join(map(str, versions))}"
            if command.move is Move.DESTROY:
                for number in versions:
                    tx.put_material(after.id, number, None)
        draft = msgspec.structs.replace(
            self._draft(asked, after), reason=command.reason, detail=detail
        )
        row = key_row(after, self._secrets)
        return Applied(rows=((row, before.revision),), drafts=(draft,), value=key_info(after))

    def _apply_limit(
        self,
        asked: _Asked,
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

    def _revoke_link(
        self, asked: _Asked, command: RevokeHandle, snapshot: Snapshot, epoch: int
    ) -> Applied:
        check_reason(command.reason)
        if not _LINK.match(command.link):
            raise MalformedRequest(
                f"expected a link id of {_LINK_CHARS} hex digits",
                hint="`keystead handle inspect` and the record of a use show it",
            )
        if command.link in snapshot.revoked:
            raise Conflict("the link is revoked already")
        revocation = Revocation(link=command.link, reason=command.reason, revision=1)
        row = object_row(
            "revocation",
            command.link,
            name=command.link,
            revision=1,
            epoch=epoch,
            doc=revocation,
            secrets=self._secrets,
        )
        draft = msgspec.structs.replace(
            self._draft(asked), link=command.link, reason=command.reason
        )
        return Applied(rows=((row, 0),), drafts=(draft,), value=RevokedLink(revoked=command.link))

    def _go_on(self, asked: _Asked, command: GoOn) -> None:
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
        asked: _Asked,
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
            return show(value) if show and isinstance(value, Key) else value

        def apply_once(tx: Transaction, snapshot: Snapshot, epoch: int, seq: int) -> Applied:
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
            self._standing.count("changes", _tag(asked.command))
            if after is not None:
                after()
            asked.done(shown(value), place)

        self._committer.change(Change(apply_once, deliver))

    # --- records -----------------------------------------------------------------------------

    def _draft(self, asked: _Asked, key: Key | None = None, *, outcome: str = "ok") -> Draft:
        return Draft(
            time_ms=self._clock.now_ms(),
            node=self._standing.node,
            op=_tag(asked.command) or "admin",
            outcome=outcome,
            request=asked.request_id,
            key=key.id if key else "",
            name=key.name if key else "",
            revision=key.revision if key else 0,
            purpose=str(key.purpose) if key else "",
            tenant=key.tenant if key else "",
            principal=asked.principal.name if asked.principal else "",
        )

    def _deny(self, asked: _Asked, error: KeysteadError) -> None:
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


class _Asked:
    """One admin request on its way."""

    def __init__(self, number: int, reply: Reply, request_id: str, node: str) -> None:
        self._number = number
        self._node = node
        self._reply = reply
        self.request_id = request_id
        self.principal: Principal | None = None
        self.command: Command | None = None
        self.once: Once | None = None

    def done(self, value: object, place: Committed | None = None) -> None:
        receipt = None if place is None else self.receipt(place)
        self._reply(Done(self._number, msgspec.msgpack.encode(value), receipt))

    def done_again(self, result: bytes, receipt: Receipt) -> None:
        self._reply(Done(self._number, result, receipt))

    def receipt(self, place: Committed) -> Receipt:
        return Receipt(
            seq=place.seq,
            epoch=place.epoch,
            key="",
            version=0,
            kid="",
            algorithm="",
            ack="durable",
            request_id=self.request_id,
            node=self._node,
        )

    def refuse(self, error: KeysteadError) -> None:
        self._reply(
            Refused(
                self._number,
                error.code or "internal",
                error.message,
                error.hint,
                error.retry_after_s,
                self.request_id,
            )
        )


def _decode(data: bytes) -> Command:
    try:
        command: Command = _COMMAND.decode(data)
    except DECODE_ERRORS as exc:
        raise MalformedRequest("expected an admin command, met other fields or values") from exc
    return command


def _tag(command: Command | None) -> str:
    if command is None:
        return ""
    return str(command.__struct_config__.tag)


def _action(command: Command) -> str:
    """What the guard is asked for: who may search may count."""
    return "log.search" if isinstance(command, CountRecords) else _tag(command)


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
        case ListRecords() | CountRecords() | ForgetRecords():
            return command.key
        case _:
            return None
