"""Secrets stay where they belong: canaries go through every door, and are looked for everywhere.

Outside of the claim is who is root, or this user with a debugger: memory of a running vault is not
looked through here. Tokens, claims and plaintext do pass through a front and may stay in its memory
until it is used again; key material never enters it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from integration.node import Node
from keystead.client import Client, Narrowing, attenuate
from keystead.custody.locked import LockedBuffer
from keystead.custody.root import RootKey, open_locked
from keystead.custody.seal_file import FileSeal
from keystead.encoding import length_prefixed
from keystead.keys.commands import IssuedHandle
from keystead.keys.framing.data import DeriveResult, Mac, UnwrapResult, Wrap
from keystead.keys.handles import parse
from keystead.keys.model import CaPolicy, FirmwarePolicy, JwtPolicy, Key, Policy, SshCaPolicy
from keystead.net.system import SystemRandom

CANARY = 'CANARY"é\n'
"""Begins every planted secret; JSON, latin-1 and UTF-8 write it differently."""
POLICIES = {
    "tls": Policy(),
    "data": Policy(),
    "ledger": Policy(),
    "jwt": Policy(jwt=JwtPolicy(issuer="https://id.example")),
    "firmware": Policy(firmware=FirmwarePolicy(names=("router",))),
    "ca": Policy(ca=CaPolicy(common_name="Shop CA", dns_suffixes=("shop.example",))),
    "ssh_ca": Policy(ssh_ca=SshCaPolicy(principals=("deploy",))),
}
WITHIN_S = 30.0


def spellings(secret: bytes) -> set[bytes]:
    """A secret as it may be written: raw, hex, JSON, and base64 at each offset in other text."""
    found = {
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        repr(secret)[2:-1].encode(),
    }
    with contextlib.suppress(UnicodeDecodeError):
        text = secret.decode()
        found |= {
            json.dumps(text)[1:-1].encode(),
            json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        }
        shown = repr(text)[1:-1]
        found |= {shown.encode(), json.dumps(shown)[1:-1].encode()}
        found.add(json.dumps(shown, ensure_ascii=False)[1:-1].encode())  # as a message has it
    for offset in range(3):
        groups = base64.b64encode(b"\0" * offset + secret)
        inner = groups[4 if offset else 0 : -4]  # those that are the secret's alone
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def found_in(haystack: bytes, secrets: dict[str, bytes]) -> list[str]:
    return [
        name for name, secret in secrets.items() if any(s in haystack for s in spellings(secret))
    ]


class Scene:
    """A node, all that went through it, and all that it said back in refusals, logs and metrics."""

    def __init__(self, node: Node, client: Client) -> None:
        self.node = node
        self.client = client
        self.handles: dict[str, str] = {}
        self.secrets: dict[str, bytes] = {"operator token": node.token.encode()}
        self.refusals: list[bytes] = []
        self.http = httpx.Client(base_url=node.url, timeout=WITHIN_S)

    def plant(self, name: str) -> str:
        """A new secret that nobody has seen."""
        text = f"{CANARY}{name}/{os.urandom(12).hex()}"
        self.secrets[name] = text.encode()
        return text

    def post(self, path: str, body: object, token: str = "", **headers: str) -> httpx.Response:
        """Send JSON, or bytes as they are; keep the answer if it is a refusal."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **headers}
        if token:
            sent["authorization"] = f"Bearer {token}"
        response = self.http.post(path, content=content, headers=sent)
        if response.status_code >= 400:
            self.refusals.append(response.content + repr(response.headers).encode())
        return response


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("leaks")
    with Node(folder / "data") as node, node.client() as client:
        driven = Scene(node, client)
        for purpose, policy in POLICIES.items():
            client.create_key(f"leak-{purpose}", purpose, policy=policy)
            issued = client.issue_handle(f"leak-{purpose}", "web")
            child = attenuate(issued.handle, Narrowing(context_prefix="web")).reveal()
            driven.secrets |= {
                f"{purpose} handle": issued.handle.reveal().encode(),
                f"{purpose} child": child.encode(),
                f"{purpose} tag": issued.handle.chain_tag,
            }
            driven.handles[purpose] = child
        drive_uses(driven)
        drive_refusals(driven)
        drive_admin(driven)
        drive_rollouts(driven)
        yield driven
        driven.http.close()


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def drive_uses(scene: Scene) -> None:
    """Every operation once, with secrets in what it is given; those of ``data`` as replays too."""
    claim, entry, plain = (scene.plant(name) for name in ("claim", "ledger entry", "plaintext"))
    message, info = scene.plant("mac message"), scene.plant("derive info")
    for path, facts in (
        ("tls/sign", {"role": "server", "transcript_hash": base64.b64encode(bytes(32)).decode()}),
        ("jwt/sign", {"claims": {"password": claim}}),
        ("ledger/append", {"entry": b64(entry)}),
        ("data/mac", {"message": b64(message)}),
    ):
        purpose = path.partition("/")[0]
        body = {"context": "web/eu", "facts": facts, "reason": "a drill"}
        once = {"idempotency-key": path}  # so that the result is stored for its replay
        response = scene.post(f"/v1/{path}", body, scene.handles[purpose], **once)
        assert response.status_code == 200, response.text
        if path == "jwt/sign":  # whoever has it is let in
            scene.secrets["issued token"] = response.json()["result"]["token"].encode()
    wrap = {"context": "web/eu", "facts": {"plaintext": b64(plain)}}
    token = scene.handles["data"]
    wrapped = scene.post("/v1/data/wrap", wrap, token, **{"idempotency-key": "w"}).json()
    unwrap = {"context": "web/eu", "facts": {"wrapped": wrapped["result"]["wrapped"]}}
    derive = {"context": "web/eu", "facts": {"length": 32, "info": b64(info)}}
    for key in ("u", "u"):
        opened = scene.post("/v1/data/unwrap", unwrap, token, **{"idempotency-key": key})
        assert base64.b64decode(opened.json()["result"]["plaintext"]).decode() == plain
        made = scene.post("/v1/data/derive", derive, token, **{"idempotency-key": f"d{key}"})
        scene.secrets["derived"] = base64.b64decode(made.json()["result"]["secret"])
    items = [{"purpose": "data", "operation": "wrap", **wrap}] * 3
    assert scene.post("/v1/batch", {"items": items}, token).status_code == 200


