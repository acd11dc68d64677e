"""Which way a changed plan, key policy or budget goes: a table of rules, one a field (I7).

Each rule names what counts as more of its field, which way more goes, and why that matters. A
field without a rule cannot be compared, and so counts as weaker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from types import MappingProxyType
from typing import Literal

import msgspec

from keystead.differences import Difference, Direction
from keystead.keys.algorithms import ALGORITHMS, Kind
from keystead.keys.caveats import Rate
from keystead.keys.model import Policy
from keystead.keys.rollout.plan import FIELDS, WHOLE_PPM, Plan
from keystead.policyfile import LENGTH_S

__all__ = [
    "BUDGET_RULES",
    "PLAN_RULES",
    "POLICY_RULES",
    "Rule",
    "Sense",
    "algorithm_differences",
    "budget_differences",
    "plan_differences",
    "policy_differences",
]

Sense = Literal["more", "less", "same", "both"]
"""How a value changed; ``both``: more in one way and less in another."""

Value = int | bool | str | tuple[int, ...] | tuple[str, ...] | msgspec.Struct | None
"""What a field holds; a struct or None: a part of a policy that is set or not."""


def _said(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return ", ".join(map(str, value)) or "none"
        case _:
            return str(value)


class Rule(msgspec.Struct, frozen=True):
    """Which way a change of one field goes.

    ``sense``: of a change from one value to another. ``more``: where more of it goes; less goes
    the opposite way, and a change in both ways cannot be compared. ``source``: where the rule is
    from. ``text``: a value as a person would write it.
    """

    sense: Callable[[Value, Value], Sense]
    more: Direction
    reason: str
    source: str = ""
    text: Callable[[Value], str] = _said

    def direction(self, before: Value, after: Value) -> Direction:
        """The direction of a change."""
        sense = self.sense(before, after)
        if sense == "both":
            return "incomparable"
        if sense == "same":
            return "neutral"
        return self.more if sense == "more" else _OPPOSITE[self.more]


_OPPOSITE: dict[Direction, Direction] = {
    "weaker": "stronger",
    "stronger": "weaker",
    "neutral": "neutral",
    "compatibility": "compatibility",
    "incomparable": "incomparable",
}


# --- what counts as more -------------------------------------------------------------------------


def _ordered(before: float, after: float) -> Sense:
    return "more" if after > before else "less" if after < before else "same"


def _number(before: Value, after: Value) -> Sense:
    return _ordered(_as_int(before), _as_int(after))


def _number_or_off(before: Value, after: Value) -> Sense:
    """Numbers of which 0 stands for no limit at all: that is the most."""
    return _ordered(_as_int(before) or float("inf"), _as_int(after) or float("inf"))


def _as_int(value: Value) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a number to compare, met {type(value).__name__}")
    return value


def _as_texts(value: Value) -> frozenset[str]:
    if not isinstance(value, tuple):
        raise TypeError(f"expected a list to compare, met {type(value).__name__}")
    return frozenset(map(str, value))


def _part_said(part: msgspec.Struct | None) -> str:
    """A whole part of a policy; empty: it is not there."""
    if part is None:
        return ""
    return "; ".join(f"{name} {_said(getattr(part, name))}" for name in part.__struct_fields__)


def _seconds(value: Value) -> str:
    return LENGTH_S.text(_as_int(value))


def _said_or_any(value: Value) -> str:
    return _said(value) if value else "any"


def _to(*, word: Value) -> Callable[[Value, Value], Sense]:
    """Of two values, one is the most."""
    return lambda before, after: _ordered(before == word, after == word)


def _another(_before: Value, _after: Value) -> Sense:
    return "both"


def _covered(by: Callable[[frozenset[str], str], bool]) -> Callable[[Value, Value], Sense]:
    """Lists of what is allowed; ``by``: whether a list allows what an item of another does."""

    def sense(before: Value, after: Value) -> Sense:
        old, new = _as_texts(before), _as_texts(after)
        gained = not all(by(old, item) for item in new)
        lost = not all(by(new, item) for item in old)
        if gained and lost:
            return "both"
        return "more" if gained else "less" if lost else "same"

    return sense


def _is_in(names: frozenset[str], name: str) -> bool:
    return name in names


def _is_below(suffixes: frozenset[str], name: str) -> bool:
    """DNS suffixes, by whole labels, as the vault reads them: without case or a leading dot."""
    bare = name.removeprefix(".").lower()
    known = [suffix.removeprefix(".").lower() for suffix in suffixes]
    return any(bare == suffix or bare.endswith("." + suffix) for suffix in known)


def _is_principal(allowed: frozenset[str], name: str) -> bool:
    """Principals of an SSH authority; ``*.shop.example`` allows ``*.eu.shop.example``.

    It does not allow ``db.eu.shop.example``: that may be a login name, and it is for hosts alone.
    """
    if name in allowed:
        return True
    wide = [item[1:].lower() for item in allowed if item.startswith("*.") and item != "*."]
    return name.startswith("*.") and any(name.lower().endswith(suffix) for suffix in wide)


_names = _covered(_is_in)


def _names_or_any(before: Value, after: Value) -> Sense:
    """Names of which none at all stands for any."""
    if not before or not after:
        return _ordered(not before, not after)
    return _names(before, after)


def _exposure(before: Value, after: Value) -> Sense:
    """Ramp steps: more, if the new version signs for more after as many steps.

    Behind the last step it signs for all. Of two that end there, the longer is less.
    """
    old, new = _steps(before), _steps(after)
    pairs = list(zip_longest(old, new, fillvalue=WHOLE_PPM))
    more = any(theirs > ours for ours, theirs in pairs)
    less = any(theirs < ours for ours, theirs in pairs)
    if more and less:
        return "both"
    return "more" if more else "less" if less else _ordered(-len(old), -len(new))


def _steps(value: Value) -> tuple[int, ...]:
    return tuple(map(_as_int, value)) if isinstance(value, tuple) else ()


# --- the tables ----------------------------------------------------------------------------------

_PART = Rule(_another, "incomparable", "what the key may sign is held to this part of its policy")
_UNKNOWN = Rule(_another, "incomparable", "no rule says which way a change of this goes")

PLAN_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "publish.overlap": Rule(
            _number,
            "stronger",
            "verifiers need the overlap to fetch the new public part before its first signature",
            "I12",
        ),
        "publish.cache": Rule(
            _number,
            "weaker",
            "as long as a reader may keep a publication, it misses what changed since",
        ),
        "publish.acknowledged_by": Rule(
            _names,
            "stronger",
            "each of them must hold the new public part before its first signature",
        ),
        "canary.share": Rule(
            _number, "weaker", "that share of the work fails if the new version is bad"
        ),
        "canary.length": Rule(_number, "stronger", "a bad version is met while few depend on it"),
        "canary.by": Rule(
            _to(word="use"),
            "compatibility",
            "by use, one context meets signatures of both versions; by context, of one",
        ),
        "ramp.steps": Rule(
            _exposure, "weaker", "more of the work depends on the new version, earlier"
        ),
        "ramp.step": Rule(_number, "stronger", "each share is watched that long before it grows"),
        "promote.length": Rule(
            _number, "stronger", "for that long the gates still watch, and going back is at hand"
        ),
        "drain.length": Rule(
            _number, "stronger", "what the previous version signed verifies that long"
        ),
        "retire.unpublish": Rule(
            _to(word=True),
            "compatibility",
            "verifiers that fetch the public part no longer find the previous version's",
        ),
        "dual.rule": Rule(
            _to(word="any"), "weaker", "one broken algorithm is enough to forge", "design 5"
        ),
        "dual.window": Rule(
            _number, "weaker", "for that long one broken algorithm is enough to forge", "design 5"
        ),
        "gates.window": Rule(_number, "weaker", "a short burst of errors drowns in a long window"),
        "gates.samples": Rule(_number, "stronger", "few uses say little of a version"),
        "gates.error_rate": Rule(_number, "weaker", "so many uses may fail before it goes back"),
        "gates.p99_ratio": Rule(
            _number_or_off, "weaker", "so much slower it may be before it goes back; 0.0: any"
        ),
        "gates.p99_floor": Rule(_number, "weaker", "slowness below the floor is not looked at"),
        "gates.reporters": Rule(
            _number, "weaker", "so many relying parties may report failures before it goes back"
        ),
        "gates.denied": Rule(
            _number, "weaker", "so many principals may be refused by it alone before it goes back"
        ),
        "schedule.every": Rule(
            _number_or_off, "weaker", "a version that is lost unnoticed is used that long; 0s: ever"
        ),
        "schedule.uses": Rule(
            _number_or_off, "weaker", "so much is lost with one version that is lost; 0: no limit"
        ),
    }
)
"""By the dotted name of a field, as in a plan file."""

_LIFE = Rule(
    _number,
    "weaker",
    "what is signed by mistake, or before a revocation, is good for that long",
    text=_seconds,
)

POLICY_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "ack": Rule(
            _to(word="best_effort"),
            "weaker",
            "a crash may lose the records of answers that were given",
            "I2",
        ),
        "verify_before_release": Rule(
            _to(word=True), "stronger", "a faulty signature is caught before it leaves the vault"
        ),
        "jwt.issuer": Rule(_another, "incomparable", "tokens speak in the name of another issuer"),
        "jwt.audiences": Rule(
            _names_or_any, "weaker", "tokens are good for each of them", text=_said_or_any
        ),
        "jwt.lifetime_max_s": _LIFE,
        "firmware.names": Rule(_names, "weaker", "the key signs images of each name"),
        "firmware.step_max": Rule(
            _number, "weaker", "one signed version can lock out that many versions below it"
        ),
        "ca.common_name": Rule(
            _another, "incomparable", "new versions of the authority bear another name"
        ),
        "ca.dns_suffixes": Rule(
            _covered(_is_below), "weaker", "the authority issues for all names below each"
        ),
        "ca.lifetime_max_s": _LIFE,
        "ca.own_lifetime_s": Rule(
            _number,
            "weaker",
            "a lost version of the authority is trusted for that long",
            text=_seconds,
        ),
        "ssh_ca.types": Rule(_names, "weaker", "the authority signs certificates of each type"),
        "ssh_ca.principals": Rule(
            _covered(_is_principal), "weaker", "certificates let in as each of them"
        ),
        "ssh_ca.lifetime_max_s": _LIFE,
    }
)
"""By the dotted name of a field, as in a policy file."""

BUDGET_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "count": Rule(_number, "weaker", "so many uses may come at once"),
        "per_s": Rule(
            _number, "weaker", "the fewer seconds, the more uses may come in the long run"
        ),
    }
)
"""``per_s`` is compared by the rate that it comes to with ``count``, not by itself."""


# --- comparing -----------------------------------------------------------------------------------

_PLAN_FIELDS = {f"{field.section}.{field.attribute}": field for field in FIELDS}


def plan_differences(before: Plan, after: Plan) -> tuple[Difference, ...]:
    """What changes from one plan to another, in the order of a plan file."""
    found: list[Difference] = []
    for stored, was, now in _changed(before, after):
        field = _PLAN_FIELDS.get(stored)
        path = stored if field is None else field.dotted
        text = _said if field is None else field.unit.text
        found.append(_difference(path, PLAN_RULES.get(path, _UNKNOWN), was, now, text))
    order = {path: position for position, path in enumerate(PLAN_RULES)}
    return tuple(sorted(found, key=lambda item: order.get(item.path, len(order))))


def policy_differences(before: Policy, after: Policy) -> tuple[Difference, ...]:
    """What changes from one key policy to another."""
    found: list[Difference] = []
    for path, was, now in _changed(before, after):
        rule = POLICY_RULES.get(path, _UNKNOWN)
        if was is None or now is None:
            found.append(_difference(path, _PART, was, now, _part_said))
        else:
            found.append(_difference(path, rule, was, now, rule.text))
    return tuple(found)


def budget_differences(before: Rate, after: Rate) -> tuple[Difference, ...]:
    """What changes from one budget to another; some of it weakens if `tenants.weakened` says so."""
    found: list[Difference] = []
    if before.count != after.count:
        rule = BUDGET_RULES["count"]
        found.append(_difference("count", rule, before.count, after.count, rule.text))
    if before.per_s != after.per_s:
        rule = BUDGET_RULES["per_s"]
        in_the_long_run = (before.count * after.per_s, after.count * before.per_s)
        found.append(
            Difference(
                path="per_s",
                before=_seconds(before.per_s),
                after=_seconds(after.per_s),
                direction=rule.direction(*in_the_long_run),
                reason=rule.reason,
            )
        )
    return tuple(found)


def _changed(
    before: msgspec.Struct, after: msgspec.Struct, prefix: str = ""
) -> Iterator[tuple[str, Value, Value]]:
    """Every field that differs, by its dotted path, parts of parts included."""
    for name in before.__struct_fields__:
        was, now = getattr(before, name), getattr(after, name)
        if isinstance(was, msgspec.Struct) and isinstance(now, msgspec.Struct):
            yield from _changed(was, now, f"{prefix}{name}.")
        elif was != now:
            yield f"{prefix}{name}", was, now


def _difference(
    path: str, rule: Rule, was: Value, now: Value, text: Callable[..., str]
) -> Difference:
    return Difference(
        path=path,
        before=text(was),
        after=text(now),
        direction=rule.direction(was, now),
        reason=rule.reason,
        source=rule.source,
    )


def algorithm_differences(before: str, after: str) -> tuple[Difference, ...]:
    """How a version of another algorithm differs from the one that it replaces."""
    if before == after:
        return ()
    old, new = ALGORITHMS[before], ALGORITHMS[after]
    gained = set(new.components) > set(old.components)
    lost = set(new.components) < set(old.components)
    direction: Direction = "neutral"
    reason = f"of the same strength, {new.bits} bits"
    if Kind.SIGNATURE not in {old.kind, new.kind}:
        direction, reason = "incomparable", "keys of the two do different things"
    elif lost or (old.quantum_safe and not new.quantum_safe) or new.bits < old.bits:
        direction = "weaker"
        reason = "it loses a signature, bits, or what holds against a quantum computer"
    elif gained or new.bits > old.bits or new.quantum_safe > old.quantum_safe:
        direction = "stronger"
        reason = "it gains a signature, bits, or what holds against a quantum computer"
    return (
        Difference(
            path="algorithm",
            before=before,
            after=after,
            direction=direction,
            reason=reason,
            source="NIST SP 800-57 Part 1 Rev. 5, 5.6.1; FIPS 204",
        ),
    )
