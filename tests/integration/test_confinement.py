"""A front that was taken over: what its process can still open, by the kernel's own word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from integration.node import Node
from keystead.client import Client, Retry

_PROBE = """
import sys
from pathlib import Path
from keystead.net.confine import confine, forbid_dumps, program_folders
data = Path(sys.argv[1])
forbid_dumps()
print(confine(program_folders(), data))
for what in (lambda: (data / "seal.key").read_bytes(), lambda: (data / "new").write_bytes(b""),
             lambda: (data / "seal.key").unlink(), lambda: list(data.iterdir())):
    try:
        what()
        print("done")
    except PermissionError:
        print("refused")
import socket
socket.socket(socket.AF_UNIX).bind(str(data / "own.sock"))
import http.server
print("imported")
"""


def test_the_kernel_keeps_a_confined_process_out(tmp_path: Path) -> None:
    (tmp_path / "seal.key").write_bytes(b"secret")
    ran = subprocess.run(
        [sys.executable, "-c", _PROBE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    confined, *rest = ran.stdout.split()
    assert confined == "True", "this kernel has no Landlock"
    assert rest == ["refused"] * 4 + ["imported"]
    assert (tmp_path / "seal.key").read_bytes() == b"secret"


def test_a_folder_inside_what_is_readable_is_not_called_confined(tmp_path: Path) -> None:
    probe = "import sys; from pathlib import Path; from keystead.net.confine import confine\n"
    probe += "folder = Path(sys.argv[1]); print(confine([folder.parent], folder))"
    ran = subprocess.run(
        [sys.executable, "-c", probe, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["False"]


def test_the_front_of_a_node_is_confined_and_says_so(node: Node, operator: Client) -> None:
    assert operator.list_keys() is not None
    front = Path(f"/proc/{node.children()['front']}")
    status = dict(
        line.split(":\t", 1)
        for line in (front / "status").read_text().splitlines()
        if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    limits = (front / "limits").read_text()
    assert "Max core file size        0                    0" in limits
    protections = httpx.get(f"{node.url}/ready").json()["protections"]
    assert protections["front"].startswith("confined")


def test_a_stopped_node_leaves_no_socket(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    with node:
        assert (node.data / "front.sock").is_socket()
    assert [path for path in node.data.iterdir() if path.is_socket()] == []


def test_a_front_that_is_started_again_is_where_it_was(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")  # on any free port
    patient = Retry(deadline_s=60, tries_max=200)
    with node, Client(node.url, operator=node.token, retry=patient) as operator:
        before = node.children()["front"]
        os.kill(before, signal.SIGKILL)
        assert (
            operator.list_keys(tenant="default") == []
        )  # the SDK asks again until the front is back
        assert node.children()["front"] != before
