"""Hostile clients over the wire: a real node keeps serving, within bounds, without a fault."""

from __future__ import annotations

import json
import re
import resource
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from integration.node import Node
from keystead import limits
from keystead.client import Client

IDLE = 2_000
GROWTH_KIB_MAX = 192 * 1024
"""What all of this may cost a process: 2,000 connections at the 64 KiB of Granian's read buffer."""
WITHIN_S = 20.0
JSON_HEAD = "content-type: application/json\r\n"


class Victim:
    """A node, what it was before, and one handle for each of three purposes."""

    def __init__(self, node: Node, client: Client) -> None:
        self.node = node
        self.host, port = node.url.removeprefix("http://").split(":")
        self.port = int(port)
        self.handles: dict[str, str] = {}
        for purpose in ("tls", "data"):
            client.create_key(f"hostile-{purpose}", purpose)
            handle = client.issue_handle(f"hostile-{purpose}", "web").handle
            self.handles[purpose] = handle.reveal()
        self.processes = node.children()
        self.rss_kib = {role: rss_kib(pid) for role, pid in self.processes.items()}

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=WITHIN_S)

    def ask(self, data: bytes, *, end: bool = False) -> bytes:
        """Send bytes, and read what comes until the other side ends it.

        ``end``: say that no more follow. Then an answer is not waited for here, nor sent there.
        """
        with self.connect() as sock:
            with suppress(OSError):  # refused before all was sent
                sock.sendall(data)
                if end:
                    sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def post(self, path: str, body: bytes, token: str = "", head: str = JSON_HEAD) -> bytes:
        return self.ask(self.head(path, head, token, len(body)) + body)

    def head(self, path: str, head: str, token: str = "", length: int | None = None) -> bytes:
        text = f"POST {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n{head}"
        text += f"authorization: Bearer {token or self.handles['data']}\r\n"
        if length is not None:
            text += f"content-length: {length}\r\n"
        return f"{text}\r\n".encode()

    def check_unharmed(self) -> None:
        """It serves, has forgotten what is over, has grown within bounds, and logged no fault."""
        with Client(self.node.url) as client:
            used = client.sign_tls(self.handles["tls"], bytes(32), context="web")
            assert used.receipt.seq is not None
        wait_until(lambda: "in_flight 0.0" in self.metrics())
        assert self.node.children() == self.processes
        for role, pid in self.processes.items():
            assert rss_kib(pid) - self.rss_kib[role] < GROWTH_KIB_MAX, role
        assert 'code="internal"' not in self.metrics()
        for path in (self.node.data / "logs").iterdir():
            text = path.read_text()
            assert not re.search(r'Traceback|"level": "(error|critical)"|panicked', text), text

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.node.url}/metrics", timeout=WITHIN_S) as response:  # noqa: S310  the node under test
            text: str = response.read().decode()
        return text


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with Node(tmp_path_factory.mktemp("hostile") / "data") as node, node.client() as client:
        yield Victim(node, client)


def rss_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def read_all(sock: socket.socket) -> bytes:
    found = b""
    with suppress(ConnectionResetError):
        while piece := sock.recv(65_536):
            found += piece
    return found


def wait_until(holds: object) -> None:
    until = time.monotonic() + WITHIN_S
    while not holds():  # type: ignore[operator]  # a function of nothing
        assert time.monotonic() < until, "it did not come to rest"
        time.sleep(0.05)


