"""What is said of a compromised version's signature where the log cannot settle it."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from unit.cli.conftest import Run
from unit.cli.node import FakeNode, problem
from unit.cli.test_uses import KEY, key_file, manifest

FOUND = {"found": [[0, 41]], "next": 41, "end": True, "top": 50}
NOTHING = {"found": [], "next": 50, "end": True, "top": 50}
RECORD: dict[str, Any] = {
    "seq": 41,
    "body": {"seq": 41, "node": "n1"},
    "entry": "00",
    "leaf": "01",
    "epoch": 6,
    "operation": "firmware.sign",
    "outcome": "ok",
}
PAGE = {"records": [RECORD], "next": 41, "end": True, "top": 50}
VERIFY = ("verify", "firmware", "app.img")


@pytest.fixture
def lost(run: Run, node: FakeNode) -> list[str]:
    """A signed image, and a public part that says: compromised since epoch 7."""
    del run, node
    document = manifest(b"image")
    Path("app.img").write_bytes(b"image")
    Path("app.img.manifest.json").write_bytes(document)
    Path("app.img.ed25519.sig").write_bytes(KEY.sign(document))
    words = key_file("firmware", state="compromised")
    path = Path(words[1])
    public = msgspec.json.decode(path.read_bytes())
    public["versions"][0]["compromised_epoch"] = 7
    path.write_bytes(msgspec.json.encode(public))
    return words


def test_a_record_of_a_lower_epoch_is_older(run: Run, node: FakeNode, lost: list[str]) -> None:
    node.on("POST /v1/log/reconcile", FOUND)
    node.on("GET /v1/log", PAGE)
    ran = run(*VERIFY, *lost, "--json")
    assert ran.status == 6, ran.err
    [before] = ran.json["before_compromise"]
    assert (before["seq"], before["epoch"], before["compromised_epoch"]) == (41, 6, 7)
    [asked] = [seen for seen in node.seen if seen.path == "/v1/log/reconcile"]
    message = base64.b64decode(asked.body["seen"][0]["message"])
    assert message == Path("app.img.manifest.json").read_bytes()
    assert asked.body["version"] == 1


def test_a_record_that_is_not_older_is_no_excuse(run: Run, node: FakeNode, lost: list[str]) -> None:
    node.on("POST /v1/log/reconcile", FOUND)
    node.on("GET /v1/log", PAGE | {"records": [RECORD | {"epoch": 7}]})
    ran = run(*VERIFY, *lost)
    assert ran.status == 1
    assert "does not stand before the compromise" in ran.err


def test_no_record_has_a_status_of_its_own(run: Run, node: FakeNode, lost: list[str]) -> None:
    node.on("POST /v1/log/reconcile", NOTHING)
    node.on("GET /v1/log", PAGE | {"records": []})
    ran = run(*VERIFY, *lost)
    assert ran.status == 7
    assert ran.out == ""
    assert "may have been made with the stolen key" in ran.err


def test_a_forgotten_record_may_be_of_it(run: Run, node: FakeNode, lost: list[str]) -> None:
    node.on("POST /v1/log/reconcile", NOTHING | {"forgotten": [0]})
    node.on("GET /v1/log", PAGE | {"records": []})
    ran = run(*VERIFY, *lost)
    assert ran.status == 1
    assert "was forgotten may be of it" in ran.err


def test_a_log_that_cannot_be_asked_settles_nothing(
    run: Run, node: FakeNode, lost: list[str]
) -> None:
    node.on("POST /v1/log/reconcile", problem("permission_denied"), status=403)
    ran = run(*VERIFY, *lost)
    assert ran.status == 1
    assert "could not be asked" in ran.err


def test_without_a_token_nobody_is_asked(
    run: Run, node: FakeNode, lost: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEYSTEAD_TOKEN")
    ran = run(*VERIFY, *lost)
    assert ran.status == 1
    assert "--log-proof" in ran.err
    assert node.seen == []


def test_an_old_record_does_not_make_up_for_another_image(
    run: Run, node: FakeNode, lost: list[str]
) -> None:
    node.on("POST /v1/log/reconcile", FOUND)
    node.on("GET /v1/log", PAGE)
    Path("app.img").write_bytes(hashlib.sha256(b"other").digest())
    ran = run(*VERIFY, *lost)
    assert ran.status == 1
    assert "the image" in ran.err
    assert node.seen == []
