"""Durable uses on several vaults: what admits, decides and commits them, in every order.

Real: ``keys.epochs.decide``, ``keys.use.check_standing``, ``keys.lifecycle.move``.
The model is what surrounds them: snapshots that are as old as they may be, a store that keeps the
contract of ``ports.Transaction``, commits that fail before or after they are applied, clients that
send again at another vault, vaults that crash. A process that takes no step is suspended, so every
suspension is among the orders that are explored.
"""

from collections.abc import Callable, Hashable, Iterator
from functools import cache
from typing import Any, NamedTuple, TypeVar

from keystead.errors import KeysteadError
from keystead.keys.caveats import Uses
from keystead.keys.epochs import Accepted, Candidate, Outcome, Replayed, decide
from keystead.keys.handles import Grant
from keystead.keys.lifecycle import Move, State, move
from keystead.keys.model import Key
from keystead.keys.rollout.model import Rotation
from keystead.keys.use import check_standing
from unit.keys.protocol.exploring import Step
from unit.keys.sample import grant_of, key_of

T = TypeVar("T")
NOTHING = -1

_CHANGES: dict[str, dict[str, Any]] = {
    "revoke": {"revoked": True},
    "revoke all handles": {"generation": 2},
    "emergency stop": {"emergency": True},
    "emergency end": {"emergency": False},
}
"""What a change makes of the state; all others are moves of the lifecycle."""


class Request(NamedTuple):
    """What a client asks for, and how often it may send it. ``once``: its idempotency key."""

    once: str = ""
    payload: bytes = b"a"
    sends: int = 2


class Rules(NamedTuple):
    """What is explored: the functions as they are, or a mutant of one.

    ``exclusive``: a change of authority waits for open commits, and the reverse (``ports.Fence``).
    ``unique``: the store takes an idempotency key once. ``locks``: it locks a budget that is read.
    ``at_hand``: stored outcomes are also looked up before the commit, as on SQLite, where one vault
    is alone.
    """

    decide: Callable[[Candidate, "View"], Outcome] = decide
    next_epoch: Callable[[int], int] = lambda epoch: epoch + 1
    exclusive: bool = True
    unique: bool = True
    locks: bool = True
    at_hand: bool = False


class Bounds(NamedTuple):
    """How far it goes. ``most``: uses that the handle allows; None: any number.

    ``stops``: changes of authority, each once, in any order that is legal.
    """

    requests: tuple[Request, ...]
    vaults: int = 2
    most: int | None = None
    stops: tuple[str, ...] = ("revoke",)
    crashes: bool = True


class Authority(NamedTuple):
    """What a change of epoch can take away."""

    epoch: int = 1
    state: State = State.ACTIVE
    revoked: bool = False
    generation: int = 1
    emergency: bool = False


class Read(NamedTuple):
    """What a commit has read, under its locks."""

    authority: Authority
    stored: tuple[int, ...]
    spent: int


class Job(NamedTuple):
    """A use in a vault. ``signature``: which one it made, unlike any other.

    ``read``: its commit is open. ``outcome``: the signature to give out, once that is decided.
    """

    request: int
    signature: int
    epoch: int
    read: Read | None = None
    outcome: int = NOTHING


class Vault(NamedTuple):
    """``snapshot``: what its loop knows."""

    snapshot: Authority
    jobs: tuple[Job, ...] = ()


class World(NamedTuple):
    """``records``: signatures with a record, by request; ``given``: those that a client holds.

    ``stored``: by idempotency key, (request, signature). ``acknowledged``: a stop was answered.
    """

    authority: Authority
    spent: int
    stored: tuple[tuple[int, int], ...]
    records: tuple[tuple[int, ...], ...]
    given: tuple[tuple[int, ...], ...]
    sent: tuple[int, ...]
    stops: tuple[str, ...]
    vaults: tuple[Vault, ...]


class Stored(NamedTuple):
    """Behind ``keys.epochs.StoredOutcome``."""

    fingerprint: bytes


