"""Vector files as types: a field that these do not know is fatal, so nothing is checked silently.

Binary values are in hex. A file has `about`, `given` (what all its vectors share: test keys,
policy, clock) and `expected`: vectors that name what they show, and refusals and forgeries that
name their failure by its code (design section 9).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from keystead.crypto.hazmat import open_signer
from keystead.crypto.public import key_id, pem
from keystead.errors import KeysteadError
from keystead.keys.algorithms import ALGORITHMS
from keystead.keys.commands import VersionInfo
from keystead.keys.framing.base import Scene
from keystead.keys.lifecycle import State
from keystead.keys.model import Key, Policy, Version
from keystead.keys.purposes import Purpose
from keystead.keys.verify import PublicKey

FOLDER = Path(__file__).parent
KEY_ID = "k-vector"
SIGNATURE_INVALID = "signature_invalid"
"""Failure class of a forgery; SignatureInvalid has no code on the wire, as no node answers it."""

T = TypeVar("T")


class Hex(bytes):
    """Bytes that stand in the file in hex."""

    __slots__ = ()


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything in a vector file."""


class Given(Strict, frozen=True):
    """``keys``: algorithm to one PKCS#8 PEM a component; each is a version of one key, in order."""

    keys: dict[str, tuple[str, ...]]
    now_ms: int


def read(name: str, form: type[T]) -> T:
    """The vector file of a name."""
    return decode((FOLDER / f"{name}.json").read_bytes(), form)


def decode(data: bytes, form: type[T]) -> T:
    return msgspec.json.decode(data, type=form, dec_hook=_from_hex)


def _from_hex(kind: type, value: Any) -> Any:  # noqa: ANN401  the hook's signature
    if kind is not Hex:
        raise NotImplementedError(kind)
    return Hex(bytes.fromhex(value))


def key_of(purpose: Purpose, given: Given, policy: Policy) -> Key:
    """A key with one active version for each test key."""
    versions = tuple(
        _version(number, algorithm, pems, given.now_ms)
        for number, (algorithm, pems) in enumerate(given.keys.items(), start=1)
    )
    return Key(
        id=KEY_ID,
        name="vector",
        tenant="default",
        labels={},
        purpose=purpose,
        algorithms=tuple(given.keys),
        prehashed=False,
        policy=policy,
        generation=1,
        primary=1,
        versions=versions,
        revision=1,
        epoch=1,
        created_ms=given.now_ms,
    )


def _version(number: int, algorithm: str, pems: tuple[str, ...], now_ms: int) -> Version:
    public = tuple(spki_of(text) for text in pems)
    return Version(
        number=number,
        state=State.ACTIVE,
        algorithm=algorithm,
        public=public,
        kid=key_id(public),
        created_ms=now_ms,
    )


def spki_of(private_pem: str) -> bytes:
    key = serialization.load_pem_private_key(private_pem.encode(), password=None)
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def version_of(key: Key, algorithm: str) -> Version:
    return next(version for version in key.versions if version.algorithm == algorithm)


def scene_of(key: Key, algorithm: str, counter: bytes | None = None) -> Scene:
    return Scene(
        key=key,
        version=version_of(key, algorithm),
        context="vectors",
        now_ms=key.created_ms,
        random=bytes(32),
        counter=counter,
    )


def published(key: Key) -> PublicKey:
    """The same key as anyone sees it."""
    return PublicKey(
        name=key.name,
        purpose=key.purpose,
        id=key.id,
        versions=tuple(
            VersionInfo(
                number=version.number,
                state=version.state,
                algorithm=version.algorithm,
                kid=version.kid,
                created_ms=version.created_ms,
                public_pem=tuple(map(pem, version.public)),
            )
            for version in key.versions
        ),
    )


def signatures_of(
    given: Given, algorithm: str, message: bytes, *, prehashed: bool = False
) -> tuple[bytes, ...]:
    """Signatures by the code that custody signs with, one a component."""
    return tuple(
        open_signer(component, _pkcs8(text))(message, prehashed)
        for component, text in zip(
            ALGORITHMS[algorithm].components, given.keys[algorithm], strict=True
        )
    )


def _pkcs8(private_pem: str) -> bytearray:
    key = serialization.load_pem_private_key(private_pem.encode(), password=None)
    return bytearray(
        key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def in_components(
    given: Given, algorithm: str, signatures: Mapping[str, bytes]
) -> list[tuple[str, bytes, bytes]]:
    """(component, SPKI, signature) of each component of an algorithm."""
    return [
        (component, spki_of(text), signatures[component])
        for component, text in zip(
            ALGORITHMS[algorithm].components, given.keys[algorithm], strict=True
        )
    ]


def shows(vectors: Sequence[msgspec.Struct]) -> pytest.MarkDecorator:
    """One test a vector, named by what it shows."""
    names = [str(getattr(vector, "shows")) for vector in vectors]  # noqa: B009  each form has one
    return pytest.mark.parametrize("vector", vectors, ids=names)


def refusal(call: Callable[[], object]) -> str:
    """The code by which a call is refused; facts of a wrong shape are malformed, as on the wire."""
    try:
        call()
    except KeysteadError as error:
        return error.code or SIGNATURE_INVALID
    except msgspec.ValidationError:
        return "malformed_request"
    return "(not refused)"
