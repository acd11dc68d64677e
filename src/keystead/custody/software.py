"""Software custody: version material sealed under a tenant's key, which is sealed under the root.

Material is AES-256-GCM-SIV with key id, version and purpose as associated data, so a row that was
moved to another key or version does not open. It is decrypted into locked memory and wiped as soon
as OpenSSL has parsed it; secrets of data keys stay there until the version is closed.
"""

from __future__ import annotations

import hmac

from keystead import limits
from keystead.crypto.aead import KEY_BYTES, NONCE_BYTES, hkdf, mac, open_into, seal
from keystead.crypto.aead import TAG_BYTES as AEAD_TAG_BYTES
from keystead.crypto.hazmat import Signer, generate, hpke_open, hpke_seal, open_signer
from keystead.custody.locked import LockedBuffer, wipe
from keystead.custody.root import RootKey, open_locked
from keystead.encoding import length_prefixed
from keystead.errors import (
    AlgorithmForbidden,
    ContextMismatch,
    CustodyUnavailable,
    MalformedRequest,
    SignatureInvalid,
)
from keystead.keys.algorithms import ALGORITHMS, Kind
from keystead.keys.framing.data import (
    Derive,
    DeriveResult,
    Mac,
    MacResult,
    UnwrapResult,
    Wrapped,
    WrapResult,
    decode_wrapped,
    encode_wrapped,
)
from keystead.keys.model import Key, Version
from keystead.ports import Material, OpenKey, Random

__all__ = ["SoftwareCustody"]


class SoftwareCustody:
    """The embedded default behind the port ``Custody``."""

    def __init__(self, root: RootKey, random: Random) -> None:
        self._root = root
        self._random = random

    def new_tenant_key(self, tenant: str) -> bytes:
        """A fresh key-encryption key of a tenant, sealed under the root key."""
        secret = bytearray(self._random.bytes(KEY_BYTES))
        try:
            return self._root.wrap(secret, _tenant_aad(tenant))
        finally:
            wipe(secret)

    def generate(self, key: Key, number: int, algorithm: str, tenant_key: bytes) -> Material:
        """A new version's public parts and its sealed private part."""
        row = ALGORITHMS[algorithm]
        if row.kind is Kind.SECRET:
            parts = [bytearray(self._random.bytes(KEY_BYTES))]
            publics: tuple[bytes, ...] = ()
        else:
            made = [generate(component) for component in row.components]
            parts = [pair.private for pair in made]
            publics = tuple(pair.public for pair in made)
        joined = _join(parts)
        try:
            with self._root.unwrap(tenant_key, _tenant_aad(key.tenant)) as kek:
                nonce = self._random.bytes(NONCE_BYTES)
                sealed = nonce + seal(
                    kek.data, nonce, joined, _material_aad(key, number, algorithm)
                )
        finally:
            wipe(joined)
        return Material(publics, sealed)

    def open(self, key: Key, version: Version, sealed: bytes, tenant_key: bytes) -> OpenKey:
        """Open a version's material.

        Raises:
            CustodyUnavailable: damaged, or another key's.
        """
        aad = _material_aad(key, version.number, version.algorithm)
        with self._root.unwrap(tenant_key, _tenant_aad(key.tenant)) as kek:
            material = open_locked(kek.data, sealed, aad)
        row = ALGORITHMS[version.algorithm]
        if row.kind is Kind.SIGNATURE:
            with material:
                parts = _split(material.data)
                try:
                    signers = [
                        open_signer(component, part)
                        for component, part in zip(row.components, parts, strict=True)
                    ]
                finally:
                    for part in parts:
                        wipe(part)
            return _OpenSigner(signers)
        with material:
            secret = LockedBuffer.take(_split(material.data)[0])
        return _OpenSecret(version, secret, self._random)

    def close(self) -> None:
        """Wipe the root key."""
        self._root.close()


class _OpenSigner:
    """Opened signature components; the private keys live in OpenSSL's memory until collected."""

    def __init__(self, signers: list[Signer]) -> None:
        self._signers = signers

    def sign(self, message: bytes, *, prehashed: bool) -> tuple[bytes, ...]:
        if not self._signers:
            raise CustodyUnavailable("this version was closed")
        return tuple([signer(message, prehashed) for signer in self._signers])

    def wrap(self, plaintext: bytes, info: bytes, aad: bytes) -> WrapResult:  # noqa: ARG002  the port's shape
        raise AlgorithmForbidden("a signing key does not wrap")

    def unwrap(self, wrapped: str, info: bytes, aad: bytes) -> UnwrapResult:  # noqa: ARG002  the port's shape
        raise AlgorithmForbidden("a signing key does not unwrap")

    def derive(self, facts: Derive, info: bytes) -> DeriveResult:  # noqa: ARG002  the port's shape
        raise AlgorithmForbidden("a signing key does not derive")

    def mac(self, facts: Mac, info: bytes) -> MacResult:  # noqa: ARG002  the port's shape
        raise AlgorithmForbidden("a signing key makes no MAC")

    def close(self) -> None:
        self._signers = []