class View:
    """Behind ``keys.epochs.CommitView``, of what a commit has read."""

    def __init__(self, read: Read, requests: tuple[Request, ...], names: tuple[str, ...]) -> None:
        self.read = read
        self.epoch = read.authority.epoch
        self.revoked = revoked_links(read.authority)
        self.stopped = stopped_tenants(read.authority)
        self.requests = requests
        self.names = names

    def key(self, _key_id: str) -> Key:
        return key_in(self.read.authority.state, self.read.authority.generation)

    def rotation(self, _key_id: str) -> Rotation | None:
        return None

    def spent(self, _link: str) -> int:
        return self.read.spent

    def counter(self, _key_id: str, _name: str) -> bytes | None:
        return None

    def stored(self, _scope: str, key: str) -> Stored | None:
        request = self.read.stored[self.names.index(key)]
        return None if request == NOTHING else Stored(self.requests[request].payload)

    def stored_count(self, _scope: str) -> int:
        return sum(request != NOTHING for request in self.read.stored)


@cache
def key_in(state: State, generation: int) -> Key:
    """The key that all is about, its only version in a state."""
    return key_of(states=(state,), generation=generation)


@cache
def grant() -> Grant:
    """The handle that all is asked for with; what it may spend is in the candidate."""
    return grant_of(key_in(State.ACTIVE, 1), Uses(9))


def revoked_links(authority: Authority) -> frozenset[str]:
    """The links that a change has revoked: the handle's last."""
    return frozenset({grant().chain_id}) if authority.revoked else frozenset()


def stopped_tenants(authority: Authority) -> frozenset[str]:
    """The tenants that an emergency stop is for: the key's own."""
    return frozenset({key_in(State.ACTIVE, 1).tenant}) if authority.emergency else frozenset()


@cache
def stands(authority: Authority) -> bool:
    """Whether a use may be done, by what is true at an instant."""
    try:
        check_standing(
            grant(),
            key_in(authority.state, authority.generation),
            "sign",
            1,
            revoked_links(authority),
            stopped=stopped_tenants(authority),
        )
    except KeysteadError:
        return False
    return True


def truly_stopped(authority: Authority) -> bool:
    """The same without any of Keystead's rules: what the invariants are held to."""
    stopped = authority.revoked or authority.emergency or authority.generation > 1
    return stopped or authority.state is not State.ACTIVE


