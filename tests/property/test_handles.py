"""Attenuation never widens (I5), budgets are a whole family's, a token is exact to the bit."""

import hashlib
import hmac
import pickle
from collections.abc import Iterator
from itertools import product
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keystead import limits
from keystead.encoding import b64u_decode, b64u_encode
from keystead.errors import HandleInvalid, KeysteadError, LimitExceeded
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
    decode_caveat,
    encode_caveat,
)
from keystead.keys.epochs import Accepted, Candidate
from keystead.keys.handles import Body, Grant, Handle, attenuate, issue, parse, verify
from keystead.keys.lifecycle import State
from keystead.keys.purposes import PURPOSES, Purpose
from keystead.keys.use import Asked, Bearer, decide_use
from keystead.vault.buckets import RateBuckets
from unit.keys.commit import MemoryCommit
from unit.keys.sample import ROOT, grant_of, handle_of, key_of

# A small world, so that random caveats and uses meet: each example tries every use in it.
KEY = key_of(Purpose.DATA, states=(State.ACTIVE, State.DEACTIVATED, State.ACTIVE))
OPERATIONS = PURPOSES[Purpose.DATA].operations
CONTEXTS = ("web", "web/eu", "web/europe")
TIMES_MS = (5, 6)
BEARERS = (
    Bearer(),
    Bearer(certificate_digest=b"a" * 32, unix_peer=b"web:33"),
    Bearer(ed25519=b"a" * 32),
)
USES = [
    (Asked(purpose="data", operation=operation, context=context, version=version), bearer, now_ms)
    for operation, context, version, bearer, now_ms in product(
        OPERATIONS, CONTEXTS, (0, 2), BEARERS, TIMES_MS
    )
]


