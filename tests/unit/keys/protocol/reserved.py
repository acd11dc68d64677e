"""Best-effort uses on several vaults: reservations, late records, and when a stop is acknowledged.

Real: ``keys.reservations`` (``may_spend``, ``outstanding``, ``bound_is_over``) and
``keys.use.check_standing``. The model is what surrounds them, as in ``vault/reservations.py``,
``vault/following.py`` and ``vault/committer.py``: a loop, a queue, one thread that commits what is
in it in order, posts to the loop in order, loses no record that was released, and is told at times
that a commit has failed which was applied. Vault 0 makes the stop; another one may be asked again.

Time is in ticks. A clock may miss as many of them in a reservation's life as ``drift`` says, and
the clock that waits for a stop never misses one: what counts is how far two may come apart.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import product
from typing import NamedTuple

from keystead.errors import KeysteadError
from keystead.keys import reservations
from keystead.keys.lifecycle import State
from keystead.keys.use import check_standing
from unit.keys.protocol.durable import grant, key_in
from unit.keys.protocol.exploring import Step

LIFE = 2
DRIFT = 1
KEY = "k-1"
ACTIVE_EPOCH, STOP_EPOCH = 1, 2


class Row(NamedTuple):
    """A reservation in the registry, and the truth about it.

    ``records``: how many there are of its uses; ``recorded``: of how many uses they are. ``gap``:
    what a restart recorded as unaccounted; -1: it was closed by its vault, or is open.
    """

    vault: int
    epoch: int
    answered: int = 0
    recorded: int = 0
    records: int = 0
    closed: bool = False
    gap: int = -1

    @property
    def node(self) -> str:
        return str(self.vault)

    @property
    def key_id(self) -> str:
        return KEY


class Held(NamedTuple):
    """A reservation in its vault's memory: how old by the vault's clock, and by how much that lags.

    ``row`` is -1 as long as it is asked for.
    """

    row: int = -1
    spent: int = 0
    age: int = 0
    lag: int = 0


class Item(NamedTuple):
    """In a committer's queue. ``number``: of a row, or an epoch. ``stands``: it is applied."""

    what: str
    number: int = 0
    stands: bool = False


class Vault(NamedTuple):
    """``snapshot``: of its loop. ``knows``: what its committer has read. ``mail``: to its loop.

    ``checked``: the row of a use that was allowed and is not on its way yet, if that is a step.
    """

    snapshot: int = ACTIVE_EPOCH
    knows: int = ACTIVE_EPOCH
    active: Held | None = None
    following: Held | None = None
    asked: Held | None = None
    queue: tuple[Item, ...] = ()
    late: tuple[Item, ...] = ()
    mail: tuple[Item, ...] = ()
    frozen: bool = False
    refreshing: bool = False
    confirming: bool = False
    checked: int = -1


class Stop(NamedTuple):
    """The stop on its way. ``at``: the vault that waits; ``age``: for how long, by its clock.

    ``own``: whose reservations it does not wait for: those of who made it and froze them, -1: none.
    ``by``: what it was acknowledged by: ``confirmed`` or ``bound``.
    """

    stage: str = ""
    at: int = 0
    own: int = -1
    age: int = 0
    by: str = ""


class World(NamedTuple):
    epoch: int
    rows: tuple[Row, ...]
    seen: tuple[int, ...]
    stop: Stop
    faults: int
    crashes: int
    vaults: tuple[Vault, ...]


def gap_of(row: Row, count: int) -> int:
    """As ``vault.reservations.gaps``: what was reserved less the uses that were recorded."""
    return count - row.recorded


class Rules(NamedTuple):
    """What is explored: the functions as they are, or a mutant of one.

    The others are what the shells do, or what they would do wrong. ``own_is_frozen``: nothing is
    spent while a change of one's own is queued. ``counted_from``: a reservation's life.
    ``confirms`` an epoch, ``records`` an answer: when. ``repeat_waits``: who asks again is
    told no sooner. ``own_counts``: one's own reservations are waited for, too.
    """

    may_spend: Callable[..., bool] = reservations.may_spend
    outstanding: Callable[..., tuple[Row, ...]] = reservations.outstanding
    bound_is_over: Callable[..., bool] = reservations.bound_is_over
    gap: Callable[[Row, int], int] = gap_of
    own_is_frozen: bool = True
    counted_from: str = "before it was asked for"
    confirms: str = "once adopted"
    records: str = "at once"
    repeat_waits: bool = True
    own_counts: str = "unless frozen"


