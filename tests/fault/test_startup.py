"""What keeps a node from starting: each a clear error that says what to do, and nothing is lost."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.node import Node

UNAVAILABLE = 3


@pytest.fixture
def stopped(tmp_path: Path) -> Node:
    """A node that was started once, has one key, and is stopped."""
    node = Node(tmp_path / "data")
    with node, node.client() as client:
        client.create_key("kept", "tls")
    return node


def check_refused(node: Node, message: str, hint: str) -> None:
    status, said = node.refusal()
    assert status == UNAVAILABLE
    assert message in said["error"]
    assert hint in said["hint"]


def check_nothing_lost(node: Node) -> None:
    with node, node.client() as client:
        assert client.show_key("kept").versions[0].state == "active"


def test_used_port(stopped: Node) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check_refused(Node(stopped.data, listen=f"127.0.0.1:{port}"), str(port), "choose another")
    check_nothing_lost(stopped)


def test_listening_beyond_loopback_demands_tls(stopped: Node) -> None:
    check_refused(Node(stopped.data, listen="0.0.0.0:0"), "refusing to listen", "tls_cert")
    check_nothing_lost(stopped)


@pytest.mark.root
def test_read_only_folder(stopped: Node, tmpfs: Callable[..., Path]) -> None:
    mount = tmpfs(size_kib=4096)
    shutil.copytree(stopped.data, mount / "data", ignore=shutil.ignore_patterns("*.sock"))
    (mount / "data").chmod(0o700)
    node = Node(mount / "data", operator_token_file=str(stopped.token_file))
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    check_refused(node, "cannot be written", "read-write")
    subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
    node.token_file = stopped.token_file
    check_nothing_lost(node)


@pytest.mark.root
def test_full_disk_at_first_start(tmpfs: Callable[..., Path]) -> None:
    mount = tmpfs(size_kib=64)
    node = Node(mount / "data", operator_token_file=str(mount.parent / "token"))
    status, said = node.refusal()
    assert status == UNAVAILABLE
    assert "full" in said["error"] or "space" in said["error"].lower()
    assert said["hint"]
    subprocess.run(["mount", "-o", "remount,size=16m", mount], check=True)
    node.token_file = mount.parent / "token"
    with node, node.client() as client:
        assert client.create_key("after", "tls").name == "after"


def test_missing_seal(stopped: Node) -> None:
    seal = stopped.data / "seal.key"
    away = seal.rename(stopped.data.parent / "seal.away")
    check_refused(stopped, "is missing", "Restore it")
    assert not seal.exists()
    away.rename(seal)
    check_nothing_lost(stopped)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[:40], "damaged"),
        (lambda text: text.replace("\n", "\nA", 1), "damaged"),
        (lambda _text: "", "damaged"),
    ],
    ids=["cut off", "altered", "empty"],
)
def test_damaged_seal(stopped: Node, spoil: Callable[[str], str], message: str) -> None:
    seal = stopped.data / "seal.key"
    genuine = seal.read_text()
    seal.write_text(spoil(genuine))
    check_refused(stopped, message, "Restore it")
    seal.write_text(genuine)
    check_nothing_lost(stopped)


def test_seal_of_another_deployment(stopped: Node, tmp_path: Path) -> None:
    with Node(tmp_path / "other"):
        pass
    seal = stopped.data / "seal.key"
    genuine = seal.read_bytes()
    shutil.copy(tmp_path / "other" / "seal.key", seal)
    check_refused(stopped, "does not open", "another deployment")
    seal.write_bytes(genuine)
    check_nothing_lost(stopped)


def test_seal_open_to_others(stopped: Node) -> None:
    seal = stopped.data / "seal.key"
    seal.chmod(0o644)
    check_refused(stopped, "readable by others", "chmod 600")
    seal.chmod(0o600)
    check_nothing_lost(stopped)


def test_second_node_on_the_same_folder(tmp_path: Path) -> None:
    with Node(tmp_path / "data") as first:
        check_refused(Node(first.data), "another node runs", "--data")
        with first.client() as client:
            assert client.create_key("kept", "tls").name == "kept"


def test_folder_open_to_others(stopped: Node) -> None:
    stopped.data.chmod(0o755)
    check_refused(stopped, "open to other users", "chmod 700")
    stopped.data.chmod(0o700)
    check_nothing_lost(stopped)


def test_damaged_registry(stopped: Node) -> None:
    registry = stopped.data / "registry.db"
    genuine = registry.read_bytes()
    registry.write_bytes(b"not a database" * 100)
    check_refused(stopped, "registry", "backup")
    registry.write_bytes(genuine)
    check_nothing_lost(stopped)


def test_a_first_start_that_fails_late_does_not_lose_the_operators_token(tmp_path: Path) -> None:
    """The vault has committed its hash, then the front finds its port taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        node = Node(tmp_path / "data", listen=f"127.0.0.1:{port}")
        node.refusal()
    with Node(tmp_path / "data") as started, started.client() as operator:
        assert operator.list_keys(tenant="default") == []
        assert not (started.data / "operator-token.new").exists()


def test_a_token_file_that_cannot_be_written_is_named_and_the_token_waits(tmp_path: Path) -> None:
    status, said = Node(tmp_path / "data", operator_token_file=str(tmp_path / "no" / "t")).refusal()
    assert status == 3
    assert str(tmp_path / "no" / "t") in said["error"]
    waiting = tmp_path / "data" / "operator-token.new"
    assert waiting.stat().st_mode & 0o777 == 0o600
    assert str(waiting) in said["hint"]
    with Node(tmp_path / "data") as started, started.client() as operator:
        assert operator.list_keys(tenant="default") == []


def test_the_token_file_is_private_even_if_it_was_there(tmp_path: Path) -> None:
    there = tmp_path / "data-operator.token"
    there.write_text("an older and longer token than any of these" * 3)
    there.chmod(0o644)
    with Node(tmp_path / "data") as started, started.client() as operator:
        assert operator.list_keys(tenant="default") == []
        assert there.stat().st_mode & 0o777 == 0o600


def test_children_get_no_token_and_import_nothing_from_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYSTEAD_TOKEN", "kso1.canary")
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "structlog.py").write_text("raise SystemExit('imported from the data folder')")
    with Node(data) as started:
        children = started.children()
        assert set(children) == {"vault", "steward", "front"}
        for pid in children.values():
            assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
