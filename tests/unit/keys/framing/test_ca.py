"""Certificates and CRLs of an authority: foreign tools accept them, the policy's rules refuse."""

import json
from ipaddress import ip_address
from pathlib import Path
from subprocess import run
from typing import Any

import msgspec
import pytest
from cryptography import x509 as pyca
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from keystead import limits
from keystead.errors import (
    InvariantViolation,
    KeyStateError,
    KeysteadError,
    LimitExceeded,
    MalformedRequest,
    PermissionDenied,
)
from keystead.keys.framing import ca
from keystead.keys.framing.base import CounterStep, Framed, Scene
from keystead.keys.lifecycle import State
from keystead.keys.model import CaPolicy, Key, Policy, Version
from keystead.keys.purposes import Purpose

VECTOR = Path(__file__).parents[3] / "vectors" / "ca.json"
NOW_MS = 1_790_000_000_123
NOW_S = NOW_MS // 1000
DAY_S = 24 * 3600
RANDOM = bytes(range(224, 256))
POLICY = CaPolicy(common_name="Shop CA", dns_suffixes=("shop.example", ".Test.example"))
AUTHORITIES: dict[str, CertificateIssuerPrivateKeyTypes] = {
    "ecdsa-p256-sha256": ec.derive_private_key(7, ec.SECP256R1()),
    "ecdsa-p384-sha384": ec.derive_private_key(7, ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32),
    "rsa-pkcs1-3072-sha256": rsa.generate_private_key(
        65537, 2048
    ),  # smaller, because it is quicker
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.from_seed_bytes(b"\1" * 32),
}


