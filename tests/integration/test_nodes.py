"""Two real nodes on one PostgreSQL database, every process of theirs: as docs/nodes.md has it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.node import Node
from keystead.client import Client, Handle, Narrowing, Retry, Used
from keystead.errors import HandleRevoked, KeyStateError, LimitExceeded, StartupError
from keystead.keys.framing.ledger import LedgerResult
from keystead.keys.verify import SignedEntry, verify_ledger
from keystead.store.opening import check_database
from postgres import PostgresServer

CONTEXT = "books/2026"
WITHIN_S = 30.0
RETRY = Retry(deadline_s=WITHIN_S, try_s=WITHIN_S / 4)


class Pair:
    """Nodes ``a`` and ``b``; the second was given the first one's seal."""

    def __init__(self, folder: Path, url: str) -> None:
        self.database = url
        self.a = Node(folder / "a", database=url, node="a").start()
        self.b = Node(
            folder / "b", database=url, node="b", seal_file=str(folder / "a" / "seal.key")
        ).start()
        self.token = self.a.token

    def operator(self, node: Node) -> Client:
        return Client(node.url, operator=self.token)

    def both(self, **options: Any) -> Client:  # noqa: ANN401  the client's own
        urls = [self.a.url, self.b.url]
        return Client(urls, operator=self.token, retry=RETRY, **options)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("pair"), postgres.database(tcp=True))
    yield made
    for node in (made.b, made.a):
        assert node.stop() == 0


def ready(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{node.url}/ready", timeout=10).json()
    return found


def eventually_leads(node: Node, name: str) -> None:
    until = time.monotonic() + WITHIN_S
    while name not in {found["node"] for found in ready(node)["nodes"] if found["leads"]}:
        assert time.monotonic() < until, ready(node)
        time.sleep(0.2)


def append(client: Client, handle: Handle, text: bytes) -> Used[LedgerResult]:
    return client.append_ledger(handle, text, context=CONTEXT)


def test_both_are_one_deployment_and_one_of_them_leads(pair: Pair) -> None:
    of_a, of_b = ready(pair.a), ready(pair.b)
    assert of_a["deployment"] == of_b["deployment"]
    assert (of_a["node"], of_b["node"]) == ("a", "b")
    assert "synchronous_commit on" in of_b["protections"]["database"]
    eventually_leads(pair.b, "a")
    assert [found["leads"] for found in ready(pair.b)["nodes"]] == [True, False]


def test_one_ledger_and_one_budget_through_both(pair: Pair) -> None:
    """I5 and I6 over two nodes: no fork, no double effect, nothing overspent."""
    with pair.operator(pair.a) as operator:
        operator.create_key("books", "ledger")
        handle = operator.issue_handle("books", "ci", narrowing=Narrowing(uses=20)).handle
    done: list[Used[LedgerResult]] = []
    refused: list[LimitExceeded] = []

    def work(node: Node) -> None:
        with Client(node.url, retry=RETRY) as client:
            for at in range(15):
                try:
                    done.append(append(client, handle, b"%d" % at))
                except LimitExceeded as exc:
                    refused.append(exc)

    threads = [threading.Thread(target=work, args=(node,)) for node in (pair.a, pair.b)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), len(refused)) == (20, 10)
    done.sort(key=lambda used: used.result.sequence)
    assert {used.receipt.node for used in done} == {"a", "b"}
    entries = [
        SignedEntry(document=used.result.document, signatures=used.result.signatures)
        for used in done
    ]
    with pair.operator(pair.b) as operator:
        assert verify_ledger(entries, operator.public_key("books")).sequence == 20


def test_what_is_revoked_through_one_is_refused_by_the_other_at_once(pair: Pair) -> None:
    """I4: from the answer on, and without a pause."""
    with pair.operator(pair.a) as operator, pair.operator(pair.b) as other:
        operator.create_key("till", "ledger")
        for _ in range(10):
            issued = operator.issue_handle("till", "ci")
            append(other, issued.handle, b"1")
            operator.revoke_handle(issued.link, reason="lost")
            with pytest.raises(HandleRevoked):
                append(other, issued.handle, b"2")
        last = operator.issue_handle("till", "ci").handle
        other.move_version("till", "compromise", reason="stolen")
        with pytest.raises(KeyStateError):
            append(operator, last, b"3")


def test_a_node_that_is_killed_loses_nothing_and_another_leads(pair: Pair) -> None:
    with pair.operator(pair.a) as operator:
        operator.create_key("gate", "ledger")
        handle = operator.issue_handle("gate", "ci").handle
    stop = threading.Event()
    done: list[Used[LedgerResult]] = []

    def work() -> None:
        with pair.both() as client:
            while not stop.is_set():
                done.append(append(client, handle, b"entry"))

    worker = threading.Thread(target=work)
    worker.start()
    until = time.monotonic() + WITHIN_S
    while len(done) < 20:
        assert time.monotonic() < until
        time.sleep(0.05)
    pair.a.stop(signal.SIGKILL)
    before = len(done)
    while len(done) < before + 20:
        assert time.monotonic() < until + WITHIN_S
        time.sleep(0.05)
    stop.set()
    worker.join()
    assert [used.result.sequence for used in done] == list(range(1, len(done) + 1))
    assert done[-1].receipt.node == "b"
    eventually_leads(pair.b, "b")
    pair.a.start()
    with pair.operator(pair.a) as operator:
        assert append(operator, handle, b"again").receipt.node == "a"
    assert [found["leads"] for found in ready(pair.a)["nodes"]] == [False, True]


def test_a_name_that_is_taken_is_refused(pair: Pair, tmp_path: Path) -> None:
    seal = str(pair.a.data / "seal.key")
    other = Node(tmp_path / "c", database=pair.database, node="b", seal_file=seal)
    status, said = other.refusal()
    assert status == 3
    assert "b" in said["error"]
    assert "--node" in said["hint"]


def test_a_node_without_the_seal_does_not_start(pair: Pair, tmp_path: Path) -> None:
    status, said = Node(tmp_path / "d", database=pair.database, node="d").refusal()
    assert status == 3
    assert "seal" in said["error"]


def test_a_password_in_the_address_is_refused() -> None:
    with pytest.raises(StartupError, match="password") as caught:
        check_database("postgresql://keystead:secret@127.0.0.1/keystead")
    assert "PGPASSFILE" in caught.value.hint
    assert "secret" not in str(caught.value)
