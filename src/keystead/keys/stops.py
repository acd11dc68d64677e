"""What people say in an incident, and what the vault answers: revocations, emergency stops."""

from __future__ import annotations

from typing import Literal

import msgspec

from keystead.keys.commandbase import CommandBase
from keystead.keys.purposes import Purpose

__all__ = [
    "BestEffort",
    "Choice",
    "EmergencyEnd",
    "EmergencyInfo",
    "EmergencyList",
    "EmergencyStop",
    "Fence",
    "PreviewRevoke",
    "Previewed",
    "Revoke",
    "Revoked",
    "ShowEmergency",
    "StoppedHandle",
    "StoppedKey",
    "What",
]

What = Literal["versions", "handles"]


class Choice(CommandBase, frozen=True, kw_only=True):
    """What to revoke, chosen in exactly one way: key, handle, purpose, tenant or labels.

    ``what``: ``versions`` of the keys, which become ``state``; or ``handles``: all of each key's,
    or (``handle``) one, by its id or by that of a link of its chain. ``version``: only this one of
    the key; None: all that may become so. ``tenant`` narrows a purpose or labels, too. Labels are
    chosen by all that are given.
    """

    what: What = "versions"
    state: Literal["suspended", "compromised"] | None = msgspec.field(default=None, name="as")
    key: str | None = None
    version: int | None = None
    handle: str | None = None
    purpose: Purpose | None = None
    tenant: str | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class Revoke(Choice, tag="revoke", frozen=True, kw_only=True):
    """Stop what is chosen: all of it in one commit, under one epoch."""

    reason: str


class PreviewRevoke(Choice, tag="revoke.preview", frozen=True, kw_only=True):
    """What a revocation would stop, and how often it was used; a page of keys, by their names.

    ``after``: the name that the page begins behind. ``handles_after``: the id of a handle, to go on
    behind it with those of one key (``key``, or of ``handle``).
    """

    after: str = ""
    handles_after: str = ""


class EmergencyStop(CommandBase, tag="emergency.stop", frozen=True, kw_only=True):
    """No key of the tenant does anything from now on; ``tenant`` None: of all tenants.

    It has to be said: who leaves it out has not decided whom to stop.
    """

    tenant: str | None
    reason: str


class EmergencyEnd(CommandBase, tag="emergency.end", frozen=True, kw_only=True):
    """Take one stop back; each is taken back as it was asked for."""

    tenant: str | None
    reason: str


class ShowEmergency(CommandBase, tag="emergency.show", frozen=True, kw_only=True):
    """Which stops are in force."""


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """From here on nothing that was revoked commits, on any node.

    ``seq``: of the first record, in the log of ``node``. ``commit_ms``: from taking the command to
    its durable commit; None in the answer to a repeated request, which nobody timed.
    """

    node: str
    seq: int
    epoch: int
    commit_ms: float | None = None


class BestEffort(msgspec.Struct, frozen=True, kw_only=True):
    """For keys whose answers may go out before their records (``ack`` ``best_effort``).

    ``bound_ms``: so long after the commit at most another node that has not heard of it may answer.
    ``ended_ms``: after so long the last such node had confirmed, or its reservation ended; 0: there
    was none.
    """

    bound_ms: int
    ended_ms: int


class StoppedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that a revocation stopped, or (in a preview) would.

    ``versions``: those that changed; ``states``: of all versions, as they are after it (in a
    preview: before it). ``rollout``: the number of the one that was paused with it; 0: none. Only
    in a preview: ``uses`` in the last 24 h, and whether there may be more (``more_uses``,
    ``more_handles``).
    """

    id: str
    name: str
    tenant: str
    purpose: str
    ack: str
    generation: int
    versions: tuple[int, ...]
    states: dict[int, str]
    rollout: int = 0
    uses: int = 0
    more_uses: bool = False
    handles: int = 0
    more_handles: bool = False


class StoppedHandle(msgspec.Struct, frozen=True, kw_only=True):
    """A handle of such a key. ``revoked``: it was already, by itself, and stays so.

    Handles of earlier generations of the key, which are dead too, cannot be told from others here.
    """

    id: str
    key: str
    principal: str
    issued_ms: int
    uses: int
    revoked: bool = False


class Previewed(msgspec.Struct, frozen=True, kw_only=True):
    """One page of what would stop; ``end``: nothing more follows, else go on after ``next``.

    ``keys_in_all``: how many keys there are in all pages. ``since_ms``: uses are counted from then
    on. ``logs``: of the nodes whose logs were counted. ``unread``: keys that a newer Keystead wrote
    in a way that this node cannot read: they may be among those meant.
    """

    keys: tuple[StoppedKey, ...]
    handles: tuple[StoppedHandle, ...]
    keys_in_all: int
    since_ms: int
    logs: tuple[str, ...]
    unread: tuple[str, ...] = ()
    next: str = ""
    end: bool = True


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """What was revoked, and since when that holds where.

    ``revoked``: the id of the link or handle, if one was. ``best_effort``: None if nothing that was
    stopped answers before its record. ``unread``: as in a preview: these were not stopped.
    """

    what: What
    fence: Fence
    keys: tuple[StoppedKey, ...] = ()
    revoked: str = ""
    best_effort: BestEffort | None = None
    unread: tuple[str, ...] = ()


class EmergencyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One stop: of which tenant (``*``: of all), since when, by whom, and why."""

    tenant: str
    stopped: bool
    since_ms: int
    by: str
    reason: str
    keys: int
    fence: Fence | None = None
    best_effort: BestEffort | None = None


class EmergencyList(msgspec.Struct, frozen=True, kw_only=True):
    """The stops in force."""

    stops: tuple[EmergencyInfo, ...]
