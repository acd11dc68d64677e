"""``key revoke``, ``handle revoke``, ``emergency``: what is asked of the node and what is shown."""

from typing import Any

import pytest

from unit.cli.conftest import Run
from unit.cli.node import REVOKED, FakeNode

SURE = ("--reason", "INC-1", "--yes")
NOTHING: dict[str, object] = {
    "version": None,
    "handle": None,
    "purpose": None,
    "tenant": None,
    "labels": {},
}
STOPPED_KEY: dict[str, Any] = REVOKED["keys"][0] | {"states": {"1": "active"}, "uses": 7}
PAGE: dict[str, Any] = {
    "keys": [STOPPED_KEY | {"handles": 2}],
    "handles": [
        {"id": "h1", "key": "shop", "principal": "ci", "issued_ms": 1, "uses": 5},
        {"id": "h2", "key": "shop", "principal": "till", "issued_ms": 1, "uses": 2},
    ],
    "keys_in_all": 1,
    "since_ms": 1_790_000_000_000,
    "logs": ["node1"],
    "next": "shop",
    "end": True,
}
STOP: dict[str, Any] = {
    "tenant": "shop",
    "stopped": True,
    "since_ms": 1_790_000_000_000,
    "by": "operator",
    "reason": "INC-1",
    "keys": 3,
    "fence": {"node": "node1", "seq": 43, "epoch": 14, "commit_ms": 3.4},
    "best_effort": {"bound_ms": 2020, "ended_ms": 17},
}


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (("shop",), {"key": "shop", "as": "compromised"}),
        (("shop", "--all"), {"key": "shop", "as": "compromised"}),
        (("shop", "--version", "all"), {"key": "shop", "as": "compromised"}),
        (("shop", "--version", "2"), {"key": "shop", "version": 2, "as": "compromised"}),
        (("shop", "--as", "suspended"), {"key": "shop", "as": "suspended"}),
        (("--tenant", "t"), {"key": None, "tenant": "t", "as": "compromised"}),
        (
            ("--purpose", "jwt", "--tenant", "t"),
            {"key": None, "purpose": "jwt", "tenant": "t", "as": "compromised"},
        ),
        (
            ("--label", "env=live", "--label", "service=till"),
            {"key": None, "labels": {"env": "live", "service": "till"}, "as": "compromised"},
        ),
    ],
)
def test_what_key_revoke_asks_for(
    words: tuple[str, ...], body: dict[str, object], run: Run, node: FakeNode
) -> None:
    node.on("POST /v1/revocations", REVOKED)
    ran = run("key", "revoke", *words, *SURE)
    assert ran.status == 0, ran.err
    assert node.seen[0].body == NOTHING | {"what": "versions", "reason": "INC-1"} | body
    assert "idempotency-key" in {name.lower() for name in node.seen[0].headers}
    for said in ("43 of node node1", "14: no use of it commits", "3.4 ms", "1 compromised"):
        assert said in ran.out
    assert run("key", "revoke", *words, *SURE, "--json").json["fence"]["seq"] == 43


@pytest.mark.parametrize(
    "words",
    [
        ("key", "revoke", *SURE),
        ("key", "revoke", "shop", "--tenant", "t", *SURE),
        ("key", "revoke", "--tenant", "t", "--version", "1", *SURE),
        ("key", "revoke", "shop", "--version", "1", "--all", *SURE),
        ("key", "revoke", "shop", "--version", "0", *SURE),
        ("key", "revoke", "shop", "--as", "active", *SURE),
        ("key", "revoke", "--label", "live", *SURE),
        ("key", "revoke", "shop", "--yes"),
        ("key", "revoke", "--tenant", "t", "--reason", "x"),
        ("handle", "revoke", "h1", "--key", "shop", "--reason", "x"),
        ("handle", "revoke", "--tenant", "t", "--key", "shop", "--reason", "x"),
        ("handle", "revoke", "--key", "shop"),
        ("handle", "revoke", "--reason", "x"),
        ("emergency", "stop", "--reason", "x"),
        ("emergency", "stop", "--all", "--tenant", "t", "--reason", "x"),
        ("emergency", "stop", "--all"),
        ("emergency", "end", "--all", "--reason", "x"),
    ],
    ids=" ".join,
)
def test_slips_of_the_pen_change_nothing(words: tuple[str, ...], run: Run, node: FakeNode) -> None:
    assert run(*words).status == 2
    assert node.seen == []