def spki_of(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign(key: CertificateIssuerPrivateKeyTypes, message: bytes) -> bytes:
    match key:
        case ec.EllipticCurvePrivateKey():
            digest = hashes.SHA256() if key.curve.name == "secp256r1" else hashes.SHA384()
            return key.sign(message, ec.ECDSA(digest))
        case rsa.RSAPrivateKey():
            return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        case ed25519.Ed25519PrivateKey() | mldsa.MLDSA65PrivateKey():
            return key.sign(message)
    raise AssertionError(key)


def finish(framed: Framed, algorithm: str) -> ca.CaResult:
    result = framed.finish((sign(AUTHORITIES[algorithm], framed.message),))
    assert isinstance(result, ca.CaResult)
    return result


def scene_of(algorithm: str = "ed25519", policy: CaPolicy = POLICY, **changes: object) -> Scene:
    """A scene after the version got its own certificate, made at the same time."""
    public, new = (spki_of(AUTHORITIES[algorithm]),), State.PRE_ACTIVATION
    version = Version(
        number=1, state=new, algorithm=algorithm, public=public, kid="kid", created_ms=NOW_MS
    )
    key = Key(
        id="k1",
        name="shop-ca",
        tenant="t",
        labels={},
        purpose=Purpose.CA,
        algorithms=(algorithm,),
        prehashed=False,
        policy=Policy(ca=policy),
        generation=1,
        primary=1,
        versions=(version,),
        revision=1,
        epoch=1,
        created_ms=NOW_MS,
    )
    root = finish(ca.self_signed_frame(key, version, NOW_MS, RANDOM[::-1]), algorithm)
    version = replace(version, certificate=root.certificate)
    scene = Scene(key=key, version=version, context="web/eu", now_ms=NOW_MS, random=RANDOM)
    return replace(scene, **changes)


def csr_of(
    *dns: str, common_name: str | None = None, key: CertificateIssuerPrivateKeyTypes | None = None
) -> str:
    subject = [] if common_name is None else [pyca.NameAttribute(NameOID.COMMON_NAME, common_name)]
    builder = pyca.CertificateSigningRequestBuilder().subject_name(pyca.Name(subject))
    if dns:
        names = pyca.SubjectAlternativeName([pyca.DNSName(name) for name in dns])
        builder = builder.add_extension(names, critical=False)
    key = key or ed25519.Ed25519PrivateKey.from_private_bytes(b"\2" * 32)
    return builder.sign(key, None).public_bytes(serialization.Encoding.PEM).decode()


CSR = csr_of("www.shop.example", "*.api.shop.example", common_name="www.shop.example")


def facts_of(text: dict[str, Any]) -> ca.SignCa:
    """Facts by the way they come: decoded, so that their shape is checked too."""
    return msgspec.json.decode(json.dumps(text), type=ca.SignCa)


def certificate(scene: Scene, **changes: object) -> pyca.Certificate:
    asked = {"csr": CSR, "lifetime_s": DAY_S} | changes
    framed = ca.CA.frame(facts_of({"certificate": asked}), scene)
    assert framed.step is None
    der = finish(framed, scene.version.algorithm).certificate
    assert der is not None
    return pyca.load_der_x509_certificate(der)


def crl(scene: Scene, *revoked: dict[str, Any], **changes: object) -> ca.CaResult:
    facts = facts_of({"crl": {"revoked": revoked} | changes})
    return finish(ca.CA.frame(facts, scene), scene.version.algorithm)


def root_pem(scene: Scene) -> str:
    assert scene.version.certificate is not None
    root = pyca.load_der_x509_certificate(scene.version.certificate)
    return root.public_bytes(serialization.Encoding.PEM).decode()


def openssl(*words: str) -> str:
    """What openssl says, whether it likes it or not, on one line."""
    done = run(["openssl", *words], capture_output=True, text=True, check=False)
    return " ".join((done.stdout + done.stderr).split())


def assert_openssl_verifies(folder: Path, root: str, leaf: str, *options: str) -> None:
    (folder / "root.pem").write_text(root)
    (folder / "leaf.pem").write_text(leaf)
    words = ["-attime", str(NOW_S), "-x509_strict", "-CAfile", str(folder / "root.pem"), *options]
    assert "leaf.pem: OK" in openssl("verify", *words, str(folder / "leaf.pem"))


# --- what foreign tools say ----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [name for name in AUTHORITIES if name != "ml-dsa-65"])
def test_openssl_verifies_the_chain(tmp_path: Path, algorithm: str) -> None:
    scene = scene_of(algorithm)
    leaf = certificate(scene).public_bytes(serialization.Encoding.PEM).decode()
    options = ["-purpose", "sslserver", "-verify_hostname", "a.api.shop.example"]
    assert_openssl_verifies(tmp_path, root_pem(scene), leaf, *options)
    (tmp_path / "crl.pem").write_text(crl(scene, {"serial": "2a", "revoked_at_s": 5}).pem)
    revocation = ["-crl_check", "-CRLfile", str(tmp_path / "crl.pem")]
    assert_openssl_verifies(tmp_path, root_pem(scene), leaf, *revocation)


@pytest.mark.parametrize("algorithm", AUTHORITIES)
def test_pyca_verifies_the_chain(algorithm: str) -> None:
    scene = scene_of(algorithm)
    root = pyca.load_pem_x509_certificate(root_pem(scene).encode())
    root.verify_directly_issued_by(root)
    certificate(scene).verify_directly_issued_by(root)
    der = crl(scene).crl
    assert der is not None
    key = AUTHORITIES[algorithm].public_key()
    assert pyca.load_der_x509_crl(der).is_signature_valid(key)


def test_openssl_sees_the_revocation(tmp_path: Path) -> None:
    scene = scene_of()
    leaf = certificate(scene)
    serial = f"{leaf.serial_number:x}"
    entry = {"serial": serial, "revoked_at_s": NOW_S, "reason": "keyCompromise"}
    (tmp_path / "root.pem").write_text(root_pem(scene))
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "crl.pem").write_text(crl(scene, entry).pem)
    root, revoked = str(tmp_path / "root.pem"), str(tmp_path / "crl.pem")
    shown = openssl("crl", "-in", revoked, "-CAfile", root, "-noout", "-text")
    assert "verify OK" in shown
    assert "Key Compromise" in shown
    words = ["verify", "-attime", str(NOW_S), "-crl_check", "-CRLfile", revoked, "-CAfile", root]
    assert "certificate revoked" in openssl(*words, str(tmp_path / "leaf.pem"))


def test_openssl_reads_the_profile(tmp_path: Path) -> None:
    (tmp_path / "leaf.pem").write_bytes(
        certificate(scene_of()).public_bytes(serialization.Encoding.PEM)
    )
    shown = openssl("x509", "-in", str(tmp_path / "leaf.pem"), "-noout", "-text")
    for part in (
        "Version: 3",
        "Issuer: CN = Shop CA",
        "Subject: CN = www.shop.example",
        "X509v3 Basic Constraints: critical CA:FALSE",
        "X509v3 Key Usage: critical Digital Signature X509v3",
        "X509v3 Extended Key Usage: TLS Web Server Authentication X509v3",
        "X509v3 Subject Alternative Name: DNS:www.shop.example, DNS:*.api.shop.example X509v3",
        "X509v3 Authority Key Identifier:",
        "X509v3 Subject Key Identifier:",
    ):
        assert part in shown


