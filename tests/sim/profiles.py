"""What a seed stands for: the operations of its clients, and the faults that its profile brings.

Each profile has one kind of fault, ``mixed`` has some of all. ``FLOORS``: how often its kind must
have taken effect, on average over the seeds of a run, or the run has proved nothing and fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from keystead.keys.purposes import Purpose
from sim.dice import Dice
from sim.prepared import TENANT
from sim.scenario import HORIZON_US, Fault, Kind, Op, Scenario, What

__all__ = ["FLOORS", "PROFILES", "profile_of", "scenario_of"]

_MS = 1_000
_DAY_MS = 24 * 3_600_000
_BACK_MAX_MS = 12 * 3_600_000
"""A clock is set back by no more: see docs/simulator.md, What it has found."""
_OPS = 80
_DRIFT_PPM = 4_500
_SKEW_MS = 50

_USES: tuple[tuple[What, int], ...] = (
    ("jwt", 14),
    ("slow", 7),
    ("edge", 10),
    ("strict", 8),
    ("ledger", 14),
    ("firmware", 12),
    ("wrap", 7),
    ("unwrap", 5),
    ("derive", 5),
    ("budget", 8),
    ("child", 8),
    ("narrow", 4),
    ("off", 2),
    ("outside", 2),
    ("other", 3),
)
_BAG = tuple(what for what, weight in _USES for _ in range(weight))
_KEY_OF: dict[What, str] = {
    "slow": "slow",
    "edge": "edge",
    "strict": "strict",
    "ledger": "books",
    "firmware": "images",
    "wrap": "vault",
    "unwrap": "vault",
    "derive": "vault",
}
_TOKEN_OF: dict[What, str] = {"budget": "budget", "child": "child", "narrow": "narrow"}
_TOKEN_OF["outside"] = "narrow"


def scenario_of(seed: int, profile: str | None = None, *, nodes: int | None = None) -> Scenario:
    """The run of a seed."""
    chosen = profile or profile_of(seed)
    dice = Dice(seed, chosen)
    count = nodes or dice.one_of((1, 2, 2, 2, 2, 3), "nodes")
    if nodes is None and chosen in ("lost_notice", "contention"):
        count = max(2, count)  # one node alone has neither
    ops = _operations(dice, count)
    faults = PROFILES[chosen](dice, count, ops)
    numbered = (
        _numbered(fault, number)
        for number, fault in enumerate(sorted(faults, key=lambda fault: fault.at_us))
    )
    skew = 0 if chosen == "clock_jump" else _SKEW_MS
    return Scenario(
        seed=seed,
        profile=chosen,
        nodes=count,
        skews_ms=tuple(dice.between(-skew, skew, "skew", n) for n in range(count)),
        drifts_ppm=tuple(dice.between(-_DRIFT_PPM, _DRIFT_PPM, "drift", n) for n in range(count)),
        ops=ops,
        faults=tuple(numbered),
    )


def profile_of(seed: int) -> str:
    """All profiles in turn."""
    return tuple(PROFILES)[seed % len(PROFILES)]


def _numbered(fault: Fault, number: int) -> Fault:
    return Fault(
        number=number,
        kind=fault.kind,
        at_us=fault.at_us,
        node=fault.node,
        span_us=fault.span_us,
        amount=fault.amount,
        op=fault.op,
    )


# --- what clients do ------------------------------------------------------------------------------


def _operations(dice: Dice, nodes: int) -> tuple[Op, ...]:
    made = sorted((*_uses(dice), *_changes(dice)), key=lambda item: item[0])
    ops: list[Op] = []
    for number, (at_us, what, key, token, value) in enumerate(made):
        once = "" if what == "edge" else f"o{number}"
        if what == "other":
            before = [op for op in ops if op.what == "jwt"]
            once = before[-1].once if before else once
        ops.append(
            Op(
                number=number,
                at_us=at_us,
                what=what,
                key=key,
                token=token,
                once=once,
                home=dice.below(nodes, "home", number),
                value=number + 1 if value == 0 else value,
            )
        )
    return tuple(ops)


_Made = tuple[int, What, str, str, int]


def _uses(dice: Dice) -> Iterator[_Made]:
    for number in range(_OPS):
        at_us = dice.below(HORIZON_US, "at", number)
        what = dice.one_of(_BAG, "what", number)
        key = _KEY_OF.get(what, "tokens")
        for follower in range(dice.between(2, 6, "burst", number) if what == "edge" else 1):
            yield at_us + follower * 9 * _MS, what, key, _TOKEN_OF.get(what, key), 0


_RACERS: dict[str, tuple[What, str]] = {
    "edge": ("edge", "edge"),
    "strict": ("strict", "strict"),
    "tokens": ("jwt", "tokens"),
    "vault": ("wrap", "vault"),
    "books": ("ledger", "books"),
    "slow": ("slow", "slow"),
}


def _race(dice: Dice, key: str, stop_us: int) -> Iterator[_Made]:
    """Uses of a key from just before it is stopped on: some come in between, on any node."""
    if key not in _RACERS:
        return
    what, token = _RACERS[key]
    for turn in range(12 if key == "edge" else 5):
        reach_ms = 2_400 if key == "edge" and turn % 2 else 12
        before_ms = 300 if key == "slow" and turn % 2 else 8
        off_us = dice.between(-before_ms * _MS, reach_ms * _MS, "race", key, stop_us, turn)
        yield stop_us + off_us, what, key, token, 0


def _changes(dice: Dice) -> Iterator[_Made]:
    """What an operator does meanwhile: some keys stop and come back, some do not."""

    def at(name: str, least_us: int = 1_000_000) -> int:
        return dice.between(least_us, HORIZON_US - 1_000_000, name)

    for turn in range(dice.between(1, 3, "suspensions")):
        key = dice.one_of(
            ("strict", "edge", "edge", "tokens", "vault", "books", "slow", "slow"), "stops", turn
        )
        stopped = at(f"suspend {turn}")
        yield stopped, "suspend", key, "", 0
        yield from _race(dice, key, stopped)
        yield stopped + dice.between(300, 2_500, "stop", turn) * _MS, "resume", key, "", 0
    if dice.chance(400_000, "compromise?"):
        key = dice.one_of(("strict", "edge", "images", "slow"), "lost")
        lost = at("compromise", HORIZON_US // 2)
        yield lost, "compromise", key, "", 0
        yield from _race(dice, key, lost)
    if dice.chance(500_000, "link?"):
        token = dice.one_of(("budget", "child", "narrow", "edge", "strict"), "link")
        ended = at("link", HORIZON_US // 3)
        yield ended, "revoke_link", "tokens", token, 0
        yield from _race(dice, token, ended)
    if dice.chance(400_000, "handles?"):
        key = dice.one_of(("tokens", "edge", "books", "vault"), "handles")
        revoked = at("handles", HORIZON_US // 3)
        yield revoked, "revoke_key", key, "", 0
        yield from _race(dice, key, revoked)
        yield revoked + 200 * _MS, "issue", key, key, 0
    yield from _many(dice, at)
    if dice.chance(700_000, "rotate?"):
        key = dice.one_of(("tokens", "slow"), "rotated")
        rotated = dice.between(200_000, 4_000_000, "rotated at")
        yield rotated, "rotate", key, "", 0
        if dice.chance(350_000, "back?"):
            later = rotated + dice.between(2_500, 6_000, "back") * _MS
            yield later, dice.one_of(("roll_back", "promote"), "which"), key, "", 0


def _many(dice: Dice, at: Callable[[str], int]) -> Iterator[_Made]:
    """Many keys at once: a purpose suspended, a tenant's handles ended, or an emergency stop."""
    stopped = at("many")
    match dice.below(10, "many?"):
        case 0 | 1:
            yield stopped, "revoke_many", str(Purpose.JWT), "", 0
            for key in ("tokens", "slow"):
                yield from _race(dice, key, stopped)
                yield stopped + 1_300 * _MS, "resume", key, "", 0
        case 2 | 3:
            yield stopped, "revoke_many", TENANT, "", 0
            for key in ("edge", "strict"):
                yield from _race(dice, key, stopped)
                yield stopped + 900 * _MS, "issue", key, key, 0
        case 4 | 5 | 6:
            scope = dice.one_of((TENANT, ""), "emergency of")
            yield stopped, "emergency", scope, "", 0
            for key in ("edge", "strict", "tokens"):
                yield from _race(dice, key, stopped)
            yield stopped + 1_100 * _MS, "emergency_end", scope, "", 0
        case _:
            return


