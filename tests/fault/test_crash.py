"""The vault is killed while it works: what clients hold has its record, a retry one effect."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.node import Node
from keystead import limits
from keystead.client import Client, Handle, Retry
from keystead.errors import LogUnavailable, ServiceError
from keystead.keys.model import Policy

PATIENT = Retry(deadline_s=60, tries_max=50)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "data")


def kill_vault(node: Node) -> None:
    os.kill(node.children()["vault"], signal.SIGKILL)


def append(node: Node, handle: Handle, name: str, seen: dict[str, tuple[int, int | None]]) -> None:
    with Client(node.url, retry=PATIENT) as client:
        for number in range(40):
            entry = f"{name}-{number}"
            used = client.append_ledger(
                handle, entry.encode(), context="books", idempotency_key=entry
            )
            seen[entry] = (used.result.sequence, used.receipt.seq)


def test_killed_under_load(node: Node) -> None:
    """Four clients append to one ledger while the vault is killed three times."""
    seen: dict[str, tuple[int, int | None]] = {}
    with node, node.client() as operator:
        operator.create_key("ledger", "ledger")
        issued = operator.issue_handle("ledger", "books")
        threads = [
            threading.Thread(target=append, args=(node, issued.handle, f"c{n}", seen))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for _ in range(3):
            wait_for(lambda: len(seen) > 5)
            kill_vault(node)
            wait_for(lambda: "vault" in node.children() and is_ready(node))
        for thread in threads:
            thread.join()
        records = operator.log(handle_id=issued.handle_id, operation="ledger.append", limit=1000)
        assert len(seen) == 160
        assert sorted(sequence for sequence, _ in seen.values()) == list(range(1, 161))
        assert {record.seq for record in records} == {seq for _, seq in seen.values()}


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
