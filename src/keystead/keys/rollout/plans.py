"""Plan files: TOML to a plan and back, and the plans that have a name.

What a file leaves out, its key's default says, or the named plan that it ``extends``. The table of
keys is :data:`keystead.keys.rollout.plan.FIELDS`; docs/plans.md is its reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from keystead.keys.rollout.plan import (
    DAY_MS,
    FIELDS,
    Canary,
    Drain,
    Gates,
    Plan,
    PlannedKey,
    Promote,
    Publish,
    Ramp,
    flaws,
    incident_plan,
)
from keystead.policyfile import Reader, choice, load

__all__ = ["NAMED", "parse_plan", "print_plan"]

_SECOND_MS = 1_000


def _default(defaults: Plan) -> Plan:
    """The key's own default: of its purpose and policy."""
    return defaults


def _incident(defaults: Plan) -> Plan:
    """In use within minutes; what was signed before is given its usual time."""
    return incident_plan(defaults.drain, defaults.retire)


def _drill(defaults: Plan) -> Plan:
    """All stages in a quarter of a minute, to see them; for keys whose signatures live 3 s.

    Windows of a few uses say little of a tail: only a use of a second and more is slow.
    """
    return Plan(
        publish=Publish(overlap_ms=3 * _SECOND_MS, cache_ms=_SECOND_MS),
        canary=Canary(share_ppm=200_000, length_ms=3 * _SECOND_MS),
        ramp=Ramp(steps_ppm=(500_000,), step_ms=2 * _SECOND_MS),
        promote=Promote(length_ms=3 * _SECOND_MS),
        drain=Drain(length_ms=3 * _SECOND_MS),
        retire=defaults.retire,
        gates=Gates(window_ms=2 * _SECOND_MS, samples=20, p99_floor_us=1_000_000),
    )


def _cautious(defaults: Plan) -> Plan:
    """Weeks, in small steps, and one report sends it back: for keys that much depends on."""
    return Plan(
        publish=Publish(overlap_ms=7 * DAY_MS),
        canary=Canary(share_ppm=10_000, length_ms=7 * DAY_MS),
        ramp=Ramp(steps_ppm=(50_000, 100_000, 250_000, 500_000), step_ms=3 * DAY_MS),
        promote=Promote(length_ms=7 * DAY_MS),
        drain=Drain(length_ms=max(defaults.drain.length_ms, 28 * DAY_MS)),
        retire=defaults.retire,
        gates=Gates(samples=200, error_ppm=1_000, p99_percent=200, reporters=0),
    )


NAMED: Mapping[str, Callable[[Plan], Plan]] = MappingProxyType(
    {"default": _default, "incident": _incident, "drill": _drill, "cautious": _cautious}
)
"""Plans by name, each made from the default plan of the key that it is for."""

_EXTENDS = "extends"
_SECTIONS = tuple(dict.fromkeys(field.section for field in FIELDS))


def parse_plan(
    text: str | bytes, name: str, key_defaults: Plan, *, key: PlannedKey | None = None
) -> Plan:
    """The plan that a file's text says.

    ``name``: of the file, for messages. ``key_defaults``: what the text leaves out, unless it
    extends a named plan. ``key``: whose plan it is to be; with it the drain is held to its policy.

    Raises:
        MalformedRequest: no TOML, or not a plan: file, line, what was expected and met. Further
            problems of the same file are its notes.
    """
    reader = Reader(load(text, name))
    reader.keys((), (_EXTENDS, *_SECTIONS))
    for section in _SECTIONS:
        reader.keys((section,), [field.name for field in FIELDS if field.section == section])
    base = NAMED[reader.read((_EXTENDS,), choice(*NAMED), "default")](key_defaults)
    plan = _overlaid(reader, base)
    if not reader.failed:  # bounds say nothing of a value that could not be read
        for flaw in flaws(plan, key):
            reader.problem(flaw.path, flaw.said, flaw.hint)
    reader.finish()
    return plan


def _overlaid(reader: Reader, base: Plan) -> Plan:
    """The base with each value that the file gives in its place."""
    parts: dict[str, msgspec.Struct] = {}
    for section in _SECTIONS:
        part = getattr(base, section)
        values = {
            field.attribute: reader.read(field.path, field.unit, getattr(part, field.attribute))
            for field in FIELDS
            if field.section == section
        }
        parts[section] = msgspec.structs.replace(part, **values)
    return msgspec.structs.replace(base, **parts)


def print_plan(plan: Plan) -> str:
    """The whole plan as a file, every key said; it parses back to the same plan."""
    lines: list[str] = []
    for section in _SECTIONS:
        part = getattr(plan, section)
        lines.append(f"[{section}]")
        lines += [
            f"{field.name} = {field.unit.toml(getattr(part, field.attribute))}"
            for field in FIELDS
            if field.section == section
        ]
        lines.append("")
    return "\n".join(lines)
