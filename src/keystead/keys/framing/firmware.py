"""Firmware manifests: a name out of the key's list, a version counter that only grows, hash, size.

The signed bytes are the manifest in canonical JSON (RFC 8785), so any tool can verify them. They
name the set of algorithms that sign, so that of a dual signature neither part can be stripped.
"""

from __future__ import annotations

import msgspec

from keystead.encoding import canonical_json
from keystead.errors import Conflict, LimitExceeded, MalformedRequest, PermissionDenied
from keystead.keys.framing.base import CounterStep, Facts, Framed, Framing, Result, Scene
from keystead.keys.model import FirmwarePolicy

__all__ = ["FIRMWARE", "FirmwareResult", "SignFirmware"]

_SHA256_BYTES = 32


class SignFirmware(Facts, frozen=True):
    """``version``: the image's version counter; ``sha256``: 32 bytes; ``size``: bytes."""

    name: str
    version: int
    sha256: bytes
    size: int


class FirmwareResult(Result, frozen=True):
    """``manifest``: the exact bytes that are signed; ``signatures``: one a component, by name."""

    manifest: bytes
    signatures: dict[str, bytes]


class _Counter(msgspec.Struct, frozen=True, array_like=True):
    version: int
    image: bytes


def _check(facts: SignFirmware, policy: FirmwarePolicy | None) -> FirmwarePolicy:
    if policy is None or facts.name not in policy.names:
        names = ", ".join(policy.names) if policy else "none"
        raise PermissionDenied(
            f"the key signs no image named {facts.name[:64]!r}", hint=f"Its names are: {names}"
        )
    if len(facts.sha256) != _SHA256_BYTES:
        raise MalformedRequest(f"expected sha256 of 32 bytes, met {len(facts.sha256)}")
    if not 0 < facts.version < 2**53 or not 0 <= facts.size < 2**53:
        raise MalformedRequest("expected a version from 1 and a size from 0")
    return policy


def _step(facts: SignFirmware, policy: FirmwarePolicy, old: bytes | None) -> bytes:
    image = facts.sha256 + facts.size.to_bytes(8, "big")
    last = msgspec.msgpack.decode(old, type=_Counter) if old else _Counter(0, b"")
    if facts.version == last.version and image == last.image:
        return msgspec.msgpack.encode(last)
    if facts.version <= last.version:
        raise Conflict(
            f"{facts.name} is at version {last.version}; {facts.version} does not come after it",
            hint="Sign a higher version, or the identical image again",
        )
    if facts.version - last.version > policy.step_max:
        raise LimitExceeded(
            f"the version may grow by {policy.step_max} at most, from {last.version}",
            hint="A counter that jumps cannot come back: check the number, or change the policy",
        )
    return msgspec.msgpack.encode(_Counter(facts.version, image))


def _frame(facts: SignFirmware, scene: Scene) -> Framed:
    policy = _check(facts, scene.key.policy.firmware)
    components = scene.algorithm.components
    manifest = canonical_json(
        {
            "algorithms": list(components),
            "key": scene.version.kid,
            "name": facts.name,
            "sha256": facts.sha256.hex(),
            "size": facts.size,
            "type": "keystead-firmware-v1",
            "version": facts.version,
        }
    )
    new = _step(facts, policy, scene.counter)

    def finish(signatures: tuple[bytes, ...]) -> FirmwareResult:
        return FirmwareResult(
            manifest=manifest, signatures=dict(zip(components, signatures, strict=True))
        )

    return Framed(
        message=manifest, finish=finish, step=CounterStep(_counter_name(facts), scene.counter, new)
    )


def _counter_name(facts: SignFirmware) -> str:
    return f"firmware/{facts.name[:64]}"


FIRMWARE = Framing(
    facts=SignFirmware, result=FirmwareResult, frame=_frame, counter_name=_counter_name
)
