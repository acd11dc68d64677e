"""What a drill holds a node to: each check a pure function of what was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, takewhile

import msgspec

from keystead.drills.findings import Check, check
from keystead.drills.rotation.acts import FAULT, HEALTHY, INCIDENT
from keystead.drills.rotation.bounds import share_bounds
from keystead.drills.rotation.lengths import ROUND_MS
from keystead.drills.rotation.trace import Act, Signed, Span, Trace, spans, tokens_of
from keystead.keys.lifecycle import State
from keystead.keys.rollout.commands import EvidenceInfo
from keystead.keys.rollout.model import Rollout, Stage, Status
from keystead.keys.rollout.table import length_ms

__all__ = ["ALL", "WORK_MS", "checks", "rolled_back_after"]

ALL = "all"
"""The act of a check that is about the whole drill."""
WORK_MS = 1_000
"""What a round's own work may take, beside the time between two rounds, on a machine that is
busy: it is added to an evaluation period."""

_BOTH_STAGES = frozenset({Stage.CANARY, Stage.RAMP})
_SHOWN = 3


def checks(trace: Trace) -> Iterator[Check]:
    """All checks, act by act, and those of the whole drill at the end."""
    for act in trace.acts:
        if act.gave_up:
            yield check(act.name, "the act", "to end by itself", act.gave_up, held=False)
            continue
        yield from _ACTS[act.name](trace, act)
    missing = [name for name in _ACTS if name not in {act.name for act in trace.acts}]
    for name in missing:
        yield check(name, "the act", "to be played", "not reached", held=False)
    yield from _whole(trace)


# --- the acts ------------------------------------------------------------------------------------


def _healthy(trace: Trace, act: Act) -> Iterator[Check]:
    evidence = act.rollouts[0]
    rollout = evidence.rollout
    seen = _seen(trace, rollout)
    yield _stages(act, rollout, _through(rollout))
    yield _lengths(act, rollout)
    yield _before_published(act, trace, rollout)
    for span in spans(rollout):
        if span.stage in _BOTH_STAGES:
            yield _share(act, trace, rollout, span)
    yield _grows(act, trace, rollout)
    yield _flips(act, seen, [rollout.previous, rollout.next], "to the new version, once")
    yield _after_promotion(act, trace, rollout)
    lost = (rollout.previous, State.DEACTIVATED)
    yield _standing(act, rollout, primary=rollout.next, lost=lost, keys={rollout.next})


def _fault(trace: Trace, act: Act) -> Iterator[Check]:
    evidence = act.rollouts[0]
    rollout = evidence.rollout
    yield _stages(act, rollout, _until_failed(rollout, "rolled back"))
    yield _before_published(act, trace, rollout)
    yield _tolerated(act)
    yield _in_time(act, rollout, evidence)
    yield _after_rollback(act, trace, rollout)
    way = [rollout.previous, rollout.next, rollout.previous]
    yield _flips(act, _seen(trace, rollout), way, "to the new version, and back with it")
    lost, both = (rollout.next, State.SUSPENDED), {rollout.previous, rollout.next}
    yield _standing(act, rollout, primary=rollout.previous, lost=lost, keys=both)
    yield _reports(act, trace, evidence)


def _incident(trace: Trace, act: Act) -> Iterator[Check]:
    evidence = act.rollouts[0]
    rollout = evidence.rollout
    yield _stages(act, rollout, _until_failed(rollout, "halted"))
    yield _before_published(act, trace, rollout)
    yield _tolerated(act)
    yield _in_time(act, rollout, evidence)
    yield check(
        act.name,
        "after the halt",
        "halted, look after look",
        ", ".join(act.halts),
        held=bool(act.halts) and set(act.halts) == {Status.HALTED},
    )
    way = [rollout.previous, rollout.next]
    yield _flips(act, _seen(trace, rollout), way, "to the new version, and none back")
    yield check(
        act.name,
        "asked to go back",
        "refused: it began as an incident",
        act.refused or "not refused",
        held="incident" in act.refused,
    )
    yield _reports(act, trace, evidence)
    if len(act.rollouts) < 2:  # noqa: PLR2004  the halted one, and the one that ends it
        yield check(act.name, "a good version", "ends the halt", "none came", held=False)
        return
    good = act.rollouts[1].rollout
    yield _stages(act, good, _through(good), what="a good version ends the halt")
    lost = (rollout.next, State.SUSPENDED)
    yield _standing(act, good, primary=good.next, lost=lost, keys={good.next})


_ACTS: dict[str, Callable[[Trace, Act], Iterator[Check]]] = {
    HEALTHY: _healthy,
    FAULT: _fault,
    INCIDENT: _incident,
}


# --- the whole drill -----------------------------------------------------------------------------


def _whole(trace: Trace) -> Iterator[Check]:
    tokens = trace.signed
    yield check(
        ALL,
        "requests that failed",
        "0",
        _few(trace.failures, of=len(tokens)),
        held=not trace.failures and bool(tokens),
    )
    for what, good in (
        ("tokens verified at once", [token.early for token in tokens]),
        ("tokens verified at the end of their life", [token.late for token in tokens]),
    ):
        count = good.count(True)
        why = f" ({trace.unverified[0]})" if trace.unverified else ""
        yield check(ALL, what, f"{len(tokens):,}", f"{count:,}{why}", held=0 < count == len(tokens))
    yield check(
        ALL,
        "tokens of unknown key ids (I12)",
        "0",
        f"{trace.unknown}; key set fetched {trace.fetches:,} times, {trace.unchanged:,} by 304",
        held=not trace.unknown and 0 < trace.unchanged < trace.fetches,
    )
    received = Counter(token.version for token in tokens)
    yield check(
        ALL,
        "records of tokens (I2)",
        _by_version(received),
        _by_version(trace.counted),
        held=bool(received) and received == trace.counted,
    )
    yield _step_records(trace)


def _step_records(trace: Trace) -> Check:
    """Each decision of each rollout has its record, under its epoch."""
    steps = [
        (step.epoch, f"rollout.{step.event.replace(' ', '_')}")
        for act in trace.acts
        for evidence in act.rollouts
        for step in evidence.rollout.steps
    ]
    due = set(steps)
    found = {(record.epoch, record.operation) for record in trace.found}
    lacking = sorted(due - found)
    return check(
        ALL,
        "records of the steps",
        f"{len(due)}",
        f"{len(due) - len(lacking)}" + "".join(f"; no {name} at {at}" for at, name in lacking[:3]),
        held=bool(due) and not lacking,
    )


# --- parts ---------------------------------------------------------------------------------------


def rolled_back_after(rollout: Rollout, evidence: EvidenceInfo) -> int | None:
    """Milliseconds from the report that passed the limit to the decision, by the node's clock."""
    of_new = sorted(report.at_ms for report in evidence.reports if report.version == rollout.next)
    limit = rollout.plan.gates.reporters
    if len(of_new) <= limit:
        return None
    return max(0, rollout.steps[-1].at_ms - of_new[limit])


