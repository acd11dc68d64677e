"""Handles: the chain of tags by hand, what of it is public, and all that is refused."""

import copy
import hashlib
import hmac
import pickle

import msgspec
import pytest

from keystead import limits
from keystead.encoding import b64u_encode
from keystead.errors import HandleInvalid, MalformedRequest
from keystead.keys.caveats import (
    Algorithms,
    ContextPrefix,
    NotAfter,
    Rate,
    Uses,
    Versions,
    encode_caveat,
)
from keystead.keys.handles import Body, attenuate, handle_root_info, issue, parse, verify
from keystead.keys.purposes import Purpose
from unit.keys.sample import ROOT, handle_of, key_of

BODY = Body("k-1", Purpose.JWT, ("sign",), "h-1", 1)
KEY = key_of()


def sha256(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def link(tag: bytes) -> str:
    return hashlib.sha256(tag).digest()[:16].hex()


def token_of(*wire: object) -> str:
    return "ks1." + b64u_encode(msgspec.msgpack.encode(wire))


def test_the_chain_is_the_one_of_the_design() -> None:
    caveats = (ContextPrefix("web/eu"), Uses(3), NotAfter(5), Rate(2, 1))
    tags = [sha256(ROOT, msgspec.msgpack.encode(["k-1", "jwt", ["sign"], "h-1", 1]))]
    for caveat in caveats:
        tags.append(sha256(tags[-1], encode_caveat(caveat)))
    handle = attenuate(issue(ROOT, BODY, caveats[:1]), *caveats[1:])
    encoded = [encode_caveat(caveat) for caveat in caveats]
    assert handle.reveal() == token_of(msgspec.msgpack.encode(BODY), encoded, tags[-1])
    grant = verify(ROOT, parse(handle.reveal()))
    assert (grant.body, grant.caveats) == (BODY, caveats)
    assert grant.links == tuple(map(link, tags))
    assert grant.chain_id == handle.chain_id == link(tags[-1])
    assert grant.budgets == ((link(tags[2]), Uses(3)), (link(tags[4]), Rate(2, 1)))


def test_the_root_depends_on_key_and_generation() -> None:
    assert handle_root_info("k", 12) == b"\0\0\0\x12keystead/handle/v1\0\0\0\1k\0\0\0\x0212"
    with pytest.raises(HandleInvalid, match="tags do not hold"):
        verify(ROOT[::-1], handle_of(KEY))


@pytest.mark.parametrize("operations", [(), ("export",), ("sign", "wrap")])
def test_no_handle_is_issued_for_operations_of_other_purposes(operations: tuple[str, ...]) -> None:
    with pytest.raises(MalformedRequest, match="expected operations out of sign"):
        issue(ROOT, msgspec.structs.replace(BODY, operations=operations))


def test_attenuation_leaves_the_parent_as_it_is() -> None:
    parent = handle_of(KEY)
    token = parent.reveal()
    child = attenuate(parent, Uses(1))
    assert (parent.reveal(), parent.caveats) == (token, ())
    assert child.caveats == (Uses(1),)
    assert attenuate(parent).reveal() == token


def test_a_handle_is_bounded_in_links_and_bytes() -> None:
    full = handle_of(KEY, *[Uses(n + 1) for n in range(limits.HANDLE_CAVEATS_MAX)])
    assert len(verify(ROOT, parse(full.reveal())).links) == limits.HANDLE_CAVEATS_MAX + 1
    with pytest.raises(MalformedRequest, match="at most 16 caveats"):
        attenuate(full, Uses(1))
    with pytest.raises(MalformedRequest, match="at most 4096 bytes"):
        handle_of(KEY, Algorithms(tuple(f"a{n:05}" for n in range(600))))
    with pytest.raises(MalformedRequest):
        attenuate(handle_of(KEY), Versions((0,)))


def test_a_handle_shows_no_secret_unless_told_to() -> None:
    handle = handle_of(KEY, Uses(1))
    grant = verify(ROOT, handle)
    assert str(handle) == repr(handle) == f"{handle}" == "<Handle h-1 for jwt>"
    for text in (repr([handle]), repr(grant), str(msgspec.to_builtins(grant))):
        assert handle.reveal()[10:] not in text
        assert repr(handle.chain_tag)[2:-1] not in text
        assert handle.chain_tag.hex() not in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_handle_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="a handle is not pickled"):
        pickle.dumps(handle_of(KEY), protocol)


def test_a_handle_is_not_copied_or_encoded_by_accident() -> None:
    handle = handle_of(KEY)
    for leak in (copy.copy, copy.deepcopy, msgspec.json.encode, msgspec.msgpack.encode):
        with pytest.raises(TypeError):
            leak(handle)


ENCODED = msgspec.msgpack.encode(BODY)
TAG = bytes(32)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "ks1.",
        "ks1.!",
        handle_of(KEY).reveal()[:-1],
        handle_of(KEY).reveal() + "A",
        handle_of(KEY).reveal() + "\n",
        handle_of(KEY).reveal().replace("ks1.", "ks2."),
        "KS1." + handle_of(KEY).reveal()[4:],
        "Bearer " + handle_of(KEY).reveal(),
        "ks1." + "A" * limits.HANDLE_BYTES_MAX,
        "ks1.\u00e4",
        token_of(),
        token_of(ENCODED, []),
        token_of(ENCODED, [], TAG, 1),
        token_of(ENCODED, [], TAG[:-1]),
        token_of(ENCODED, [], TAG + b"\0"),
        token_of(ENCODED[:-1], [], TAG),
        token_of(ENCODED + b"\0", [], TAG),
        token_of(ENCODED.replace(b"\xa3jwt", b"\xa3jwx"), [], TAG),
        token_of(ENCODED.replace(b"\xa3h-1", b"\xa3h-\xff"), [], TAG),
        token_of(b"\x96" + ENCODED[1:] + b"\x91" * 2000 + b"\xc0", [], TAG),
        token_of(ENCODED, [encode_caveat(Uses(1))] * 17, TAG),
        token_of(ENCODED, [b"\x92\xa5audit\x01"], TAG),
        token_of(ENCODED, [b"\x92\xa4uses\xcc\x01"], TAG),
        "ks1." + b64u_encode(b"\xdc\0\x03" + msgspec.msgpack.encode((ENCODED, [], TAG))[1:]),
        "ks1." + b64u_encode(msgspec.msgpack.encode((ENCODED, [], TAG)) + b"\0"),
        "ks1." + b64u_encode(b"\x91" * 2000),
    ],
)
def test_a_token_that_is_none_is_refused_in_one_way(token: str) -> None:
    with pytest.raises(HandleInvalid) as refused:
        parse(token)
    assert token[4:] not in str(refused.value) or len(token) < 10


def test_a_body_in_another_spelling_does_not_verify() -> None:
    other = b"\x95\xd9\x03" + ENCODED[2:]
    assert parse(token_of(other, [], TAG)).body == BODY
    with pytest.raises(HandleInvalid):
        verify(ROOT, parse(token_of(other, [], sha256(ROOT, ENCODED))))


def test_the_last_link_cannot_be_dropped() -> None:
    handle = handle_of(KEY, Uses(1), NotAfter(5))
    dropped = token_of(handle.encoded_body, handle.encoded_caveats[:1], handle.chain_tag)
    swapped = token_of(handle.encoded_body, handle.encoded_caveats[::-1], handle.chain_tag)
    for token in (dropped, swapped):
        with pytest.raises(HandleInvalid, match="tags do not hold"):
            verify(ROOT, parse(token))