# --- what stands against them ---------------------------------------------------------------------

_Faults = Iterator[Fault]
_Spread = Callable[[Dice, int, tuple[Op, ...]], _Faults]


def _times(dice: Dice, kind: Kind, least: int, most: int) -> Iterator[tuple[int, int]]:
    """(turn, when) of some faults of a kind."""
    for turn in range(dice.between(least, most, kind, "count")):
        yield turn, dice.between(300_000, HORIZON_US - 500_000, kind, "at", turn)


def _lasting(
    kind: Kind, least: int, most: int, spans_ms: tuple[int, int], amounts: tuple[int, int] = (0, 0)
) -> _Spread:
    """Faults of one node, each for a while."""

    def spread(dice: Dice, nodes: int, _ops: tuple[Op, ...]) -> _Faults:
        for turn, at_us in _times(dice, kind, least, most):
            yield Fault(
                number=0,
                kind=kind,
                at_us=at_us,
                node=dice.below(nodes, kind, "node", turn),
                span_us=dice.between(*spans_ms, kind, "span", turn) * _MS,
                amount=dice.between(*amounts, kind, "amount", turn),
            )

    return spread


def _of_messages(kind: Kind, least: int, most: int, spans_ms: tuple[int, int]) -> _Spread:
    """Faults of single requests."""

    def spread(dice: Dice, nodes: int, ops: tuple[Op, ...]) -> _Faults:
        for turn in range(dice.between(least, most, kind, "count")):
            op = dice.one_of(ops, kind, "op", turn)
            yield Fault(
                number=0,
                kind=kind,
                at_us=op.at_us,
                node=dice.below(nodes, kind, "node", turn),
                span_us=dice.between(*spans_ms, kind, "span", turn) * _MS,
                op=op.number,
            )

    return spread


