"""Two fronts of one vault, the first behind a relay that loses and delays answers: one effect each.

The second front is the node's unix socket, which the same vault serves.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from integration.node import Node
from keystead.client import (
    AsyncClient,
    Binding,
    Bound,
    Client,
    Handle,
    Narrowing,
    Retry,
    Used,
    operations,
)
from keystead.encoding import b64u_encode
from keystead.errors import ContextMismatch, LimitExceeded, NotFound, ReplayConflict, ServiceError
from keystead.keys.framing.ledger import LedgerResult
from keystead.keys.narrowing import RateLimit
from keystead.keys.verify import SignedEntry, verify_ledger
from keystead.translog.proofs import parse_proof

CONTEXT = "books"
DEADLINE_S = 20.0
RETRY = Retry(deadline_s=DEADLINE_S, try_s=DEADLINE_S / 4, base_s=0.0)
Answer = Callable[[bytes], Awaitable[bytes | None]]
"""Takes the first bytes of an answer; gives what the client is sent, or None to cut it off."""


async def passes(answer: bytes) -> bytes | None:
    return answer


async def cuts(_answer: bytes) -> bytes | None:
    return None


async def cuts_in_the_middle(answer: bytes) -> bytes | None:
    return answer[: len(answer) // 2]


async def delays(answer: bytes) -> bytes | None:
    await asyncio.sleep(DEADLINE_S)
    return answer


class Relay:
    """TCP to the node and back, on a loop in a thread; ``answer`` has its way with each answer."""

    def __init__(self, url: str, answer: Answer) -> None:
        parts = urlsplit(url)
        self._to = (parts.hostname, parts.port)
        self._answer = answer
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.answers = 0
        self.lost = 0
        self.url = ""

    def start(self) -> None:
        self._thread.start()
        self._call(self._listen())

    def stop_listening(self) -> None:
        """As a front that was killed: refuses connections, and those there were are cut."""
        self._call(self._close())

    def end(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=DEADLINE_S)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}
        pairs = [task for task in tasks if task.get_name().startswith("pair")]
        for task in pairs:
            task.cancel()
        await asyncio.gather(*pairs, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            task.set_name("pair")
        back, forth = await asyncio.open_connection(*self._to)
        up = asyncio.create_task(_pump(reader, forth), name="pair up")
        try:
            while data := await back.read(65536):
                self.answers += 1
                sent = await self._answer(data)
                if sent != data:
                    self.lost += 1
                if sent:
                    writer.write(sent)
                    await writer.drain()
                if sent != data:
                    break
        except (asyncio.CancelledError, OSError):
            self.lost += 1  # the client did not wait, or the relay ends
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            for end in (writer, forth):
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@contextmanager
def relayed(node: Node, answer: Answer) -> Iterator[tuple[Relay, list[str]]]:
    """A relay before the node's TCP front, and both addresses in order of preference."""
    relay = Relay(node.url, answer)
    relay.start()
    try:
        yield relay, [relay.url, f"unix:{node.data / 'front.sock'}"]
    finally:
        relay.end()


_numbers = itertools.count()


def new_ledger(operator: Client, narrowing: Narrowing | None = None) -> tuple[str, Handle]:
    name = f"books-{next(_numbers)}"
    operator.create_key(name, "ledger")
    return name, operator.issue_handle(name, "ci", narrowing=narrowing).handle


def records(operator: Client, name: str) -> int:
    return len(operator.log(key=name, operation="ledger.append", outcome="ok", limit=1000))


@pytest.mark.parametrize("answer", [cuts, cuts_in_the_middle, delays])
def test_an_answer_lost_on_the_way_is_got_from_the_other_front(
    node: Node, operator: Client, answer: Answer
) -> None:
    name, handle = new_ledger(operator)
    with relayed(node, answer) as (relay, urls), Client(urls, retry=RETRY) as client:
        begun_s = time.monotonic()
        used: Used[LedgerResult] = client.append_ledger(handle, b"paid 5", context=CONTEXT)
        assert time.monotonic() - begun_s < DEADLINE_S
        assert relay.answers == 1  # the node had done it, and had answered
        following = client.append_ledger(handle, b"paid 6", context=CONTEXT)
        assert relay.answers == 1  # the front that worked is preferred now
    assert (used.receipt.replayed, used.result.sequence) == (True, 1)
    assert (following.receipt.replayed, following.result.sequence) == (False, 2)
    assert records(operator, name) == 2
    entries = [
        SignedEntry(document=u.result.document, signatures=u.result.signatures)
        for u in (used, following)
    ]
    assert verify_ledger(entries, operator.public_key(name)).sequence == 2


def test_without_a_fault_nothing_is_replayed(node: Node, operator: Client) -> None:
    """The relay itself makes no replay."""
    name, handle = new_ledger(operator)
    with relayed(node, passes) as (relay, urls), Client(urls, retry=RETRY) as client:
        used = client.append_ledger(handle, b"paid 5", context=CONTEXT)
        assert (relay.answers > 0, relay.lost) == (True, 0)
    assert not used.receipt.replayed
    assert records(operator, name) == 1


