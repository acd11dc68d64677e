"""One use against its handle and the key as it stands: every rule, and the order they count in."""

import hashlib
from typing import get_args

import pytest

from keystead import limits
from keystead.encoding import length_prefixed
from keystead.errors import (
    AlgorithmForbidden,
    CallerError,
    ContextMismatch,
    HandleExpired,
    HandleRevoked,
    KeyStateError,
    MalformedRequest,
    NotFound,
    PermissionDenied,
    PurposeMismatch,
)
from keystead.keys.caveats import (
    Algorithms,
    BoundTo,
    Caveat,
    ContextPrefix,
    NotAfter,
    Operations,
    Rate,
    Uses,
    Versions,
)
from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.keys.purposes import Purpose
from keystead.keys.use import (
    Asked,
    Bearer,
    Decided,
    check_grant,
    check_standing,
    decide_use,
    proof_is_fresh,
    proof_message,
)
from unit.keys.sample import NOW_MS, grant_of, key_of

DATA = key_of(Purpose.DATA)
WRAP = Asked(purpose="data", operation="wrap", context="web/eu")
NOBODY = Bearer()


def decide(
    key: Key = DATA,
    *caveats: Caveat,
    asked: Asked = WRAP,
    bearer: Bearer = NOBODY,
    revoked: frozenset[str] = frozenset(),
) -> Decided:
    grant = grant_of(key, *caveats)
    return decide_use(
        grant, key, asked, bearer, now_ms=NOW_MS, revoked=revoked, stopped=frozenset()
    )


def test_a_use_is_by_the_primary_version_unless_another_is_asked_for() -> None:
    key = key_of(Purpose.DATA, states=(State.ACTIVE, State.ACTIVE), primary=2)
    assert decide(key).version.number == 2
    mac = Asked(purpose="data", operation="mac", context="a", version=1)
    decided = decide(key, asked=mac)
    assert (decided.version.number, decided.algorithm) == (1, "hmac-sha256")


@pytest.mark.parametrize(
    "caveat",
    [
        Operations(("mac", "wrap")),
        ContextPrefix("web"),
        ContextPrefix("web/eu"),
        Algorithms(("aes-256-gcm-siv",)),
        Versions((1, 2)),
        NotAfter(NOW_MS),
        Rate(1, 1),
        Uses(1),
    ],
)
def test_a_caveat_that_holds_lets_pass(caveat: Caveat) -> None:
    assert decide(DATA, caveat).version.number == 1


@pytest.mark.parametrize(
    ("caveat", "refusal"),
    [
        (Operations(("mac", "unwrap")), PermissionDenied),
        (ContextPrefix("web/e"), ContextMismatch),
        (ContextPrefix("web/eu/shop"), ContextMismatch),
        (ContextPrefix("Web"), ContextMismatch),
        (Algorithms(("hmac-sha256",)), AlgorithmForbidden),
        (Versions((2, 3)), PermissionDenied),
        (NotAfter(NOW_MS - 1), HandleExpired),
        (BoundTo("ed25519", bytes(32)), PermissionDenied),
        (BoundTo("certificate", bytes(32)), PermissionDenied),
        (BoundTo("unix", b"web:33"), PermissionDenied),
    ],
)
def test_a_caveat_that_does_not_hold_refuses(caveat: Caveat, refusal: type[CallerError]) -> None:
    with pytest.raises(refusal):
        decide(DATA, caveat)
    with pytest.raises(refusal):  # wherever it stands in the chain
        decide(DATA, Uses(5), caveat, Uses(9), NotAfter(2**53))


def test_an_algorithm_caveat_is_about_the_work_not_the_key() -> None:
    mac = Asked(purpose="data", operation="mac", context="a")
    assert decide(DATA, Algorithms(("hmac-sha256",)), asked=mac).algorithm == "hmac-sha256"
    with pytest.raises(AlgorithmForbidden):
        decide(DATA, Algorithms(("aes-256-gcm-siv",)), asked=mac)


