"""SSH certificates: byte-equal from the given scene, and ssh-keygen reads and verifies them.

``ssh-keygen -L`` checks the authority's signature before it shows a certificate, so what it does
not show is a forgery: its failure class is `signature_invalid`, or `malformed` where the bytes are
no certificate at all.
"""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess, run
from typing import Any, Literal

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from keystead import limits
from keystead.crypto.ssh import public_key_line
from keystead.keys.framing.base import Framed, Scene
from keystead.keys.framing.ssh_ca import SSH_CA, SignSshCa, SshCaResult
from keystead.keys.model import Policy, SshCaPolicy
from keystead.keys.purposes import Purpose
from vectors.reading import (
    FOLDER,
    Given,
    Hex,
    Strict,
    decode,
    key_of,
    read,
    refusal,
    scene_of,
    shows,
    signatures_of,
)

ALGORITHM = "ed25519"
Kind = Literal["user", "host"]


class AuthorityGiven(Strict, frozen=True):
    """``random``: 32 bytes, nonce and serial number of both certificates."""

    authority_seed: Hex
    now_ms: int
    random: Hex
    policy: SshCaPolicy
    user: SignSshCa
    host: SignSshCa


class Made(Strict, frozen=True):
    tbs: Hex
    certificate: str


class Expected(Strict, frozen=True):
    authority: str
    user: Made
    host: Made


class Asked(Strict, frozen=True):
    """The given user's or host's request, with these fields changed."""

    of: Kind
    changes: dict[str, Any]


class Refused(Strict, frozen=True):
    shows: str
    failure: str
    given: Asked


class ForgedGiven(Strict, frozen=True):
    certificate: str


class Forged(Strict, frozen=True):
    shows: str
    failure: Literal["signature_invalid", "malformed"]
    given: ForgedGiven


class File(Strict, frozen=True):
    about: str
    given: AuthorityGiven
    expected: Expected
    refused: tuple[Refused, ...]
    forged: tuple[Forged, ...]


FILE = read("ssh_ca", File)
SEED = ed25519.Ed25519PrivateKey.from_private_bytes(FILE.given.authority_seed)
AUTHORITY = Given(
    keys={
        ALGORITHM: (
            SEED.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode(),
        )
    },
    now_ms=FILE.given.now_ms,
)
KEY = key_of(Purpose.SSH_CA, AUTHORITY, Policy(ssh_ca=FILE.given.policy))
NOW_S = FILE.given.now_ms // 1000
REASONS = {"signature_invalid": "incorrect signature", "malformed": "invalid format"}
"""Failure classes: what ssh-keygen says."""
each_kind = pytest.mark.parametrize("kind", ["user", "host"])


def scene() -> Scene:
    return msgspec.structs.replace(scene_of(KEY, ALGORITHM), random=FILE.given.random)


def asked(kind: Kind) -> SignSshCa:
    return FILE.given.user if kind == "user" else FILE.given.host


def made(kind: Kind) -> Made:
    return FILE.expected.user if kind == "user" else FILE.expected.host


def framed(kind: Kind) -> Framed:
    return SSH_CA.frame(asked(kind), scene())


def ssh_keygen(*words: str | Path) -> CompletedProcess[str]:
    program = shutil.which("ssh-keygen")
    if program is None:
        missing = "needs the ssh-keygen command: apt-get install openssh-client"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return run(
        [program, *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "TZ": "UTC", "LC_ALL": "C"},
    )


def listed(folder: Path, line: str) -> CompletedProcess[str]:
    """What ``ssh-keygen -L`` makes of one certificate line."""
    (folder / "id-cert.pub").write_text(line + "\n")
    return ssh_keygen("-L", "-f", folder / "id-cert.pub")


def fingerprint(folder: Path, line: str) -> str:
    (folder / "key.pub").write_text(line + "\n")
    done = ssh_keygen("-l", "-f", folder / "key.pub")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[1]


def instant(seconds: int) -> str:
    """As ssh-keygen writes it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def entries(shown: str, title: str) -> list[str]:
    """What stands below a title of ssh-keygen's list."""
    lines = shown.splitlines()
    at = next(number for number, line in enumerate(lines) if line.strip().startswith(title))
    found: list[str] = []
    if lines[at].strip() != title:
        found.append(lines[at].strip().removeprefix(title).strip())
    for line in lines[at + 1 :]:
        if not line.startswith(" " * 16):
            break
        found.append(line.strip())
    return found


# --- what is signed ------------------------------------------------------------------------------


