"""CertificateVerify: our content is byte-equal, and openssl verifies signatures over it.

openssl 3.0, as Debian 12 has it, does not know ML-DSA: pyca verifies those, with its own OpenSSL.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from keystead.crypto.signatures import verify
from keystead.errors import SignatureInvalid
from keystead.keys.framing.base import Framed
from keystead.keys.framing.tls import TLS, TLS_PREHASHED, SignDigest, SignTls, TlsResult
from keystead.keys.model import Policy
from keystead.keys.purposes import Purpose
from keystead.keys.verify import verify_tls
from vectors.openssl import UNKNOWN, digest_verifies, verifies
from vectors.reading import (
    SIGNATURE_INVALID,
    Given,
    Hex,
    Strict,
    key_of,
    published,
    read,
    refusal,
    scene_of,
    shows,
    signatures_of,
    spki_of,
    version_of,
)


class Signature(Strict, frozen=True):
    scheme: int
    signature: Hex


class Handshake(Strict, frozen=True):
    role: Literal["server", "client"]
    transcript_hash: Hex


class Content(Strict, frozen=True):
    message: Hex
    signatures: dict[str, Signature]


class Message(Strict, frozen=True):
    shows: str
    given: Handshake
    expected: Content


class DigestGiven(Strict, frozen=True):
    algorithm: str
    digest: Hex


class Digest(Strict, frozen=True):
    shows: str
    given: DigestGiven
    expected: Signature


class RecordedGiven(Strict, frozen=True):
    role: Literal["server", "client"]
    component: str
    handshake: tuple[Hex, ...]


class Recorded(Strict, frozen=True):
    """From outside: ``handshake`` holds the messages up to and with the signer's Certificate."""

    shows: str
    given: RecordedGiven
    expected: Signature


class Asked(Strict, frozen=True):
    algorithm: str
    operation: Literal["sign", "sign_digest"]
    facts: dict[str, Any]


class Refused(Strict, frozen=True):
    shows: str
    failure: str
    given: Asked


class ForgedGiven(Strict, frozen=True):
    algorithm: str
    role: Literal["server", "client"]
    transcript_hash: Hex
    signature: Hex


class Forged(Strict, frozen=True):
    shows: str
    failure: str
    given: ForgedGiven


class Expected(Strict, frozen=True):
    messages: tuple[Message, ...]
    digests: tuple[Digest, ...]
    recorded: tuple[Recorded, ...]
    refused: tuple[Refused, ...]
    forged: tuple[Forged, ...]


class File(Strict, frozen=True):
    about: str
    given: Given
    expected: Expected


FILE = read("tls", File)
KEY = key_of(Purpose.TLS, FILE.given, Policy())
PUBLIC = published(KEY)


def content_of(role: Literal["server", "client"], transcript_hash: bytes) -> Framed:
    facts = SignTls(role=role, transcript_hash=transcript_hash)
    return TLS.frame(facts, scene_of(KEY, "ecdsa-p256-sha256"))


def assert_openssl_verifies(
    folder: Path, component: str, spki: bytes, message: bytes, signature: bytes
) -> None:
    if component in UNKNOWN:
        verify(component, spki, message, signature)
    else:
        assert verifies(folder, component, spki, message, signature)
        assert not verifies(folder, component, spki, message + b"!", signature)


@shows(FILE.expected.messages)
def test_the_content_is_byte_equal(vector: Message) -> None:
    assert content_of(vector.given.role, vector.given.transcript_hash).message == (
        vector.expected.message
    )


@shows(FILE.expected.messages)
def test_foreign_tools_verify_the_vector(vector: Message, tmp_path: Path) -> None:
    assert vector.expected.signatures
    for algorithm, made in vector.expected.signatures.items():
        spki = spki_of(FILE.given.keys[algorithm][0])
        assert_openssl_verifies(tmp_path, algorithm, spki, vector.expected.message, made.signature)
        facts = vector.given
        verified = verify_tls(
            facts.role, facts.transcript_hash, made.scheme, made.signature, PUBLIC
        )
        assert verified.signer.algorithm == algorithm