def status_of(answer: bytes) -> int:
    """The status of an answer; a refusal must be a problem document, or Granian's own bare one."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if status >= 400 and body:
        assert b"application/problem+json" in head, answer
        assert json.loads(body)["code"] != "internal"
    return status


def test_a_byte_at_a_time_is_served(victim: Victim) -> None:
    body = b'{"context":"db","facts":{"length":16}}'
    request = victim.head("/v1/data/derive", JSON_HEAD, length=len(body)) + body
    with victim.connect() as sock:
        for byte in request:
            sock.sendall(bytes([byte]))
            time.sleep(0.001)
        assert status_of(read_all(sock)) == 200
    victim.check_unharmed()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_heads_and_bodies_that_never_end_are_ended(victim: Victim) -> None:
    """A head or body that stalls is over within twice the bound, whoever else waits."""
    endless = [b"GET /health HTTP/1.1\r\nhost: node\r\n", b"GET /hea", b""]
    stalled = victim.head("/v1/data/wrap", JSON_HEAD, length=1_000) + b"{"
    chunked = victim.head("/v1/data/wrap", JSON_HEAD + "transfer-encoding: chunked\r\n") + b"5\r\n{"
    with ExitStack() as stack:
        socks = [stack.enter_context(victim.connect()) for _ in range(60)]
        starts = [*endless, stalled, chunked]
        for number, sock in enumerate(socks):
            sock.sendall(starts[number % len(starts)])
        with Client(victim.node.url) as client:
            client.sign_tls(victim.handles["tls"], bytes(32), context="web")
        until = time.monotonic() + 2 * limits.REQUEST_TIMEOUT_S
        for number, sock in enumerate(socks):
            sock.settimeout(max(until - time.monotonic(), 0.1))
            answer = read_all(sock)  # a timeout here is the failure
            if starts[number % len(starts)] in {stalled, chunked}:
                assert status_of(answer) == 408
    victim.check_unharmed()


def test_half_requests_leave_nothing_behind(victim: Victim) -> None:
    body = json.dumps({"context": "db", "facts": {"plaintext": "QUJD" * 20_000}}).encode()
    whole = victim.head("/v1/data/wrap", JSON_HEAD, length=len(body)) + body
    for number in range(300):
        with victim.connect() as sock:
            sock.sendall(whole[: 1 + number * len(whole) // 300])
            if number % 2:  # the other way to go: a reset instead of an end
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    victim.check_unharmed()


def test_pipelined_requests_are_answered_in_order(victim: Victim) -> None:
    paths = ["/health", "/v1/keys/none/public"] * 100
    lines = [f"GET {path} HTTP/1.1\r\nhost: node\r\n\r\n".encode() for path in paths]
    lines.append(b"GET /health HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n")
    with victim.connect() as sock:
        sock.sendall(b"".join(lines))
        answers = read_all(sock)
    assert [int(s) for s in re.findall(rb"HTTP/1.1 (\d+)", answers)] == [200, 404] * 100 + [200]
    victim.check_unharmed()


def test_idle_connections_keep_nobody_out(victim: Victim) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * IDLE:
        pytest.skip(f"needs {2 * IDLE} open files, this machine allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * IDLE), hard))
    try:
        with ExitStack() as stack:
            for number in range(IDLE):
                sock = stack.enter_context(victim.connect())
                if number % 2:
                    sock.sendall(b"POST /v1/data/wrap HTTP/1.1\r\nhost: ")
            victim.check_unharmed()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    victim.check_unharmed()


@pytest.mark.parametrize(
    ("path", "most"),
    [("/v1/data/wrap", limits.BODY_BYTES_MAX), ("/v1/keys", limits.ADMIN_BODY_BYTES_MAX)],
)
def test_giant_bodies_are_refused(victim: Victim, path: str, most: int) -> None:
    announced = victim.head(path, JSON_HEAD, victim.node.token, length=10**12)
    assert status_of(victim.ask(announced + b"{" * 100_000)) == 413
    assert status_of(victim.ask(victim.head(path, JSON_HEAD, length=10**30))) in {400, 413}
    chunked = victim.head(path, JSON_HEAD + "transfer-encoding: chunked\r\n", victim.node.token)
    chunk = b"%x\r\n%s\r\n" % (most // 2, b"x" * (most // 2))
    assert status_of(victim.ask(chunked + 3 * chunk + b"0\r\n\r\n")) == 413
    victim.check_unharmed()


NESTED = b"[" * 100_000 + b"]" * 100_000
CLAIMS = b'{"context":"a","facts":{"claims":%s}}'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/data/wrap", NESTED),
        ("/v1/data/wrap", b'{"context":"a","facts":%s}' % NESTED),
        ("/v1/data/wrap", b'{"context":"a","facts":{},"more":%s}' % NESTED),
        ("/v1/jwt/sign", CLAIMS % (b'{"a":%s}' % NESTED)),
        ("/v1/jwt/sign", CLAIMS % (b'{"a":' * 5_000 + b"1" + b"}" * 5_000)),
        ("/v1/jwt/sign", CLAIMS % b'{"a":1,"a":2}'),
        ("/v1/jwt/sign", CLAIMS % b'{"a":NaN}'),
        ("/v1/jwt/sign", CLAIMS % (b'{"a":%s}' % (b"9" * 100_000))),
        ("/v1/jwt/sign", CLAIMS % b'{"a":"\\ud800"}'),
        ("/v1/data/wrap", b'{"context":"a","facts":{"plaintext":"QQ=="},"admin":true}'),
        ("/v1/data/wrap", b'{"context":"a","facts":{"plaintext":"QQ==","key":"k"}}'),
        ("/v1/data/wrap", b"\xff\xfe{\x00}\x00"),
        ("/v1/data/wrap", b""),
        ("/v1/batch", b'{"items":[]}'),
        ("/v1/batch", b'{"items":' + NESTED + b"}"),
        ("/v1/batch", b'{"items":[' + b"{}," * 100_000 + b"{}]}"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{len(value)}-bytes",
)
def test_hostile_json_is_malformed(victim: Victim, path: str, body: bytes) -> None:
    assert status_of(victim.post(path, body)) == 400
    victim.check_unharmed()


@pytest.mark.parametrize(
    "path", ["/v1/keys", "/v1/handles", "/v1/handles/revoke", "/v1/keys/hostile-tls/moves"]
)
@pytest.mark.parametrize(
    "body",
    [
        NESTED[70_000:130_000],
        b"[]",
        b"1e999",
        b'{"do":"key.create"}',
        b'{"name":' + b"9" * 5_000 + b"}",
    ],
)
def test_hostile_admin_json_is_malformed(victim: Victim, path: str, body: bytes) -> None:
    assert status_of(victim.post(path, body, victim.node.token)) == 400
    victim.check_unharmed()


@pytest.mark.parametrize("number", [2**63, 2**64, 10**30, -(2**63) - 1])
def test_numbers_past_64_bits_are_malformed(victim: Victim, number: int) -> None:
    """JSON's numbers have no end, those of frames and databases have."""
    for path, fields in (
        ("/v1/keys/hostile-tls/moves", {"move": "suspend", "version": number, "reason": "x"}),
        ("/v1/handles", {"key": "hostile-tls", "principal": "web", "ttl_s": number}),
        ("/v1/handles", {"key": "hostile-tls", "principal": "web", "narrowing": {"uses": number}}),
    ):
        status = status_of(victim.post(path, json.dumps(fields).encode(), victim.node.token))
        assert status in {400, 404}  # some fit 64 bits: then there is no such version
    get = f"GET /v1/log?before={number} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n"
    answer = victim.ask(f"{get}authorization: Bearer {victim.node.token}\r\n\r\n".encode())
    assert status_of(answer) == 400
    victim.check_unharmed()


