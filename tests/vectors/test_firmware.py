"""Firmware manifests: byte-equal from the given scene, and openssl verifies over these bytes.

openssl 3.0 does not know ML-DSA: pyca verifies those signatures.
"""

from pathlib import Path
from typing import Any

import msgspec

from keystead.crypto.signatures import verify
from keystead.keys.framing.base import Framed
from keystead.keys.framing.firmware import FIRMWARE, FirmwareResult, SignFirmware
from keystead.keys.model import FirmwarePolicy, Policy
from keystead.keys.purposes import Purpose
from keystead.keys.verify import verify_firmware
from vectors.openssl import UNKNOWN, openssl, verifies
from vectors.reading import (
    Given,
    Hex,
    Strict,
    in_components,
    key_of,
    published,
    read,
    refusal,
    scene_of,
    shows,
    signatures_of,
)


class SharedGiven(Given, frozen=True):
    policy: FirmwarePolicy


class Asked(Strict, frozen=True):
    """``counter``: the durable state of the name's counter before, null if it has none."""

    algorithm: str
    facts: dict[str, Any]
    counter: Hex | None = None


class Manifest(Strict, frozen=True):
    """``image``: the bytes whose hash and size the facts give; ``counter``: the state after."""

    image: Hex
    manifest: str
    signatures: dict[str, Hex]
    counter: Hex


class Vector(Strict, frozen=True):
    shows: str
    given: Asked
    expected: Manifest


class Refused(Strict, frozen=True):
    shows: str
    failure: str
    given: Asked


class ForgedGiven(Strict, frozen=True):
    algorithm: str
    manifest: str
    signatures: dict[str, Hex]


class Forged(Strict, frozen=True):
    shows: str
    failure: str
    given: ForgedGiven


class Expected(Strict, frozen=True):
    manifests: tuple[Vector, ...]
    refused: tuple[Refused, ...]
    forged: tuple[Forged, ...]


class File(Strict, frozen=True):
    about: str
    given: SharedGiven
    expected: Expected


FILE = read("firmware", File)
KEY = key_of(Purpose.FIRMWARE, FILE.given, Policy(firmware=FILE.given.policy))
PUBLIC = published(KEY)


def frame(given: Asked) -> Framed:
    facts = dict(given.facts)
    if isinstance(facts.get("sha256"), str):
        facts["sha256"] = bytes.fromhex(facts["sha256"])
    parsed = msgspec.convert(facts, SignFirmware)
    return FIRMWARE.frame(parsed, scene_of(KEY, given.algorithm, given.counter))


def assert_foreign_tools_verify(
    folder: Path, algorithm: str, message: bytes, signatures: dict[str, Hex]
) -> None:
    assert set(signatures)
    for component, spki, signature in in_components(FILE.given, algorithm, signatures):
        if component in UNKNOWN:
            verify(component, spki, message, signature)
        else:
            assert verifies(folder, component, spki, message, signature)
            assert not verifies(folder, component, spki, message + b"\n", signature)


@shows(FILE.expected.manifests)
def test_the_manifest_is_byte_equal(vector: Vector) -> None:
    framed = frame(vector.given)
    assert framed.message.decode() == vector.expected.manifest
    assert framed.step is not None
    assert (framed.step.old, framed.step.new) == (vector.given.counter, vector.expected.counter)
    signatures = tuple(
        signature
        for _, _, signature in in_components(
            FILE.given, vector.given.algorithm, vector.expected.signatures
        )
    )
    result = framed.finish(signatures)
    assert isinstance(result, FirmwareResult)
    assert (result.manifest, result.signatures) == (framed.message, vector.expected.signatures)


@shows(FILE.expected.manifests)
def test_foreign_tools_verify_the_vector(vector: Vector, tmp_path: Path) -> None:
    expected = vector.expected
    message = expected.manifest.encode()
    assert_foreign_tools_verify(tmp_path, vector.given.algorithm, message, expected.signatures)
    verified = verify_firmware(message, expected.signatures, PUBLIC)
    assert verified.signer.algorithm == vector.given.algorithm


@shows(FILE.expected.manifests)
def test_foreign_tools_verify_what_custody_signs(vector: Vector, tmp_path: Path) -> None:
    framed = frame(vector.given)
    made = signatures_of(FILE.given, vector.given.algorithm, framed.message)
    result = framed.finish(made)
    assert isinstance(result, FirmwareResult)
    signatures = {name: Hex(value) for name, value in result.signatures.items()}
    assert_foreign_tools_verify(
        tmp_path, vector.given.algorithm, vector.expected.manifest.encode(), signatures
    )


@shows(FILE.expected.manifests)
def test_openssl_hashes_the_image_to_the_manifest(vector: Vector) -> None:
    status, said, complaints = openssl("dgst", "-sha256", "-r", data=vector.expected.image)
    assert status == 0, complaints
    digest = said.split()[0].decode()
    manifest = msgspec.json.decode(vector.expected.manifest)
    assert (manifest["sha256"], manifest["size"]) == (digest, len(vector.expected.image))


@shows(FILE.expected.refused)
def test_refusals(vector: Refused) -> None:
    assert refusal(lambda: frame(vector.given)) == vector.failure


@shows(FILE.expected.forged)
def test_forgeries(vector: Forged, tmp_path: Path) -> None:
    given = vector.given
    message = given.manifest.encode()
    code = refusal(lambda: verify_firmware(message, given.signatures, PUBLIC))
    assert code == vector.failure
    whole = set(KEY_COMPONENTS[given.algorithm]) == set(given.signatures)
    assert not whole or not all_verify(tmp_path, given, message)


KEY_COMPONENTS = {
    algorithm: [
        component
        for component, _, _ in in_components(
            FILE.given, algorithm, dict.fromkeys(("ecdsa-p256-sha256", "ed25519", "ml-dsa-65"), b"")
        )
    ]
    for algorithm in FILE.given.keys
}


def all_verify(folder: Path, given: ForgedGiven, message: bytes) -> bool:
    """Whether tools that know nothing of manifests verify every signature over these bytes."""
    parts = in_components(FILE.given, given.algorithm, given.signatures)
    return all(
        refusal(lambda: verify(component, spki, message, signature)) == "(not refused)"  # noqa: B023  called at once
        if component in UNKNOWN
        else verifies(folder, component, spki, message, signature)
        for component, spki, signature in parts
    )
