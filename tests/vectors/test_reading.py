"""The reader of vector files refuses what it does not know, and openssl can say no."""

import json
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vectors import test_data, test_firmware, test_jwt, test_ledger, test_tls
from vectors.openssl import verifies
from vectors.reading import FOLDER, Strict, decode, refusal

FORMS: dict[str, type[Strict]] = {
    "data": test_data.File,
    "firmware": test_firmware.File,
    "jwt": test_jwt.File,
    "ledger": test_ledger.File,
    "tls": test_tls.File,
}


def spoiled(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The place of every object in a JSON document."""
    found: list[tuple[object, ...]] = []
    if isinstance(value, dict):
        found.append(path)
        for name, item in value.items():
            found += spoiled(item, (*path, name))
    if isinstance(value, list):
        for place, item in enumerate(value[:1]):  # all items of a list are of one type
            found += spoiled(item, (*path, place))
    return found


@pytest.mark.parametrize("name", FORMS)
def test_an_unknown_field_is_fatal(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_bytes()
    decode(text, FORMS[name])
    places = spoiled(json.loads(text))
    refused = 0
    for place in places:
        document = json.loads(text)
        inner = document
        for step in place:
            inner = inner[step]
        inner["unheard_of"] = 1
        try:
            decode(json.dumps(document).encode(), FORMS[name])
        except msgspec.ValidationError:
            refused += 1
    # What a caller asks for is free-form here: the framing, not the reader, refuses it.
    free = sum("facts" in place for place in places)
    assert refused == len(places) - free


@pytest.mark.parametrize("name", FORMS)
def test_every_vector_says_what_it_shows(name: str) -> None:
    document = json.loads((FOLDER / f"{name}.json").read_text())
    assert document["about"]
    for section in document["expected"].values():
        for vector in section if isinstance(section, list) else []:
            assert vector["shows"]


def test_refusal_tells_when_there_is_none() -> None:
    assert refusal(lambda: None) == "(not refused)"


def test_openssl_says_no(tmp_path: Path) -> None:
    key = ec.derive_private_key(7, ec.SECP256R1())
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signature = key.sign(b"yes", ec.ECDSA(hashes.SHA256()))
    assert verifies(tmp_path, "ecdsa-p256-sha256", spki, b"yes", signature)
    assert not verifies(tmp_path, "ecdsa-p256-sha256", spki, b"no", signature)