def test_query_that_is_not_ascii_is_malformed(victim: Victim) -> None:
    get = b"GET /v1/log?limit=\xff\xc3\xa9 HTTP/1.1\r\nhost: node\r\nconnection: close\r\n"
    answer = victim.ask(get + f"authorization: Bearer {victim.node.token}\r\n\r\n".encode())
    assert status_of(answer) == 400
    victim.check_unharmed()


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "\xff", ";"],
)
def test_what_is_not_called_json_is_not_read(victim: Victim, kind: str) -> None:
    body = b'{"context":"db","facts":{"length":16}}'
    for path, token in (("/v1/data/derive", ""), ("/v1/keys", victim.node.token)):
        head = victim.head(path, "", token, len(body))
        if kind:
            head = head[:-2] + f"content-type: {kind}\r\n\r\n".encode("latin-1")
        assert status_of(victim.ask(head + body)) == 415
    victim.check_unharmed()


BODY = b'{"context":"db","facts":{"length":16}}'


@pytest.mark.parametrize(
    "chunks",
    [
        b"-1\r\n" + BODY,
        b"FFFFFFFFFFFFFFFFF\r\n" + BODY,
        b"zz\r\n" + BODY,
        b"26\n" + BODY,
        b"26;" + b"x" * 100_000 + b"\r\n" + BODY,
        b"%x\r\n%s0\r\n\r\n" % (len(BODY) - 1, BODY),
        b"1\r\n{\r\n" * 50_000,
        b"0\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
        b"",
    ],
    ids=range(9),
)
def test_chunks_that_lie_are_refused_or_dropped(victim: Victim, chunks: bytes) -> None:
    head = victim.head("/v1/data/derive", JSON_HEAD + "transfer-encoding: chunked\r\n")
    answer = victim.ask(head + chunks, end=True)
    assert not answer or status_of(answer) in {400, 413, 431}
    victim.check_unharmed()


def test_two_lengths_make_one_request(victim: Victim) -> None:
    """Who frames by one length and who by the other could see two requests in one (RFC 9112 6.1).

    Chunks count, and the connection ends behind them: nothing is left to be read as a second.
    """
    second = b"GET /metrics HTTP/1.1\r\nhost: node\r\n\r\n"
    both = JSON_HEAD.replace("\r\n", "\r\ntransfer-encoding: chunked\r\n")
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    for length in (len(chunked) + len(second), 5):
        head = victim.head("/v1/data/derive", both, length=length)
        answer = victim.ask(head.replace(b"connection: close\r\n", b"") + chunked + second)
        assert answer.count(b"HTTP/1.1") == 1
        assert status_of(answer) == 200
    twice = JSON_HEAD + "content-length: 5\r\n"
    answer = victim.ask(victim.head("/v1/data/derive", twice, length=len(BODY)) + BODY)
    assert answer.count(b"HTTP/1.1") == 1
    assert status_of(answer) == 400
    victim.check_unharmed()


def test_wild_bytes_get_no_more_than_a_refusal(victim: Victim) -> None:
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # TLS spoken in clear
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 100_000,
        b"A" * 200_000,
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nhost: node\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nhost: node\r\nx : y\r\n\r\n",
        b"GET / HTTP/1.1\nhost: node\n\n",
    ):
        answer = victim.ask(data, end=True)
        assert not answer or status_of(answer) < 500
    victim.check_unharmed()