def subsets(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.sets(st.sampled_from(values), min_size=1).map(sorted).map(tuple)


OF_EACH_TYPE: dict[type[Caveat], st.SearchStrategy[Caveat]] = {
    Operations: subsets(OPERATIONS).map(Operations),
    ContextPrefix: st.sampled_from(CONTEXTS).map(ContextPrefix),
    Algorithms: subsets(("aes-256-gcm-siv", "hmac-sha256", "hkdf-sha256")).map(Algorithms),
    Versions: st.sets(st.integers(1, 3), min_size=1).map(lambda v: Versions(tuple(sorted(v)))),
    NotAfter: st.integers(4, 7).map(NotAfter),
    Rate: st.builds(Rate, st.integers(1, 3), st.integers(1, 3)),
    Uses: st.integers(1, 3).map(Uses),
    BoundTo: st.one_of(
        st.builds(
            BoundTo,
            st.sampled_from(("certificate", "ed25519")),
            st.sampled_from((b"a" * 32, b"b" * 32)),
        ),
        st.just(BoundTo("unix", b"web:33")),
    ),
}
CAVEATS = st.one_of(*OF_EACH_TYPE.values())
CHAINS = st.lists(CAVEATS, min_size=1, max_size=6)
HANDLES = st.builds(
    lambda operations, caveats: handle_of(KEY, *caveats, operations=operations),
    subsets(OPERATIONS),
    st.lists(CAVEATS, max_size=6),
)


def allowed(grant: Grant, revoked: frozenset[str] = frozenset()) -> set[int]:
    """Which uses of the small world a handle allows."""
    return {index for index, use in enumerate(USES) if not refuses(grant, *use, revoked=revoked)}


def refuses(
    grant: Grant, asked: Asked, bearer: Bearer, now_ms: int, *, revoked: frozenset[str]
) -> bool:
    try:
        decide_use(grant, KEY, asked, bearer, now_ms=now_ms, revoked=revoked, stopped=frozenset())
    except KeysteadError:
        return True
    return False


def by_holder(handle: Handle, caveat: Caveat) -> Handle:
    """Attenuated by someone who has only the token."""
    return attenuate(parse(handle.reveal()), caveat)


def test_the_small_world_has_something_to_lose_and_every_type_of_caveat() -> None:
    assert 0 < len(allowed(grant_of(KEY))) < len(USES) == 144
    assert set(OF_EACH_TYPE) == set(get_args(Caveat))


@given(HANDLES, CHAINS, st.integers(0, 12))
def test_no_chain_of_attenuations_ever_allows_what_its_parent_refuses(
    handle: Handle, chain: list[Caveat], revoked_link: int
) -> None:
    parent = verify(ROOT, handle)
    revoked = frozenset(parent.links[revoked_link : revoked_link + 1])
    before = allowed(parent, revoked)
    for caveat in chain:
        handle = by_holder(handle, caveat)
        child = verify(ROOT, parse(handle.reveal()))
        now = allowed(child, revoked)
        assert now <= before
        assert child.links[:-1] == parent.links
        assert child.budgets[: len(parent.budgets)] == parent.budgets
        before, parent = now, child


@given(HANDLES, CHAINS)
def test_the_order_of_caveats_does_not_matter_to_what_is_allowed(
    handle: Handle, chain: list[Caveat]
) -> None:
    there = verify(ROOT, attenuate(handle, *chain))
    back = verify(ROOT, attenuate(handle, *reversed(chain)))
    assert allowed(there) == allowed(back)


@pytest.mark.parametrize(
    "caveat",
    [
        Operations(("mac",)),
        ContextPrefix("web/eu"),
        Algorithms(("hmac-sha256",)),
        Versions((2,)),
        NotAfter(5),
        BoundTo("certificate", b"a" * 32),
        BoundTo("ed25519", b"a" * 32),
        BoundTo("unix", b"web:33"),
    ],
)
def test_each_type_really_narrows_and_leaves_something(caveat: Caveat) -> None:
    parent = handle_of(KEY)
    kept = allowed(verify(ROOT, by_holder(parent, caveat)))
    assert set() < kept < allowed(verify(ROOT, parent))


# --- budgets -------------------------------------------------------------------------------------


def candidate(grant: Grant) -> Candidate:
    budgets = tuple((link, b.count) for link, b in grant.budgets if isinstance(b, Uses))
    return Candidate(
        grant=grant, key_id=KEY.id, operation="wrap", version=1, epoch=1, budgets=budgets
    )


@st.composite
def families(draw: st.DrawFn) -> list[Grant]:
    """Handles that all come of one another, each a child of any earlier one."""
    members = [handle_of(KEY)]
    for _ in range(draw(st.integers(1, 8))):
        members.append(by_holder(draw(st.sampled_from(members)), draw(CAVEATS)))
    return [verify(ROOT, member) for member in members]


@given(families(), st.lists(st.integers(0, 8), max_size=60))
def test_a_family_together_never_spends_more_than_any_ancestor_has(
    family: list[Grant], turns: list[int]
) -> None:
    view = MemoryCommit(KEY)
    done: list[Grant] = []
    for turn in turns:
        grant = family[turn % len(family)]
        full = [
            link
            for link, budget in grant.budgets
            if isinstance(budget, Uses)
            and sum(link in other.links for other in done) >= budget.count
        ]
        outcome = view.commit(candidate(grant))
        if isinstance(outcome, Accepted):
            done.append(grant)
        assert isinstance(outcome, LimitExceeded if full else Accepted)
    for grant in family:
        for link, budget in grant.budgets:
            if isinstance(budget, Uses):
                assert sum(link in other.links for other in done) <= budget.count


@given(families(), st.lists(st.integers(0, 8), max_size=60))
def test_a_family_shares_the_rates_of_its_ancestors(family: list[Grant], turns: list[int]) -> None:
    buckets = RateBuckets()
    done: list[Grant] = []
    for turn in turns:  # at one instant, so that nothing refills
        grant = family[turn % len(family)]
        rates = tuple((link, b) for link, b in grant.budgets if isinstance(b, Rate))
        full = [
            link for link, rate in rates if sum(link in other.links for other in done) >= rate.count
        ]
        if full:
            with pytest.raises(LimitExceeded):
                buckets.take(rates, 1)
        else:
            buckets.take(rates, 1)
            done.append(grant)


@pytest.mark.parametrize("caveat", [Uses(1), Rate(1, 60)])
def test_a_budget_really_narrows(caveat: Uses | Rate) -> None:
    parent = handle_of(KEY)
    child = verify(ROOT, by_holder(parent, caveat))
    assert verify(ROOT, parent).budgets == ()
    assert child.budgets == ((child.links[-1], caveat),)
    view, buckets = MemoryCommit(KEY), RateBuckets()
    rates = tuple((link, b) for link, b in child.budgets if isinstance(b, Rate))
    buckets.take(rates, 1)
    assert isinstance(view.commit(candidate(child)), Accepted)
    if rates:
        with pytest.raises(LimitExceeded):
            buckets.take(rates, 1)
    else:
        assert isinstance(view.commit(candidate(child)), LimitExceeded)
        assert isinstance(view.commit(candidate(verify(ROOT, parent))), Accepted)


# --- tokens --------------------------------------------------------------------------------------


@given(HANDLES)
def test_a_token_round_trips_and_shows_nowhere(handle: Handle) -> None:
    token = handle.reveal()
    again = parse(token)
    assert again.reveal() == token
    assert verify(ROOT, again) == verify(ROOT, handle)
    for text in (repr(again), str(again), f"{again}", repr(verify(ROOT, again))):
        assert token[4:] not in text
        assert b64u_encode(again.chain_tag) not in text
        assert again.chain_tag.hex() not in text
    with pytest.raises(TypeError):
        pickle.dumps(again)


def assert_refused(token: str) -> None:
    with pytest.raises(HandleInvalid):
        verify(ROOT, parse(token))


def flips(data: bytes) -> Iterator[bytes]:
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def test_every_bit_of_a_token_matters() -> None:
    token = handle_of(KEY, ContextPrefix("web/eu"), Versions((1, 300)), Uses(3)).reveal()
    for flipped in flips(token.encode()):
        assert_refused(flipped.decode("latin-1"))
    for raw in flips(b64u_decode(token[4:])):
        assert_refused("ks1." + b64u_encode(raw))


@given(HANDLES, st.data())
def test_a_bit_flipped_in_any_token_is_refused(handle: Handle, data: st.DataObject) -> None:
    raw = bytearray(b64u_decode(handle.reveal()[4:]))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    assert_refused("ks1." + b64u_encode(bytes(raw)))


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(b64u_encode)))
def test_garbage_is_no_handle(text: str) -> None:
    with pytest.raises(HandleInvalid):
        parse(text)
    assert_refused("ks1." + text)


