"""Plan files: what a person writes is what is stored, and each mistake is found on its line."""

import itertools
import re

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from house.tree import ROOT
from keystead.differences import is_weaker
from keystead.errors import MalformedRequest
from keystead.keys.commands import KeyInfo
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.differ import plan_differences
from keystead.keys.rollout.plan import (
    DAY_MS,
    FIELDS,
    HOUR_MS,
    MINUTE_MS,
    WHOLE_PPM,
    Bounds,
    Canary,
    Drain,
    Dual,
    Field,
    Gates,
    Plan,
    PlannedKey,
    Promote,
    Publish,
    Ramp,
    Retire,
    Schedule,
    check_plan,
    default_plan,
    flaws,
    longest_life_ms,
)
from keystead.keys.rollout.plans import NAMED, parse_plan, print_plan
from keystead.policyfile import SHARES_PPM
from unit.keys.sample import key_of

DEFAULTS = default_plan(key_of())
BOUNDED = [(field, field.bounds) for field in FIELDS if field.bounds is not None]
WHOLE_FILE = """
[publish]
overlap = "90d"
cache = "24h"
acknowledged_by = ["edge-eu", "edge-us"]
[canary]
share = 0.02
length = "30s"
by = "use"
[ramp]
steps = [0.1, 0.29, 1]
step = "250ms"
[promote]
length = "2h"
[drain]
length = "7d"
[retire]
unpublish = false
[dual]
rule = "any"
window = "30d"
[gates]
window = "10m"
samples = 1_000
error_rate = 0.001
p99_ratio = 1.15
p99_floor = "1500us"
reporters = 2
denied = 3
[schedule]
every = "90d"
uses = 1_000_000
"""
WHOLE_PLAN = Plan(
    publish=Publish(
        overlap_ms=90 * DAY_MS, cache_ms=DAY_MS, acknowledged_by=("edge-eu", "edge-us")
    ),
    canary=Canary(share_ppm=20_000, length_ms=30_000, by="use"),
    ramp=Ramp(steps_ppm=(100_000, 290_000, 1_000_000), step_ms=250),
    promote=Promote(length_ms=2 * HOUR_MS),
    drain=Drain(length_ms=7 * DAY_MS),
    retire=Retire(unpublish=False),
    dual=Dual(rule="any", window_ms=30 * DAY_MS),
    gates=Gates(
        window_ms=10 * MINUTE_MS,
        samples=1_000,
        error_ppm=1_000,
        p99_percent=115,
        p99_floor_us=1_500,
        reporters=2,
        denied=3,
    ),
    schedule=Schedule(every_ms=90 * DAY_MS, uses=1_000_000),
)


def stored_of(plan: Plan, field: Field) -> object:
    return getattr(getattr(plan, field.section), field.attribute)


def changed(plan: Plan, field: Field, value: object) -> Plan:
    part = msgspec.structs.replace(getattr(plan, field.section), **{field.attribute: value})
    return msgspec.structs.replace(plan, **{field.section: part})