def drive_refusals(scene: Scene) -> None:
    """Every operation in every wrong way, with a secret where the fault is."""
    for path in ("tls/sign", "tls/sign_digest", "ca/sign", "jwt/sign", "firmware/sign",
                 "ledger/append", "ssh_ca/sign", "data/wrap", "data/unwrap", "data/derive",
                 "data/mac"):  # fmt: skip
        token = scene.handles[path.partition("/")[0]]
        canary = scene.plant(f"fault in {path}")
        for body in (
            {"context": canary, "facts": {}},
            {"context": "web/eu", "facts": {canary: 1}},
            {"context": "web/eu", "facts": {}, canary: canary},
            {"context": "web/eu", "facts": canary},
            {
                "context": "web/eu",
                "facts": {"plaintext": canary, "wrapped": canary, "role": canary},
            },
            {"context": "web/eu", "facts": {"wrapped": f"ksw1.{canary}"}},
            {"context": "web/eu", "facts": {"claims": {"exp": canary}}},
            {"context": "web/eu", "facts": {"claims": {"iss": canary}}},
            {"context": "web/eu", "facts": {"claims": {"aud": [canary, 1]}}},
            {"context": "db", "facts": {"claims": {"sub": canary}}, "reason": f"{canary}\0"},
            json.dumps({"context": "web/eu", "facts": {"a": canary}}).encode()[:-1],
            b"\xff" + canary.encode(),
        ):
            assert scene.post(f"/v1/{path}", body, token).status_code >= 400
        for header in ("authorization", "keystead-proof", "idempotency-key", "content-type"):
            value = re.sub(r"[^ -~]", "", canary)
            scene.secrets[f"{header} of {path}"] = value.encode()
            scene.post(f"/v1/{path}", {"context": "web/eu"}, token, **{header: value * 3})
        scene.post(f"/v1/{path}", {"context": "web/eu", "facts": {}}, token + "A")
        scene.post(f"/v1/{path}", {"context": "web/eu", "facts": {}}, scene.node.token)
        scene.post("/v1/batch", {"items": [{"purpose": canary, "operation": canary}]}, token)


