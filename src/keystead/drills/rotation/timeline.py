"""What a drill's picture shows: uses per version over time, stages and events, act by act."""

from __future__ import annotations

from collections import Counter

import msgspec

from keystead.drills.rotation.trace import Act, Trace, spans
from keystead.keys.rollout.model import Rollout, Status

__all__ = ["BIN_MS", "Bin", "Mark", "Panel", "timeline"]

BIN_MS = 500
"""Every task sends two batches in that time, so that their beat does not show."""


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """So many tokens of each version came in :data:`BIN_MS` from ``at_s`` on."""

    at_s: float
    tokens: dict[int, int]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Something that began or happened."""

    at_s: float
    words: str


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One act. Times are seconds from its beginning, by the clock of the drill's machine."""

    name: str
    title: str
    length_s: float
    versions: tuple[int, ...]
    bins: tuple[Bin, ...]
    stages: tuple[Mark, ...]
    events: tuple[Mark, ...]


def timeline(trace: Trace) -> tuple[Panel, ...]:
    """The picture of each act, in order."""
    return tuple(_panel(trace, act) for act in trace.acts)


def _panel(trace: Trace, act: Act) -> Panel:
    bins: dict[int, Counter[int]] = {}
    for token in trace.signed:
        if act.began_ms <= token.at_ms < act.ended_ms:
            at = (token.at_ms - act.began_ms) // BIN_MS
            bins.setdefault(at, Counter())[token.version] += 1
    shown = sorted({version for counts in bins.values() for version in counts})
    rollouts = [evidence.rollout for evidence in act.rollouts]
    return Panel(
        name=act.name,
        title=act.title,
        length_s=max(0.0, (act.ended_ms - act.began_ms) / 1000),
        versions=tuple(shown),
        bins=tuple(
            Bin(at_s=at * BIN_MS / 1000, tokens=dict(sorted(bins[at].items())))
            for at in sorted(bins)
        ),
        stages=tuple(
            Mark(at_s=_node_s(trace, act, span.began_ms), words=span.label)
            for rollout in rollouts
            for span in spans(rollout)
        ),
        events=tuple(sorted(_events(trace, act, rollouts), key=lambda mark: mark.at_s)),
    )


def _events(trace: Trace, act: Act, rollouts: list[Rollout]) -> list[Mark]:
    own = f"{trace.key}-"  # what the names of a drill's principals begin with
    marks = [
        Mark(
            at_s=(told.at_ms - act.began_ms) / 1000,
            words=f"{told.principal.removeprefix(own)} reports a token of version {told.version}",
        )
        for told in act.told
    ]
    for rollout in rollouts:
        last = rollout.steps[-1]
        if last.status is not Status.RUNNING:
            words = _ended_words(rollout, last.status)
            marks.append(Mark(at_s=_node_s(trace, act, last.at_ms), words=words))
    return marks


def _ended_words(rollout: Rollout, status: Status) -> str:
    match status:
        case Status.FINISHED:
            return f"version {rollout.previous} is retired"
        case Status.ROLLED_BACK:
            return f"rolled back to version {rollout.previous}"
        case _:
            return f"the rollout is {status}"


def _node_s(trace: Trace, act: Act, node_ms: int) -> float:
    """A time of the node's clock as seconds of the act, by this machine's."""
    return (node_ms - trace.ahead_ms - act.began_ms) / 1000
