"""Differences of plans, policies and budgets: none goes unseen, and each goes the right way."""

import re
from collections.abc import Iterator
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from house.tree import ROOT
from keystead.differences import Difference, Direction, is_weaker, worst
from keystead.keys.caveats import Rate
from keystead.keys.model import CaPolicy, FirmwarePolicy, JwtPolicy, Policy, SshCaPolicy
from keystead.keys.rollout.differ import (
    BUDGET_RULES,
    PLAN_RULES,
    POLICY_RULES,
    budget_differences,
    plan_differences,
    policy_differences,
)
from keystead.keys.rollout.plan import (
    FIELDS,
    Canary,
    Drain,
    Dual,
    Gates,
    Plan,
    Promote,
    Publish,
    Ramp,
    Retire,
    Schedule,
    default_plan,
)
from keystead.keys.tenants import weakened
from unit.keys.sample import key_of

PLAN = default_plan(key_of())
POLICY = Policy(
    jwt=JwtPolicy(issuer="https://id.example", audiences=("a", "b")),
    firmware=FirmwarePolicy(names=("router", "camera")),
    ca=CaPolicy(common_name="Shop CA", dns_suffixes=("shop.example", "shop.test")),
    ssh_ca=SshCaPolicy(principals=("deploy", "*.shop.example"), types=("user", "host")),
)
"""With every part, which no one key has."""

OPPOSITE: dict[Direction, Direction] = {"weaker": "stronger", "stronger": "weaker"}
PLAIN_NAMES = {field.attribute: field.name for field in FIELDS}


def with_value(whole: msgspec.Struct, path: str, value: object) -> msgspec.Struct:
    head, _, rest = path.partition(".")
    inner = with_value(getattr(whole, head), rest, value) if rest else value
    return msgspec.structs.replace(whole, **{head: inner})


def value_at(whole: object, path: str) -> object:
    for name in path.split("."):
        whole = getattr(whole, name)
    return whole


