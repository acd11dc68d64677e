"""Fronts on real sockets that refuse, hang, break off and drip, with one that works beside them."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from keystead.client import AsyncClient, Bound, Client, Narrowing, Retry, attenuate
from keystead.client.uses import Used
from keystead.encoding import b64u_decode, b64u_encode
from keystead.errors import NotFound, ServiceError
from keystead.keys.framing.data import MacResult
from keystead.keys.narrowing import Binding
from keystead.keys.purposes import Purpose
from unit.client.fake import RECEIPT, FakeNode, answered, handle_for

DATA = handle_for(Purpose.DATA)
DEADLINE_S = 2.0
PATIENT = Retry(deadline_s=DEADLINE_S, try_s=DEADLINE_S, base_s=0.0, cap_s=0.0)
Behaviour = Callable[[socket.socket, threading.Event], None]


def request_of(connection: socket.socket) -> bytes:
    """One request, whole; empty if the peer went away."""
    got = b""
    while b"\r\n\r\n" not in got:
        part = connection.recv(65536)
        if not part:
            return b""
        got += part
    head, _, body = got.partition(b"\r\n\r\n")
    sizes = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    size = int(sizes[0].split(b":")[1]) if sizes else 0
    while len(body) < size:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def answer_of(document: object, status: str = "200 OK") -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


GOOD = answer_of({"result": {"tag": "AQ=="}, "receipt": RECEIPT})


def works(connection: socket.socket, done: threading.Event) -> None:
    while not done.is_set() and request_of(connection):
        connection.sendall(GOOD)


def hangs(connection: socket.socket, done: threading.Event) -> None:
    request_of(connection)
    done.wait()


def breaks_off(connection: socket.socket, done: threading.Event) -> None:
    del done
    request_of(connection)
    connection.sendall(GOOD[: len(GOOD) // 2])


def hears_nothing(connection: socket.socket, done: threading.Event) -> None:
    del connection, done


def drips_its_head(connection: socket.socket, done: threading.Event) -> None:
    request_of(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    while not done.wait(0.05):
        connection.sendall(b"x")


def drips_its_body(connection: socket.socket, done: threading.Event) -> None:
    request_of(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while not done.wait(0.05):
        connection.sendall(b"x")


def is_overloaded(connection: socket.socket, done: threading.Event) -> None:
    problem = {"code": "overloaded", "detail": "full", "request_id": "r-1"}
    while not done.is_set() and request_of(connection):
        connection.sendall(answer_of(problem, "503 Service Unavailable"))


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Front]:
    front = Front(behaviour)
    try:
        yield front
    finally:
        front.close()


class Front:
    """A listener on a free port; each connection is given to the behaviour, in a thread."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._done = threading.Event()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    @property
    def connections(self) -> int:
        return len(self._open)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._behaviour(connection, self._done)
            except OSError:
                return  # the client went away, as it should

    def close(self) -> None:
        self._done.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed by its thread already
        for thread in self._threads:
            thread.join()


def refusing_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def mac_blocking(urls: list[str], retry: Retry) -> Used[MacResult]:
    with Client(urls, retry=retry) as client:
        return client.mac(DATA, b"m", context="a")


def mac_awaiting(urls: list[str], retry: Retry) -> Used[MacResult]:
    async def run() -> Used[MacResult]:
        async with AsyncClient(urls, retry=retry) as client:
            return await client.mac(DATA, b"m", context="a")

    return asyncio.run(run())


BOTH = pytest.mark.parametrize("mac", [mac_blocking, mac_awaiting])
Mac = Callable[[list[str], Retry], Used[MacResult]]


@BOTH
@pytest.mark.parametrize(
    "behaviour",
    [hangs, breaks_off, hears_nothing, drips_its_head, drips_its_body, is_overloaded],
    ids=lambda behaviour: behaviour.__name__,
)
def test_another_front_answers_before_the_deadline(mac: Mac, behaviour: Behaviour) -> None:
    with serving(behaviour) as bad, serving(works) as good:
        begun_s = time.monotonic()
        used = mac([bad.url, good.url], PATIENT)
        took_s = time.monotonic() - begun_s
        assert (bad.connections, good.connections) == (1, 1)
    assert used.result.tag == b"\x01"
    assert took_s < DEADLINE_S


@BOTH
def test_a_front_that_is_not_there_costs_nothing(mac: Mac) -> None:
    with serving(works) as good:
        assert mac([refusing_url(), good.url], PATIENT).result.tag == b"\x01"


@BOTH
def test_fronts_that_all_drip_end_with_the_deadline(mac: Mac) -> None:
    """Each byte comes in time, the whole never does."""
    short = Retry(deadline_s=0.6, try_s=0.6, tries_max=9, base_s=0.0)
    with serving(drips_its_head) as one, serving(drips_its_body) as two:
        begun_s = time.monotonic()
        with pytest.raises(ServiceError, match="none of 2 fronts did it") as caught:
            mac([one.url, two.url], short)
        took_s = time.monotonic() - begun_s
        assert one.url in str(caught.value)
        assert two.url in str(caught.value)
    assert 0.6 * 0.9 < took_s < 0.6 * 5