def test_suspending_asks_for_no_confirmation(run: Run, node: FakeNode) -> None:
    node.on("POST /v1/revocations", REVOKED)
    assert run("key", "revoke", "shop", "--as", "suspended", "--reason", "x").status == 0


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (("h1",), {"handle": "h1"}),
        (("--key", "shop"), {"key": "shop"}),
        (("--purpose", "tls"), {"purpose": "tls"}),
        (("--tenant", "t"), {"tenant": "t"}),
        (("--label", "env=live"), {"labels": {"env": "live"}}),
    ],
)
def test_what_handle_revoke_asks_for(
    words: tuple[str, ...], body: dict[str, object], run: Run, node: FakeNode
) -> None:
    node.on("POST /v1/revocations", REVOKED | {"what": "handles"})
    assert run("handle", "revoke", *words, "--reason", "INC-1").status == 0
    plain = NOTHING | {"what": "handles", "as": None, "key": None, "reason": "INC-1"}
    assert node.seen[0].body == plain | body


def test_a_dry_run_changes_nothing_and_shows_what_would_stop(run: Run, node: FakeNode) -> None:
    node.on("POST /v1/revocations/preview", PAGE)
    ran = run("key", "revoke", "shop", "--dry-run")
    assert ran.status == 0
    assert [seen.path for seen in node.seen] == ["/v1/revocations/preview"]
    for said in ("shop", "1 active", "h1", "till", "1970-01-01"):
        assert said in ran.out
    assert "Nothing was changed" in ran.err
    told = run("key", "revoke", "shop", "--dry-run", "--json").json
    assert told["dry_run"] is True
    assert told["cut"] is False
    assert told["principals"] == [
        {"principal": "ci", "handles": 1, "uses": 5},
        {"principal": "till", "handles": 1, "uses": 2},
    ]


def test_a_dry_run_that_is_cut_says_so(run: Run, node: FakeNode) -> None:
    key = STOPPED_KEY | {"handles": 2, "more_handles": True, "more_uses": True}
    node.on("POST /v1/revocations/preview", PAGE | {"keys": [key], "unread": ["newer"]})
    ran = run("key", "revoke", "--tenant", "t", "--dry-run")
    assert "2+" in ran.out
    assert "7+" in ran.out
    assert "A + stands where there are more" in ran.err
    assert "newer" in ran.err
    assert run("handle", "revoke", "--tenant", "t", "--dry-run", "--json").json["cut"] is True


def test_emergency_stop_status_and_end(run: Run, node: FakeNode) -> None:
    node.on("POST /v1/emergency/stop", STOP)
    ran = run("emergency", "stop", "--tenant", "shop", "--reason", "INC-1")
    assert ran.status == 0, ran.err
    assert node.seen[0].body == {"tenant": "shop", "reason": "INC-1"}
    for said in ("stopped", "17 ms after the commit, of 2020 ms"):
        assert said in ran.out
    node.on("POST /v1/emergency/end", STOP | {"stopped": False, "best_effort": None})
    ran = run("emergency", "end", "--all", "--reason", "over", "--yes")
    assert ran.status == 0, ran.err
    assert node.seen[1].body == {"tenant": None, "reason": "over"}
    assert "used again" in ran.out
    node.on("GET /v1/emergency", {"stops": [STOP | {"tenant": "*"}]})
    ran = run("emergency", "status")
    assert "all tenants" in ran.out
    assert "INC-1" in ran.out
    node.on("GET /v1/emergency", {"stops": []})
    assert "No stop is in force" in run("emergency", "status").out
