"""The tour on a real node: all its processes, sockets, disk and log, and other people's tools."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from integration.node import Node
from keystead.errors import CallerError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl"
    ),
    pytest.mark.skipif(
        shutil.which("ssh-keygen") is None,
        reason="needs ssh-keygen: apt-get install openssh-client",
    ),
]
WITHIN_S = 60
TOUR_S_MAX = 15
SHOWN = {cls.code for cls in CallerError.__subclasses__()} - {"approval_required"}


def check_quiet(*texts: str) -> None:
    for text in texts:
        assert "Traceback" not in text
        assert "Warning" not in text
        assert "\x1b" not in text


def tour(
    url: str, token_file: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command, where any warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "keystead", "tour", *arguments],
        env={
            **os.environ,
            "KEYSTEAD_URL": url,
            "KEYSTEAD_TOKEN_FILE": str(token_file),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    check_quiet(done.stdout, done.stderr)
    return done


def document_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_up_with_the_tour_and_no_longer(tmp_path: Path) -> None:
    process = Node(tmp_path / "data", json=False, tour=True, once=True).spawn()
    out, err = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0, out + err
    assert " 0 failed, 0 not checked" in out
    check_quiet(out, err)


def test_every_row_holds_and_again_on_the_same_node(node: Node) -> None:
    for _ in range(2):
        done = tour(node.url, node.token_file, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        document = document_of(done)
        rows = document["rows"] + document["refusals"] + document["records"]
        assert [row for row in rows if row["status"] != "ok"] == []
        assert {row["met"] for row in document["refusals"]} == SHOWN
        assert document["seconds"] < TOUR_S_MAX


def test_an_image_of_ones_own_by_the_unix_socket(node: Node, tmp_path: Path) -> None:
    image = tmp_path / "Router Image.bin"
    image.write_bytes(os.urandom(100_000))
    url = f"unix:{node.data / 'front.sock'}"
    done = tour(url, node.token_file, "--json", "--image", str(image))
    assert done.returncode == 0, done.stdout + done.stderr
    assert any("router-image.bin" in row["what"] for row in document_of(done)["rows"])


def test_a_missing_tool_is_named_and_all_else_goes_on(node: Node, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "sha256sum").symlink_to(shutil.which("sha256sum") or "")
    done = tour(node.url, node.token_file, "--json", PATH=str(tools))
    assert done.returncode == 1
    document = document_of(done)
    assert {row["result"]: row["status"] for row in document["rows"] if row["status"] != "ok"} == {
        "not checked: install openssl": "failed",
        "not checked: install openssh-client": "not checked",
    }
    assert {row["status"] for row in document["refusals"] + document["records"]} == {"ok"}


def test_a_token_that_nobody_knows(node: Node, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("kso1.nobody\n")
    done = tour(node.url, tmp_path / "token")
    assert done.returncode == 1
    assert "not one this deployment knows" in done.stderr
