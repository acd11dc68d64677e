"""Processes are killed while they work: what clients hold has its record, a retry one effect.

The long form is ``fuzz/crash_soak.py``; what is checked is in ``fault.crash.checker``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from fault.crash.core import make_folder
from fault.crash.siege import SiegeNode, besiege, faults, first_starts, runs
from integration.node import Node
from keystead import limits
from keystead.client import Client, Handle, Retry
from keystead.errors import LogUnavailable, ServiceError
from keystead.keys.model import Policy

SEED = 17
"""Its first six rounds kill each process, and all of them, at least once."""
KILLS = 6
RESTART_MULTIPLE_MAX = 12.0
"""Generous: a restart under load and right after another kill, against a start in peace."""
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "data")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_under_load(tmp_path: Path) -> None:
    """Any process, at seeded instants, under mixed uses and changes by many clients."""
    report = besiege(tmp_path, seed=SEED, goes_on=lambda done: done < KILLS)
    print("\n".join(report.lines()))  # noqa: T201  shown with -s, and where it fails
    assert report.findings == []
    assert len(report.kills) == KILLS
    assert report.uses > KILLS
    assert report.created > 0
    assert report.moves > 0
    assert report.multiples()[-1] < RESTART_MULTIPLE_MAX


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_while_it_is_made(tmp_path: Path) -> None:
    """Whatever is left of a first start, the next start serves its operator."""
    assert first_starts(tmp_path, seed=SEED, count=3) == []


def test_a_vault_that_is_told_to_end_ends_its_connections(tmp_path: Path) -> None:
    """As when its supervisor is killed: those that are connected to it are told no earlier."""
    node = SiegeNode(tmp_path / "data")
    with node, node.client() as operator:
        operator.create_key("kept", "ledger")
        vault = node.children()["vault"]
        os.kill(vault, signal.SIGTERM)
        wait_for(lambda: node.children().get("vault", vault) != vault and is_ready(node))
        children = node.strike("supervisor")
        wait_for(lambda: not any(map(runs, children)))
    assert len(children) == 3
    assert list(faults(node.data / "logs")) == []


def test_a_child_whose_supervisor_ends_while_it_loads(tmp_path: Path) -> None:
    """Another process than 1 takes it in here, as a service manager does; it ends all the same."""
    migrated = tmp_path / "data"
    make_folder(migrated)
    started = subprocess.run(
        [sys.executable, "-c", ORPHAN, str(migrated)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert started.stdout.split() == ["0"]


ORPHAN = f"""
import asyncio, ctypes, os, pathlib, sys
ctypes.CDLL(None).prctl({PR_SET_CHILD_SUBREAPER}, 1, 0, 0, 0)
folder = pathlib.Path(sys.argv[1])
if os.fork() == 0:
    from keystead.net.processes import Child
    config = {{"vault_socket": "vault.sock", "database": "registry.db", "node": "n"}}
    child = Child("steward", config, folder=folder, log=folder / "log")
    async def start():
        starting = asyncio.ensure_future(child.start())
        while child.pid is None:
            await asyncio.sleep(0)
        os._exit(0)  # as soon as there is a child, which has loaded nothing yet
    asyncio.run(start())
os.wait()
number, status = os.wait()  # the orphan, taken in by this process
print(os.waitstatus_to_exitcode(status))
"""
"""A supervisor that ends at once, under a process that has made itself the one who takes in."""


def test_a_first_start_that_fails_keeps_the_token(tmp_path: Path) -> None:
    """The deployment was made before the port was found taken; its operator is not locked out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said = Node(tmp_path / "data", listen=f"127.0.0.1:{port}").refusal()
        assert status == 3
        assert str(port) in said["error"]
    with Node(tmp_path / "data") as node, node.client() as operator:
        assert operator.list_keys(tenant="default") == []


def kill_vault(node: Node) -> None:
    os.kill(node.children()["vault"], signal.SIGKILL)


