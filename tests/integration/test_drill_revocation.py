"""The drill of revocations as an operator runs it: on one node, and on two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from integration.node import Node
from keystead.client import Client
from keystead.drills.revocation.setting import TENANT
from keystead.drills.revocation.targets import COMBINATIONS
from keystead.keys.commands import KeyInfo
from postgres import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
WITHIN_S = 200


def start(node: Node, *arguments: str) -> subprocess.Popen[str]:
    """The command, where any warning is an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "keystead", "drill", "revocation", *arguments],
        env={
            **os.environ,
            "KEYSTEAD_URL": node.url,
            "KEYSTEAD_TOKEN_FILE": str(node.token_file),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def drilled(node: Node, out: Path, count: int, *arguments: str) -> dict[str, Any]:
    """The report of a drill; every check of it holds but the one that is about time."""
    process = start(node, "--json", "--revocations", str(count), "--out", str(out), *arguments)
    told, errors = process.communicate(timeout=WITHIN_S)
    assert errors == ""
    report: dict[str, Any] = json.loads(told)
    failed = [check for check in report["checks"] if not check["held"]]
    # How fast a machine is that runs other tests beside it is nothing to hold a node to.
    assert [check for check in failed if not check["what"].startswith("median")] == []
    assert process.returncode == (1 if failed else 0)
    assert report["ok"] is not failed
    return report


def check_ended(operator: Client, run: str) -> None:
    """No key of the drill can be used any more."""
    keys = [key for key in operator.list_keys(tenant=TENANT) if key.labels.get("drill") == run]
    assert keys
    assert {version.state for key in keys for version in key.versions} == {"destroyed"}


def test_on_one_node(node: Node, operator: Client, tmp_path: Path) -> None:
    report = drilled(node, tmp_path, COMBINATIONS)
    assert [front["node"] for front in report["fronts"]] == ["node1"]
    assert "one node" in report["left_out"][0]
    assert {each["ack"]: each["revocations"] for each in report["figures"]} == {
        "durable": 10,
        "best_effort": 5,
    }
    picture = Path(report["picture"])
    assert picture.parent == tmp_path
    assert ET.parse(picture).getroot().tag.endswith("svg")  # noqa: S314  our own
    check_ended(operator, report["run"])


_WITHOUT_FENCE = """
import sys
if "keystead.app" in sys.orig_argv and "vault" in sys.orig_argv:
    import keystead.keys.epochs
    keystead.keys.epochs.check_standing = lambda *_given, **_named: None
"""
"""What a use was checked for is not checked again in its commit."""


def test_a_node_without_the_commit_fence_fails_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_WITHOUT_FENCE)
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path))
        broken = Node(tmp_path / "data").start()
    try:
        process = start(broken, "--json", "--revocations", "30", "--out", str(tmp_path))
        told, errors = process.communicate(timeout=WITHIN_S)
    finally:
        broken.stop()
    assert (process.returncode, errors) == (1, "")
    failed = {check["what"] for check in json.loads(told)["checks"] if not check["held"]}
    assert "records of uses at or behind the revocation's epoch (I4)" in failed


@pytest.fixture
def two(postgres: PostgresServer, tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two nodes of one deployment."""
    url = postgres.database(tcp=True)
    with (
        Node(tmp_path / "a", database=url, node="a") as first,
        Node(
            tmp_path / "b", database=url, node="b", seal_file=str(tmp_path / "a" / "seal.key")
        ) as second,
    ):
        yield first, second
    postgres.drop(url)


def test_on_two_nodes(two: tuple[Node, Node], tmp_path: Path) -> None:
    first, second = two
    report = drilled(first, tmp_path, COMBINATIONS, "--peer", second.url)
    assert [front["node"] for front in report["fronts"]] == ["a", "b"]
    assert report["left_out"] == []
    assert sum(each["revocations"] for each in report["figures"]) == COMBINATIONS
    with Client(second.url, operator=first.token) as operator:
        check_ended(operator, report["run"])


def test_the_same_node_twice_is_no_second_node(node: Node, tmp_path: Path) -> None:
    process = start(node, "--peer", node.url, "--out", str(tmp_path))
    told, errors = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, told) == (1, "")
    assert "expected two nodes, met node1 at both addresses" in errors


def test_stopped_in_the_middle_it_leaves_nothing_that_can_be_used(
    node: Node, operator: Client, tmp_path: Path
) -> None:
    before = {key.name for key in operator.list_keys(tenant=TENANT)}
    process = start(node, "--out", str(tmp_path))
    until_s = time.monotonic() + WITHIN_S / 2
    mine: list[KeyInfo] = []
    while time.monotonic() < until_s:
        mine = [key for key in operator.list_keys(tenant=TENANT) if key.name not in before]
        if any(version.state == "suspended" for key in mine for version in key.versions):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=WITHIN_S / 2)
    assert process.returncode == 128 + signal.SIGINT
    assert told == ""
    assert errors.startswith("Stopped.\nleft: ")
    assert list(tmp_path.iterdir()) == []
    check_ended(operator, mine[0].labels["drill"])


def test_a_folder_that_is_not_there(node: Node, tmp_path: Path) -> None:
    process = start(node, "--out", str(tmp_path / "nowhere"))
    told, errors = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, told) == (2, "")
    assert "no folder" in errors