@given(HANDLES, st.binary(min_size=32, max_size=32))
def test_a_handle_holds_under_its_own_root_only(handle: Handle, other: bytes) -> None:
    assume(other != ROOT)
    with pytest.raises(HandleInvalid):
        verify(other, handle)


def rewired(handle: Handle, added: bytes) -> str:
    """What a holder can make: any bytes behind the chain, under the right tag."""
    tag = hmac.digest(handle.chain_tag, added, hashlib.sha256)
    wire = (handle.encoded_body, [*handle.encoded_caveats, added], tag)
    return "ks1." + b64u_encode(msgspec.msgpack.encode(wire))


@given(HANDLES, CAVEATS)
def test_a_known_caveat_behind_the_chain_is_an_attenuation(handle: Handle, caveat: Caveat) -> None:
    assert rewired(handle, encode_caveat(caveat)) == attenuate(handle, caveat).reveal()


KNOWN = {str(each.__struct_config__.tag) for each in get_args(Caveat)}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(HANDLES, st.text().filter(lambda tag: tag not in KNOWN), st.lists(ANYTHING, max_size=3))
def test_an_unknown_caveat_refuses_even_under_the_right_tag(
    handle: Handle, tag: str, fields: list[object]
) -> None:
    with pytest.raises(HandleInvalid):
        parse(rewired(handle, msgspec.msgpack.encode([tag, *fields])))


@given(HANDLES, st.sampled_from(sorted(KNOWN)), st.lists(ANYTHING, max_size=3))
def test_a_known_caveat_with_strange_values_refuses(
    handle: Handle, tag: str, fields: list[object]
) -> None:
    added = msgspec.msgpack.encode([tag, *fields])
    try:
        caveat = decode_caveat(added)
    except HandleInvalid:
        with pytest.raises(HandleInvalid):
            parse(rewired(handle, added))
    else:
        assert encode_caveat(caveat) == added


@st.composite
def loosely(draw: st.DrawFn, value: Any) -> bytes:  # noqa: ANN401  whatever msgpack holds
    """Msgpack of a value, its lengths and numbers as wide as they come."""
    wide = draw(st.sampled_from((0, 1, 2, 4)))
    match value:
        case str() | bytes():
            raw = value.encode() if isinstance(value, str) else value
            first = 0xD9 if isinstance(value, str) else 0xC4
            if not wide or len(raw) > 255:
                return msgspec.msgpack.encode(value)
            return bytes([first + wide // 2]) + len(raw).to_bytes(wide, "big") + raw
        case int():
            if not wide or value > 255:
                return msgspec.msgpack.encode(value)
            return bytes([0xCC + wide // 2]) + value.to_bytes(wide, "big")
        case list():
            head = bytes([0x90 | len(value)])
            if wide > 1:
                head = bytes([0xDB + wide // 2]) + len(value).to_bytes(wide, "big")
            return head + b"".join(draw(loosely(item)) for item in value)
    raise AssertionError(value)


@given(HANDLES, CAVEATS, st.data())
def test_another_spelling_of_a_caveat_refuses(
    handle: Handle, caveat: Caveat, data: st.DataObject
) -> None:
    canonical = encode_caveat(caveat)
    other = data.draw(loosely(msgspec.msgpack.decode(canonical)))
    assume(other != canonical)
    assert msgspec.msgpack.decode(other) == msgspec.msgpack.decode(canonical)
    with pytest.raises(HandleInvalid):
        parse(rewired(handle, other))


@given(HANDLES, st.data())
def test_another_spelling_of_a_token_refuses(handle: Handle, data: st.DataObject) -> None:
    canonical = b64u_decode(handle.reveal()[4:])
    other = data.draw(loosely(msgspec.msgpack.decode(canonical)))
    assume(other != canonical and len(other) < limits.HANDLE_BYTES_MAX // 2)
    with pytest.raises(HandleInvalid):
        parse("ks1." + b64u_encode(other))


@given(st.data())
def test_another_spelling_of_a_body_is_another_body(data: st.DataObject) -> None:
    body = Body(KEY.id, KEY.purpose, OPERATIONS, "h-1", 1)
    handle = issue(ROOT, body)
    other = data.draw(loosely(msgspec.msgpack.decode(handle.encoded_body)))
    assume(other != handle.encoded_body)
    raw = msgspec.msgpack.encode((other, [], handle.chain_tag))
    assert_refused("ks1." + b64u_encode(raw))
