"""What fuzzing found in pure code, each found once and for all; the fuzzers are in `tests/fuzz`."""

from __future__ import annotations

import pytest

from fuzz import seeds
from keystead.crypto.public import certificate_key
from keystead.crypto.x509 import RootFields, parse_certificate, root_tbs
from keystead.errors import MalformedRequest
from keystead.frames.messages import Admin, Done, Use
from keystead.keys.caveats import Versions, encode_caveat
from unit.crypto.keys import PRIVATE, spki

VERSION = bytes.fromhex("a003020102")  # [0] { INTEGER 2 }: X.509 version 3


@pytest.mark.parametrize("number", [0x03, 0x12, 0x7F])
def test_a_certificate_of_an_unknown_version_is_malformed(number: int) -> None:
    """The parser has an exception of its own for it, which is no ``ValueError``."""
    der = seeds.certificates()[0]
    assert der.count(VERSION) == 1
    bent = der.replace(VERSION, VERSION[:-1] + bytes([number]))
    for read in (certificate_key, parse_certificate):
        with pytest.raises(MalformedRequest):
            read(bent)


@pytest.mark.parametrize("not_after_s", [2**38, 2**56, 2**62, 2**70, 10**30])
def test_an_instant_past_every_calendar_is_malformed(not_after_s: int) -> None:
    """Past the year 9999 is a ``ValueError``, past what gmtime(3) knows an ``OSError``."""
    fields = RootFields(
        spki=spki(PRIVATE["ed25519"]),
        serial=7,
        common_name="Shop CA",
        dns_suffixes=(),
        not_before_s=0,
        not_after_s=not_after_s,
    )
    with pytest.raises(MalformedRequest):
        root_tbs(fields, algorithm="ed25519")


@pytest.mark.parametrize("number", [2**31, 2**64, 10**30])
def test_a_version_that_no_key_reaches_is_malformed(number: int) -> None:
    with pytest.raises(MalformedRequest):
        encode_caveat(Versions((1, number)))


def test_frames_print_neither_tokens_nor_facts() -> None:
    use = Use(1, "ks1.token", "data", "wrap", "web", b"plaintext")
    for message in (use, Admin(2, "kso1.token", b"command"), Done(3, b"plaintext")):
        assert not any(secret in repr(message) for secret in ("token", "plaintext", "command"))