class Durable:
    """The model; see the module."""

    def __init__(self, bounds: Bounds, rules: Rules | None = None) -> None:
        self.bounds = bounds
        self.rules = rules or Rules()
        self.names = tuple(sorted({r.once for r in bounds.requests if r.once}))
        self._decided: dict[tuple[int, int, Read], Outcome] = {}

    def first(self) -> World:
        nothing: tuple[tuple[int, ...], ...] = ((),) * len(self.bounds.requests)
        return World(
            authority=Authority(),
            spent=0,
            stored=((NOTHING, NOTHING),) * len(self.names),
            records=nothing,
            given=nothing,
            sent=(0,) * len(self.bounds.requests),
            stops=self.bounds.stops,
            vaults=(Vault(Authority()),) * self.bounds.vaults,
        )

    def canonical(self, state: World) -> Hashable:
        """Vaults are all alike, but where the first one makes the changes, too."""
        at = 1 if self.rules.at_hand else 0
        vaults = state.vaults
        return state._replace(vaults=(*vaults[:at], *sorted(vaults[at:], key=hash)))

    # --- what must hold --------------------------------------------------------------------------

    def broken(self, state: World) -> str:
        for request, (records, given) in enumerate(zip(state.records, state.given, strict=True)):
            once = self.bounds.requests[request].once
            if not set(given) <= set(records):
                return f"I2: request {request} was answered without a record"
            if once and len(records) > 1:
                return f"I6: request {request} has {len(records)} records under one key"
        most = self.bounds.most
        if most is not None and sum(map(len, state.records)) > most:
            return f"I5: {sum(map(len, state.records))} uses where {most} are allowed"
        return ""

    # --- what can happen -------------------------------------------------------------------------

    def steps(self, state: World) -> Iterator[Step[World]]:
        yield from self._changes(state)
        for at, vault in enumerate(state.vaults):
            yield from self._sends(state, at, vault)
            if vault.snapshot != state.authority:
                after = _at(state, at, vault._replace(snapshot=state.authority))
                yield Step("adopt", f"vault {at} learns of epoch {state.authority.epoch}", after)
            if self.bounds.crashes and vault.jobs:
                after = _at(state, at, Vault(state.authority))
                yield Step("crash", f"vault {at} crashes and starts anew", after)
            for job in vault.jobs:
                yield from self._goes_on(state, at, job)

    def _changes(self, state: World) -> Iterator[Step[World]]:
        if self.rules.exclusive and any(j.read for v in state.vaults for j in v.jobs):
            return
        for what in dict.fromkeys(state.stops):
            after = self._changed(state.authority, what)
            if after is None:
                continue
            left = list(state.stops)
            left.remove(what)
            changed = state._replace(authority=after, stops=tuple(left))
            grows = after.epoch >= state.authority.epoch
            yield Step(what, f"{what} commits", changed, "" if grows else "I4: the epoch went back")

    def _changed(self, authority: Authority, what: str) -> Authority | None:
        epoch = self.rules.next_epoch(authority.epoch)
        if what in _CHANGES:
            return authority._replace(epoch=epoch, **_CHANGES[what])
        try:
            return authority._replace(epoch=epoch, state=move(authority.state, Move(what)))
        except KeysteadError:
            return None

    def _sends(self, state: World, at: int, vault: Vault) -> Iterator[Step[World]]:
        for number, request in enumerate(self.bounds.requests):
            nth = state.sent[number]
            if nth == request.sends or not stands(vault.snapshot):
                continue
            sent = state._replace(sent=_put(state.sent, number, nth + 1))
            stored = state.stored[self.names.index(request.once)] if request.once else None
            if self.rules.at_hand and stored and stored[0] == number:
                yield self._at_hand(sent, at, number, stored[1])
                continue
            signature = 10 * number + nth
            job = Job(number, signature, vault.snapshot.epoch)
            yield Step(
                "admit",
                f"vault {at} admits request {number} and makes signature {signature}",
                _at(sent, at, vault._replace(jobs=_sorted((*vault.jobs, job)))),
            )

    def _at_hand(self, state: World, at: int, number: int, signature: int) -> Step[World]:
        """The stop was answered once the vault that made it, the first, had adopted it."""
        stopped = truly_stopped(state.authority) and state.vaults[0].snapshot == state.authority
        return Step(
            "at hand",
            f"vault {at} gives stored signature {signature} for request {number}",
            _given(state, number, signature),
            "I6: a stored result was given out after the revocation" if stopped else "",
        )

    def _goes_on(self, state: World, at: int, job: Job) -> Iterator[Step[World]]:
        if job.outcome != NOTHING:
            yield from self._releases(state, at, job)
        elif job.read is not None:
            yield from self._commits(state, at, job, job.read)
        elif not any(other.read for other in state.vaults[at].jobs) and not self._locked(state):
            read = Read(state.authority, tuple(who for who, _ in state.stored), state.spent)
            yield Step(
                "begin",
                f"vault {at} begins to commit signature {job.signature}",
                _swap(state, at, job, job._replace(read=read)),
            )

    def _locked(self, state: World) -> bool:
        """A budget is one row: whoever reads it in a commit locks it until that has ended."""
        open_commits = (job.read for vault in state.vaults for job in vault.jobs)
        return self.bounds.most is not None and self.rules.locks and any(open_commits)

    def _commits(self, state: World, at: int, job: Job, read: Read) -> Iterator[Step[World]]:
        gone = _swap(state, at, job, None)
        yield Step("not applied", f"the commit of signature {job.signature} fails", gone)
        outcome = self._outcome(job, read)
        name = f"signature {job.signature}"
        if isinstance(outcome, Replayed):
            _, stored = state.stored[self.names.index(outcome.key)]
            stopped = truly_stopped(state.authority)
            yield Step(
                "replayed",
                f"the commit finds that signature {stored} stands for {name}",
                _swap(state, at, job, job._replace(read=None, outcome=stored)),
                "I6: a stored result was given out after the revocation" if stopped else "",
            )
        elif isinstance(outcome, Accepted):
            yield from self._accepts(state, at, job, gone)
        else:
            refused = f"the commit refuses {name}: {outcome.code}"
            yield Step(f"refused {outcome.code}", refused, gone)

    def _accepts(self, state: World, at: int, job: Job, gone: World) -> Iterator[Step[World]]:
        request, name = self.bounds.requests[job.request], f"signature {job.signature}"
        broken = ""
        if truly_stopped(state.authority):
            broken = "I4: a use was recorded after what allowed it was revoked"
        stored = state.stored
        if request.once:
            place = self.names.index(request.once)
            if self.rules.unique and stored[place][0] != NOTHING:
                again = _swap(state, at, job, job._replace(read=None))
                yield Step("contended", f"another commit came before that of {name}", again)
                return
            stored = _put(stored, place, (job.request, job.signature))

        spent = job.read.spent if job.read else 0
        spent += self.bounds.most is not None

        def applied(world: World) -> World:
            records = (*world.records[job.request], job.signature)
            return world._replace(
                spent=spent,
                stored=stored,
                records=_put(world.records, job.request, records),
            )

        done = _swap(state, at, job, job._replace(read=None, outcome=job.signature))
        yield Step("commit", f"the commit of {name} is durable", applied(done), broken)
        lost = f"the commit of {name} is durable, and its vault told that it failed"
        yield Step("outcome lost", lost, applied(gone), broken)

    def _outcome(self, job: Job, read: Read) -> Outcome:
        at = (job.request, job.epoch, read)
        if at not in self._decided:
            request, held = self.bounds.requests[job.request], grant()
            candidate = Candidate(
                grant=held,
                key_id="k-1",
                operation="sign",
                version=1,
                epoch=job.epoch,
                budgets=() if self.bounds.most is None else ((held.chain_id, self.bounds.most),),
                idempotency=(held.chain_id, request.once, request.payload)
                if request.once
                else None,
            )
            view = View(read, self.bounds.requests, self.names)
            self._decided[at] = self.rules.decide(candidate, view)
        return self._decided[at]

    def _releases(self, state: World, at: int, job: Job) -> Iterator[Step[World]]:
        gone, name = _swap(state, at, job, None), f"signature {job.outcome}"
        yield Step("lost", f"the answer with {name} is lost", gone)
        given = _given(gone, job.request, job.outcome)
        yield Step("answer", f"vault {at} answers with {name}", given)


def _put(values: tuple[T, ...], at: int, value: T) -> tuple[T, ...]:
    return (*values[:at], value, *values[at + 1 :])


def _sorted(jobs: tuple[Job, ...]) -> tuple[Job, ...]:
    return tuple(sorted(jobs, key=lambda job: job.signature))


def _at(state: World, at: int, vault: Vault) -> World:
    return state._replace(vaults=_put(state.vaults, at, vault))


def _swap(state: World, at: int, job: Job, after: Job | None) -> World:
    vault = state.vaults[at]
    others = tuple(other for other in vault.jobs if other != job)
    jobs = others if after is None else _sorted((*others, after))
    return _at(state, at, vault._replace(jobs=jobs))


def _given(state: World, number: int, signature: int) -> World:
    held = tuple(sorted({*state.given[number], signature}))
    return state._replace(given=_put(state.given, number, held))