class Bounds(NamedTuple):
    """How far it goes. ``spenders``: vaults that answer; ``rows``: reservations in all.

    ``uses``: in a reservation. ``repeats``: the stop may be asked for again. ``stop``: one comes.
    ``two_steps``: between the check of a use and its answer the process may be suspended, and what
    is held to the acknowledgement is the answer.
    """

    vaults: int = 2
    spenders: tuple[int, ...] = (1,)
    uses: int = 2
    rows: int = 1
    faults: int = 1
    crashes: int = 1
    repeats: bool = True
    two_steps: bool = False
    stop: bool = True


def stands(epoch: int) -> bool:
    """Whether the loop's snapshot of an epoch allows the use."""
    state = State.ACTIVE if epoch < STOP_EPOCH else State.COMPROMISED
    try:
        check_standing(grant(), key_in(state, 1), "sign", 1, frozenset(), stopped=frozenset())
    except KeysteadError:
        return False
    return True


class Reserved:
    """The model; see the module."""

    def __init__(self, bounds: Bounds, rules: Rules | None = None) -> None:
        self.bounds = bounds
        self.rules = rules or Rules()
        self.stands = {epoch: stands(epoch) for epoch in (ACTIVE_EPOCH, STOP_EPOCH)}

    def first(self) -> World:
        vaults = self.bounds.vaults
        return World(
            epoch=ACTIVE_EPOCH,
            rows=(),
            seen=(ACTIVE_EPOCH,) * vaults,
            stop=Stop(),
            faults=self.bounds.faults,
            crashes=self.bounds.crashes,
            vaults=(Vault(),) * vaults,
        )

    def canonical(self, state: World) -> Hashable:
        return state

    # --- what must hold --------------------------------------------------------------------------

    def broken(self, state: World) -> str:
        for number, row in enumerate(state.rows):
            missing = row.answered - row.recorded
            if row.answered > self.bounds.uses:
                return f"I2: {row.answered} uses of {self.bounds.uses} reserved"
            if row.gap > self.bounds.uses:
                return f"I2: a gap of {row.gap} is more than was reserved"
            if row.closed and missing > max(row.gap, 0):
                return f"I2: {missing} uses of reservation {number} have neither record nor gap"
        return ""

    def _after_the_stop(self, state: World, what: str) -> str:
        """No use is allowed once the stop was acknowledged."""
        return f"I4: {what} after the stop was acknowledged" if state.stop.by else ""

    # --- what can happen -------------------------------------------------------------------------

    def steps(self, state: World) -> Iterator[Step[World]]:
        yield from self._ticks(state)
        yield from self._stops(state)
        for at, vault in enumerate(state.vaults):
            yield from self._commits(state, at, vault)
            if vault.checked >= 0:
                yield self._answers(state, at, vault)
            elif vault.mail:
                yield self._reads(state, at, vault)
            if at in self.bounds.spenders and vault.checked < 0:
                yield from self._polls(state, at, vault)
                yield from self._uses(state, at, vault)
            if state.crashes:
                yield self._crashes(state, at)

    # --- time ------------------------------------------------------------------------------------

    def _ticks(self, state: World) -> Iterator[Step[World]]:
        ways = [self._passing(vault) for vault in state.vaults]
        stop = state.stop
        if stop.stage == "waits":
            over = LIFE + DRIFT
            stop = stop._replace(age=min(stop.age + 1, over))
        for vaults in product(*ways):
            after = state._replace(stop=stop, vaults=vaults)
            if after != state:
                slow = [
                    str(at)
                    for at, (old, new) in enumerate(zip(state.vaults, vaults, strict=True))
                    if _lag(new) > _lag(old)
                ]
                name = "a tick" + (f", which {', '.join(slow)} misses" if slow else "")
                yield Step("slow tick" if slow else "tick", name, after)

    def _passing(self, vault: Vault) -> list[Vault]:
        """A vault after a tick: its clock shows it, or misses it."""
        helds = [h for h in (vault.active, vault.following, vault.asked) if h and h.age < LIFE]
        if not helds:
            return [vault]
        shown = _aged(vault, 1, 0)
        return [shown] if any(h.lag == DRIFT for h in helds) else [shown, _aged(vault, 0, 1)]

    # --- the loop: uses --------------------------------------------------------------------------

    def _uses(self, state: World, at: int, vault: Vault) -> Iterator[Step[World]]:
        made = len(state.rows) + sum(v.asked is not None for v in state.vaults)
        if vault.asked is None and vault.following is None and made < self.bounds.rows:
            asks = vault._replace(asked=Held(), queue=(*vault.queue, Item("open")))
            yield Step("ask", f"vault {at} asks for a reservation", _put(state, at, asks))
        held = vault.active or vault.following
        if held is None or (vault.frozen and self.rules.own_is_frozen):
            return
        if not self._spendable(held):
            yield self._closes(state, at, vault, held)
        elif self.stands[vault.snapshot]:
            yield self._spends(state, at, vault, held)

    def _spendable(self, held: Held) -> bool:
        return self.rules.may_spend(
            count=self.bounds.uses, spent=held.spent, expires_boot_ms=LIFE, now_boot_ms=held.age
        )

    def _closes(self, state: World, at: int, vault: Vault, held: Held) -> Step[World]:
        active, following = (None, vault.following) if vault.active else (None, None)
        queue = (*vault.queue, Item("close", held.row))
        after = vault._replace(active=active, following=following, queue=queue)
        return Step("close", f"vault {at} closes reservation {held.row}", _put(state, at, after))

    def _spends(self, state: World, at: int, vault: Vault, held: Held) -> Step[World]:
        following = vault.following if vault.active else None
        spent = held._replace(spent=held.spent + 1)
        after = vault._replace(active=spent, following=following, checked=held.row)
        world = _put(state, at, after)
        if self.bounds.two_steps:
            return Step("check", f"vault {at} allows a use out of reservation {held.row}", world)
        return self._answers(world, at, after)

    def _answers(self, state: World, at: int, vault: Vault) -> Step[World]:
        """The answer is out; its record is queued in the same turn of the loop."""
        row = vault.checked
        item = Item("record", row)
        queue = vault.queue
        if self.rules.records == "at once":
            queue = (*queue, item)
        elif self.rules.records == "later":
            queue = (*queue, Item("turn", row))
        was = state.rows[row]
        rows = _swap(state.rows, row, was._replace(answered=was.answered + 1))
        after = _put(state, at, vault._replace(checked=-1, queue=queue))._replace(rows=rows)
        name = f"vault {at} answers a use out of reservation {row}"
        return Step("answer", name, after, self._after_the_stop(state, "a best-effort answer"))

    # --- the loop: what it learns ----------------------------------------------------------------

    def _polls(self, state: World, at: int, vault: Vault) -> Iterator[Step[World]]:
        """``Following.moved``: with the epoch as it is read now; a lost notice is no step."""
        if state.epoch > vault.snapshot and not vault.refreshing:
            queue = (*vault.queue, Item("refresh"))
            after = vault._replace(refreshing=True, queue=queue)
            yield Step("poll", f"vault {at} hears of epoch {state.epoch}", _put(state, at, after))
        elif state.epoch == vault.snapshot > state.seen[at] and not vault.confirming:
            yield Step(
                "poll", f"vault {at} will confirm", _put(state, at, self._will_confirm(vault))
            )

    def _will_confirm(self, vault: Vault) -> Vault:
        queue = (*vault.queue, Item("confirm", vault.snapshot))
        return vault._replace(confirming=True, queue=queue)

    def _reads(self, state: World, at: int, vault: Vault) -> Step[World]:
        """The loop takes what the committer posted first."""
        item, rest = vault.mail[0], vault.mail[1:]
        vault = vault._replace(mail=rest)
        stop = state.stop
        match item.what:
            case "snapshot":
                vault = vault._replace(snapshot=item.number)
            case "refreshed" | "not refreshed":
                vault = vault._replace(refreshing=False)
                news = vault.snapshot > state.seen[at] and not vault.confirming
                if item.what == "refreshed" and news:
                    vault = self._will_confirm(vault)
            case "granted" if vault.asked is not None:
                age, lag = vault.asked.age, vault.asked.lag
                if self.rules.counted_from == "the grant":
                    age, lag = 0, 0
                vault = vault._replace(asked=None, following=Held(item.number, 0, age, lag))
            case "not granted":
                vault = vault._replace(asked=None)
            case "changed" if stop.stage == "queued":
                vault = vault._replace(frozen=False)
                stop = Stop("waits", at, at)
            case "changed" | "not changed":
                vault = vault._replace(frozen=False)
                stop = stop if stop.stage != "queued" else Stop()
            case _:
                raise LookupError(item.what)
        after = _put(state, at, vault)._replace(stop=stop)
        return Step("read", f"the loop of vault {at} reads {item.what} {item.number}", after)

    # --- the stop --------------------------------------------------------------------------------

    def _stops(self, state: World) -> Iterator[Step[World]]:
        stop = state.stop
        if not self.bounds.stop:
            return
        if not stop.stage and state.epoch < STOP_EPOCH:
            vault = state.vaults[0]
            queued = vault._replace(frozen=True, queue=(*vault.queue, Item("change")))
            after = _put(state, 0, queued)._replace(stop=Stop("queued"))
            yield Step("stop", "vault 0 is asked for the stop", after)
        elif not stop.stage and self.bounds.repeats:
            for at in range(self.bounds.vaults):
                own = at if self.rules.own_counts == "never" else -1
                again = Stop("waits", at, own)
                if not self.rules.repeat_waits:
                    again = Stop("acknowledged", at, by="bound")
                name = f"vault {at} is asked again, and finds that it was done"
                yield Step("stop again", name, state._replace(stop=again))
        elif stop.stage == "waits":
            yield from self._acknowledges(state, stop)

    def _acknowledges(self, state: World, stop: Stop) -> Iterator[Step[World]]:
        own = stop.own
        if self.rules.own_counts == "until adopted" and state.vaults[stop.at].snapshot > 1:
            own = stop.at
        seen: Mapping[str, int] = {str(at): epoch for at, epoch in enumerate(state.seen)}
        left = self.rules.outstanding(
            [row for row in state.rows if not row.closed],
            seen,
            epoch=STOP_EPOCH,
            key_ids=(KEY,),
            own=str(own),
        )
        over = self.rules.bound_is_over(committed_boot_ms=0, now_boot_ms=stop.age)
        if left and not over:
            return
        by = "bound" if left else "confirmed"
        done = stop._replace(stage="acknowledged", age=0, by=by)
        yield Step(by, f"the stop is acknowledged: {by}", state._replace(stop=done))

    # --- the committer ---------------------------------------------------------------------------

    def _commits(self, state: World, at: int, vault: Vault) -> Iterator[Step[World]]:
        records = 0
        while records < len(vault.queue) and vault.queue[records].what == "record":
            records += 1
        if vault.late or records:
            yield from self._commits_records(state, at, vault, records)
            if not vault.late:
                return
        if not vault.queue or records:
            return
        item = vault.queue[0]
        confirming = vault.confirming and item.what != "confirm"
        vault = vault._replace(queue=vault.queue[1:], confirming=confirming)
        if item.what == "turn":
            queued = vault._replace(queue=(*vault.queue, Item("record", item.number)))
            yield Step("turn", f"the record of vault {at} is queued", _put(state, at, queued))
            return
        if state.faults or vault.late:  # what is late stands before any change, or that fails
            left = state.faults - (not vault.late)
            failed = _post(_put(state, at, vault)._replace(faults=left), at, _FAILED[item.what])
            yield Step("not applied", f"{item.what} of vault {at} fails", failed)
        if vault.late:
            return
        applied = self._applied(_put(state, at, vault), at, item)
        if state.faults:
            lost = _post(applied._replace(faults=state.faults - 1), at, _FAILED[item.what])
            name = f"{item.what} of vault {at} is applied, and reported as failed"
            yield Step("outcome lost", name, lost)
        name = f"vault {at} commits {item.what}"
        done = _post(self._told(applied, at), at, self._result(item, state))
        yield Step(item.what, name, done)

    def _commits_records(
        self, state: World, at: int, vault: Vault, count: int
    ) -> Iterator[Step[World]]:
        """One group: what is late, then what waits."""
        group = (*vault.late, *vault.queue[:count])
        rest = vault._replace(queue=vault.queue[count:])
        applied = state
        for item in group:
            row = applied.rows[item.number]
            recorded = row.recorded + (not item.stands)
            row = row._replace(records=row.records + 1, recorded=recorded)
            applied = applied._replace(rows=_swap(applied.rows, item.number, row))
        behind = state.stop.by == "confirmed"
        broken = "I4: a record of a revoked use behind its confirmation" if behind else ""
        name = f"vault {at} commits {len(group)} records"
        done = self._told(_put(applied, at, rest._replace(late=())), at)
        yield Step("records", name, done, broken)
        if state.faults:
            left = state.faults - 1
            kept = _put(state, at, rest._replace(late=group))._replace(faults=left)
            yield Step("not applied", f"{len(group)} records of vault {at} fail", kept)
            stands = tuple(item._replace(stands=True) for item in group)
            doubled = _put(applied, at, rest._replace(late=stands))._replace(faults=left)
            yield Step("outcome lost", f"{name}, and is told that it failed", doubled, broken)

    def _applied(self, state: World, at: int, item: Item) -> World:
        match item.what:
            case "open":
                return state._replace(rows=(*state.rows, Row(at, state.epoch)))
            case "close":
                row = state.rows[item.number]._replace(closed=True)
                return state._replace(rows=_swap(state.rows, item.number, row))
            case "confirm":
                return state._replace(seen=_with(state.seen, at, item.number))
            case "change":
                return state._replace(epoch=STOP_EPOCH)
            case _:
                if self.rules.confirms == "once read":
                    return state._replace(seen=_with(state.seen, at, state.epoch))
                return state

    def _told(self, state: World, at: int) -> World:
        """What a commit has read that is new goes to the loop before what came of the commit."""
        vault = state.vaults[at]
        if vault.knows == state.epoch:
            return state
        mail = (*vault.mail, Item("snapshot", state.epoch))
        return _put(state, at, vault._replace(knows=state.epoch, mail=mail))

    def _result(self, item: Item, before: World) -> Item | None:
        granted = Item("granted", len(before.rows))
        return {"open": granted, "close": None}.get(item.what, _DONE.get(item.what))

    # --- crashes ---------------------------------------------------------------------------------

    def _crashes(self, state: World, at: int) -> Step[World]:
        """It starts anew: what is open of it is closed, with its gap."""
        rows = tuple(
            row._replace(closed=True, gap=self.rules.gap(row, self.bounds.uses))
            if row.vault == at and not row.closed
            else row
            for row in state.rows
        )
        stop = state.stop
        waited = stop.stage in {"queued", "waits"} and stop.at == at
        after = _put(state, at, Vault(state.epoch, state.epoch))._replace(
            rows=rows, stop=Stop() if waited else stop, crashes=state.crashes - 1
        )
        return Step("crash", f"vault {at} crashes and starts anew", after)


