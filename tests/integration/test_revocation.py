"""An incident on a real node, by the command line: dry run, revoke, emergency, and verify after."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from integration.node import Node
from integration.thief import Thief
from keystead.cli.main import main
from keystead.client import Client
from keystead.errors import HandleRevoked, KeyStateError
from keystead.keys.framing.jwt import SignJwt
from keystead.keys.model import FirmwarePolicy, JwtPolicy, Policy

JWT = Policy(jwt=JwtPolicy(issuer="https://id.example"))
CONTEXT = "till/eu"


class Ran(NamedTuple):
    """What came of a command: its status, and what it said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401  whatever a command says
        return json.loads(self.out)


class Desk:
    """A person at a shell in a folder. ``token``: whether the operator's is at hand."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.tenants = 0

    def run(self, *words: str, token: bool = True) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name in [name for name in os.environ if name.startswith("KEYSTEAD_")]:
                patch.delenv(name)
            patch.setenv("KEYSTEAD_URL", self.node.url)
            if token:
                patch.setenv("KEYSTEAD_TOKEN_FILE", str(self.node.token_file))
            patch.chdir(self.folder)
            status = main(list(words))
        return Ran(status, out.getvalue(), err.getvalue())

    def tenant(self) -> str:
        """A name that no test has used."""
        self.tenants += 1
        return f"t{self.tenants}"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A node of its own: everything on it is stopped."""
    folder = tmp_path_factory.mktemp("incident")
    with Node(folder / "data") as running:
        yield Desk(running, folder)


@pytest.fixture
def client(desk: Desk) -> Iterator[Client]:
    with desk.node.client() as made:
        yield made


def test_a_tenant_is_tried_stopped_and_brought_back(desk: Desk, client: Client) -> None:
    tenant = desk.tenant()
    handles = {}
    for number in range(3):
        name = f"{tenant}-{number}"
        client.create_key(name, "jwt", policy=JWT, tenant=tenant, labels={"env": f"e{number}"})
        handles[name] = client.issue_handle(name, f"app-{number}").handle
        for _ in range(number):
            client.sign_jwt(handles[name], {"sub": "a"}, context=CONTEXT)
    dry = desk.run("key", "revoke", "--tenant", tenant, "--dry-run", "--json")
    assert dry.status == 0, dry.err
    assert {key["name"]: key["uses"] for key in dry.json["keys"]} == {
        f"{tenant}-{number}": number for number in range(3)
    }
    assert {p["principal"]: p["uses"] for p in dry.json["principals"]} == {
        f"app-{number}": number for number in range(3)
    }
    assert dry.json["cut"] is False
    for handle in handles.values():
        client.sign_jwt(handle, {"sub": "a"}, context=CONTEXT)

    stopped = desk.run(
        *("key", "revoke", "--tenant", tenant, "--as", "suspended", "--reason", "INC-1", "--json")
    )
    assert stopped.status == 0, stopped.err
    fence = stopped.json["fence"]
    assert len(stopped.json["keys"]) == 3
    assert fence["commit_ms"] > 0
    for handle in handles.values():
        with pytest.raises(KeyStateError):
            client.sign_jwt(handle, {"sub": "a"}, context=CONTEXT)
    records = client.log(operation="revoke", oldest_first=True, after=fence["seq"] - 1)
    assert {record.epoch for record in records} == {fence["epoch"]}
    assert {record.body["reason"] for record in records} == {"INC-1"}
    uses = client.log(after=fence["seq"] - 1, operation="jwt.sign", outcome="ok")
    assert uses == []

    first = f"{tenant}-0"
    assert desk.run("key", "resume", first, "--reason", "closed").status == 0
    client.sign_jwt(handles[first], {"sub": "a"}, context=CONTEXT)
    lost = desk.run("key", "revoke", first, "--reason", "leaked", "--yes")
    assert lost.status == 0, lost.err
    assert "no use of it commits" in lost.out
    again = desk.run("key", "resume", first, "--reason", "try")
    assert again.status == 1
    assert "compromised" in again.err


