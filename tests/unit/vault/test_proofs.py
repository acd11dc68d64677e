"""Proof of possession: who sent a request under a bound handle, verified by the vault itself."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from keystead import limits
from keystead.crypto.signatures import pss_sha256
from keystead.encoding import b64u_encode
from keystead.frames.messages import Proof, Use
from keystead.keys.commands import IssuedHandle
from keystead.keys.narrowing import Binding, Narrowing
from keystead.keys.purposes import Purpose
from keystead.keys.use import Asked, proof_message
from unit.vault.node import DEPLOYMENT, Node, check_done, check_refused

pytestmark = pytest.mark.anyio
HOLDER = ed25519.Ed25519PrivateKey.from_private_bytes(b"\5" * 32)
STRANGER = ed25519.Ed25519PrivateKey.from_private_bytes(b"\6" * 32)
Signing = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
NONCE = "nonce-1"


@pytest.fixture
def node() -> Node:
    return Node()


def sign(key: Signing, message: bytes) -> bytes:
    match key:
        case ec.EllipticCurvePrivateKey():
            digest = hashes.SHA256() if key.curve.key_size == 256 else hashes.SHA384()
            return key.sign(message, ec.ECDSA(digest))
        case rsa.RSAPrivateKey():
            return key.sign(message, pss_sha256(), hashes.SHA256())
        case ed25519.Ed25519PrivateKey():
            return key.sign(message)


def message_of(node: Node, handle: IssuedHandle, use: Use, **changes: object) -> bytes:
    """What the holder signs; ``changes``: what a forger would have it say."""
    said: dict[str, Any] = {
        "deployment": DEPLOYMENT,
        "chain_id": handle.link,
        "asked": Asked(
            purpose=use.purpose, operation=use.operation, context=use.context, version=use.version
        ),
        "facts": use.facts,
        "nonce": use.idempotency_key or NONCE,
        "time_ms": node.clock.now_ms(),
    }
    return proof_message(**(said | changes))


def proved(node: Node, handle: IssuedHandle, key: Signing = HOLDER, **changes: object) -> Use:
    """A use with its proof."""
    use = node.use_of(handle.token, key=NONCE)
    signature = sign(key, message_of(node, handle, use, **changes))
    time_ms = changes.get("time_ms", node.clock.now_ms())
    assert isinstance(time_ms, int)
    return msgspec.structs.replace(use, proof=Proof(time_ms, signature))


async def bound(node: Node, kind: str = "ed25519", value: bytes | None = None) -> IssuedHandle:
    await node.create("web", Purpose.TLS)
    raw = HOLDER.public_key().public_bytes_raw() if value is None else value
    binding = msgspec.convert({"kind": kind, "value": b64u_encode(raw)}, Binding)
    return await node.issue("web", Narrowing(bound_to=binding))


# --- Ed25519 -------------------------------------------------------------------------------------


async def test_the_holder_is_allowed(node: Node) -> None:
    async with node.serving():
        handle = await bound(node)
        check_done(await node.ask(proved(node, handle)))


async def test_no_proof_is_refused(node: Node) -> None:
    async with node.serving():
        handle = await bound(node)
        answer = check_refused(await node.ask(node.use_of(handle.token)), "permission_denied")
        assert "--proof-key" in answer.hint
        peer = msgspec.structs.replace(node.use_of(handle.token), unix_peer=b"front:0")
        check_refused(await node.ask(peer), "permission_denied")


async def test_another_key_is_refused(node: Node) -> None:
    async with node.serving():
        handle = await bound(node)
        check_refused(await node.ask(proved(node, handle, STRANGER)), "permission_denied")


async def test_a_proof_needs_its_nonce(node: Node) -> None:
    async with node.serving():
        handle = await bound(node)
        use = msgspec.structs.replace(proved(node, handle), idempotency_key=None)
        answer = check_refused(await node.ask(use), "permission_denied")
        assert "nonce" in answer.message


@pytest.mark.parametrize(
    ("late_ms", "fresh"),
    [
        (limits.PROOF_SKEW_MS, True),
        (-limits.PROOF_SKEW_MS, True),
        (limits.PROOF_SKEW_MS + 1, False),
        (-limits.PROOF_SKEW_MS - 1, False),
    ],
)
async def test_a_proof_is_fresh_for_a_minute(node: Node, late_ms: int, fresh: bool) -> None:  # noqa: FBT001  one column of the table
    async with node.serving():
        handle = await bound(node)
        use = proved(node, handle, time_ms=node.clock.now_ms() - late_ms)
        answer = await node.ask(use)
        if fresh:
            check_done(answer)
        else:
            assert "clock" in check_refused(answer, "permission_denied").hint


@pytest.mark.parametrize(
    "changes",
    [
        {"deployment": "another"},
        {"chain_id": "0" * 32},
        {"asked": Asked(purpose="tls", operation="sign", context="web/us/shop")},
        {"asked": Asked(purpose="tls", operation="sign_digest", context="web/eu/shop")},
        {"asked": Asked(purpose="tls", operation="sign", context="web/eu/shop", version=1)},
        {"facts": b"others"},
        {"nonce": "nonce-2"},
    ],
    ids=lambda value: next(iter(value)),
)
async def test_a_proof_is_for_one_request(node: Node, changes: dict[str, Any]) -> None:
    async with node.serving():
        handle = await bound(node)
        check_refused(await node.ask(proved(node, handle, **changes)), "permission_denied")


async def test_the_time_in_a_proof_is_signed(node: Node) -> None:
    async with node.serving():
        handle = await bound(node)
        use = proved(node, handle)
        assert use.proof is not None
        later = msgspec.structs.replace(use.proof, time_ms=use.proof.time_ms + 1)
        use = msgspec.structs.replace(use, proof=later)
        check_refused(await node.ask(use), "permission_denied")


async def test_a_repeated_proof_has_one_effect(node: Node) -> None:
    """Whoever recorded the request gets the same signature, and no other."""
    async with node.serving():
        handle = await bound(node)
        use = proved(node, handle)
        first, again = check_done(await node.ask(use)), check_done(await node.ask(use))
        assert first.result == again.result
        node.clock.advance(limits.PROOF_SKEW_MS + 1)
        check_refused(await node.ask(use), "permission_denied")
    assert [body.outcome for body in node.log("tls.sign")] == ["ok", "permission_denied"]


async def test_a_free_handle_needs_no_proof_and_takes_one_for_nothing(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        handle = await node.issue("web")
        check_done(await node.ask(node.use_of(handle.token)))
        check_done(await node.ask(proved(node, handle, STRANGER)))


# --- certificates --------------------------------------------------------------------------------


def certificate_of(key: Signing) -> bytes:
    name = x509.Name([])
    start = datetime.fromtimestamp(0, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
    )
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.DER)


KEYS: dict[str, Callable[[], Signing]] = {
    "P-256": lambda: ec.derive_private_key(7, ec.SECP256R1()),
    "P-384": lambda: ec.derive_private_key(7, ec.SECP384R1()),
    "Ed25519": lambda: HOLDER,
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}


def with_certificate(use: Use, certificate: bytes) -> Use:
    assert use.proof is not None
    return msgspec.structs.replace(
        use, proof=msgspec.structs.replace(use.proof, certificate=certificate)
    )


def digest_of(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


@pytest.mark.parametrize("kind", KEYS)
async def test_the_holder_of_a_certificate_is_allowed(node: Node, kind: str) -> None:
    key = KEYS[kind]()
    certificate = certificate_of(key)
    async with node.serving():
        handle = await bound(node, "certificate", digest_of(certificate))
        check_done(await node.ask(with_certificate(proved(node, handle, key), certificate)))


async def test_another_certificate_of_the_same_key_is_refused(node: Node) -> None:
    key = KEYS["P-256"]()
    certificate = certificate_of(key)
    async with node.serving():
        handle = await bound(node, "certificate", digest_of(certificate))
        other = certificate_of(key)
        assert other != certificate
        use = with_certificate(proved(node, handle, key), other)
        check_refused(await node.ask(use), "permission_denied")


async def test_the_certificate_without_its_key_is_refused(node: Node) -> None:
    """It is public: anyone can send it."""
    certificate = certificate_of(HOLDER)
    async with node.serving():
        handle = await bound(node, "certificate", digest_of(certificate))
        use = with_certificate(proved(node, handle, STRANGER), certificate)
        check_refused(await node.ask(use), "permission_denied")


async def test_a_key_proves_no_certificate_nor_a_certificate_a_key(node: Node) -> None:
    certificate = certificate_of(HOLDER)
    async with node.serving():
        to_key = await bound(node)
        binding = Binding(kind="certificate", value=b64u_encode(digest_of(certificate)))
        to_certificate = await node.issue("web", Narrowing(bound_to=binding))
        check_refused(await node.ask(proved(node, to_certificate)), "permission_denied")
        use = with_certificate(proved(node, to_key), certificate)
        check_refused(await node.ask(use), "permission_denied")


@pytest.mark.parametrize(
    "certificate",
    [b"", b"\x30\x00", base64.b64decode("MAMCAQE="), certificate_of(HOLDER)[:-1]],
    ids=["empty", "no fields", "a number", "cut off"],
)
async def test_what_is_no_certificate_is_malformed(node: Node, certificate: bytes) -> None:
    async with node.serving():
        handle = await bound(node, "certificate", digest_of(certificate))
        use = with_certificate(proved(node, handle), certificate)
        check_refused(await node.ask(use), "malformed_request")


async def test_a_weak_certificate_key_is_malformed(node: Node) -> None:
    key = ec.derive_private_key(7, ec.SECP521R1())
    certificate = certificate_of(key)
    async with node.serving():
        handle = await bound(node, "certificate", digest_of(certificate))
        use = with_certificate(proved(node, handle), certificate)
        check_refused(await node.ask(use), "malformed_request")


# --- sockets -------------------------------------------------------------------------------------


async def test_a_socket_bound_handle_is_for_its_owner(node: Node) -> None:
    async with node.serving():
        await node.create("web", Purpose.TLS)
        narrowing = Narrowing(bound_to=Binding(kind="unix", value="nginx:33"))
        handle = await node.issue("web", narrowing)
        use = node.use_of(handle.token)
        check_done(await node.ask(msgspec.structs.replace(use, unix_peer=b"nginx:33")))
        for peer in (b"nginx:34", b"nginx", None):
            other = msgspec.structs.replace(use, unix_peer=peer)
            check_refused(await node.ask(other), "permission_denied")
