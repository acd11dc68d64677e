"""A node for the command line's tests: a real HTTP server that answers by a table."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from keystead.keys.caveats import Caveat
from keystead.keys.handles import Body, Handle, issue
from keystead.keys.purposes import PURPOSES, Purpose

RECEIPT = {
    "seq": 7,
    "epoch": 3,
    "key": "shop",
    "version": 1,
    "kid": "kid-1",
    "algorithm": "ed25519",
    "ack": "durable",
    "request_id": "r-1",
}
VERSION: dict[str, Any] = {
    "number": 1,
    "state": "active",
    "algorithm": "ed25519",
    "kid": "kid-1",
    "created_ms": 1_790_000_000_000,
    "public_pem": ["-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"],
}
KEY: dict[str, Any] = {
    "id": "k-1",
    "name": "shop",
    "tenant": "default",
    "labels": {"service": "web"},
    "purpose": "jwt",
    "algorithms": ["ed25519"],
    "prehashed": False,
    "policy": {"jwt": {"issuer": "https://id.example"}},
    "generation": 1,
    "primary": 1,
    "versions": [VERSION],
    "revision": 1,
    "epoch": 1,
    "created_ms": 1_790_000_000_000,
}
RECORD: dict[str, Any] = {
    "seq": 7,
    "body": {"seq": 7, "op": "jwt.sign", "outcome": "ok", "name": "shop", "time_ms": 1},
    "entry": "00",
    "leaf": "01",
}
REVOKED: dict[str, Any] = {
    "what": "versions",
    "fence": {"node": "node1", "seq": 43, "epoch": 14, "commit_ms": 3.4},
    "keys": [
        {
            "id": "k-1",
            "name": "shop",
            "tenant": "default",
            "purpose": "jwt",
            "ack": "durable",
            "generation": 1,
            "versions": [1],
            "states": {"1": "compromised"},
        }
    ],
}
READY: dict[str, Any] = {
    "ready": True,
    "reasons": [],
    "protections": {"anchor": "off"},
    "deployment": "d-1",
    "node": "node1",
    "epoch": 3,
    "last_seq": 7,
    "keys": 1,
}


def token_of(purpose: Purpose, *caveats: Caveat) -> str:
    return handle_of(purpose, *caveats).reveal()


def handle_of(purpose: Purpose, *caveats: Caveat) -> Handle:
    body = Body("k-1", purpose, PURPOSES[purpose].operations, f"h-{purpose}", 1)
    return issue(b"\x01" * 32, body, caveats)


def answered(result: object) -> dict[str, object]:
    return {"result": result, "receipt": RECEIPT}


def problem(code: str) -> dict[str, str]:
    return {"code": code, "detail": "why", "hint": "what to do", "request_id": "r-9"}


class Seen(NamedTuple):
    """One request as the node met it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class FakeNode:
    """Answers each ``METHOD /path`` of its table; all else is not found."""

    def __init__(self) -> None:
        self.table: dict[str, tuple[int, bytes]] = {}
        self.seen: list[Seen] = []
        self.url = ""

    def on(self, what: str, answer: object, *, status: int = 200) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.table[what] = (status, data)

    def answer(self, seen: Seen) -> tuple[int, bytes]:
        self.seen.append(seen)
        asked = f"{seen.method} {seen.path.partition('?')[0]}"
        return self.table.get(asked, (404, json.dumps(problem("not_found")).encode()))


@contextmanager
def serving() -> Iterator[FakeNode]:
    node = FakeNode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply()

        def do_POST(self) -> None:
            self.reply()

        def reply(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(data) if data else None
            status, answer = node.answer(Seen(self.command, self.path, headers, body))
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            del args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        node.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield node
        finally:
            server.shutdown()
            thread.join()
