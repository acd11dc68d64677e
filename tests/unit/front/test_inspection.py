from __future__ import annotations

import asyncio

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from keystead.frames.messages import Answer, Public, Refused, Request, Status
from keystead.front import inspection
from keystead.keys.purposes import Purpose
from unit.client.fake import handle_for
from unit.front.fake_vault import STATUS, FakeVault, done
from unit.front.test_dataplane import JWT, check_problem

pytestmark = pytest.mark.anyio


async def test_health_asks_nobody(vault: FakeVault, client: httpx.AsyncClient) -> None:
    response = await client.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert vault.frames == []


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/openapi.json"])
async def test_probes_are_read_only(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.head(path)).status_code == 200
    response = await client.post(path, json={})
    check_problem(response, 405, "malformed_request")
    assert response.headers["allow"] == "GET, HEAD"


async def test_ready_shows_the_protections(client: httpx.AsyncClient) -> None:
    response = await client.get("/ready")
    assert response.status_code == 200
    assert response.json() == {
        "ready": True,
        "reasons": [],
        "protections": {"anchor": "off"},
        "deployment": "dep",
        "node": "n1",
        "epoch": 3,
        "last_seq": 7,
        "keys": 1,
        "nodes": [],
    }


async def test_not_ready_says_why(vault: FakeVault, client: httpx.AsyncClient) -> None:
    sealed = msgspec.structs.replace(STATUS, ready=False, reasons=("sealed",))
    vault.respond = lambda request: done(request, sealed)
    response = await client.get("/ready")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["reasons"] == ["sealed"]


async def test_not_ready_without_a_vault(vault: FakeVault, client: httpx.AsyncClient) -> None:
    vault.hold()
    asked = asyncio.create_task(client.get("/ready"))
    await vault.arrived(1)
    await vault.stop()
    assert (await asked).status_code == 503
    response = await client.get("/ready")
    assert response.status_code == 503
    assert "not reachable" in response.json()["reasons"][0]


async def test_not_ready_when_the_vault_is_silent(
    vault: FakeVault, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "_STATUS_TIMEOUT_S", 0.01)
    vault.hold()
    response = await client.get("/ready")
    assert response.status_code == 503
    assert "did not answer" in response.json()["reasons"][0]


