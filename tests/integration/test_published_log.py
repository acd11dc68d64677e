"""The log as others see it, on a real node: published, proven, copied, watched, put back."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.node import Node
from integration.witness import WitnessProcess
from keystead.client import Client, Retry
from keystead.crypto.witnesskey import witness_key
from keystead.errors import KeysteadError, LogUnavailable, NotFound, StateRolledBack
from keystead.keys.handles import Handle
from keystead.store.tile_files import TileFiles
from keystead.store.tree_files import TreeFiles
from keystead.translog.checkpoints import open_checkpoint
from keystead.translog.cosignatures import verify_cosignature
from keystead.translog.notes import ED25519, VerifierKey, parse_vkey, vkey_of
from keystead.translog.policy import PolicyWitness, policy_of
from keystead.translog.proofs import evidence_of, parse_proof, verify_proof

HASH = bytes(range(32))
CONTEXT = "web/shop"
WITHIN_S = 20.0


def keystead(*arguments: str, status: int = 0) -> Any:  # noqa: ANN401  any JSON
    ran = subprocess.run(
        [sys.executable, "-m", "keystead", *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == status, ran.stderr
    return json.loads(ran.stdout if status == 0 else ran.stderr)


def eventually(check: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WITHIN_S
    while not check():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def new_handle(client: Client, name: str) -> Handle:
    client.create_key(name, "tls")
    return client.issue_handle(name, "ci").handle


def log_key(client: Client) -> VerifierKey:
    eventually(lambda: covers(client, 0))
    return parse_vkey(client.log_vkey())


def covers(client: Client, seq: int) -> bool:
    try:
        client.log_proof(seq)
    except NotFound:
        return False
    return True


@pytest.fixture(scope="module")
def used(node: Node) -> Iterator[tuple[Client, Handle]]:
    with node.client() as client:
        yield client, new_handle(client, "published")


def test_a_use_is_proven_at_once_if_asked_for(used: tuple[Client, Handle]) -> None:
    client, handle = used
    done = client.sign_tls(handle, HASH, context=CONTEXT, wait_proof=True)
    assert done.log_proof is not None
    proof = parse_proof(done.log_proof)
    assert proof.index == done.receipt.seq
    verify_proof(proof, evidence_of(proof).entry, policy_of(log_key(client)))


def test_a_checkpoint_follows_within_a_second(used: tuple[Client, Handle]) -> None:
    """As a median, on a machine with other work: a bound that no load makes flaky is in docs."""
    client, handle = used
    took = []
    for _ in range(7):
        seq = client.sign_tls(handle, HASH, context=CONTEXT).receipt.seq or 0
        begun = time.monotonic()
        eventually(lambda at=seq: covers(client, at))  # type: ignore[misc]  # bound now
        took.append(time.monotonic() - begun)
    assert sorted(took)[3] < 1.0


def test_the_tree_is_served_as_tlog_tiles(node: Node, used: tuple[Client, Handle]) -> None:
    client, _ = used
    key = log_key(client)
    with httpx.Client(base_url=node.url) as http:
        note = http.get("/log/checkpoint")
        assert note.headers["content-type"] == "text/plain; charset=utf-8"
        assert note.headers["cache-control"] == "no-cache"
        head, _ = open_checkpoint(note.content, key)
        tile = http.get(f"/log/tile/0/000.p/{min(head.size, 255)}")
        assert tile.headers["content-type"] == "application/octet-stream"
        assert "immutable" in tile.headers["cache-control"]
        assert len(tile.content) == 32 * min(head.size, 255)
        assert http.head("/log/checkpoint").status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/log/", 404),
        ("/log/nothing", 404),
        ("/log/tile/0/999", 404),
        ("/log/tile/0/x000/001", 400),
        ("/log/tile/0/000.p/256", 400),
        ("/log/tile/../../registry.db", 404),
        ("/log/tile/%2e%2e/%2e%2e/seal.key", 400),
        ("/log/proof/1000000", 404),
        ("/log/proof/-1", 400),
        ("/log/proof/" + "9" * 40, 400),
    ],
)
def test_there_is_nothing_else(
    node: Node, used: tuple[Client, Handle], path: str, status: int
) -> None:
    log_key(used[0])
    answer = httpx.get(node.url + path)
    assert answer.status_code == status
    assert answer.json()["code"] in {"not_found", "malformed_request"}
    assert httpx.post(node.url + "/log/checkpoint").status_code == 405


def test_a_query_that_is_unknown_is_refused(node: Node, used: tuple[Client, Handle]) -> None:
    headers = {"authorization": f"Bearer {used[1].reveal()}", "content-type": "application/json"}
    answer = httpx.post(node.url + "/v1/tls/sign?wait=no", headers=headers, content=b"{}")
    assert answer.status_code == 400
    assert "wait=proof" in answer.json()["detail"]


def test_a_proof_is_made_and_checked_offline(
    node: Node, used: tuple[Client, Handle], tmp_path: Path
) -> None:
    client, handle = used
    seq = client.sign_tls(handle, HASH, context=CONTEXT).receipt.seq
    vkey = tmp_path / "log.vkey"
    vkey.write_text(log_key(client).encode() + "\n")
    file = tmp_path / "use.proof"
    node_options = ("--url", node.url, "--token-file", str(node.token_file))
    arguments = ("log", "prove", str(seq), "--disclose", "--key", str(vkey), "--out", str(file))
    subprocess.run(
        [sys.executable, "-m", "keystead", *arguments, *node_options], check=True, timeout=60
    )
    said = keystead("log", "verify", str(file), "--key", str(vkey))
    assert (said["index"], said["record"]["seq"], said["record"]["op"]) == (seq, seq, "tls.sign")
    (disclosed,) = client.log(operation="log.disclose", limit=1)
    assert f"{seq}" in str(disclosed.body)
    file.write_text(file.read_text().replace(f"index {seq}", f"index {(seq or 0) - 1}"))
    refused = keystead("log", "verify", str(file), "--key", str(vkey), status=1)
    assert refused["code"] == "proof_invalid"


def test_a_copy_of_the_tree_goes_on_and_holds_a_fork_against_the_log(
    node: Node, used: tuple[Client, Handle], tmp_path: Path
) -> None:
    client, handle = used
    folder = tmp_path / "copy"
    key = log_key(client)
    keystead("log", "export", str(folder), "--url", node.url)
    first, _ = open_checkpoint(TileFiles(folder).checkpoint() or b"", key)
    seq = client.sign_tls(handle, HASH, context=CONTEXT).receipt.seq or 0
    eventually(lambda: covers(client, seq))
    said = keystead("log", "export", str(folder), "--url", node.url, "--key", key.encode())
    assert (said["was"], said["size"] > first.size) == (first.size, True)
    head, _ = open_checkpoint(TileFiles(folder).checkpoint() or b"", key)
    TreeFiles(TileFiles(folder)).resume(head)
    mine = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    theirs = {
        path.name: path.read_bytes()
        for path in (node.data / "log").rglob("*")
        if path.is_file() and path.name in mine
    }
    assert all(theirs[name] == data for name, data in mine.items() if name in theirs)


@pytest.mark.parametrize("name", ["other/node1", ""])
def test_another_key_is_not_believed(
    node: Node, used: tuple[Client, Handle], tmp_path: Path, name: str
) -> None:
    """Neither another log's, nor another key under this log's name."""
    mine = log_key(used[0])
    pinned = tmp_path / "log.vkey"
    said = keystead("log", "checkpoint", "--key-out", str(pinned), "--url", node.url)
    assert pinned.read_text() == said["vkey"] + "\n"
    assert parse_vkey(said["vkey"]) == mine
    other = vkey_of(name or mine.name, ED25519, witness_key(bytes(32)).public)
    refused = keystead("log", "checkpoint", "--key", other.encode(), "--url", node.url, status=1)
    assert refused["code"] == "signature_invalid"


# --- anchors -------------------------------------------------------------------------------------


def use(client: Client, handle: Handle, count: int = 3) -> None:
    for _ in range(count):
        client.sign_tls(handle, HASH, context=CONTEXT)


def refusal(node: Node, handle: Handle) -> KeysteadError:
    """What a client that does not try again is told."""
    with (
        Client(node.url, retry=Retry(deadline_s=0.5)) as client,
        pytest.raises(KeysteadError) as caught,
    ):
        client.sign_tls(handle, HASH, context=CONTEXT)
    return caught.value


@pytest.mark.parametrize("kind", ["file", "witness"])
def test_yesterdays_copy_of_the_whole_folder_uses_no_key(kind: str, tmp_path: Path) -> None:
    data, old = tmp_path / "data", tmp_path / "old"
    with Node(data) as fresh, fresh.client() as client:
        handle = new_handle(client, "shop")
        key = log_key(client)
    with WitnessProcess(tmp_path / "witness", [key]) as witness:
        pair = (witness.url, witness.facts["vkey"])
        other = tmp_path / "other-disk"
        other.mkdir()
        anchors: dict[str, object] = {"anchor": str(other / "anchor")}
        if kind == "witness":
            anchors = {"witnesses": [pair], "quorum": 1}
        with Node(data, **anchors) as node, node.client() as client:
            eventually(lambda: httpx.get(node.url + "/ready").status_code == 200)
            use(client, handle)
        shutil.copytree(data, old)
        with Node(data, **anchors) as node, node.client() as client:
            eventually(lambda: httpx.get(node.url + "/ready").status_code == 200)
            use(client, handle)
            seq = client.sign_tls(handle, HASH, context=CONTEXT, wait_proof=True).receipt.seq or 0
            if kind == "witness":
                policy = policy_of(key, [PolicyWitness("w", parse_vkey(pair[1]))], 1)
                proof = parse_proof(client.log_proof(seq))
                assert "w" in verify_proof(proof, evidence_of(proof).entry, policy).witnesses
            else:
                eventually(lambda: f"\n{seq + 1}\n" in (other / "anchor").read_text())
        shutil.rmtree(data)
        old.rename(data)
        with Node(data, **anchors) as node, node.client() as client:
            eventually(lambda: isinstance(refusal(node, handle), StateRolledBack))
            reasons = httpx.get(node.url + "/ready").json()["reasons"]
            assert "an older copy of the data folder was put back" in reasons[0]


def test_an_older_database_under_a_newer_published_log_uses_no_key(tmp_path: Path) -> None:
    data, old = tmp_path / "data", tmp_path / "old.db"
    with Node(data) as node, node.client() as client:
        handle = new_handle(client, "shop")
        log_key(client)
    shutil.copy(data / "registry.db", old)
    with Node(data) as node, node.client() as client:
        seq = client.sign_tls(handle, HASH, context=CONTEXT, wait_proof=True).receipt.seq
    old.replace(data / "registry.db")
    with Node(data) as node:
        said = refusal(node, handle)
        assert isinstance(said, StateRolledBack)
        assert f"has signed {(seq or 0) + 1} records" in said.message


def test_a_node_waits_for_a_witness_that_is_away_and_a_person_may_go_on(tmp_path: Path) -> None:
    with Node(tmp_path / "data") as fresh, fresh.client() as client:
        handle = new_handle(client, "shop")
        key = log_key(client)
    with WitnessProcess(tmp_path / "witness", [key]) as witness:
        pair = (witness.url, witness.facts["vkey"])
    with Node(tmp_path / "data", witnesses=[pair], quorum=1) as node, node.client() as client:
        assert isinstance(refusal(node, handle), LogUnavailable)
        assert "witness" in httpx.get(node.url + "/ready").json()["reasons"][0]
        client.go_on(reason="it is lost")
        use(client, handle)
        (body,) = client.log(operation="log.go_on")
        assert body.body["reason"] == "it is lost"
        note = client.log_checkpoint()
        _, signed = open_checkpoint(note, key)
        with pytest.raises(NotFound):
            verify_cosignature(signed, parse_vkey(pair[1]))
