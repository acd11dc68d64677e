"""What a rollout does and when: its plan, as a value; the defaults of each purpose.

Lengths are milliseconds. Shares are parts per million, so that comparing them is exact.
:data:`FIELDS` is the table of all fields: how a plan file names and writes each, and its bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

import msgspec

from keystead.errors import MalformedRequest
from keystead.keys.model import Policy, check_name
from keystead.keys.purposes import Purpose
from keystead.policyfile import (
    COUNT,
    FLAG,
    LENGTH_MS,
    LENGTH_US,
    RATIO_PERCENT,
    SHARE_PPM,
    SHARES_PPM,
    TEXTS,
    Path,
    Unit,
    choice,
)

__all__ = [
    "DAY_MS",
    "FIELDS",
    "HOUR_MS",
    "MINUTE_MS",
    "WHOLE_PPM",
    "AnyUnit",
    "Bounds",
    "Canary",
    "Drain",
    "Dual",
    "Field",
    "Flaw",
    "Gates",
    "Plan",
    "PlannedKey",
    "Promote",
    "Publish",
    "Ramp",
    "Retire",
    "Schedule",
    "check_plan",
    "check_rotates",
    "default_plan",
    "flaws",
    "incident_plan",
    "longest_life_ms",
    "pinned",
]

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
WHOLE_PPM = 1_000_000

_PINNED = frozenset({Purpose.TLS, Purpose.VPN})


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Publish(_Part, frozen=True, kw_only=True):
    """Before the first use. ``overlap_ms``: how long the public part stands published before it.

    ``cache_ms``: how long a reader may keep a publication; no longer than the overlap.
    ``acknowledged_by``: principals that must have said that they hold the new public part.
    """

    overlap_ms: int
    cache_ms: int = 5 * MINUTE_MS
    acknowledged_by: tuple[str, ...] = ()


class Canary(_Part, frozen=True, kw_only=True):
    """The first uses. ``by``: what is chosen, a context or each use by itself.

    Purposes whose callers name the version (`tls`, `vpn`: the certificate decides) choose nothing.
    """

    share_ppm: int
    length_ms: int
    by: Literal["context", "use"] = "context"


class Ramp(_Part, frozen=True, kw_only=True):
    """Growing shares, each for ``step_ms``; none: the canary is promoted at once."""

    steps_ppm: tuple[int, ...] = (250_000, 500_000)
    step_ms: int = HOUR_MS


class Promote(_Part, frozen=True, kw_only=True):
    """All new work by the new version, under the gates, for ``length_ms``."""

    length_ms: int = HOUR_MS


class Drain(_Part, frozen=True, kw_only=True):
    """How long what the previous version signed still verifies after its last use."""

    length_ms: int


class Retire(_Part, frozen=True, kw_only=True):
    """``unpublish``: the previous version leaves JWK Sets and their like when it is retired."""

    unpublish: bool


class Dual(_Part, frozen=True, kw_only=True):
    """The verifier's rule of a version with several algorithms: all of them, or any one of them.

    ``any``: for ``window_ms`` from its first use, for verifiers that do not know all; then both.
    """

    rule: Literal["both", "any"] = "both"
    window_ms: int = 0


class Gates(_Part, frozen=True, kw_only=True):
    """What a rollout is held to, in windows of ``window_ms``; past a figure it goes back.

    ``samples``: fewest uses of a version that say anything; fewer hold a stage.
    ``error_ppm``: share of uses that failed by the vault's own fault. ``p99_percent``: p99 of the
    new version as a percentage of the previous one's, looked at from ``p99_floor_us`` up; 0: off.
    ``reporters``: distinct principals that may report failures. ``denied``: distinct principals
    that the new version alone refuses.
    """

    window_ms: int = 5 * MINUTE_MS
    samples: int = 100
    error_ppm: int = 10_000
    p99_percent: int = 300
    p99_floor_us: int = 50_000
    reporters: int = 1
    denied: int = 1


class Schedule(_Part, frozen=True, kw_only=True):
    """When a rotation starts by itself; 0: never for that reason."""

    every_ms: int = 0
    uses: int = 0


class Plan(_Part, frozen=True, kw_only=True):
    """A whole plan; see each part."""

    publish: Publish
    canary: Canary
    drain: Drain
    retire: Retire
    ramp: Ramp = Ramp()
    promote: Promote = Promote()
    dual: Dual = Dual()
    gates: Gates = Gates()
    schedule: Schedule = Schedule()


_LONG_LIVED = frozenset({Purpose.FIRMWARE, Purpose.LEDGER, Purpose.CA, Purpose.SSH_CA})
"""Purposes whose artefacts are verified years after the version that signed them is retired."""


class PlannedKey(Protocol):
    """What a plan depends on of its key; the registry's `Key` and an operator's view have it."""

    @property
    def name(self) -> str:
        """The key's name, for messages."""

    @property
    def purpose(self) -> str:
        """A `Purpose`, or its name."""

    @property
    def policy(self) -> Policy:
        """What the key may do beyond its purpose."""


