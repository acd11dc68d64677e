"""What verifies is what the framings built; every way to alter it has its own refusal."""

import json

import jwt as pyjwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from keystead.encoding import b64u_decode, b64u_encode, canonical_json
from keystead.errors import (
    MalformedRequest,
    PurposeMismatch,
    SignatureInvalid,
    SignedByCompromised,
)
from keystead.keys.framing.jwt import JWT, JwtResult, SignJwt
from keystead.keys.framing.ledger import GENESIS
from keystead.keys.framing.tls import TLS, SignTls, TlsResult
from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.keys.purposes import Purpose
from keystead.keys.verify import (
    PublicKey,
    SignedEntry,
    VerifiedLedger,
    before_compromise,
    verify_firmware,
    verify_jwt,
    verify_ledger,
    verify_tls,
)
from unit.keys.signing import (
    DUAL,
    NOW_MS,
    NOW_S,
    component_key,
    ledger_of,
    manifest_of,
    published,
    signed,
    spki,
    vault_key,
)

# --- JWT -----------------------------------------------------------------------------------------


def token_of(key: Key, typ: str = "JWT", **claims: object) -> str:
    facts = msgspec.convert({"claims": {"aud": "api", "sub": "u1"} | claims, "typ": typ}, SignJwt)
    result, _ = signed(JWT, facts, key)
    assert isinstance(result, JwtResult)
    return result.token


def check_jwt_refused(
    token: str, key: PublicKey, error: type[Exception], match: str, **options: object
) -> None:
    given = {"audience": "api", "now_ms": NOW_MS} | options
    with pytest.raises(error, match=match):
        verify_jwt(token, key, **given)  # type: ignore[arg-type]  # each test overrides one of them


@pytest.mark.parametrize(
    "algorithm", ["ecdsa-p256-sha256", "ed25519", "rsa-pss-2048-sha256", "ml-dsa-65"]
)
def test_a_token_verifies_under_every_algorithm(algorithm: str) -> None:
    key = vault_key(Purpose.JWT, algorithm)
    facts = verify_jwt(
        token_of(key),
        published(key),
        audience="api",
        now_ms=NOW_MS,
        issuer="https://id.example",
    )
    assert facts.claims["sub"] == "u1"
    assert facts.expires_s == NOW_S + 3600
    assert (facts.signer.version, facts.signer.state) == (1, "active")
    assert facts.signer.kid == key.versions[0].kid


def test_a_foreign_library_signs_what_verifies() -> None:
    key = vault_key(Purpose.JWT, "ecdsa-p256-sha256")
    private = ec.generate_private_key(ec.SECP256R1())
    public = msgspec.structs.replace(key.versions[0], public=(spki(private.public_key()),))
    token = pyjwt.encode(
        {"aud": ["api", "web"], "exp": NOW_S + 60}, private, "ES256", {"kid": public.kid}
    )
    ours = msgspec.structs.replace(key, versions=(public,))
    facts = verify_jwt(token, published(ours), audience="web", now_ms=NOW_MS)
    assert facts.expires_s == NOW_S + 60


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ({"alg": "none"}, "says 'none'"),
        ({"alg": "HS256"}, "says 'HS256'"),
        ({"alg": "EdDSA"}, "signs by ES256"),
        ({"typ": "at+jwt"}, "expected typ"),
        ({"crit": ["exp"]}, "header members"),
        ({"jku": "https://evil.example"}, "header members"),
        ({"kid": "someone-else"}, "no version of that id"),
    ],
)
def test_the_header_decides_nothing(header: dict[str, object], match: str) -> None:
    key = vault_key(Purpose.JWT, "ecdsa-p256-sha256")
    claims = b64u_encode(json.dumps({"aud": "api", "exp": NOW_S + 60}).encode())
    full = {"alg": "ES256", "kid": key.versions[0].kid, "typ": "JWT"} | header
    head = b64u_encode(json.dumps(full).encode())
    signature = b64u_encode(bytes(64))
    check_jwt_refused(f"{head}.{claims}.{signature}", published(key), SignatureInvalid, match)