def told(text: str, key: PlannedKey | None = None) -> list[str]:
    """Everything that a refused file is told."""
    with pytest.raises(MalformedRequest) as met:
        parse_plan(text, "p.toml", DEFAULTS, key=key)
    return [str(met.value), *getattr(met.value, "__notes__", [])]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan that can be followed, for a key without lifetimes."""
    values: dict[str, dict[str, object]] = {field.section: {} for field in FIELDS}
    for field, bounds in BOUNDED:
        values[field.section][field.attribute] = draw(st.integers(bounds.least, bounds.most))
    shares = sorted(draw(st.sets(st.integers(1, WHOLE_PPM), min_size=1, max_size=17)))
    values["canary"] |= {"share_ppm": shares[0], "by": draw(st.sampled_from(["context", "use"]))}
    values["ramp"]["steps_ppm"] = tuple(shares[1:])
    overlap_ms = draw(st.integers(0, 3660 * DAY_MS))
    values["publish"] = {"overlap_ms": overlap_ms, "cache_ms": draw(st.integers(0, overlap_ms))}
    values["publish"]["acknowledged_by"] = tuple(
        draw(st.lists(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,9}", fullmatch=True), max_size=3))
    )
    values["retire"]["unpublish"] = draw(st.booleans())
    if draw(st.booleans()):
        values["dual"] = {"rule": "both", "window_ms": 0}
    else:
        values["dual"]["rule"] = "any"
        assume(values["dual"]["window_ms"])
    return msgspec.convert(values, Plan)


# --- what a file says ----------------------------------------------------------------------------


def test_a_file_says_every_field() -> None:
    assert parse_plan(WHOLE_FILE, "p.toml", DEFAULTS) == WHOLE_PLAN
    assert all(stored_of(WHOLE_PLAN, field) != stored_of(DEFAULTS, field) for field in FIELDS)


@given(plans())
def test_a_printed_plan_is_read_as_the_same(plan: Plan) -> None:
    assert not list(flaws(plan))
    text = print_plan(plan)
    assert parse_plan(text, "p.toml", DEFAULTS) == plan
    assert print_plan(parse_plan(text, "p.toml", WHOLE_PLAN)) == text


def test_the_table_has_every_field_of_a_plan_once() -> None:
    leaves = [
        (part.name, inner.name)
        for part in msgspec.structs.fields(Plan)
        for inner in msgspec.structs.fields(part.type)
    ]
    assert sorted((field.section, field.attribute) for field in FIELDS) == sorted(leaves)
    assert len({field.dotted for field in FIELDS}) == len(FIELDS)


@pytest.mark.parametrize("text", ["", "# nothing\n", 'extends = "default"\n', "[gates]\n"])
def test_what_a_file_leaves_out_is_the_default(text: str) -> None:
    assert parse_plan(text, "p.toml", DEFAULTS) == DEFAULTS
    assert parse_plan(text, "p.toml", WHOLE_PLAN) == WHOLE_PLAN


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.dotted)
def test_one_key_changes_one_field(field: Field) -> None:
    stored = stored_of(WHOLE_PLAN, field)
    written = field.unit.toml(stored)  # type: ignore[arg-type]  # of its own unit
    expected = changed(DEFAULTS, field, stored)
    text = f"[{field.section}]\n{field.name} = {written}\n"
    if found := list(flaws(expected)):
        assert told(text)[0].startswith(f"p.toml:{2 if found[0].path[:2] == field.path else 1}: ")
    else:
        assert parse_plan(text, "p.toml", DEFAULTS) == expected


def test_a_file_extends_a_named_plan() -> None:
    plan = parse_plan('extends = "drill"\n[canary]\nlength = "9s"\n', "p.toml", DEFAULTS)
    drill = NAMED["drill"](DEFAULTS)
    assert plan == msgspec.structs.replace(
        drill, canary=msgspec.structs.replace(drill.canary, length_ms=9_000)
    )


# --- named plans ---------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("name", NAMED)
def test_a_named_plan_suits_every_key_whose_signatures_allow_it(
    name: str, purpose: Purpose
) -> None:
    key = key_of(purpose)
    plan = NAMED[name](default_plan(key))
    assert plan == parse_plan(f'extends = "{name}"', name, default_plan(key))
    assert plan.retire == default_plan(key).retire
    if name == "drill" and longest_life_ms(key) > 3_000:
        with pytest.raises(MalformedRequest, match=r"drain.length: expected at least .* met 3s"):
            check_plan(plan, key)
    else:
        check_plan(plan, key)


def test_the_drill_takes_seconds() -> None:
    drill = NAMED["drill"](DEFAULTS)
    stages = (
        drill.publish.overlap_ms,
        drill.canary.length_ms,
        drill.ramp.step_ms * len(drill.ramp.steps_ppm),
        drill.promote.length_ms,
        drill.drain.length_ms,
    )
    assert stages == (3_000, 3_000, 2_000, 3_000, 3_000)
    assert (drill.canary.share_ppm, drill.ramp.steps_ppm) == (200_000, (500_000,))
    assert (drill.gates.window_ms, drill.gates.samples) == (2_000, 20)
    policy = Policy(jwt=JwtPolicy(issuer="https://id.example", lifetime_max_s=3))
    check_plan(drill, key_of(policy=policy))


@pytest.mark.parametrize("purpose", Purpose)
def test_named_plans_stand_to_the_default_as_their_names_say(purpose: Purpose) -> None:
    usual = default_plan(key_of(purpose))
    assert NAMED["default"](usual) is usual
    assert not is_weaker(plan_differences(usual, NAMED["cautious"](usual)))
    assert is_weaker(plan_differences(usual, NAMED["incident"](usual)))
    incident = default_plan(key_of(purpose), incident=True)
    assert NAMED["incident"](incident) == incident


# --- mistakes ------------------------------------------------------------------------------------


def test_every_mistake_of_a_file_is_told_at_once() -> None:
    text = """extends = "dril"