def default_plan(key: PlannedKey, *, incident: bool = False) -> Plan:
    """The plan of a key that has none of its own, by its purpose and policy.

    An incident's is short: it publishes for as long as readers keep a publication, no longer.
    """
    lived = longest_life_ms(key)
    retire = Retire(unpublish=key.purpose not in _LONG_LIVED)
    if incident:
        return incident_plan(Drain(length_ms=max(lived, HOUR_MS)), retire)
    return Plan(
        publish=Publish(overlap_ms=DAY_MS),
        canary=Canary(share_ppm=50_000, length_ms=HOUR_MS),
        drain=Drain(length_ms=max(lived, DAY_MS)),
        retire=retire,
    )


def incident_plan(drain: Drain, retire: Retire) -> Plan:
    """The short plan of an incident; how it ends depends on what the key signs."""
    return Plan(
        publish=Publish(overlap_ms=5 * MINUTE_MS),
        canary=Canary(share_ppm=100_000, length_ms=MINUTE_MS),
        ramp=Ramp(steps_ppm=(500_000,), step_ms=MINUTE_MS),
        promote=Promote(length_ms=10 * MINUTE_MS),
        drain=drain,
        retire=retire,
        gates=Gates(window_ms=MINUTE_MS, samples=20),
    )


def check_rotates(key: PlannedKey) -> None:
    """Whether keys of the purpose rotate at all.

    Raises:
        MalformedRequest: it is a log's own key.
    """
    if key.purpose is Purpose.AUDIT:
        raise MalformedRequest(
            "a log's own key is not rotated: its verifiers know the log by it, for life",
            hint="See docs/limitations.md",
        )


def longest_life_ms(key: PlannedKey) -> int:
    """How long what the key signs is good for, where its policy says so; else 0."""
    policy = key.policy
    lives = [part.lifetime_max_s for part in (policy.jwt, policy.ca, policy.ssh_ca) if part]
    return max(lives, default=0) * SECOND_MS


# --- the table of fields -------------------------------------------------------------------------

_LENGTH_MAX_MS = 10 * 366 * DAY_MS
"""Of any stage: as long as the longest life that a policy may set."""
_STEPS_MAX = 16
"""Ramp steps: doubling from one use in a million to all takes twenty, from the default canary 5."""
_PRINCIPALS_MAX = 64
"""Principals that acknowledge, report or are denied: each is read at every tick of the rollout."""
_SAMPLES_MAX = 10_000_000
"""Uses that a gate may wait for: a node at full load does as many in a quarter of an hour."""
_USES_MAX = 2**53
"""Uses until a scheduled rotation: as in caveats, what every reader of JSON counts exactly."""
_RATIO_MAX_PERCENT = 100_000
"""A thousand times the previous version's p99: past it a limit says nothing."""
_FLOOR_MAX_US = 60_000_000
"""A minute: twice what the front waits for an answer (`REQUEST_TIMEOUT_S`)."""

AnyUnit = Unit[int] | Unit[bool] | Unit[str] | Unit[tuple[int, ...]] | Unit[tuple[str, ...]]


