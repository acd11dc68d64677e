"""X.509: what is built equals what pyca signs itself; strangers' requests are read or refused."""

import ipaddress
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from cryptography import x509 as pyca
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from keystead import limits
from keystead.crypto import x509
from keystead.errors import MalformedRequest

Make = Callable[[], CertificateIssuerPrivateKeyTypes]
Digest = hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None

NOW_S = 1_790_000_000
WEAK_BITS = 1024
ALGORITHMS: dict[str, tuple[Make, Digest]] = {
    "ecdsa-p256-sha256": (lambda: ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
    "ecdsa-p384-sha384": (lambda: ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
    "ed25519": (ed25519.Ed25519PrivateKey.generate, None),
    "rsa-pkcs1-3072-sha256": (lambda: rsa.generate_private_key(65537, 2048), hashes.SHA256()),
    "ml-dsa-65": (mldsa.MLDSA65PrivateKey.generate, None),
}


def spki_of(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def root_fields(key: CertificateIssuerPrivateKeyTypes) -> x509.RootFields:
    return x509.RootFields(
        spki=spki_of(key),
        serial=7,
        common_name="Test CA",
        dns_suffixes=("shop.example",),
        not_before_s=NOW_S,
        not_after_s=NOW_S + 1000,
    )


def leaf_fields(common_name: str | None = None) -> x509.LeafFields:
    return x509.LeafFields(
        spki=spki_of(ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32)),
        serial=8,
        profile="server",
        dns=("www.shop.example",),
        common_name=common_name,
        not_before_s=NOW_S,
        not_after_s=NOW_S + 500,
    )


def signed_by(
    key: CertificateIssuerPrivateKeyTypes, algorithm: str, unsigned: x509.Unsigned
) -> bytes:
    digest = ALGORITHMS[algorithm][1]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        assert digest is not None
        signature = key.sign(unsigned.tbs, ec.ECDSA(digest))
    elif isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(unsigned.tbs, padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(key, ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey)
        signature = key.sign(unsigned.tbs)
    return x509.assemble_signed(unsigned.tbs, unsigned.algorithm, signature)


def pyca_copy(
    made: pyca.Certificate, key: CertificateIssuerPrivateKeyTypes, digest: Digest
) -> pyca.Certificate:
    """The same certificate, built and signed by pyca with the authority's real key."""
    builder = (
        pyca.CertificateBuilder()
        .issuer_name(made.issuer)
        .subject_name(made.subject)
        .public_key(made.public_key())
        .serial_number(made.serial_number)
        .not_valid_before(made.not_valid_before_utc)
        .not_valid_after(made.not_valid_after_utc)
    )
    for extension in made.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return builder.sign(key, digest)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_certificates_equal_what_pyca_signs_with_the_real_key(algorithm: str) -> None:
    make, digest = ALGORITHMS[algorithm]
    key = make()
    root_der = signed_by(key, algorithm, x509.root_tbs(root_fields(key), algorithm=algorithm))
    leaf = x509.leaf_tbs(leaf_fields(), issuer=root_der, algorithm=algorithm)
    root = pyca.load_der_x509_certificate(root_der)
    made = pyca.load_der_x509_certificate(signed_by(key, algorithm, leaf))

    root.verify_directly_issued_by(root)
    made.verify_directly_issued_by(root)
    assert pyca_copy(root, key, digest).tbs_certificate_bytes == root.tbs_certificate_bytes
    assert pyca_copy(made, key, digest).tbs_certificate_bytes == leaf.tbs


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_crls_equal_what_pyca_signs_with_the_real_key(algorithm: str) -> None:
    make, digest = ALGORITHMS[algorithm]
    key = make()
    root = signed_by(key, algorithm, x509.root_tbs(root_fields(key), algorithm=algorithm))
    revoked = (
        x509.Revoked(serial=2**158, revoked_at_s=NOW_S - 5, reason="keyCompromise"),
        x509.Revoked(serial=3, revoked_at_s=NOW_S - 9),
    )
    fields = x509.CrlFields(
        number=4, this_update_s=NOW_S, next_update_s=NOW_S + 60, revoked=revoked
    )
    unsigned = x509.crl_tbs(fields, issuer=root, algorithm=algorithm)
    crl = pyca.load_der_x509_crl(signed_by(key, algorithm, unsigned))

    assert crl.is_signature_valid(key.public_key())
    assert [entry.serial_number for entry in crl] == [3, 2**158]
    assert [len(entry.extensions) for entry in crl] == [0, 1]
    builder = pyca.CertificateRevocationListBuilder(revoked_certificates=list(crl))
    builder = builder.issuer_name(crl.issuer)
    assert crl.next_update_utc is not None
    builder = builder.last_update(crl.last_update_utc).next_update(crl.next_update_utc)
    for extension in crl.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    assert builder.sign(key, digest).tbs_certlist_bytes == unsigned.tbs


def test_building_is_deterministic() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    once = x509.root_tbs(root_fields(key), algorithm="ecdsa-p256-sha256")
    assert once == x509.root_tbs(root_fields(key), algorithm="ecdsa-p256-sha256")


def test_an_unknown_signature_algorithm_is_refused() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(MalformedRequest, match="signature by 'md5'"):
        x509.root_tbs(root_fields(key), algorithm="md5")


@pytest.mark.parametrize(
    "changes",
    [
        {"common_name": "x" * 65},
        {"common_name": ""},
        {"serial": 2**160},
        {"serial": 0},
        {"not_after_s": 2**40},
        {"not_after_s": NOW_S - 1},
        {"spki": b"\x30\x00"},
        {"dns_suffixes": ("höhle.example",)},
    ],
)
def test_what_x509_cannot_carry_is_refused(changes: dict[str, Any]) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(MalformedRequest, match="RFC 5280"):
        x509.root_tbs(replace(root_fields(key), **changes), algorithm="ed25519")


def test_leaves_and_crls_that_x509_cannot_carry_are_refused() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    root = signed_by(key, "ed25519", x509.root_tbs(root_fields(key), algorithm="ed25519"))
    with pytest.raises(MalformedRequest, match="a certificate can carry"):
        x509.leaf_tbs(leaf_fields(common_name="x" * 65), issuer=root, algorithm="ed25519")
    fields = x509.CrlFields(number=1, this_update_s=NOW_S, next_update_s=NOW_S - 1, revoked=())
    with pytest.raises(MalformedRequest, match="a CRL can carry"):
        x509.crl_tbs(fields, issuer=root, algorithm="ed25519")


def test_an_issuer_without_key_id_is_refused() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    name = pyca.Name([pyca.NameAttribute(NameOID.COMMON_NAME, "Bare CA")])
    bare = (
        pyca.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime.fromtimestamp(NOW_S, UTC))
        .not_valid_after(datetime.fromtimestamp(NOW_S + 1, UTC))
        .sign(key, None)
        .public_bytes(serialization.Encoding.DER)
    )
    assert x509.parse_certificate(bare).subject_key_id is None
    with pytest.raises(MalformedRequest, match="subject key identifier"):
        x509.leaf_tbs(leaf_fields(), issuer=bare, algorithm="ed25519")


def test_a_certificate_whose_extensions_do_not_parse_is_refused() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    der = signed_by(key, "ed25519", x509.root_tbs(root_fields(key), algorithm="ed25519"))
    broken = der.replace(b"\x30\x06\x01\x01\xff\x02\x01\x00", b"\x30\x06\x01\x01\xff\x03\x01\x00")
    assert broken != der
    with pytest.raises(MalformedRequest, match="RFC 5280"):
        x509.parse_certificate(broken)


def test_certificate_facts_are_read_back() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    root_der = signed_by(key, "ed25519", x509.root_tbs(root_fields(key), algorithm="ed25519"))
    unsigned = x509.leaf_tbs(
        leaf_fields(common_name="www.shop.example"), issuer=root_der, algorithm="ed25519"
    )
    root = x509.parse_certificate(root_der)
    leaf = x509.parse_certificate(signed_by(key, "ed25519", unsigned))

    assert (root.is_ca, root.common_name, root.spki) == (True, "Test CA", spki_of(key))
    assert root.permitted_dns == ("shop.example",)
    assert root.authority_key_id is None
    assert leaf == x509.CertificateFacts(
        spki=leaf_fields().spki,
        serial=8,
        common_name="www.shop.example",
        dns=("www.shop.example",),
        is_ca=False,
        permitted_dns=None,
        subject_key_id=leaf.subject_key_id,
        authority_key_id=root.subject_key_id,
        not_before_s=NOW_S,
        not_after_s=NOW_S + 500,
    )


def test_the_key_id_is_the_one_of_rfc_7093() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    der = signed_by(
        key,
        "ecdsa-p256-sha256",
        x509.root_tbs(root_fields(key), algorithm="ecdsa-p256-sha256"),
    )
    point = key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    digest = hashes.Hash(hashes.SHA256())
    digest.update(point)
    assert x509.parse_certificate(der).subject_key_id == digest.finalize()[:20]


@given(st.binary(max_size=300))
def test_certificates_that_do_not_parse_are_refused(der: bytes) -> None:
    with pytest.raises(MalformedRequest):
        x509.parse_certificate(der)


def test_pem_is_what_openssl_writes(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    der = signed_by(key, "ed25519", x509.root_tbs(root_fields(key), algorithm="ed25519"))
    (tmp_path / "a.der").write_bytes(der)
    written = run(
        ["openssl", "x509", "-inform", "DER", "-in", tmp_path / "a.der"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert x509.pem(der, "CERTIFICATE") == written.stdout


# --- requests ------------------------------------------------------------------------------------


def csr_builder(
    names: Sequence[pyca.GeneralName] = (), common_names: Sequence[str] = ()
) -> pyca.CertificateSigningRequestBuilder:
    builder = pyca.CertificateSigningRequestBuilder().subject_name(
        pyca.Name([pyca.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])
    )
    if names:
        builder = builder.add_extension(pyca.SubjectAlternativeName(names), critical=False)
    return builder


def as_pem(request: pyca.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode()


def openssl_request(tmp_path: Path, options: str) -> str:
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "csr.pem")]
    run(
        ["openssl", "req", "-new", "-nodes", "-subj", "/", *options.split(), *files],
        capture_output=True,
        check=True,
    )
    return (tmp_path / "csr.pem").read_text()


@pytest.mark.parametrize(
    ("make", "digest"),
    [*ALGORITHMS.values(), (mldsa.MLDSA44PrivateKey.generate, None)],
    ids=[*ALGORITHMS, "ml-dsa-44"],
)
def test_a_request_gives_its_key_and_names(make: Make, digest: Digest) -> None:
    key = make()
    names = [
        pyca.DNSName("www.shop.example"),
        pyca.IPAddress(ipaddress.ip_address("192.0.2.1")),
        pyca.IPAddress(ipaddress.ip_address("2001:db8::1")),
    ]
    request = csr_builder(names, ["www.shop.example"]).sign(key, digest)
    expected = x509.RequestFacts(
        spki=spki_of(key),
        common_name="www.shop.example",
        dns=("www.shop.example",),
        ip=("192.0.2.1", "2001:db8::1"),
    )
    assert x509.parse_request(as_pem(request)) == expected
    assert x509.parse_request(request.public_bytes(serialization.Encoding.DER)) == expected


def test_a_request_of_openssl_is_read(tmp_path: Path) -> None:
    options = (
        "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -addext subjectAltName=DNS:a.shop.example"
    )
    facts = x509.parse_request(openssl_request(tmp_path, options))
    assert (facts.common_name, facts.dns, facts.ip) == (None, ("a.shop.example",), ())


def test_a_request_without_names_has_none() -> None:
    request = csr_builder().sign(ed25519.Ed25519PrivateKey.generate(), None)
    facts = x509.parse_request(as_pem(request))
    assert (facts.common_name, facts.dns, facts.ip) == (None, (), ())


def test_a_request_must_prove_possession() -> None:
    """The key of one request with the signature of another."""
    whole = csr_builder([pyca.DNSName("a.example")]).sign(
        ed25519.Ed25519PrivateKey.generate(), None
    )
    forged = bytearray(whole.public_bytes(serialization.Encoding.DER))
    forged[-1] ^= 1
    with pytest.raises(MalformedRequest, match="signed by the key in it"):
        x509.parse_request(bytes(forged))


@pytest.mark.parametrize(
    ("make", "digest", "what"),
    [
        (
            lambda: rsa.generate_private_key(65537, WEAK_BITS),
            hashes.SHA256(),
            "RSA key of 2048 to 8192",
        ),
        (lambda: rsa.generate_private_key(3, 2048), hashes.SHA256(), "exponent of at least 65537"),
        (lambda: ec.generate_private_key(ec.SECP521R1()), hashes.SHA512(), "P-256 or P-384"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), hashes.SHA256(), "P-256 or P-384"),
        (ed448.Ed448PrivateKey.generate, None, "RSA, P-256, P-384, Ed25519 or ML-DSA"),
    ],
    ids=["rsa-1024", "rsa-e3", "p521", "secp256k1", "ed448"],
)
def test_weak_and_unknown_keys_are_refused(make: Make, digest: Digest, what: str) -> None:
    request = as_pem(csr_builder().sign(make(), digest))
    with pytest.raises(MalformedRequest, match=what):
        x509.parse_request(request)


def test_a_request_signed_with_sha_1_is_refused(tmp_path: Path) -> None:
    request = openssl_request(tmp_path, "-newkey rsa:2048 -sha1")
    with pytest.raises(MalformedRequest, match="SHA-2"):
        x509.parse_request(request)


@pytest.mark.parametrize(
    "name",
    [
        pyca.RFC822Name("a@shop.example"),
        pyca.UniformResourceIdentifier("spiffe://shop.example/web"),
        pyca.DirectoryName(pyca.Name([pyca.NameAttribute(NameOID.COMMON_NAME, "x")])),
    ],
)
def test_other_kinds_of_names_are_refused_not_dropped(name: pyca.GeneralName) -> None:
    request = csr_builder([name]).sign(ed25519.Ed25519PrivateKey.generate(), None)
    with pytest.raises(MalformedRequest, match="DNS names or IP addresses"):
        x509.parse_request(as_pem(request))


def test_two_common_names_are_refused() -> None:
    request = csr_builder(common_names=["a", "b"]).sign(ed25519.Ed25519PrivateKey.generate(), None)
    with pytest.raises(MalformedRequest, match="at most one common name, met 2"):
        x509.parse_request(as_pem(request))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "-----BEGIN CERTIFICATE REQUEST-----\n\ud800",
        "-----BEGIN",
    ],
)
def test_requests_that_do_not_parse_are_refused(text: str) -> None:
    with pytest.raises(MalformedRequest, match="PKCS#10"):
        x509.parse_request(text)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_parser_fall_over(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        x509.parse_request(data)


@given(st.data())
def test_no_changed_byte_makes_the_parser_fall_over(data: st.DataObject) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
    names = [pyca.DNSName("www.shop.example")]
    der = csr_builder(names, ["x"]).sign(key, None).public_bytes(serialization.Encoding.DER)
    changed = bytearray(der)
    changed[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(MalformedRequest):
        x509.parse_request(bytes(changed))


def test_long_requests_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(MalformedRequest, match="at most 32768 bytes, met 32769"):
        x509.parse_request(b"\x30" * (limits.CSR_BYTES_MAX + 1))


def test_the_size_limit_lets_the_largest_kind_through() -> None:
    key = mldsa.MLDSA87PrivateKey.generate()
    names = [pyca.DNSName(f"{'x' * 60}{at:02}.shop.example") for at in range(100)]
    request = as_pem(csr_builder(names).sign(key, None))
    assert len(x509.parse_request(request).dns) == 100


def test_dates_after_2049_are_generalized_time() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    end = int(datetime(2060, 1, 1, tzinfo=UTC).timestamp())
    fields = replace(root_fields(key), not_after_s=end)
    der = signed_by(key, "ed25519", x509.root_tbs(fields, algorithm="ed25519"))
    assert b"20600101000000Z" in der
    assert x509.parse_certificate(der).not_after_s == end
