"""Firmware manifests: verify the signatures, and hold an image to what was signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from keystead.errors import SignatureInvalid
from keystead.keys.purposes import Purpose
from keystead.keys.verify.base import (
    Hex256,
    PublicKey,
    Verified,
    check_named,
    check_purpose,
    check_signatures,
    check_state,
    one_is_enough,
    parse_document,
    version_of_kid,
)

__all__ = ["VerifiedFirmware", "verify_firmware"]


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    algorithms: tuple[str, ...]
    key: str
    name: str
    sha256: Hex256
    size: Annotated[int, msgspec.Meta(ge=0)]
    type: Literal["keystead-firmware-v1"]
    version: Annotated[int, msgspec.Meta(ge=1)]


class VerifiedFirmware(msgspec.Struct, frozen=True, kw_only=True):
    """``version``: the image's counter; hold it against the one installed, to refuse downgrades."""

    signer: Verified
    name: str
    version: int
    sha256: bytes
    size: int


def verify_firmware(
    manifest: bytes,
    signatures: Mapping[str, bytes],
    key: PublicKey,
    *,
    name: str | None = None,
    version_min: int = 1,
    image_sha256: bytes | None = None,
    image_size: int | None = None,
    now_ms: int | None = None,
) -> VerifiedFirmware:
    """Verify a manifest as :class:`~keystead.keys.framing.firmware.FirmwareResult` gives it.

    ``name``, ``version_min``, ``image_sha256`` (32 bytes) and ``image_size`` (bytes) are held
    against the manifest where given. All components of the version's algorithm must have signed,
    and the manifest must name exactly these; if ``now_ms`` (Unix milliseconds) is given, and the
    key has a rule for a dual version that is not over by then, one good signature is enough.
    ``signer.components`` says which held.

    Raises:
        SignatureInvalid: a signature, or what it should be about, does not hold.
        SignedByCompromised: all is right, but the version that signed is compromised.
        PurposeMismatch: not a firmware key.
        MalformedRequest: the manifest does not parse.
    """
    check_purpose(key, Purpose.FIRMWARE)
    parsed = parse_document(manifest, _Manifest)
    version = version_of_kid(key, parsed.key)
    one = one_is_enough(key, version, now_ms)
    check_named(version, parsed.algorithms, signatures, one=one)
    signer = check_state(key, version, check_signatures(version, manifest, signatures, one=one))
    _check_image(parsed, name, version_min, image_sha256, image_size)
    return VerifiedFirmware(
        signer=signer,
        name=parsed.name,
        version=parsed.version,
        sha256=bytes.fromhex(parsed.sha256),
        size=parsed.size,
    )


def _check_image(
    parsed: _Manifest, name: str | None, version_min: int, sha256: bytes | None, size: int | None
) -> None:
    if name is not None and parsed.name != name:
        raise SignatureInvalid(
            f"expected firmware for {name!r}, the manifest is for {parsed.name!r}"
        )
    if parsed.version < version_min:
        raise SignatureInvalid(
            f"expected version {version_min} or later, the manifest is of version {parsed.version}",
            hint="An old image was offered again",
        )
    if size is not None and parsed.size != size:
        raise SignatureInvalid(f"the image has {size} bytes, the manifest says {parsed.size}")
    if sha256 is not None and parsed.sha256 != sha256.hex():
        raise SignatureInvalid("the image's SHA-256 is not the one in the manifest")
