from __future__ import annotations

from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from keystead.frames.messages import Admin, Answer, Refused, Request
from keystead.front.http import Front
from keystead.keys.commands import (
    Command,
    CountRecords,
    CreateKey,
    DiscloseRecord,
    ForgetRecords,
    IssueHandle,
    ListKeys,
    ListRecords,
    MoveVersion,
    RevokeHandle,
    RevokeKeyHandles,
    ShowHandle,
    ShowKey,
)
from keystead.keys.lifecycle import Move
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import (
    ChangePolicy,
    ListHistory,
    RotateKey,
    SetPlan,
    ShowEvidence,
    ShowRollout,
    SteerRollout,
)
from keystead.keys.rollout.plan import Canary, Drain, Plan, Publish, Retire
from keystead.keys.stops import (
    EmergencyEnd,
    EmergencyStop,
    PreviewRevoke,
    Revoke,
    ShowEmergency,
)
from unit.front.fake_vault import RECEIPT, FakeVault, done
from unit.front.test_dataplane import check_problem

pytestmark = pytest.mark.anyio


class Route(NamedTuple):
    method: str
    path: str
    body: dict[str, Any] | None
    status: int
    command: Command


PLAN = Plan(
    publish=Publish(overlap_ms=3_000, cache_ms=1_000, acknowledged_by=("gateway",)),
    canary=Canary(share_ppm=200_000, length_ms=3_000),
    drain=Drain(length_ms=3_000),
    retire=Retire(unpublish=True),
)
ROUTES = [
    Route(
        "POST",
        "/v1/keys",
        {"name": "web", "purpose": "jwt", "policy": {"jwt": {"issuer": "i"}}},
        201,
        CreateKey(name="web", purpose=Purpose.JWT, policy=Policy(jwt=JwtPolicy(issuer="i"))),
    ),
    Route("GET", "/v1/keys", None, 200, ListKeys()),
    Route(
        "GET",
        "/v1/keys?tenant=t&purpose=tls&after=a&limit=5",
        None,
        200,
        ListKeys(tenant="t", purpose=Purpose.TLS, after="a", limit=5),
    ),
    Route("GET", "/v1/keys/web", None, 200, ShowKey(name="web")),
    Route(
        "POST",
        "/v1/keys/web/moves",
        {"move": "suspend", "version": 2, "reason": "drill"},
        200,
        MoveVersion(name="web", move=Move.SUSPEND, version=2, reason="drill"),
    ),
    Route(
        "POST",
        "/v1/handles",
        {"key": "web", "principal": "shop", "ttl_s": 60, "narrowing": {"uses": 3}},
        201,
        IssueHandle(key="web", principal="shop", ttl_s=60, narrowing=Narrowing(uses=3)),
    ),
    Route("GET", "/v1/handles/h1", None, 200, ShowHandle(handle_id="h1")),
    Route(
        "POST",
        "/v1/handles/revoke",
        {"link": "00ff", "reason": "leaked"},
        200,
        RevokeHandle(link="00ff", reason="leaked"),
    ),
    Route(
        "POST",
        "/v1/keys/web/handles/revoke",
        {"reason": "leaked"},
        200,
        RevokeKeyHandles(key="web", reason="leaked"),
    ),
    Route(
        "POST",
        "/v1/revocations",
        {"purpose": "jwt", "tenant": "shop", "as": "suspended", "reason": "INC-1"},
        200,
        Revoke(purpose=Purpose.JWT, tenant="shop", state="suspended", reason="INC-1"),
    ),
    Route(
        "POST",
        "/v1/revocations/preview",
        {"what": "handles", "labels": {"env": "live"}, "after": "a"},
        200,
        PreviewRevoke(what="handles", labels={"env": "live"}, after="a"),
    ),
    Route("GET", "/v1/emergency", None, 200, ShowEmergency()),
    Route(
        "POST",
        "/v1/emergency/stop",
        {"tenant": "shop", "reason": "INC-1"},
        200,
        EmergencyStop(tenant="shop", reason="INC-1"),
    ),
    Route(
        "POST",
        "/v1/emergency/end",
        {"tenant": None, "reason": "over"},
        200,
        EmergencyEnd(tenant=None, reason="over"),
    ),
    Route(
        "POST",
        "/v1/keys/web/rotate",
        {"plan": msgspec.to_builtins(PLAN), "algorithm": "ed25519", "incident": True}
        | {"reason": "leaked"},
        201,
        RotateKey(name="web", plan=PLAN, algorithm="ed25519", incident=True, reason="leaked"),
    ),
    Route(
        "POST", "/v1/keys/web/rotate", {"reason": "due"}, 201, RotateKey(name="web", reason="due")
    ),
    Route("GET", "/v1/keys/web/rollout", None, 200, ShowRollout(name="web")),
    Route(
        "POST",
        "/v1/keys/web/rollout",
        {"move": "roll_back", "reason": "odd"},
        200,
        SteerRollout(name="web", move="roll_back", reason="odd"),
    ),
    Route(
        "POST",
        "/v1/keys/web/plan",
        {"plan": None, "reason": "default again"},
        200,
        SetPlan(name="web", plan=None, reason="default again"),
    ),
    Route(
        "POST",
        "/v1/keys/web/policy",
        {"policy": {"jwt": {"issuer": "i"}}, "weaker": True, "reason": "longer"},
        200,
        ChangePolicy(
            name="web", policy=Policy(jwt=JwtPolicy(issuer="i")), weaker=True, reason="longer"
        ),
    ),
    Route("GET", "/v1/keys/web/evidence", None, 200, ShowEvidence(name="web")),
    Route("GET", "/v1/keys/web/evidence?number=2", None, 200, ShowEvidence(name="web", number=2)),
    Route("GET", "/v1/history", None, 200, ListHistory()),
    Route(
        "GET",
        "/v1/history?kind=key&name=web&at_seq=7&before=9&limit=3",
        None,
        200,
        ListHistory(kind="key", name="web", at_seq=7, before=9, limit=3),
    ),
    Route("GET", "/v1/history?at_ms=5", None, 200, ListHistory(at_ms=5)),
    Route("GET", "/v1/log", None, 200, ListRecords()),
    Route(
        "GET",
        "/v1/log?key=web&handle_id=h&outcome=done&operation=sign&request_id=r&before=9&limit=3",
        None,
        200,
        ListRecords(
            key="web",
            handle_id="h",
            outcome="done",
            operation="sign",
            request_id="r",
            before=9,
            limit=3,
        ),
    ),
    Route(
        "GET",
        "/v1/log?version=2&purpose=jwt&principal=ci&since_ms=5&until_ms=9&after=-1"
        "&oldest_first=true",
        None,
        200,
        ListRecords(
            version=2,
            purpose=Purpose.JWT,
            principal="ci",
            since_ms=5,
            until_ms=9,
            after=-1,
            oldest_first=True,
        ),
    ),
    Route(
        "GET",
        "/v1/log/counts?by=hour&key=web&outcome=denied",
        None,
        200,
        CountRecords(by="hour", key="web", outcome="denied"),
    ),
    Route(
        "POST",
        "/v1/log/disclose",
        {"seq": 7, "reason": "audit"},
        200,
        DiscloseRecord(seq=7, reason="audit"),
    ),
    Route(
        "POST",
        "/v1/log/forget",
        {"before_ms": 5, "principal": "ci", "reason": "retention"},
        200,
        ForgetRecords(before_ms=5, principal="ci", reason="retention"),
    ),
]


