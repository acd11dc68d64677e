"""What operators ask of rollouts and policies, and what they are told: as in JSON and frames."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from keystead.differences import Difference
from keystead.keys.commandbase import CommandBase
from keystead.keys.model import Policy
from keystead.keys.rollout.gates import Seen
from keystead.keys.rollout.model import GateFigure, Rollout, Step
from keystead.keys.rollout.plan import Plan

__all__ = [
    "ChangePolicy",
    "ChangedPolicy",
    "EvidenceInfo",
    "HistoryEntry",
    "HistoryPage",
    "ListHistory",
    "ReportInfo",
    "RolloutInfo",
    "RotateKey",
    "SetPlan",
    "ShareInfo",
    "ShowEvidence",
    "ShowRollout",
    "SteerRollout",
]


class RotateKey(CommandBase, tag="key.rotate", frozen=True, kw_only=True):
    """Make the next version and start its rollout.

    ``plan``: for this one rollout; None: the key's own, or the default of its purpose.
    ``algorithm``: of the new version; None: as the primary one. ``incident``: it never goes back.
    ``weaker``: as in :class:`SetPlan`, of a plan for this one rollout.
    """

    name: str
    plan: Plan | None = None
    algorithm: str | None = None
    incident: bool = False
    weaker: bool = False
    reason: str


class SteerRollout(CommandBase, tag="key.steer", frozen=True, kw_only=True):
    """A person moves the rollout that is under way."""

    name: str
    move: Literal["pause", "resume", "promote", "roll_back"]
    reason: str


class SetPlan(CommandBase, tag="key.plan", frozen=True, kw_only=True):
    """Set the plan of a key's coming rollouts; None: the default of its purpose again.

    ``weaker``: whoever asks knows that the new plan holds rollouts to less; else that is refused.
    """

    name: str
    plan: Plan | None
    weaker: bool = False
    reason: str


class ChangePolicy(CommandBase, tag="key.policy", frozen=True, kw_only=True):
    """Set what a key may do beyond its purpose; ``weaker`` as in :class:`SetPlan`."""

    name: str
    policy: Policy
    weaker: bool = False
    reason: str


class ShowRollout(CommandBase, tag="key.status", frozen=True, kw_only=True):
    """How a key's rollout stands."""

    name: str


class ShowEvidence(CommandBase, tag="key.evidence", frozen=True, kw_only=True):
    """All that one rollout was decided on; ``number``: which; None: the last."""

    name: str
    number: int | None = None


class ListHistory(CommandBase, tag="history.list", frozen=True, kw_only=True):
    """Changes of authority and policy, newest first; or what was in force at one point.

    ``kind``: ``key``, ``rotation``, ``tenant``, ``revocation``, ``credential``. ``at_seq``,
    ``at_ms``: of each object only what was in force there. ``before``: epochs below it only.
    """

    kind: str | None = None
    name: str | None = None
    at_seq: int | None = None
    at_ms: int | None = None
    before: int | None = None
    limit: int = 50


class ShareInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One version in a rollout: its share of new work, and what it did in the last window."""

    version: int
    state: str
    algorithm: str
    kid: str
    share_ppm: int
    published: bool
    seen: Seen


class RolloutInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How a key's rollout stands; ``status`` is ``none`` where the key never had one.

    ``waits``: what it waits for, as a person would say it. ``due_ms``: when the stage's length is
    over. ``own_plan``: the key has a plan of its own. ``starts_ms``: when its schedule begins the
    next rotation; 0: never by time. ``uses_left``: or after how many uses; -1: never.
    """

    key: str
    purpose: str
    status: str
    stage: str
    ramp: int
    number: int
    previous: int
    next: int
    incident: bool
    reason: str
    began_ms: int
    entered_ms: int
    paused_ms: int
    due_ms: int
    now_ms: int
    versions: tuple[ShareInfo, ...]
    gates: tuple[GateFigure, ...]
    waits: tuple[str, ...]
    steps: tuple[Step, ...]
    plan: Plan
    own_plan: bool
    starts_ms: int
    uses_left: int
    revision: int
    epoch: int


class ReportInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One principal's first report of a version: ``seq`` is the use that it cites."""

    principal: str
    seq: int
    at_ms: int
    version: int
    problem: str


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of an object, as it was committed.

    ``seq``: of the record that tells of it; -1: it is older than the history. ``doc``: what was in
    force from then on. ``differences``: to the revision before. ``until_seq``: where the next
    revision took its place; -1: it is in force.
    """

    kind: str
    id: str
    name: str
    revision: int
    epoch: int
    seq: int
    time_ms: int
    doc: dict[str, Any]
    differences: tuple[Difference, ...] = ()
    until_seq: int = -1
    action: str = ""
    principal: str = ""
    reason: str = ""


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Revisions; ``next``: what ``before`` is to go on, unless ``end``."""

    entries: tuple[HistoryEntry, ...]
    next: int
    end: bool


class EvidenceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout's evidence: its plan, every decision with its figures, reports, and each revision.

    ``records``: sequences of the records that tell of it, to be disclosed or proven one by one.
    """

    key: str
    purpose: str
    rollout: Rollout
    reports: tuple[ReportInfo, ...]
    acknowledged: tuple[str, ...]
    revisions: tuple[HistoryEntry, ...]
    records: tuple[int, ...]


class ChangedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of a plan or policy came to."""

    key: str
    revision: int
    differences: tuple[Difference, ...]
