"""Signatures by what they say of themselves: every scheme that a thief could choose is checked."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from keystead import limits
from keystead.crypto.foreign import (
    JOSE,
    PublicPart,
    Scheme,
    ecdsa_from_raw,
    read_certificate,
    read_crl,
)
from keystead.crypto.signatures import ecdsa_raw
from keystead.crypto.ssh import parse_certificate_line, public_key_blob
from keystead.errors import MalformedRequest, SignatureInvalid
from unit.crypto.keys import P521, PRIVATE, spki

MESSAGE = b"what was signed"
NOW = datetime(2026, 11, 3, tzinfo=UTC)


def part_of(key: object) -> PublicPart:
    pem = key.public_key().public_bytes(  # type: ignore[attr-defined]  # any private key has one
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PublicPart(pem.decode())


def certificate_of(
    key: CertificateIssuerPrivateKeyTypes,
    digest: hashes.SHA256 | hashes.SHA384 | None,
    rsa_padding: padding.PSS | None = None,
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "thief")])
    built = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=7,
        not_valid_before=NOW,
        not_valid_after=NOW + timedelta(days=1),
    ).add_extension(x509.AuthorityKeyIdentifier(b"authority", None, None), critical=False)
    signed = built.sign(key, digest, rsa_padding=rsa_padding)
    return signed.public_bytes(serialization.Encoding.DER)


RSA = PRIVATE["rsa-pss-2048-sha256"]
P256 = PRIVATE["ecdsa-p256-sha256"]
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), padding.PSS.DIGEST_LENGTH)
CASES = {
    "ecdsa, its own hash": (P256, hashes.SHA256(), None, Scheme("ecdsa", "sha256")),
    "ecdsa, another hash": (P256, hashes.SHA384(), None, Scheme("ecdsa", "sha384")),
    "rsa-pkcs1": (RSA, hashes.SHA256(), None, Scheme("rsa-pkcs1", "sha256")),
    "rsa-pss": (RSA, hashes.SHA384(), PSS, Scheme("rsa-pss", "sha384")),
    "ed25519": (PRIVATE["ed25519"], None, None, Scheme("ed25519")),
    "ml-dsa-65": (PRIVATE["ml-dsa-65"], None, None, Scheme("ml-dsa-65")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_certificate_is_checked_by_the_scheme_it_names(case: str) -> None:
    key, digest, rsa_padding, scheme = CASES[case]
    read = read_certificate(certificate_of(key, digest, rsa_padding))  # type: ignore[arg-type]  # of a table
    assert read.scheme == scheme
    assert (read.serial, read.authority_key_id) == (7, b"authority")
    assert (read.from_s, read.until_s) == (int(NOW.timestamp()), int(NOW.timestamp()) + 86400)
    part = part_of(key)
    part.verify(scheme, read.tbs, read.signature)
    with pytest.raises(SignatureInvalid):
        part.verify(scheme, read.tbs + b"x", read.signature)
    other = part_of(P521)
    assert other.fits(scheme) == (scheme.family == "ecdsa")
    with pytest.raises(SignatureInvalid):
        other.verify(scheme, read.tbs, read.signature)


def test_what_no_key_here_could_carry_out_has_no_scheme() -> None:
    key = ed448.Ed448PrivateKey.generate()
    assert read_certificate(certificate_of(key, None)).scheme is None
    assert not part_of(key).fits(Scheme("ed25519"))


def test_a_crl_is_read_as_a_certificate_is() -> None:
    key = PRIVATE["ed25519"]
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "thief")])
    built = x509.CertificateRevocationListBuilder(
        issuer_name=name, last_update=NOW, next_update=NOW + timedelta(days=1)
    )
    der = built.sign(key, None).public_bytes(serialization.Encoding.DER)
    read = read_crl(der)
    assert read.scheme is not None
    part_of(key).verify(read.scheme, read.tbs, read.signature)
    assert read.issuer == name.public_bytes()
    with pytest.raises(MalformedRequest):
        read_certificate(der)


@given(data=st.binary(max_size=200))
def test_what_is_none_is_malformed(data: bytes) -> None:
    for read in (read_certificate, read_crl):
        with pytest.raises(MalformedRequest):
            read(b"\x30" + data)


@pytest.mark.parametrize("key", ["ecdsa-p256-sha256", "ecdsa-p384-sha384"])
def test_raw_signatures_of_any_curve_become_der(key: str) -> None:
    private = PRIVATE[key]
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    der = private.sign(MESSAGE, ec.ECDSA(hashes.SHA256()))
    raw = ecdsa_raw(key, der)
    part_of(private).verify(JOSE["ES256"], MESSAGE, ecdsa_from_raw(raw))
    for broken in (b"", raw[:-1]):
        with pytest.raises(MalformedRequest):
            ecdsa_from_raw(broken)


# --- SSH -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authority", "subject"),
    [("ed25519", "ed25519"), ("ecdsa", "ecdsa"), ("ed25519", "rsa"), ("rsa", "ed25519")],
)
def test_ssh_keygens_certificates_are_read(tmp_path: Path, authority: str, subject: str) -> None:
    for name, kind in (("ca", authority), ("id", subject)):
        size = ["-b", "2048"] if kind == "rsa" else []
        asked = ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(asked, check=True)
    asked = ["ssh-keygen", "-q", "-s", str(tmp_path / "ca"), "-I", "alice", "-n", "alice"]
    asked += ["-z", "42", "-V", "+1h", str(tmp_path / "id.pub")]
    subprocess.run(asked, check=True)
    line = (tmp_path / "id-cert.pub").read_text().strip()
    read = parse_certificate_line(line)
    assert read.serial == 42
    assert read.valid_after_s < read.valid_before_s
    ca = serialization.load_ssh_public_key((tmp_path / "ca.pub").read_bytes())
    pem = ca.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    part = PublicPart(pem.decode())
    if authority == "rsa":
        part.verify(Scheme("rsa-pkcs1", "sha512"), read.signed, read.signature)
        return
    assert read.authority == public_key_blob(part.spki)
    scheme = Scheme("ecdsa", "sha256") if authority == "ecdsa" else Scheme("ed25519")
    part.verify(scheme, read.signed, read.signature)


def test_a_damaged_ssh_certificate_is_malformed(tmp_path: Path) -> None:
    test_ssh_keygens_certificates_are_read(tmp_path, "ed25519", "ed25519")
    line = (tmp_path / "id-cert.pub").read_text().strip()
    kind, encoded, comment = line.split(maxsplit=2)
    for broken in (
        "",
        kind,
        f"{kind} {encoded[:-8]}",
        f"{kind} {encoded}AAAA",
        f"{kind} !!!! {comment}",
        f"ssh-ed25519 {encoded}",
        f"ecdsa-sha2-nistp256-cert-v01@openssh.com {encoded}",
        f"{kind} {'A' * limits.ARTEFACT_BYTES_MAX}",
    ):
        with pytest.raises(MalformedRequest):
            parse_certificate_line(broken)


def test_public_parts_are_parsed_or_malformed() -> None:
    assert part_of(PRIVATE["ed25519"]).spki == spki(PRIVATE["ed25519"])
    with pytest.raises(MalformedRequest):
        PublicPart("-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n")
