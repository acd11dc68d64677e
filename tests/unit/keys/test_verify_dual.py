"""The verifier's rule of dual versions: both signatures, or, until a time, any one of them."""

import json

import msgspec
import pytest

from keystead.encoding import canonical_json
from keystead.errors import MalformedRequest, SignatureInvalid, SignedByCompromised
from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.model import VerifierRule
from keystead.keys.verify import (
    PublicKey,
    SignedEntry,
    VerifiedFirmware,
    verify_firmware,
    verify_ledger,
)
from unit.keys.signing import (
    DUAL,
    NOW_MS,
    component_key,
    ledger_of,
    manifest_of,
    published,
    vault_key,
)

P256, DSA = BOTH = ("ecdsa-p256-sha256", "ml-dsa-65")
UNTIL_MS = NOW_MS + 1
either = pytest.mark.parametrize("left", BOTH)


def ruled(key: Key, *, version: int = 1, states: dict[int, State] | None = None) -> PublicKey:
    """The key as published, with a rule for one version."""
    rule = VerifierRule(version=version, until_ms=UNTIL_MS)
    return msgspec.structs.replace(published(key, states), rules=(rule,))


def firmware_key() -> Key:
    return vault_key(Purpose.FIRMWARE, DUAL)


def verified(
    public: PublicKey,
    signatures: dict[str, bytes],
    *,
    manifest: bytes | None = None,
    now_ms: int | None = NOW_MS,
) -> VerifiedFirmware:
    """Of the manifest that the key makes, unless another is given."""
    document = manifest or MADE.manifest
    return verify_firmware(document, signatures, public, now_ms=now_ms)


KEY = firmware_key()
MADE = manifest_of(KEY)
RULED = ruled(KEY)


def only(component: str) -> dict[str, bytes]:
    return {component: MADE.signatures[component]}


@either
def test_one_signature_is_enough_and_the_facts_say_which(left: str) -> None:
    facts = verified(RULED, only(left))
    assert facts.signer.components == (left,)
    assert (facts.signer.algorithm, facts.name) == (DUAL, "router")


@either
def test_one_good_signature_of_two_is_enough(left: str) -> None:
    other = BOTH[left == P256]
    assert other != left
    for bad in (b"", bytes(64), MADE.signatures[left]):
        facts = verified(RULED, only(left) | {other: bad})
        assert facts.signer.components == (left,)


def test_both_are_looked_at_where_both_are_given() -> None:
    assert verified(RULED, MADE.signatures).signer.components == BOTH
    assert verified(published(KEY), MADE.signatures).signer.components == BOTH


@either
@pytest.mark.parametrize("now_ms", [UNTIL_MS, UNTIL_MS + 1, None])
def test_both_are_due_when_the_time_is_over_or_unknown(left: str, now_ms: int | None) -> None:
    with pytest.raises(SignatureInvalid, match="stripped"):
        verified(RULED, only(left), now_ms=now_ms)
    broken = MADE.signatures | {left: bytes(64)}
    with pytest.raises(SignatureInvalid, match=f"the {left} signature does not verify"):
        verified(RULED, broken, now_ms=now_ms)
    assert verified(RULED, only(left), now_ms=UNTIL_MS - 1).signer.components == (left,)
    assert verified(RULED, MADE.signatures, now_ms=now_ms).signer.components == BOTH


@either
def test_a_rule_is_of_one_version(left: str) -> None:
    for public in (published(KEY), ruled(KEY, version=2)):
        with pytest.raises(SignatureInvalid, match="stripped"):
            verified(public, only(left))


def test_no_good_signature_is_not_enough() -> None:
    with pytest.raises(SignatureInvalid, match="met none"):
        verified(RULED, {})
    for component in BOTH:
        with pytest.raises(SignatureInvalid, match=f"the {component} signature does not verify"):
            verified(RULED, {component: bytes(64)})
    swapped = {P256: MADE.signatures[DSA], DSA: MADE.signatures[P256]}
    with pytest.raises(SignatureInvalid, match="does not verify"):
        verified(RULED, swapped)


@either
def test_a_foreign_signature_is_refused_beside_a_good_one(left: str) -> None:
    added = only(left) | {"ed25519": bytes(64)}
    with pytest.raises(SignatureInvalid, match=f"expected signatures by {P256} or {DSA}"):
        verified(RULED, added)