def test_altered_claims_and_signatures_are_refused() -> None:
    key = vault_key(Purpose.JWT, "ecdsa-p256-sha256")
    head, claims, signature = token_of(key).split(".")
    other = json.loads(b64u_decode(claims)) | {"sub": "root"}
    forged = b64u_encode(json.dumps(other).encode())
    public = published(key)
    check_jwt_refused(f"{head}.{forged}.{signature}", public, SignatureInvalid, "does not verify")
    check_jwt_refused(f"{head}.{claims}.", public, SignatureInvalid, "64 bytes")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"now_ms": NOW_MS + 3_600_000}, "expired 0 s ago"),
        ({"now_ms": NOW_MS - 60_000}, "iat is 60 s ahead"),
        ({"audience": "other"}, "not for 'other'"),
        ({"audience": None}, "for an audience"),
        ({"issuer": "https://other.example"}, "issuer"),
    ],
)
def test_claims_are_held_against_what_is_known(options: dict[str, object], match: str) -> None:
    key = vault_key(Purpose.JWT, "ed25519")
    check_jwt_refused(token_of(key), published(key), SignatureInvalid, match, **options)


def test_leeway_covers_clocks_that_differ() -> None:
    key = vault_key(Purpose.JWT, "ed25519")
    token, public = token_of(key), published(key)
    early, late = NOW_MS - 60_000, NOW_MS + 3_600_000 + 59_000
    for now_ms in (early, late):
        facts = verify_jwt(token, public, audience="api", now_ms=now_ms, leeway_s=60)
        assert facts.expires_s == NOW_S + 3600


def test_an_access_token_is_not_another_token() -> None:
    key = vault_key(Purpose.JWT, "ed25519")
    token = token_of(key, "at+jwt")
    check_jwt_refused(token, published(key), SignatureInvalid, "expected typ")
    facts = verify_jwt(token, published(key), audience="api", now_ms=NOW_MS, typ="at+jwt")
    assert facts.typ == "at+jwt"


@pytest.mark.parametrize(
    "token", ["", "a.b", "a.b.c.d", "!.b.c", "e30.e30.", "W10.e30.", "x" * 99_999, "e30.\ud800."]
)
def test_what_is_no_token_is_malformed(token: str) -> None:
    public = published(vault_key(Purpose.JWT, "ed25519"))
    check_jwt_refused(token, public, MalformedRequest, "expected")


def test_a_compromised_version_verifies_as_compromised_only() -> None:
    key = vault_key(Purpose.JWT, "ed25519")
    token = token_of(key)
    lost = published(key, {1: State.COMPROMISED})
    check_jwt_refused(token, lost, SignedByCompromised, "version 1 of shop is compromised")
    head, claims, _ = token.split(".")
    forged = f"{head}.{claims}.{b64u_encode(bytes(64))}"
    with pytest.raises(SignatureInvalid) as caught:
        verify_jwt(forged, lost, audience="api", now_ms=NOW_MS)
    assert not isinstance(caught.value, SignedByCompromised)


@pytest.mark.parametrize("state", State)
def test_each_state_counts_or_does_not(state: State) -> None:
    key = vault_key(Purpose.JWT, "ed25519")
    public = published(key, {1: state})
    if state not in {State.PRE_ACTIVATION, State.COMPROMISED}:
        facts = verify_jwt(token_of(key), public, audience="api", now_ms=NOW_MS)
        assert facts.signer.state == state
    else:
        check_jwt_refused(token_of(key), public, SignatureInvalid, f"is {state}")


def test_a_version_destroyed_after_its_compromise_stays_compromised() -> None:
    key = vault_key(Purpose.JWT, "ed25519")
    public = published(key, {1: State.DESTROYED})
    lost = msgspec.structs.replace(public.versions[0], compromised_epoch=7)
    public = msgspec.structs.replace(public, versions=(lost,))
    check_jwt_refused(token_of(key), public, SignedByCompromised, "is compromised")