@BOTH
def test_who_is_down_is_named_with_a_next_step(mac: Mac) -> None:
    urls = [refusing_url(), refusing_url()]
    with pytest.raises(ServiceError) as caught:
        mac(urls, Retry(deadline_s=DEADLINE_S, tries_max=1))
    said = str(caught.value)
    assert all(f"{url}: ConnectError" in said for url in urls)
    assert "name others" in said


def test_connections_are_kept_to_the_front_that_works() -> None:
    with ExitStack() as stack:
        bad, good = stack.enter_context(serving(hangs)), stack.enter_context(serving(works))
        client = stack.enter_context(Client(f"{bad.url},{good.url}", retry=PATIENT))
        for _ in range(5):
            client.mac(DATA, b"m", context="a")
        assert (bad.connections, good.connections) == (1, 1)


# --- what travels --------------------------------------------------------------------------------


def by_host(node: FakeNode, **options: Any) -> Client:  # noqa: ANN401  whatever a client takes
    return Client(
        ["https://a.example", "https://b.example"],
        retry=PATIENT,
        transport=httpx.MockTransport(node),
        **options,
    )


def test_each_front_is_sent_the_same_key_and_bytes() -> None:
    node = FakeNode(httpx.ReadTimeout("late"), answered({"tag": "AQ=="}, replayed=True))
    used = by_host(node).mac(DATA, b"m", context="a")
    assert used.receipt.replayed
    assert [request.url.host for request in node.requests] == ["a.example", "b.example"]
    assert len(set(node.sent("idempotency-key"))) == 1
    assert len({bytes(request.content) for request in node.requests}) == 1
    assert node.requests[0].headers["host"] == "a.example"


def test_a_proof_of_possession_holds_at_another_front() -> None:
    """It names the deployment, the handle, the facts and the key of the request, and no node."""
    signed: list[bytes] = []

    def sign(message: bytes) -> bytes:
        signed.append(message)
        return b"\x07" * 64

    narrowing = Narrowing(bound_to=Binding(kind="ed25519", value=b64u_encode(bytes(32))))
    ready = httpx.Response(200, json={"ready": True, "reasons": [], "deployment": "dep-1"})
    node = FakeNode(ready, httpx.ConnectError("gone"), answered({"tag": ""}))
    with by_host(node, bound=Bound(sign)) as client:
        client.mac(attenuate(DATA, narrowing), b"m", context="a", idempotency_key="once-1")
    assert [request.url.host for request in node.requests] == ["a.example"] * 2 + ["b.example"]
    first, again = (json.loads(b64u_decode(str(p))) for p in node.sent("keystead-proof")[1:])
    blind = [
        message.replace(str(proof["time_ms"]).encode(), b"T")
        for message, proof in zip(signed, (first, again), strict=True)
    ]
    assert blind[0] == blind[1]
    assert b"once-1" in blind[0]
    assert b"example" not in blind[0]


def test_the_log_of_the_first_front_is_not_mixed_with_anothers() -> None:
    node = FakeNode(*[httpx.ConnectError("gone")] * 5)
    with (
        by_host(node, operator="kso1.root") as client,
        pytest.raises(ServiceError, match=r"no answer from https://a\.example"),
    ):
        client.search_log(before=90)
    assert {request.url.host for request in node.requests} == {"a.example"}


def test_a_proof_is_looked_for_at_the_node_of_the_receipt() -> None:
    """Node a has a record of the same sequence: its proof is another's, and is passed over."""
    theirs, ours = proof_of("dep-1/a"), proof_of("dep-1/b")
    node = FakeNode(httpx.Response(200, content=theirs), httpx.Response(200, content=ours))
    with by_host(node) as client:
        assert client.log_proof(7, node="b") == ours
    node = FakeNode(*[httpx.Response(200, content=theirs)] * 2)
    with (
        by_host(node) as client,
        pytest.raises(NotFound, match=r"no proof of record 7 in the log of node b: .*a\.example"),
    ):
        client.log_proof(7, node="b")
    node = FakeNode(httpx.Response(200, content=theirs))
    with by_host(node) as client:
        assert client.log_proof(7) == theirs


def test_a_waited_proof_of_another_log_is_left_out() -> None:
    for origin, kept in (("dep-1/a", False), ("dep-1/b", True)):
        answer = {"result": {"tag": ""}, "receipt": RECEIPT | {"node": "b"}}
        answer["proof"] = proof_of(origin).decode()
        node = FakeNode(httpx.Response(200, json=answer))
        used = node.client().mac(DATA, b"m", context="a", wait_proof=True)
        assert (used.log_proof is not None) == kept


def proof_of(origin: str) -> bytes:
    root = "A" * 43 + "="
    signature = "A" * 92
    return (
        f"c2sp.org/tlog-proof@v1\nindex 7\n\n{origin}\n8\n{root}\n\n— {origin} {signature}\n"
    ).encode()
