"""The witness's key, by RFC 8032 section 7.1, test 1."""

from __future__ import annotations

import pytest

from keystead.crypto.witnesskey import witness_key
from keystead.errors import MalformedRequest

SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
SIGNATURE = (
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
    "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)


def test_the_published_vector() -> None:
    key = witness_key(bytes.fromhex(SEED))
    assert key.public.hex() == PUBLIC
    assert key.sign(b"").hex() == SIGNATURE


@pytest.mark.parametrize("length", [0, 31, 33])
def test_another_length(length: int) -> None:
    with pytest.raises(MalformedRequest, match=f"met {length}"):
        witness_key(bytes(length))
