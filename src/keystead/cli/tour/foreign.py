"""Tools that are not Keystead's: they make the tour's real inputs, and check what comes of them.

Every check of a signature is made twice, the second time with one bit of the message changed, which
the tool must refuse: a check that cannot fail proves nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt

from keystead.cli.tour.report import CheckFailed, NotInstalled, check

__all__ = ["PYJWT", "TOOL_TIMEOUT_S", "VERIFIES", "Tools", "check_token", "flipped"]

TOOL_TIMEOUT_S = 10.0
"""One run of a tool takes some 10 ms; past this it hangs."""
PYJWT = f"PyJWT {jwt.__version__}"
VERIFIES = "verifies, and not with one bit changed"

_PACKAGES = {"openssl": "openssl", "ssh-keygen": "openssh-client", "sha256sum": "coreutils"}
_REQUIRED = frozenset({"openssl", "sha256sum"})
_MESSAGE_CHARS_MAX = 200
_BITS = re.compile(r"[0-9]+ bit")


def flipped(data: bytes) -> bytes:
    """The bytes with one bit in their middle changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


class Tools:
    """The command-line tools of this machine; they run in ``folder``, with what they make."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths = {name: shutil.which(name) for name in _PACKAGES}
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "LC_ALL": "C",
        }
        self.openssl = "openssl"
        with suppress(NotInstalled, CheckFailed):
            self.openssl = " ".join(self.run("openssl", "version").split()[:2]).lower()

    def run(self, name: str, *arguments: str, stdin: bytes = b"") -> str:
        """What the tool prints.

        Raises:
            NotInstalled: there is no such tool.
            CheckFailed: it says no, or does not end in time.
        """
        path = self._paths[name]
        if path is None:
            raise NotInstalled(_PACKAGES[name], required=name in _REQUIRED)
        try:
            done = subprocess.run(  # noqa: S603  a fixed tool; arguments are file names of our own
                [path, *arguments],
                input=stdin,
                capture_output=True,
                cwd=self.folder,
                env=self._environment,
                timeout=TOOL_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"{name} did not end within {TOOL_TIMEOUT_S:g} s") from None
        except OSError as exc:
            raise CheckFailed(f"{name} cannot be run: {exc.strerror}") from None
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            why = said[0][:_MESSAGE_CHARS_MAX] if said else f"status {done.returncode}"
            raise CheckFailed(f"{name} {arguments[0] if arguments else ''} refuses: {why}")
        return done.stdout.decode(errors="replace")

    def write(self, name: str, data: bytes | str) -> str:
        """Put a file into the folder, for this user only; gives its name."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        return name

    # --- inputs ------------------------------------------------------------------------------

    def certificate_request(self, host: str) -> str:
        """A PKCS#10 request for a host, PEM, of a new P-256 key that stays in the folder."""
        self.write("req.cnf", "[req]\ndistinguished_name = dn\n[dn]\n")
        new = "-new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -config req.cnf"
        files = "-keyout leaf.key -out leaf.csr"
        names = ("-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}")
        self.run("openssl", "req", *new.split(), *files.split(), *names)
        return (self.folder / "leaf.csr").read_text()

    def ssh_public_key(self) -> str:
        """The OpenSSH line of a new Ed25519 key that stays in the folder."""
        self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tour", "-f", "id")
        return (self.folder / "id.pub").read_text().strip()

    # --- checks ------------------------------------------------------------------------------

    def public_kind(self, pem: str) -> str:
        """What openssl takes a public key for: ``P-256``, ``ED25519``, ``RSA 2048 bit``."""
        text = self.run(
            "openssl", "pkey", "-pubin", "-noout", "-text_pub", stdin=pem.encode()
        ).splitlines()
        curve = [line.rpartition(" ")[2] for line in text if line.startswith("NIST CURVE")]
        if curve:
            return curve[0]
        first = text[0] if text else ""
        bits = _BITS.search(first)
        return f"RSA {bits[0]}" if bits and "Modulus:" in text else first.partition(" ")[0]

    def check_digest_signature(
        self, pem: str, message: bytes, signature: bytes, *, pss: bool = False
    ) -> None:
        """ECDSA (DER), or RSASSA-PSS with a salt as long as the hash, by SHA-256: openssl dgst."""
        padding = (
            ("-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest") if pss else ()
        )
        self.write("signer.pem", pem)
        self.write("signature", signature)

        def verify(message: bytes) -> None:
            self.write("message", message)
            files = ("-verify", "signer.pem", "-signature", "signature", "message")
            self.run("openssl", "dgst", "-sha256", *padding, *files)

        _check_twice(verify, message)

    def check_raw_signature(self, pem: str, message: bytes, signature: bytes) -> None:
        """Ed25519 (RFC 8032), over the message itself: openssl pkeyutl."""
        self.write("signer.pem", pem)
        self.write("signature", signature)

        def verify(message: bytes) -> None:
            self.write("message", message)
            files = ("-inkey", "signer.pem", "-in", "message", "-sigfile", "signature")
            self.run("openssl", "pkeyutl", "-verify", "-rawin", "-pubin", *files)

        _check_twice(verify, message)

    def check_leaf(self, authority_pem: str, leaf_pem: str, host: str) -> str:
        """The path to the authority, for this host as a server, and whose key it is; says so."""
        self.write("ca.pem", authority_pem)
        self.write("leaf.pem", leaf_pem)
        host_options = ("-purpose", "sslserver", "-verify_hostname", host)
        trust = ("-x509_strict", "-no-CApath", "-CAfile", "ca.pem")
        self.run("openssl", "verify", *trust, *host_options, "leaf.pem")
        certified = self.run("openssl", "x509", "-in", "leaf.pem", "-noout", "-pubkey")
        own = self.run("openssl", "pkey", "-in", "leaf.key", "-pubout")
        check(certified == own, "expected the requester's public key in the leaf, met another")
        return f"{host}: chains to the authority, and holds the requester's key"

    def sha256(self, data: bytes | Path) -> str:
        """SHA-256 in hex of bytes or of a file, by sha256sum."""
        if isinstance(data, Path):  # a backslash marks a name that sha256sum had to escape
            return self.run("sha256sum", "--", str(data)).removeprefix("\\").partition(" ")[0]
        return self.run("sha256sum", stdin=data).partition(" ")[0]

    def check_ssh_certificate(self, line: str, authority: str, principal: str, key_id: str) -> str:
        """Read a user certificate, and use it: sign as its holder, verify by the authority alone.

        ``authority``: the authority's public key as an OpenSSH line.
        """
        self.write("id-cert.pub", line + "\n")
        self.write("authority.pub", authority + "\n")
        shown = self.run("ssh-keygen", "-L", "-f", "id-cert.pub")  # verifies the signature too
        fingerprint = self.run("ssh-keygen", "-l", "-f", "authority.pub").split()[1]
        for part in ("user certificate", f'Key ID: "{key_id}"', fingerprint, f"  {principal}\n"):
            check(part in shown, f"expected {part.strip()!r} in what ssh-keygen -L shows")
        self.write("allowed", f"{principal} cert-authority {authority}\n")
        self.write("letter", b"signed under the certificate\n")
        self.run("ssh-keygen", "-q", "-Y", "sign", "-f", "id-cert.pub", "-n", "tour", "letter")

        def verify(message: bytes) -> None:
            whose = ("-f", "allowed", "-I", principal, "-n", "tour", "-s", "letter.sig")
            self.run("ssh-keygen", "-Y", "verify", *whose, stdin=message)

        _check_twice(verify, b"signed under the certificate\n")
        return f"user {principal}: what its holder signs is trusted by the authority's key alone"