def test_openssl_reads_the_root(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text(root_pem(scene_of()))
    shown = openssl("x509", "-in", str(tmp_path / "root.pem"), "-noout", "-text")
    for part in (
        "Basic Constraints: critical CA:TRUE, pathlen:0",
        "Key Usage: critical Certificate Sign, CRL Sign X509v3",
        "Name Constraints: critical Permitted: DNS:shop.example DNS:test.example",
    ):
        assert part in shown


def test_the_root_constrains_names_for_whoever_trusts_it(tmp_path: Path) -> None:
    """Were the vault's own check passed by, the certificate would still not verify."""
    elsewhere = scene_of(policy=replace(POLICY, dns_suffixes=("else.example",)))
    leaf = certificate(elsewhere, dns=["www.else.example"])
    (tmp_path / "root.pem").write_text(root_pem(scene_of()))
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    words = ["verify", "-attime", str(NOW_S), "-CAfile", str(tmp_path / "root.pem")]
    assert "permitted subtree violation" in openssl(*words, str(tmp_path / "leaf.pem"))


# --- what the vault builds -----------------------------------------------------------------------


def test_serial_numbers_are_twenty_positive_octets_of_randomness() -> None:
    serials = {
        certificate(scene_of(random=bytes([first]) + RANDOM[1:])).serial_number
        for first in range(0, 256, 17)
    }
    assert all(serial.bit_length() == 159 for serial in serials)
    assert len({serial.to_bytes(20, "big")[1:] for serial in serials}) == 1
    assert certificate(scene_of(random=bytes(32))).serial_number == 1 << 158


def test_validity_begins_a_little_earlier_and_ends_as_asked() -> None:
    made = certificate(scene_of(), lifetime_s=60)
    assert made.not_valid_before_utc.timestamp() == NOW_S - limits.CERT_BACKDATE_S
    assert made.not_valid_after_utc.timestamp() == NOW_S + 60


def test_the_result_repeats_what_callers_need() -> None:
    facts = facts_of({"certificate": {"csr": CSR, "lifetime_s": 60}})
    result = finish(ca.CA.frame(facts, scene_of()), "ed25519")
    assert result.certificate is not None
    made = pyca.load_der_x509_certificate(result.certificate)
    assert result.pem == made.public_bytes(serialization.Encoding.PEM).decode()
    assert result.serial == f"{made.serial_number:040x}"
    assert result.not_after_ms == (NOW_S + 60) * 1000
    assert (result.crl, result.number, result.next_update_ms) == (None, None, None)


def test_a_client_profile_is_for_clients() -> None:
    usages = certificate(scene_of(), profile="client").extensions.get_extension_for_class(
        pyca.ExtendedKeyUsage
    )
    assert [usage.dotted_string for usage in usages.value] == ["1.3.6.1.5.5.7.3.2"]


@pytest.mark.parametrize(
    ("common_name", "kept"),
    [("WWW.shop.example", "www.shop.example"), ("Ann's server", None), (None, None)],
)
def test_a_common_name_stays_only_if_it_is_a_name_too(
    common_name: str | None, kept: str | None
) -> None:
    made = certificate(scene_of(), csr=csr_of("www.shop.example", common_name=common_name))
    found = [attribute.value for attribute in made.subject]
    names = made.extensions.get_extension_for_class(pyca.SubjectAlternativeName)
    assert found == ([kept] if kept else [])
    assert names.critical is (kept is None)  # RFC 5280 section 4.2.1.6


def test_names_given_take_the_place_of_the_requests() -> None:
    made = certificate(scene_of(), dns=["B.shop.example", "b.SHOP.example", "a.test.example"])
    names = made.extensions.get_extension_for_class(pyca.SubjectAlternativeName).value
    assert names.get_values_for_type(pyca.DNSName) == ["b.shop.example", "a.test.example"]


def test_addresses_of_a_request_can_be_overridden() -> None:
    both = [pyca.DNSName("a.shop.example"), pyca.IPAddress(ip_address("192.0.2.1"))]
    request = (
        pyca.CertificateSigningRequestBuilder()
        .subject_name(pyca.Name([]))
        .add_extension(pyca.SubjectAlternativeName(both), critical=False)
        .sign(AUTHORITIES["ecdsa-p256-sha256"], hashes.SHA256())
    )
    text = request.public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(PermissionDenied, match="no IP addresses"):
        certificate(scene_of(), csr=text)
    names = certificate(scene_of(), csr=text, ip=[]).extensions.get_extension_for_class(
        pyca.SubjectAlternativeName
    )
    assert [name.value for name in names.value] == ["a.shop.example"]


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "what"),
    [
        ({"dns": ["www.shop.example.evil.example"]}, PermissionDenied, "does not allow the name"),
        ({"dns": ["evilshop.example"]}, PermissionDenied, "does not allow the name"),
        ({"dns": ["example"]}, PermissionDenied, "does not allow the name"),
        ({"dns": ["*.example"]}, PermissionDenied, "does not allow the name"),
        ({"dns": ["ok.shop.example", "evil.example"]}, PermissionDenied, "'evil.example'"),
        ({"dns": []}, MalformedRequest, "met 0"),
        ({"csr": csr_of(common_name="www.shop.example")}, MalformedRequest, "met 0"),
        ({"dns": ["a.shop.example"] * 101}, MalformedRequest, "met 101"),
        ({"ip": ["192.0.2.1"]}, PermissionDenied, "no IP addresses"),
        ({"lifetime_s": 90 * DAY_S + 1}, LimitExceeded, "7776000 s of life"),
        ({"csr": "nonsense"}, MalformedRequest, "PKCS#10"),
        (
            {"csr": csr_of("a.shop.example", key=AUTHORITIES["ed25519"])},
            PermissionDenied,
            "authority's own key",
        ),
    ],
)
def test_certificates_outside_the_policy_are_refused(
    changes: dict[str, object], error: type[KeysteadError], what: str
) -> None:
    with pytest.raises(error, match=what):
        certificate(scene_of(), **changes)


