"""Certificates and CRLs of an authority: byte-equal from the given scene, and openssl verifies.

What openssl must not accept stands under `forged`, with the failure that openssl has for it: the
names of its `X509_V_ERR_` constants, in lower case and without the prefix.
"""

import re
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from keystead.crypto.x509 import pem
from keystead.keys.framing.base import Framed, Scene
from keystead.keys.framing.ca import (
    CA,
    CaResult,
    CertificateRequest,
    CrlRequest,
    SignCa,
    self_signed_frame,
)
from keystead.keys.model import CaPolicy, Policy
from keystead.keys.purposes import Purpose
from vectors.openssl import openssl
from vectors.reading import (
    FOLDER,
    Given,
    Hex,
    Strict,
    decode,
    key_of,
    read,
    refusal,
    scene_of,
    shows,
    signatures_of,
)

ALGORITHM = "ed25519"
ERRORS = {
    "cert_signature_failure": 7,
    "crl_signature_failure": 8,
    "cert_not_yet_valid": 9,
    "cert_has_expired": 10,
    "crl_has_expired": 12,
    "cert_revoked": 23,
    "invalid_purpose": 26,
    "permitted_violation": 47,
    "invalid_ca": 79,
}
"""Failure classes: what openssl calls them, and its number (x509_vfy.h)."""


class AuthorityGiven(Strict, frozen=True):
    """``random``: the 32 bytes of certificate and CRL; the root's are these, reversed."""

    authority_seed: Hex
    now_ms: int
    random: Hex
    policy: CaPolicy
    certificate: CertificateRequest
    crl: CrlRequest


class Made(Strict, frozen=True):
    tbs: Hex
    pem: str


class Expected(Strict, frozen=True):
    root: Made
    certificate: Made
    crl: Made


class Asked(Strict, frozen=True):
    """The given certificate or CRL request, with these fields changed."""

    of: Literal["certificate", "crl"]
    changes: dict[str, Any]


class Refused(Strict, frozen=True):
    shows: str
    failure: str
    given: Asked


class ForgedGiven(Strict, frozen=True):
    """``certificate`` is checked against the root, with ``crl`` and ``between`` if they are there.

    ``after_s``: when, in seconds from the given clock.
    """

    certificate: str
    between: str | None = None
    crl: str | None = None
    purpose: Literal["sslserver", "sslclient"] = "sslserver"
    after_s: int = 0


class Forged(Strict, frozen=True):
    shows: str
    failure: str
    given: ForgedGiven


class File(Strict, frozen=True):
    about: str
    given: AuthorityGiven
    expected: Expected
    refused: tuple[Refused, ...]
    forged: tuple[Forged, ...]


FILE = read("ca", File)
SEED = ed25519.Ed25519PrivateKey.from_private_bytes(FILE.given.authority_seed)
AUTHORITY = Given(
    keys={
        ALGORITHM: (
            SEED.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode(),
        )
    },
    now_ms=FILE.given.now_ms,
)
KEY = key_of(Purpose.CA, AUTHORITY, Policy(ca=FILE.given.policy))
NAMES = ("root", "certificate", "crl")
each_name = pytest.mark.parametrize("name", NAMES)


def der(armoured: str) -> bytes:
    """The bytes inside PEM, by openssl."""
    kind = "crl" if "X509 CRL" in armoured else "x509"
    status, said, complaints = openssl(kind, "-outform", "DER", data=armoured.encode())
    assert status == 0, complaints
    return said


def scene() -> Scene:
    base = scene_of(KEY, ALGORITHM)
    version = msgspec.structs.replace(base.version, certificate=der(FILE.expected.root.pem))
    return msgspec.structs.replace(base, version=version, random=FILE.given.random)


def framed(name: str) -> Framed:
    if name == "root":
        return self_signed_frame(KEY, KEY.versions[0], KEY.created_ms, FILE.given.random[::-1])
    return CA.frame(SignCa(**{name: getattr(FILE.given, name)}), scene())


def made_by_custody(name: str) -> CaResult:
    frame = framed(name)
    result = frame.finish(signatures_of(AUTHORITY, ALGORITHM, frame.message))
    assert isinstance(result, CaResult)
    return result


def expected_of(name: str) -> Made:
    made = getattr(FILE.expected, name)
    assert isinstance(made, Made)
    return made


def verdict(folder: Path, given: ForgedGiven) -> int:
    """What openssl says of a certificate: 0, or the number of its first error."""
    (folder / "root.pem").write_text(FILE.expected.root.pem)
    (folder / "leaf.pem").write_text(given.certificate)
    at_s = FILE.given.now_ms // 1000 + given.after_s
    words: list[str | Path] = ["verify", "-x509_strict", "-attime", str(at_s)]
    words += ["-purpose", given.purpose, "-CAfile", folder / "root.pem"]
    if given.crl is not None:
        (folder / "crl.pem").write_text(given.crl)
        words += ["-crl_check", "-CRLfile", folder / "crl.pem"]
    if given.between is not None:
        (folder / "between.pem").write_text(given.between)
        words += ["-untrusted", folder / "between.pem"]
    status, said, complaints = openssl(*words, folder / "leaf.pem")
    text = said.decode() + complaints
    found = re.search(r"error (\d+) at \d+ depth", text)
    accepted = f"{folder / 'leaf.pem'}: OK" in text
    if accepted == bool(status) or accepted == bool(found):
        pytest.fail(f"openssl gave no verdict (status {status}): {text}")
    return int(found[1]) if found else 0