def test_the_error_says_since_when_and_before_it_all_else_is_held() -> None:
    key = vault_key(Purpose.JWT, "ed25519")
    lost = msgspec.structs.replace(
        published(key, {1: State.COMPROMISED}).versions[0], compromised_epoch=7
    )
    public = msgspec.structs.replace(published(key), versions=(lost,))
    token = token_of(key)
    with pytest.raises(SignedByCompromised, match="compromised since epoch 7") as caught:
        verify_jwt(token, public, audience="api", now_ms=NOW_MS)
    assert (caught.value.version, caught.value.compromised_epoch) == (1, 7)
    earlier = before_compromise(public, 1)
    assert verify_jwt(token, earlier, audience="api", now_ms=NOW_MS).signer.version == 1
    with pytest.raises(SignatureInvalid, match="not for 'other'"):
        verify_jwt(token, earlier, audience="other", now_ms=NOW_MS)
    assert before_compromise(public, 2) == public


def test_a_key_verifies_its_own_purpose_only() -> None:
    key = vault_key(Purpose.JWT, "ed25519")
    other = msgspec.structs.replace(published(key), purpose="tls")
    check_jwt_refused(token_of(key), other, PurposeMismatch, "expected a jwt key")


@pytest.mark.parametrize(
    ("times", "error", "match"),
    [
        ({}, SignatureInvalid, "expected a token that expires"),
        ({"exp": "soon"}, MalformedRequest, "whole seconds"),
        ({"exp": NOW_S + 60.5}, MalformedRequest, "whole seconds"),
        ({"exp": True}, MalformedRequest, "whole seconds"),
        ({"exp": NOW_S + 60, "nbf": NOW_S + 1}, SignatureInvalid, "nbf is 1 s ahead"),
        ({"exp": NOW_S - 1}, SignatureInvalid, "expired 1 s ago"),
    ],
)
def test_times_no_vault_would_sign_are_refused(
    times: dict[str, object], error: type[Exception], match: str
) -> None:
    key = vault_key(Purpose.JWT, "ed25519")
    header = {"alg": "EdDSA", "kid": key.versions[0].kid, "typ": "JWT"}
    parts = [b64u_encode(json.dumps(p).encode()) for p in (header, {"aud": "api"} | times)]
    signature = component_key("ed25519", 1)[1](".".join(parts).encode())
    token = ".".join([*parts, b64u_encode(signature)])
    check_jwt_refused(token, published(key), error, match)


def test_a_published_version_of_missing_parts_is_malformed() -> None:
    key = vault_key(Purpose.FIRMWARE, DUAL)
    made, public = manifest_of(key), published(key)
    version = msgspec.structs.replace(
        public.versions[0], public_pem=public.versions[0].public_pem[:1]
    )
    with pytest.raises(MalformedRequest, match="expected 2 public keys"):
        verify_firmware(
            made.manifest, made.signatures, msgspec.structs.replace(public, versions=(version,))
        )


# --- firmware ------------------------------------------------------------------------------------


def test_a_dual_manifest_verifies() -> None:
    key = vault_key(Purpose.FIRMWARE, DUAL)
    made = manifest_of(key)
    facts = verify_firmware(
        made.manifest,
        made.signatures,
        published(key),
        name="router",
        version_min=7,
        image_sha256=b"\x11" * 32,
        image_size=4096,
    )
    assert (facts.name, facts.version, facts.size) == ("router", 7, 4096)
    assert facts.signer.algorithm == DUAL


@pytest.mark.parametrize("left", ["ecdsa-p256-sha256", "ml-dsa-65"])
def test_a_stripped_dual_signature_is_refused(left: str) -> None:
    key = vault_key(Purpose.FIRMWARE, DUAL)
    made = manifest_of(key)
    with pytest.raises(SignatureInvalid, match="sign it"):
        verify_firmware(made.manifest, {left: made.signatures[left]}, published(key))