@either
@pytest.mark.parametrize("named", [(), (P256,), (DSA,), (*BOTH, "ed25519"), (DSA, DSA)])
def test_the_document_names_all_algorithms_whatever_was_signed(
    left: str, named: tuple[str, ...]
) -> None:
    # Else what one algorithm signs could be taken for a version that has no other.
    members = json.loads(MADE.manifest) | {"algorithms": list(named)}
    manifest = canonical_json(members)
    signature = component_key(left, 1)[1](manifest)
    with pytest.raises(SignatureInvalid, match=f"expected {P256}, {DSA}"):
        verified(RULED, {left: signature}, manifest=manifest)


@either
def test_an_altered_document_is_refused(left: str) -> None:
    members = json.loads(MADE.manifest) | {"size": 1}
    with pytest.raises(SignatureInvalid, match=f"the {left} signature"):
        verified(RULED, only(left), manifest=canonical_json(members))


@either
def test_a_state_counts_as_it_did(left: str) -> None:
    with pytest.raises(SignedByCompromised, match="version 1 of shop is compromised"):
        verified(ruled(KEY, states={1: State.COMPROMISED}), only(left))
    with pytest.raises(SignatureInvalid, match="is pre_activation"):
        verified(ruled(KEY, states={1: State.PRE_ACTIVATION}), only(left))


def with_part(public: PublicKey, place: int, pem: str) -> PublicKey:
    """The key with another public part in one place."""
    parts = list(public.versions[0].public_pem)
    parts[place] = pem
    version = msgspec.structs.replace(public.versions[0], public_pem=tuple(parts))
    return msgspec.structs.replace(public, versions=(version,))


def test_a_public_part_that_this_machine_cannot_read_is_no_hindrance() -> None:
    public = with_part(RULED, 1, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    assert verified(public, MADE.signatures).signer.components == (P256,)
    with pytest.raises(MalformedRequest):
        verified(public, only(DSA))
    with pytest.raises(MalformedRequest):
        verified(public, MADE.signatures, now_ms=UNTIL_MS)


def test_the_rule_comes_with_the_public_part() -> None:
    text = msgspec.json.encode(RULED)
    public = msgspec.json.decode(text, type=PublicKey)
    assert public == RULED
    assert b'"rules":[{"version":1,"until_ms":%d}]' % UNTIL_MS in text
    before = json.loads(text)
    del before["rules"]
    assert msgspec.convert(before, PublicKey).rules == ()


# --- ledgers and tokens --------------------------------------------------------------------------


def stripped(entry: SignedEntry, left: str) -> SignedEntry:
    return msgspec.structs.replace(entry, signatures={left: entry.signatures[left]})


@either
def test_a_ledger_of_one_signature_each(left: str) -> None:
    key = vault_key(Purpose.LEDGER, DUAL)
    whole = ledger_of(key, 1, 1)
    entries, public = [stripped(entry, left) for entry in whole], ruled(key)
    found = verify_ledger(entries, public, now_ms=NOW_MS)
    assert [signer.components for signer in found.signers] == [(left,)]
    assert found.head == verify_ledger(whole, published(key)).head
    for now_ms in (UNTIL_MS, None):
        with pytest.raises(SignatureInvalid, match=r"entry 1 \(sequence 1\): .*sign it"):
            verify_ledger(entries, public, now_ms=now_ms)


def test_a_signer_is_told_with_what_holds_in_all_of_its_entries() -> None:
    key = vault_key(Purpose.LEDGER, DUAL, "ed25519")
    entries, public = ledger_of(key, 1, 1, 2, 1), ruled(key)
    mixed = [entries[0], stripped(entries[1], P256), *entries[2:]]
    found = verify_ledger(mixed, public, now_ms=NOW_MS)
    assert [(s.version, s.components) for s in found.signers] == [(1, (P256,)), (2, ("ed25519",))]
    apart = [*mixed[:3], stripped(entries[3], DSA)]
    assert verify_ledger(apart, public, now_ms=NOW_MS).signers[0].components == ()
    assert verify_ledger(entries, public, now_ms=NOW_MS).signers[0].components == BOTH


def test_of_one_algorithm_one_signature_is_all() -> None:
    key = vault_key(Purpose.FIRMWARE, "ed25519")
    made = manifest_of(key)
    facts = verify_firmware(made.manifest, made.signatures, ruled(key), now_ms=NOW_MS)
    assert facts.signer.components == ("ed25519",)
    with pytest.raises(SignatureInvalid, match="does not verify"):
        verify_firmware(made.manifest, {"ed25519": bytes(64)}, ruled(key), now_ms=NOW_MS)