# --- what is signed ------------------------------------------------------------------------------


@each_name
def test_the_signed_part_is_byte_equal(name: str) -> None:
    assert framed(name).message == expected_of(name).tbs


@each_name
def test_custody_signs_what_the_vector_holds(name: str) -> None:
    """Ed25519 signs the same way each time, so all of it is fixed."""
    assert made_by_custody(name).pem == expected_of(name).pem


# --- what openssl makes of it --------------------------------------------------------------------


@pytest.mark.parametrize("crl", [None, FILE.expected.crl.pem], ids=["alone", "with the CRL"])
def test_openssl_verifies_the_certificate(crl: str | None, tmp_path: Path) -> None:
    assert verdict(tmp_path, ForgedGiven(certificate=FILE.expected.certificate.pem, crl=crl)) == 0


def test_openssl_verifies_the_root_by_itself(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text(FILE.expected.root.pem)
    at_s = str(FILE.given.now_ms // 1000)
    words = ("verify", "-x509_strict", "-check_ss_sig", "-attime", at_s, "-CAfile")
    status, said, complaints = openssl(*words, tmp_path / "root.pem", tmp_path / "root.pem")
    assert (status, said.endswith(b": OK\n")) == (0, True), complaints


def test_openssl_verifies_the_crl(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text(FILE.expected.root.pem)
    words = ("crl", "-noout", "-CAfile", tmp_path / "root.pem", "-verify")
    status, said, complaints = openssl(*words, data=FILE.expected.crl.pem.encode())
    assert (status, b"verify OK" in said + complaints.encode()) == (0, True), complaints


def shown(name: str) -> str:
    kind = "crl" if name == "crl" else "x509"
    status, said, complaints = openssl(
        kind, "-noout", "-text", "-nameopt", "RFC2253", data=expected_of(name).pem.encode()
    )
    assert status == 0, complaints
    return " ".join(said.decode().split())


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        (
            "root",
            (
                "Subject: CN=Vector CA",
                "X509v3 Basic Constraints: critical CA:TRUE, pathlen:0",
                "X509v3 Key Usage: critical Certificate Sign, CRL Sign",
                "X509v3 Name Constraints: critical Permitted: DNS:shop.example",
            ),
        ),
        (
            "certificate",
            (
                "Issuer: CN=Vector CA",
                "Subject: CN=www.shop.example",
                "X509v3 Basic Constraints: critical CA:FALSE",
                "X509v3 Key Usage: critical Digital Signature",
                "X509v3 Extended Key Usage: TLS Web Server Authentication",
                "X509v3 Subject Alternative Name: DNS:www.shop.example, DNS:*.api.shop.example",
            ),
        ),
        (
            "crl",
            (
                "Issuer: CN=Vector CA",
                "X509v3 CRL Number: 1",
                "Serial Number: 09",
                "Serial Number: 0A",
                "X509v3 CRL Reason Code: Key Compromise",
            ),
        ),
    ],
)
def test_openssl_reads_what_was_asked_for(name: str, texts: tuple[str, ...]) -> None:
    text = shown(name)
    assert [wanted for wanted in texts if wanted not in text] == []


def test_openssl_reads_the_same_serials_and_key_ids() -> None:
    root, leaf = shown("root"), shown("certificate")
    result = made_by_custody("certificate")
    assert result.serial == leaf.split("Serial Number: ")[1].split()[0].replace(":", "")
    subject = root.split("X509v3 Subject Key Identifier: ")[1].split()[0]
    authority = leaf.split("X509v3 Authority Key Identifier: ")[1].split()[0]
    assert authority == subject


# --- what is refused, and what is forged ---------------------------------------------------------


@shows(FILE.refused)
def test_refusals(vector: Refused) -> None:
    given = msgspec.to_builtins(getattr(FILE.given, vector.given.of))

    def ask() -> None:
        facts = msgspec.convert({vector.given.of: given | vector.given.changes}, SignCa)
        CA.frame(facts, scene())

    assert refusal(ask) == vector.failure


def test_what_the_refusals_change_is_not_refused_itself() -> None:
    for name in ("certificate", "crl"):
        facts = msgspec.to_builtins(getattr(FILE.given, name))
        assert refusal(lambda: CA.frame(msgspec.convert({name: facts}, SignCa), scene())) == (  # noqa: B023  called at once
            "(not refused)"
        )


@shows(FILE.forged)
def test_forgeries(vector: Forged, tmp_path: Path) -> None:
    assert verdict(tmp_path, vector.given) == ERRORS[vector.failure]


def test_every_failure_class_has_its_vector() -> None:
    assert {vector.failure for vector in FILE.forged} == set(ERRORS)


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("given",),
        ("given", "policy"),
        ("given", "certificate"),
        ("given", "crl"),
        ("expected",),
        ("expected", "root"),
        ("refused", 0),
        ("refused", 0, "given"),
        ("forged", 0),
        ("forged", 0, "given"),
    ],
    ids=str,
)
def test_an_unknown_field_is_fatal(path: tuple[str | int, ...]) -> None:
    document = inner = msgspec.json.decode((FOLDER / "ca.json").read_bytes())
    for step in path:
        inner = inner[step]
    decode(msgspec.json.encode(document), File)
    inner["unheard_of"] = 1
    with pytest.raises(msgspec.ValidationError, match="unheard_of"):
        decode(msgspec.json.encode(document), File)


def test_the_armour_is_that_of_openssl() -> None:
    assert pem(der(FILE.expected.root.pem), "CERTIFICATE") == FILE.expected.root.pem
