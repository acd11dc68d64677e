"""TLS: the signed content of RFC 8446 section 4.4.3, and digests for prehashed keys only."""

import pytest

from keystead.errors import MalformedRequest
from keystead.keys.algorithms import ALGORITHMS
from keystead.keys.framing.tls import (
    TLS,
    TLS_PREHASHED,
    SignDigest,
    SignTls,
    TlsResult,
    certificate_verify_content,
)
from keystead.keys.purposes import PURPOSES, Purpose
from unit.keys.sample import key_of, scene_of

ALGORITHM = pytest.mark.parametrize("algorithm", PURPOSES[Purpose.TLS].algorithms)


def test_the_example_of_rfc_8446_section_4_4_3() -> None:
    example = (
        "20" * 64 + "544c5320312e332c207365727665722043657274696669636174655665726966"
        "7900" + "01" * 32
    )
    assert certificate_verify_content("server", b"\1" * 32).hex() == example


@pytest.mark.parametrize("size", [32, 48])
def test_roles_sign_different_content(size: int) -> None:
    scene, digest = scene_of(key_of(Purpose.TLS)), bytes(size)
    server, client = (
        TLS.frame(SignTls(role=role, transcript_hash=digest), scene)
        for role in ("server", "client")
    )
    assert server.message != client.message
    assert server.message == certificate_verify_content("server", digest)
    assert b"TLS 1.3, client CertificateVerify\0" + digest in client.message
    assert not server.prehashed
    assert server.step is None


@pytest.mark.parametrize("size", [0, 20, 31, 33, 64])
def test_a_transcript_hash_is_of_sha256_or_sha384(size: int) -> None:
    with pytest.raises(MalformedRequest, match=f"met {size}"):
        TLS.frame(
            SignTls(role="server", transcript_hash=bytes(size)), scene_of(key_of(Purpose.TLS))
        )


@ALGORITHM
def test_the_result_names_the_scheme(algorithm: str) -> None:
    scene = scene_of(key_of(Purpose.TLS, algorithm))
    framed = TLS.frame(SignTls(role="server", transcript_hash=bytes(32)), scene)
    expected = TlsResult(scheme=ALGORITHMS[algorithm].tls_scheme or 0, signature=b"sig")
    assert framed.finish((b"sig",)) == expected
    assert expected.scheme >> 8 in {4, 5, 8, 9}


@ALGORITHM
def test_a_digest_has_the_length_of_the_keys_hash(algorithm: str) -> None:
    scene = scene_of(key_of(Purpose.TLS, algorithm, prehashed=True))
    fits = {"ecdsa-p256-sha256": 32, "ecdsa-p384-sha384": 48}.get(algorithm)
    if algorithm.startswith("rsa-pss"):
        fits = 32
    for size in (0, 20, 28, 32, 48, 51, 64):
        facts = SignDigest(digest=b"d" * size)
        if size == fits:
            framed = TLS_PREHASHED.frame(facts, scene)
            assert (framed.message, framed.prehashed) == (facts.digest, True)
        else:
            with pytest.raises(MalformedRequest):
                TLS_PREHASHED.frame(facts, scene)
