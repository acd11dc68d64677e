"""What was seen of a drill, as values: everything that its checks and its picture are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from keystead.keys.rollout.commands import EvidenceInfo
from keystead.keys.rollout.model import Rollout, Stage, Status, Step
from keystead.keys.rollout.plan import WHOLE_PPM

__all__ = ["Act", "Found", "Signed", "Span", "Told", "Trace", "spans", "tokens_of"]


class Signed(msgspec.Struct, kw_only=True):
    """One token. ``at_ms``: when its answer came, by this machine's clock, in Unix milliseconds.

    ``early``, ``late``: whether a relying party verified it at once, and again at the end of its
    life; None: that has not been tried.
    """

    at_ms: int
    seq: int
    epoch: int
    context: int
    version: int
    early: bool | None = None
    late: bool | None = None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One report of a relying party: of the token ``cited``, in the record ``seq``."""

    principal: str
    cited: int
    seq: int
    version: int
    counted: bool
    at_ms: int


class Act(msgspec.Struct, kw_only=True):
    """One act. ``rollouts``: as their evidence tells, in order; ``told``: the reports made in it.

    ``stood``: how the rollout stood a while after the first report. ``halts``: how it stood, look
    after look, once it had halted. ``refused``: what the node said to whoever asked a halted
    incident back. ``states``, ``primary``: of the key's versions at the end; ``published``: those
    in its key set when the last rollout had just ended. ``gave_up``: what did not come in time.
    """

    name: str
    title: str
    began_ms: int
    ended_ms: int = 0
    rollouts: list[EvidenceInfo] = []
    told: list[Told] = []
    stood: str = ""
    halts: list[str] = []
    refused: str = ""
    states: dict[int, str] = {}
    primary: int = 0
    published: list[int] = []
    gave_up: str = ""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the log that tells of the key."""

    seq: int
    epoch: int
    operation: str
    version: int
    outcome: str


class Trace(msgspec.Struct, kw_only=True):
    """A whole drill.

    ``ahead_ms``: how far the node's clock is ahead of this machine's. ``failures``: requests that
    failed; ``unverified``: tokens that did not verify, and why. ``fetches``: of the key set, of
    which ``unchanged`` were answered by 304; ``unknown``: tokens whose key id was in no key set
    that the relying party held. ``rejected``: tokens that it was told to reject. ``found``: records
    of what changed; ``counted``: records of tokens, by version.
    """

    run: str
    key: str
    ahead_ms: int = 0
    signed: list[Signed] = []
    failures: list[str] = []
    unverified: list[str] = []
    fetches: int = 0
    unchanged: int = 0
    unknown: int = 0
    rejected: int = 0
    acts: list[Act] = []
    found: list[Found] = []
    counted: dict[int, int] = {}


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a rollout, or one step of its ramp: uses from its epoch on belong to it.

    ``until``: the epoch of the next one; 0: the rollout was over with it, or goes on.
    """

    label: str
    stage: Stage
    share_ppm: int
    began_ms: int
    epoch: int
    until: int
    until_ms: int


def spans(rollout: Rollout) -> tuple[Span, ...]:
    """The stages that a rollout went through, in order; not its end."""
    steps = rollout.steps
    return tuple(
        Span(
            label=_label(rollout, step),
            stage=step.stage,
            share_ppm=_share(rollout, step),
            began_ms=step.at_ms,
            epoch=step.epoch,
            until=following.epoch if following else 0,
            until_ms=following.at_ms if following else 0,
        )
        for step, following in zip(steps, (*steps[1:], None), strict=True)
        if step.status is Status.RUNNING
    )


def tokens_of(signed: Iterable[Signed], since: int, until: int) -> Iterator[Signed]:
    """Tokens recorded from one epoch on to before another; ``until`` 0: to the end."""
    return (
        token for token in signed if since <= token.epoch and (not until or token.epoch < until)
    )


def _label(rollout: Rollout, step: Step) -> str:
    share = f" {_share(rollout, step) / 10_000:g} %"
    return f"{step.stage}{share if step.stage in {Stage.CANARY, Stage.RAMP} else ''}"


def _share(rollout: Rollout, step: Step) -> int:
    match step.stage:
        case Stage.PUBLISH:
            return 0
        case Stage.CANARY:
            return rollout.plan.canary.share_ppm
        case Stage.RAMP:
            return rollout.plan.ramp.steps_ppm[step.ramp]
        case _:
            return WHOLE_PPM