@pytest.mark.parametrize("route", ROUTES, ids=[f"{r.method} {r.path}" for r in ROUTES])
async def test_a_route_is_a_command(
    vault: FakeVault, client: httpx.AsyncClient, route: Route
) -> None:
    headers = {"authorization": "Bearer kso1.me", "idempotency-key": "once"}
    response = await client.request(route.method, route.path, json=route.body, headers=headers)
    assert response.status_code == route.status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["keystead-seq"] == "7"
    assert response.headers["keystead-epoch"] == "3"
    assert response.headers["keystead-request-id"] == "r1"
    assert response.json() == {"name": "web"}
    [admin] = vault.commands
    assert admin == Admin(admin.id, "kso1.me", msgspec.msgpack.encode(route.command), "once")
    assert msgspec.msgpack.decode(admin.command, type=Command) == route.command


@pytest.mark.parametrize("route", ROUTES, ids=[f"{r.method} {r.path}" for r in ROUTES])
async def test_a_route_without_a_token_is_unauthenticated(
    vault: FakeVault, front: Front, route: Route
) -> None:
    transport = httpx.ASGITransport(app=front)  # type: ignore[arg-type]  # a dict is a MutableMapping
    async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
        response = await client.request(route.method, route.path, json=route.body)
    check_problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"] == 'Bearer realm="keystead"'
    assert vault.frames == []


async def test_a_question_has_no_receipt(vault: FakeVault, client: httpx.AsyncClient) -> None:
    def answer(request: Request) -> Answer:
        return done(request, [{"raw": b"\x00"}])

    vault.respond = answer
    response = await client.get("/v1/keys")
    assert response.json() == [{"raw": "AA=="}]
    assert "keystead-seq" not in response.headers


