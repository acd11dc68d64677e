"""What a front refuses before the vault sees it, each by its bound and its reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from keystead import limits
from keystead.errors import Overloaded
from keystead.front import bodies
from keystead.front.admission import Admission
from keystead.front.http import Front
from keystead.front.pressure import ConcurrencyLimit
from keystead.front.problems import Rejection
from keystead.net.link import VaultLink
from unit.front.fake_vault import FakeVault
from unit.front.test_dataplane import JWT, check_problem

pytestmark = pytest.mark.anyio

TOKEN = {"authorization": "Bearer ks1.abc"}


def client_of(front: Front) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=front)  # type: ignore[arg-type]  # a dict is a MutableMapping
    return httpx.AsyncClient(transport=transport, base_url="http://front", headers=TOKEN)


async def drip(chunk: bytes, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield chunk


async def check_refusal_counted(client: httpx.AsyncClient, reason: str) -> None:
    page = (await client.get("/metrics")).text
    assert f'keystead_front_refusals_total{{reason="{reason}"}} 1.0' in page


@pytest.mark.parametrize("path", ["/v1/jwt/sign", "/v1/batch"])
async def test_a_body_announced_as_too_long_is_refused_unread(
    vault: FakeVault, client: httpx.AsyncClient, path: str
) -> None:
    response = await client.post(
        path,
        content=b"{}",
        headers={
            "content-type": "application/json",
            "content-length": str(limits.BODY_BYTES_MAX + 1),
        },
    )
    check_problem(response, 413, "limit_exceeded")
    assert "retry-after" not in response.headers
    assert vault.frames == []
    await check_refusal_counted(client, "body_bytes")


async def test_a_body_that_grows_too_long_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/v1/jwt/sign",
        content=drip(bytes(limits.BODY_BYTES_MAX // 2), 3),
        headers={"content-type": "application/json"},
    )
    check_problem(response, 413, "limit_exceeded")


async def test_a_body_in_pieces_is_put_together(client: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"context":"a",', b'"facts":', b'{"claims":{}}}'):
            yield piece

    response = await client.post(
        "/v1/jwt/sign", content=pieces(), headers={"content-type": "application/json"}
    )
    assert response.status_code == 200


async def test_a_long_admin_body_is_refused(vault: FakeVault, client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/keys", json={"name": "a" * limits.ADMIN_BODY_BYTES_MAX})
    check_problem(response, 413, "limit_exceeded")
    assert vault.frames == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/jwt/sign"), ("GET", "/v1/keys/web/public"), ("GET", "/v1/keys")],
)
async def test_long_headers_are_refused(client: httpx.AsyncClient, method: str, path: str) -> None:
    headers = {f"x-{number}": "a" * 1000 for number in range(17)}
    response = await client.request(method, path, headers=headers)
    check_problem(response, 431, "limit_exceeded")
    await check_refusal_counted(client, "header_bytes")


@pytest.mark.parametrize("value", ["x", "-1", "1.0", "\u00b2"])
async def test_a_strange_content_length_is_refused(client: httpx.AsyncClient, value: str) -> None:
    response = await client.post(
        "/v1/jwt/sign",
        content=b"",
        headers=[
            (b"content-length", value.encode("latin-1")),
            (b"content-type", b"application/json"),
        ],
    )
    check_problem(response, 400, "malformed_request")


@pytest.mark.parametrize("name", ["authorization", "idempotency-key", "keystead-proof"])
async def test_a_header_that_stands_once_is_refused_twice(
    client: httpx.AsyncClient, name: str
) -> None:
    response = await client.post("/v1/jwt/sign", json=JWT, headers=[(name, "a"), (name, "b")])
    check_problem(response, 400, "malformed_request")


async def test_other_headers_may_stand_twice(client: httpx.AsyncClient) -> None:
    twice = [("x-forwarded-for", "a"), ("x-forwarded-for", "b")]
    assert (await client.post("/v1/jwt/sign", json=JWT, headers=twice)).status_code == 200


def raw_request(**headers: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": "/v1/jwt/sign",
        "raw_path": b"/v1/jwt/sign",
        "query_string": b"",
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
    }


async def exchange(
    front: Front, *messages: dict[str, Any] | None, **headers: str
) -> list[dict[str, Any]]:
    """What the front sends when it receives these messages; at ``None`` the client stalls."""
    given: Iterator[dict[str, Any] | None] = iter(messages)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        message = next(given)
        if message is None:
            await asyncio.Event().wait()
        return message or {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = raw_request(
        **{
            "authorization": "Bearer ks1.a",
            "content_type": "application/json",
            "content_length": "50",
            **headers,
        }
    )
    await front(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    "before", [(), ({"type": "http.request", "body": b"{", "more_body": True},)]
)
async def test_a_body_that_stalls_is_given_up(
    link: VaultLink, before: tuple[dict[str, Any], ...]
) -> None:
    front = Front(link, timeout_s=0.05)
    start, body = await exchange(front, *before, None)
    assert start["status"] == 408
    assert b"malformed_request" in body["body"]
    assert front.admission.in_flight == 0
    assert front.admission.body_bytes == 0


async def test_a_body_that_is_too_long_is_read_on_so_that_the_answer_arrives(front: Front) -> None:
    piece = {"type": "http.request", "body": bytes(limits.BODY_BYTES_MAX), "more_body": True}
    last = {"type": "http.request", "body": b"", "more_body": False}
    too_long = str(3 * limits.BODY_BYTES_MAX)
    start, _ = await exchange(front, piece, last, content_length=too_long)
    assert start["status"] == 413
    assert front.admission.in_flight == 0


@pytest.mark.parametrize("client_then", ["stalls", "sends for ever"])
async def test_reading_on_has_an_end(
    front: Front, monkeypatch: pytest.MonkeyPatch, client_then: str
) -> None:
    monkeypatch.setattr(bodies, "_DISCARD_S", 0.01)
    piece = {"type": "http.request", "body": bytes(limits.BODY_BYTES_MAX), "more_body": True}
    rest = [None] if client_then == "stalls" else [piece]  # a third piece would be StopIteration
    too_long = str(9 * limits.BODY_BYTES_MAX)
    start, _ = await exchange(front, piece, *rest, content_length=too_long)
    assert start["status"] == 413


async def test_who_asks_before_sending_is_answered_at_once(front: Front) -> None:
    too_long = str(limits.BODY_BYTES_MAX + 1)
    start, _ = await exchange(front, content_length=too_long, expect="100-continue")
    assert start["status"] == 413


async def test_a_body_that_breaks_off_is_answered(front: Front) -> None:
    """Chunks that do not parse end in the same message, and their sender is there to read it."""
    piece = {"type": "http.request", "body": b"{", "more_body": True}
    start, _ = await exchange(front, piece, {"type": "http.disconnect"})
    assert start["status"] == 400
    assert front.admission.in_flight == 0


@pytest.mark.parametrize("coding", ["gzip, chunked", "identity", ""])
async def test_transfer_codings_other_than_chunked_are_refused(front: Front, coding: str) -> None:
    start, _ = await exchange(front, transfer_encoding=coding)
    assert start["status"] == 400


async def test_a_request_that_the_server_cancels_stays_cancelled(front: Front) -> None:
    request = asyncio.create_task(exchange(front, None))
    await asyncio.sleep(0)
    assert not request.done()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert front.admission.in_flight == 0


async def test_bodies_that_never_end_hold_up_no_small_use(link: VaultLink) -> None:
    """Announcing costs the others nothing; what was really sent, only other large bodies."""
    admission = Admission(in_flight_max=2, body_bytes_max=limits.BODY_BYTES_MAX)
    front = Front(link, admission=admission)
    half = {"type": "http.request", "body": bytes(limits.BODY_BYTES_MAX // 2), "more_body": True}
    length = str(limits.BODY_BYTES_MAX)
    idle = [asyncio.create_task(exchange(front, None, content_length=length)) for _ in range(9)]
    large = [
        asyncio.create_task(exchange(front, half, None, content_length=length)) for _ in range(3)
    ]
    done, _ = await asyncio.wait(large, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    [refused] = done
    start, body = refused.result()
    assert start["status"] == 503
    assert b"bytes of bodies" in body["body"]
    assert admission.in_flight == 0
    async with client_of(front) as client:
        assert (await client.post("/v1/jwt/sign", json=JWT)).status_code == 200
    for task in (*idle, *large):
        task.cancel()
    await asyncio.gather(*idle, *large, return_exceptions=True)
    assert admission.body_bytes == 0


async def test_other_kinds_of_connection_are_left_alone(front: Front) -> None:
    sent: list[object] = []

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await front({"type": "websocket"}, receive, send)
    assert sent == []


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"in_flight_max": 2}, "front_in_flight"),
        ({"per_handle_max": 2}, "handle_in_flight"),
        ({"body_bytes_max": 150, "body_bytes_free": 0}, "body_bytes"),
    ],
)
async def test_past_a_bound_the_next_use_is_refused_at_once(
    vault: FakeVault, link: VaultLink, bounds: dict[str, int], reason: str
) -> None:
    front = Front(link, admission=Admission(**bounds))  # type: ignore[arg-type]  # ints alone
    vault.hold()
    async with client_of(front) as client:
        held = [asyncio.create_task(client.post("/v1/jwt/sign", json=JWT)) for _ in range(2)]
        await vault.arrived(2)
        response = await client.post("/v1/jwt/sign", json=JWT)
        check_problem(response, 503, "overloaded")
        assert response.headers["retry-after"] == "1"
        assert len(vault.uses) == 2
        await vault.release()
        assert [answer.status_code for answer in await asyncio.gather(*held)] == [200, 200]
        assert (await client.post("/v1/jwt/sign", json=JWT)).status_code == 200
        await check_refusal_counted(client, reason)


async def test_a_full_handle_leaves_room_for_others(vault: FakeVault, link: VaultLink) -> None:
    front = Front(link, admission=Admission(per_handle_max=1))
    vault.hold()
    async with client_of(front) as client:
        first = asyncio.create_task(client.post("/v1/jwt/sign", json=JWT))
        await vault.arrived(1)
        other = asyncio.create_task(
            client.post("/v1/jwt/sign", json=JWT, headers={"authorization": "Bearer ks1.other"})
        )
        await vault.arrived(2)
        await vault.release()
        assert [(await answer).status_code for answer in (first, other)] == [200, 200]


async def test_a_long_queue_shuts_out_the_flood_and_not_the_others(
    vault: FakeVault, link: VaultLink
) -> None:
    admission = Admission(pressure=ConcurrencyLimit(least=4))
    front = Front(link, admission=admission)
    for second in range(100):  # the queue has been long for a while
        admission.pressure.timed(10.0 + second, float(second))
    assert admission.pressure.limit == 4
    vault.hold()
    other = {"authorization": "Bearer ks1.other"}
    async with client_of(front) as client:
        flood = [asyncio.create_task(client.post("/v1/jwt/sign", json=JWT)) for _ in range(4)]
        await vault.arrived(4)
        check_problem(await client.post("/v1/jwt/sign", json=JWT), 503, "overloaded")
        first = asyncio.create_task(client.post("/v1/jwt/sign", json=JWT, headers=other))
        await vault.arrived(5)
        check_problem(await client.post("/v1/jwt/sign", json=JWT), 503, "overloaded")
        page = (await client.get("/metrics")).text
        assert 'keystead_front_refusals_total{reason="queue_delay"} 2.0' in page
        await vault.release()
        answers = await asyncio.gather(*flood, first)
        assert [answer.status_code for answer in answers] == [200] * 5


async def test_the_limit_follows_what_the_link_measures(
    vault: FakeVault, link: VaultLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.net.link._TIMED_EVERY_S", 0.0)
    front = Front(link)
    seen: list[float] = []
    link.on_delay = lambda delay_s, now_s: seen.extend((delay_s, now_s))
    async with client_of(front) as client:
        before_s = asyncio.get_running_loop().time()
        for _ in range(3):
            assert (await client.post("/v1/jwt/sign", json=JWT)).status_code == 200
        assert (await client.get("/v1/keys/web/public")).status_code == 200
    assert len(seen) == 6
    assert all(delay_s > 0 for delay_s in seen[::2])
    assert before_s < seen[1] < seen[3] < seen[5]
    assert len(vault.uses) == 3


async def test_a_full_front_still_takes_stop_commands_and_probes(
    vault: FakeVault, link: VaultLink
) -> None:
    front = Front(link, admission=Admission(in_flight_max=0))
    async with client_of(front) as client:
        check_problem(await client.post("/v1/jwt/sign", json=JWT), 503, "overloaded")
        check_problem(await client.get("/v1/keys/web/public"), 503, "overloaded")
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 200
        stop = {"move": "compromise", "reason": "leaked"}
        assert (await client.post("/v1/keys/web/moves", json=stop)).status_code == 200
        revoke = {"link": "00", "reason": "leaked"}
        assert (await client.post("/v1/handles/revoke", json=revoke)).status_code == 200
    assert len(vault.commands) == 2


async def test_items_of_batches_have_a_bound_of_their_own(
    vault: FakeVault, link: VaultLink
) -> None:
    front = Front(link, admission=Admission(batch_items_max=1))
    item = {"purpose": "jwt", "operation": "sign", **JWT}
    async with client_of(front) as client:
        response = await client.post("/v1/batch", json={"items": [item, item]})
        check_problem(response, 503, "overloaded")
        assert (await client.post("/v1/batch", json={"items": [item]})).status_code == 200
    assert len(vault.uses) == 1
    assert front.admission.batch_items == 0


async def test_draining_admits_nothing_and_waits_for_what_is_open() -> None:
    admission = Admission()
    key = await admission.enter(b"t")
    draining = asyncio.create_task(admission.drain(30.0))
    await asyncio.sleep(0)
    with pytest.raises(Rejection) as refused:
        await admission.enter(b"t")
    assert isinstance(refused.value.error, Overloaded)
    assert not draining.done()
    admission.leave(key)
    await draining
    assert admission.in_flight == 0


async def test_draining_ends_when_its_time_is_up() -> None:
    admission = Admission()
    await admission.enter(b"t")
    await admission.drain(0.01)
    assert admission.in_flight == 1


async def test_who_asks_again_too_soon_waits_and_who_is_polite_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("keystead.front.admission.RETRY_AFTER_S", 0.2)
    admission = Admission(per_handle_max=1)
    loop = asyncio.get_running_loop()
    key = await admission.enter(b"t", client=("192.0.2.1", 1))
    begun = loop.time()
    with pytest.raises(Rejection):
        await admission.enter(b"t", client=("192.0.2.1", 2))
    with pytest.raises(Rejection):
        await admission.enter(b"t", client=("192.0.2.1", 3))  # another connection
    await admission.enter(b"other", client=("192.0.2.1", 2))  # another handle
    assert loop.time() - begun < 0.2
    admission.leave(key)
    again = asyncio.create_task(admission.enter(b"t", client=("192.0.2.1", 2)))
    await asyncio.sleep(0)
    assert not again.done()
    await again
    assert loop.time() - begun >= 0.2
    admission.leave(key)
    await admission.enter(b"t", client=("192.0.2.1", 2))  # forgiven


async def test_the_refused_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.front.admission._REFUSED_MAX", 3)
    admission = Admission(in_flight_max=0)
    for port in range(10):
        with pytest.raises(Rejection):
            await admission.enter(b"t", client=("192.0.2.1", port))
    held = [
        asyncio.create_task(admission.enter(b"t", client=("192.0.2.1", port)))
        for port in (9, 8, 6)  # the last of these is forgotten: refused anew, and at once
    ]
    await asyncio.sleep(0.05)
    assert [task.done() for task in held] == [False, False, True]
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)


async def test_admission_keeps_no_tokens() -> None:
    admission = Admission()
    await admission.enter(b"ks1.secret")
    assert b"secret" not in repr(vars(admission)).encode()