class Bounds(msgspec.Struct, frozen=True):
    """What is stored of a field, or of each item of an array, is from ``least`` to ``most``."""

    unit: Unit[int]
    least: int
    most: int


class Field(msgspec.Struct, frozen=True):
    """One field of a plan: ``section`` and ``name`` in its file, ``attribute`` of that part."""

    section: str
    name: str
    attribute: str
    unit: AnyUnit
    bounds: Bounds | None = None

    @property
    def path(self) -> Path:
        """Where its value stands in a plan file."""
        return (self.section, self.name)

    @property
    def dotted(self) -> str:
        """The same, as people write it."""
        return f"{self.section}.{self.name}"


_LENGTH = Bounds(LENGTH_MS, 0, _LENGTH_MAX_MS)
_WINDOW = Bounds(LENGTH_MS, SECOND_MS, DAY_MS)
_FLOOR = Bounds(LENGTH_US, 0, _FLOOR_MAX_US)
_SHARE = Bounds(SHARE_PPM, 1, WHOLE_PPM)
_RATE = Bounds(SHARE_PPM, 0, WHOLE_PPM)
_RATIO = Bounds(RATIO_PERCENT, 0, _RATIO_MAX_PERCENT)
_SAMPLES = Bounds(COUNT, 1, _SAMPLES_MAX)
_PRINCIPALS = Bounds(COUNT, 0, _PRINCIPALS_MAX)
_USES = Bounds(COUNT, 0, _USES_MAX)

FIELDS: tuple[Field, ...] = (
    Field("publish", "overlap", "overlap_ms", LENGTH_MS, _LENGTH),
    Field("publish", "cache", "cache_ms", LENGTH_MS, _LENGTH),
    Field("publish", "acknowledged_by", "acknowledged_by", TEXTS),
    Field("canary", "share", "share_ppm", SHARE_PPM, _SHARE),
    Field("canary", "length", "length_ms", LENGTH_MS, _LENGTH),
    Field("canary", "by", "by", choice("context", "use")),
    Field("ramp", "steps", "steps_ppm", SHARES_PPM, _SHARE),
    Field("ramp", "step", "step_ms", LENGTH_MS, _LENGTH),
    Field("promote", "length", "length_ms", LENGTH_MS, _LENGTH),
    Field("drain", "length", "length_ms", LENGTH_MS, _LENGTH),
    Field("retire", "unpublish", "unpublish", FLAG),
    Field("dual", "rule", "rule", choice("both", "any")),
    Field("dual", "window", "window_ms", LENGTH_MS, _LENGTH),
    Field("gates", "window", "window_ms", LENGTH_MS, _WINDOW),
    Field("gates", "samples", "samples", COUNT, _SAMPLES),
    Field("gates", "error_rate", "error_ppm", SHARE_PPM, _RATE),
    Field("gates", "p99_ratio", "p99_percent", RATIO_PERCENT, _RATIO),
    Field("gates", "p99_floor", "p99_floor_us", LENGTH_US, _FLOOR),
    Field("gates", "reporters", "reporters", COUNT, _PRINCIPALS),
    Field("gates", "denied", "denied", COUNT, _PRINCIPALS),
    Field("schedule", "every", "every_ms", LENGTH_MS, _LENGTH),
    Field("schedule", "uses", "uses", COUNT, _USES),
)
"""Every field of a plan, in the order of its file."""


# --- what a plan is held to ----------------------------------------------------------------------


class Flaw(msgspec.Struct, frozen=True):
    """Why a plan cannot be followed: of which field, what was expected and met, what to do."""

    path: Path
    said: str
    hint: str = ""


def check_plan(plan: Plan, key: PlannedKey) -> None:
    """Hold a plan to its bounds, and to the key that it is for.

    Raises:
        MalformedRequest: which field, what was expected and what was met.
    """
    for flaw in flaws(plan, key):
        field = ".".join(map(str, flaw.path[:2]))
        raise MalformedRequest(f"{field}: {flaw.said}", hint=flaw.hint)


