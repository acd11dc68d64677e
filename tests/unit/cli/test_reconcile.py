"""The command on a node that answers by a table: status, what a person reads, and a lost alert."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from keystead.encoding import b64u_encode
from unit.cli.conftest import Run
from unit.cli.node import KEY, VERSION, FakeNode, problem

KEY_PAIR = ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
PEM = KEY_PAIR.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
SHOP = KEY | {"versions": [VERSION | {"public_pem": [PEM.decode()]}]}
PUBLIC = {name: SHOP[name] for name in ("id", "name", "purpose", "versions")}
LOOKED: dict[str, Any] = {"found": [], "forgotten": [], "next": 7, "end": True, "top": 7}


def token() -> str:
    header = b64u_encode(json.dumps({"alg": "EdDSA", "kid": "kid-1"}).encode())
    message = f"{header}.{b64u_encode(b'{}')}"
    return f"{message}.{b64u_encode(KEY_PAIR.sign(message.encode()))}"


@pytest.fixture
def tokens(tmp_path: Path, node: FakeNode) -> str:
    node.on("GET /v1/keys/shop/public", PUBLIC)
    node.on("POST /v1/log/reconcile", LOOKED)
    (tmp_path / "tokens.txt").write_text(token())
    return str(tmp_path / "tokens.txt")


def asked(node: FakeNode) -> list[Any]:
    return [seen.body for seen in node.seen if seen.path == "/v1/log/reconcile"]


def test_a_person_reads_what_to_do(run: Run, node: FakeNode, tokens: str) -> None:
    ran = run("log", "reconcile", tokens, "--key", "shop")
    assert ran.status == 1
    assert "unrecorded" in ran.out
    assert token() not in ran.out
    assert "1 artefacts: 1 unrecorded" in ran.err
    assert "keystead key revoke shop --version 1" in ran.err
    look, tally = asked(node)
    assert (look["key"], look["version"], len(look["seen"])) == ("shop", 1, 1)
    assert tally["tally"] == {"recorded": 0, "unrecorded": 1, "forgotten": 0}


def test_what_is_recorded_is_status_0(run: Run, node: FakeNode, tokens: str) -> None:
    node.on("POST /v1/log/reconcile", LOOKED | {"found": [[0, 5]]})
    ran = run("log", "reconcile", tokens, "--key", "shop", "--json")
    assert (ran.status, ran.err) == (0, "")
    [told] = ran.json["artefacts"]
    assert (told["verdict"], told["seq"], told["key"]) == ("recorded", 5, "shop")


def test_keys_are_listed_by_the_purpose_of_what_was_met(
    run: Run, node: FakeNode, tokens: str
) -> None:
    node.on("GET /v1/keys", [])
    ran = run("log", "reconcile", tokens)
    assert ran.status == 0
    assert "1 not ours" in ran.err
    [listed] = [seen.path for seen in node.seen if seen.path.startswith("/v1/keys?")]
    assert "purpose=jwt" in listed
    assert asked(node) == []


def test_an_alarm_that_the_node_does_not_take_is_one_all_the_same(
    run: Run, node: FakeNode, tokens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = node.answer

    def refuse_the_tally(seen: Any) -> tuple[int, bytes]:  # noqa: ANN401  as the node met it
        status, data = answer(seen)
        if isinstance(seen.body, dict) and seen.body.get("tally"):
            return 403, json.dumps(problem("permission_denied")).encode()
        return status, data

    monkeypatch.setattr(node, "answer", refuse_the_tally)
    ran = run("log", "reconcile", tokens, "--key", "shop")
    assert ran.status == 1
    assert "did not take the alert" in ran.err
    node.on("POST /v1/log/reconcile", LOOKED | {"found": [[0, 5]]})
    ran = run("log", "reconcile", tokens, "--key", "shop")
    assert ran.status == 1
    assert "did not take the alert" not in ran.err


def test_nothing_to_reconcile_is_a_mistake(run: Run, node: FakeNode, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("no artefact here\n")
    for source in ("words", "none", "."):
        ran = run("log", "reconcile", source)
        assert ran.status == 2, source
    assert node.seen == []