_DONE = {
    "refresh": Item("refreshed"),
    "change": Item("changed"),
}
_FAILED = {
    "open": Item("not granted"),
    "close": None,
    "refresh": Item("not refreshed"),
    "confirm": None,
    "change": Item("not changed"),
}


def _lag(vault: Vault) -> int:
    return sum(h.lag for h in (vault.active, vault.following, vault.asked) if h)


def _aged(vault: Vault, age: int, lag: int) -> Vault:
    def later(held: Held | None) -> Held | None:
        if held is None or held.age >= LIFE:
            return held
        older = held._replace(age=held.age + age, lag=held.lag + lag)
        return older if older.age < LIFE else older._replace(lag=0)  # it is over: no lag counts

    return vault._replace(
        active=later(vault.active), following=later(vault.following), asked=later(vault.asked)
    )


def _put(state: World, at: int, vault: Vault) -> World:
    return state._replace(vaults=(*state.vaults[:at], vault, *state.vaults[at + 1 :]))


def _post(state: World, at: int, item: Item | None) -> World:
    if item is None:
        return state
    vault = state.vaults[at]
    return _put(state, at, vault._replace(mail=(*vault.mail, item)))


def _swap(rows: tuple[Row, ...], at: int, row: Row) -> tuple[Row, ...]:
    return (*rows[:at], row, *rows[at + 1 :])


def _with(values: tuple[int, ...], at: int, value: int) -> tuple[int, ...]:
    return (*values[:at], value, *values[at + 1 :])
