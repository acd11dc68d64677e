"""Revocations and emergency stops as the SDK asks for them."""

from typing import Any

import httpx
import pytest

from keystead.client.core import Call
from keystead.client.revoking import (
    emergency_end,
    emergency_status,
    emergency_stop,
    preview_revoke,
    revoke,
)
from keystead.errors import MalformedRequest
from unit.client.fake import FakeNode

FENCE = {"node": "a", "seq": 4, "epoch": 9, "commit_ms": 2.5}
REVOKED = {"what": "versions", "fence": FENCE, "keys": [], "later": "a later member"}
STOP = {"tenant": "shop", "stopped": True, "since_ms": 1, "by": "ann", "reason": "x", "keys": 2}
NOTHING: dict[str, object] = {
    "what": "versions",
    "as": None,
    "key": None,
    "version": None,
    "handle": None,
    "purpose": None,
    "tenant": None,
    "labels": {},
}
CALLS: list[tuple[Call[Any], str, dict[str, object], dict[str, Any]]] = [
    (
        revoke(key="web", version=2, state="compromised", reason="x"),
        "/v1/revocations",
        NOTHING | {"key": "web", "version": 2, "as": "compromised", "reason": "x"},
        REVOKED,
    ),
    (
        revoke(what="handles", labels={"env": "live"}, tenant="shop", reason="x"),
        "/v1/revocations",
        NOTHING | {"what": "handles", "labels": {"env": "live"}, "tenant": "shop", "reason": "x"},
        REVOKED,
    ),
    (
        preview_revoke(purpose="jwt", state="suspended", after="m"),
        "/v1/revocations/preview",
        NOTHING | {"purpose": "jwt", "as": "suspended", "after": "m", "handles_after": ""},
        {"keys": [], "handles": [], "keys_in_all": 0, "since_ms": 1, "logs": ["a"]},
    ),
    (
        emergency_stop(tenant=None, reason="x"),
        "/v1/emergency/stop",
        {"tenant": None, "reason": "x"},
        STOP,
    ),
    (
        emergency_end(tenant="shop", reason="x"),
        "/v1/emergency/end",
        {"tenant": "shop", "reason": "x"},
        STOP,
    ),
]


@pytest.mark.parametrize(("call", "path", "body", "answer"), CALLS, ids=[c[1] for c in CALLS])
def test_each_call_says_what_it_is_given_once_however_often_it_is_sent(
    call: Call[Any], path: str, body: dict[str, object], answer: dict[str, Any]
) -> None:
    lost = httpx.ReadError("connection reset")
    node = FakeNode(lost, httpx.Response(200, json=answer))
    with node.client(operator="kso1.t") as client:
        client.run(call)
    assert [request.url.path for request in node.requests] == [path, path]
    assert node.bodies == [body, body]
    assert len(set(node.sent("idempotency-key"))) == 1
    assert node.sent("authorization") == ["Bearer kso1.t"] * 2


def test_the_answer_has_both_figures() -> None:
    figures = {"best_effort": {"bound_ms": 2020, "ended_ms": 17}}
    node = FakeNode(httpx.Response(200, json=REVOKED | figures))
    with node.client(operator="kso1.t") as client:
        told = client.run(revoke(tenant="shop", state="suspended", reason="x"))
    assert (told.fence.seq, told.fence.epoch, told.fence.commit_ms) == (4, 9, 2.5)
    assert told.best_effort is not None
    assert told.best_effort.ended_ms == 17


def test_the_stops_in_force_are_read() -> None:
    node = FakeNode(httpx.Response(200, json={"stops": [STOP]}))
    with node.client(operator="kso1.t") as client:
        assert client.run(emergency_status()).stops[0].keys == 2


@pytest.mark.parametrize(
    "members", [{"purpose": "jwtt"}, {"tenant": "t", "state": "gone"}, {"what": "all"}]
)
def test_what_cannot_be_asked_for_is_refused_unsent(members: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequest):
        revoke(reason="x", **members)