def _check_twice(verify: Callable[[bytes], None], message: bytes) -> None:
    verify(message)
    try:
        verify(flipped(message))
    except CheckFailed:
        return
    raise CheckFailed("the tool takes the signature for another message too")


def check_token(
    token: str, key_set: dict[str, Any], *, algorithm: str, audience: str, issuer: str
) -> dict[str, Any]:
    """The claims of a token under a served JWK Set (RFC 7517), by PyJWT.

    Raises:
        CheckFailed: PyJWT refuses it, or takes it with another payload too.
    """
    try:
        signer = jwt.PyJWKSet.from_dict(key_set)[jwt.get_unverified_header(token)["kid"]]

        def decode(token: str) -> dict[str, Any]:
            return jwt.decode(
                token,
                signer,
                [algorithm],
                audience=audience,
                issuer=issuer,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )

        claims = decode(token)
    except (jwt.PyJWTError, KeyError) as exc:
        raise CheckFailed(f"PyJWT refuses the token: {type(exc).__name__} {exc}") from None
    head, payload, signature = token.split(".")
    altered = jwt.utils.base64url_encode(
        flipped(jwt.utils.base64url_decode(payload.encode()))
    ).decode()
    try:
        decode(f"{head}.{altered}.{signature}")
    except jwt.PyJWTError:
        return claims
    raise CheckFailed("PyJWT takes the signature for other claims too")
