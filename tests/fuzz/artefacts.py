"""Targets of the verifiers: artefacts that are bent, and hostile ones that are really signed."""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization

from fuzz import seeds
from fuzz.choices import Choices, mutate
from fuzz.judge import Target
from fuzz.shapes import as_json, junk
from keystead.crypto.public import pem
from keystead.encoding import b64u_encode, canonical_json
from keystead.keys.commands import VersionInfo
from keystead.keys.framing.tls import certificate_verify_content
from keystead.keys.verify import (
    PublicKey,
    SignedEntry,
    verify_firmware,
    verify_jwt,
    verify_ledger,
    verify_tls,
)
from unit.keys.sample import NOW_MS

__all__ = ["ARTEFACTS"]

_NOW_S = NOW_MS // 1000
_ED25519_SCHEME = 0x0807


@cache
def _key(purpose: str) -> PublicKey:
    spki = seeds.ED25519.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    version = VersionInfo(
        number=1,
        state="active",
        algorithm="ed25519",
        kid="kid-1",
        created_ms=NOW_MS,
        public_pem=(pem(spki),),
    )
    return PublicKey(name="shop", purpose=purpose, versions=(version,), id="k-1")


def _document(choices: Choices, members: dict[str, object]) -> bytes:
    """Canonical as a signer writes it; or JSON of another kind, or bytes that are bent."""
    if choices.rarely(2):
        members |= {choices.pick((*members, choices.text())): junk(choices, 3)}
    try:
        text = canonical_json(members)
    except (TypeError, ValueError, RecursionError):
        text = as_json(members)
    return mutate(choices, text) if choices.rarely(2) else text


def _signatures(choices: Choices, message: bytes) -> dict[str, bytes]:
    signature = seeds.ED25519.sign(message)
    if choices.rarely(4):
        signature = mutate(choices, signature)
    names = choices.pick((("ed25519",), ("ed25519", "ml-dsa-65"), ("\xe9",), ()))
    return dict.fromkeys(names if choices.rarely(4) else ("ed25519",), signature)


def _firmware(choices: Choices) -> tuple[bytes, dict[str, bytes]]:
    manifest = _document(
        choices,
        {
            "algorithms": ["ed25519"],
            "key": "kid-1",
            "name": "router",
            "sha256": "0" * 64,
            "size": 1,
            "type": "keystead-firmware-v1",
            "version": 1,
        },
    )
    return manifest, _signatures(choices, manifest)


def _ledger(choices: Choices) -> list[SignedEntry]:
    document = _document(
        choices,
        {
            "algorithms": ["ed25519"],
            "entry_sha256": "0" * 64,
            "key": "kid-1",
            "ledger": "k-1",
            "previous": "0" * 64,
            "sequence": 1,
            "type": "keystead-ledger-v1",
        },
    )
    entry = SignedEntry(document=document, signatures=_signatures(choices, document))
    return [entry] * choices.pick((1, 1, 2, 0))


def _jwt(choices: Choices) -> str:
    header: dict[str, object] = {"alg": "EdDSA", "kid": "kid-1", "typ": "JWT"}
    claims: dict[str, object] = {"exp": _NOW_S + 60, "iat": _NOW_S, "aud": "x", "iss": "i"}
    if choices.rarely(4):
        header |= {choices.pick((*header, "crit")): junk(choices, 3)}
    if choices.rarely(2):
        claims |= {choices.pick((*claims, "nbf")): junk(choices, 3)}
    signing_input = f"{_part(choices, header)}.{_part(choices, claims)}"
    signature = seeds.ED25519.sign(signing_input.encode())
    token = f"{signing_input}.{b64u_encode(signature)}"
    if choices.rarely(3):
        return mutate(choices, token.encode()).decode(errors="surrogateescape")
    return token


def _part(choices: Choices, members: dict[str, object]) -> str:
    text = as_json(members)
    return b64u_encode(mutate(choices, text) if choices.rarely(4) else text)


def _tls(choices: Choices) -> tuple[Any, bytes, int, bytes]:
    transcript = b"t" * choices.pick((32, 48, 0, 31))
    signature = seeds.ED25519.sign(certificate_verify_content("server", transcript))
    return (
        choices.pick(("server", "client")),
        transcript,
        choices.pick((_ED25519_SCHEME, 0, 0x0403, choices.integer())),
        mutate(choices, signature),
    )


def _size(given: object) -> int:
    return len(repr(given))


def _check_jwt(given: Any) -> None:  # noqa: ANN401  each target's own
    verify_jwt(given, _key("jwt"), audience="x", now_ms=NOW_MS, issuer="i")


def _check_firmware(given: Any) -> None:  # noqa: ANN401  as above
    manifest, signatures = given
    verify_firmware(manifest, signatures, _key("firmware"))


def _check_tls(given: Any) -> None:  # noqa: ANN401  as above
    role, transcript, scheme, signature = given
    verify_tls(role, transcript, scheme, signature, _key("tls"))


ARTEFACTS: tuple[Target, ...] = (
    Target("verify.jwt", _jwt, _check_jwt, _size),
    Target(
        "verify.firmware",
        _firmware,
        _check_firmware,
        _size,
    ),
    Target(
        "verify.ledger",
        _ledger,
        lambda given: verify_ledger(given, _key("ledger")),  # type: ignore[arg-type]  # makes entries
        _size,
    ),
    Target("verify.tls", _tls, _check_tls, _size),
)
"""All of them, by name."""