def _crashes(dice: Dice, nodes: int, ops: tuple[Op, ...], *, most: int = 7) -> _Faults:
    """At once, in order, or at a step of a commit that is still to come."""
    del ops
    for turn, at_us in _times(dice, "crash", most // 2, most):
        how = dice.below(100, "crash", "how", turn)
        amount = 0
        if how >= 45:
            amount = -1 if how >= 88 else dice.between(1, 60, "crash", "step", turn)
        yield Fault(
            number=0,
            kind="crash",
            at_us=at_us,
            node=dice.below(nodes, "crash", "node", turn),
            span_us=dice.between(50, 1_500, "crash", "span", turn) * _MS,
            amount=amount,
        )


def _jumps(dice: Dice, nodes: int, ops: tuple[Op, ...], *, most: int = 6) -> _Faults:
    """The wall clock is set by seconds, hours or more than a day, forth and back.

    In half of the runs each time on all nodes by the same, as a time server that is wrong does:
    only there the overlap of a rollout is held to the millisecond. Once, on all, just after a
    rollout has begun.
    """
    together = dice.chance(500_000, "clock_jump", "together")
    everyone = range(nodes)
    jumps: list[tuple[int, int, range]] = []
    for turn, at_us in _times(dice, "clock_jump", most // 2, most):
        reach = dice.one_of((5_000, 3_600_000, _DAY_MS + 3_600_000), "clock_jump", "reach", turn)
        forth = dice.chance(650_000, "clock_jump", "forth", turn)
        node = dice.below(nodes, "clock_jump", "node", turn)
        struck = everyone if together else range(node, node + 1)
        jumps.append((at_us, reach if forth else -min(reach, _BACK_MAX_MS), struck))
    for op in ops:
        if op.what == "rotate":
            at_us = op.at_us + dice.between(200, 1_200, "clock_jump", "publish") * _MS
            jumps.append((at_us, 3_600_000, everyone))
    for at_us, amount, struck in jumps:
        for node in struck:
            yield Fault(number=0, kind="clock_jump", at_us=at_us, node=node, amount=amount)


def _slow_at_stops(dice: Dice, nodes: int, ops: tuple[Op, ...]) -> _Faults:
    """The custody is slow just when a key that it works for is stopped."""
    for op in ops:
        if op.what in ("suspend", "compromise") and op.key == "slow":
            for node in range(nodes):
                yield Fault(
                    number=0,
                    kind="slow_custody",
                    at_us=op.at_us - dice.between(300, 400, "before", op.number) * _MS,
                    node=node,
                    span_us=600 * _MS,
                    amount=dice.between(250_000, 450_000, "slow", op.number, node),
                )


def _none(_dice: Dice, _nodes: int, _ops: tuple[Op, ...]) -> _Faults:
    return iter(())


def _all(*spreads: _Spread) -> _Spread:
    def spread(dice: Dice, nodes: int, ops: tuple[Op, ...]) -> _Faults:
        for one in spreads:
            yield from one(dice, nodes, ops)

    return spread


def _some(*spreads: _Spread) -> _Spread:
    """Each of them in three of four seeds."""

    def spread(dice: Dice, nodes: int, ops: tuple[Op, ...]) -> _Faults:
        for number, one in enumerate(spreads):
            if dice.chance(750_000, "has", number):
                yield from one(dice, nodes, ops)

    return spread


_AMOUNT_SLOW_US = (20_000, 400_000)
_AMOUNT_LATE_US = (20_000, 250_000)

PROFILES: dict[str, _Spread] = {
    "calm": _none,
    "crash": _crashes,
    "delay": _all(
        _of_messages("delay", 20, 30, (30, 900)),
        _lasting("delay", 2, 4, (400, 1_500), _AMOUNT_LATE_US),
    ),
    "duplicate": _of_messages("duplicate", 20, 30, (0, 400)),
    "reorder": _of_messages("reorder", 20, 30, (20, 250)),
    "disk_full": _lasting("disk_full", 4, 7, (100, 1_200)),
    "fsync": _lasting("fsync", 7, 12, (0, 0), (1, 2)),
    "slow_custody": _all(
        _lasting("slow_custody", 4, 6, (400, 2_000), _AMOUNT_SLOW_US), _slow_at_stops
    ),
    "clock_jump": _jumps,
    "suspend": _lasting("suspend", 4, 7, (200, 4_000)),
    "database": _lasting("database", 4, 7, (100, 1_500)),
    "lost_notice": _lasting("lost_notice", 5, 8, (1_000, 4_000)),
    "contention": _lasting("contention", 7, 12, (0, 0), (1, 3)),
    "mixed": _some(
        partial(_crashes, most=3),
        _of_messages("delay", 4, 9, (30, 900)),
        _lasting("delay", 1, 2, (300, 900), _AMOUNT_LATE_US),
        _of_messages("duplicate", 4, 9, (0, 400)),
        _of_messages("reorder", 4, 9, (20, 250)),
        _lasting("disk_full", 1, 2, (100, 700)),
        _lasting("fsync", 1, 4, (0, 0), (1, 2)),
        _lasting("slow_custody", 1, 2, (300, 1_200), _AMOUNT_SLOW_US),
        partial(_jumps, most=2),
        _lasting("suspend", 1, 2, (200, 3_500)),
        _lasting("database", 1, 2, (100, 900)),
        _lasting("lost_notice", 1, 3, (500, 3_000)),
        _lasting("contention", 1, 4, (0, 0), (1, 3)),
    ),
}

FLOORS: dict[str, dict[str, float]] = {
    "calm": {},
    "crash": {"crash": 2.0},
    "delay": {"delay": 15.0},
    "duplicate": {"duplicate": 12.0},
    "reorder": {"reorder": 5.0},
    "disk_full": {"disk_full": 4.0},
    "fsync": {"fsync": 5.0},
    "slow_custody": {"slow_custody": 5.0},
    "clock_jump": {"clock_jump": 3.0},
    "suspend": {"suspend": 2.0},
    "database": {"database": 3.0},
    "lost_notice": {"lost_notice": 0.5},
    "contention": {"contention": 5.0},
    "mixed": {
        "crash": 0.5,
        "delay": 3.0,
        "duplicate": 1.5,
        "reorder": 0.7,
        "disk_full": 0.3,
        "fsync": 0.7,
        "slow_custody": 0.7,
        "clock_jump": 0.5,
        "suspend": 0.4,
        "database": 0.4,
        "lost_notice": 0.05,
        "contention": 0.7,
    },
}
