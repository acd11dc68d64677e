"""OpenSSH's formats: ssh-keygen's lines are read, ours it reads, and the rest is refused."""

import base64
from pathlib import Path
from subprocess import run

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from hypothesis import example, given
from hypothesis import strategies as st

from keystead.crypto import ssh
from keystead.errors import MalformedRequest

ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32).public_key()
P256 = ec.derive_private_key(7, ec.SECP256R1()).public_key()
SK_FIELDS = {
    "sk-ssh-ed25519@openssh.com": (ED25519.public_bytes_raw(), "ssh:"),
    "sk-ecdsa-sha2-nistp256@openssh.com": (
        "nistp256",
        P256.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        "ssh:",
    ),
}


def spki_of(
    key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def line_of(kind: str, *fields: bytes | str) -> str:
    blob = ssh.wire_strings(kind, *fields)
    return f"{kind} {base64.b64encode(blob).decode()}"


def rsa_line(exponent: int, modulus: int) -> str:
    blob = ssh.wire_string("ssh-rsa") + ssh.wire_mpint(exponent) + ssh.wire_mpint(modulus)
    return f"ssh-rsa {base64.b64encode(blob).decode()}"


@pytest.mark.parametrize(
    ("value", "wire"),
    [  # RFC 4251 section 5
        (0, "00000000"),
        (0x9A378F9B2E332A7, "0000000809a378f9b2e332a7"),
        (0x80, "000000020080"),
        (0x7F, "000000017f"),
    ],
)
def test_mpints_are_those_of_rfc_4251(value: int, wire: str) -> None:
    assert ssh.wire_mpint(value).hex() == wire


def test_strings_are_those_of_rfc_4251() -> None:
    assert ssh.wire_strings("testing", b"").hex() == "0000000774657374696e6700000000"


@pytest.mark.parametrize("key", [ED25519, P256])
def test_public_keys_are_written_as_pyca_writes_them(
    key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey,
) -> None:
    expected = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert ssh.public_key_line(spki_of(key)) == expected
    assert ssh.public_key_line(spki_of(key), "a@b") == expected + " a@b"
    assert ssh.public_key_blob(spki_of(key)) == base64.b64decode(expected.split()[1])


@pytest.mark.parametrize(
    "spki",
    [
        spki_of(ec.derive_private_key(7, ec.SECP384R1()).public_key()),
        spki_of(rsa.RSAPublicNumbers(65537, 2**2047 + 1).public_key()),
        b"",
        b"\x30\x00",
    ],
    ids=["p384", "rsa", "empty", "not-a-key"],
)
def test_other_keys_are_not_written(spki: bytes) -> None:
    with pytest.raises(MalformedRequest, match="expected"):
        ssh.public_key_blob(spki)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ("-t ed25519", "ssh-ed25519"),
        ("-t ecdsa -b 256", "ecdsa-sha2-nistp256"),
        ("-t rsa -b 2048", "ssh-rsa"),
    ],
)
def test_lines_of_ssh_keygen_are_read(tmp_path: Path, options: str, kind: str) -> None:
    file = tmp_path / "id"
    run(
        ["ssh-keygen", "-q", *options.split(), "-N", "", "-C", "ann at work", "-f", str(file)],
        check=True,
    )
    line = file.with_suffix(".pub").read_text()
    found = ssh.parse_public_key_line(line)
    assert (found.type, found.comment) == (kind, "ann at work")
    assert base64.b64encode(found.blob).decode() == line.split()[1]
    assert ssh.wire_string(kind) + found.fields == found.blob


@pytest.mark.parametrize("kind", SK_FIELDS)
def test_lines_of_security_keys_are_read(tmp_path: Path, kind: str) -> None:
    line = line_of(kind, *SK_FIELDS[kind])
    assert ssh.parse_public_key_line(line).type == kind
    (tmp_path / "sk.pub").write_text(line)
    run(["ssh-keygen", "-l", "-f", str(tmp_path / "sk.pub")], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("kind", "certificate"),
    [
        ("ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com"),
        ("sk-ssh-ed25519@openssh.com", "sk-ssh-ed25519-cert-v01@openssh.com"),
    ],
)
def test_certificate_types_follow_openssh(kind: str, certificate: str) -> None:
    assert ssh.SshPublicKey(type=kind, blob=b"").certificate_type == certificate