def leaves(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every field that holds no struct, by its path; with its type. Parts that may be None too."""
    for field in msgspec.structs.fields(kind):
        parts = [part for part in (field.type, *get_args(field.type)) if isinstance(part, type)]
        structs = [part for part in parts if issubclass(part, msgspec.Struct)]
        if structs:
            yield from leaves(structs[0], f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field.type


def others(value: object, kind: object) -> Iterator[object]:
    """Other values of the type: of words all the others there are."""
    match value:
        case bool():
            yield not value
        case int():
            yield value + 1
        case tuple():
            yield value[1:] if len(value) > 1 else (*value, "x")
        case str():
            words = [word for word in get_args(kind) if isinstance(word, str)]
            yield from (word for word in words or [f"{value}x"] if word != value)


PLAN_LEAVES = list(leaves(Plan))
POLICY_LEAVES = list(leaves(Policy))


def the_one(found: tuple[Difference, ...]) -> Difference:
    assert len(found) == 1, found
    return found[0]


# --- nothing goes unseen -------------------------------------------------------------------------


def test_every_field_has_its_rule_and_every_rule_its_field() -> None:
    stored = {f"{field.section}.{field.attribute}": field.dotted for field in FIELDS}
    assert [stored[path] for path in sorted(stored)] == [
        stored[path] for path, _ in sorted(PLAN_LEAVES)
    ]
    assert list(PLAN_RULES) == [field.dotted for field in FIELDS]
    assert list(POLICY_RULES) == [path for path, _ in POLICY_LEAVES]
    assert set(BUDGET_RULES) == {field.name for field in msgspec.structs.fields(Rate)}
    assert len(PLAN_LEAVES) == 22
    assert len(POLICY_LEAVES) == 14


@pytest.mark.parametrize(("path", "kind"), PLAN_LEAVES)
def test_each_changed_field_of_a_plan_is_a_difference(path: str, kind: object) -> None:
    stored = value_at(PLAN, path)
    changes = list(others(stored, kind)) or [("x",)]
    for other in changes:
        after = with_value(PLAN, path, other)
        assert isinstance(after, Plan)
        found = the_one(plan_differences(PLAN, after))
        section, _, attribute = path.partition(".")
        assert found.path == f"{section}.{PLAIN_NAMES[attribute]}"
        assert found.before != found.after
        assert found.reason == PLAN_RULES[found.path].reason
        back = the_one(plan_differences(after, PLAN))
        assert back.direction == OPPOSITE.get(found.direction, found.direction)
        assert (back.before, back.after) == (found.after, found.before)


@pytest.mark.parametrize(("path", "kind"), POLICY_LEAVES)
def test_each_changed_field_of_a_policy_is_a_difference(path: str, kind: object) -> None:
    changes = list(others(value_at(POLICY, path), kind))
    assert changes
    for other in changes:
        after = with_value(POLICY, path, other)
        assert isinstance(after, Policy)
        found = the_one(policy_differences(POLICY, after))
        assert found.path == path
        assert found.before != found.after
        assert found.reason == POLICY_RULES[path].reason
        back = the_one(policy_differences(after, POLICY))
        assert back.direction == OPPOSITE.get(found.direction, found.direction)


class Longer(Policy, frozen=True, kw_only=True):
    """A policy with a field that no rule knows."""

    escrow: bool = False


def test_a_field_without_a_rule_counts_as_weaker() -> None:
    found = the_one(policy_differences(Longer(), Longer(escrow=True)))
    assert (found.path, found.before, found.after) == ("escrow", "false", "true")
    assert found.direction == "incomparable"
    assert is_weaker((found,))


def test_no_change_is_no_difference() -> None:
    assert plan_differences(PLAN, default_plan(key_of())) == ()
    assert policy_differences(POLICY, msgspec.convert(msgspec.to_builtins(POLICY), Policy)) == ()
    assert budget_differences(Rate(1, 2), Rate(1, 2)) == ()


def test_differences_come_in_the_order_of_the_file() -> None:
    after = Plan(
        publish=Publish(overlap_ms=1, cache_ms=1, acknowledged_by=("a",)),
        canary=Canary(share_ppm=1, length_ms=1, by="use"),
        ramp=Ramp(steps_ppm=(), step_ms=1),
        promote=Promote(length_ms=1),
        drain=Drain(length_ms=1),
        retire=Retire(unpublish=False),
        dual=Dual(rule="any", window_ms=1),
        gates=Gates(
            window_ms=1,
            samples=1,
            error_ppm=1,
            p99_percent=1,
            p99_floor_us=1,
            reporters=2,
            denied=2,
        ),
        schedule=Schedule(every_ms=1, uses=1),
    )
    assert [item.path for item in plan_differences(PLAN, after)] == list(PLAN_RULES)


# --- which way -----------------------------------------------------------------------------------

PLAN_CHANGES: list[tuple[str, object, object, Direction]] = [
    ("publish.overlap_ms", 2, 1, "weaker"),
    ("publish.cache_ms", 1, 2, "weaker"),
    ("publish.acknowledged_by", ("a", "b"), ("a",), "weaker"),
    ("publish.acknowledged_by", ("a", "b"), ("a", "c"), "incomparable"),
    ("publish.acknowledged_by", ("a", "b"), ("b", "a"), "neutral"),
    ("canary.share_ppm", 1, 2, "weaker"),
    ("canary.length_ms", 2, 1, "weaker"),
    ("canary.by", "context", "use", "compatibility"),
    ("ramp.steps_ppm", (10, 20), (10, 21), "weaker"),
    ("ramp.steps_ppm", (10, 20), (20,), "weaker"),
    ("ramp.steps_ppm", (10, 20), (10,), "weaker"),
    ("ramp.steps_ppm", (10,), (), "weaker"),
    ("ramp.steps_ppm", (10, 20), (5, 10, 20), "stronger"),
    ("ramp.steps_ppm", (10, 20), (9, 21), "incomparable"),
    ("ramp.steps_ppm", (10, 20), (11,), "weaker"),
    ("ramp.steps_ppm", (10, 20), (9,), "incomparable"),
    ("ramp.steps_ppm", (10, 1_000_000), (10,), "weaker"),
    ("ramp.step_ms", 2, 1, "weaker"),
    ("promote.length_ms", 2, 1, "weaker"),
    ("drain.length_ms", 2, 1, "weaker"),
    ("retire.unpublish", True, False, "compatibility"),
    ("dual.rule", "both", "any", "weaker"),
    ("dual.window_ms", 1, 2, "weaker"),
    ("gates.window_ms", 1, 2, "weaker"),
    ("gates.samples", 2, 1, "weaker"),
    ("gates.error_ppm", 1, 2, "weaker"),
    ("gates.p99_percent", 300, 301, "weaker"),
    ("gates.p99_percent", 300, 0, "weaker"),
    ("gates.p99_percent", 100_000, 0, "weaker"),
    ("gates.p99_floor_us", 0, 1, "weaker"),
    ("gates.reporters", 0, 1, "weaker"),
    ("gates.denied", 0, 1, "weaker"),
    ("schedule.every_ms", 1, 2, "weaker"),
    ("schedule.every_ms", 2, 0, "weaker"),
    ("schedule.uses", 1, 2, "weaker"),
    ("schedule.uses", 2, 0, "weaker"),
]
POLICY_CHANGES: list[tuple[str, object, object, Direction]] = [
    ("ack", "durable", "best_effort", "weaker"),
    ("verify_before_release", True, False, "weaker"),
    ("jwt.issuer", "a", "b", "incomparable"),
    ("jwt.audiences", ("a",), ("a", "b"), "weaker"),
    ("jwt.audiences", ("a",), (), "weaker"),
    ("jwt.audiences", ("a",), ("b",), "incomparable"),
    ("jwt.audiences", ("a", "b"), ("b", "a"), "neutral"),
    ("jwt.lifetime_max_s", 1, 2, "weaker"),
    ("firmware.names", ("a",), ("a", "b"), "weaker"),
    ("firmware.names", ("a",), ("b",), "incomparable"),
    ("firmware.step_max", 1, 2, "weaker"),
    ("ca.common_name", "a", "b", "incomparable"),
    ("ca.dns_suffixes", ("a.test",), ("a.test", "b.test"), "weaker"),
    ("ca.dns_suffixes", ("eu.a.test",), ("a.test",), "weaker"),
    ("ca.dns_suffixes", (), ("a.test",), "weaker"),
    ("ca.dns_suffixes", ("a.test",), ("a.test", "eu.a.test"), "neutral"),
    ("ca.dns_suffixes", ("a.test",), (".A.test",), "neutral"),
    ("ca.dns_suffixes", ("a.test",), ("ba.test",), "incomparable"),
    ("ca.lifetime_max_s", 1, 2, "weaker"),
    ("ca.own_lifetime_s", 1, 2, "weaker"),
    ("ssh_ca.types", ("user",), ("user", "host"), "weaker"),
    ("ssh_ca.types", ("user",), ("host",), "incomparable"),
    ("ssh_ca.principals", ("deploy",), ("deploy", "root"), "weaker"),
    ("ssh_ca.principals", ("deploy",), ("Deploy",), "incomparable"),
    ("ssh_ca.principals", ("*.eu.a.test",), ("*.a.test",), "weaker"),
    ("ssh_ca.principals", ("*.a.test",), ("*.a.test", "db.a.test"), "weaker"),
    ("ssh_ca.principals", ("*.a.test",), ("*.A.test",), "neutral"),
    ("ssh_ca.principals", ("*.a.test",), ("*.ba.test",), "incomparable"),
    ("ssh_ca.principals", ("*.",), ("*.a.test",), "incomparable"),
    ("ssh_ca.principals", ("*.",), ("*.a.",), "incomparable"),
    ("ssh_ca.lifetime_max_s", 1, 2, "weaker"),
]


def named(change: object) -> str | None:
    return change if isinstance(change, str) and "." in change else None


def test_every_rule_is_tried_in_both_directions() -> None:
    """Of each field that has a direction, one change that weakens is in the lists above."""
    for changes, rules in ((PLAN_CHANGES, PLAN_RULES), (POLICY_CHANGES, POLICY_RULES)):
        tried = {
            ".".join(
                [*path.split(".")[:-1], PLAIN_NAMES.get(path.split(".")[-1], path.split(".")[-1])]
            )
            for path, _, _, direction in changes
            if direction == "weaker"
        }
        ordered = {path for path, rule in rules.items() if rule.more in OPPOSITE}
        assert tried == ordered


@pytest.mark.parametrize(("path", "before", "after", "direction"), PLAN_CHANGES, ids=named)
def test_which_way_a_changed_plan_goes(
    path: str, before: object, after: object, direction: Direction
) -> None:
    old, new = with_value(PLAN, path, before), with_value(PLAN, path, after)
    assert isinstance(old, Plan)
    assert isinstance(new, Plan)
    assert the_one(plan_differences(old, new)).direction == direction
    back = the_one(plan_differences(new, old)).direction
    assert back == OPPOSITE.get(direction, direction)


@pytest.mark.parametrize(("path", "before", "after", "direction"), POLICY_CHANGES, ids=named)
def test_which_way_a_changed_policy_goes(
    path: str, before: object, after: object, direction: Direction
) -> None:
    old, new = with_value(POLICY, path, before), with_value(POLICY, path, after)
    assert isinstance(old, Policy)
    assert isinstance(new, Policy)
    assert the_one(policy_differences(old, new)).direction == direction
    back = the_one(policy_differences(new, old)).direction
    assert back == OPPOSITE.get(direction, direction)


@pytest.mark.parametrize("part", ["jwt", "firmware", "ca", "ssh_ca"])
def test_a_part_that_comes_or_goes_cannot_be_compared(part: str) -> None:
    without = msgspec.structs.replace(POLICY, **{part: None})
    gone = the_one(policy_differences(POLICY, without))
    come = the_one(policy_differences(without, POLICY))
    assert (gone.path, gone.after, gone.direction) == (part, "", "incomparable")
    assert (come.path, come.before, come.direction) == (part, "", "incomparable")
    assert "lifetime_max_s 3600" in gone.before or part != "jwt"
    assert gone.before == come.after != ""


STEPS = st.sets(st.integers(1, 1_000_000), max_size=4).map(lambda steps: tuple(sorted(steps)))


@given(STEPS, STEPS)
def test_more_steps_are_weaker_if_the_new_version_ever_does_more(
    old: tuple[int, ...], new: tuple[int, ...]
) -> None:
    before = msgspec.structs.replace(PLAN, ramp=Ramp(steps_ppm=old))
    after = msgspec.structs.replace(PLAN, ramp=Ramp(steps_ppm=new))
    padded = [[*steps, *[1_000_000] * (6 - len(steps))] for steps in (old, new)]
    does_more = any(later > earlier for earlier, later in zip(*padded, strict=True))
    same = padded[0] == padded[1] and len(new) < len(old)
    assert is_weaker(plan_differences(before, after)) == (does_more or same)


NUMBERS = st.integers(0, 5)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    plan: msgspec.Struct = PLAN
    for path, _ in PLAN_LEAVES:
        if isinstance(value_at(PLAN, path), int):
            plan = with_value(plan, path, draw(NUMBERS))
    assert isinstance(plan, Plan)
    return plan


@given(plans(), plans(), plans())
def test_directions_are_consistent(one: Plan, two: Plan, three: Plan) -> None:
    assert plan_differences(one, one) == ()
    there = {item.path: item.direction for item in plan_differences(one, two)}
    back = {item.path: item.direction for item in plan_differences(two, one)}
    assert back == {path: OPPOSITE.get(way, way) for path, way in there.items()}
    on = {item.path: item.direction for item in plan_differences(two, three)}
    through = {item.path: item.direction for item in plan_differences(one, three)}
    for path in there.keys() & on.keys():
        if there[path] == on[path] and there[path] in OPPOSITE:
            assert through[path] == there[path]


# --- budgets -------------------------------------------------------------------------------------

RATES = st.builds(Rate, count=st.integers(1, 100), per_s=st.integers(1, 100))


@given(RATES, RATES)
def test_a_budget_is_weaker_if_it_lets_more_through(old: Rate, new: Rate) -> None:
    found = budget_differences(old, new)
    assert is_weaker(found) == weakened(old, new)
    assert bool(found) == (old != new)
    assert [item.path for item in found] == [
        name for name in ("count", "per_s") if getattr(old, name) != getattr(new, name)
    ]
    back = {item.path: item.direction for item in budget_differences(new, old)}
    assert back == {item.path: OPPOSITE.get(item.direction, item.direction) for item in found}


def test_a_budget_is_told_as_people_say_it() -> None:
    count, per_s = budget_differences(Rate(10, 1), Rate(20, 3600))
    assert (count.before, count.after, count.direction) == ("10", "20", "weaker")
    assert (per_s.before, per_s.after, per_s.direction) == ("1s", "1h", "stronger")
    assert the_one(budget_differences(Rate(10, 2), Rate(10, 1))).direction == "weaker"
    assert [item.direction for item in budget_differences(Rate(5, 1), Rate(10, 2))] == [
        "weaker",
        "neutral",
    ]


# --- how it is told ------------------------------------------------------------------------------


def test_values_are_told_as_a_file_writes_them() -> None:
    after = msgspec.structs.replace(
        PLAN, canary=Canary(share_ppm=1, length_ms=90_000), ramp=Ramp(steps_ppm=())
    )
    assert [(item.path, item.before, item.after) for item in plan_differences(PLAN, after)] == [
        ("canary.share", "0.05", "0.000001"),
        ("canary.length", "1h", "90s"),
        ("ramp.steps", "0.25, 0.5", "none"),
    ]
    before = Policy(jwt=JwtPolicy(issuer="a", audiences=("x", "y"), lifetime_max_s=60))
    changed = Policy(jwt=JwtPolicy(issuer="a", lifetime_max_s=86_400), verify_before_release=True)
    found = policy_differences(before, changed)
    assert [(item.path, item.before, item.after) for item in found] == [
        ("verify_before_release", "false", "true"),
        ("jwt.audiences", "x, y", "any"),
        ("jwt.lifetime_max_s", "1m", "1d"),
    ]
    assert worst(found) == "weaker"


def test_a_difference_names_the_source_of_its_rule() -> None:
    after = msgspec.structs.replace(PLAN, publish=Publish(overlap_ms=1, cache_ms=1))
    overlap, cache = plan_differences(PLAN, after)
    assert (overlap.source, cache.source) == ("I12", "")


def test_the_reference_gives_every_rule_with_its_reason() -> None:
    text = (ROOT / "docs/plans.md").read_text(encoding="utf-8")
    _, text = text.split("## Which way a change goes")
    rows = re.findall(r"^\| `([a-z0-9_.]+)`.*? \| ([a-z ]+) \| (.*?) \|$", text, re.MULTILINE)
    rules = {**PLAN_RULES, **POLICY_RULES, **BUDGET_RULES}
    assert [(path, reason) for path, _, reason in rows] == [
        (path, rule.reason) for path, rule in rules.items()
    ]
    for path, said, _ in rows:
        more = rules[path].more
        expected = {"compatibility": "compatibility", "incomparable": "cannot be compared"}
        assert said == expected.get(more, "weaker"), path