@pytest.mark.parametrize(
    "label",
    ["", "a.*", "*.*", "w*", "a.", "-a", "a-", "höhle", "a_b", "a/b", "a\0", "a" * 64, "a." * 125],
)
def test_what_is_no_dns_name_is_refused(label: str) -> None:
    for name in (f"{label}.shop.example", f"{label}.", f"{label}\n", "*"):
        with pytest.raises(MalformedRequest, match="expected a DNS name"):
            certificate(scene_of(), dns=[name])


def test_a_certificate_never_outlives_its_authority() -> None:
    short = replace(POLICY, own_lifetime_s=100)
    made = certificate(scene_of(policy=short), lifetime_s=100)
    assert made.not_valid_after_utc.timestamp() == NOW_S + 100
    with pytest.raises(LimitExceeded, match="ends in 100 s, the request asks for 101 s"):
        certificate(scene_of(policy=short), lifetime_s=101)
    with pytest.raises(KeyStateError, match="has ended"):
        certificate(scene_of(policy=short, now_ms=NOW_MS + 100_000), lifetime_s=1)


def test_an_authority_without_suffixes_issues_nothing() -> None:
    scene = scene_of(policy=replace(POLICY, dns_suffixes=()))
    with pytest.raises(PermissionDenied, match="under: none"):
        certificate(scene)
    root = pyca.load_pem_x509_certificate(root_pem(scene).encode())
    assert pyca.NameConstraints not in [type(extension.value) for extension in root.extensions]


def test_a_policy_wider_than_the_authoritys_certificate_does_not_help() -> None:
    scene = scene_of()
    wider = replace(POLICY, dns_suffixes=("example",))
    key = replace(scene.key, policy=Policy(ca=wider))
    with pytest.raises(PermissionDenied, match="rotate the key"):
        certificate(replace(scene, key=key), dns=["www.other.example"])


def test_a_version_without_its_own_certificate_issues_nothing() -> None:
    scene = scene_of()
    bare = replace(scene, version=replace(scene.version, certificate=None))
    with pytest.raises(KeyStateError, match="no certificate of its own"):
        certificate(bare)
    with pytest.raises(KeyStateError, match="no certificate of its own"):
        crl(bare)


def test_a_certificate_of_another_key_is_a_fault_of_ours() -> None:
    scene = scene_of()
    other = replace(scene.version, public=(spki_of(AUTHORITIES["ecdsa-p256-sha256"]),))
    with pytest.raises(InvariantViolation, match="another public key"):
        certificate(replace(scene, version=other))


