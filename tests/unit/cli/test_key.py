"""Keys."""

import sys
from pathlib import Path
from typing import Any

import pytest

from unit.cli.conftest import Run
from unit.cli.node import KEY, REVOKED, VERSION, FakeNode


def created(run: Run, node: FakeNode, *words: str) -> dict[str, Any]:
    node.on("POST /v1/keys", KEY)
    ran = run("key", "create", "shop", *words, "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json["name"] == "shop"
    body: dict[str, Any] = node.seen[-1].body
    return body


def own(body: dict[str, Any], part: str) -> dict[str, Any]:
    others = {"jwt", "firmware", "ca", "ssh_ca"} - {part}
    assert all(body["policy"][other] is None for other in others)
    found: dict[str, Any] = body["policy"][part]
    return found


def test_create_says_the_policy_of_each_purpose(run: Run, node: FakeNode) -> None:
    words = ["--purpose", "jwt", "--issuer", "i", "--audience", "a", "--audience", "b"]
    body = created(run, node, *words, "--lifetime", "15m", "--label", "service=web")
    assert body["labels"] == {"service": "web"}
    assert own(body, "jwt") == {"issuer": "i", "audiences": ["a", "b"], "lifetime_max_s": 900}
    body = created(run, node, "--purpose", "firmware", "--image-name", "app", "--step-max", "5")
    assert own(body, "firmware") == {"names": ["app"], "step_max": 5}
    words = ["--purpose", "ca", "--common-name", "Shop", "--dns-suffix", "shop.example"]
    body = created(run, node, *words, "--own-lifetime", "365d", "--algorithm", "ed25519")
    assert body["algorithm"] == "ed25519"
    assert own(body, "ca")["own_lifetime_s"] == 365 * 24 * 3600
    words = ["--purpose", "ssh_ca", "--ssh-principal", "alice", "--ssh-type", "host"]
    assert own(created(run, node, *words), "ssh_ca")["types"] == ["host"]
    body = created(run, node, "--purpose", "tls", "--ack", "best_effort", "--prehashed")
    assert (body["prehashed"], body["policy"]["ack"]) == (True, "best_effort")


def test_a_policy_may_come_from_a_file(run: Run, node: FakeNode) -> None:
    text = '{"jwt": {"issuer": "i"}, "verify_before_release": true}'
    Path("policy.json").write_text(text)
    body = created(run, node, "--purpose", "jwt", "--policy-file", "policy.json")
    assert body["policy"]["verify_before_release"] is True
    Path("policy.json").write_text('{"jwt": {"issuer": "i", "iss": "i"}}')
    ran = run("key", "create", "x", "--purpose", "jwt", "--policy-file", "policy.json")
    assert ran.status == 1
    assert "policy.json" in ran.err


def test_a_key_may_have_a_plan_from_its_first_publication_on(run: Run, node: FakeNode) -> None:
    words = ["--purpose", "jwt", "--issuer", "i", "--lifetime", "3s"]
    assert created(run, node, *words)["plan"] is None
    plan = created(run, node, *words, "--plan", "drill")["plan"]
    assert plan["publish"]["overlap_ms"] == plan["drain"]["length_ms"] == 3_000
    Path("own.toml").write_text("[canary]\nshare = 0.02\n")
    plan = created(run, node, *words, "--plan", "own.toml")["plan"]
    assert plan["canary"]["share_ppm"] == 20_000
    asked = len(node.seen)
    ran = run("key", "create", "shop", *words[:4], "--lifetime", "1h", "--plan", "drill")
    assert ran.status == 1
    assert "drain.length" in ran.err
    assert len(node.seen) == asked, "what its tokens outlive is refused here"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--purpose", "jwt"], "a jwt key needs --issuer"),
        (["--purpose", "ca", "--common-name", "x"], "a ca key needs --dns-suffix"),
        (["--purpose", "data", "--issuer", "i"], "--issuer: is for jwt keys"),
        (["--purpose", "tls", "--lifetime", "1d"], "--lifetime: is for jwt, ca, ssh_ca keys"),
        (["--purpose", "jwt", "--issuer", "i", "--lifetime", "soon"], "expected a time"),
        (["--purpose", "ssh_ca", "--ssh-principal", "a", "--ssh-type", "robot"], "Invalid"),
        (["--purpose", "data", "--label", "service"], "expected name=value"),
        (["--purpose", "jwt", "--issuer", "i", "--policy-file", "p"], "--policy-file"),
    ],
)
def test_create_refuses_before_it_asks(
    words: list[str], told: str, run: Run, node: FakeNode
) -> None:
    ran = run("key", "create", "shop", *words)
    assert ran.status == 2
    assert told in ran.err
    assert node.seen == []