[publish]
overlap = 90
cachee = "5m"
acknowledged_by = ["a",
  5]
[canary]
share = "5%"
by = "contex"
[gate]
samples = 1
"""
    found = told(text)
    assert [line.partition(". ")[0] for line in found] == [
        'p.toml:1: extends: expected "default" or "incident" or "drill" or "cautious", met "dril"',
        'p.toml:3: publish.overlap: expected a length such as "24h", met 90',
        'p.toml:4: publish.cachee: expected a known key, met "cachee"',
        "p.toml:6: publish.acknowledged_by[1]: expected a text, met 5",
        'p.toml:8: canary.share: expected a share from 0 to 1 such as 0.05, met "5%"',
        'p.toml:9: canary.by: expected "context" or "use", met "contex"',
        'p.toml:10: gate: expected a known key, met "gate"',
    ]
    assert [line.partition(". ")[2] for line in found] == [
        "Did you mean drill?",
        "Write a whole number and one of d, h, m, s, ms, in quotes",
        "Did you mean cache?",
        "Write it in quotes",
        "Write a number, without quotes or a percent sign",
        "Did you mean context?",
        "Did you mean gates?",
    ]


def test_what_does_not_fit_together_is_told_by_line() -> None:
    text = """[publish]
cache = "2d"
acknowledged_by = ["edge-eu",
  "Edge US"]
[canary]
share = 5
[ramp]
steps = [0.1,
  0.0001]