def test_a_key_without_policy_issues_nothing() -> None:
    scene = scene_of()
    with pytest.raises(MalformedRequest, match="no policy"):
        certificate(replace(scene, key=replace(scene.key, policy=Policy())))


@pytest.mark.parametrize(
    "text",
    [{}, {"certificate": {"csr": CSR, "lifetime_s": 1}, "crl": {"revoked": []}}],
)
def test_exactly_one_thing_is_asked_for(text: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequest, match="exactly one of certificate and crl"):
        ca.CA.frame(facts_of(text), scene_of())


@pytest.mark.parametrize(
    "text",
    [
        {"certificate": {"csr": CSR, "lifetime_s": 0}},
        {"certificate": {"csr": CSR, "lifetime_s": 1, "profile": "ca"}},
        {"certificate": {"csr": CSR, "lifetime_s": 1, "is_ca": True}},
        {"crl": {"revoked": [{"serial": "1", "revoked_at_s": 1, "reason": "removeFromCRL"}]}},
        {"crl": {"revoked": []}, "tbs": ""},
    ],
)
def test_facts_of_another_shape_do_not_decode(text: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        facts_of(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"common_name": ""},
        {"common_name": "x" * 65},
        {"common_name": "a\nb"},
        {"dns_suffixes": ("*.shop.example",)},
        {"dns_suffixes": ("",)},
        {"dns_suffixes": ("shop example",)},
        {"own_lifetime_s": 0},
        {"own_lifetime_s": 2**40},
    ],
)
def test_a_policy_that_no_certificate_can_carry_makes_no_root(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequest):
        scene_of(policy=replace(POLICY, **changes))


# --- CRLs ----------------------------------------------------------------------------------------


def test_a_crl_counts_durably() -> None:
    facts = facts_of({"crl": {"revoked": []}})
    assert ca.CA.counter_name(facts) == "crl"
    assert ca.CA.counter_name(facts_of({"certificate": {"csr": CSR, "lifetime_s": 1}})) is None
    first = ca.CA.frame(facts, scene_of())
    assert first.step == CounterStep("crl", None, b"\0" * 7 + b"\1")
    second = ca.CA.frame(facts, scene_of(counter=first.step.new))
    assert second.step == CounterStep("crl", first.step.new, b"\0" * 7 + b"\2")
    assert finish(second, "ed25519").number == 2
    with pytest.raises(InvariantViolation, match="counter of 8 bytes"):
        ca.CA.frame(facts, scene_of(counter=b"1"))


def test_a_crl_says_what_it_was_asked_to() -> None:
    result = crl(
        scene_of(counter=bytes(8)),
        {"serial": "FF", "revoked_at_s": NOW_S, "reason": "superseded"},
        {"serial": "03", "revoked_at_s": NOW_S - 1},
        lifetime_s=3600,
    )
    assert result.crl is not None
    read = pyca.load_der_x509_crl(result.crl)
    assert [entry.serial_number for entry in read] == [3, 255]
    assert read.next_update_utc is not None
    assert read.next_update_utc.timestamp() * 1000 == result.next_update_ms
    assert read.last_update_utc.timestamp() == NOW_S - limits.CERT_BACKDATE_S
    number = read.extensions.get_extension_for_class(pyca.CRLNumber).value.crl_number
    assert (number, result.number) == (1, 1)
    assert (result.certificate, result.serial, result.not_after_ms) == (None, None, None)