def drive_admin(scene: Scene) -> None:
    """Every admin route in wrong ways, also with handles for the operator's token."""
    handle = scene.handles["data"]
    canary = scene.plant("fault in a command")
    paths = ("/v1/keys", "/v1/handles", "/v1/handles/revoke", "/v1/keys/leak-tls/moves",
             "/v1/keys/leak-tls/handles/revoke")  # fmt: skip
    for path in paths:
        for token in (scene.node.token, handle, f"kso1.{handle}"):
            for body in (
                {canary: canary},
                {"name": 1, "purpose": canary, "reason": [canary]},
                {"name": "x", "purpose": "jwt", "policy": {"jwt": {canary: canary}}},
                {
                    "key": "leak-tls",
                    "principal": "web",
                    "narrowing": {"bound_to": {"kind": canary}},
                },
                {"link": handle, "reason": canary},
                {"move": canary, "reason": canary},
                b"{" + canary.encode(),
            ):
                assert scene.post(path, body, token).status_code >= 400
    for path in ("/v1/log", "/v1/keys"):
        for query in ({"limit": canary}, {"before": canary}, {"purpose": canary}, {canary: canary}):
            headers = {"authorization": f"Bearer {scene.node.token}"}
            response = scene.http.get(path, params=query, headers=headers)
            scene.refusals.append(response.content if response.status_code >= 400 else b"")
    for path in ("/v1/keys", "/v1/handles"):  # a token in place of a name
        for token in (scene.node.token, handle):
            headers = {"authorization": f"Bearer {scene.node.token}"}
            response = scene.http.get(f"{path}/{token}", headers=headers)
            assert response.status_code >= 400
            scene.refusals.append(response.content)
    for path in ("/health", "/ready", "/metrics", "/openapi.json", "/v1/keys/leak-ca/certificate"):
        assert scene.http.get(path, params={"x": canary}).status_code == 200


def drive_rollouts(scene: Scene) -> None:
    """A rotation and all that is told and changed beside it, right, and with secrets inside."""
    client, name = scene.client, "leak-jwt"
    issued = client.issue_handle(name, "gateway", operations=("report", "acknowledge"))
    relying = issued.handle.reveal()
    scene.secrets |= {"relying handle": relying.encode(), "relying tag": issued.handle.chain_tag}
    key = client.rotate_key(name, reason="due")
    client.acknowledge_key(name, issued.handle, key.versions[1].kid)
    signed = client.log(key=name, operation="jwt.sign", outcome="ok")[0]
    client.report_failure(name, issued.handle, signed.seq, "signature")
    client.steer_rollout(name, "pause", reason="a drill")
    drive_signals(scene, relying)
    canary = scene.plant("fault in a rollout")
    for part, bodies in (
        ("rotate", [{"reason": canary * 9}, {"reason": "x", "incident": canary}]),
        ("rollout", [{"move": canary, "reason": "x"}, {"move": "pause", "reason": f"{canary}\0"}]),
        ("plan", [{"plan": {canary: canary}, "reason": "x"}, {"plan": canary, "reason": "x"}]),
        ("policy", [{"policy": {"jwt": {"issuer": canary}}, "reason": canary, canary: 1}]),
    ):
        for token in (scene.node.token, relying, f"kso1.{relying}"):
            for body in [*bodies, {canary: canary}, b"{" + canary.encode()]:
                assert scene.post(f"/v1/keys/{name}/{part}", body, token).status_code >= 400
    for path in ("/v1/history", f"/v1/keys/{name}/evidence", f"/v1/keys/{relying}/rollout"):
        asked = ({"kind": canary}, {"at_seq": canary}, {"number": canary}, {"limit": canary})
        for query in asked:
            headers = {"authorization": f"Bearer {scene.node.token}"}
            answer = scene.http.get(path, params=query, headers=headers)
            scene.refusals.append(answer.content if answer.status_code >= 400 else b"")


def drive_signals(scene: Scene, relying: str) -> None:
    """What a relying party tells, with a secret in each part of it."""
    canary = scene.plant("fault in a signal")
    for part, facts in (
        ("reports", {"seq": 1, "problem": canary}),
        ("reports", {"seq": canary, "problem": "other"}),
        ("reports", {"seq": 1, "problem": "other", "key": canary}),
        ("reports", {"seq": 1, "problem": "other", canary: canary}),
        ("acknowledgements", {"kid": canary}),
        ("acknowledgements", {"kid": relying[:64]}),
        ("acknowledgements", {"kid": "x", "key": canary}),
    ):
        for told in ("leak-jwt", "leak-tls", relying):
            body = {"context": "web/eu", "facts": facts}
            assert scene.post(f"/v1/keys/{told}/{part}", body, relying).status_code >= 400