@pytest.mark.parametrize("left", ["ecdsa-p256-sha256", "ml-dsa-65"])
def test_a_manifest_that_names_one_of_two_algorithms_is_refused(left: str) -> None:
    # Whoever broke one of two algorithms signs a manifest that never speaks of the other.
    key = vault_key(Purpose.FIRMWARE, DUAL)
    members = json.loads(manifest_of(key).manifest) | {"algorithms": [left]}
    manifest = canonical_json(members)
    signature = component_key(left, 1)[1](manifest)
    with pytest.raises(SignatureInvalid, match="expected signatures by"):
        verify_firmware(manifest, {left: signature}, published(key))


def test_one_bad_signature_of_two_is_refused() -> None:
    key = vault_key(Purpose.FIRMWARE, DUAL)
    made = manifest_of(key)
    for component in made.signatures:
        broken = made.signatures | {component: made.signatures[component][:-1] + b"\x00"}
        with pytest.raises(SignatureInvalid, match=f"the {component} signature"):
            verify_firmware(made.manifest, broken, published(key))


@pytest.mark.parametrize(
    ("known", "match"),
    [
        ({"name": "switch"}, "manifest is for 'router'"),
        ({"version_min": 8}, "version 8 or later"),
        ({"image_sha256": bytes(32)}, "SHA-256"),
        ({"image_size": 1}, "has 1 bytes"),
    ],
)
def test_an_image_is_held_to_its_manifest(known: dict[str, object], match: str) -> None:
    key = vault_key(Purpose.FIRMWARE, "ed25519")
    made = manifest_of(key)
    with pytest.raises(SignatureInvalid, match=match):
        verify_firmware(made.manifest, made.signatures, published(key), **known)  # type: ignore[arg-type]  # one keyword a case


def respell(manifest: bytes) -> list[bytes]:
    members = json.loads(manifest)
    return [
        json.dumps(members).encode(),  # spaces
        canonical_json(members | {"extra": 1}),
        canonical_json({k: v for k, v in members.items() if k != "size"}),
        canonical_json(members | {"sha256": "AB" * 32}),
        canonical_json(members | {"sha256": "ab" * 32 + "\n"}),
        manifest.replace(b'"size":4096', b'"size":4096,"size":1'),
        manifest.replace(b"4096", b"4096.0"),
        manifest + b" " * 20_000,
        b"[]",
        b"",
    ]


def test_a_manifest_has_one_spelling() -> None:
    key = vault_key(Purpose.FIRMWARE, "ed25519")
    made = manifest_of(key)
    for manifest in respell(made.manifest):
        with pytest.raises(MalformedRequest, match="expected"):
            verify_firmware(manifest, made.signatures, published(key))


# --- ledger --------------------------------------------------------------------------------------


def check_ledger_refused(entries: list[SignedEntry], key: PublicKey, match: str) -> None:
    with pytest.raises(SignatureInvalid, match=match):
        verify_ledger(entries, key)


def test_a_ledger_verifies_in_parts_and_across_a_rotation() -> None:
    key = vault_key(Purpose.LEDGER, DUAL, "ed25519")
    entries, public = ledger_of(key, 1, 1, 2, 2), published(key)
    whole = verify_ledger(entries, public)
    assert (whole.ledger, whole.sequence, whole.entries) == ("k-1", 4, 4)
    assert [signer.version for signer in whole.signers] == [1, 2]
    first = verify_ledger(entries[:2], public)
    rest = verify_ledger(entries[2:], public, previous=first.head, sequence=first.sequence)
    assert (rest.head, rest.sequence) == (whole.head, 4)


def test_no_entries_change_nothing() -> None:
    public = published(vault_key(Purpose.LEDGER, "ed25519"))
    expected = VerifiedLedger(ledger="k-1", head=GENESIS, sequence=0, entries=0, signers=())
    assert verify_ledger([], public) == expected