def _seen(trace: Trace, rollout: Rollout) -> list[Signed]:
    """Tokens from the rollout's beginning until the next one's, in the order of their records.

    A rollout whose evidence is missing still shows by its version, which is later than this one's.
    """
    begins = (evidence.rollout.steps[0].epoch for act in trace.acts for evidence in act.rollouts)
    since = rollout.steps[0].epoch
    until = min((epoch for epoch in begins if epoch > since), default=0)
    seen = sorted(tokens_of(trace.signed, since, until), key=lambda token: token.seq)
    return list(takewhile(lambda token: token.version <= rollout.next, seen))


def _through(rollout: Rollout) -> list[str]:
    """The steps of a rollout that goes through."""
    ramp = ["ramp"] * len(rollout.plan.ramp.steps_ppm)
    return ["publish", "canary", *ramp, "promote", "drain", "retire"]


def _until_failed(rollout: Rollout, event: str) -> list[str]:
    """The steps of one that failed while the new version was in use, wherever that was."""
    through = _through(rollout)[:-1]
    return [*through[: max(2, len(rollout.steps) - 1)], event]


def _stages(act: Act, rollout: Rollout, wanted: list[str], what: str = "stages") -> Check:
    began_ms = rollout.began_ms
    met = [(step.event, (step.at_ms - began_ms) / 1000) for step in rollout.steps]
    return check(
        act.name,
        what,
        ", ".join(wanted),
        ", ".join(f"{event} {at_s:.1f} s" for event, at_s in met),
        held=[event for event, _ in met] == wanted,
    )


