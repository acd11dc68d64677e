"""``keystead key rotate``, its steering, plans and policies."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.rollout.commands import ChangedPolicy
from keystead.keys.rollout.differ import plan_differences, policy_differences
from keystead.keys.rollout.plan import Plan, default_plan
from keystead.keys.rollout.plans import NAMED, parse_plan, print_plan
from unit.cli.conftest import Run
from unit.cli.node import KEY, FakeNode
from unit.cli.rolling import DRILL, Rolling, as_json
from unit.cli.test_key import Terminal

SHORT: dict[str, Any] = KEY | {"policy": {"jwt": {"issuer": "i", "lifetime_max_s": 1}}}
DEFAULT = default_plan(Rolling().key)


@pytest.fixture
def rolling(node: FakeNode) -> Rolling:
    """A key with a rollout under way, that the node tells of, and no plan of its own."""
    made = Rolling()
    made.begin()
    made.rotation = msgspec.structs.replace(made.rotation, plan=None)
    node.on("GET /v1/keys/shop", SHORT)
    node.on("POST /v1/keys/shop/rotate", KEY, status=201)
    node.on("POST /v1/keys/shop/rollout", KEY)
    made.served_by(node)
    return made


def bodies(node: FakeNode) -> list[dict[str, Any]]:
    return [seen.body for seen in node.seen if seen.method == "POST"]


def changed(node: FakeNode, before: Plan, after: Plan) -> None:
    """The node takes a plan."""
    told = ChangedPolicy(key="shop", revision=2, differences=plan_differences(before, after))
    node.on("POST /v1/keys/shop/plan", as_json(told))


def repoliced(node: FakeNode, before: Policy, after: Policy) -> None:
    """The node takes a policy."""
    told = ChangedPolicy(key="shop", revision=2, differences=policy_differences(before, after))
    node.on("POST /v1/keys/shop/policy", as_json(told))


# --- rotating ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("rolling")
def test_rotate_needs_nothing_but_the_key(run: Run, node: FakeNode) -> None:
    ran = run("key", "rotate", "shop")
    assert ran.status == 0
    assert "rollout 1, publish" in ran.out
    assert "keystead key status shop --watch" in ran.err
    assert bodies(node) == [
        {
            "plan": None,
            "algorithm": None,
            "incident": False,
            "weaker": False,
            "reason": "rotated by hand",
        }
    ]
    assert [seen.path for seen in node.seen] == ["/v1/keys/shop/rotate", "/v1/keys/shop/rollout"]
    assert run("key", "rotate", "shop", "--json").json["next"] == 2


@pytest.mark.usefixtures("rolling")
@pytest.mark.parametrize("named", sorted(NAMED))
def test_a_plan_by_name_is_that_of_the_keys_default(named: str, run: Run, node: FakeNode) -> None:
    words = ["--plan", named, "--algorithm", "ed25519", "--reason", "drill"]
    assert run("key", "rotate", "shop", *words).status == 0
    [body] = bodies(node)
    assert msgspec.convert(body["plan"], Plan) == NAMED[named](DEFAULT)
    assert (body["algorithm"], body["reason"]) == ("ed25519", "drill")


@pytest.mark.usefixtures("rolling")
def test_a_plan_file_is_overlaid_on_the_default(run: Run, node: FakeNode) -> None:
    Path("shop.toml").write_text('[canary]\nshare = 0.02\nlength = "2h"\n')
    assert run("key", "rotate", "shop", "--plan", "shop.toml").status == 0
    plan = msgspec.convert(bodies(node)[0]["plan"], Plan)
    assert (plan.canary.share_ppm, plan.canary.length_ms) == (20_000, 7_200_000)
    assert (plan.publish, plan.drain) == (DEFAULT.publish, DEFAULT.drain)


@pytest.mark.usefixtures("rolling")
def test_a_plan_that_is_none_is_refused_by_file_and_line(run: Run, node: FakeNode) -> None:
    Path("shop.toml").write_text('[canary]\nlength = "2h"\nshre = 0.02\n')
    ran = run("key", "rotate", "shop", "--plan", "shop.toml")
    assert ran.status == 1
    assert "shop.toml:3" in ran.err
    assert "share" in ran.err, "what was probably meant"
    ran = run("key", "rotate", "shop", "--plan", "drll")
    assert ran.status == 2
    assert "cautious, default, drill, incident" in ran.err
    assert bodies(node) == []


@pytest.mark.usefixtures("rolling")
def test_an_incident_has_its_reason_and_is_asked_about(
    run: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("key", "rotate", "shop", "--incident").status == 2
    ran = run("key", "rotate", "shop", "--incident", "--reason", "INC-8")
    assert ran.status == 2
    assert "--yes" in ran.err, "nobody is here to ask"
    assert node.seen == []
    assert run("key", "rotate", "shop", "--incident", "--reason", "INC-8", "--yes").status == 0
    monkeypatch.setattr("keystead.cli.key.sys", Terminal())
    assert run("key", "rotate", "shop", "--incident", "--reason", "x", stdin=b"n\n").status == 1
    assert run("key", "rotate", "shop", "--incident", "--reason", "y", stdin=b"y\n").status == 0
    assert [(b["incident"], b["reason"]) for b in bodies(node)] == [(True, "INC-8"), (True, "y")]


@pytest.mark.usefixtures("rolling")
def test_an_incidents_file_is_overlaid_on_the_short_plan(run: Run, node: FakeNode) -> None:
    Path("now.toml").write_text('[promote]\nlength = "1m"\n')
    words = ["--incident", "--reason", "INC-8", "--yes", "--plan", "now.toml"]
    assert run("key", "rotate", "shop", *words).status == 0
    plan = msgspec.convert(bodies(node)[0]["plan"], Plan)
    assert plan.publish == default_plan(Rolling().key, incident=True).publish


@pytest.mark.usefixtures("rolling")
@pytest.mark.parametrize(
    ("words", "move"),
    [
        (["pause"], "pause"),
        (["resume", "--rollout"], "resume"),
        (["promote"], "promote"),
        (["rollback"], "roll_back"),
    ],
)
def test_a_person_steers_a_rollout(words: list[str], move: str, run: Run, node: FakeNode) -> None:
    command, *options = words
    assert run("key", command, "shop", *options).status == 2, "without a reason"
    ran = run("key", command, "shop", *options, "--reason", "CHG-1")
    assert ran.status == 0
    assert "rollout 1, publish" in ran.out
    assert bodies(node) == [{"move": move, "reason": "CHG-1"}]
    assert node.seen[-1].path == "/v1/keys/shop/rollout"


@pytest.mark.usefixtures("rolling")
def test_resume_takes_versions_or_the_rollout(run: Run, node: FakeNode) -> None:
    words = ["key", "resume", "shop", "--reason", "x"]
    ran = run(*words, "--rollout", "--version", "2")
    assert ran.status == 2
    assert "--rollout" in ran.err
    assert node.seen == []


# --- plans ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("rolling")
def test_a_plan_is_shown_as_a_file_that_reads_back(run: Run) -> None:
    ran = run("key", "plan", "shop")
    assert ran.out == print_plan(DEFAULT), "the coming plan, not that of the rollout under way"
    assert "default" in ran.err
    assert parse_plan(ran.out, "out", DRILL) == DEFAULT
    assert msgspec.convert(run("key", "plan", "shop", "--json").json, Plan) == DEFAULT


def test_a_keys_own_plan_is_shown(run: Run, node: FakeNode, rolling: Rolling) -> None:
    cautious = NAMED["cautious"](DEFAULT)
    rolling.rotation = msgspec.structs.replace(rolling.rotation, plan=cautious, rollout=None)
    ran = run("key", "plan", "shop")
    assert ran.out == print_plan(cautious)
    assert "own plan" in ran.err
    del node


@pytest.mark.usefixtures("rolling")
def test_a_stronger_plan_is_set_and_told(run: Run, node: FakeNode) -> None:
    Path("shop.toml").write_text("[canary]\nshare = 0.01\n")
    after = parse_plan(Path("shop.toml").read_text(), "shop.toml", DEFAULT)
    changed(node, DEFAULT, after)
    words = ["key", "plan", "shop", "--plan", "shop.toml"]
    ran = run(*words)
    assert ran.status == 2
    assert "--reason" in ran.err
    ran = run(*words, "--reason", "CHG-31")
    assert ran.status == 0
    assert "canary.share" in ran.out
    assert "stronger" in ran.out
    [body] = bodies(node)
    assert (body["weaker"], body["reason"]) == (False, "CHG-31")
    assert msgspec.convert(body["plan"], Plan) == after


@pytest.mark.usefixtures("rolling")
def test_a_weaker_plan_is_shown_and_refused_until_it_is_meant(run: Run, node: FakeNode) -> None:
    words = ["key", "plan", "shop", "--plan", "drill", "--reason", "drill"]
    ran = run(*words)
    assert ran.status == 2
    assert "publish.overlap" in ran.err
    assert "weaker" in ran.err
    assert "give --weaker" in ran.err
    told = run(*words, "--json")
    assert (told.status, told.out) == (2, "")
    assert bodies(node) == []
    changed(node, DEFAULT, NAMED["drill"](DEFAULT))
    assert run(*words, "--weaker").status == 0
    assert bodies(node)[0]["weaker"] is True


@pytest.mark.usefixtures("rolling")
def test_on_a_terminal_a_person_agrees_to_what_changes(
    run: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.cli.key.sys", Terminal())
    changed(node, DEFAULT, NAMED["drill"](DEFAULT))
    words = ["key", "plan", "shop", "--plan", "drill", "--weaker", "--reason", "x"]
    ran = run(*words, stdin=b"n\n")
    assert ran.status == 1
    assert ran.err.index("publish.overlap") < ran.err.index("Change the plan of shop?")
    assert bodies(node) == []
    assert run(*words, stdin=b"y\n").status == 0
    assert run(*words, "--yes").status == 0
    assert len(bodies(node)) == 2


@pytest.mark.usefixtures("rolling")
def test_the_default_is_no_plan_of_its_own(run: Run, node: FakeNode) -> None:
    changed(node, DEFAULT, DEFAULT)
    words = ["key", "plan", "shop", "--default", "--reason", "over"]
    ran = run(*words)
    assert (ran.status, ran.out) == (0, "The plan of shop stays as it was.\n")
    assert bodies(node) == [{"plan": None, "weaker": False, "reason": "over"}]
    assert run(*words, "--plan", "drill").status == 2


def test_what_is_in_force_under_a_rollout_is_the_nodes_to_compare(
    run: Run, node: FakeNode, rolling: Rolling
) -> None:
    """It tells the running rollout's plan then, which is not the one that is replaced."""
    rolling.rotation = msgspec.structs.replace(rolling.rotation, plan=DRILL)
    changed(node, DRILL, DEFAULT)
    assert "under way" in run("key", "plan", "shop").err
    assert run("key", "plan", "shop", "--plan", "drill", "--reason", "x").status == 0
    assert len(bodies(node)) == 1


