"""The openssl of the machine as a foreign verifier. Debian 12 has 3.0: no ML-DSA, no GCM-SIV."""

import os
import shutil
from pathlib import Path
from subprocess import run

import pytest

from keystead.crypto.public import pem

_PSS = ("-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest")
_DIGESTS = {
    "ecdsa-p256-sha256": ("-sha256",),
    "ecdsa-p384-sha384": ("-sha384",),
    "rsa-pss-2048-sha256": ("-sha256", *_PSS),
}
UNKNOWN = frozenset({"ml-dsa-44", "ml-dsa-65"})
"""Components that openssl 3.0 does not know; pyca's own OpenSSL, newer, verifies them instead."""


def openssl(*words: str | Path, data: bytes = b"") -> tuple[int, bytes, str]:
    """Status, output and complaints of openssl."""
    program = shutil.which("openssl")
    if program is None:
        missing = "needs the openssl command: apt-get install openssl"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    done = run([program, *words], input=data, capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def verifies(folder: Path, component: str, spki: bytes, message: bytes, signature: bytes) -> bool:
    """Whether openssl verifies one component's raw signature over a message."""
    if not signature:
        return False  # the command does not read an empty file
    files = {"key.pem": pem(spki).encode(), "message": message, "signature": signature}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    key, text, made = (folder / name for name in files)
    if component == "ed25519":
        words = ("pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin", "-in", text)
        status, said, complaints = openssl(*words, "-sigfile", made)
    else:
        digest = _DIGESTS[component]
        status, said, complaints = openssl(
            "dgst", *digest, "-verify", key, "-signature", made, text
        )
    return _verdict(status, said.decode() + complaints)


def digest_verifies(
    folder: Path, component: str, spki: bytes, digest: bytes, signature: bytes
) -> bool:
    """Whether openssl verifies a raw signature over a digest that it is given as it is."""
    files = {"key.pem": pem(spki).encode(), "digest": digest, "signature": signature}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    key, text, made = (folder / name for name in files)
    hashed = _DIGESTS[component][0].removeprefix("-")
    options: tuple[str, ...] = ("-pkeyopt", f"digest:{hashed}")
    if component.startswith("rsa"):
        options += ("-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest")
    words = ("pkeyutl", "-verify", "-pubin", "-inkey", key, "-in", text, "-sigfile", made)
    status, said, complaints = openssl(*words, *options)
    return _verdict(status, said.decode() + complaints)


def _verdict(status: int, said: str) -> bool:
    good = "Verified OK" in said or "Signature Verified Successfully" in said
    bad = any(
        word in said for word in ("Verification failure", "Verification Failure", "Error verifying")
    )
    if good == bad or good == bool(status):  # neither a yes nor a no: not a verdict on a signature
        pytest.fail(f"openssl gave no verdict (status {status}): {said}")
    return good