def test_a_front_that_is_killed_between_two_uses_is_passed_over(
    node: Node, operator: Client
) -> None:
    name, handle = new_ledger(operator)
    with relayed(node, passes) as (relay, urls), Client(urls, retry=RETRY) as client:
        client.append_ledger(handle, b"1", context=CONTEXT)
        relay.stop_listening()
        second = client.append_ledger(handle, b"2", context=CONTEXT)
    assert (second.result.sequence, second.receipt.replayed) == (2, False)
    assert records(operator, name) == 2


def test_many_at_once_through_a_front_that_loses_every_third(node: Node, operator: Client) -> None:
    name, handle = new_ledger(operator)
    count = itertools.count(1)

    async def loses_some(answer: bytes) -> bytes | None:
        return None if next(count) % 3 == 0 else answer

    async def run(urls: list[str]) -> list[Used[LedgerResult]]:
        async with AsyncClient(urls, retry=RETRY) as client:
            uses = [operations.append_ledger(handle, b"%d" % n, context=CONTEXT) for n in range(90)]
            return await asyncio.gather(*map(client.run, uses))

    with relayed(node, loses_some) as (relay, urls):
        done = asyncio.run(run(urls))
    assert relay.lost >= 5
    assert sum(used.receipt.replayed for used in done) >= 5
    assert sorted(used.result.sequence for used in done) == list(range(1, 91))
    assert records(operator, name) == 90


def test_a_batch_cut_off_is_done_once(node: Node, operator: Client) -> None:
    name, handle = new_ledger(operator)
    uses = [operations.append_ledger(handle, b"%d" % n, context=CONTEXT) for n in range(20)]
    with relayed(node, cuts) as (_, urls), Client(urls, retry=RETRY) as client:
        done = client.batch(uses)
    assert all(isinstance(used, Used) and used.receipt.replayed for used in done)
    assert records(operator, name) == 20


def test_a_bound_handle_proves_itself_at_both_fronts(node: Node, operator: Client) -> None:
    holder = ed25519.Ed25519PrivateKey.generate()
    value = b64u_encode(holder.public_key().public_bytes_raw())
    name, handle = new_ledger(operator, Narrowing(bound_to=Binding(kind="ed25519", value=value)))
    with relayed(node, only_ready) as (_, urls):
        with Client(urls, bound=Bound(holder.sign), retry=RETRY) as client:
            used = client.append_ledger(handle, b"paid 5", context=CONTEXT)
        assert used.receipt.replayed
    assert records(operator, name) == 1


async def only_ready(answer: bytes) -> bytes | None:
    return answer if b'"deployment"' in answer else None


def test_a_change_cut_off_is_done_once(node: Node, operator: Client) -> None:
    with relayed(node, cuts) as (_, urls), Client(urls, operator=node.token, retry=RETRY) as client:
        made = client.create_key("made-at-two-fronts", "tls")
    assert made.primary == 1
    found = operator.log(key="made-at-two-fronts", operation="key.create", outcome="ok")
    assert len(found) == 1


def test_what_is_recorded_each_time_is_not_sent_to_another_front(
    node: Node, operator: Client
) -> None:
    _, handle = new_ledger(operator)
    seq = operator.append_ledger(handle, b"1", context=CONTEXT).receipt.seq or 0
    before = len(operator.log(operation="log.disclose", limit=1000))
    with (
        relayed(node, cuts) as (_, urls),
        Client(urls, operator=node.token, retry=RETRY) as client,
        pytest.raises(ServiceError, match="look before asking again"),
    ):
        client.disclose(seq)
    assert len(operator.log(operation="log.disclose", limit=1000)) == before + 1


def test_refusals_are_not_shopped_around(node: Node, operator: Client) -> None:
    """Neither the caller's own errors nor a budget: the second front would have the same."""
    narrowing = Narrowing(context_prefix=CONTEXT, rate=RateLimit(count=1, per_s=3600))
    name, handle = new_ledger(operator, narrowing)
    with relayed(node, passes) as (relay, urls), Client(urls, retry=RETRY) as client:
        with pytest.raises(ContextMismatch):
            client.append_ledger(handle, b"1", context="elsewhere")
        client.append_ledger(handle, b"1", context=CONTEXT, idempotency_key="k1")
        with pytest.raises(ReplayConflict):
            client.append_ledger(handle, b"2", context=CONTEXT, idempotency_key="k1")
        with pytest.raises(LimitExceeded):
            client.append_ledger(handle, b"3", context=CONTEXT)
        assert relay.answers >= 4
    found = operator.log(key=name, operation="ledger.append", limit=1000)
    assert len(found) <= 4  # none of the four came twice


def test_a_proof_is_asked_of_the_node_that_the_receipt_names(node: Node, operator: Client) -> None:
    _, handle = new_ledger(operator)
    with relayed(node, cuts) as (_, urls), Client(urls, retry=RETRY) as client:
        receipt = client.append_ledger(handle, b"1", context=CONTEXT, wait_proof=True).receipt
        assert receipt.node
        seq = receipt.seq or 0
        assert parse_proof(client.log_proof(seq, node=receipt.node)).index == seq
        with pytest.raises(NotFound, match="in the log of node elsewhere"):
            client.log_proof(seq, node="elsewhere")