class _OpenSecret:
    """An opened data key: a secret in locked memory, one HKDF subkey an operation and context."""

    def __init__(self, version: Version, secret: LockedBuffer, random: Random) -> None:
        self._version = version
        self._secret: LockedBuffer | None = secret
        self._random = random

    def _open(self) -> bytearray:
        if self._secret is None:
            raise CustodyUnavailable("this version was closed")
        return self._secret.data

    @property
    def _hpke(self) -> bool:
        return ALGORITHMS[self._version.algorithm].kind is Kind.KEM

    def sign(self, message: bytes, *, prehashed: bool) -> tuple[bytes, ...]:  # noqa: ARG002  the port's shape
        raise AlgorithmForbidden("a data key does not sign")

    def wrap(self, plaintext: bytes, info: bytes, aad: bytes) -> WrapResult:
        secret = self._open()
        if self._hpke:
            nonce = b""
            sealed = hpke_seal(self._version.public[0], plaintext, length_prefixed((info, aad)))
        else:
            nonce = self._random.bytes(NONCE_BYTES)
            sealed = seal(hkdf(secret, info), nonce, plaintext, aad)
        return WrapResult(
            wrapped=encode_wrapped(
                Wrapped(self._version.kid, self._version.number, nonce, sealed),
            )
        )

    def unwrap(self, wrapped: str, info: bytes, aad: bytes) -> UnwrapResult:
        secret = self._open()
        parsed = decode_wrapped(wrapped)
        try:
            self._check_named(parsed)
            if self._hpke:
                plain = hpke_open(secret, parsed.ciphertext, length_prefixed((info, aad)))
                return UnwrapResult(plaintext=plain)
            if len(parsed.ciphertext) < AEAD_TAG_BYTES:
                raise MalformedRequest("the wrapped data is shorter than its tag")
            buffer = bytearray(len(parsed.ciphertext) - AEAD_TAG_BYTES)
            open_into(hkdf(secret, info), parsed.nonce, parsed.ciphertext, aad, buffer)
        except SignatureInvalid as exc:
            raise ContextMismatch(
                "the wrapped data does not open in this context under this key",
                hint="Name the context that it was wrapped in; if it is that, the data was altered",
            ) from exc
        plain = bytes(buffer)
        wipe(buffer)
        return UnwrapResult(plaintext=plain)

    def _check_named(self, wrapped: Wrapped) -> None:
        """What is written beside the ciphertext opens in one spelling only."""
        named = (wrapped.kid, wrapped.version, bool(wrapped.nonce))
        if named != (self._version.kid, self._version.number, not self._hpke):
            raise SignatureInvalid("the wrapped data names another key, version or kind of key")

    def derive(self, facts: Derive, info: bytes) -> DeriveResult:
        if not 1 <= facts.length <= limits.DERIVED_BYTES_MAX:
            raise MalformedRequest(f"expected a length from 1 to {limits.DERIVED_BYTES_MAX}")
        return DeriveResult(
            secret=hkdf(self._open(), length_prefixed((info, facts.info)), facts.length)
        )

    def mac(self, facts: Mac, info: bytes) -> MacResult:
        tag = mac(hkdf(self._open(), info), facts.message)
        if facts.tag is not None and not hmac.compare_digest(tag, facts.tag):
            raise ContextMismatch("the MAC does not verify in this context under this key")
        return MacResult(tag=tag)

    def close(self) -> None:
        if self._secret is not None:
            self._secret.wipe()
            self._secret = None


def _tenant_aad(tenant: str) -> bytes:
    return length_prefixed((b"keystead/tenant-key/v1", tenant.encode()))


def _material_aad(key: Key, number: int, algorithm: str) -> bytes:
    return length_prefixed(
        (
            b"keystead/material/v1",
            key.id.encode(),
            str(number).encode(),
            str(key.purpose).encode(),
            algorithm.encode(),
        )
    )


def _join(parts: list[bytearray]) -> bytearray:
    """Length-prefix the parts into one buffer, wiping them."""
    joined = bytearray(sum(4 + len(part) for part in parts))
    at = 0
    for part in parts:
        joined[at : at + 4] = len(part).to_bytes(4, "big")
        joined[at + 4 : at + 4 + len(part)] = part
        at += 4 + len(part)
        wipe(part)
    return joined


def _split(joined: bytearray) -> list[bytearray]:
    """The parts again, each its own buffer; the caller wipes them."""
    parts: list[bytearray] = []
    at = 0
    while at < len(joined):
        size = int.from_bytes(joined[at : at + 4], "big")
        parts.append(joined[at + 4 : at + 4 + size])
        at += 4 + size
    return parts
