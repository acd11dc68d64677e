"""Targets on a real node: hostile HTTP into a front, hostile frames into its vault.

The front is the real application, called in this process without sockets, so that what it raises is
seen; behind it stands the vault of a node that runs. ``tests/integration/test_hostile.py`` does the
sockets.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from fuzz import seeds
from fuzz.choices import Choices, mutate
from fuzz.judge import Finding
from fuzz.pure import HINTS
from fuzz.shapes import Hints, as_json, as_msgpack, junk, shaped
from integration.node import Node
from keystead.client import Client, Narrowing
from keystead.encoding import b64u_encode
from keystead.errors import error_for_code
from keystead.frames.codec import FrameReader, decode_answers, encode_frame
from keystead.frames.messages import Admin, Proof, Public, Refused, Request, Status, Tend, Use
from keystead.front.admin import BODIES
from keystead.front.http import Front
from keystead.front.inspection import PUBLIC_PARTS
from keystead.keys.commands import Command
from keystead.keys.model import CaPolicy, FirmwarePolicy, JwtPolicy, Policy, SshCaPolicy
from keystead.keys.narrowing import Binding
from keystead.keys.operations import FACTS
from keystead.keys.rollout.plan import (
    DAY_MS,
    WHOLE_PPM,
    Canary,
    Drain,
    Gates,
    Plan,
    Publish,
    Ramp,
    Retire,
)
from keystead.keys.rollout.reports import Acknowledge, ReportFailure
from keystead.net.link import VaultLink

__all__ = ["Served", "World", "furnish", "rss_kib", "told"]

_ANSWER_WITHIN_S = 20.0
_TOGETHER = 32
_SERVER_FAULT = 500
_UNAVAILABLE = 503
_POLICIES = {
    "jwt": Policy(jwt=JwtPolicy(issuer="https://id.example")),
    "firmware": Policy(firmware=FirmwarePolicy(names=("router", "camera"), step_max=1_000_000)),
    "ca": Policy(ca=CaPolicy(common_name="Shop CA", dns_suffixes=("shop.example",))),
    "ssh_ca": Policy(ssh_ca=SshCaPolicy(principals=("deploy",))),
}
_VICTIMS = 40
_PLANS = tuple(
    Plan(
        publish=Publish(overlap_ms=overlap_ms, cache_ms=overlap_ms),
        canary=Canary(share_ppm=WHOLE_PPM, length_ms=0),
        ramp=Ramp(steps_ppm=()),
        drain=Drain(length_ms=400 * DAY_MS),
        retire=Retire(unpublish=True),
        gates=Gates(samples=1),
    )
    for overlap_ms in (0, DAY_MS)
)
"""Of keys whose rollouts the rounds among the frames move on, and of others."""
_PLACE = re.compile(r"\{[a-z_]+\}")  # of a name in a path


class World(NamedTuple):
    """What a hostile client of a node may know: tokens that work, and names that there are.

    ``relying``: by the name of a key, the handle of who may tell of it.
    """

    socket: Path
    operator: str
    handles: dict[str, tuple[str, ...]]
    relying: dict[str, str]
    hints: Hints
    admin_hints: Hints


def furnish(node: Node) -> World:
    """Keys and handles of every purpose, and keys that admin commands may break."""
    with node.client() as client:
        handles = {
            purpose: _handles(client, purpose) for purpose in sorted({pair[0] for pair in FACTS})
        }
        issued = client.create_key("victim-0", "tls"), client.issue_handle("victim-0", "web")
        for number in range(1, _VICTIMS):
            purpose = ("tls", "data", "ledger")[number % 3]
            client.create_key(f"victim-{number}", purpose, plan=_PLANS[number % len(_PLANS)])
        wrapped = client.wrap(handles["data"][0], b"secret", context="web").result.wrapped
        relying = {name: _relying(client, name) for name in (*handles, "victim-0")}
        kids = [version.kid for name in handles for version in client.show_key(name).versions]
    names = tuple(f"victim-{number}" for number in range(_VICTIMS))
    return World(
        socket=node.data / "vault.sock",
        operator=node.token,
        handles=handles,
        relying=relying,
        hints={
            **HINTS,
            "wrapped": (wrapped, *seeds.wrapped_texts()),
            "seq": tuple(range(2 * _VICTIMS)),
            "kid": tuple(kids),
        },
        admin_hints={
            "name": names,
            "key": names,
            "principal": ("web",),
            "link": (issued[1].link,),
            "handle_id": (issued[1].handle_id,),
            "reason": ("an incident", ""),
            "algorithm": (None,),  # nothing that takes long to make
            "ttl_s": (None, 60),
            "plan": (None, *map(msgspec.to_builtins, _PLANS)),
            "weaker": (True, False),
            "kind": ("key", "rotation", "tenant", "credential"),
        },
    )


def _handles(client: Client, purpose: str) -> tuple[str, ...]:
    client.create_key(purpose, purpose, policy=_POLICIES.get(purpose, Policy()))
    key = b64u_encode(seeds.ED25519.public_key().public_bytes_raw())
    narrowings = (
        Narrowing(),
        Narrowing(context_prefix="web", uses=2**40),
        Narrowing(bound_to=Binding(kind="ed25519", value=key)),
        Narrowing(bound_to=Binding(kind="certificate", value=key)),
    )
    issued = [client.issue_handle(purpose, "fuzz", narrowing=narrow) for narrow in narrowings]
    return tuple(item.handle.reveal() for item in issued)


def _relying(client: Client, name: str) -> str:
    issued = client.issue_handle(name, "relying", operations=("report", "acknowledge"))
    return issued.handle.reveal()


class _Call(NamedTuple):
    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    cut_off: bool


class Served:
    """Runs cases against the node of a :class:`World`; counts, and keeps what is wrong."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.outcomes: Counter[str] = Counter()
        self.findings: list[Finding] = []
        self.cases = 0

    # --- HTTP --------------------------------------------------------------------------------

    async def http(self, source: random.Random, count: int) -> None:
        """So many requests to a front, some at a time."""
        link = VaultLink(str(self._world.socket))
        await link.start()
        try:
            front = Front(link)
            for _ in range(0, count, _TOGETHER):
                cases = [source.randbytes(source.choice((16, 60, 300))) for _ in range(_TOGETHER)]
                await asyncio.gather(*(self._http_case(front, data) for data in cases))
            if front.admission.in_flight or front.admission.body_bytes:
                self.findings.append(Finding("front", "admission counts what is over", ""))
        finally:
            await link.close()

    async def _http_case(self, front: Front, data: bytes) -> None:
        call = _call(Choices(data), self._world)
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if call.cut_off:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": call.body, "more_body": False}

        async def send(message: Any) -> None:  # noqa: ANN401  as ASGI has it
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": call.method,
            "path": call.path,
            "raw_path": call.path.encode(errors="replace"),
            "query_string": call.query,
            "root_path": "",
            "headers": call.headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                await front(scope, receive, send)
        except Exception as exc:  # noqa: BLE001  any is a finding
            self._count("front", f"!{type(exc).__name__}: {exc}", data)
            return
        self._count("front", "cut off" if call.cut_off and not sent else _answer(sent), data)

    # --- frames ------------------------------------------------------------------------------

    async def frames(self, source: random.Random, count: int) -> None:
        """So many requests in frames to the vault itself, as a hostile front would send them."""
        done = 0
        while done < count:
            reader, writer = await asyncio.open_unix_connection(str(self._world.socket))
            data = source.randbytes(2_000)
            try:
                async with asyncio.timeout(_ANSWER_WITHIN_S):
                    done += await self._frame_case(Choices(data), data, reader, writer)
            except TimeoutError:
                self._count("vault", "!no answer in time", data)
                done += 1
            finally:
                writer.close()

    async def _frame_case(
        self,
        choices: Choices,
        data: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> int:
        if choices.rarely(16):
            requests = [shaped(choices, Request, {}) for _ in range(3)]
            body = mutate(choices, as_msgpack(requests))
            writer.write(len(body).to_bytes(4, "big") + body)
            writer.write_eof()
            await reader.read()
            self._count("vault", "bent frame", data)
            return 1
        batch = [_request(choices, number, self._world) for number in range(16)]
        writer.write(encode_frame(batch))
        frames = FrameReader()
        waiting = {request.id for request in batch}
        while waiting:
            piece = await reader.read(65_536)
            if not piece:
                self._count("vault", "!closed on a frame that parses", data)
                return len(batch)
            for body in frames.feed(piece):
                for answer in decode_answers(body):
                    waiting.discard(answer.id)
                    code = answer.code if isinstance(answer, Refused) else "value"
                    bad = code == "internal" and isinstance(answer, Refused)
                    what = f"!internal: {answer.message}" if bad else code  # type: ignore[union-attr]  # bad says it is one
                    self._count("vault", what, data)
        return len(batch)

    def _count(self, target: str, outcome: str, data: bytes) -> None:
        self.cases += 1
        self.outcomes[f"{target}: {outcome.partition(' ')[0]}"] += 1
        if outcome.startswith("!"):
            self.findings.append(Finding(target, outcome[1:], data.hex()))


def _answer(sent: list[Any]) -> str:
    """The code of an answer, or behind ``!`` what is wrong with it."""
    if [message["type"] for message in sent] != ["http.response.start", "http.response.body"]:
        return f"!{len(sent)} messages for one answer"
    status, body = sent[0]["status"], sent[1]["body"]
    if status < 400:
        return "value"
    headers = dict(sent[0]["headers"])
    if headers.get(b"content-type") != b"application/problem+json":
        return f"!{status} without a problem document"
    problem = json.loads(body)
    code = problem["code"]
    if problem["status"] != status or not error_for_code(code, "known").code:
        return f"!{status} with {body[:200]!r}"
    if status >= _SERVER_FAULT and status != _UNAVAILABLE:
        return f"!{status} {problem}"
    return str(code)


# --- hostile requests ----------------------------------------------------------------------------


def _call(choices: Choices, world: World) -> _Call:
    kinds = (_batch_call, _signal_call, _public_call, _odd_call, _admin_call, _admin_call)
    kind = choices.below(len(kinds) + 4)
    return _use_call(choices, world) if kind >= len(kinds) else kinds[kind](choices, world)


def _use_call(choices: Choices, world: World) -> _Call:
    purpose, operation = pair = choices.pick(tuple(FACTS))
    body = {
        "context": choices.pick(("web", "web/eu", choices.text())),
        "facts": shaped(choices, FACTS[pair], world.hints),
    }
    if choices.rarely(3):
        body |= {"version": choices.integer(), "reason": choices.text()}
    if choices.rarely(24):
        body[choices.text()] = junk(choices, 2)
    token = choices.pick(world.handles[purpose if not choices.rarely(16) else "tls"])
    return _post(choices, f"/v1/{purpose}/{operation}", token, as_json(body))


def _batch_call(choices: Choices, world: World) -> _Call:
    items: list[object] = []
    for _ in range(choices.below(5)):
        purpose, operation = pair = choices.pick(tuple(FACTS))
        item = {
            "purpose": purpose,
            "operation": operation,
            "context": "web",
            "facts": shaped(choices, FACTS[pair], world.hints),
            "handle": choices.pick(world.handles[purpose]),
        }
        if choices.rarely(4):
            item |= {choices.pick((*item, "proof", "idempotency_key")): junk(choices, 2)}
        items.append(item if not choices.rarely(20) else junk(choices, 2))
    return _post(choices, "/v1/batch", world.handles["tls"][0], as_json({"items": items}))


def _signal_call(choices: Choices, world: World) -> _Call:
    """What a relying party tells of a key: mostly of its own."""
    name = choices.pick(tuple(world.relying))
    part, form = choices.pick(
        (("reports", ReportFailure), ("acknowledgements", Acknowledge)),
    )
    hints = {**world.hints, "key": (name, "")}
    body = {"context": choices.pick(("web", choices.text())), "facts": shaped(choices, form, hints)}
    if choices.rarely(24):
        body[choices.text()] = junk(choices, 2)
    told = choices.text() if choices.rarely(12) else name
    token = world.relying[choices.pick((name, name, name, "tls"))]
    return _post(choices, f"/v1/keys/{told}/{part}", token, as_json(body))


def _public_call(choices: Choices, world: World) -> _Call:
    """What anyone may read of a key, also of one that has no such thing."""
    name = choices.pick((*world.relying, *world.admin_hints["name"], choices.text()))
    path = f"/v1/keys/{name}/{choices.pick((*PUBLIC_PARTS, choices.text()))}"
    call = _post(choices, path, world.operator, b"")
    headers = [(b"if-none-match", choices.pick((b"*", b'""', b'W/"a", "b"', choices.blob(70))))]
    return call._replace(method=choices.pick(("GET", "HEAD")), headers=headers)


STOPPING = ("/v1/revocations", "/v1/emergency/stop")
STOPS = ("revoke", "emergency.stop")
"""Paths, and commands: what could stop the keys of the world, so that all else would be refused."""


def confined(body: dict[str, object]) -> dict[str, object]:
    """What makes a stop one of nobody's keys, unless it names one that it may stop."""
    if body.get("key") is None and not isinstance(body.get("tenant"), str):
        return {"tenant": "nobody"}
    return {}


def _admin_call(choices: Choices, world: World) -> _Call:
    name = choices.pick(world.admin_hints["name"])
    if choices.rarely(2):
        path = choices.pick(tuple(BODIES))
        body = shaped(choices, BODIES[path], world.admin_hints)
        if isinstance(body, dict):
            body.pop("do", None)
            if path in STOPPING:
                body |= confined(body)
        return _post(choices, _PLACE.sub(str(name), path), world.operator, as_json(body))
    path = choices.pick(
        (
            *("/v1/keys", "/v1/log", "/v1/history", f"/v1/handles/{choices.text()}"),
            *(f"/v1/keys/{name}{part}" for part in ("", "/rollout", "/evidence")),
        )
    )
    names = (
        *("limit", "before", "after", "key", "handle_id", "tenant", "purpose", "operation"),
        *("name", "kind", "at_seq", "at_ms", "number"),
    )
    query = "&".join(
        f"{choices.pick(names)}={choices.pick((choices.text(), choices.integer()))}"
        for _ in range(choices.below(3))
    )
    call = _post(choices, path, world.operator, b"")
    return call._replace(method="GET", query=mutate(choices, query.encode(errors="replace")))


def _odd_call(choices: Choices, world: World) -> _Call:
    paths = ("/", "*", "//v1/keys", "/v1/keys/../log", "/health", "/ready", "/metrics", "/v1/x/y")
    path = mutate(choices, choices.pick(paths).encode()).decode(errors="replace")
    method = choices.pick(("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "CONNECT", "x", "POST"))
    call = _post(choices, path, world.operator, choices.blob())
    return call._replace(method=method, query=choices.blob(20))


def _post(choices: Choices, path: str, token: str, body: bytes) -> _Call:
    if choices.rarely(4):
        body = mutate(choices, body)
    headers = [
        (b"authorization", b"Bearer " + token.encode()),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    if choices.rarely(4):
        headers.append((b"idempotency-key", choices.pick((b"k1", b"k2", choices.blob(70)))))
    if choices.rarely(6):
        headers.append((b"keystead-proof", _proof(choices)))
    if choices.rarely(10):
        at = choices.below(len(headers))
        headers[at] = (headers[at][0], mutate(choices, headers[at][1]))
    return _Call("POST", path, b"", headers, body, cut_off=choices.rarely(64))


def _proof(choices: Choices) -> bytes:
    certificate = mutate(choices, choices.pick(seeds.certificates()))
    fields: dict[str, object] = {"time_ms": _now_ms(choices), "signature": choices.blob()}
    fields |= {"certificate": certificate} if choices.rarely(2) else {}
    return b64u_encode(as_json(fields)).encode()


def _request(choices: Choices, number: int, world: World) -> Request:
    """A request that is well typed, and hostile in what it says."""
    match choices.below(8):
        case 0:
            named = choices.pick((*world.relying, _fit(choices)))
            what = choices.pick((*(what for what, _ in PUBLIC_PARTS.values()), "", _fit(choices)))
            return Public(number, what, named)
        case 1:
            return Status(number) if choices.rarely(2) else Tend(number, (_fit(choices),))
        case 2 | 3:
            asked = shaped(choices, Command, world.admin_hints)
            if isinstance(asked, dict) and asked.get("do") in STOPS:
                asked |= confined(asked)
            command = as_msgpack(asked)
            token = world.operator if not choices.rarely(8) else _fit(choices)
            return Admin(number, token, command if not choices.rarely(8) else choices.blob())
        case _:
            return _frame_use(choices, number, world)


def _frame_use(choices: Choices, number: int, world: World) -> Use:
    purpose, operation = pair = choices.pick(tuple(FACTS))
    facts = as_msgpack(shaped(choices, FACTS[pair], world.hints))
    proof: Proof | None = None
    if choices.rarely(4):
        certificate = mutate(choices, choices.pick(seeds.certificates()))
        proof = Proof(_now_ms(choices), choices.blob(), certificate if choices.rarely(2) else None)
    return Use(
        id=number,
        handle=choices.pick(world.handles[purpose]) if not choices.rarely(8) else _fit(choices),
        purpose=purpose if not choices.rarely(16) else _fit(choices),
        operation=operation if not choices.rarely(16) else _fit(choices),
        context=choices.pick(("web", "web/eu", _fit(choices))),
        facts=mutate(choices, facts) if choices.rarely(4) else facts,
        version=choices.pick((0, 1, 2, 2**63, -1, 2**64 - 1)) if choices.rarely(4) else 0,
        idempotency_key=choices.pick((None, None, "k1", _fit(choices))),
        reason=choices.pick((None, "why", _fit(choices))),
        proof=proof,
        unix_peer=choices.pick((None, None, b"front:0", choices.blob(8))),
    )


def _now_ms(choices: Choices) -> int:
    """The vault's time, so that a proof is looked at; sometimes another."""
    return time.time_ns() // 1_000_000 if not choices.rarely(4) else choices.pick((0, -1, 2**63))


def _fit(choices: Choices) -> str:
    """Text that a frame can hold."""
    return choices.text().encode(errors="replace").decode()


def rss_kib(pid: int) -> int:
    """Resident memory of a process, as the kernel counts it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no memory")


def told(findings: Sequence[Finding]) -> str:
    """Each kind of finding once, with what brings it back."""
    kinds = {(f.target, re.sub(r"\d+", "#", f.what)[:80]): f for f in findings}
    return "\n".join(f"{f.target}: {f.what}\n  data: {f.data[:4000]}" for f in kinds.values())