def test_list_reads_page_after_page(
    run: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.cli.key._PAGE", 1)
    node.on("GET /v1/keys", [KEY])
    ran = run("key", "list", "--purpose", "jwt", "--limit", "2", "--json")
    assert len(ran.json) == 2
    assert [seen.path for seen in node.seen] == [
        "/v1/keys?purpose=jwt&limit=1",
        "/v1/keys?purpose=jwt&after=shop&limit=1",
    ]
    assert "service=web" in run("key", "list", "--limit", "1").out


def test_show(run: Run, node: FakeNode) -> None:
    node.on("GET /v1/keys/shop", KEY)
    assert run("key", "show", "shop", "--json").json["id"] == "k-1"
    ran = run("key", "show", "shop")
    assert "https://id.example" in ran.out
    assert "2026-09-21" in ran.out


@pytest.mark.parametrize(
    ("command", "move"),
    [
        ("suspend", "suspend"),
        ("resume", "resume"),
        ("deactivate", "deactivate"),
        ("destroy", "destroy"),
    ],
)
def test_moves(command: str, move: str, run: Run, node: FakeNode) -> None:
    node.on("POST /v1/keys/shop/moves", KEY)
    sure = ["--yes"] if command == "destroy" else []
    words = ["key", command, "shop", "--reason", "why", *sure, "--json"]
    assert run(*words).status == 0
    assert run(*words, "--version", "2").status == 0
    bodies = [seen.body for seen in node.seen]
    assert [body["version"] for body in bodies] == [None, 2]
    assert all((body["move"], body["reason"]) == (move, "why") for body in bodies)


@pytest.mark.parametrize("command", ["revoke", "destroy"])
def test_what_cannot_be_taken_back_asks_first(
    command: str, run: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("key", command, "shop", "--reason", "x").status == 2  # nobody is here to ask
    monkeypatch.setattr("keystead.cli.key.sys", Terminal())
    ran = run("key", command, "shop", "--reason", "x", stdin=b"n\n")
    assert ran.status == 1
    assert "nothing was changed" in ran.err
    assert node.seen == []
    node.on("POST /v1/keys/shop/moves", KEY)
    node.on("POST /v1/revocations", REVOKED)
    ran = run("key", command, "shop", "--reason", "x", stdin=b"y\n")
    assert ran.status == 0
    assert "for good?" in ran.err
    assert run("key", command, "shop", "--reason", "x", "--json").status == 2


class Terminal:
    """Stands for ``sys`` where somebody sits at stdin."""

    stdout = property(lambda _: sys.stdout)

    class stdin:  # noqa: N801  sys's own name
        """Somebody."""

        @staticmethod
        def isatty() -> bool:
            return True


def public(*versions: dict[str, Any]) -> dict[str, Any]:
    return {"name": "shop", "purpose": "jwt", "primary": 1, "versions": versions}


def test_public_parts(run: Run, node: FakeNode) -> None:
    second = VERSION | {"number": 2, "public_pem": ["2\n"], "kid": "kid-2"}
    dual = VERSION | {"number": 3, "algorithm": "dual-ecdsa-p256-ml-dsa-65"}
    dual |= {"public_pem": ["A\n", "B\n"]}
    secret = VERSION | {"number": 4, "algorithm": "aes-256-gcm-siv", "public_pem": []}
    node.on("GET /v1/keys/shop/public", public(VERSION, second, dual, secret))
    assert run("key", "public", "shop").out == VERSION["public_pem"][0]
    assert run("key", "public", "shop", "--version", "2").out == "2\n"
    assert run("key", "public", "shop", "--version", "3").out == "A\nB\n"
    words = ["key", "public", "shop", "--version", "3", "--component"]
    assert run(*words, "ml-dsa-65").out == "B\n"
    assert run(*words, "ed25519").status == 1
    assert run("key", "public", "shop", "--version", "4").status == 1
    assert run("key", "public", "shop", "--version", "9").status == 1
    assert len(run("key", "public", "shop", "--json").json["versions"]) == 4
    [told] = run("key", "public", "shop", "--version", "2", "--json").json["versions"]
    assert told["kid"] == "kid-2"
    assert all("authorization" not in seen.headers for seen in node.seen)


def test_jwks_and_certificate(run: Run, node: FakeNode) -> None:
    node.on("GET /v1/keys/shop/jwks.json", {"keys": []})
    assert run("key", "jwks", "shop").json == {"keys": []}
    node.on("GET /v1/keys/shop/certificate", b"PEM\n")
    assert run("key", "certificate", "shop").out == "PEM\n"
    assert run("key", "certificate", "shop", "--json").json["certificate_pem"] == "PEM\n"