@pytest.mark.parametrize(
    ("revoked", "changes", "error", "what"),
    [
        ([{"serial": "", "revoked_at_s": 1}], {}, MalformedRequest, "serial numbers in hex"),
        ([{"serial": "0", "revoked_at_s": 1}], {}, MalformedRequest, "serial numbers in hex"),
        ([{"serial": "-1", "revoked_at_s": 1}], {}, MalformedRequest, "serial numbers in hex"),
        ([{"serial": "1_0", "revoked_at_s": 1}], {}, MalformedRequest, "serial numbers in hex"),
        ([{"serial": "8" + "0" * 39, "revoked_at_s": 1}], {}, MalformedRequest, "20 octets"),
        ([{"serial": "0" * 41, "revoked_at_s": 1}], {}, MalformedRequest, "20 octets"),
        ([{"serial": "a", "revoked_at_s": 1}] * 2, {}, MalformedRequest, "each once"),
        (
            [{"serial": "a", "revoked_at_s": 1}, {"serial": "0A", "revoked_at_s": 1}],
            {},
            MalformedRequest,
            "each once",
        ),
        ([{"serial": "a", "revoked_at_s": NOW_S + 1}], {}, MalformedRequest, "not after now"),
        ([], {"lifetime_s": 10 * DAY_S + 1}, LimitExceeded, "at most 864000 s"),
        (
            [{"serial": f"{at:x}", "revoked_at_s": 1} for at in range(1, 10_002)],
            {},
            LimitExceeded,
            "met 10001",
        ),
    ],
    ids=str,
)
def test_crls_that_cannot_be_are_refused(
    revoked: list[dict[str, Any]],
    changes: dict[str, object],
    error: type[KeysteadError],
    what: str,
) -> None:
    with pytest.raises(error, match=what):
        crl(scene_of(), *revoked, **changes)


# --- suffixes ------------------------------------------------------------------------------------

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


@given(NAMES, NAMES)
def test_a_name_below_a_suffix_is_under_it(below: str, suffix: str) -> None:
    assert ca.is_under(f"{below}.{suffix}", (suffix,))
    assert ca.is_under(f"*.{below}.{suffix}", (suffix,))
    assert ca.is_under(f"*.{suffix}", (suffix,))
    assert ca.is_under(suffix, (suffix,))


@given(NAMES, NAMES)
@example("evilshop.example", "shop.example")
@example("shop.example.evil", "shop.example")
def test_under_is_by_whole_labels(name: str, suffix: str) -> None:
    parts, wanted = name.split("."), suffix.split(".")
    assert ca.is_under(name, (suffix,)) == (parts[-len(wanted) :] == wanted)


@given(LABELS, NAMES)
def test_a_suffix_glued_to_a_label_is_not_under_it(label: str, suffix: str) -> None:
    assert not ca.is_under(f"{label}-{suffix}", (suffix,))
    assert not ca.is_under(f"*.{label}-{suffix}", (suffix,))


@given(NAMES)
def test_nothing_is_under_no_suffix(name: str) -> None:
    assert not ca.is_under(name, ())
    assert ca.check_dns_name(name.upper()) == name


@given(st.text(max_size=30))
def test_a_checked_name_is_plain_ascii(name: str) -> None:
    try:
        checked = ca.check_dns_name(name)
    except MalformedRequest:
        return
    assert checked.isascii()
    assert checked == checked.strip().lower()
    assert not {*checked.removeprefix("*.")} & {"*", "/", "\0", "\n", "_"}


# --- the fixed vector ----------------------------------------------------------------------------


def vector_of(given: dict[str, Any]) -> dict[str, Any]:
    """What our code makes of the vector's inputs; Ed25519 signs the same way each time."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(given["authority_seed"]))
    base = scene_of()
    version = replace(base.version, public=(spki_of(key),), certificate=None)
    policy = msgspec.convert(given["policy"], CaPolicy)
    scene = replace(
        base,
        key=replace(base.key, policy=Policy(ca=policy)),
        now_ms=given["now_ms"],
        random=bytes.fromhex(given["random"]),
    )
    framed = ca.self_signed_frame(scene.key, version, scene.now_ms, scene.random[::-1])
    made: dict[str, Any] = {}
    for name in ("root", "certificate", "crl"):
        if name != "root":
            framed = ca.CA.frame(facts_of({name: given[name]}), scene)
        result = framed.finish((key.sign(framed.message),))
        assert isinstance(result, ca.CaResult)
        made[name] = {"tbs": framed.message.hex(), "pem": result.pem}
        if name == "root":
            scene = replace(scene, version=replace(version, certificate=result.certificate))
    return made


def test_the_vector_is_made_byte_for_byte() -> None:
    vector = json.loads(VECTOR.read_text())
    assert vector_of(vector["given"]) == vector["expected"]


def test_openssl_accepts_the_vector(tmp_path: Path) -> None:
    expected = json.loads(VECTOR.read_text())["expected"]
    (tmp_path / "crl.pem").write_text(expected["crl"]["pem"])
    options = ["-purpose", "sslserver", "-crl_check", "-CRLfile", str(tmp_path / "crl.pem")]
    assert_openssl_verifies(
        tmp_path, expected["root"]["pem"], expected["certificate"]["pem"], *options
    )
