"""The root key of software custody: 32 bytes under a seal, from which everything else hangs."""

from __future__ import annotations

from keystead.crypto.aead import KEY_BYTES, NONCE_BYTES, TAG_BYTES, hkdf, open_into, seal
from keystead.custody.locked import LockedBuffer, wipe
from keystead.encoding import length_prefixed
from keystead.errors import CustodyUnavailable, SignatureInvalid, StartupError
from keystead.ports import Random, Seal

__all__ = ["RootKey", "open_locked"]


class RootKey:
    """Unsealed at start, in locked memory; wraps key-encryption keys and derives the vault's own.

    Sealed forms are ``nonce || ciphertext`` of AES-256-GCM-SIV, with what they are for as
    associated data, so that none opens in another's place.
    """

    def __init__(self, buffer: LockedBuffer, random: Random) -> None:
        self._key = buffer
        self._random = random
        self._closed = False

    def __repr__(self) -> str:
        return "<RootKey>"

    @property
    def locked(self) -> bool:
        """Whether the kernel keeps it out of swap."""
        return self._key.locked

    @classmethod
    def create(cls, seal_with: Seal, deployment: str, random: Random) -> tuple[RootKey, bytes]:
        """A new root key, and its sealed form for the registry."""
        buffer = LockedBuffer.take(bytearray(random.bytes(KEY_BYTES)))
        sealing = seal_with.open()
        try:
            nonce = random.bytes(NONCE_BYTES)
            sealed = nonce + seal(sealing, nonce, buffer.data, _root_aad(deployment))
        finally:
            wipe(sealing)
        return cls(buffer, random), sealed

    @classmethod
    def unseal(cls, seal_with: Seal, sealed: bytes, deployment: str, random: Random) -> RootKey:
        """The root key of a deployment.

        Raises:
            StartupError: the seal is another deployment's, or the sealed form was altered.
        """
        buffer = LockedBuffer(KEY_BYTES)
        sealing = seal_with.open()
        try:
            _open(sealing, sealed, _root_aad(deployment), buffer)
        except SignatureInvalid as exc:
            raise StartupError(
                f"the {seal_with.kind} seal does not open this data folder's root key",
                hint="It is the seal of another deployment, or the registry was altered: restore"
                " the seal and the registry that belong together. Nothing was changed",
            ) from exc
        finally:
            wipe(sealing)
        return cls(buffer, random)

    def derive(self, label: bytes) -> bytes:
        """A secret of the vault's own (handle secret, registry MAC key), by its label."""
        return hkdf(self._open(), length_prefixed((b"keystead/root/v1", label)))

    def wrap(self, secret: bytearray, aad: bytes) -> bytes:
        """Seal a secret under the root key."""
        nonce = self._random.bytes(NONCE_BYTES)
        return nonce + seal(self._open(), nonce, secret, aad)

    def unwrap(self, sealed: bytes, aad: bytes) -> LockedBuffer:
        """Open a secret into locked memory.

        Raises:
            CustodyUnavailable: it was altered, or is another's.
        """
        return open_locked(self._open(), sealed, aad)

    def close(self) -> None:
        """Wipe it; from then on nothing is sealed, opened or derived."""
        self._closed = True
        self._key.wipe()

    def _open(self) -> bytearray:
        if self._closed:  # what is left is a key of zeros, which everyone knows
            raise CustodyUnavailable("the root key was wiped: the vault is stopping")
        return self._key.data


def open_locked(key: bytearray, sealed: bytes, aad: bytes) -> LockedBuffer:
    """Open ``nonce || ciphertext`` into locked memory.

    Raises:
        CustodyUnavailable: it was altered, or sealed for something else.
    """
    if len(sealed) <= NONCE_BYTES + TAG_BYTES:
        raise CustodyUnavailable("sealed key material is cut off")
    buffer = LockedBuffer(len(sealed) - NONCE_BYTES - TAG_BYTES)
    try:
        _open(key, sealed, aad, buffer)
    except SignatureInvalid as exc:
        raise CustodyUnavailable(
            "sealed key material does not open: it was altered, or belongs to another key",
            hint="Restore the registry from a backup; the log shows the last change",
        ) from exc
    return buffer


def _open(key: bytearray, sealed: bytes, aad: bytes, into: LockedBuffer) -> None:
    open_into(key, sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad, into.data)


def _root_aad(deployment: str) -> bytes:
    return length_prefixed((b"keystead/sealed-root/v1", deployment.encode()))
