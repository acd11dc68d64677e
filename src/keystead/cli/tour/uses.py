"""Uses of every purpose on real inputs, and what other people's tools say to what came of them."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from keystead.cli.tour.foreign import PYJWT, VERIFIES, Tools, check_token
from keystead.cli.tour.inputs import AUDIENCE, HOST, ISSUER, LOGIN, image_name
from keystead.cli.tour.report import Finding, Row, check, checked
from keystead.cli.tour.stage import Stage
from keystead.client import Used, operations
from keystead.crypto.public import spki_from_pem
from keystead.crypto.signatures import verify
from keystead.keys.framing.ca import CertificateRequest
from keystead.keys.framing.firmware import FirmwareResult
from keystead.keys.framing.ledger import LedgerResult
from keystead.keys.framing.ssh_ca import SignSshCa
from keystead.keys.framing.tls import TlsResult

__all__ = [
    "FIRMWARE_VERSION",
    "append_entries",
    "issue_leaf",
    "issue_login",
    "sign_handshakes",
    "sign_image",
    "sign_tokens",
    "use_data_key",
    "verify_content",
]

FIRMWARE_VERSION = 2
_CERTIFICATE_LIFE_S = 3600
_ED25519_BYTES = 32
_P256_SCHEME, _PSS_SCHEME = 0x0403, 0x0804  # RFC 8446 section 4.2.3


# --- tokens --------------------------------------------------------------------------------------


def sign_tokens(stage: Stage) -> Iterator[Finding]:
    """A token of each key, under the narrowed handle where there is one."""
    for role, algorithm in (("jwt", "ES256"), ("jwt-ed", "EdDSA")):
        claims = {"sub": "customer-4711", "aud": AUDIENCE, "jti": f"{stage.run}-{role}"}
        used = stage.use(operations.sign_jwt(stage.handle(role), claims, context="shop/eu/orders"))
        yield checked(
            f"JWT, {algorithm}",
            PYJWT,
            partial(_token, stage, role, algorithm, used.result.token),
            used.receipt,
        )


def _token(stage: Stage, role: str, algorithm: str, token: str) -> str:
    claims = check_token(
        token,
        stage.client.jwks(stage.name(role)),
        algorithm=algorithm,
        audience=AUDIENCE,
        issuer=ISSUER,
    )
    check(claims["jti"] == f"{stage.run}-{role}", "expected the claims that were asked for")
    left_s = claims["exp"] - int(time.time())
    return f"{VERIFIES} (served JWK Set, {left_s} s left)"


# --- firmware ------------------------------------------------------------------------------------


def sign_image(stage: Stage) -> Iterator[Finding]:
    """A manifest of the image by one algorithm, and one by two that stand or fall together."""
    name = image_name(stage.image)
    digest, size = stage.image_facts
    made: dict[str, Used[FirmwareResult]] = {}
    for role in ("firmware", "firmware-dual"):
        made[role] = used = stage.use(
            operations.sign_firmware(
                stage.handle(role),
                name,
                FIRMWARE_VERSION,
                sha256=digest,
                size=size,
                context="build/release",
            )
        )
        yield checked(
            f"firmware manifest of {name}, {used.receipt.algorithm}",
            stage.tools.openssl,
            partial(_manifest, stage, role, used.result),
            used.receipt,
        )
    single, dual = made["firmware"], made["firmware-dual"]
    stage.artefacts["manifest"] = single.result.manifest
    yield checked(
        f"the image against its manifest, {stage.image}",
        "sha256sum",
        lambda: _image(stage, single.result.manifest),
    )
    yield checked(
        "the ML-DSA-65 signature of the dual manifest",
        "own (cryptography)",
        lambda: _post_quantum(stage, dual.result),
        dual.receipt,
        foreign=False,
    )


def _manifest(stage: Stage, role: str, result: FirmwareResult) -> str:
    public = stage.public(role).versions[0].public_pem[0]
    signature = result.signatures["ecdsa-p256-sha256"]
    stage.tools.check_digest_signature(public, result.manifest, signature)
    named = json.loads(result.manifest)["algorithms"]
    check(sorted(named) == sorted(result.signatures), "expected the manifest to name its signers")
    return f"{VERIFIES}; names {' and '.join(named)}"


def _image(stage: Stage, manifest: bytes) -> str:
    said = json.loads(manifest)
    met = stage.tools.sha256(stage.image)
    check(said["sha256"] == met, f"the manifest says {said['sha256']}, sha256sum {met}")
    check(said["size"] == stage.image.stat().st_size, "the manifest says another size")
    return f"{said['size']} bytes, sha256 {met[:16]}... in both"


def _post_quantum(stage: Stage, result: FirmwareResult) -> str:
    public = stage.public("firmware-dual").versions[0].public_pem[1]
    signature = result.signatures["ml-dsa-65"]
    verify("ml-dsa-65", spki_from_pem(public), result.manifest, signature)
    return f"verifies, {len(signature)} bytes (openssl before 3.5 has no ML-DSA)"


# --- certificates --------------------------------------------------------------------------------


def issue_leaf(stage: Stage) -> Iterator[Finding]:
    """A server's certificate for a request that openssl made."""
    request = CertificateRequest(
        csr=stage.tools.certificate_request(HOST), lifetime_s=_CERTIFICATE_LIFE_S
    )
    used = stage.use(operations.sign_ca(stage.handle("ca"), request, context="pki/web"))
    leaf = used.result.pem
    stage.artefacts["certificate"] = leaf.encode()
    yield checked(
        "X.509 leaf for a request made by openssl",
        stage.tools.openssl,
        lambda: stage.tools.check_leaf(stage.client.certificate(stage.name("ca")), leaf, HOST),
        used.receipt,
    )


