"""Artefacts of a real node, and of whoever has stolen its keys, held to its log."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from integration.node import Node
from integration.thief import Thief
from keystead import limits
from keystead.client import Client, Used
from keystead.client.operations import UseOptions, sign_jwt
from keystead.keys.framing.base import Facts
from keystead.keys.framing.ca import CertificateRequest, CrlRequest, RevokedEntry, SignCa
from keystead.keys.framing.firmware import SignFirmware
from keystead.keys.framing.jwt import SignJwt
from keystead.keys.framing.ledger import AppendLedger
from keystead.keys.framing.ssh_ca import SignSshCa
from keystead.keys.model import CaPolicy, FirmwarePolicy, JwtPolicy, Policy, SshCaPolicy

Sign = Callable[[Facts], Any]

COMMAND = (sys.executable, "-W", "error", "-m", "keystead", "log", "reconcile", "--json")
WITHIN_S = 60
MANY_S_MAX = 20
"""Some 3 s on two cores that do nothing else."""
CONTEXT = "reconcile/test"


class Ran:
    """What came of the command: its status, its JSON, and what it said beside it."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.err = done.stderr
        self.report: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}

    def verdicts(self) -> list[str]:
        return [one["verdict"] for one in self.report["artefacts"]]


def reconcile(node: Node, *arguments: str | Path) -> Ran:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env={
            **os.environ,
            "KEYSTEAD_URL": node.url,
            "KEYSTEAD_TOKEN_FILE": str(node.token_file),
        },
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Ran(done)


