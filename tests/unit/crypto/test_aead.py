"""AES-256-GCM-SIV, HKDF and HMAC against the vectors of their RFCs, and what does not open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.crypto import aead
from keystead.errors import SignatureInvalid

KEY = bytes.fromhex("01" + 31 * "00")
NONCE = bytes.fromhex("03" + 11 * "00")
# RFC 8452 appendix C.2: plaintext, associated data, result
RFC_8452 = [
    ("", "", "07f5f4169bbf55a8400cd47ea6fd400f"),
    ("0100000000000000", "", "c2ef328e5c71c83b843122130f7364b761e0b97427e3df28"),
    ("0200000000000000", "01", "1de22967237a813291213f267e3b452f02d01ae33e4ec854"),
]


def opened(
    ciphertext: bytes, aad: bytes, *, key: bytes = KEY, nonce: bytes = NONCE, room: int = 0
) -> bytes:
    into = bytearray(len(ciphertext) - aead.TAG_BYTES + room)
    aead.open_into(key, nonce, ciphertext, aad, into)
    return bytes(into)


@pytest.mark.parametrize(("plain", "aad", "result"), RFC_8452)
def test_the_rfc_8452_vectors(plain: str, aad: str, result: str) -> None:
    text, bound = bytes.fromhex(plain), bytes.fromhex(aad)
    assert aead.seal(KEY, NONCE, text, bound).hex() == result
    assert opened(bytes.fromhex(result), bound) == text


@given(plain=st.binary(max_size=200), aad=st.binary(max_size=50))
def test_what_is_sealed_opens(plain: bytes, aad: bytes) -> None:
    sealed = aead.seal(bytearray(KEY), NONCE, bytearray(plain), aad)
    assert len(sealed) == len(plain) + aead.TAG_BYTES
    assert opened(sealed, aad) == plain


@given(place=st.integers(min_value=0, max_value=20), bit=st.integers(min_value=0, max_value=7))
def test_no_bit_can_be_altered(place: int, bit: int) -> None:
    sealed = bytearray(aead.seal(KEY, NONCE, b"plain", b"aad"))
    sealed[place] ^= 1 << bit
    with pytest.raises(SignatureInvalid, match="does not open"):
        opened(bytes(sealed), b"aad")


def test_another_key_nonce_or_binding_does_not_open() -> None:
    sealed = aead.seal(KEY, NONCE, b"plain", b"aad")
    assert opened(sealed, b"aad") == b"plain"
    for key, nonce, aad in (
        (bytes(32), NONCE, b"aad"),
        (KEY, bytes(12), b"aad"),
        (KEY, NONCE, b""),
        (KEY, NONCE, b"aad "),
        (KEY, NONCE[:-1], b"aad"),
        (KEY, b"", b"aad"),
    ):
        with pytest.raises(SignatureInvalid):
            opened(sealed, aad, key=key, nonce=nonce)


@pytest.mark.parametrize("room", [-1, 1])
def test_a_buffer_of_another_length_is_refused(room: int) -> None:
    sealed = aead.seal(KEY, NONCE, b"plain", b"aad")
    with pytest.raises(SignatureInvalid):
        opened(sealed, b"aad", room=room)


def test_a_failed_opening_leaves_nothing_behind() -> None:
    sealed = aead.seal(KEY, NONCE, b"plain", b"aad")
    into = bytearray(b"\xff" * 5)
    with pytest.raises(SignatureInvalid) as caught:
        aead.open_into(KEY, NONCE, sealed, b"other", into)
    assert into == bytes(5)
    assert "plain" not in str(caught.value)


def test_the_rfc_5869_vector_without_salt() -> None:
    """RFC 5869 appendix A.3."""
    expected = (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )
    assert aead.hkdf(b"\x0b" * 22, b"", 42).hex() == expected
    assert aead.hkdf(bytearray(b"\x0b" * 22), b"").hex() == expected[:64]


def test_hkdf_tells_infos_and_secrets_apart() -> None:
    found = {aead.hkdf(b"s" * 32, b"a"), aead.hkdf(b"s" * 32, b"b"), aead.hkdf(b"t" * 32, b"a")}
    assert len(found) == 3


def test_the_rfc_4231_vector() -> None:
    """RFC 4231 section 4.3."""
    assert (
        aead.mac(b"Jefe", b"what do ya want for nothing?").hex()
        == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