@pytest.mark.parametrize("algorithm", FILE.given.keys)
@shows(FILE.expected.messages)
def test_foreign_tools_verify_what_custody_signs(
    vector: Message, algorithm: str, tmp_path: Path
) -> None:
    facts = SignTls(role=vector.given.role, transcript_hash=vector.given.transcript_hash)
    framed = TLS.frame(facts, scene_of(KEY, algorithm))
    result = framed.finish(signatures_of(FILE.given, algorithm, framed.message))
    assert isinstance(result, TlsResult)
    schemes = {
        each.signatures[algorithm].scheme for each in contents() if algorithm in each.signatures
    }
    assert {result.scheme} == schemes
    spki = version_of(KEY, algorithm).public[0]
    assert_openssl_verifies(tmp_path, algorithm, spki, vector.expected.message, result.signature)


def contents() -> list[Content]:
    return [vector.expected for vector in FILE.expected.messages]


@shows(FILE.expected.digests)
def test_foreign_tools_verify_digests(vector: Digest, tmp_path: Path) -> None:
    algorithm = vector.given.algorithm
    framed = TLS_PREHASHED.frame(SignDigest(digest=vector.given.digest), scene_of(KEY, algorithm))
    assert (framed.message, framed.prehashed) == (vector.given.digest, True)
    spki = version_of(KEY, algorithm).public[0]
    made = framed.finish(signatures_of(FILE.given, algorithm, framed.message, prehashed=True))
    assert isinstance(made, TlsResult)
    assert made.scheme == vector.expected.scheme
    for signature in (vector.expected.signature, made.signature):
        assert digest_verifies(tmp_path, algorithm, spki, vector.given.digest, signature)
        other = bytes(len(vector.given.digest))
        assert not digest_verifies(tmp_path, algorithm, spki, other, signature)


@shows(FILE.expected.recorded)
def test_recorded_handshakes_verify_over_our_content(vector: Recorded, tmp_path: Path) -> None:
    """Other people's stacks signed these: so our content is theirs, bit by bit."""
    given = vector.given
    transcript_hash = hashlib.sha256(b"".join(given.handshake)).digest()
    content = content_of(given.role, transcript_hash).message
    spki = certificate_key(given.handshake[-1])
    assert verifies(tmp_path, given.component, spki, content, vector.expected.signature)
    other = content_of("client" if given.role == "server" else "server", transcript_hash).message
    assert not verifies(tmp_path, given.component, spki, other, vector.expected.signature)


def certificate_key(message: bytes) -> bytes:
    """The key of the first certificate in a Certificate message (RFC 8446 section 4.4.2)."""
    assert message[0] == 11
    assert message[4] == 0  # no request context
    size = int.from_bytes(message[8:11], "big")
    certificate = x509.load_der_x509_certificate(message[11 : 11 + size])
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@shows(FILE.expected.refused)
def test_refusals(vector: Refused) -> None:
    given = vector.given
    framing = TLS if given.operation == "sign" else TLS_PREHASHED

    def ask() -> None:
        facts = {
            name: bytes.fromhex(value) if name in ("transcript_hash", "digest") else value
            for name, value in given.facts.items()
        }
        parsed = msgspec.convert(facts, framing.facts)
        framing.frame(parsed, scene_of(KEY, given.algorithm))

    assert refusal(ask) == vector.failure


@shows(FILE.expected.forged)
def test_forgeries(vector: Forged, tmp_path: Path) -> None:
    given = vector.given
    content = content_of(given.role, given.transcript_hash).message
    version = version_of(KEY, given.algorithm)
    assert vector.failure == SIGNATURE_INVALID
    with pytest.raises(SignatureInvalid):
        verify(given.algorithm, version.public[0], content, given.signature)
    scheme = next(
        each.signatures[given.algorithm].scheme
        for each in contents()
        if given.algorithm in each.signatures
    )
    with pytest.raises(SignatureInvalid):
        verify_tls(
            given.role,
            given.transcript_hash,
            scheme,
            given.signature,
            PUBLIC,
            version=version.number,
        )
    if given.algorithm not in UNKNOWN:
        key = version.public[0]
        assert not verifies(tmp_path, given.algorithm, key, content, given.signature)
