"""Decisions about keys: drafts, moves, generations, and the policies that go with purposes."""

import msgspec
import pytest

from keystead import limits
from keystead.errors import AlgorithmForbidden, KeyStateError, MalformedRequest, NotFound
from keystead.keys.administration import check_reason, draft_key, moved, new_generation
from keystead.keys.commands import CreateKey, MoveVersion
from keystead.keys.lifecycle import Move, State
from keystead.keys.model import CaPolicy, FirmwarePolicy, JwtPolicy, Policy
from keystead.keys.purposes import PURPOSES, Purpose
from unit.keys.sample import NOW_MS, POLICIES, key_of

OFFERED = [purpose for purpose, row in PURPOSES.items() if row.offered]


def create(purpose: Purpose, **changes: object) -> CreateKey:
    command = CreateKey(name="shop", purpose=purpose, policy=POLICIES.get(purpose, Policy()))
    return msgspec.structs.replace(command, **changes)


def refusal_of(purpose: Purpose, **changes: object) -> str:
    with pytest.raises(MalformedRequest) as refused:
        draft_key(create(purpose, **changes), key_id="k-1", now_ms=NOW_MS)
    return str(refused.value)


@pytest.mark.parametrize("purpose", OFFERED)
def test_a_draft_has_the_default_algorithm_and_no_version(purpose: Purpose) -> None:
    key, algorithm = draft_key(create(purpose), key_id="k-1", now_ms=NOW_MS)
    assert (algorithm,) == key.algorithms == PURPOSES[purpose].algorithms[:1]
    assert (key.versions, key.primary, key.generation, key.revision) == ((), 1, 1, 1)
    assert (key.id, key.purpose, key.tenant, key.created_ms) == ("k-1", purpose, "default", NOW_MS)


@pytest.mark.parametrize("purpose", OFFERED)
def test_a_draft_has_any_algorithm_of_its_purpose_and_no_other(purpose: Purpose) -> None:
    for name in {name for row in PURPOSES.values() for name in row.algorithms}:
        command = create(purpose, algorithm=name)
        if name in PURPOSES[purpose].algorithms:
            assert draft_key(command, key_id="k-1", now_ms=NOW_MS)[1] == name
        else:
            with pytest.raises(AlgorithmForbidden, match=f"does not use {name}"):
                draft_key(command, key_id="k-1", now_ms=NOW_MS)
    assert "no algorithm 'rot13'" in refusal_of(purpose, algorithm="rot13")


@pytest.mark.parametrize("purpose", [p for p in PURPOSES if p not in OFFERED])
def test_what_is_not_built_is_not_made(purpose: Purpose) -> None:
    assert "cannot be made by this version" in refusal_of(purpose)


@pytest.mark.parametrize("algorithm", PURPOSES[Purpose.TLS].algorithms)
def test_only_ecdsa_and_pss_keys_are_prehashed(algorithm: str) -> None:
    if algorithm.startswith(("ecdsa", "rsa-pss")):
        command = create(Purpose.TLS, algorithm=algorithm, prehashed=True)
        assert draft_key(command, key_id="k-1", now_ms=NOW_MS)[0].prehashed
    else:
        text = refusal_of(Purpose.TLS, algorithm=algorithm, prehashed=True)
        assert text == f"tls keys of {algorithm} cannot be prehashed"


@pytest.mark.parametrize("purpose", [p for p in OFFERED if p is not Purpose.TLS])
def test_no_other_purpose_is_prehashed(purpose: Purpose) -> None:
    assert "cannot be prehashed" in refusal_of(purpose, prehashed=True)


@pytest.mark.parametrize("purpose", OFFERED)
def test_a_policy_has_the_part_of_its_purpose_and_no_other(purpose: Purpose) -> None:
    for owner, policy in POLICIES.items():
        if owner is purpose:
            assert f"a {purpose} key needs policy." in refusal_of(purpose, policy=Policy())
        else:
            assert "policy." in refusal_of(purpose, policy=policy)


@pytest.mark.parametrize("purpose", OFFERED)
def test_only_tls_may_answer_before_its_record(purpose: Purpose) -> None:
    policy = msgspec.structs.replace(POLICIES.get(purpose, Policy()), ack="best_effort")
    if purpose is Purpose.TLS:
        key, _ = draft_key(create(purpose, policy=policy), key_id="k-1", now_ms=NOW_MS)
        assert key.policy.ack == "best_effort"
    else:
        assert "tls keys only" in refusal_of(purpose, policy=policy)