def is_ready(node: Node) -> bool:
    with Client(node.url, operator=node.token, retry=Retry(tries_max=1)) as client:
        try:
            client.list_keys(limit=1)
        except ServiceError:
            return False
        return True


def wait_for(reached: Callable[[], bool], within_s: float = 60.0) -> None:
    until = time.monotonic() + within_s
    while not reached():
        if time.monotonic() > until:
            raise AssertionError(f"not reached within {within_s} s")
        time.sleep(0.02)


def test_best_effort_leaves_a_gap_of_at_most_a_reservation(node: Node) -> None:
    """Uses are answered before their records; a crash may lose some, and says how many at most."""
    with node, node.client() as operator:
        operator.create_key("edge", "tls", policy=Policy(ack="best_effort"))
        issued = operator.issue_handle("edge", "edge")
        acks = use_until_best_effort(node, issued.handle)
        kill_vault(node)
        wait_for(lambda: is_ready(node))
        recorded = operator.log(handle_id=issued.handle_id, operation="tls.sign", limit=1000)
        gaps = operator.log(operation="reservation.gap")
        lost = acks - len(recorded)
        assert lost >= 0
        assert len(gaps) == 1
        assert lost <= int(gaps[0].body["count"] or 0) <= limits.RESERVATION_USES


def use_until_best_effort(node: Node, handle: Handle) -> int:
    """Use a key until answers come by reservation; gives how many answers came in all.

    Not by the SDK: it sends idempotency keys, and these make a use durable.
    """
    body = json.dumps(
        {"context": "edge", "facts": {"role": "server", "transcript_hash": "A" * 43 + "="}}
    ).encode()
    request = urllib.request.Request(  # noqa: S310  the node under test
        f"{node.url}/v1/tls/sign",
        data=body,
        headers={
            "Authorization": f"Bearer {handle.reveal()}",
            "Content-Type": "application/json",
        },
    )
    answers, best_effort = 0, 0
    while best_effort < 20:
        with urllib.request.urlopen(request) as response:  # noqa: S310  the node under test
            receipt = json.load(response)["receipt"]
        answers += 1
        assert (receipt["seq"] is None) == (receipt["ack"] == "best_effort")
        best_effort += receipt["ack"] == "best_effort"
        assert answers < 2000, "no use was answered by a reservation"
    return answers


@pytest.mark.root
def test_full_disk_withholds_results_and_goes_on_when_there_is_room(
    tmpfs: Callable[..., Path],
) -> None:
    mount = tmpfs(size_kib=4096)
    node = Node(mount / "data", operator_token_file=str(mount.parent / "token"))
    node.token_file = mount.parent / "token"
    with node, node.client() as operator:
        operator.create_key("ledger", "ledger")
        issued = operator.issue_handle("ledger", "books")
        filler = mount / "filler"
        fill(filler)
        done = append_until_refused(node, issued.handle)
        filler.unlink()
        wait_for(lambda: is_ready(node))
        used = operator.append_ledger(issued.handle, b"after", context="books")
        assert used.result.sequence == done + 1
        records = operator.log(handle_id=issued.handle_id, operation="ledger.append", limit=1000)
        assert len(records) == done + 1


def fill(path: Path) -> None:
    """Write until the disk is full."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    room = os.fstatvfs(descriptor)
    with pytest.raises(OSError, match="No space left"):
        os.posix_fallocate(descriptor, 0, room.f_bavail * room.f_frsize + 1)
    os.posix_fallocate(descriptor, 0, room.f_bavail * room.f_frsize)
    os.close(descriptor)


def append_until_refused(node: Node, handle: Handle) -> int:
    """Append until the record cannot be written; gives how many appends were answered."""
    with Client(node.url, retry=Retry(tries_max=1)) as client:
        for done in range(2000):
            try:
                client.append_ledger(handle, b"%d" % done, context="books")
            except LogUnavailable:
                return done
    raise AssertionError("the disk never became full")
