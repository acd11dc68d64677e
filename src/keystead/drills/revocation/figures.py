"""What a drill measured: how long until a revocation holds, beside what a commit takes then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil
from statistics import median

import msgspec

from keystead.drills.revocation.trace import OK, Stopped, Trace, Use

__all__ = ["Figures", "Times", "figures", "held_ms", "raced", "uses_by_target"]

_NS_PER_MS = 1e6


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """So many milliseconds: the middle, the 99th percentile by nearest rank, and the most."""

    median: float
    p99: float
    most: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of the keys that answer in one way. All times in milliseconds.

    ``acknowledged``: from sending a revocation to its answer. ``commit``: of it, from taking the
    command to the commit, as the node says; ``ended``: after that, until what was answered before
    its record had ended, as it says. ``use``: single uses of the same keys that were answered, from
    sending to the answer. ``held``: from the commit to the last answer that let a use through;
    less than nothing if that came before. ``raced``: uses that were under way between sending a
    revocation and its answer. ``refused``: uses that were refused.
    """

    ack: str
    revocations: int
    acknowledged: Times
    commit: Times
    use: Times
    held: Times
    ended: Times | None
    raced: int
    refused: int

    @property
    def ratio(self) -> float:
        """The median acknowledgement, in median uses."""
        return self.acknowledged.median / self.use.median if self.use.median else 0.0


def figures(trace: Trace) -> tuple[Figures, ...]:
    """By the way in which keys answer; without those that nothing was measured of."""
    return tuple(_figures(trace))


def _figures(trace: Trace) -> Iterator[Figures]:
    uses = uses_by_target(trace)
    for ack in ("durable", "best_effort"):
        stopped = [one for _, one in trace.of(ack)]
        hot = [use for one in stopped for use in uses.get(one.target, []) if use.how == "hot"]
        good = [use for use in hot if use.outcome == OK and use.ack == ack]
        if not stopped or not good:
            continue
        ended = [one.ended_ms for one in stopped if one.ended_ms is not None]
        yield Figures(
            ack=ack,
            revocations=len(stopped),
            acknowledged=_times((one.answered_ns - one.sent_ns) / _NS_PER_MS for one in stopped),
            commit=_times(one.commit_ms or 0.0 for one in stopped),
            use=_times((use.ended_ns - use.began_ns) / _NS_PER_MS for use in good),
            held=_times(held_ms(one, uses.get(one.target, [])) for one in stopped),
            ended=_times(ended) if ended else None,
            raced=sum(len(raced(one, uses.get(one.target, []))) for one in stopped),
            refused=sum(use.outcome != OK for use in hot),
        )


def uses_by_target(trace: Trace) -> dict[int, list[Use]]:
    """The uses of each target, in order of their beginning."""
    found: dict[int, list[Use]] = {}
    for use in trace.uses:
        found.setdefault(use.target, []).append(use)
    return found


def held_ms(one: Stopped, uses: Iterable[Use]) -> float:
    """From a commit to the last answer that let a use through; minus what it came before it."""
    ended = [use.ended_ns for use in uses if use.outcome == OK]
    return (max(ended, default=one.committed_ns) - one.committed_ns) / _NS_PER_MS


def raced(one: Stopped, uses: Iterable[Use]) -> list[Use]:
    """Uses that a revocation met on its way."""
    return [
        use
        for use in uses
        if use.how == "hot" and use.began_ns < one.answered_ns and use.ended_ns > one.sent_ns
    ]


def _times(values: Iterable[float]) -> Times:
    ordered = sorted(values)
    return Times(
        median=round(float(median(ordered)), 3),
        p99=round(float(ordered[max(0, ceil(0.99 * len(ordered)) - 1)]), 3),
        most=round(float(ordered[-1]), 3),
    )
