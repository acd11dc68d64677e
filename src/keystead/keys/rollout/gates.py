"""The gates of a rollout: real signals in, a verdict each out. Too little known never passes.

Signals come from three places: what the vault itself saw of each version, what relying parties
report of uses that they cite, and who has acknowledged the new public part.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.keys.rollout.choosing import share_ppm
from keystead.keys.rollout.model import GateFigure, Rollout, Stage
from keystead.keys.rollout.plan import WHOLE_PPM, Gates, pinned

__all__ = ["NOTHING_SEEN", "Seen", "Signals", "evaluate", "failed", "holding"]

Verdict = Literal["pass", "hold", "fail", "off"]


class Seen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the vault saw of one version.

    ``uses``: done and recorded; ``errors``: failed by custody's or the vault's own fault;
    ``p99_us``: of the version's own work, framing aside; no queue or commit counts, as their length
    is the callers'.
    """

    uses: int = 0
    errors: int = 0
    p99_us: int = 0


class Signals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All a rollout is judged by.

    ``window``: in the last window; ``stage``: since it came to its stage and step, as far as this
    vault has been up. ``denied``: distinct principals that the new version refused and the previous
    one would not. ``reporters``: distinct principals that reported failures of uses of the new
    version, each citing its record. ``acknowledged``: who says to hold the new public part.
    """

    window_next: Seen = Seen()
    window_previous: Seen = Seen()
    stage_next: Seen = Seen()
    stage_previous: Seen = Seen()
    denied: int = 0
    reporters: int = 0
    acknowledged: frozenset[str] = frozenset()


_ERRORS_SAMPLES = 20
"""Attempts after which errors say something, however many uses a stage waits for."""

NOTHING_SEEN = Signals()
"""As after a restart: what was counted is gone, what is durable is read again."""

_USING = frozenset({Stage.CANARY, Stage.RAMP, Stage.PROMOTE, Stage.DRAIN})
_COMPARING = frozenset({Stage.CANARY, Stage.RAMP})
_SAMPLED = frozenset({Stage.CANARY, Stage.RAMP, Stage.PROMOTE})


def evaluate(rollout: Rollout, key: Key, signals: Signals) -> tuple[GateFigure, ...]:
    """Every gate of the plan, as it stands now."""
    gates = rollout.plan.gates
    using = rollout.stage in _USING
    return (
        _samples(rollout, gates, signals),
        _errors(gates, signals, on=using),
        _p99(rollout, gates, signals, key),
        _counted("reporters", signals.reporters, gates.reporters, on=using),
        _counted("denied", signals.denied, gates.denied, on=using),
        _acknowledged(rollout, signals),
    )


def failed(figures: tuple[GateFigure, ...]) -> tuple[GateFigure, ...]:
    """Gates that say: go back."""
    return tuple(figure for figure in figures if figure.verdict == "fail")


def holding(figures: tuple[GateFigure, ...]) -> tuple[GateFigure, ...]:
    """Gates that do not let the rollout go on."""
    return tuple(figure for figure in figures if figure.verdict in {"hold", "fail"})


def _samples(rollout: Rollout, gates: Gates, signals: Signals) -> GateFigure:
    seen = signals.stage_next.uses
    verdict: Verdict = "pass" if seen >= gates.samples else "hold"
    if rollout.stage not in _SAMPLED:
        verdict = "off"
    return GateFigure(gate="samples", verdict=verdict, value=seen, limit=gates.samples)


def _errors(gates: Gates, signals: Signals, *, on: bool) -> GateFigure:
    """The worse of window and stage, each with enough attempts behind it."""
    worst, most = 0, 0
    for seen in (signals.window_next, signals.stage_next):
        attempts = seen.uses + seen.errors
        most = max(most, attempts)
        if attempts >= min(gates.samples, _ERRORS_SAMPLES):
            worst = max(worst, seen.errors * WHOLE_PPM // attempts)
    verdict: Verdict = "off" if not on else "fail" if worst > gates.error_ppm else "pass"
    return GateFigure(
        gate="errors", verdict=verdict, value=worst, limit=gates.error_ppm, samples=most
    )


def _p99(rollout: Rollout, gates: Gates, signals: Signals, key: Key) -> GateFigure:
    """Of the new version against the previous one's, in the same time; in per cent of it.

    In the window, or, where that holds too few uses, since the stage began. Where
    nothing leaves the previous version uses, as callers choose or the share is whole, it does not
    wait for them.
    """
    new, old = signals.window_next, signals.window_previous
    if min(new.uses, old.uses) < gates.samples:
        new, old = signals.stage_next, signals.stage_previous
    compared = new.p99_us * 100 // max(1, old.p99_us)
    verdict: Verdict
    if (
        not gates.p99_percent
        or rollout.stage not in _COMPARING
        or key.version(rollout.previous).state is not State.ACTIVE
    ):
        verdict = "off"
    elif min(new.uses, old.uses) < gates.samples:
        left_to_it = share_ppm(rollout) < WHOLE_PPM and not pinned(key.purpose)
        verdict = "hold" if left_to_it else "off"
    elif new.p99_us >= gates.p99_floor_us and compared > gates.p99_percent:
        verdict = "fail"
    else:
        verdict = "pass"
    return GateFigure(
        gate="p99",
        verdict=verdict,
        value=compared,
        limit=gates.p99_percent,
        samples=min(new.uses, old.uses),
    )


def _counted(name: str, value: int, limit: int, *, on: bool) -> GateFigure:
    verdict: Verdict = "off" if not on else "fail" if value > limit else "pass"
    return GateFigure(gate=name, verdict=verdict, value=value, limit=limit)


def _acknowledged(rollout: Rollout, signals: Signals) -> GateFigure:
    asked = frozenset(rollout.plan.publish.acknowledged_by)
    given = len(asked & signals.acknowledged)
    verdict: Verdict = "pass" if given == len(asked) else "hold"
    if rollout.stage is not Stage.PUBLISH or not asked:
        verdict = "off"
    return GateFigure(gate="acknowledged", verdict=verdict, value=given, limit=len(asked))
