"""What a drill holds the nodes to: each check a pure function of what was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from keystead.drills.findings import Check, check
from keystead.drills.revocation.answers import OPERATION
from keystead.drills.revocation.figures import Figures, figures, held_ms, raced, uses_by_target
from keystead.drills.revocation.trace import OK, Stopped, Trace, Use
from keystead.keys.reservations import BOUND_MS

__all__ = ["ALL", "REFUSED", "USES_MOST", "checks"]

ALL = "all"
"""The act of a check that is about the whole drill."""
REFUSED = frozenset({"handle_revoked", "key_state"})
"""What a use of something that was stopped is refused with."""
USES_MOST = 6.0
"""A revocation waits for the commit that is under way, then for its own, of more rows than a use's;
where nodes share a database, for one of each node's: no more uses than that pass meanwhile."""
_IN_USE_NS = 1_000_000_000
"""A target was in use when it was stopped if an answer came in the last second before."""
_SHOWN = 3


def checks(trace: Trace) -> Iterator[Check]:
    """All checks: of keys that record first, of those that answer first, and of the whole."""
    seen = _Seen(trace)
    yield from _durable(seen)
    yield from _best_effort(seen)
    yield from _whole(seen)


class _Seen:
    """A trace, sorted once."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.uses = uses_by_target(trace)
        self.figures = {each.ack: each for each in figures(trace)}

    def stopped(self, ack: str) -> list[Stopped]:
        return [one for _, one in self.trace.of(ack)]

    def good(self, one: Stopped) -> list[Use]:
        """Uses of what it stopped that were answered, the repeated ones left out."""
        return [
            use for use in self.uses.get(one.target, []) if use.outcome == OK and use.how != "again"
        ]

    def tried(self, stopped: Sequence[Stopped], how: str) -> list[Use]:
        targets = {one.target for one in stopped}
        return [use for use in self.trace.uses if use.how == how and use.target in targets]


# --- keys that record before they answer ----------------------------------------------------------


def _durable(seen: _Seen) -> Iterator[Check]:
    act, stopped = "durable", seen.stopped("durable")
    epochs = {one.target: one.epoch for one in stopped}
    records = [each for each in seen.trace.recorded if each.target in epochs]
    behind = [each for each in records if each.epoch >= epochs[each.target]]
    yield check(
        act,
        "records of uses at or behind the revocation's epoch (I4)",
        "0",
        f"{len(behind)} of {len(records):,}",
        held=bool(records) and not behind,
    )
    late = [use for one in stopped for use in seen.good(one) if use.began_ns > one.answered_ns]
    yield _none(act, "answered, begun after the acknowledgement", late)
    out = [
        (one, use) for one in stopped for use in seen.good(one) if use.ended_ns > one.answered_ns
    ]
    wrong = [use for one, use in out if use.epoch >= one.epoch]
    yield check(
        act,
        "on their way out at the acknowledgement",
        "each recorded before the revocation",
        f"{len(out)}, of which {len(wrong)} behind it",
        held=not wrong,
    )
    yield _refused_again(act, "stored answers asked for again (I6)", seen.tried(stopped, "again"))
    yield _refused_again(act, "tried again at the end", seen.tried(stopped, "last"))
    yield _recorded(act, seen, stopped)
    yield _in_time(act, seen.figures.get("durable"))


def _in_time(act: str, found: Figures | None) -> Check:
    met = "nothing measured"
    if found is not None:
        met = f"{found.ratio:.1f} ({found.acknowledged.median:.1f} ms of {found.use.median:.1f} ms)"
    return check(
        act,
        "median acknowledgement, in median uses of the same keys",
        f"at most {USES_MOST:g}",
        met,
        held=found is not None and 0 < found.ratio <= USES_MOST,
    )


# --- keys that may answer before they record ------------------------------------------------------


def _best_effort(seen: _Seen) -> Iterator[Check]:
    act, stopped = "best effort", seen.stopped("best_effort")
    late = [use for one in stopped for use in seen.good(one) if use.began_ns > one.answered_ns]
    yield _none(act, "answered, begun after the acknowledgement", late)
    worst = max((held_ms(one, seen.good(one)) for one in stopped), default=0.0)
    yield check(
        act,
        "from a commit to the last answer, the worst",
        f"at most {BOUND_MS} ms",
        f"{worst:.1f} ms",
        held=bool(stopped) and worst <= BOUND_MS,
    )
    told = [(one.bound_ms, one.ended_ms) for one in stopped]
    known = [ended for bound, ended in told if bound == BOUND_MS and ended is not None]
    yield check(
        act,
        "the answers tell both figures",
        f"a bound of {BOUND_MS} ms, and an end within it",
        f"{len(known)} of {len(told)}, the latest end after {max(known, default=0.0):.1f} ms",
        held=bool(told) and len(known) == len(told) and max(known) <= BOUND_MS,
    )
    first = [use for one in stopped for use in seen.good(one) if use.ack == "best_effort"]
    yield check(
        act,
        "answered before their records",
        "uses of each key, on each front",
        f"{len(first):,}",
        held=_everywhere(seen, stopped, first),
    )
    yield _refused_again(act, "tried again at the end", seen.tried(stopped, "last"))
    yield _recorded(act, seen, stopped)


def _everywhere(seen: _Seen, stopped: Sequence[Stopped], uses: Sequence[Use]) -> bool:
    """Whether there is a use of each target on each front, before it was stopped."""
    sent = {one.target: one.sent_ns for one in stopped}
    met = {(use.target, use.front) for use in uses if use.began_ns < sent[use.target]}
    fronts = range(len(seen.trace.fronts))
    return bool(sent) and all((target, front) in met for target in sent for front in fronts)


# --- both, and all together -----------------------------------------------------------------------


def _none(act: str, what: str, met: Sequence[Use]) -> Check:
    return check(act, what, "0", str(len(met)), held=not met)


def _refused_again(act: str, what: str, tried: Sequence[Use]) -> Check:
    wrong = [use for use in tried if use.outcome not in REFUSED]
    return check(
        act,
        what,
        "refused",
        f"{len(tried) - len(wrong):,} of {len(tried):,}" + _codes(wrong),
        held=bool(tried) and not wrong,
    )


def _recorded(act: str, seen: _Seen, stopped: Sequence[Stopped]) -> Check:
    """Each answer has its record, and each record its answer; by the request's id."""
    targets = {one.target for one in stopped}
    records = Counter(each.request for each in seen.trace.recorded if each.target in targets)
    answers = Counter(use.request for one in stopped for use in seen.good(one))
    missing = answers - records
    return check(
        act,
        "answers without a record (I2)",
        "0",
        f"{missing.total()} of {answers.total():,}",
        held=bool(answers) and not missing,
    )