[drain]
length = "1s"
[dual]
window = "1h"
"""
    assert [line.partition(". ")[0] for line in told(text, key=key_of())] == [
        "p.toml:1: publish.overlap: expected at least publish.cache, 2d, met 1d",
        (
            "p.toml:4: publish.acknowledged_by[1]: expected a principal of a-z, 0-9, '.', '_', '-',"
            " at most 64 bytes"
        ),
        "p.toml:6: canary.share: expected from 0.000001 to 1.0, met 5.0",
        "p.toml:8: ramp.steps[0]: expected more than the share before it, 5.0, met 0.1",
        "p.toml:9: ramp.steps[1]: expected more than the share before it, 0.1, met 0.0001",
        "p.toml:11: drain.length: expected at least 1h, as long as what shop signs is good, met 1s",
        'p.toml:13: dual.window: expected none with dual.rule "both", met 1h',
    ]
    assert not any("drain" in line for line in told(text))  # of no key in particular


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('publish = "1d"', r"p.toml:1: publish: expected a table, met \"1d\". Begin it with \[pub"),
        ("\n[[gates]]\nsamples = 1", "p.toml:2: gates: expected a table, met an array of 1"),
        ("extends = 1", 'p.toml:1: extends: expected "default" or .*met 1'),
        ("[canary]\nshare = 0.0000001", "p.toml:2: canary.share: .* 6 decimals at most"),
        ("[gates]\np99_ratio = 1e999999999", "p.toml:2: gates.p99_ratio: expected a ratio"),
        ("[gates]\nwindow = '500us'", 'p.toml:2: gates.window: .*met "500us"'),
        ('[dual]\nrule = "any"', "p.toml:1: dual.window: expected how long dual.rule"),
        ("[ramp]\nsteps = [0.05]", r"p.toml:2: ramp.steps\[0\]: .*share before it, 0.05, met 0.05"),
        ("[publish]\noverlap = 1d", 'p.toml:2: expected TOML.*overlap = "1d"'),
    ],
)
def test_a_mistake_is_told_by_line(text: str, said: str) -> None:
    with pytest.raises(MalformedRequest, match=said):
        parse_plan(text, "p.toml", DEFAULTS)


@pytest.mark.parametrize(("field", "bounds"), BOUNDED, ids=lambda part: getattr(part, "dotted", ""))
def test_each_number_has_its_bounds(field: Field, bounds: Bounds) -> None:
    array = field.unit is SHARES_PPM
    lenient = changed(WHOLE_PLAN, FIELDS[1], 0)  # a cache of none allows any overlap
    for number, good in itertools.chain.from_iterable(
        [(inside, True), (outside, False)]
        for inside, outside in ((bounds.least, bounds.least - 1), (bounds.most, bounds.most + 1))
    ):
        plan = changed(lenient, field, (number,) if array else number)
        refused = [flaw for flaw in flaws(plan) if flaw.said.startswith("expected from ")]
        assert [flaw.path for flaw in refused] == ([] if good else [(*field.path, *[0] * array)])
        for flaw in refused:
            assert flaw.said.endswith(f"met {bounds.unit.text(number)}")


def test_the_overlap_is_at_least_the_cache() -> None:
    for cache_ms, good in ((DAY_MS, True), (DAY_MS + 1, False)):
        plan = changed(DEFAULTS, FIELDS[1], cache_ms)
        assert [flaw.path for flaw in flaws(plan)] == ([] if good else [("publish", "overlap")])


@pytest.mark.parametrize("purpose", Purpose)
def test_defaults_can_be_followed(purpose: Purpose) -> None:
    for life_s in (1, 3_601, 90 * 24 * 3_600):
        issuer = JwtPolicy(issuer="https://id.example", lifetime_max_s=life_s)
        for key in (key_of(purpose), key_of(purpose, policy=Policy(jwt=issuer))):
            check_plan(default_plan(key), key)
            check_plan(default_plan(key, incident=True), key)


def test_counts_of_steps_and_principals_are_bounded() -> None:
    steps = tuple(range(20_001, 20_018))
    assert not list(flaws(changed(WHOLE_PLAN, FIELDS[6], steps[:16])))
    assert [flaw.said for flaw in flaws(changed(WHOLE_PLAN, FIELDS[6], steps))] == [
        "expected at most 16, met 17"
    ]
    names = tuple(f"p{number}" for number in range(65))
    assert not list(flaws(changed(WHOLE_PLAN, FIELDS[2], names[:64])))
    assert [flaw.said for flaw in flaws(changed(WHOLE_PLAN, FIELDS[2], names))] == [
        "expected at most 64 principals, met 65"
    ]


def test_a_refused_plan_names_its_field() -> None:
    key = key_of()
    check_plan(default_plan(key), key)
    plan = msgspec.structs.replace(default_plan(key), drain=Drain(length_ms=HOUR_MS - 1))
    with pytest.raises(MalformedRequest, match=r"^drain.length: expected at least 1h.*3599999ms"):
        check_plan(plan, key)


def test_an_operators_view_of_a_key_has_the_same_default() -> None:
    for purpose in Purpose:
        key = key_of(purpose)
        seen = msgspec.convert(msgspec.to_builtins(key) | {"versions": ()}, KeyInfo)
        for incident in (False, True):
            usual = default_plan(key, incident=incident)
            assert default_plan(seen, incident=incident) == usual


# --- the reference -------------------------------------------------------------------------------


def test_the_reference_has_every_key_with_its_default_and_bounds() -> None:
    text = (ROOT / "docs/plans.md").read_text(encoding="utf-8")
    _, keys, named, _ = re.split(r"^## (?:Keys|Named plans|Which way.*)$", text, flags=re.MULTILINE)
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (.*?) \| (.*?) \| (.*?) \|", keys, re.MULTILINE)
    sections = re.split(r"^### `\[(\w+)\]`$", keys, flags=re.MULTILINE)
    told_of = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert list(told_of) == list(dict.fromkeys(field.section for field in FIELDS))
    assert len(rows) == len(FIELDS)
    for field, (name, usual, incident, bounds) in zip(FIELDS, rows, strict=True):
        assert field.name == name
        assert f"| `{name}` |" in told_of[field.section]
        if field.section not in {"drain", "retire"}:  # of the key: said in words
            for plan, shown in (
                (DEFAULTS, usual),
                (default_plan(key_of(), incident=True), incident),
            ):
                value = stored_of(plan, field)
                assert shown == f"`{field.unit.toml(value)}`"  # type: ignore[arg-type]  # its own
        if field.bounds is not None:
            scale = field.bounds
            assert f"{scale.unit.text(scale.least)} to {scale.unit.text(scale.most)}" in bounds
    assert re.findall(r"^\| `(\w+)` \|", named, re.MULTILINE) == list(NAMED)


def test_the_files_of_the_reference_are_plans() -> None:
    text = (ROOT / "docs/plans.md").read_text(encoding="utf-8")
    files = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(files) >= 2
    for file in files:
        parse_plan(file, "docs/plans.md", DEFAULTS, key=key_of())
