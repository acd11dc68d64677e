"""Uses of keys: real files in, artefacts out; and what was signed is verified again."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from keystead.crypto.public import ed25519_spki, pem
from keystead.encoding import b64u_decode, b64u_encode, canonical_json
from keystead.keys.caveats import BoundTo
from keystead.keys.framing.ledger import GENESIS, entry_hash
from keystead.keys.framing.tls import certificate_verify_content
from keystead.keys.purposes import Purpose
from unit.cli.conftest import Ran, Run
from unit.cli.node import RECEIPT, VERSION, FakeNode, answered, problem, token_of

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
RAW = KEY.public_key().public_bytes_raw()
IN = ["--context", "web/eu"]
HASH = "ab" * 32

Use = Callable[..., Ran]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def public(purpose: str, **version: object) -> dict[str, Any]:
    own = VERSION | {"public_pem": [pem(ed25519_spki(RAW))]} | version
    return {"name": "shop", "purpose": purpose, "primary": 1, "versions": [own]}


def key_file(purpose: str, **version: object) -> list[str]:
    Path("key.json").write_text(json.dumps(public(purpose, **version)))
    return ["--key-file", "key.json"]


@pytest.fixture
def use(run: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Use:
    def use(purpose: Purpose, *words: str, stdin: bytes = b"") -> Ran:
        node.seen.clear()
        monkeypatch.setenv("KEYSTEAD_HANDLE", token_of(purpose))
        return run(*words, *IN, stdin=stdin)

    return use


# --- signing -------------------------------------------------------------------------------------


def test_sign_jwt(use: Use, node: FakeNode) -> None:
    node.on("POST /v1/jwt/sign", answered({"token": "a.b.c"}))
    said = ["--reason", "why", "--idempotency-key", "i-1", "--key-version", "2"]
    claims = b'{"sub": "u1"}'
    ran = use(Purpose.JWT, "sign", "jwt", "--claims", "-", *said, stdin=claims)
    assert (ran.status, ran.out) == (0, "a.b.c\n")
    assert "record 7" in ran.err
    [seen] = node.seen
    assert seen.headers["idempotency-key"] == "i-1"
    assert seen.headers["authorization"] == f"Bearer {token_of(Purpose.JWT)}"
    assert seen.body == {
        "context": "web/eu",
        "facts": {"claims": {"sub": "u1"}, "typ": "JWT"},
        "reason": "why",
        "version": 2,
    }
    words = ["sign", "jwt", "--claims", "-", "--json"]
    told = use(Purpose.JWT, *words, stdin=claims).json
    assert told["result"] == {"token": "a.b.c"}
    assert told["receipt"]["request_id"] == "r-1"
    told = use(Purpose.JWT, *words, "--out", "t.jwt", stdin=claims).json
    assert told == {"receipt": told["receipt"], "out": "t.jwt"}
    assert Path("t.jwt").read_text() == "a.b.c\n"


@pytest.mark.parametrize("claims", [b"{", b"[]", b'{"a": 1, "a": 2}'])
def test_sign_jwt_takes_one_object(claims: bytes, use: Use, node: FakeNode) -> None:
    assert use(Purpose.JWT, "sign", "jwt", "--claims", "-", stdin=claims).status == 1
    assert node.seen == []


def manifest(image: bytes, version: int = 7) -> bytes:
    return canonical_json(
        {
            "algorithms": ["ed25519"],
            "key": "kid-1",
            "name": "app",
            "sha256": hashlib.sha256(image).hexdigest(),
            "size": len(image),
            "type": "keystead-firmware-v1",
            "version": version,
        }
    )


def test_firmware_is_signed_and_verified(use: Use, node: FakeNode) -> None:
    image = b"\x00" * 3_000_000
    Path("app.img").write_bytes(image)
    document = manifest(image)
    result = {"manifest": b64(document), "signatures": {"ed25519": b64(KEY.sign(document))}}
    node.on("POST /v1/firmware/sign", answered(result))
    node.on("GET /v1/keys/shop/public", public("firmware"))
    words = ["sign", "firmware", "app.img", "--name", "app", "--image-version", "7"]
    ran = use(Purpose.FIRMWARE, *words)
    assert ran.status == 0
    assert ran.out.split() == ["app.img.manifest.json", "app.img.ed25519.sig"]
    assert "openssl pkeyutl -verify -pubin" in ran.err
    assert Path("app.img.manifest.json").read_bytes() == document
    facts = node.seen[0].body["facts"]
    assert base64.b64decode(facts["sha256"]) == hashlib.sha256(image).digest()
    assert (facts["name"], facts["version"], facts["size"]) == ("app", 7, len(image))
    told = use(Purpose.FIRMWARE, *words, "--out", "o", "--json").json
    assert told["files"] == ["o.manifest.json", "o.ed25519.sig"]


def test_verify_firmware(run: Run, node: FakeNode) -> None:
    document = manifest(b"image")
    Path("app.img").write_bytes(b"image")
    Path("app.img.manifest.json").write_bytes(document)
    Path("app.img.ed25519.sig").write_bytes(KEY.sign(document))
    node.on("GET /v1/keys/shop/public", public("firmware"))
    words = ["verify", "firmware", "app.img"]
    told = run(*words, "--key", "shop", "--json").json
    assert (told["verified"], told["name"], told["version"]) == ("firmware", "app", 7)
    assert told["sha256"] == hashlib.sha256(b"image").hexdigest()
    assert "shop version 1" in run(*words, *key_file("firmware")).out
    assert run(*words, "--key", "shop", "--version-min", "8").status == 1
    assert run(*words, "--key", "shop", "--name", "other").status == 1
    assert run(*words, *key_file("firmware", state="compromised")).status == 1
    assert run(*words, *key_file("jwt")).status == 1
    assert run(*words).status == 2
    assert run(*words, "--key", "shop", *key_file("firmware")).status == 2
    Path("app.img").write_bytes(b"imagf")
    ran = run(*words, "--key", "shop", "--json")
    assert (ran.status, ran.out) == (1, "")
    assert json.loads(ran.err)["code"] == "signature_invalid"


def test_a_node_names_no_file(use: Use, node: FakeNode) -> None:
    Path("app.img").write_bytes(b"image")
    result = {"manifest": "", "signatures": {"/../../x": ""}}
    node.on("POST /v1/firmware/sign", answered(result))
    words = ["sign", "firmware", "app.img", "--name", "app", "--image-version", "7"]
    assert use(Purpose.FIRMWARE, *words).status == 3
    assert [path.name for path in Path().iterdir()] == ["app.img"]


def test_verify_jwt(run: Run) -> None:
    header = {"alg": "EdDSA", "kid": "kid-1", "typ": "JWT"}
    claims = {"iss": "i", "aud": "shop", "exp": 2**40, "sub": "u1"}
    head = ".".join(b64u_encode(canonical_json(part)) for part in (header, claims))
    token = f"{head}.{b64u_encode(KEY.sign(head.encode()))}\n".encode()
    words = ["verify", "jwt", "-", *key_file("jwt")]
    told = run(*words, "--audience", "shop", "--json", stdin=token).json
    assert (told["claims"]["sub"], told["signer"]["version"]) == ("u1", 1)
    assert "u1" in run(*words, "--audience", "shop", "--issuer", "i", stdin=token).out
    assert run(*words, stdin=token).status == 1
    assert run(*words, "--audience", "shop", "--issuer", "j", stdin=token).status == 1
    assert run(*words, "--audience", "shop", stdin=token[:-5]).status == 1


def test_tls_is_signed_and_verified(use: Use, node: FakeNode, run: Run) -> None:
    signature = KEY.sign(certificate_verify_content("server", bytes.fromhex(HASH)))
    node.on("POST /v1/tls/sign", answered({"scheme": 0x0807, "signature": b64(signature)}))
    words = ["sign", "tls", "--transcript-hash", HASH]
    ran = use(Purpose.TLS, *words)
    assert ran.out.strip() == signature.hex()
    assert "scheme 0x0807" in ran.err
    assert use(Purpose.TLS, *words, "--out", "hs.sig").status == 0
    assert Path("hs.sig").read_bytes() == signature
    check = ["verify", "tls", *key_file("tls"), "--scheme", "0x0807", "--signature", "hs.sig"]
    told = run(*check, "--transcript-hash", HASH, "--json").json
    assert (told["role"], told["scheme"]) == ("server", "0x0807")
    assert run(*check, "--transcript-hash", HASH, "--role", "client").status == 1
    assert run(*check, "--transcript-hash", HASH, "--scheme", "first").status == 2


def test_sign_ca_and_crl(use: Use, node: FakeNode) -> None:
    node.on("POST /v1/ca/sign", answered({"pem": "PEM\n", "serial": "0a", "certificate": "AA=="}))
    Path("web.csr").write_text("CSR")
    words = ["sign", "ca", "--csr", "web.csr", "--lifetime", "30d", "--dns", "www.shop.example"]
    ran = use(Purpose.CA, *words, "--out", "web.pem")
    assert Path("web.pem").read_text() == "PEM\n"
    assert "serial 0a" in ran.err
    asked = node.seen[0].body["facts"]["certificate"]
    assert (asked["csr"], asked["lifetime_s"]) == ("CSR", 30 * 24 * 3600)
    assert asked["dns"] == ["www.shop.example"]
    entries = [{"serial": "5f3a", "revoked_at_s": 1, "reason": "superseded"}]
    Path("revoked.json").write_text(json.dumps(entries))
    node.on("POST /v1/ca/sign", answered({"pem": "CRL\n", "number": 1}))
    ran = use(Purpose.CA, "sign", "crl", "--revoked", "revoked.json", "--serial", "77c1")
    assert ran.out == "CRL\n"
    asked = node.seen[0].body["facts"]["crl"]
    assert asked["revoked"][0] == entries[0]
    assert asked["revoked"][1]["serial"] == "77c1"
    Path("revoked.json").write_text('[{"serial": "5f3a"}]')
    assert use(Purpose.CA, "sign", "crl", "--revoked", "revoked.json").status == 1


def test_sign_ssh_ca(use: Use, node: FakeNode) -> None:
    line = "ssh-ed25519-cert-v01@openssh.com AAAA"
    result = {"certificate": line, "serial": "9", "valid_before_ms": 1}
    node.on("POST /v1/ssh_ca/sign", answered(result))
    Path("id.pub").write_text("ssh-ed25519 AAAA alice\n")
    words = ["sign", "ssh-ca", "--public-key", "id.pub", "--principal", "alice"]
    ran = use(Purpose.SSH_CA, *words, "--lifetime", "1h", "--extension", "none")
    assert ran.out == f"{line}\n"
    asked = node.seen[0].body["facts"]
    assert (asked["key_id"], asked["lifetime_s"]) == ("alice", 3600)
    assert asked["extensions"] == []
    assert use(Purpose.SSH_CA, *words, "--extension", "permit-everything").status == 2


# --- ledgers -------------------------------------------------------------------------------------


class Ledger:
    """Answers appends as a node does."""

    def __init__(self) -> None:
        self.head, self.sequence = GENESIS, 0

    def append(self, entry: bytes) -> dict[str, object]:
        self.sequence += 1
        document = canonical_json(
            {
                "algorithms": ["ed25519"],
                "entry_sha256": hashlib.sha256(entry).hexdigest(),
                "key": "kid-1",
                "ledger": "k-1",
                "previous": self.head.hex(),
                "sequence": self.sequence,
                "type": "keystead-ledger-v1",
            }
        )
        self.head = entry_hash(document)
        return {
            "sequence": self.sequence,
            "document": b64(document),
            "head": b64(self.head),
            "signatures": {"ed25519": b64(KEY.sign(document))},
        }


def test_a_ledger_is_kept_and_verified(use: Use, node: FakeNode, run: Run) -> None:
    book = Ledger()
    for name in ("a", "b"):
        Path(name).write_text(name)
        node.on("POST /v1/ledger/append", answered(book.append(name.encode())))
        ran = use(Purpose.LEDGER, "ledger", "append", name, "--out", "book.ledger")
        assert (ran.status, ran.out) == (0, "")
    words = ["verify", "ledger", "book.ledger", *key_file("ledger")]
    told = run(*words, "--entries", ".", "--json").json
    assert (told["entries"], told["sequence"], told["head"]) == (2, 2, book.head.hex())
    assert "shop version 1" in run(*words).out
    lines = Path("book.ledger").read_text().splitlines(keepends=True)
    Path("book.ledger").write_text(lines[1])
    assert run(*words).status == 1
    first = entry_hash(json.loads(lines[0])["document"].encode()).hex()
    assert run(*words, "--previous", first, "--sequence", "1").status == 0
    Path("b").write_text("c")
    assert run(*words, "--previous", first, "--sequence", "1", "--entries", ".").status == 1
    Path("book.ledger").write_text(lines[1].replace('"entry":"b"', '"entry":"../b"'))
    assert run(*words, "--previous", first, "--sequence", "1", "--entries", ".").status == 1
    for empty in ("", "{}\n"):
        Path("book.ledger").write_text(empty)
        assert run(*words).status == 1


def test_what_was_appended_before_a_refusal_is_told(
    use: Use, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a").write_text("a")
    good = (200, json.dumps(answered(Ledger().append(b"a"))).encode())
    bad = (409, json.dumps(problem("key_state")).encode())
    answers = iter([good, bad])
    monkeypatch.setattr(node, "answer", lambda _: next(answers))
    ran = use(Purpose.LEDGER, "ledger", "append", "a", "a", "--json")
    assert ran.status == 1
    assert [done["entry"] for done in ran.json["appended"]] == ["a"]
    assert json.loads(ran.err)["code"] == "key_state"


def test_one_idempotency_key_is_one_append(use: Use, node: FakeNode) -> None:
    Path("a").write_text("a")
    words = ["ledger", "append", "a", "a", "--idempotency-key", "i"]
    assert use(Purpose.LEDGER, *words).status == 2
    assert node.seen == []


# --- data ----------------------------------------------------------------------------------------


def test_wrap_and_unwrap(use: Use, node: FakeNode) -> None:
    node.on("POST /v1/data/wrap", answered({"wrapped": "ksw1.x"}))
    assert use(Purpose.DATA, "data", "wrap", stdin=b"secret").out == "ksw1.x\n"
    assert node.seen[0].body["facts"] == {"plaintext": b64(b"secret")}
    node.on("POST /v1/data/unwrap", answered({"plaintext": b64(b"secret")}))
    assert use(Purpose.DATA, "data", "unwrap", stdin=b"ksw1.x\n").out == "secret"
    assert node.seen[0].body["facts"] == {"wrapped": "ksw1.x"}
    told = use(Purpose.DATA, "data", "unwrap", "--json", stdin=b"ksw1.x").json
    assert told["result"] == {"plaintext": b64(b"secret")}
    ran = use(Purpose.DATA, "data", "unwrap", "--json", "--out", "s", stdin=b"ksw1.x")
    assert "result" not in ran.json
    assert Path("s").read_bytes() == b"secret"
    assert Path("s").stat().st_mode & 0o777 == 0o600


def test_derive_and_mac(use: Use, node: FakeNode) -> None:
    node.on("POST /v1/data/derive", answered({"secret": b64(b"\x0a" * 4)}))
    assert use(Purpose.DATA, "data", "derive", "--length", "4").out == "0a0a0a0a\n"
    assert use(Purpose.DATA, "data", "derive", "--length", "4", "--out", "k").status == 0
    assert Path("k").read_bytes() == b"\x0a" * 4
    tag = b"\x0b" * 32
    node.on("POST /v1/data/mac", answered({"tag": b64(tag)}))
    assert use(Purpose.DATA, "data", "mac", stdin=b"m").out == f"{tag.hex()}\n"
    assert use(Purpose.DATA, "data", "mac", "--json", stdin=b"m").json["checked"] is False
    for content in (tag, f"{tag.hex()}\n".encode()):
        Path("tag").write_bytes(content)
        ran = use(Purpose.DATA, "data", "mac", "--check", "tag", stdin=b"m")
        assert "The tag is right" in ran.err
        assert node.seen[0].body["facts"]["tag"] == b64(tag)


# --- proofs of possession ------------------------------------------------------------------------


def test_a_bound_handle_is_proved(
    run: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    Path("proof.pem").write_bytes(private)
    monkeypatch.setenv("KEYSTEAD_HANDLE", token_of(Purpose.DATA, BoundTo("ed25519", RAW)))
    node.on("GET /ready", {"deployment": "d-1"})
    node.on("POST /v1/data/wrap", answered({"wrapped": "ksw1.x"}))
    words = ["data", "wrap", *IN, "--proof-key", "proof.pem"]
    assert run(*words, stdin=b"m").status == 0
    proof = json.loads(b64u_decode(node.seen[-1].headers["keystead-proof"]))
    assert len(base64.b64decode(proof["signature"])) == 64
    Path("proof.pem").write_bytes(b"no key")
    assert run(*words, stdin=b"m").status == 1
    assert run("data", "wrap", *IN, "--proof-certificate", "c.pem", stdin=b"m").status == 2


def test_the_receipt_says_what_was_repeated(use: Use, node: FakeNode) -> None:
    receipt = RECEIPT | {"replayed": True, "seq": None}
    node.on("POST /v1/data/wrap", {"result": {"wrapped": "w"}, "receipt": receipt})
    ran = use(Purpose.DATA, "data", "wrap", stdin=b"m")
    assert "had been done before" in ran.err
    assert "follows in the log" in ran.err
