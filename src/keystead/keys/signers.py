"""Whose signature an artefact bears: found by public keys, whatever it says itself."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from keystead.crypto.foreign import PublicPart, SignedObject, read_certificate
from keystead.crypto.proofkey import certificate_der
from keystead.crypto.ssh import public_key_blob
from keystead.errors import MalformedRequest, SignatureInvalid
from keystead.keys.artefacts import KINDS, Artefact
from keystead.keys.commands import VersionInfo
from keystead.keys.purposes import Purpose
from keystead.keys.verify import PublicKey

__all__ = ["Attribution", "Keyring", "Signer"]


class Signer(msgspec.Struct, frozen=True):
    """A version of a key, and its state."""

    key: str
    version: int
    state: str


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """``signers``: under whose keys it verifies. ``named``: whom it names, if that is one of them.

    ``own``: it is the very certificate that the registry holds of this authority.
    """

    signers: tuple[Signer, ...] = ()
    named: Signer | None = None
    own: bool = False


class _Held(msgspec.Struct, frozen=True):
    signer: Signer
    parts: tuple[PublicPart, ...]


class Keyring:
    """The public keys to try.

    Raises:
        MalformedRequest: a public part or certificate among them does not parse.
    """

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self._held: defaultdict[Purpose, list[_Held]] = defaultdict(list)
        self._by_name: dict[tuple[Purpose, str], _Held] = {}
        self._own: dict[bytes, Signer] = {}
        for key in keys:
            purpose = Purpose(key.purpose)
            if purpose in KINDS.values():
                for version in key.versions:
                    self._add(key.name, purpose, version)

    def _add(self, key: str, purpose: Purpose, version: VersionInfo) -> None:
        signer = Signer(key, version.number, version.state)
        held = _Held(signer, tuple(map(PublicPart, version.public_pem)))
        if not held.parts:
            return
        self._held[purpose].append(held)
        names = [version.kid]
        if purpose is Purpose.SSH_CA:
            blob = public_key_blob(held.parts[0].spki)
            names = [base64.b64encode(blob).decode("ascii")]
        elif version.certificate_pem is not None:
            read = read_certificate(certificate_der(version.certificate_pem.encode()))
            self._own[read.tbs] = signer
            names = _names_of(read)
        for name in names:
            self._by_name.setdefault((purpose, name), held)

    def attribute(self, artefact: Artefact) -> Attribution:
        """Who signed it: whom it names is tried first, then, unless it is bound, all others."""
        purpose = KINDS[artefact.kind]
        named = [held for name in artefact.names if (held := self._by_name.get((purpose, name)))]
        signers = _verified(artefact, named)
        if not signers and not artefact.bound:
            signers = _verified(artefact, self._held[purpose])
        return Attribution(
            signers=signers,
            named=named[0].signer if named else None,
            own=bool(signers) and artefact.message in self._own,
        )


def _names_of(read: SignedObject) -> list[str]:
    """How certificates name this one as their issuer's: by its key identifier, or its name."""
    found = [read.subject.hex()]
    if read.subject_key_id is not None:
        found.append(read.subject_key_id.hex())
    return found


def _verified(artefact: Artefact, candidates: Iterable[_Held]) -> tuple[Signer, ...]:
    return tuple(held.signer for held in candidates if _any_holds(artefact, held.parts))


def _any_holds(artefact: Artefact, parts: tuple[PublicPart, ...]) -> bool:
    for scheme, signature in artefact.signatures:
        for part in parts:
            if part.fits(scheme):
                with suppress(SignatureInvalid, MalformedRequest):
                    part.verify(scheme, artefact.message, signature)
                    return True
    return False