def issue_login(stage: Stage) -> Iterator[Finding]:
    """A user's certificate for a key that ssh-keygen made."""
    key_id = f"tour-{stage.run}"
    request = SignSshCa(
        public_key=stage.tools.ssh_public_key(),
        key_id=key_id,
        principals=(LOGIN,),
        lifetime_s=_CERTIFICATE_LIFE_S,
    )
    used = stage.use(operations.sign_ssh_ca(stage.handle("ssh-ca"), request, context="ssh/bastion"))
    line = used.result.certificate
    stage.artefacts["login"] = line.encode()
    yield checked(
        "SSH user certificate for a key made by ssh-keygen",
        "ssh-keygen",
        lambda: stage.tools.check_ssh_certificate(
            line, _ssh_line(stage.public("ssh-ca").versions[0].public_pem[0]), LOGIN, key_id
        ),
        used.receipt,
    )


def _ssh_line(pem: str) -> str:
    """The OpenSSH line of an Ed25519 key, whose SubjectPublicKeyInfo ends in it (RFC 8410)."""
    der = base64.b64decode("".join(pem.strip().splitlines()[1:-1]))
    kind = b"ssh-ed25519"
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (kind, der[-_ED25519_BYTES:]))
    return f"{kind.decode()} {base64.b64encode(blob).decode()}"


# --- TLS -----------------------------------------------------------------------------------------


def verify_content(role: Literal["server", "client"], transcript_hash: bytes) -> bytes:
    """What a CertificateVerify signs, written from RFC 8446 section 4.4.3 and not by the vault."""
    context = f"TLS 1.3, {role} CertificateVerify"
    return b" " * 64 + context.encode("ascii") + b"\0" + transcript_hash


def sign_handshakes(stage: Stage) -> Iterator[Finding]:
    """A CertificateVerify of either side, over the hash of a ClientHello and the leaf."""
    transcript = hashlib.sha256(_client_hello(HOST) + stage.artefacts.get("certificate", b""))
    sides: tuple[tuple[str, Literal["server", "client"], int], ...] = (
        ("tls", "server", _P256_SCHEME),
        ("tls-rsa", "client", _PSS_SCHEME),
    )
    for key, role, scheme in sides:
        content = verify_content(role, transcript.digest())
        used = stage.use(
            operations.sign_tls(
                stage.handle(key), transcript.digest(), role=role, context=f"web/eu/{HOST}"
            )
        )

        yield checked(
            f"TLS 1.3 CertificateVerify, {role}, {used.receipt.algorithm}",
            stage.tools.openssl,
            partial(_handshake, stage, key, scheme, content, used.result),
            used.receipt,
        )


