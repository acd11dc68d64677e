"""What anyone may read of a key, as its rollout goes on."""

import base64
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.errors import MalformedRequest, NotFound
from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.model import Rollout, Rotation, Stage, Status, VerifierRule
from keystead.keys.rollout.plan import Plan, Publish, default_plan
from keystead.vault.describe import cache_s, certificate, jwks, public_view, published, role
from unit.keys.sample import NOW_MS, key_of

BEGIN = "-----BEGIN CERTIFICATE-----"
ACTIVE, COMING, GONE = State.ACTIVE, State.PRE_ACTIVATION, State.DEACTIVATED


def spki_of(number: int) -> bytes:
    public = ec.derive_private_key(number, ec.SECP256R1()).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_with(*states: State, primary: int, purpose: Purpose = Purpose.JWT) -> Key:
    key = key_of(purpose, "ecdsa-p256-sha256", states, primary=primary)
    versions = tuple(msgspec.structs.replace(v, public=(spki_of(v.number),)) for v in key.versions)
    return msgspec.structs.replace(key, versions=versions)


def rotation_at(
    key: Key,
    stage: Stage,
    previous: int,
    coming: int,
    *,
    status: Status = Status.RUNNING,
    plan: Plan | None = None,
) -> Rotation:
    rollout = Rollout(
        number=1,
        previous=previous,
        next=coming,
        plan=plan or default_plan(key),
        stage=stage,
        status=status,
        incident=False,
        reason="",
        began_ms=NOW_MS,
        entered_ms=NOW_MS,
    )
    return Rotation(key_id=key.id, rollout=rollout)


def kids(key: Key, rotation: Rotation | None) -> list[str]:
    keys: list[dict[str, str]] = msgspec.json.decode(jwks(key, rotation))["keys"]
    assert all(item["use"] == "sig" and item["alg"] == "ES256" for item in keys)
    return [item["kid"] for item in keys]


def view(key: Key, rotation: Rotation | None) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.json.decode(public_view(key, rotation))
    return shown


def with_cache(key: Key, cache_ms: int) -> Plan:
    plan = default_plan(key)
    publish = Publish(overlap_ms=plan.publish.overlap_ms, cache_ms=cache_ms)
    return msgspec.structs.replace(plan, publish=publish)


# --- JWK Sets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "primary", "stage", "expected"),
    [
        ((ACTIVE, COMING), 1, Stage.PUBLISH, ["kid-1", "kid-2"]),
        ((ACTIVE, ACTIVE), 1, Stage.CANARY, ["kid-1", "kid-2"]),
        ((ACTIVE, ACTIVE), 2, Stage.PROMOTE, ["kid-2", "kid-1"]),
        ((ACTIVE, ACTIVE), 2, Stage.DRAIN, ["kid-2", "kid-1"]),
    ],
)
def test_next_current_and_previous_are_published_in_every_stage(
    states: tuple[State, ...], primary: int, stage: Stage, expected: list[str]
) -> None:
    key = key_with(*states, primary=primary)
    assert kids(key, rotation_at(key, stage, 1, 2)) == expected


def test_what_is_unpublished_compromised_or_destroyed_is_in_no_jwk_set() -> None:
    key = key_with(GONE, GONE, State.COMPROMISED, State.DESTROYED, ACTIVE, primary=5)
    assert kids(key, Rotation(key_id=key.id, unpublished=(1,))) == ["kid-5", "kid-2"]
    assert kids(key, None) == ["kid-5", "kid-2", "kid-1"]


def test_the_current_version_stands_first_then_the_next_then_the_others() -> None:
    key = key_with(GONE, GONE, ACTIVE, State.SUSPENDED, COMING, primary=3)
    assert kids(key, rotation_at(key, Stage.PUBLISH, 3, 5)) == [
        f"kid-{number}" for number in (3, 5, 4, 2, 1)
    ]


def test_a_jwk_set_is_of_a_jwt_key() -> None:
    with pytest.raises(MalformedRequest, match="it has no JWK Set"):
        jwks(key_with(ACTIVE, primary=1, purpose=Purpose.FIRMWARE), None)


# --- the public view -----------------------------------------------------------------------------


def test_each_version_says_what_it_is_to_verifiers() -> None:
    key = key_with(GONE, ACTIVE, State.SUSPENDED, State.COMPROMISED, COMING, primary=2)
    rotation = rotation_at(key, Stage.PUBLISH, 2, 5)
    roles = [version["role"] for version in view(key, rotation)["versions"]]
    assert roles == ["previous", "current", "", "", "next"]
    assert role(key, None, key.version(5)) == ""


def test_after_a_rollback_the_new_version_is_nothing() -> None:
    key = key_with(ACTIVE, State.SUSPENDED, primary=1)
    rotation = rotation_at(key, Stage.CANARY, 1, 2, status=Status.ROLLED_BACK)
    assert [v["role"] for v in view(key, rotation)["versions"]] == ["current", ""]


def test_rules_and_what_is_unpublished_are_shown() -> None:
    key = key_with(GONE, ACTIVE, primary=2, purpose=Purpose.FIRMWARE)
    rotation = Rotation(
        key_id=key.id, unpublished=(1,), rules=(VerifierRule(version=2, until_ms=NOW_MS),)
    )
    shown = view(key, rotation)
    assert shown["rules"] == [{"version": 2, "until_ms": NOW_MS}]
    assert shown["unpublished"] == [1]
    assert [version["number"] for version in shown["versions"]] == [1, 2]
    assert view(key, None)["rules"] == []


# --- certificates --------------------------------------------------------------------------------


def certified(*states: State, primary: int) -> Key:
    key = key_with(*states, primary=primary, purpose=Purpose.CA)
    versions = tuple(
        msgspec.structs.replace(v, certificate=b"certificate %d" % v.number) for v in key.versions
    )
    return msgspec.structs.replace(key, versions=versions)


def test_the_bundle_begins_with_the_current_certificate() -> None:
    key = certified(GONE, ACTIVE, COMING, State.COMPROMISED, primary=2)
    bundle = certificate(key, rotation_at(key, Stage.PUBLISH, 2, 3)).decode("ascii")
    assert bundle.startswith("-----BEGIN CERTIFICATE-----\n")
    bodies = [base64.b64decode(block.split("-----")[0]) for block in bundle.split(BEGIN)[1:]]
    assert bodies == [b"certificate 2", b"certificate 3", b"certificate 1"]


def test_a_key_without_a_certificate_to_rely_on_has_none() -> None:
    with pytest.raises(NotFound):
        certificate(key_with(ACTIVE, primary=1), None)
    with pytest.raises(NotFound, match="to rely on"):
        certificate(certified(State.COMPROMISED, primary=1), None)


# --- how long it is kept -------------------------------------------------------------------------


def test_a_publication_is_kept_as_long_as_the_plan_in_force_says() -> None:
    key = key_with(ACTIVE, COMING, primary=1)
    assert cache_s(key, None) == 300
    own = Rotation(key_id=key.id, plan=with_cache(key, 60_000))
    assert cache_s(key, own) == 60
    begun = rotation_at(key, Stage.PUBLISH, 1, 2, plan=with_cache(key, 1_500))
    under_way = msgspec.structs.replace(begun, plan=own.plan)
    assert cache_s(key, under_way) == 1
    ended = rotation_at(
        key, Stage.RETIRE, 1, 2, status=Status.FINISHED, plan=with_cache(key, 1_500)
    )
    assert cache_s(key, ended) == 300
    assert published(key, under_way) == key.versions