class Shop:
    """A key of each kind on the node, and what is made with it: honestly, or stolen."""

    def __init__(self, client: Client, thief: Thief, tag: str) -> None:
        self.client = client
        self.thief = thief
        self.tag = tag
        self.handles: dict[str, Any] = {}
        self.images = 0
        for role, purpose, policy, algorithm in (
            ("jwt", "jwt", Policy(jwt=JwtPolicy(issuer="https://id.example")), "ecdsa-p256-sha256"),
            ("ca", "ca", Policy(ca=CaPolicy(common_name="x", dns_suffixes=("example",))), None),
            ("ssh", "ssh_ca", Policy(ssh_ca=SshCaPolicy(principals=("alice",))), None),
            (
                "firmware",
                "firmware",
                Policy(firmware=FirmwarePolicy(names=("app",))),
                "dual-ecdsa-p256-ml-dsa-65",
            ),
            ("ledger", "ledger", Policy(), None),
        ):
            name = self.name(role)
            client.create_key(name, purpose, policy=policy, algorithm=algorithm)
            self.handles[role] = client.issue_handle(name, "shop").handle

    def name(self, role: str) -> str:
        return f"{self.tag}-{role}"

    def request(self) -> CertificateRequest:
        key = ec.generate_private_key(ec.SECP256R1())
        built = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName("www.example")]), critical=False
            )
        )
        pem = built.sign(key, SHA256()).public_bytes(serialization.Encoding.PEM)
        return CertificateRequest(csr=pem.decode(), lifetime_s=3600)

    def subject(self) -> str:
        public = ed25519.Ed25519PrivateKey.generate().public_key()
        return public.public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        ).decode()

    def make(self, folder: Path, *, stolen: bool) -> None:
        """One artefact of each kind into a folder, each in the form in which people have it."""
        folder.mkdir()
        for role, write in (
            ("jwt", self._jwt),
            ("ca", self._ca),
            ("ssh", self._ssh),
            ("firmware", self._firmware),
            ("ledger", self._ledger),
        ):
            write(folder, partial(self.stolen if stolen else self.honest, role))

    def honest(self, role: str, facts: Facts) -> Any:  # noqa: ANN401  the operation's own result
        handle = self.handles[role]
        options: UseOptions = {"context": CONTEXT}
        match facts:
            case SignJwt(claims=claims):
                return self.client.sign_jwt(handle, claims, **options).result
            case SignCa():
                asked = facts.certificate or facts.crl
                assert asked is not None
                return self.client.sign_ca(handle, asked, **options).result
            case SignSshCa():
                return self.client.sign_ssh_ca(handle, facts, **options).result
            case SignFirmware(name=name, version=version, sha256=sha256, size=size):
                return self.client.sign_firmware(
                    handle, name, version, sha256=sha256, size=size, **options
                ).result
            case AppendLedger(entry=entry):
                return self.client.append_ledger(handle, entry, **options).result
        raise AssertionError(facts)

    def stolen(self, role: str, facts: Facts) -> Any:  # noqa: ANN401  as honest
        return self.thief.sign(self.name(role), facts)

    def _jwt(self, folder: Path, sign: Sign) -> None:
        token = sign(SignJwt(claims={"sub": "alice", "jti": os.urandom(8).hex()})).token
        (folder / "tokens.txt").write_text(f"# seen at the gate\n\n{token}\n")

    def _ca(self, folder: Path, sign: Sign) -> None:
        issued = sign(SignCa(certificate=self.request()))
        revoked = RevokedEntry(serial=os.urandom(8).hex(), revoked_at_s=1)
        crl = sign(SignCa(crl=CrlRequest(revoked=(revoked,))))
        (folder / "bundle.pem").write_text(issued.pem + crl.pem)
        (folder / "leaf.der").write_bytes(sign(SignCa(certificate=self.request())).certificate)

    def _ssh(self, folder: Path, sign: Sign) -> None:
        facts = SignSshCa(
            public_key=self.subject(), key_id="alice", principals=("alice",), lifetime_s=60
        )
        (folder / "id-cert.pub").write_text(sign(facts).certificate + "\n")

    def _firmware(self, folder: Path, sign: Sign) -> None:
        self.images += 1
        signed = sign(
            SignFirmware(name="app", version=self.images, sha256=os.urandom(32), size=5000)
        )
        (folder / "app.manifest.json").write_bytes(signed.manifest)
        for component, signature in signed.signatures.items():
            (folder / f"app.{component}.sig").write_bytes(signature)

    def _ledger(self, folder: Path, sign: Sign) -> None:
        lines = []
        for number in range(3):
            signed = sign(AppendLedger(entry=f"order {number} {os.urandom(4).hex()}".encode()))
            signatures = {
                name: base64.b64encode(raw).decode() for name, raw in signed.signatures.items()
            }
            line = {"document": signed.document.decode(), "signatures": signatures}
            lines.append(json.dumps({"sequence": signed.sequence, "entry": "o.json", **line}))
        (folder / "orders.ledger").write_text("\n".join(lines) + "\n")


def strangers_certificate() -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=7,
        not_valid_before=now,
        not_valid_after=now + timedelta(days=1),
    )
    return built.sign(key, None).public_bytes(serialization.Encoding.PEM).decode()


STRANGERS_TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
KINDS = ["firmware", "jwt", "ledger", "ledger", "ledger", "ssh", "x509", "x509", "x509"]


@pytest.fixture(scope="module")
def thief(node: Node) -> Iterator[Thief]:
    with Thief(node.data) as robber:
        yield robber


@pytest.fixture(scope="module")
def shop(node: Node, thief: Thief) -> Iterator[Shop]:
    with node.client() as client:
        yield Shop(client, thief, f"r{os.getpid()}")


def metric(node: Node, key: str) -> float:
    page = httpx.get(f"{node.url}/metrics").text
    found = re.search(rf'keystead_reconcile_unrecorded_total{{key="{key}"}} (\S+)', page)
    return float(found[1]) if found else 0.0