async def test_refusals_are_counted_by_reason(front: Front, client: httpx.AsyncClient) -> None:
    await client.post("/v1/keys", json={"name": "web"})
    await client.delete("/v1/keys")
    del client.headers["authorization"]
    await client.get("/v1/keys")
    page = (await client.get("/metrics")).text
    for reason in ("malformed_request", "method", "unauthenticated"):
        assert f'keystead_front_refusals_total{{reason="{reason}"}} 1.0' in page
    assert front.admission.in_flight == 0


async def test_the_vaults_refusal_is_handed_on(vault: FakeVault, client: httpx.AsyncClient) -> None:
    vault.respond = lambda request: Refused(
        request.id, "permission_denied", "a responder does not create keys", request_id="r4"
    )
    response = await client.post("/v1/keys", json={"name": "web", "purpose": "jwt"})
    assert check_problem(response, 403, "permission_denied")["request_id"] == "r4"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/keys", {"name": "web"}),
        ("/v1/keys", {"name": "web", "purpose": "hunter2"}),
        ("/v1/keys", {"name": "web", "purpose": "jwt", "prehashed": "true"}),
        ("/v1/keys", {"name": "web", "purpose": "jwt", "hunter2 is it": 1}),
        ("/v1/keys", {"do": "key.list", "name": "web", "purpose": "jwt"}),
        ("/v1/keys/web/moves", {"move": "explode", "reason": "r"}),
        ("/v1/keys/web/moves", {"move": "suspend", "reason": "r", "name": "other"}),
        ("/v1/keys/web/moves", {"move": "suspend"}),
        ("/v1/handles", {"key": "web", "principal": "p", "ttl_s": "60"}),
        ("/v1/handles/revoke", {"link": 1, "reason": "r"}),
        ("/v1/keys/web/handles/revoke", []),
        ("/v1/keys/web/rotate", {"incident": True}),
        ("/v1/keys/web/rotate", {"reason": "r", "plan": {"publish": {"overlap_ms": 1}}}),
        ("/v1/keys/web/rollout", {"move": "resume_it", "reason": "r"}),
        ("/v1/keys/web/plan", {"reason": "nobody said which"}),
        ("/v1/keys/web/policy", {"policy": {"jwt": {"issuer": "i", "iss": "i"}}, "reason": "r"}),
        ("/v1/keys/web/policy", {"policy": {}, "weaker": "hunter2", "reason": "r"}),
    ],
)
async def test_a_malformed_command_is_refused_without_echo(
    vault: FakeVault, client: httpx.AsyncClient, path: str, body: object
) -> None:
    response = await client.post(path, json=body)
    check_problem(response, 400, "malformed_request")
    assert "hunter2" not in response.text
    assert vault.frames == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 50_000])
async def test_a_command_that_is_not_json_is_refused(
    client: httpx.AsyncClient, content: bytes
) -> None:
    response = await client.post(
        "/v1/keys", content=content, headers={"content-type": "application/json"}
    )
    check_problem(response, 400, "malformed_request")


async def test_a_command_of_another_type_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/keys", content=b"name=web")
    check_problem(response, 415, "malformed_request")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=hunter2", "purpose=hunter2", "limit="]
)
async def test_a_malformed_query_is_refused_without_echo(
    client: httpx.AsyncClient, query: str
) -> None:
    response = await client.get(f"/v1/keys?{query}")
    problem = check_problem(response, 400, "malformed_request")
    assert query.partition("=")[0] in problem["detail"]
    assert "hunter2" not in response.text


@pytest.mark.parametrize(
    "target",
    [
        "/v1/keys/web/evidence?number=0",
        "/v1/history?at_seq=-1",
        "/v1/history?before=x",
        "/v1/history?limit=1001",
        "/v1/history?key=web",
    ],
)
async def test_history_and_evidence_take_what_they_know(
    vault: FakeVault, client: httpx.AsyncClient, target: str
) -> None:
    check_problem(await client.get(target), 400, "malformed_request")
    assert vault.frames == []


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/keys", "/v1/keys/a/b/c/d", "/schema", "/docs"])
async def test_an_unknown_path_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    check_problem(await client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "allowed"), [("/v1/keys", {"GET", "POST"}), ("/v1/handles/h1", {"GET"})]
)
async def test_another_method_is_refused(
    client: httpx.AsyncClient, path: str, allowed: set[str]
) -> None:
    response = await client.delete(path)
    check_problem(response, 405, "malformed_request")
    assert allowed <= set(response.headers["allow"].split(", "))


async def test_an_unforeseen_fault_is_internal(
    vault: FakeVault, client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    vault.respond = lambda request: msgspec.structs.replace(
        done(request, None, RECEIPT), result=b"\xc1"
    )
    problem = check_problem(await client.get("/v1/keys/web"), 500, "internal")
    logged = capsys.readouterr().out
    assert problem["request_id"] in logged
    assert "kso1" not in logged