@pytest.mark.parametrize(
    ("purpose", "policy", "text"),
    [
        (Purpose.JWT, Policy(jwt=JwtPolicy(issuer="")), "met an empty one"),
        (Purpose.JWT, Policy(jwt=JwtPolicy(issuer="i", lifetime_max_s=0)), "lifetime_max_s"),
        (
            Purpose.CA,
            Policy(ca=CaPolicy(common_name="a", dns_suffixes=(), lifetime_max_s=2**40)),
            "lifetime_max_s",
        ),
        (Purpose.FIRMWARE, Policy(firmware=FirmwarePolicy(names=())), "firmware names"),
        (Purpose.FIRMWARE, Policy(firmware=FirmwarePolicy(names=("A",))), "image name"),
        (
            Purpose.FIRMWARE,
            Policy(firmware=FirmwarePolicy(names=("a",) * (limits.FIRMWARE_NAMES_MAX + 1))),
            "from 1 to 256, met 257",
        ),
        (Purpose.FIRMWARE, Policy(firmware=FirmwarePolicy(names=("a",), step_max=0)), "step_max"),
    ],
)
def test_a_policy_has_bounds(purpose: Purpose, policy: Policy, text: str) -> None:
    assert text in refusal_of(purpose, policy=policy)


def test_names_and_labels_are_checked() -> None:
    assert "expected a key name" in refusal_of(Purpose.TLS, name="Shop")
    assert "expected a tenant" in refusal_of(Purpose.TLS, tenant="")
    assert "label" in refusal_of(Purpose.TLS, labels={"Region": "eu"})


@pytest.mark.parametrize("reason", ["", "a\nb", "\x1b[2J", "\ud800", "\u00e4" * 129])
def test_a_reason_is_printable_and_short(reason: str) -> None:
    check_reason("\u00e4" * 128)
    with pytest.raises(MalformedRequest, match="printable reason"):
        check_reason(reason)
    with pytest.raises(MalformedRequest):
        moved(key_of(), MoveVersion(name="shop", move=Move.SUSPEND, reason=reason), epoch=2)


STATES = (State.DEACTIVATED, State.ACTIVE, State.ACTIVE, State.SUSPENDED)


def test_one_version_moves_under_a_new_revision_and_epoch() -> None:
    key = key_of(states=STATES, primary=3)
    command = MoveVersion(name="shop", move=Move.SUSPEND, version=2, reason="test")
    after, which = moved(key, command, epoch=9)
    assert [v.state for v in after.versions] == [STATES[0], State.SUSPENDED, *STATES[2:]]
    assert (which, after.revision, after.epoch) == ((2,), key.revision + 1, 9)
    unchanged = msgspec.structs.replace(
        after, versions=key.versions, revision=key.revision, epoch=key.epoch
    )
    assert unchanged == key


def test_all_versions_that_can_move_do() -> None:
    key = key_of(states=STATES)
    after, which = moved(
        key, MoveVersion(name="shop", move=Move.COMPROMISE, reason="leak"), epoch=9
    )
    assert {v.state for v in after.versions} == {State.COMPROMISED}
    assert which == (1, 2, 3, 4)
    after, which = moved(key, MoveVersion(name="shop", move=Move.RESUME, reason="found"), epoch=9)
    assert which == (4,)


def test_a_move_that_nothing_can_make_says_what_there_is() -> None:
    with pytest.raises(KeyStateError, match=r"no version of shop can activate \(1: active\)"):
        moved(key_of(), MoveVersion(name="shop", move=Move.ACTIVATE, reason="test"), epoch=2)
    with pytest.raises(NotFound):
        moved(
            key_of(), MoveVersion(name="shop", move=Move.SUSPEND, version=2, reason="test"), epoch=2
        )


def test_a_new_generation_changes_nothing_else() -> None:
    key = key_of(generation=4, revision=6)
    after = new_generation(key, epoch=9)
    assert after == msgspec.structs.replace(key, generation=5, revision=7, epoch=9)
