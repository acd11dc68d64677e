"""Data keys: what is wrapped opens by means of the test's own, and openssl agrees on subkeys.

AES-256-GCM-SIV came to openssl with 3.2, so the CLI of Debian 12 does HKDF and HMAC only; pyca's
primitives, called right here and by nothing of ours, do the rest.
"""

import base64
from typing import Literal

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystead.custody.locked import LockedBuffer
from keystead.custody.root import RootKey
from keystead.custody.software import SoftwareCustody
from keystead.frames.messages import Use
from keystead.keys.framing import data
from keystead.keys.framing.data import Derive, Mac, subkey_info
from keystead.keys.lifecycle import State
from keystead.keys.model import Key, Policy, Version
from keystead.keys.purposes import Purpose
from keystead.ports import OpenKey
from keystead.testing.clocks import SeededRandom
from keystead.vault.running import Running
from keystead.vault.uses import _do_data
from vectors.openssl import openssl
from vectors.reading import Hex, Strict, read, refusal, shows


class Given(Strict, frozen=True):
    """One version of a data key; ``secret`` is what custody draws for it."""

    secret: Hex
    key_id: str
    version: int
    kid: str


class Subkey(Strict, frozen=True):
    """``info`` of HKDF-SHA-256, and the 32 bytes that come of it."""

    info: Hex
    subkey: Hex


class WrapGiven(Strict, frozen=True):
    context: str
    nonce: Hex
    plaintext: Hex


class Wrapped(Subkey, frozen=True):
    aad: Hex
    ciphertext: Hex
    wrapped: str


class Wrap(Strict, frozen=True):
    shows: str
    given: WrapGiven
    expected: Wrapped


class DeriveGiven(Strict, frozen=True):
    context: str
    length: int
    info: Hex


class Derived(Strict, frozen=True):
    info: Hex
    secret: Hex


class Derivation(Strict, frozen=True):
    shows: str
    given: DeriveGiven
    expected: Derived


class MacGiven(Strict, frozen=True):
    context: str
    message: Hex


class Tagged(Subkey, frozen=True):
    tag: Hex


class Authentication(Strict, frozen=True):
    shows: str
    given: MacGiven
    expected: Tagged


class RefusedGiven(Strict, frozen=True):
    operation: Literal["unwrap", "derive", "mac"]
    context: str
    wrapped: str = ""
    length: int = 32
    message: Hex = Hex()
    tag: Hex = Hex()


class Refused(Strict, frozen=True):
    shows: str
    failure: str
    given: RefusedGiven


class Expected(Strict, frozen=True):
    wraps: tuple[Wrap, ...]
    derivations: tuple[Derivation, ...]
    macs: tuple[Authentication, ...]
    refused: tuple[Refused, ...]


class File(Strict, frozen=True):
    about: str
    given: Given
    expected: Expected


FILE = read("data", File)


class Draws:
    """Gives what the vector says; what it does not say is random as ever."""

    def __init__(self, *given: bytes) -> None:
        self.waiting = list(given)
        self.rest = SeededRandom()

    def bytes(self, count: int) -> bytes:
        if not self.waiting:
            return self.rest.bytes(count)
        drawn = bytes(self.waiting.pop(0))
        assert len(drawn) == count
        return drawn


def opened(*nonces: bytes) -> OpenKey:
    """The vectors' version, opened; it draws these nonces next."""
    return made(*nonces)[2]


def made(*nonces: bytes) -> tuple[Key, Version, OpenKey]:
    """The vectors' key and version, made and opened by software custody."""
    given = FILE.given
    key = Key(
        id=given.key_id,
        name="vector",
        tenant="default",
        labels={},
        purpose=Purpose.DATA,
        algorithms=("aes-256-gcm-siv",),
        prehashed=False,
        policy=Policy(),
        generation=1,
        primary=given.version,
        versions=(),
        revision=1,
        epoch=1,
        created_ms=1,
    )
    draws = Draws()
    custody = SoftwareCustody(RootKey(LockedBuffer(32), SeededRandom(1)), draws)
    tenant_key = custody.new_tenant_key(key.tenant)
    draws.waiting = [given.secret]
    material = custody.generate(key, given.version, "aes-256-gcm-siv", tenant_key)
    version = Version(
        number=given.version,
        state=State.ACTIVE,
        algorithm="aes-256-gcm-siv",
        public=(),
        kid=given.kid,
        created_ms=1,
    )
    draws.waiting = list(nonces)
    return key, version, custody.open(key, version, material.sealed, tenant_key)


def info_by_hand(operation: str, context: str) -> bytes:
    """Label, key id, version, purpose, operation, context: each behind its length in 4 bytes."""
    parts = ["keystead/data/v1", FILE.given.key_id, str(FILE.given.version), "data"]
    return lengths_by_hand([*parts, operation, context])


