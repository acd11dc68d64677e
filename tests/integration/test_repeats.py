"""A change sent twice under one idempotency key: one effect, one record, one answer (I6)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from integration.node import Node
from keystead.client import Client


def post(node: Node, path: str, body: dict[str, Any], key: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {node.token}", "idempotency-key": key}
    return httpx.post(f"{node.url}{path}", json=body, headers=headers, timeout=60)


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "key.create": ("/v1/keys", {"name": "twice", "purpose": "tls"}),
    "key.move": ("/v1/keys/twice/moves", {"move": "suspend", "reason": "test"}),
    "handle.revoke": ("/v1/handles/revoke", {"link": "ab" * 16, "reason": "test"}),
    "handle.revoke_all": ("/v1/keys/twice/handles/revoke", {"reason": "test"}),
    "tenant.limit": ("/v1/tenants/twice/budget", {"count": 9, "reason": "test"}),
}


@pytest.mark.parametrize("operation", CHANGES)
def test_a_repeated_change_has_one_effect(node: Node, operator: Client, operation: str) -> None:
    path, body = CHANGES[operation]
    before = len(operator.log(operation=operation, limit=1000))
    first, again = (post(node, path, body, f"twice-{operation}") for _ in range(2))
    assert first.status_code in {200, 201}
    assert again.status_code == first.status_code
    assert again.content == first.content
    assert again.headers["keystead-seq"] == first.headers["keystead-seq"]
    assert len(operator.log(operation=operation, limit=1000)) == before + 1


def test_a_repeated_issue_shows_no_token_and_makes_no_handle(node: Node, operator: Client) -> None:
    operator.create_key("issued-once", "tls")
    body = {"key": "issued-once", "principal": "ci"}
    first = post(node, "/v1/handles", body, "issue-1")
    again = post(node, "/v1/handles", body, "issue-1")
    assert (first.status_code, again.status_code) == (201, 409)
    assert again.json()["code"] == "conflict"
    assert f"record {first.headers['keystead-seq']}" in again.json()["detail"]
    assert first.json()["token"] not in again.text
    assert len(operator.log(key="issued-once", operation="handle.issue", outcome="ok")) == 1


def test_another_change_under_the_same_key_is_refused(node: Node, operator: Client) -> None:
    assert post(node, "/v1/keys", {"name": "mine-1", "purpose": "tls"}, "k").status_code == 201
    other = post(node, "/v1/keys", {"name": "mine-2", "purpose": "tls"}, "k")
    assert (other.status_code, other.json()["code"]) == (409, "replay_conflict")
    assert "mine-2" not in {key.name for key in operator.list_keys(limit=1000)}


def test_a_refusal_is_not_kept(node: Node, operator: Client) -> None:
    body = {"move": "suspend", "reason": "test"}
    path = "/v1/keys/not-yet/moves"
    assert post(node, path, body, "later").status_code == 404
    operator.create_key("not-yet", "tls")
    assert post(node, path, body, "later").status_code == 200


@pytest.mark.parametrize("key", ["", "k" * 65, "é"])
def test_a_key_that_is_none_is_refused(node: Node, key: str) -> None:
    headers = {"authorization": f"Bearer {node.token}"}
    sent = {**headers, "idempotency-key": key.encode()}  # as bytes: httpx would refuse the last
    answer = httpx.post(f"{node.url}/v1/keys", json={"name": "x", "purpose": "tls"}, headers=sent)  # type: ignore[arg-type]  # text and bytes mixed
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