def test_handles_end_by_id_key_and_label(desk: Desk, client: Client) -> None:
    tenant = desk.tenant()
    names = [f"{tenant}-a", f"{tenant}-b"]
    for name in names:
        client.create_key(name, "data", tenant=tenant, labels={"env": tenant})
    one, two = (client.issue_handle(names[0], "app") for _ in range(2))
    other = client.issue_handle(names[1], "app")
    assert desk.run("handle", "revoke", one.handle_id, "--reason", "lost").status == 0
    with pytest.raises(HandleRevoked):
        client.wrap(one.handle, b"x", context="db")
    client.wrap(two.handle, b"x", context="db")
    dry = desk.run("handle", "revoke", "--key", names[0], "--dry-run", "--json").json
    assert {h["id"]: (h["uses"], h["revoked"]) for h in dry["handles"]} == {
        one.handle_id: (0, True),
        two.handle_id: (1, False),
    }
    ended = desk.run("handle", "revoke", "--label", f"env={tenant}", "--reason", "INC-2", "--json")
    assert [key["generation"] for key in ended.json["keys"]] == [2, 2]
    for handle in (two.handle, other.handle):
        with pytest.raises(HandleRevoked):
            client.wrap(handle, b"x", context="db")
    fresh = client.issue_handle(names[0], "app")
    client.wrap(fresh.handle, b"x", context="db")


def test_everything_is_stopped_by_one_command_and_started_by_another(
    desk: Desk, client: Client
) -> None:
    tenant = desk.tenant()
    client.create_key(tenant, "jwt", policy=JWT, tenant=tenant)
    handle = client.issue_handle(tenant, "app").handle
    assert desk.run("emergency", "stop", "--all", "--reason", "INC-3").status == 0
    try:
        with pytest.raises(KeyStateError, match="emergency stop"):
            client.sign_jwt(handle, {"sub": "a"}, context=CONTEXT)
        with pytest.raises(KeyStateError, match="emergency stop"):
            client.issue_handle(tenant, "app")
        assert client.jwks(tenant)["keys"]
        status = desk.run("status", "--json").json
        assert status["ready"] is True
        assert status["protections"]["emergency"] == "stopped: all tenants"
        listed = desk.run("emergency", "status", "--json").json["stops"]
        assert [(stop["tenant"], stop["reason"]) for stop in listed] == [("*", "INC-3")]
        no_token = desk.run("emergency", "end", "--all", "--reason", "x", "--yes", token=False)
        assert no_token.status == 2
    finally:
        ended = desk.run("emergency", "end", "--all", "--reason", "over", "--yes", "--json")
    assert ended.status == 0, ended.err
    assert ended.json["stopped"] is False
    client.sign_jwt(handle, {"sub": "a"}, context=CONTEXT)
    assert "emergency" not in desk.run("status", "--json").json["protections"]


def test_what_was_signed_before_a_compromise_is_proven_by_the_log(
    desk: Desk, client: Client
) -> None:
    name, folder = desk.tenant(), desk.folder
    client.create_key(name, "jwt", policy=JWT, algorithm="ecdsa-p256-sha256")
    handle = client.issue_handle(name, "app").handle
    used = client.sign_jwt(handle, {"sub": "a"}, context=CONTEXT)
    (folder / "good.txt").write_text(used.result.token)
    with Thief(desk.node.data) as thief:
        (folder / "stolen.txt").write_text(thief.sign(name, SignJwt(claims={"sub": "b"})).token)
    verify = ("verify", "jwt", "--key", name)
    assert desk.run(*verify, "good.txt").status == 0
    assert desk.run(*verify, "stolen.txt").status == 0  # nobody knows yet
    lost = desk.run("key", "revoke", name, "--reason", "stolen", "--yes", "--json").json

    proven = desk.run(*verify, "good.txt", "--json")
    assert proven.status == 6, proven.err
    [before] = proven.json["before_compromise"]
    assert before == {
        "version": 1,
        "node": lost["fence"]["node"],
        "seq": used.receipt.seq,
        "epoch": used.receipt.epoch,
        "compromise": lost["fence"]["seq"],
        "compromised_epoch": lost["fence"]["epoch"],
    }
    assert proven.json["signer"]["state"] == "compromised"
    words = desk.run(*verify, "good.txt")
    assert f"Record {used.receipt.seq}" in words.err
    assert f"keystead log prove {used.receipt.seq}" in words.err

    unproven = desk.run(*verify, "stolen.txt", "--json")
    assert unproven.status == 7
    told = json.loads(unproven.err)
    assert (told["code"], told["exit_status"]) == ("signed_by_compromised", 7)
    assert "may have been made with the stolen key" in told["hint"]

    unknown = desk.run(*verify, "good.txt", token=False)
    assert unknown.status == 1
    assert "compromised since epoch" in unknown.err
    other = desk.run(*verify, "good.txt", "--audience", "x")
    assert other.status == 1  # that it is old does not make up for what else does not hold


