"""The drill of rotations on a real node, as an operator runs it, in its short form."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from integration.node import Node
from keystead.client import Client
from keystead.drills.rotation.ending import TENANT

pytestmark = pytest.mark.slow
WITHIN_S = 100
SHORT_S_MAX = 60
SCALE = "0.5"


def start(node: Node, *arguments: str) -> subprocess.Popen[str]:
    """The command, where any warning is an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "keystead", "drill", "rotation", *arguments],
        env={
            **os.environ,
            "KEYSTEAD_URL": node.url,
            "KEYSTEAD_TOKEN_FILE": str(node.token_file),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_ended(operator: Client, key: str) -> None:
    """Nothing of the drill can be used any more, and no rollout of it moves."""
    left = operator.show_key(key)
    assert left.tenant == TENANT
    assert {version.state for version in left.versions} == {"destroyed"}
    assert left.generation == 2
    assert operator.rollout_status(key).status in {"rolled_back", "finished"}


@pytest.fixture(scope="module")
def drilled(node: Node, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of one drill that rotates to another algorithm."""
    out = tmp_path_factory.mktemp("drill")
    began_s = time.monotonic()
    process = start(
        node, *("--json", "--seconds-scale", SCALE, "--algorithm", "ed25519", "--out", str(out))
    )
    told, errors = process.communicate(timeout=WITHIN_S)
    assert errors == ""
    report: dict[str, Any] = json.loads(told)
    assert [check for check in report["checks"] if not check["held"]] == []
    assert process.returncode == 0
    assert time.monotonic() - began_s < SHORT_S_MAX
    return report


def test_every_check_of_all_three_acts_holds(drilled: dict[str, Any]) -> None:
    assert {check["act"] for check in drilled["checks"]} == {
        *("healthy", "fault", "incident", "all")
    }
    assert (drilled["ok"], drilled["failed"]) == (True, 0)
    assert drilled["tokens"] > 1_000


def test_the_node_tells_the_same(drilled: dict[str, Any], operator: Client) -> None:
    key = drilled["key"]
    ends = [operator.rollout_evidence(key, number=number).rollout for number in (1, 2, 3, 4)]
    assert [rollout.steps[-1].event for rollout in ends] == [
        *("retire", "rolled back", "halted", "retire")
    ]
    assert [rollout.incident for rollout in ends] == [False, False, True, True]
    algorithms = [version.algorithm for version in operator.show_key(key).versions]
    assert algorithms == ["ecdsa-p256-sha256", *["ed25519"] * 4]
    check_ended(operator, key)


def test_the_picture_is_an_svg_of_three_panels(drilled: dict[str, Any]) -> None:
    path = Path(drilled["picture"])
    assert path.name == f"rotation-drill-{drilled['run']}.svg"
    words = [element.text for element in ET.parse(path).getroot().iter()]  # noqa: S314  our own
    assert {panel["title"] for panel in drilled["timeline"]} <= set(words)
    assert "rolled back to version 2" in " ".join(filter(None, words))


def test_stopped_in_the_middle_it_leaves_nothing_that_goes_on(
    node: Node, operator: Client, tmp_path: Path
) -> None:
    before = {key.name for key in operator.list_keys(tenant=TENANT)}
    process = start(node, "--seconds-scale", SCALE, "--out", str(tmp_path))
    until_s = time.monotonic() + WITHIN_S / 2
    new: list[str] = []
    while time.monotonic() < until_s:
        new = [key.name for key in operator.list_keys(tenant=TENANT) if key.name not in before]
        if new and operator.rollout_status(new[0]).stage == "canary":
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=WITHIN_S / 2)
    assert process.returncode == 128 + signal.SIGINT
    assert told == ""
    assert errors.startswith("Stopped.\nleft: key drill-")
    assert list(tmp_path.iterdir()) == []
    check_ended(operator, new[0])


def test_an_algorithm_that_signs_no_tokens_is_refused_and_cleaned_up(
    node: Node, operator: Client, tmp_path: Path
) -> None:
    process = start(node, "--algorithm", "hmac-sha256", "--out", str(tmp_path))
    told, errors = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, told) == (1, "")
    assert "left: key drill-" in errors
    assert "Traceback" not in errors
    for key in operator.list_keys(tenant=TENANT):
        assert {version.state for version in key.versions} == {"destroyed"}


def test_a_folder_that_is_not_there(node: Node, tmp_path: Path) -> None:
    process = start(node, "--out", str(tmp_path / "nowhere"))
    told, errors = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, told) == (2, "")
    assert "no folder" in errors