def _lengths(act: Act, rollout: Rollout) -> Check:
    """No stage ended before its length was over."""
    found = []
    for step, following in pairwise(rollout.steps):
        place = msgspec.structs.replace(rollout, stage=step.stage, ramp=step.ramp)
        found.append((step.event, following.at_ms - step.at_ms, length_ms(place)))
    late_ms = max(spent - due for _, spent, due in found)
    short = [f"{name} {spent} of {due} ms" for name, spent, due in found if spent < due]
    return check(
        act.name,
        "lengths",
        "each stage at least its own",
        ", ".join(short) or f"all; at most {late_ms / 1000:.1f} s more",
        held=not short,
    )


def _before_published(act: Act, trace: Trace, rollout: Rollout) -> Check:
    """I12: nothing is signed by a version that has not stood published for the overlap."""
    of_new = [token for token in trace.signed if token.version == rollout.next]
    canary = next((step for step in rollout.steps if step.event == "canary"), None)
    early = [token for token in of_new if canary is None or token.epoch < canary.epoch]
    stood_s = 0.0 if canary is None else (canary.at_ms - rollout.began_ms) / 1000
    overlap_s = rollout.plan.publish.overlap_ms / 1000
    return check(
        act.name,
        "tokens before the overlap was over (I12)",
        f"0; published {overlap_s:g} s before",
        f"{len(early)}; published {stood_s:.1f} s before",
        held=not early and stood_s >= overlap_s,
    )


def _share(act: Act, trace: Trace, rollout: Rollout, span: Span) -> Check:
    """Of the contexts seen at a stage, those that the new version signed for at its end."""
    sides = _sides(trace, span)
    count = len(sides)
    new = sum(version == rollout.next for version in sides.values())
    least, most = share_bounds(count, span.share_ppm)
    share = new / count if count else 0.0
    return check(
        act.name,
        f"share at {span.label}",
        f"{least} to {most} of {count} contexts",
        f"{new}, {share:.0%}",
        held=count > 0 and least <= new <= most,
    )


def _sides(trace: Trace, span: Span) -> dict[int, int]:
    """Each context that was seen at a stage, and which version signed for it last."""
    seen = sorted(tokens_of(trace.signed, span.epoch, span.until), key=lambda token: token.seq)
    return {token.context: token.version for token in seen}


def _grows(act: Act, trace: Trace, rollout: Rollout) -> Check:
    """Shares only grow: whoever has the new version keeps it at the next stage."""
    stages = [span for span in spans(rollout) if span.stage not in {Stage.PUBLISH, Stage.DRAIN}]
    lost = []
    for span, following in pairwise(stages):
        before, after = _sides(trace, span), _sides(trace, following)
        lost += [
            f"context {context} at {following.label}"
            for context, version in before.items()
            if version == rollout.next and after.get(context, version) != rollout.next
        ]
    told = " to ".join(span.label for span in stages)
    return check(act.name, "shares only grow", told, _few(lost), held=not lost)


def _flips(act: Act, seen: Sequence[Signed], way: list[int], words: str) -> Check:
    """The versions that each context met, in order, without repeats: a part of the way."""
    met: dict[int, list[int]] = {}
    for token in seen:
        before = met.setdefault(token.context, [])
        if before[-1:] != [token.version]:
            before.append(token.version)
    odd = [
        f"context {context}: {' > '.join(map(str, versions))}"
        for context, versions in sorted(met.items())
        if not _is_part(versions, way)
    ]
    moved = sum(len(versions) > 1 for versions in met.values())
    return check(
        act.name,
        "no context flips",
        words,
        _few(odd) if odd else f"{moved} of {len(met)} contexts moved so",
        held=not odd and moved > 0,
    )


def _is_part(versions: list[int], way: list[int]) -> bool:
    size = len(versions)
    return any(way[at : at + size] == versions for at in range(len(way) - size + 1))


def _after_promotion(act: Act, trace: Trace, rollout: Rollout) -> Check:
    promoted = next((step.epoch for step in rollout.steps if step.event == "promote"), None)
    since = [] if promoted is None else list(_since(trace, rollout, promoted))
    old = [token for token in since if token.version != rollout.next]
    return check(
        act.name,
        "tokens after promotion",
        f"all of version {rollout.next}",
        f"{len(since) - len(old):,} of {len(since):,}",
        held=bool(since) and not old,
    )


def _since(trace: Trace, rollout: Rollout, epoch: int) -> Iterator[Signed]:
    return (token for token in _seen(trace, rollout) if token.epoch >= epoch)