def test_a_handle_without_the_operation_refuses_it() -> None:
    grant = grant_of(DATA, operations=("unwrap",))
    with pytest.raises(PermissionDenied, match="does not allow 'wrap'"):
        decide_use(
            grant, DATA, WRAP, NOBODY, now_ms=NOW_MS, revoked=frozenset(), stopped=frozenset()
        )


BOUND = {
    BoundTo("certificate", b"c" * 32): Bearer(certificate_digest=b"c" * 32),
    BoundTo("ed25519", b"c" * 32): Bearer(ed25519=b"c" * 32),
    BoundTo("unix", b"web:33"): Bearer(unix_peer=b"web:33"),
}


@pytest.mark.parametrize("bound", BOUND)
def test_possession_is_proven_by_kind_and_value(bound: BoundTo) -> None:
    for caveat, bearer in BOUND.items():
        if caveat is bound:
            assert decide(DATA, bound, bearer=bearer).version.number == 1
        else:
            with pytest.raises(PermissionDenied, match=f"bound to a {bound.kind}"):
                decide(DATA, bound, bearer=bearer)
    other = BoundTo(bound.kind, b"x" + bound.value[1:])
    with pytest.raises(PermissionDenied, match=f"bound to a {bound.kind}"):
        decide(DATA, other, bearer=BOUND[bound])


def test_every_type_of_caveat_is_held_against_a_use() -> None:
    harmless: list[Caveat] = [
        Operations(("wrap",)),
        ContextPrefix("web"),
        Algorithms(("aes-256-gcm-siv",)),
        Versions((1,)),
        NotAfter(NOW_MS),
        Rate(1, 1),
        Uses(1),
        BoundTo("unix", b"web:33"),
    ]
    assert {type(caveat) for caveat in harmless} == set(get_args(Caveat))
    grant = grant_of(DATA, *harmless)
    bearer = Bearer(unix_peer=b"web:33")
    check_grant(grant, WRAP, bearer, algorithm="aes-256-gcm-siv", version=1, now_ms=NOW_MS)


@pytest.mark.parametrize("operation", ["wrap", "unwrap", "derive", "mac"])
@pytest.mark.parametrize("state", State)
def test_a_state_allows_new_work_or_old_work_or_none(state: State, operation: str) -> None:
    key = key_of(Purpose.DATA, states=(state,))
    asked = Asked(purpose="data", operation=operation, context="a", version=1)
    able = {State.ACTIVE, State.DEACTIVATED} if operation == "unwrap" else {State.ACTIVE}
    if state in able:
        assert decide(key, asked=asked).version.state is state
    else:
        with pytest.raises(KeyStateError):
            decide(key, asked=asked)


def test_a_revoked_handle_does_nothing() -> None:
    grant = grant_of(DATA, ContextPrefix("web"), Uses(5))
    for link in grant.links:
        with pytest.raises(HandleRevoked):
            check_standing(grant, DATA, "wrap", 1, frozenset({link, "other"}), stopped=frozenset())
    check_standing(grant, DATA, "wrap", 1, frozenset({"other"}), stopped=frozenset())
    for generation in (0, 2):
        later = key_of(Purpose.DATA, generation=generation)
        with pytest.raises(HandleRevoked):
            check_standing(grant, later, "wrap", 1, frozenset(), stopped=frozenset())


def test_a_handle_that_is_revoked_by_its_id_does_nothing_nor_does_its_child() -> None:
    grant = grant_of(DATA, ContextPrefix("web"))
    revoked = frozenset({grant.body.handle_id})
    with pytest.raises(HandleRevoked):
        check_standing(grant, DATA, "wrap", 1, revoked, stopped=frozenset())


@pytest.mark.parametrize("tenant", ["*", DATA.tenant])
def test_a_stopped_tenants_key_does_nothing_but_take_reports(tenant: str) -> None:
    stopped = frozenset({tenant, "other"})
    for operation in ("wrap", "unwrap", "mac", "derive"):
        with pytest.raises(KeyStateError, match="an emergency stop is in force") as caught:
            check_standing(grant_of(DATA), DATA, operation, 1, frozenset(), stopped=stopped)
        assert "keystead emergency status" in caught.value.hint
    check_standing(grant_of(DATA), DATA, "report", 1, frozenset(), stopped=stopped)
    check_standing(grant_of(DATA), DATA, "wrap", 1, frozenset(), stopped=frozenset({"other"}))


