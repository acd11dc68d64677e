"""The two shells: the same calls, one blocking and one awaiting, over httpx."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

import keystead.client
from keystead.client import AsyncClient, Client, Issued, Narrowing, Retry, attenuate, parse_handle
from keystead.client.methods import Methods
from keystead.client.transport import CONNECTIONS_MAX
from keystead.errors import ApprovalRequired, MalformedRequest, ServiceError, Unauthenticated
from keystead.keys.commands import KeyInfo
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.purposes import Purpose
from keystead.keys.verify import PublicKey
from unit.client.fake import QUICK, FakeNode, answered, handle_for, problem

DATA = handle_for(Purpose.DATA)
VERSION = {
    "number": 1,
    "state": "active",
    "algorithm": "ed25519",
    "kid": "kid-1",
    "created_ms": 1,
    "public_pem": ["PEM"],
}
KEY: dict[str, Any] = {
    "id": "k-1",
    "name": "shop",
    "tenant": "default",
    "labels": {},
    "purpose": "jwt",
    "algorithms": ["ed25519"],
    "prehashed": False,
    "policy": {"jwt": {"issuer": "https://id.example"}},
    "generation": 1,
    "primary": 1,
    "versions": [VERSION],
    "revision": 1,
    "epoch": 1,
    "created_ms": 1,
}
RECORD = {"seq": 7, "body": {}, "entry": "00", "leaf": "01"}


def test_the_surface_is_pinned() -> None:
    assert keystead.client.__all__ == [
        "AsyncClient",
        "Batch",
        "Binding",
        "Bound",
        "Client",
        "Handle",
        "Issued",
        "Narrowing",
        "RateLimit",
        "Receipt",
        "Retry",
        "Use",
        "Used",
        "admin",
        "attenuate",
        "operations",
        "parse_handle",
        "revoking",
        "rollouts",
    ]


def test_every_call_has_its_method() -> None:
    calls = {
        *keystead.client.operations.__all__,
        *keystead.client.admin.__all__,
        *keystead.client.published.__all__,
        *keystead.client.revoking.__all__,
        *keystead.client.rollouts.__all__,
    }
    calls -= {
        "Chosen",
        "UseOptions",
        "new_idempotency_key",
        "Ask",
        "FetchProof",
        "Filters",
        "Issued",
        "RevokedLink",
        "Search",
        "Signal",
        "SignalOptions",
    }
    assert {name for name in vars(Methods) if not name.startswith("_")} == calls


def test_methods_carry_the_words_of_what_they_run() -> None:
    with Client("http://localhost") as client:
        assert client.sign_jwt.__name__ == "sign_jwt"
        assert "RFC 7519" in str(client.sign_jwt.__doc__)
    assert "RFC 7519" in str(Client.sign_jwt.__doc__)


def test_the_awaiting_client_does_what_the_blocking_one_does() -> None:
    async def run() -> bytes:
        transport = httpx.MockTransport(node)
        async with AsyncClient("https://node.example", retry=QUICK, transport=transport) as client:
            used = await client.mac(DATA, b"m", context="a")
            return used.result.tag

    node = FakeNode(httpx.ReadTimeout("late"), problem("overloaded"), answered({"tag": "AQ=="}))
    assert asyncio.run(run()) == b"\x01"
    assert len(set(node.sent("idempotency-key"))) == 1


def test_awaiting_calls_run_side_by_side() -> None:
    async def run() -> list[bytes]:
        transport = httpx.MockTransport(node)
        async with AsyncClient("https://node.example", transport=transport) as client:
            uses = (client.mac(DATA, b"m", context="a") for _ in range(20))
            return [used.result.tag for used in await asyncio.gather(*uses)]

    node = FakeNode(*[answered({"tag": "AQ=="})] * 20)
    assert asyncio.run(run()) == [b"\x01"] * 20


def test_who_finds_every_connection_busy_is_told_so_in_time() -> None:
    async def stuck(request: httpx.Request) -> httpx.Response:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)  # slow to let go, so that its connection stays busy
        return node(request)

    async def run() -> None:
        transport = httpx.MockTransport(stuck)
        retry = Retry(try_s=0.05, tries_max=1)
        async with AsyncClient("https://node.example", retry=retry, transport=transport) as client:
            holders = [asyncio.create_task(client.jwks("shop")) for _ in range(CONNECTIONS_MAX)]
            await asyncio.sleep(0.01)
            with pytest.raises(ServiceError, match="every connection is busy"):
                await client.jwks("shop")
            for holder in holders:
                holder.cancel()
            await asyncio.gather(*holders, return_exceptions=True)

    node = FakeNode()
    asyncio.run(run())


# --- admin and public ----------------------------------------------------------------------------


def test_keys_are_created_and_listed() -> None:
    node = FakeNode(httpx.Response(201, json=KEY), httpx.Response(200, json=[KEY]))
    with node.client(operator="kso1.root") as client:
        made: KeyInfo = client.create_key(
            "shop", "jwt", policy=Policy(jwt=JwtPolicy(issuer="https://id.example"))
        )
        assert client.list_keys(purpose="jwt", limit=5) == [made]
    assert made.versions[0].kid == "kid-1"
    assert node.sent("authorization") == ["Bearer kso1.root"] * 2
    body = node.bodies[0]
    assert body["policy"]["jwt"]["issuer"] == "https://id.example"
    assert (body["name"], body["purpose"], "do" in body) == ("shop", "jwt", False)
    assert node.requests[1].url.query == b"purpose=jwt&limit=5"


@pytest.mark.parametrize(
    ("call", "path", "body"),
    [
        (
            keystead.client.admin.move_version("shop", "suspend", reason="why"),
            "/v1/keys/shop/moves",
            b'{"move":"suspend","version":null,"reason":"why"}',
        ),
        (
            keystead.client.admin.revoke_key_handles("a/b", reason="why"),
            "/v1/keys/a%2Fb/handles/revoke",
            b'{"reason":"why"}',
        ),
        (
            keystead.client.admin.revoke_handle("00ff", reason="why"),
            "/v1/handles/revoke",
            b'{"link":"00ff","reason":"why"}',
        ),
        (keystead.client.admin.show_key("shop"), "/v1/keys/shop", b""),
        (keystead.client.admin.show_handle("h-1"), "/v1/handles/h-1", b""),
        (
            keystead.client.admin.search_log(key="shop", before=9, oldest_first=True, limit=5),
            "/v1/log?key=shop&before=9&oldest_first=true&limit=5",
            b"",
        ),
        (
            keystead.client.admin.count_log("hour", outcome="denied", since_ms=7),
            "/v1/log/counts?by=hour&outcome=denied&since_ms=7",
            b"",
        ),
    ],
)
def test_each_admin_call_says_what_its_path_does_not(call: Any, path: str, body: bytes) -> None:  # noqa: ANN401  calls of several results
    assert (call.path, call.body) == (path, body)
    assert call.method == ("POST" if body else "GET")
    assert (call.idempotency_key is not None) == bool(body)


def test_what_is_recorded_each_time_is_not_sent_again_by_itself() -> None:
    disclose = keystead.client.admin.disclose(7, reason="audit")
    assert (disclose.path, disclose.body) == ("/v1/log/disclose", b'{"seq":7,"reason":"audit"}')
    forget = keystead.client.admin.forget_records(reason="old", before_ms=5)
    assert forget.path == "/v1/log/forget"
    assert (disclose.idempotency_key, forget.idempotency_key) == (None, None)


def test_a_search_goes_on_until_it_has_what_was_asked_for() -> None:
    """Also over pages that are empty."""
    pages = [
        {"records": [RECORD], "next": 90, "end": False, "top": 99},
        {"records": [], "next": 40, "end": False, "top": 99},
        {"records": [RECORD, RECORD], "next": 30, "end": False, "top": 99},
        {"records": [], "next": 0, "end": True, "top": 99},
    ]
    for limit, asked in ((3, 3), (9, 4)):
        node = FakeNode(*(httpx.Response(200, json=page) for page in pages))
        with node.client(operator="kso1.root") as client:
            assert len(client.log(key="shop", limit=limit)) == 3
        assert len(node.requests) == asked
        assert [str(request.url.query, "ascii") for request in node.requests][:3] == [
            f"key=shop&limit={limit}",
            f"key=shop&before=90&limit={limit - 1}",
            f"key=shop&before=40&limit={limit - 1}",
        ]


def test_unknown_purposes_and_moves_are_refused_unsent() -> None:
    with FakeNode().client(operator="kso1.root") as client:
        with pytest.raises(MalformedRequest, match="no purpose 'tea'"):
            client.create_key("shop", "tea")
        with pytest.raises(MalformedRequest, match="no move 'sell'"):
            client.move_version("shop", "sell", reason="why")


def test_an_issued_handle_holds_its_token_back() -> None:
    told = {
        "token": DATA.reveal(),
        "handle_id": "h-data",
        "link": DATA.chain_id,
        "key": "shop",
        "purpose": "data",
        "operations": ["mac"],
        "principal": "alice",
    }
    node = FakeNode(httpx.Response(201, json=told))
    with node.client(operator="kso1.root") as client:
        issued: Issued = client.issue_handle(
            "shop", "alice", ttl_s=60, narrowing=Narrowing(context_prefix="a")
        )
    assert issued.handle.reveal() == DATA.reveal()
    assert DATA.reveal() not in repr(issued)
    assert node.bodies[0]["narrowing"]["context_prefix"] == "a"


def test_a_change_in_doubt_is_sent_again_under_the_same_key() -> None:
    node = FakeNode(httpx.ReadTimeout("late"), httpx.Response(200, json={"revoked": "00"}))
    done = node.client(operator="kso1.root").revoke_handle("00", reason="why")
    assert done.revoked == "00"
    first, again = node.sent("idempotency-key")
    assert first == again is not None
    assert node.bodies[0] == node.bodies[1]


def test_admin_calls_need_a_token_and_public_ones_send_none() -> None:
    public = {"name": "shop", "purpose": "jwt", "tenant": "default", "primary": 1}
    node = FakeNode(
        httpx.Response(200, json=public | {"versions": [VERSION]}),
        httpx.Response(200, json={"keys": []}),
        httpx.Response(200, text="-----BEGIN CERTIFICATE-----\n"),
        problem("approval_required", status=403),
    )
    client = node.client()
    with pytest.raises(Unauthenticated, match="operator"):
        client.show_key("shop")
    key: PublicKey = client.public_key("shop")
    assert (key.versions[0].kid, key.primary) == ("kid-1", 1)
    assert client.jwks("shop") == {"keys": []}
    assert client.certificate("shop").startswith("-----BEGIN")
    assert node.sent("authorization") == [None] * 3
    with pytest.raises(ApprovalRequired):
        node.client(operator="kso1.root").show_key("shop")


# --- handles -------------------------------------------------------------------------------------


def test_a_holder_narrows_a_handle_alone() -> None:
    child = attenuate(DATA.reveal(), Narrowing(context_prefix="web", uses=3))
    assert parse_handle(child.reveal()).caveats == child.caveats
    assert len(child.caveats) == 2
    assert child.chain_id != DATA.chain_id
    with pytest.raises(MalformedRequest):
        attenuate(DATA, Narrowing(context_prefix="web//eu"))


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://node.example",
        "http://10.0.0.1:8200",
        "http://localhost.evil.example",
        "ftp://localhost",
        "https://",
        "https://user:pass@node.example",
        "unix:relative",
        "node.example",
        "",
    ],
)
def test_tokens_do_not_go_out_in_clear(url: str) -> None:
    with pytest.raises(MalformedRequest, match="expected"):
        Client(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"])
def test_this_machine_needs_no_tls(url: str) -> None:
    retry = Retry(tries_max=1)
    with (
        Client(url, retry=retry) as client,
        pytest.raises(ServiceError, match="no answer from"),
    ):
        client.public_key("shop")


def test_a_token_that_no_header_takes_is_refused_without_showing_it() -> None:
    with pytest.raises(MalformedRequest) as caught:
        Client("https://node.example", operator="s3cret\r\nx: y")
    assert "s3cret" not in str(caught.value)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connections: set[int] = set()  # noqa: RUF012  one server a test, cleared by it

    def do_GET(self) -> None:
        self.connections.add(id(self.connection))
        body = b'{"keys":[]}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        del format, args


class _UnixServer(HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(str(self.server_address))


@contextmanager
def unix_server(path: Path) -> Iterator[str]:
    with _UnixServer(str(path), _Handler) as server:  # type: ignore[arg-type]  # a path is an address here
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"unix:{path}"
        finally:
            server.shutdown()
            thread.join()


def test_a_unix_socket_and_one_connection_for_many_calls(tmp_path: Path) -> None:
    _Handler.connections = set()
    with unix_server(tmp_path / "node.sock") as url:
        with Client(url) as client:
            assert [client.jwks("shop") for _ in range(3)] == [{"keys": []}] * 3
        assert len(_Handler.connections) == 1

        async def run() -> dict[str, Any]:
            async with AsyncClient(url) as client:
                return await client.jwks("shop")

        assert asyncio.run(run()) == {"keys": []}