def _handshake(stage: Stage, key: str, scheme: int, content: bytes, result: TlsResult) -> str:
    check(result.scheme == scheme, f"expected scheme {scheme:#06x}, met {result.scheme:#06x}")
    public = stage.public(key).versions[0].public_pem[0]
    pss = scheme == _PSS_SCHEME
    stage.tools.check_digest_signature(public, content, result.signature, pss=pss)
    return f"{VERIFIES}; scheme {scheme:#06x}"


def _client_hello(host: str) -> bytes:
    """A real ClientHello, by Python's ssl, without its record header (RFC 8446 section 5.1)."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=host)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()[5:]


# --- data ----------------------------------------------------------------------------------------


def use_data_key(stage: Stage) -> Iterator[Finding]:
    """Wrap and unwrap a data key, derive, authenticate: what is checked are the round trips."""
    handle, context = stage.handle("data"), "shop/db/backup"
    secret = secrets.token_bytes(32)
    wrapped = stage.use(operations.wrap(handle, secret, context=context))
    opened = stage.use(operations.unwrap(handle, wrapped.result.wrapped, context=context))
    yield _own(
        "a data key of 32 bytes, wrapped and unwrapped",
        "the same bytes came back",
        opened.result.plaintext == secret and secret.hex() not in wrapped.result.wrapped,
        wrapped,
        opened,
    )
    yield stage.refused(
        "wrapped data, opened in another context",
        "context_mismatch",
        operations.unwrap(handle, wrapped.result.wrapped, context="shop/db/elsewhere"),
    )
    derived = [
        stage.use(operations.derive(handle, info=info, context=context))
        for info in (b"index", b"index", b"cache")
    ]
    first, again, other = (used.result.secret for used in derived)
    yield _own(
        "a secret, derived twice, and one for another use",
        "the same for the same use, another for another",
        first == again != other,
        *derived,
    )
    whole = stage.issued("data").handle  # the narrowed one does not allow mac
    message = b"order 4711: 3 pieces"
    tagged = stage.use(operations.mac(whole, message, context=context))
    again_tagged = stage.use(operations.mac(whole, message, tag=tagged.result.tag, context=context))
    yield _own(
        "a message authentication code, made and checked",
        "HMAC-SHA-256, checked by the vault in constant time",
        again_tagged.result.tag == tagged.result.tag,
        tagged,
        again_tagged,
    )


def _own(what: str, result: str, held: bool, *uses: Used[Any]) -> Row:  # noqa: FBT001  one call form, above
    def check_it() -> str:
        check(held, f"expected: {result}")
        return result

    receipts = [used.receipt for used in uses]
    return checked(what, "own (nobody else can)", check_it, *receipts, foreign=False)


# --- ledger --------------------------------------------------------------------------------------


def append_entries(stage: Stage) -> Iterator[Finding]:
    """What this run made, entered: each signature by openssl, then the chain by sha256sum."""
    entries = {"run": f"tour {stage.run} of {stage.url}".encode(), **stage.artefacts}
    results: list[LedgerResult] = []
    public = stage.public("ledger").versions[0].public_pem[0]
    for name, data in entries.items():
        used = stage.use(
            operations.append_ledger(stage.handle("ledger"), data, context="releases/shop")
        )
        results.append(used.result)
        yield checked(
            f"ledger entry {used.result.sequence}: {name}, {len(data)} bytes",
            stage.tools.openssl,
            partial(_entry, stage.tools, public, used.result),
            used.receipt,
        )
    yield checked(
        f"the chain of {len(entries)} ledger entries",
        "sha256sum",
        lambda: _chain(stage.tools, [*entries.values()], results),
    )


def _entry(tools: Tools, public: str, result: LedgerResult) -> str:
    tools.check_raw_signature(public, result.document, result.signatures["ed25519"])
    return VERIFIES


def _chain(tools: Tools, entries: list[bytes], results: list[LedgerResult]) -> str:
    previous = "0" * 64
    for number, (data, result) in enumerate(zip(entries, results, strict=True), start=1):
        said = json.loads(result.document)
        check(said["sequence"] == number, f"expected sequence {number}, met {said['sequence']}")
        check(said["previous"] == previous, f"entry {number} names another entry before it")
        check(said["entry_sha256"] == tools.sha256(data), f"entry {number} is of other bytes")
        previous = tools.sha256(result.document)
    return f"1 to {len(entries)}, each names the one before it; head {previous[:16]}..."