def test_an_algorithm_that_left_the_policy_does_no_more_work() -> None:
    with pytest.raises(AlgorithmForbidden, match="policy no longer allows"):
        decide(key_of(Purpose.DATA, algorithms=("hmac-sha256",)))


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (Asked(purpose="jwt", operation="sign", context="a"), PurposeMismatch),
        (Asked(purpose="data", operation="sign", context="a"), MalformedRequest),
        (Asked(purpose="data", operation="wrap", context=""), MalformedRequest),
        (Asked(purpose="data", operation="wrap", context="web/../x"), MalformedRequest),
        (Asked(purpose="data", operation="wrap", context="a", version=2), NotFound),
        (Asked(purpose="data", operation="wrap", context="a", version=-1), NotFound),
    ],
)
def test_what_is_asked_must_exist(asked: Asked, refusal: type[CallerError]) -> None:
    with pytest.raises(refusal):
        decide(asked=asked)


PREHASHED = key_of(Purpose.TLS, prehashed=True)
DIGEST = Asked(purpose="tls", operation="sign_digest", context="web")
SIGN = Asked(purpose="tls", operation="sign", context="web")
PEER = BoundTo("unix", b"web:33")


def test_a_prehashed_key_signs_digests_for_its_socket_only() -> None:
    at_socket = Bearer(unix_peer=b"web:33")
    assert decide(PREHASHED, PEER, asked=DIGEST, bearer=at_socket).version.number == 1
    with pytest.raises(PermissionDenied, match="socket-bound handles only"):
        decide(PREHASHED, asked=DIGEST)
    with pytest.raises(PermissionDenied, match="socket-bound handles only"):
        decide(PREHASHED, asked=DIGEST, bearer=at_socket)  # at a socket, but not bound to it
    by_key = Bearer(unix_peer=b"web:33", ed25519=b"c" * 32)
    with pytest.raises(PermissionDenied, match="socket-bound handles only"):
        decide(PREHASHED, BoundTo("ed25519", b"c" * 32), asked=DIGEST, bearer=by_key)
    with pytest.raises(PermissionDenied, match="bound to a unix"):
        decide(PREHASHED, PEER, asked=DIGEST, bearer=Bearer(unix_peer=b"web:34"))
    with pytest.raises(PermissionDenied, match="was created as prehashed"):
        decide(PREHASHED, PEER, asked=SIGN, bearer=at_socket)


def test_another_key_signs_no_digest() -> None:
    key = key_of(Purpose.TLS)
    assert decide(key, asked=SIGN).version.number == 1
    with pytest.raises(PermissionDenied, match="was not created as prehashed"):
        decide(key, PEER, asked=DIGEST, bearer=Bearer(unix_peer=b"web:33"))


def test_the_bytes_of_a_proof_are_frozen() -> None:
    asked = Asked(purpose="jwt", operation="sign", context="web", version=3)
    assert proof_message("dep", "chain", asked, b"facts", "nonce", 5) == length_prefixed(
        (
            b"keystead/proof/v1",
            b"dep",
            b"chain",
            b"jwt.sign.3",
            b"web",
            hashlib.sha256(b"facts").digest(),
            b"nonce",
            b"5",
        )
    )


@pytest.mark.parametrize(("skew_ms", "fresh"), [(0, True), (60_000, True), (60_001, False)])
def test_a_proof_is_fresh_within_the_skew_on_both_sides(*, skew_ms: int, fresh: bool) -> None:
    assert limits.PROOF_SKEW_MS == 60_000
    assert proof_is_fresh(NOW_MS - skew_ms, NOW_MS) is fresh
    assert proof_is_fresh(NOW_MS + skew_ms, NOW_MS) is fresh