def lengths_by_hand(parts: list[str]) -> bytes:
    out = bytearray()
    for part in parts:
        out += bytes([0, 0, len(part) // 256, len(part) % 256]) + part.encode("utf-8")
    return bytes(out)


def hkdf_by_pyca(info: bytes, length: int = 32) -> bytes:
    return HKDF(hashes.SHA256(), length, None, info).derive(FILE.given.secret)


def hkdf_by_openssl(info: bytes, length: int = 32) -> bytes:
    options = ("-kdfopt", "digest:SHA256", "-kdfopt", f"hexkey:{FILE.given.secret.hex()}")
    words = ("-keylen", str(length), *options, "-kdfopt", f"hexinfo:{info.hex()}", "-binary")
    status, said, complaints = openssl("kdf", *words, "HKDF")
    assert status == 0, complaints
    return said


def info_of(operation: str, context: str) -> bytes:
    return subkey_info(FILE.given.key_id, FILE.given.version, operation, context)


def aad_of(context: str) -> bytes:
    return lengths_by_hand([FILE.given.kid, context])


# --- wrapping ------------------------------------------------------------------------------------


@shows(FILE.expected.wraps)
def test_wrapping_is_byte_equal(vector: Wrap) -> None:
    given, expected = vector.given, vector.expected
    assert info_of("wrap", given.context) == expected.info == info_by_hand("wrap", given.context)
    assert aad_of(given.context) == expected.aad
    key = opened(given.nonce)
    result = key.wrap(given.plaintext, expected.info, expected.aad)
    assert result.wrapped == expected.wrapped


@shows(FILE.expected.wraps)
def test_what_is_wrapped_opens_without_us(vector: Wrap) -> None:
    """From the text, the secret and the context alone."""
    given = vector.given
    prefix, _, body = vector.expected.wrapped.partition(".")
    assert prefix == "ksw1"
    raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    kid, version, nonce, ciphertext = msgspec.msgpack.decode(raw)
    assert (kid, version, nonce) == (FILE.given.kid, FILE.given.version, given.nonce)
    assert ciphertext == vector.expected.ciphertext
    subkey = hkdf_by_pyca(info_by_hand("wrap", given.context))
    aad = lengths_by_hand([kid, given.context])
    assert AESGCMSIV(subkey).decrypt(nonce, ciphertext, aad) == given.plaintext


@shows(FILE.expected.wraps)
def test_what_others_wrap_opens_with_us(vector: Wrap) -> None:
    given = vector.given
    aad = lengths_by_hand([FILE.given.kid, given.context])
    subkey = hkdf_by_pyca(info_by_hand("wrap", given.context))
    ciphertext = AESGCMSIV(subkey).encrypt(given.nonce, given.plaintext, aad)
    raw = msgspec.msgpack.encode(
        [FILE.given.kid, FILE.given.version, bytes(given.nonce), ciphertext]
    )
    text = "ksw1." + base64.urlsafe_b64encode(raw).decode().rstrip("=")
    assert text == vector.expected.wrapped
    found = opened().unwrap(text, info_of("wrap", given.context), aad)
    assert found.plaintext == given.plaintext


@shows(FILE.expected.wraps)
def test_the_vault_binds_as_the_vectors_do(vector: Wrap) -> None:
    """Which subkey and associated data an operation gets is decided in the vault."""
    key, version, open_key = made(vector.given.nonce)
    running = running_of("wrap", vector.given.context)
    running.key, running.version = key, version
    running.facts = data.Wrap(plaintext=bytes(vector.given.plaintext))
    _, result = _do_data(running, open_key)
    assert result == data.WrapResult(wrapped=vector.expected.wrapped)
    running.facts = data.Unwrap(wrapped=vector.expected.wrapped)
    running.asked = running_of("unwrap", vector.given.context).asked
    _, result = _do_data(running, open_key)
    assert result == data.UnwrapResult(plaintext=vector.given.plaintext)


def running_of(operation: str, context: str) -> Running:
    use = Use(1, "", "data", operation, context, b"")
    return Running(use, reply=lambda _answer: None, now_ms=1, request_id="r")


# --- subkeys -------------------------------------------------------------------------------------


@shows((*FILE.expected.wraps, *FILE.expected.macs))
def test_openssl_derives_the_subkey(vector: Wrap | Authentication) -> None:
    expected = vector.expected
    assert hkdf_by_openssl(expected.info) == expected.subkey == hkdf_by_pyca(expected.info)


@shows(FILE.expected.derivations)
def test_openssl_derives_the_secret(vector: Derivation) -> None:
    given, expected = vector.given, vector.expected
    subkey_name = info_by_hand("derive", given.context)
    sizes = [len(part).to_bytes(4, "big") + part for part in (subkey_name, given.info)]
    assert b"".join(sizes) == expected.info
    assert hkdf_by_openssl(expected.info, given.length) == expected.secret
    facts = Derive(length=given.length, info=given.info)
    assert opened().derive(facts, info_of("derive", given.context)).secret == expected.secret


@shows(FILE.expected.macs)
def test_openssl_makes_the_tag(vector: Authentication) -> None:
    given, expected = vector.given, vector.expected
    assert info_of("mac", given.context) == expected.info == info_by_hand("mac", given.context)
    options = ("-digest", "SHA256", "-macopt", f"hexkey:{expected.subkey.hex()}", "-binary")
    status, said, complaints = openssl("mac", *options, "-in", "-", "HMAC", data=given.message)
    assert status == 0, complaints
    assert said == expected.tag
    facts = Mac(message=given.message, tag=expected.tag)
    assert opened().mac(facts, expected.info).tag == expected.tag


def test_no_two_operations_or_contexts_share_a_subkey() -> None:
    subkeys = [vector.expected.subkey for vector in FILE.expected.wraps]
    subkeys += [vector.expected.subkey for vector in FILE.expected.macs]
    contexts = {
        *(("wrap", vector.given.context) for vector in FILE.expected.wraps),
        *(("mac", vector.given.context) for vector in FILE.expected.macs),
    }
    assert len(set(subkeys)) == len(contexts)


# --- refusals ------------------------------------------------------------------------------------


@shows(FILE.expected.refused)
def test_refusals(vector: Refused) -> None:
    given = vector.given
    operation = "wrap" if given.operation == "unwrap" else given.operation
    info = info_of(operation, given.context)
    key = opened()
    calls = {
        "unwrap": lambda: key.unwrap(given.wrapped, info, aad_of(given.context)),
        "derive": lambda: key.derive(Derive(length=given.length), info),
        "mac": lambda: key.mac(Mac(message=given.message, tag=given.tag), info),
    }
    assert refusal(calls[given.operation]) == vector.failure