def test_what_the_node_signed_has_its_record(node: Node, shop: Shop, tmp_path: Path) -> None:
    shop.make(tmp_path / "honest", stolen=False)
    ran = reconcile(node, tmp_path / "honest")
    assert (ran.status, ran.err) == (0, "")
    assert ran.report["counts"] == {"recorded": len(KINDS)}
    found = ran.report["artefacts"]
    assert sorted(one["kind"] for one in found) == KINDS
    operations = {"jwt": "jwt.sign", "x509": "ca.sign", "ssh": "ssh_ca.sign"}
    for one in found:
        [record] = shop.client.log(after=one["seq"] - 1, before=one["seq"] + 1, limit=1)
        assert record.name == one["key"]
        assert record.operation == operations.get(one["kind"], record.operation)
    # The run is a record itself, of each key that something was met of.
    [told] = shop.client.log(key=shop.name("ledger"), operation="log.reconcile", limit=1)
    assert told.body["detail"] == (
        "of artefacts met that verify under it, 0 have no record, 3 have one, 0 may have had one"
    )
    assert metric(node, shop.name("ledger")) == 0


def test_what_was_signed_with_a_stolen_key_has_none(node: Node, shop: Shop, tmp_path: Path) -> None:
    shop.make(tmp_path / "stolen", stolen=True)
    before = metric(node, shop.name("ca"))
    ran = reconcile(node, tmp_path / "stolen")
    assert ran.status == 1
    assert ran.report["counts"] == {"unrecorded": len(KINDS)}
    assert {one["key"] for one in ran.report["artefacts"]} == {
        shop.name(role) for role in shop.handles
    }
    assert metric(node, shop.name("ca")) == before + 3
    [told] = shop.client.log(key=shop.name("ca"), operation="log.reconcile", limit=1)
    assert str(told.body["detail"]).startswith(
        "of artefacts met that verify under it, 3 have no record, 0 have one"
    )


def test_one_stolen_among_many_is_named(node: Node, shop: Shop, tmp_path: Path) -> None:
    """Also where a thief follows none of the vault's rules: other header, names and times."""
    handle = shop.handles["jwt"]
    honest = [
        shop.client.sign_jwt(handle, {"jti": str(number)}, context=CONTEXT).result.token
        for number in range(20)
    ]
    stolen = shop.thief.sign(shop.name("jwt"), SignJwt(claims={"sub": "root"})).token
    header, claims, signature = honest[0].split(".")
    tokens = tmp_path / "tokens.txt"
    for forged, verdict in (
        (stolen, "unrecorded"),
        (shop.thief.token(shop.name("jwt"), {"alg": "ES256"}, b"no JSON at all"), "unrecorded"),
        (
            shop.thief.token(shop.name("jwt"), {"alg": "ES256", "kid": "other"}, b'{"exp":1}'),
            "unrecorded",
        ),
        (f"{header}.{claims}A.{signature}", "does not verify"),
        (f"{header}.{claims}.", "malformed"),
        ("Zm9v.Zm9v.Zm9v", "malformed"),
        (STRANGERS_TOKEN, "not ours"),
    ):
        tokens.write_text("\n".join([*honest[:10], forged, *honest[10:]]))
        ran = reconcile(node, tokens, "--key", shop.name("jwt"))
        assert ran.verdicts()[10] == verdict, ran.report["artefacts"][10]
        assert ran.report["artefacts"][10]["where"] == f"{tokens}:11"
        assert ran.report["counts"] == {"recorded": 20, verdict: 1}
        assert ran.status == (verdict == "unrecorded")


def test_the_list_of_a_monitor(node: Node, shop: Shop, tmp_path: Path) -> None:
    """Objects that hold a certificate as PEM or as base64 DER; and one of another authority."""
    issued = [
        sign(SignCa(certificate=shop.request()))
        for sign in (partial(shop.honest, "ca"), partial(shop.stolen, "ca"))
        for _ in range(2)
    ]
    members = [
        {"id": 1, "pem": issued[0].pem},
        {"id": 2, "cert_der": base64.b64encode(issued[1].certificate).decode()},
        {
            "id": 3,
            "cert": {"type": "cert", "data": base64.b64encode(issued[2].certificate).decode()},
        },
        {"id": 4, "certificate": issued[3].pem},
        {"id": 5, "pem": shop.client.certificate(shop.name("ca"))},
        {"id": 6, "pem": strangers_certificate()},
        {"id": 7, "name": "no certificate"},
        {"id": 8, "pem": issued[0].pem[:400]},
    ]
    seen = tmp_path / "seen.json"
    seen.write_text(json.dumps(members))
    ran = reconcile(node, seen)
    assert ran.status == 1
    assert ran.verdicts() == [
        "recorded",
        "recorded",
        "unrecorded",
        "unrecorded",
        "own certificate",
        "not ours",
        "malformed",
        "malformed",
    ]