# --- what the test knows of the keys -------------------------------------------------------------


def key_material(node: Node) -> dict[str, bytes]:
    """Every secret of custody, opened from the seal file and a copy of the registry's rows."""
    seal = FileSeal(node.data / "seal.key")
    rows = sqlite3.connect(f"file:{node.data / 'registry.db'}?mode=ro", uri=True)
    try:
        meta = dict(rows.execute("SELECT name, value FROM meta"))
        tenants = dict(rows.execute("SELECT tenant, sealed FROM tenant_keys"))
        materials = list(rows.execute("SELECT key_id, version, sealed FROM materials"))
        docs = list(rows.execute("SELECT doc FROM objects WHERE kind = 'key'"))
    finally:
        rows.close()
    root = RootKey.unseal(seal, meta["sealed_root"], meta["deployment"].decode(), SystemRandom())
    sealing = seal.open()
    found = {"seal": bytes(sealing), "root": bytes(root._key.data)}  # noqa: SLF001  the test's own copy
    for label in (b"handles", b"registry", b"fingerprints"):
        found[f"root of {label.decode()}"] = root.derive(label)
    keys = {key.id: key for key in (msgspec.msgpack.decode(doc, type=Key) for (doc,) in docs)}
    for key_id, number, sealed in materials:
        key = keys[key_id]
        tenant = (b"keystead/tenant-key/v1", key.tenant.encode())
        with root.unwrap(tenants[key.tenant], length_prefixed(tenant)) as kek:
            found[f"tenant key of {key.tenant}"] = bytes(kek.data)
            parts = (b"keystead/material/v1", key_id.encode(), str(number).encode(),
                     key.purpose.encode(), key.version(number).algorithm.encode())  # fmt: skip
            with open_locked(kek.data, sealed, length_prefixed(parts)) as opened:
                found[f"private key of {key.name}"] = secret_part(bytes(opened.data))
    return found


def secret_part(material: bytes) -> bytes:
    """32 bytes of the first part that are secret: all of a symmetric key, or a scalar or seed."""
    size = int.from_bytes(material[:4], "big")
    part = material[4 : 4 + size]
    if size == 32:
        return part
    at = part.index(b"\x04\x20") + 2  # the OCTET STRING of 32 bytes within PKCS#8 (RFC 5958)
    return part[at : at + 32]


def folder_of(node: Node) -> dict[str, bytes]:
    """All files of the data folder, the write-ahead log and the processes' logs among them."""
    return {
        str(path.relative_to(node.data)): path.read_bytes()
        for path in node.data.rglob("*")
        if path.is_file()
    }


# --- where they must not be ----------------------------------------------------------------------


def test_canaries_are_found_where_they_are(scene: Scene) -> None:
    """The search itself: it finds each secret in each spelling, inside other text."""
    for secret in scene.secrets.values():
        for text in (
            secret,
            b"ab" + base64.urlsafe_b64encode(b"xy" + secret + b"z"),
            secret.hex().encode(),
        ):
            assert found_in(b"before " + text + b" after", {"it": secret}) == ["it"]


def test_files_hold_no_secret(scene: Scene) -> None:
    """Registry, write-ahead log and logs; the seal file holds the sealing key, and nothing else."""
    secrets = scene.secrets | key_material(scene.node)
    files = folder_of(scene.node)
    assert {"registry.db", "seal.key", "logs/vault.log", "logs/front.log"} <= set(files)
    leaks = {name: found_in(data, secrets) for name, data in files.items()}
    assert leaks.pop("seal.key") == ["seal"]
    assert {name: found for name, found in leaks.items() if found} == {}


def test_refusals_hold_no_secret(scene: Scene) -> None:
    assert len(scene.refusals) > 300
    secrets = scene.secrets | key_material(scene.node)
    assert [found for text in scene.refusals if (found := found_in(text, secrets))] == []


def test_answers_for_everybody_hold_no_secret(scene: Scene) -> None:
    secrets = scene.secrets | key_material(scene.node)
    for path in ("/metrics", "/ready", "/openapi.json", "/v1/keys/leak-jwt/jwks.json",
                 "/v1/keys/leak-ca/public", "/v1/keys/leak-data/public"):  # fmt: skip
        assert found_in(scene.http.get(path).content, secrets) == [], path