def test_a_tampered_chain_is_located() -> None:
    key = vault_key(Purpose.LEDGER, "ed25519")
    entries, public = ledger_of(key, 1, 1, 1, 1), published(key)
    swapped = msgspec.structs.replace(entries[2], entry=b"another entry")
    check_ledger_refused([*entries[:2], swapped], public, r"entry 3 \(sequence 3\): the entered")
    check_ledger_refused(
        [entries[0], *entries[2:]], public, r"entry 2 .*expected sequence 2, met 3"
    )
    members = json.loads(entries[1].document) | {"entry_sha256": "00" * 32}
    forged = msgspec.structs.replace(entries[1], document=canonical_json(members), entry=None)
    check_ledger_refused([entries[0], forged], public, r"entry 2 .*does not verify")


def test_a_rewritten_history_does_not_link() -> None:
    # The key's owner signs another entry 2; entry 3 still names the old one.
    key = vault_key(Purpose.LEDGER, "ed25519")
    entries = ledger_of(key, 1, 1, 1)
    members = json.loads(entries[1].document) | {"entry_sha256": "00" * 32}
    document = canonical_json(members)
    signature = component_key("ed25519", 1)[1](document)
    rewritten = SignedEntry(document=document, signatures={"ed25519": signature})
    check_ledger_refused(
        [entries[0], rewritten, entries[2]], published(key), r"entry 3 \(sequence 3\): it follows"
    )


def test_an_entry_of_another_ledger_is_refused() -> None:
    key = vault_key(Purpose.LEDGER, "ed25519")
    other = msgspec.structs.replace(published(key), id="k-2")
    check_ledger_refused(ledger_of(key, 1), other, "of ledger 'k-1', not of 'k-2'")


def test_a_compromised_entry_is_located() -> None:
    key = vault_key(Purpose.LEDGER, "ed25519", "ed25519")
    public = published(key, {2: State.COMPROMISED})
    with pytest.raises(SignedByCompromised, match=r"entry 2 \(sequence 2\): version 2") as caught:
        verify_ledger(ledger_of(key, 1, 2), public)
    assert caught.value.version == 2


def test_a_stripped_ledger_signature_is_refused() -> None:
    key = vault_key(Purpose.LEDGER, DUAL)
    entry = ledger_of(key, 1)[0]
    left = {"ml-dsa-65": entry.signatures["ml-dsa-65"]}
    stripped = msgspec.structs.replace(entry, signatures=left)
    check_ledger_refused([stripped], published(key), "stripped or added")


def test_a_document_that_does_not_parse_is_located() -> None:
    public = published(vault_key(Purpose.LEDGER, "ed25519"))
    with pytest.raises(MalformedRequest, match=r"entry 1 \(sequence 1\)"):
        verify_ledger([SignedEntry(document=b"{", signatures={})], public)


# --- TLS -----------------------------------------------------------------------------------------


def test_a_handshake_names_the_version_that_signed_it() -> None:
    key = vault_key(Purpose.TLS, "ecdsa-p256-sha256", "ed25519", "ecdsa-p256-sha256")
    facts = SignTls(role="server", transcript_hash=b"\x22" * 32)
    made, _ = signed(TLS, facts, key, version=3)
    assert isinstance(made, TlsResult)
    public = published(key)
    found = verify_tls("server", b"\x22" * 32, made.scheme, made.signature, public)
    assert (found.signer.version, found.scheme) == (3, 0x0403)
    for role, transcript, scheme, version in (
        ("client", b"\x22" * 32, 0x0403, 0),
        ("server", b"\x23" * 32, 0x0403, 0),
        ("server", b"\x22" * 32, 0x0807, 0),
        ("server", b"\x22" * 32, 0x0403, 1),
    ):
        with pytest.raises(SignatureInvalid, match="no version of shop"):
            verify_tls(role, transcript, scheme, made.signature, public, version=version)  # type: ignore[arg-type]  # role is one of two texts
    with pytest.raises(SignedByCompromised, match="version 3"):
        verify_tls(
            "server",
            b"\x22" * 32,
            made.scheme,
            made.signature,
            published(key, {3: State.COMPROMISED}),
        )
    with pytest.raises(MalformedRequest, match="32 or 48"):
        verify_tls("server", b"short", made.scheme, made.signature, public)