def test_half_a_dual_signature_is_a_signature(node: Node, shop: Shop, tmp_path: Path) -> None:
    """A verifier refuses it, and is right; whoever made it has a key all the same."""
    facts = SignFirmware(name="app", version=900, sha256=bytes(32), size=1)
    signed = shop.stolen("firmware", facts)
    (tmp_path / "app.manifest.json").write_bytes(signed.manifest)
    [*_, (component, signature)] = signed.signatures.items()
    (tmp_path / f"app.{component}.sig").write_bytes(signature)
    ran = reconcile(node, tmp_path / "app.manifest.json")
    assert (ran.status, ran.verdicts()) == (1, ["unrecorded"])
    (tmp_path / f"app.{component}.sig").unlink()
    ran = reconcile(node, tmp_path / "app.manifest.json")
    assert (ran.status, ran.verdicts()) == (0, ["does not verify"])


# --- where they are ------------------------------------------------------------------------------


class Site(BaseHTTPRequestHandler):
    """Serves tokens, and whatever a hostile site serves in their place."""

    tokens = b""

    def do_GET(self) -> None:
        match self.path:
            case "/tokens":
                self.answer(200, body=self.tokens)
            case "/moved":
                self.answer(302, location="/tokens")
            case "/elsewhere":
                self.answer(302, location="http://localhost:1/tokens")
            case "/round":
                self.answer(302, location="/round")
            case "/packed":
                self.answer(200, encoding="gzip")
            case "/endless":
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    while True:
                        self.wfile.write(bytes(1024 * 1024))
            case _:
                self.answer(404)

    def answer(
        self, status: int, body: bytes = b"", location: str = "", encoding: str = "identity"
    ) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-encoding", encoding)
        if location:
            self.send_header("location", location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        del args


@pytest.fixture
def site(shop: Shop) -> Iterator[str]:
    handle = shop.handles["jwt"]
    Site.tokens = shop.client.sign_jwt(handle, {}, context=CONTEXT).result.token.encode()
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/tokens", ""),
        ("/moved", ""),
        ("/elsewhere", "redirects to http://localhost"),
        ("/round", "more than 3 redirects"),
        ("/packed", "uncompressed"),
        ("/endless", f"at most {limits.ARTEFACT_SOURCE_BYTES_MAX} bytes"),
        ("/nothing", "met 404"),
    ],
)
def test_what_stands_at_an_address(node: Node, site: str, path: str, said: str) -> None:
    ran = reconcile(node, site + path)
    if not said:
        assert (ran.status, ran.verdicts()) == (0, ["recorded"])
        return
    assert ran.status == 2
    assert said in json.loads(ran.err)["error"]


# --- many ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_thousand_tokens_against_ten_thousand_records(
    node: Node, shop: Shop, tmp_path: Path
) -> None:
    handle = shop.handles["jwt"]
    tokens: list[str] = []
    for number in range(10):
        uses = [
            sign_jwt(handle, {"jti": f"{number}-{place}"}, context=CONTEXT) for place in range(1000)
        ]
        done = shop.client.batch(uses)
        tokens += [used.result.token for used in done[:200] if isinstance(used, Used)]
    tokens[1234] = shop.stolen("jwt", SignJwt(claims={"sub": "root"})).token
    (tmp_path / "tokens.txt").write_text("\n".join(tokens))
    began = time.monotonic()
    ran = reconcile(node, tmp_path / "tokens.txt")
    took_s = time.monotonic() - began
    assert ran.report["counts"] == {"recorded": 1999, "unrecorded": 1}
    assert ran.verdicts()[1234] == "unrecorded"
    assert took_s < MANY_S_MAX, f"{took_s:.1f} s"