# --- policies ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("rolling")
def test_a_policy_is_shown_as_a_file_that_reads_back(run: Run, node: FakeNode) -> None:
    shown = run("key", "policy", "shop").out
    Path("policy.json").write_text(shown)
    before = Policy(jwt=JwtPolicy(issuer="i", lifetime_max_s=1))
    repoliced(node, before, before)
    words = ["key", "policy", "shop", "--policy-file", "policy.json", "--reason", "x"]
    ran = run(*words)
    assert (ran.status, ran.out) == (0, "The policy of shop stays as it was.\n")
    assert msgspec.convert(bodies(node)[0]["policy"], Policy) == before


@pytest.mark.usefixtures("rolling")
def test_a_weaker_policy_says_which_way_before_it_is_sent(run: Run, node: FakeNode) -> None:
    before = Policy(jwt=JwtPolicy(issuer="i", lifetime_max_s=1))
    after = Policy(jwt=JwtPolicy(issuer="i", lifetime_max_s=900))
    Path("policy.json").write_bytes(msgspec.json.encode(after))
    words = ["key", "policy", "shop", "--policy-file", "policy.json", "--reason", "CHG-33"]
    ran = run(*words)
    assert ran.status == 2
    assert "jwt.lifetime_max_s" in ran.err
    assert bodies(node) == []
    repoliced(node, before, after)
    told = run(*words, "--weaker", "--json").json
    assert [d["direction"] for d in told["differences"]] == ["weaker"]
    assert bodies(node)[0]["weaker"] is True
    assert run(*words[:5]).status == 2, "without a reason"