@each_kind
def test_the_signed_part_is_byte_equal(kind: Kind) -> None:
    assert framed(kind).message == made(kind).tbs


@each_kind
def test_custody_signs_what_the_vector_holds(kind: Kind) -> None:
    """Ed25519 signs the same way each time, so all of it is fixed."""
    frame = framed(kind)
    result = frame.finish(signatures_of(AUTHORITY, ALGORITHM, frame.message))
    assert isinstance(result, SshCaResult)
    assert result.certificate == made(kind).certificate


def test_the_authority_is_that_of_the_seed() -> None:
    assert public_key_line(KEY.versions[0].public[0]) == FILE.expected.authority


# --- what ssh-keygen makes of it -----------------------------------------------------------------


@each_kind
def test_ssh_keygen_verifies_and_reads_it(kind: Kind, tmp_path: Path) -> None:
    done = listed(tmp_path, made(kind).certificate)
    assert done.returncode == 0, done.stderr
    facts = asked(kind)
    subject = fingerprint(tmp_path, facts.public_key)
    authority = fingerprint(tmp_path, FILE.expected.authority)
    assert entries(done.stdout, "Type:") == [f"ssh-ed25519-cert-v01@openssh.com {kind} certificate"]
    assert entries(done.stdout, "Public key:") == [f"ED25519-CERT {subject}"]
    assert entries(done.stdout, "Signing CA:") == [f"ED25519 {authority} (using ssh-ed25519)"]
    assert entries(done.stdout, "Key ID:") == [f'"{facts.key_id}"']
    assert entries(done.stdout, "Principals:") == list(facts.principals)
    start, end = NOW_S - limits.CERT_BACKDATE_S, NOW_S + facts.lifetime_s
    assert entries(done.stdout, "Valid:") == [f"from {instant(start)} to {instant(end)}"]
    serial = int.from_bytes(FILE.given.random[24:], "big") | 1 << 63
    assert entries(done.stdout, "Serial:") == [str(serial)]


def test_ssh_keygen_reads_what_the_user_may(tmp_path: Path) -> None:
    shown = listed(tmp_path, FILE.expected.user.certificate).stdout
    assert entries(shown, "Critical Options:") == [
        f"force-command {FILE.given.user.force_command}",
        f"source-address {','.join(FILE.given.user.source_address)}",
    ]
    assert entries(shown, "Extensions:") == list(FILE.given.user.extensions or ())


def test_ssh_keygen_reads_that_a_host_has_no_options(tmp_path: Path) -> None:
    shown = listed(tmp_path, FILE.expected.host.certificate).stdout
    assert entries(shown, "Critical Options:") == ["(none)"]
    assert entries(shown, "Extensions:") == ["(none)"]


# --- what is refused, and what is forged ---------------------------------------------------------


@shows(FILE.refused)
def test_refusals(vector: Refused) -> None:
    given = msgspec.to_builtins(asked(vector.given.of))

    def ask() -> None:
        SSH_CA.frame(msgspec.convert(given | vector.given.changes, SignSshCa), scene())

    assert refusal(ask) == vector.failure


@each_kind
def test_what_the_refusals_change_is_not_refused_itself(kind: Kind) -> None:
    given = msgspec.to_builtins(asked(kind))
    assert refusal(lambda: SSH_CA.frame(msgspec.convert(given, SignSshCa), scene())) == (
        "(not refused)"
    )


@shows(FILE.forged)
def test_forgeries(vector: Forged, tmp_path: Path) -> None:
    done = listed(tmp_path, vector.given.certificate)
    assert done.returncode != 0, done.stdout
    assert REASONS[vector.failure] in done.stdout + done.stderr
    assert "Key ID" not in done.stdout


def test_every_failure_class_has_its_vector() -> None:
    assert {vector.failure for vector in FILE.forged} == set(REASONS)


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("given",),
        ("given", "policy"),
        ("given", "user"),
        ("given", "host"),
        ("expected",),
        ("expected", "user"),
        ("refused", 0),
        ("refused", 0, "given"),
        ("forged", 0),
        ("forged", 0, "given"),
    ],
    ids=str,
)
def test_an_unknown_field_is_fatal(path: tuple[str | int, ...]) -> None:
    document = inner = msgspec.json.decode((FOLDER / "ssh_ca.json").read_bytes())
    for step in path:
        inner = inner[step]
    decode(msgspec.json.encode(document), File)
    inner["unheard_of"] = 1
    with pytest.raises(msgspec.ValidationError, match="unheard_of"):
        decode(msgspec.json.encode(document), File)