GOOD = line_of("ssh-ed25519", ED25519.public_bytes_raw())
POINT = P256.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("", "something else"),
        ("ssh-dss AAAA", "ssh-dss"),
        ("ecdsa-sha2-nistp384 AAAA", "ecdsa-sha2-nistp384"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "cert-v01"),
        ('command="id" ' + GOOD, "something else"),
        (GOOD + " a\n" + GOOD, "one line"),
        (GOOD + " \x1b[2J", "one line"),
        ("ssh-ed25519", "not one"),
        ("ssh-ed25519 !!!!", "not one"),
        ("ssh-ed25519 AAAA", "not one"),
        (line_of("ssh-ed25519", b"\0" * 31), "not one"),
        (line_of("ssh-ed25519", ED25519.public_bytes_raw(), b""), "not one"),
        (GOOD.replace("ssh-ed25519 ", "ssh-rsa "), "not one"),
        (GOOD[:-1], "not one"),
        (line_of("ecdsa-sha2-nistp256", "nistp384", POINT), "not one"),
        (line_of("ecdsa-sha2-nistp256", "nistp256", POINT[:-1] + b"\0"), "not one"),
        (
            line_of(
                "ecdsa-sha2-nistp256",
                "nistp256",
                P256.public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
            ),
            "not one",
        ),
        (rsa_line(65537, 2**1023 + 1), "met 1024 bits"),
        (rsa_line(3, 2**2047 + 1), "exponent"),
        (rsa_line(65538, 2**2047 + 1), "not one"),
        (line_of("ssh-rsa", b"\1\0\1", b"\xff" * 256), "not one"),
        (line_of("ssh-rsa", b"\0\1\0\1", b"\0" + b"\xff" * 256), "not one"),
        ("ssh-rsa " + "A" * 9000, "at most 8192"),
    ],
)
def test_bad_lines_are_refused(line: str, what: str) -> None:
    with pytest.raises(MalformedRequest, match=what):
        ssh.parse_public_key_line(line)


@given(st.binary(max_size=35))  # one byte less than the shortest key
@example(b"\xff\xff\xff\xff")
@example(b"\0\0\0")
def test_no_blob_makes_the_parser_fall_over(blob: bytes) -> None:
    for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa", *SK_FIELDS):
        line = f"{kind} {base64.b64encode(ssh.wire_string(kind) + blob).decode()}"
        with pytest.raises(MalformedRequest):
            ssh.parse_public_key_line(line)


@given(st.text(max_size=200))
def test_no_text_makes_the_parser_fall_over(line: str) -> None:
    with pytest.raises(MalformedRequest):
        ssh.parse_public_key_line(line)


def test_read_keys_are_those_that_pyca_reads() -> None:
    read = load_ssh_public_key(GOOD.encode())
    assert isinstance(read, ed25519.Ed25519PublicKey)
    assert ssh.parse_public_key_line(GOOD).blob == ssh.public_key_blob(spki_of(read))


def test_an_ed25519_signature_stays_as_it_is() -> None:
    raw = bytes(range(64))
    assert ssh.signature_blob("ed25519", raw) == ssh.wire_strings("ssh-ed25519", raw)


@given(st.integers(1, 2**256), st.integers(1, 2**256))
def test_an_ecdsa_signature_becomes_two_mpints(r: int, s: int) -> None:
    blob = ssh.signature_blob("ecdsa-p256-sha256", encode_dss_signature(r, s))
    inner = ssh.wire_mpint(r) + ssh.wire_mpint(s)
    assert blob == ssh.wire_strings("ecdsa-sha2-nistp256", inner)


def test_the_mpints_are_those_of_the_signature() -> None:
    key = ec.derive_private_key(7, ec.SECP256R1())
    raw = key.sign(b"message", ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(raw)
    blob = ssh.signature_blob("ecdsa-p256-sha256", raw)
    assert r.to_bytes(32, "big").lstrip(b"\0") in blob
    assert blob.endswith(s.to_bytes(32, "big").lstrip(b"\0"))


@pytest.mark.parametrize(
    ("algorithm", "raw"), [("ecdsa-p256-sha256", b"\x30\x00"), ("ml-dsa-65", b""), ("none", b"")]
)
def test_other_signatures_are_refused(algorithm: str, raw: bytes) -> None:
    with pytest.raises(MalformedRequest, match=r"expected|no SSH signature"):
        ssh.signature_blob(algorithm, raw)