def flaws(plan: Plan, key: PlannedKey | None = None) -> Iterator[Flaw]:
    """Every flaw of a plan, also as the plan of a key if one is given; none: it can be followed."""
    for field in FIELDS:
        if field.bounds is not None:
            stored = getattr(getattr(plan, field.section), field.attribute)
            yield from _out_of_bounds(field, field.bounds, stored)
    yield from _lengths(plan)
    yield from _shares(plan)
    yield from _principals(plan.publish.acknowledged_by)
    if key is not None:
        yield from _lived(plan, key)


def _out_of_bounds(field: Field, bounds: Bounds, stored: int | tuple[int, ...]) -> Iterator[Flaw]:
    numbers = enumerate(stored) if isinstance(stored, tuple) else [(None, stored)]
    text = bounds.unit.text
    for position, number in numbers:
        if not bounds.least <= number <= bounds.most:
            path = field.path if position is None else (*field.path, position)
            limits = f"from {text(bounds.least)} to {text(bounds.most)}"
            hint = "A share is a part of 1: 5 % is 0.05" if bounds.unit is SHARE_PPM else ""
            yield Flaw(path, f"expected {limits}, met {text(number)}", hint)


def _lengths(plan: Plan) -> Iterator[Flaw]:
    """Lengths that depend on each other."""
    text = LENGTH_MS.text
    overlap, cache = plan.publish.overlap_ms, plan.publish.cache_ms
    if overlap < cache:
        yield Flaw(
            ("publish", "overlap"),
            f"expected at least publish.cache, {text(cache)}, met {text(overlap)}",
            "A reader that fetched just before the new version was published would meet its"
            " signatures and not know it: make the overlap longer, or the cache shorter",
        )
    if plan.dual.rule == "both" and plan.dual.window_ms:
        yield Flaw(
            ("dual", "window"),
            f'expected none with dual.rule "both", met {text(plan.dual.window_ms)}',
            'It says for how long rule = "any" holds',
        )
    if plan.dual.rule == "any" and not plan.dual.window_ms:
        yield Flaw(
            ("dual", "window"),
            'expected how long dual.rule "any" holds, met 0s',
            'Say for how long, or set rule = "both"',
        )


def _lived(plan: Plan, key: PlannedKey) -> Iterator[Flaw]:
    """What was signed before the switch verifies as long as it is good."""
    drain, lived = plan.drain.length_ms, longest_life_ms(key)
    if drain < lived:
        yield Flaw(
            ("drain", "length"),
            f"expected at least {LENGTH_MS.text(lived)}, as long as what {key.name} signs is good,"
            f" met {LENGTH_MS.text(drain)}",
            "Let the drain last as long, or shorten lifetime_max_s in the key's policy",
        )


def _shares(plan: Plan) -> Iterator[Flaw]:
    """Shares only grow, so that a subject stays on its side."""
    steps = plan.ramp.steps_ppm
    if len(steps) > _STEPS_MAX:
        yield Flaw(("ramp", "steps"), f"expected at most {_STEPS_MAX}, met {len(steps)}")
    last = plan.canary.share_ppm
    for position, share in enumerate(steps):
        if share <= last:
            yield Flaw(
                ("ramp", "steps", position),
                f"expected more than the share before it, {SHARE_PPM.text(last)},"
                f" met {SHARE_PPM.text(share)}",
                "Each step is larger than the one before, the first larger than canary.share",
            )
        last = share


def _principals(names: tuple[str, ...]) -> Iterator[Flaw]:
    path = ("publish", "acknowledged_by")
    if len(names) > _PRINCIPALS_MAX:
        yield Flaw(path, f"expected at most {_PRINCIPALS_MAX} principals, met {len(names)}")
    for position, name in enumerate(names):
        try:
            check_name(name, "principal")
        except MalformedRequest as error:
            yield Flaw((*path, position), error.message, error.hint)


def pinned(purpose: Purpose) -> bool:
    """Whether callers of the purpose name the version themselves: their certificate decides."""
    return purpose in _PINNED