def test_one_file_proves_it_without_a_node(desk: Desk, client: Client) -> None:
    name, folder = desk.tenant(), desk.folder
    client.create_key(name, "jwt", policy=JWT)
    handle = client.issue_handle(name, "app").handle
    used, second = (client.sign_jwt(handle, {"sub": s}, context=CONTEXT) for s in "ab")
    (folder / "old.txt").write_text(used.result.token)
    (folder / "other.txt").write_text(second.result.token)
    desk.run("key", "revoke", name, "--reason", "stolen", "--yes")
    (folder / "key.json").write_text(desk.run("key", "public", name, "--json").out)
    assert desk.run("log", "checkpoint", "--key-out", "log.vkey").status == 0
    proof = desk.run("log", "prove", str(used.receipt.seq), "--disclose", "--out", "use.proof")
    assert proof.status == 0, proof.err
    offline = ("verify", "jwt", "--key-file", "key.json", "--url", "http://127.0.0.1:9")
    held = (*offline, "old.txt", "--log-proof", "use.proof", "--log-key", "log.vkey", "--json")
    done = desk.run(*held, token=False)
    assert done.status == 6, done.err
    assert done.json["before_compromise"][0]["seq"] == used.receipt.seq
    assert done.json["before_compromise"][0]["compromise"] == -1
    not_of_it = (*offline, "other.txt", "--log-proof", "use.proof", "--log-key", "log.vkey")
    assert desk.run(*not_of_it, token=False).status == 7
    assert desk.run(*held[:-3], token=False).status == 2  # no key of the log
    bare = desk.run("log", "prove", str(used.receipt.seq), "--out", "bare.proof")
    assert bare.status == 0
    shows_nothing = (*offline, "old.txt", "--log-proof", "bare.proof", "--log-key", "log.vkey")
    assert desk.run(*shows_nothing, token=False).status == 1


def test_firmware_ledgers_and_handshakes_are_looked_up_too(desk: Desk, client: Client) -> None:
    tag, folder = desk.tenant(), desk.folder
    image, book, wire = f"{tag}-fw", f"{tag}-book", f"{tag}-tls"
    client.create_key(
        image,
        "firmware",
        policy=Policy(firmware=FirmwarePolicy(names=("app",))),
        algorithm="dual-ecdsa-p256-ml-dsa-65",
    )
    client.create_key(book, "ledger")
    client.create_key(wire, "tls", algorithm="ed25519")
    (folder / "app.img").write_bytes(b"image")
    for number in (1, 2):
        (folder / f"order-{number}.json").write_text(f"{number}")
    for name in (image, book, wire):
        (folder / f"{name}.handle").write_text(client.issue_handle(name, "ci").handle.reveal())
    work = {
        image: ("sign", "firmware", "app.img", "--name", "app", "--image-version", "1"),
        book: ("ledger", "append", "order-1.json", "order-2.json", "--out", "orders.ledger"),
        wire: ("sign", "tls", "--transcript-hash", "00" * 32, "--out", "hs.sig"),
    }
    for name, words in work.items():
        ran = desk.run(*words, "--context", "a/b", "--handle-file", f"{name}.handle")
        assert ran.status == 0, ran.err
    checks = {
        image: ("verify", "firmware", "app.img", "--name", "app"),
        book: ("verify", "ledger", "orders.ledger", "--entries", "."),
        wire: (
            *("verify", "tls", "--transcript-hash", "00" * 32),
            *("--scheme", "0x0807", "--signature", "hs.sig"),
        ),
    }
    for name, words in checks.items():
        assert desk.run(*words, "--key", name).status == 0
        assert desk.run("key", "revoke", name, "--reason", "stolen", "--yes").status == 0
        ran = desk.run(*words, "--key", name, "--json")
        assert ran.status == 6, ran.err
        assert len(ran.json["before_compromise"]) == (2 if name == book else 1)
        assert desk.run(*words, "--key", name, token=False).status == 1


def test_the_log_and_its_history_hold_after_all_of_it(desk: Desk) -> None:
    """Last: one change of many keys, a record each, as `log fsck` sees them."""
    assert desk.run("log", "checkpoint", "--key-out", "fsck.vkey").status == 0
    ran = desk.run("log", "fsck", "--data", str(desk.node.data), "--key", "fsck.vkey")
    assert ran.status == 0, ran.out + ran.err
