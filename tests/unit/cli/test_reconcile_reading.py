"""Strangers' files taken apart: what is an artefact, what is told of the rest, and the bounds."""

import base64
import json
import os
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from keystead import limits
from keystead.cli.reconcile_reading import Seen, read_source, taken_apart
from keystead.encoding import b64u_encode
from keystead.errors import MalformedRequest
from keystead.keys.artefacts import Kind

TOKEN = f"{b64u_encode(b'{}')}.{b64u_encode(b'{}')}.{b64u_encode(b'signature')}"
MANIFEST = json.dumps({"type": "keystead-firmware-v1", "name": "app", "version": 1})
DOCUMENT = json.dumps({"type": "keystead-ledger-v1", "sequence": 1})
SIGNATURES = {"ed25519": base64.b64encode(b"signature").decode()}


def no_fetch(url: str) -> bytes:
    raise AssertionError(url)


def seen_in(source: str | Path, kind: Kind | None = None) -> list[Seen]:
    return list(read_source(str(source), kind, no_fetch))


def apart(data: bytes | str, kind: Kind | None = None) -> list[Seen]:
    raw = data if isinstance(data, bytes) else data.encode()
    return list(taken_apart(raw, "f", kind))


def kinds(found: list[Seen]) -> list[str]:
    return [str(one.artefact.kind) if one.artefact else one.problem for one in found]


# --- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TOKEN, ["jwt"]),
        (f"\n# seen\n{TOKEN}\r\n\n{TOKEN}", ["jwt", "jwt"]),
        (json.dumps({"token": TOKEN}), ["jwt"]),
        (json.dumps({"result": {"token": TOKEN}, "receipt": {}}), ["jwt"]),
        (json.dumps([TOKEN, {"token": TOKEN}]), ["jwt", "jwt"]),
        (json.dumps({"manifest": MANIFEST, "signatures": SIGNATURES}), ["firmware"]),
        (
            json.dumps(
                {
                    "manifest": base64.b64encode(MANIFEST.encode()).decode(),
                    "signatures": SIGNATURES,
                }
            ),
            ["firmware"],
        ),
        (json.dumps({"document": DOCUMENT, "signatures": SIGNATURES}), ["ledger"]),
        (
            2 * (json.dumps({"document": DOCUMENT, "signatures": SIGNATURES}) + "\n"),
            ["ledger", "ledger"],
        ),
    ],
)
def test_each_form_is_known(text: str, expected: list[str]) -> None:
    assert kinds(apart(text)) == expected


def test_places_are_told() -> None:
    assert [one.where for one in apart(f"{TOKEN}\n\n{TOKEN}")] == ["f:1", "f:3"]
    assert [one.where for one in apart(json.dumps([TOKEN, TOKEN]))] == ["f[1]", "f[2]"]
    assert [one.where for one in apart(TOKEN)] == ["f"]


def test_a_manifest_brings_the_signatures_beside_it(tmp_path: Path) -> None:
    (tmp_path / "app.manifest.json").write_text(MANIFEST)
    (tmp_path / "app.ed25519.sig").write_bytes(b"signature")
    (tmp_path / "app.rot13.sig").write_bytes(b"signature")
    for source in (tmp_path, tmp_path / "app.manifest.json"):
        [one] = seen_in(source)
        assert one.artefact is not None
        assert one.artefact.message == MANIFEST.encode()
        assert [signature for _, signature in one.artefact.signatures] == [b"signature"]
    [one] = apart(MANIFEST)
    assert "beside it" in one.problem


def test_what_is_of_another_kind_is_told(tmp_path: Path) -> None:
    [one] = apart(TOKEN, Kind.X509)
    assert one.problem == "expected x509, met jwt"
    del tmp_path


# --- what is none --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xff\xfe\x00", "neither text nor DER"),
        (b"\x30\x82\x01\x00" + bytes(256), "X.509"),
        ("[1, 2", "no JSON list"),
        ("[" * 100_000, "no JSON list"),
        ("[1]", "other JSON"),
        ("[[[[]]]]", "other JSON"),
        ('{"a": ' * 5_000 + "1" + "}" * 5_000, "other JSON|broken"),
        ('{"token": 7}', "expected members"),
        ('{"manifest": 7, "signatures": {}}', "as a string"),
        ('{"manifest": "{}", "signatures": []}', "by the name"),
        ('{"document": "{}", "signatures": {"ed25519": 7}}', "base64"),
        ('{"document": "{}", "signatures": {"ed25519": "!"}}', "base64"),
        ('{"pem": "-----BEGIN CERTIFICATE-----\\nAA"}', "one certificate"),
        ('{"cert": {"data": "AAAA"}}', "X.509"),
        ('{"broken": \n', "broken"),
        ("just words\nand more", "something else"),
        ("-----BEGIN CERTIFICATE-----\nAAAA", "does not end"),
        ("-----BEGIN " + "x" * 1000, "does not end"),
        ("-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n", "no certificate"),
        ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "base64"),
        ("x" * 300_000, "at most"),
    ],
    ids=range(21),
)
def test_what_is_none_is_told_and_ends_nothing(data: bytes | str, problem: str) -> None:
    found = apart(data)
    assert found
    assert all(one.artefact is None for one in found)
    assert any(word in found[0].problem for word in problem.split("|")), found[0].problem


@given(data=st.one_of(st.binary(max_size=100), st.text(max_size=100).map(str.encode)))
def test_any_bytes_are_taken_apart(data: bytes) -> None:
    for one in taken_apart(data, "f", None):
        assert (one.artefact is None) == bool(one.problem)


def test_a_private_key_is_not_repeated() -> None:
    secret = base64.b64encode(b"private").decode()
    text = f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"
    assert secret not in str(apart(text))


# --- bounds --------------------------------------------------------------------------------------


def test_a_giant_file_is_refused(tmp_path: Path) -> None:
    giant = tmp_path / "giant"
    with giant.open("wb") as file:
        file.truncate(limits.ARTEFACT_SOURCE_BYTES_MAX + 1)
    with pytest.raises(typer.BadParameter, match="at most"):
        seen_in(giant)
    [one] = seen_in(tmp_path)
    assert "at most" in one.problem


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(typer.BadParameter, match="expected a file"):
        seen_in(tmp_path / "pipe")
    with pytest.raises(typer.BadParameter, match="cannot read"):
        seen_in(tmp_path / "none")


def test_a_list_of_too_many_is_refused() -> None:
    with pytest.raises(MalformedRequest, match="at most"):
        apart(b"[" + b"1," * (16 * limits.ARTEFACTS_MAX + 1) + b"1]")
    [one] = apart(b"[" + b"1," * limits.ARTEFACTS_MAX + b"1]")
    assert "no JSON list" in one.problem


def test_a_folder_is_read_in_order_and_not_past_its_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_text(TOKEN)
    (tmp_path / "README").write_text("words")
    (tmp_path / "one.txt").write_text(TOKEN)
    (tmp_path / "image.bin").write_bytes(os.urandom(64) + b"\xff")
    (tmp_path / "link").symlink_to(tmp_path / "one.txt")
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    names = [Path(one.where).name for one in seen_in(tmp_path)]
    assert names == ["one.txt", "two.txt"]
    monkeypatch.setattr(limits, "ARTEFACT_FILES_MAX", 3)
    with pytest.raises(typer.BadParameter, match="more than 3 files"):
        seen_in(tmp_path)
    monkeypatch.setattr(limits, "ARTEFACT_FOLDERS_DEEP_MAX", 0)
    with pytest.raises(typer.BadParameter, match="more than"):
        seen_in(tmp_path)
