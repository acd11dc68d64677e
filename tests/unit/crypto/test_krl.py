"""OpenSSH revocation lists: the real ssh-keygen reads them, and refuses what they revoke."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from keystead.crypto.krl import key_revocation_list
from keystead.errors import MalformedRequest
from unit.crypto.keys import PRIVATE, spki

Keygen = Callable[..., CompletedProcess[str]]

GENERATED_S = 1_800_000_000


@pytest.fixture
def keygen(tmp_path: Path) -> Keygen:
    def call(*args: str) -> CompletedProcess[str]:
        return run(
            ["ssh-keygen", *args],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TZ": "UTC"},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def authority(keygen: Keygen, folder: Path, name: str, kind: str) -> bytes:
    """Make an authority that signs two certificates, one without a serial number; its SPKI."""
    keygen("-q", "-t", kind, "-N", "", "-f", name)
    for serial in ("0", "7"):
        user = f"user-{name}-{serial}"
        keygen("-q", "-t", "ed25519", "-N", "", "-f", user)
        signed = keygen("-q", "-s", name, "-I", "id", "-n", "ann", "-z", serial, f"{user}.pub")
        assert signed.returncode == 0, signed.stderr
    key = load_ssh_public_key((folder / f"{name}.pub").read_bytes())
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def is_revoked(keygen: Keygen, name: str) -> bool:
    asked = keygen("-Q", "-f", "list.krl", name)
    said = asked.stdout.strip().rpartition(": ")[2]
    assert (asked.returncode, said) in {(0, "ok"), (1, "REVOKED")}, asked
    return said == "REVOKED"


def test_a_revoked_authority_takes_all_its_certificates_with_it(
    keygen: Keygen, tmp_path: Path
) -> None:
    good = authority(keygen, tmp_path, "good", "ed25519")
    bad = [authority(keygen, tmp_path, f"bad-{kind}", kind) for kind in ("ed25519", "ecdsa")]
    assert good not in bad
    file = tmp_path / "list.krl"
    file.write_bytes(key_revocation_list(bad, version=7, generated_s=GENERATED_S, comment="shop"))
    for serial in ("0", "7"):
        assert is_revoked(keygen, f"user-bad-ed25519-{serial}-cert.pub")
        assert is_revoked(keygen, f"user-bad-ecdsa-{serial}-cert.pub")
        assert not is_revoked(keygen, f"user-good-{serial}-cert.pub")
        assert not is_revoked(keygen, f"user-bad-ecdsa-{serial}.pub")  # the user's own key
    assert is_revoked(keygen, "bad-ecdsa.pub")
    assert not is_revoked(keygen, "good.pub")


def test_ssh_keygen_reads_version_date_and_comment(keygen: Keygen, tmp_path: Path) -> None:
    file = tmp_path / "list.krl"
    file.write_bytes(
        key_revocation_list([], version=2**40, generated_s=GENERATED_S, comment="keystead shop")
    )
    shown = keygen("-Q", "-l", "-f", "list.krl")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[:3] == [
        f"# KRL version {2**40}",
        "# Generated at 20270115T080000",
        "# Comment: keystead shop",
    ]


def test_an_empty_list_revokes_nothing(keygen: Keygen, tmp_path: Path) -> None:
    authority(keygen, tmp_path, "good", "ed25519")
    file = tmp_path / "list.krl"
    file.write_bytes(key_revocation_list([], version=1, generated_s=GENERATED_S))
    assert not is_revoked(keygen, "user-good-7-cert.pub")


def test_one_set_of_keys_has_one_list() -> None:
    first, second = (spki(PRIVATE[kind]) for kind in ("ed25519", "ecdsa-p256-sha256"))
    made = {
        key_revocation_list(keys, version=1, generated_s=2)
        for keys in ([first, second], [second, first], [second, first, second])
    }
    assert len(made) == 1


def test_a_key_that_no_ssh_authority_has_is_refused() -> None:
    with pytest.raises(MalformedRequest, match="Ed25519 or P-256"):
        key_revocation_list(
            [spki(PRIVATE["ecdsa-p384-sha384"])], version=1, generated_s=GENERATED_S
        )