async def test_not_ready_when_the_vault_is_not_understood(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    vault.respond = lambda request: done(request, {"ready": "yes"})
    response = await client.get("/ready")
    assert response.status_code == 503
    assert "does not parse" in response.json()["reasons"][0]


async def test_many_probes_are_one_question(vault: FakeVault, client: httpx.AsyncClient) -> None:
    vault.hold()
    probes = [asyncio.create_task(client.get("/ready")) for _ in range(20)]
    await vault.arrived(1)
    await vault.release()
    assert {answer.status_code for answer in await asyncio.gather(*probes)} == {200}
    assert len([request for request in vault.requests if isinstance(request, Status)]) == 1


async def samples(
    client: httpx.AsyncClient,
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_metrics_are_the_fronts_and_the_vaults(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    await client.post("/v1/jwt/sign", json=JWT)
    await client.post("/v1/jwt/sign", json={})
    await client.post("/v1/batch", json={"items": [{"purpose": "jwt", "operation": "x", **JWT}]})
    await client.get("/v1/keys/web")
    await client.get("/v1/keys/web/jwks.json")
    await client.get("/v1/keys/hunter2/jwks.json")
    await client.get("/nowhere/hunter2")
    found = await samples(client)
    requests = "keystead_front_requests_total"
    jwt = ("route", "/v1/jwt/sign")
    assert found[requests, (("code", "ok"), jwt)] == 1
    assert found[requests, (("code", "malformed_request"), jwt)] == 1
    assert found[requests, (("code", "ok"), ("route", "/v1/keys/{name}"))] == 1
    assert found[requests, (("code", "ok"), ("route", "/v1/keys/{name}/jwks.json"))] == 2
    assert found["keystead_front_batch_items_total", (("code", "malformed_request"),)] == 1
    assert found["keystead_front_refusals_total", (("reason", "malformed_request"),)] == 1
    assert found["keystead_front_request_seconds_count", (jwt,)] == 2
    assert found["keystead_front_request_seconds_bucket", (("le", "+Inf"), jwt)] == 2
    assert found["keystead_front_body_bytes_total", (("direction", "received"),)] > 0
    assert found["keystead_front_in_flight", ()] == 0
    assert found["keystead_front_vault_up", ()] == 1
    assert found["keystead_uses_total", (("purpose", "jwt"),)] == 5
    assert found["keystead_uses_total", (("purpose", "tls"),)] == 2
    assert found["keystead_queue", ()] == 1
    assert "hunter2" not in repr(found)
    assert vault.frames


async def test_metrics_do_without_the_vault(vault: FakeVault, client: httpx.AsyncClient) -> None:
    vault.respond = lambda request: Refused(request.id, "log_unavailable", "gone")
    found = await samples(client)
    assert found["keystead_front_vault_up", ()] == 1
    assert ("keystead_queue", ()) not in found


@pytest.mark.parametrize(
    ("part", "what", "content_type"),
    [
        ("public", "keys", "application/json"),
        ("jwks.json", "jwks", "application/jwk-set+json"),
        ("certificate", "certificate", "application/x-pem-file"),
        ("krl", "krl", "application/octet-stream"),
        ("krl.note", "krl.note", "text/plain; charset=utf-8"),
        ("revoked_hosts", "revoked_hosts", "text/plain; charset=utf-8"),
        ("revoked_hosts.note", "revoked_hosts.note", "text/plain; charset=utf-8"),
        ("deny.json", "deny", "application/json"),
        ("deny.note", "deny.note", "text/plain; charset=utf-8"),
    ],
)
async def test_public_parts_need_no_handle(
    vault: FakeVault, client: httpx.AsyncClient, part: str, what: str, content_type: str
) -> None:
    del client.headers["authorization"]
    response = await client.get(f"/v1/keys/web/{part}")
    assert response.status_code == 200
    assert response.headers["content-type"] == content_type
    assert response.headers["cache-control"] == "public, max-age=60"
    assert response.text in {'{"keys":[]}', "-----BEGIN CERTIFICATE-----\n"}
    [request] = vault.requests
    assert request == Public(request.id, what, "web")


async def test_a_public_part_is_kept_for_as_long_as_the_vault_says(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    vault.respond = lambda request: done(request, (300, b"pem"))
    response = await client.get("/v1/keys/web/certificate")
    assert response.content == b"pem"
    assert response.headers["cache-control"] == "public, max-age=300"
    assert response.headers.get_list("cache-control", split_commas=False) == ["public, max-age=300"]
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_who_has_a_public_part_already_is_told_so(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    first = await client.get("/v1/keys/web/jwks.json")
    tag = first.headers["etag"]
    assert tag.startswith('"')
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await client.get("/v1/keys/web/jwks.json", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b""), known
        assert again.headers["etag"] == tag
        assert again.headers["cache-control"] == "public, max-age=60"
    vault.respond = lambda request: done(request, (60, b'{"keys":[1]}'))
    changed = await client.get("/v1/keys/web/jwks.json", headers={"if-none-match": tag})
    assert (changed.status_code, changed.content) == (200, b'{"keys":[1]}')
    assert changed.headers["etag"] != tag


@pytest.mark.parametrize(
    ("asked", "has"),
    [
        (b"", False),
        (b'"a"', True),
        (b'W/"a"', True),
        (b'"b", W/"a"', True),
        (b'"b"', False),
        (b"a", False),
        (b"*", True),
    ],
)
def test_entity_tags_are_compared_weakly(asked: bytes, has: bool) -> None:  # noqa: FBT001  of a table
    assert inspection.has_current(asked, b'"a"') is has


async def test_a_public_part_that_does_not_parse_is_the_nodes_fault(
    vault: FakeVault, client: httpx.AsyncClient
) -> None:
    vault.respond = lambda request: done(request, {"keys": []})
    check_problem(await client.get("/v1/keys/web/jwks.json"), 503, "internal")


@pytest.mark.parametrize(
    ("part", "operation", "facts"),
    [
        ("reports", "report", {"seq": 7, "problem": "signature"}),
        ("acknowledgements", "acknowledge", {"kid": "kid-2"}),
    ],
)
async def test_what_relying_parties_tell_reaches_the_vault(
    vault: FakeVault,
    client: httpx.AsyncClient,
    part: str,
    operation: str,
    facts: dict[str, object],
) -> None:
    token = handle_for(Purpose.JWT).reveal()
    response = await client.post(
        f"/v1/keys/web/{part}",
        json={"context": "web/eu", "facts": facts},
        headers={"authorization": f"Bearer {token}"},
    )
    assert response.status_code == 200, response.text
    [use] = vault.uses
    assert (use.purpose, use.operation, use.context) == ("jwt", operation, "web/eu")
    assert msgspec.msgpack.decode(use.facts).items() >= {**facts, "key": "web"}.items()


@pytest.mark.parametrize("part", ["reports", "acknowledgements"])
async def test_what_relying_parties_tell_is_posted(
    vault: FakeVault, client: httpx.AsyncClient, part: str
) -> None:
    response = await client.get(f"/v1/keys/web/{part}")
    check_problem(response, 405, "malformed_request")
    assert response.headers["allow"] == "POST"
    for operation in ("report", "acknowledge"):
        check_problem(await client.post(f"/v1/jwt/{operation}", json={}), 404, "not_found")
    assert vault.frames == []


async def test_an_unknown_key_is_not_found(vault: FakeVault, client: httpx.AsyncClient) -> None:
    def refuse(request: Request) -> Answer:
        return Refused(request.id, "not_found", "no such key")

    vault.respond = refuse
    check_problem(await client.get("/v1/keys/web/public"), 404, "not_found")


@pytest.mark.parametrize("name", ["Web", "a b", "a" * 65, "%2e%2e", ""])
async def test_a_name_that_no_key_has_is_refused(
    vault: FakeVault, client: httpx.AsyncClient, name: str
) -> None:
    response = await client.get(f"/v1/keys/{name}/public")
    check_problem(response, 400, "malformed_request")
    assert vault.frames == []


async def test_a_public_part_is_read_only(client: httpx.AsyncClient) -> None:
    response = await client.put("/v1/keys/web/jwks.json")
    check_problem(response, 405, "malformed_request")
    assert response.headers["allow"] == "GET, HEAD"