def _tolerated(act: Act) -> Check:
    """One report is within the limit; who makes it up alone gets nothing."""
    return check(
        act.name,
        f"{1.5 * ROUND_MS / 1000:g} s after one report",
        "running: one is within the limit",
        act.stood,
        held=act.stood == Status.RUNNING,
    )


def _in_time(act: Act, rollout: Rollout, evidence: EvidenceInfo) -> Check:
    """It is decided in the first evaluation after the report that passed the limit."""
    after_ms = rolled_back_after(rollout, evidence)
    last = rollout.steps[-1]
    failed = [figure.gate for figure in last.figures if figure.verdict == "fail"]
    met = "the limit was not passed"
    if after_ms is not None:
        rounds = -(-after_ms // ROUND_MS) or 1
        met = f"{after_ms} ms, {rounds} round{'s' * (rounds != 1)}; by {', '.join(failed)}"
    return check(
        act.name,
        f"{last.event} after the second report",
        f"1 round of {ROUND_MS} ms and its work, {ROUND_MS + WORK_MS} ms at most; by reporters",
        met,
        held=after_ms is not None and after_ms <= ROUND_MS + WORK_MS and failed == ["reporters"],
    )


def _after_rollback(act: Act, trace: Trace, rollout: Rollout) -> Check:
    """I4: what went back signs nothing that is recorded after it."""
    back = rollout.steps[-1]
    seen = _seen(trace, rollout)
    # By epoch, and by its place in the log: one that no record tells of lets nothing pass.
    records = (f.seq for f in trace.found if f.epoch == back.epoch)
    place = min(records, default=0)
    late = [
        token
        for token in seen
        if token.version == rollout.next and (token.epoch >= back.epoch or token.seq > place)
    ]
    of_new = [token.at_ms for token in seen if token.version == rollout.next]
    told = act.told[1].at_ms if len(act.told) > 1 else 0
    words = ""
    if of_new and told:
        first, last = min(of_new) - told, max(of_new) - told
        words = f"; the first {-first} ms before the second report, the last {last:+} ms after"
    after = sum(token.epoch >= back.epoch for token in seen)
    return check(
        act.name,
        "tokens of the new version after it (I4)",
        "0",
        f"{len(late)} of {after:,}{words}",
        held=not late and after > 0 and bool(of_new),
    )


def _standing(
    act: Act, rollout: Rollout, *, primary: int, lost: tuple[int, State], keys: set[int]
) -> Check:
    """What versions are at the end. ``keys``: in the key set when the rollout had just ended.

    What went back is published on until its tokens have expired, and then no more.
    """
    number, state = lost
    return check(
        act.name,
        "at its end" if rollout is act.rollouts[0].rollout else "after it",
        _standing_words(primary, number, state, keys),
        _standing_words(act.primary, number, act.states.get(number, "unknown"), set(act.published)),
        held=act.primary == primary
        and act.states.get(number) == state
        and set(act.published) == keys,
    )


def _standing_words(primary: int, number: int, state: str, keys: set[int]) -> str:
    kept = ", ".join(map(str, sorted(keys)))
    return f"version {primary} is primary, {number} {state}; in the key set: {kept}"


def _reports(act: Act, trace: Trace, evidence: EvidenceInfo) -> Check:
    """The evidence holds each report that counted, by its principal, citing a token it is of."""
    version = {token.seq: token.version for token in trace.signed}
    made = {(t.principal, t.cited) for t in act.told if t.counted}
    new = evidence.rollout.next
    held = {
        (report.principal, report.seq)
        for report in evidence.reports
        if report.version == new and version.get(report.seq) == new
    }
    return check(
        act.name,
        "reports in the evidence",
        f"{len(made)}, of principals of their own",
        f"{len(made & held)}, citing {', '.join(str(seq) for _, seq in sorted(made & held))}",
        held=len(made) > 1 and made <= held,
    )


def _few(found: Sequence[str], *, of: int | None = None) -> str:
    """How many there are, and the first few of them."""
    count = f"{len(found)}" + (f" of {of:,}" if of is not None else "")
    return "; ".join([count, *found[:_SHOWN]])


def _by_version(counts: dict[int, int]) -> str:
    told = (f"version {number}: {count:,}" for number, count in sorted(counts.items()))
    return ", ".join(told) or "none"