def test_what_operators_read_of_rollouts_holds_no_secret(scene: Scene) -> None:
    """History and evidence show whole documents: of keys, and of whoever may look at them."""
    client, name = scene.client, "leak-jwt"
    page = client.history(limit=1_000)
    assert {"key", "rotation", "credential"} <= {entry.kind for entry in page.entries}
    secrets = scene.secrets | key_material(scene.node)
    for document in (page, client.rollout_evidence(name), client.rollout_status(name)):
        assert found_in(msgspec.json.encode(document), secrets) == []


def test_records_hold_no_secret(scene: Scene) -> None:
    records = scene.client.log(limit=1_000)
    text = msgspec.json.encode(records)
    assert {"data.wrap", "jwt.sign", "ledger.append"} <= {record.body["op"] for record in records}
    assert found_in(text, scene.secrets | key_material(scene.node)) == []


def test_command_lines_and_environments_hold_no_secret(scene: Scene) -> None:
    secrets = scene.secrets | key_material(scene.node)
    processes = scene.node.children()
    assert set(processes) == {"front", "steward", "vault"}
    for role, pid in processes.items():
        for name in ("cmdline", "environ"):
            try:
                data = Path(f"/proc/{pid}/{name}").read_bytes()
            except PermissionError:
                continue  # it is kept from this user: so much the better
            assert found_in(data, secrets) == [], (role, name)


@pytest.mark.parametrize("role", ["front", "steward"])
def test_no_key_material_in_processes_without_keys(scene: Scene, role: str) -> None:
    secrets = key_material(scene.node)
    try:
        memory = memory_of(scene.node.children()[role])
    except PermissionError:
        pytest.skip("needs root: the kernel keeps the memory of other processes from this user")
    # The search works: what a front is sure to hold is found, and so would a key be.
    assert "it" in found_in(memory, {"it": b"keystead.app\0" + role.encode()})
    assert found_in(memory, secrets) == []


def memory_of(pid: int) -> bytes:
    """All memory of a process that it can write, as it is now."""
    found = bytearray()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            if "w" not in rights or "[vv" in line:
                continue
            start, end = (int(at, 16) for at in span.split("-"))
            with contextlib.suppress(OSError, ValueError):
                memory.seek(start)
                while start < end and (piece := memory.read(min(end - start, 1 << 24))):
                    found += piece
                    start += len(piece)
    return bytes(found)


def test_what_is_printed_holds_no_secret(scene: Scene) -> None:
    """``repr`` of what carries secrets, and a traceback that shows its arguments."""
    token = scene.handles["data"]
    secret = scene.plant("printed").encode()
    issued = IssuedHandle(
        token=token, handle_id="h", link="l", key="k", purpose="data", operations=(), principal="p"
    )
    carriers: list[Any] = [
        parse(token),
        issued,
        Wrap(plaintext=secret),
        Mac(message=secret),
        UnwrapResult(plaintext=secret),
        DeriveResult(secret=secret),
        LockedBuffer.take(bytearray(secret)),
    ]
    for carrier in carriers:
        shown = f"{carrier!r} {carrier!s}".encode()
        assert found_in(shown, scene.secrets) == [], type(carrier).__name__


# --- crash dumps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["vault", "front"])
def test_an_abort_leaves_no_core(tmp_path: Path, role: str) -> None:
    """SIGABRT asks for a core. A vault holds keys, and a front holds tokens: neither gives one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        if not dumps_core(tmp_path):
            pytest.skip("this machine writes no cores into the folder of a process")
        with Node(tmp_path / "data") as node:
            pid = node.children()[role]
            os.kill(pid, signal.SIGABRT)
            until = time.monotonic() + WITHIN_S
            while node.children().get(role) in {None, pid}:
                assert time.monotonic() < until, "it was not started again"
                time.sleep(0.05)
            assert [path.name for path in node.data.rglob("core*")] == []
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def dumps_core(folder: Path) -> bool:
    """Whether a process that aborts leaves a core where it runs: else the test could not fail."""
    place = folder / "control"
    place.mkdir()
    subprocess.run([sys.executable, "-c", "import os; os.abort()"], cwd=place, check=False)
    return any(place.glob("core*"))