def _whole(seen: _Seen) -> Iterator[Check]:
    trace = seen.trace
    yield check(
        ALL,
        "revocations",
        f"{len(trace.targets)} acknowledged",
        trace.gave_up or str(len(trace.stopped)),
        held=not trace.gave_up and len(trace.stopped) == len(trace.targets),
    )
    yield check(
        ALL,
        "in use on every front when it was stopped",
        "all",
        f"{sum(map(_in_use(seen), trace.stopped))} of {len(trace.stopped)}",
        held=bool(trace.stopped) and all(map(_in_use(seen), trace.stopped)),
    )
    met = [use for one in trace.stopped for use in raced(one, seen.uses.get(one.target, []))]
    yield check(
        ALL,
        "uses under way between a revocation and its answer",
        "some on every front",
        f"{len(met):,}",
        held=len({use.front for use in met}) == len(trace.fronts),
    )
    yield _ordered(trace)
    yield _changes(trace)
    yield _other_refusals(trace)
    yield _neighbours(trace)


def _in_use(seen: _Seen) -> Callable[[Stopped], bool]:
    """Whether something was in use: by an answer on each front shortly before."""
    fronts = set(range(len(seen.trace.fronts)))

    def in_use(one: Stopped) -> bool:
        since = one.sent_ns - _IN_USE_NS
        return fronts == {
            use.front for use in seen.good(one) if since <= use.ended_ns <= one.answered_ns
        }

    return in_use


def _ordered(trace: Trace) -> Check:
    """Each was sent after the one before it was acknowledged, so its epoch is greater (I4)."""
    epochs = [one.epoch for one in trace.stopped]
    wrong = sum(after <= before for before, after in pairwise(epochs))
    return check(
        ALL,
        "epochs of the revocations",
        "each greater than the one before",
        f"{wrong} out of order"
        if wrong
        else f"{min(epochs, default=0)} to {max(epochs, default=0)}",
        held=bool(epochs) and not wrong,
    )


def _changes(trace: Trace) -> Check:
    """The record that each answer names is that of the revocation, under that epoch."""
    found = {each.target: each for each in trace.changes}
    right = [
        one
        for one in trace.stopped
        if (each := found.get(one.target)) is not None
        and each.own
        and each.operation == OPERATION
        and (each.epoch, each.outcome) == (one.epoch, OK)
    ]
    return check(
        ALL,
        "records that the answers name",
        "each the revocation's own",
        f"{len(right)} of {len(trace.stopped)}",
        held=bool(right) and len(right) == len(trace.stopped),
    )


def _other_refusals(trace: Trace) -> Check:
    """Whatever was refused was refused because it had been stopped."""
    refused = [use for use in trace.uses if use.target >= 0 and use.outcome != OK]
    other = [use for use in refused if use.outcome not in REFUSED]
    return check(
        ALL,
        "refusals",
        " or ".join(sorted(REFUSED)),
        f"{len(refused) - len(other):,} of {len(refused):,}" + _codes(other),
        held=bool(refused) and not other,
    )


def _neighbours(trace: Trace) -> Check:
    """Handles beside those that were revoked, of the same keys, must not notice."""
    steady = [use for use in trace.uses if use.how == "steady"]
    failed = [use for use in steady if use.outcome != OK]
    return check(
        ALL,
        "uses of other handles of the same keys",
        "all answered",
        f"{len(steady) - len(failed):,} of {len(steady):,}" + _codes(failed),
        held=bool(steady) and not failed,
    )


def _codes(uses: Sequence[Use]) -> str:
    counts = Counter(use.outcome for use in uses)
    shown = ", ".join(f"{count} {code}" for code, count in counts.most_common(_SHOWN))
    return f"; {shown}" if shown else ""
