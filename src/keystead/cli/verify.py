"""``keystead verify``: hold artefacts to public facts; what verifies is shown, all else raises.

The public key comes from the node by its name, or from a file that ``keystead key public --json``
wrote. A file is as old as it is: a version that was revoked since still looks sound in it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from keystead.cli.command import command, group
from keystead.cli.files import read_bytes, read_text
from keystead.cli.firmware import COMPONENTS, hash_image, manifest_path, signature_path
from keystead.cli.ledger import read_ledger
from keystead.cli.options import Common
from keystead.cli.parsing import hex_bytes, pairs
from keystead.cli.show import instant, panel, render
from keystead.errors import MalformedRequest, SignatureInvalid
from keystead.keys.framing.ledger import GENESIS
from keystead.keys.verify import (
    PublicKey,
    SignedEntry,
    Verified,
    verify_firmware,
    verify_jwt,
    verify_ledger,
    verify_tls,
)

__all__ = ["app"]

app = group("verify", "Verify what was signed, from public facts alone.")


@dataclass(frozen=True, kw_only=True)
class Verifier(Common):
    """Whose signature it should be."""

    key: Annotated[
        str | None, typer.Option(metavar="NAME", help="The key that signed, asked of the node.")
    ] = None
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its public part, as key public --json gives it."),
    ] = None

    def public_key(self) -> PublicKey:
        """The public part to verify with.

        Raises:
            BadParameter: neither key nor file was named, or both.
            MalformedRequest: a file that holds something else.
        """
        if (self.key is None) == (self.key_file is None):
            raise typer.BadParameter("give --key, or --key-file", param_hint="--key")
        if self.key is not None:
            with self.connect() as client:
                return client.public_key(self.key)
        path = self.key_file or Path()
        try:
            return msgspec.json.decode(read_bytes(path, "--key-file"), type=PublicKey)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise MalformedRequest(
                f"{path} is no public part of a key", hint="keystead key public NAME --json is"
            ) from exc


@command(
    app,
    "jwt",
    "keystead verify jwt token.txt --key shop-tokens --audience https://shop.example",
    "keystead verify jwt - --key-file shop-tokens.key.json --audience https://shop.example",
)
def jwt(
    verifier: Verifier,
    *,
    token: Annotated[Path, typer.Argument(metavar="FILE", help="The token, - for stdin.")],
    audience: Annotated[
        str | None, typer.Option(metavar="AUD", help="Who you are; else tokens for none pass.")
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(metavar="ISS", help="The issuer it should be of.")
    ] = None,
    typ: Annotated[str, typer.Option(metavar="TYP", help="The one type that is accepted.")] = "JWT",
    leeway: Annotated[
        int, typer.Option(metavar="S", min=0, help="Seconds the clocks may differ.")
    ] = 0,
) -> None:
    """Verify a JSON Web Token, and show its claims."""
    text = read_text(token, "FILE").strip()
    found = verify_jwt(
        text,
        verifier.public_key(),
        audience=audience,
        now_ms=time.time_ns() // 1_000_000,
        leeway_s=leeway,
        issuer=issuer,
        typ=typ,
    )
    members = {"claims": found.claims, "typ": found.typ, "expires_s": found.expires_s}
    words = {**found.claims, "expires": instant(found.expires_s * 1000)}
    _show(verifier, "jwt", found.signer, members, words)


@command(
    app,
    "firmware",
    "keystead verify firmware app.img --key boot --name app --version-min 7",
    "keystead verify firmware app.img --key-file boot.key.json --manifest app.manifest.json"
    " --signature ed25519=app.sig",
)
def firmware(
    verifier: Verifier,
    *,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The image.")],
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Else IMAGE.manifest.json.")
    ] = None,
    signature: Annotated[
        list[str] | None,
        typer.Option(metavar="ALG=FILE", help="Else every IMAGE.ALG.sig; repeat it."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name it should have.")
    ] = None,
    version_min: Annotated[
        int, typer.Option(metavar="N", min=1, help="The lowest version counter that passes.")
    ] = 1,
) -> None:
    """Verify an image against its manifest, and the manifest against its signatures."""
    paths = {part: Path(text) for part, text in pairs(signature, "--signature").items()}
    if not paths:
        beside = {part: signature_path(image, part) for part in COMPONENTS}
        paths = {part: path for part, path in beside.items() if path.exists()}
    sha256, size = hash_image(image, verifier)
    found = verify_firmware(
        read_bytes(manifest or manifest_path(image), "--manifest"),
        {part: read_bytes(path, "--signature") for part, path in paths.items()},
        verifier.public_key(),
        name=name,
        version_min=version_min,
        image_sha256=sha256,
        image_size=size,
        now_ms=time.time_ns() // 1_000_000,
    )
    members = {"name": found.name, "version": found.version, "size": found.size}
    _show(verifier, "firmware", found.signer, members | {"sha256": found.sha256.hex()})


@command(
    app,
    "ledger",
    "keystead verify ledger orders.ledger --key books --entries .",
    "keystead verify ledger orders.ledger --key-file books.key.json",
)
def ledger(
    verifier: Verifier,
    *,
    lines: Annotated[Path, typer.Argument(metavar="LEDGER", help="A file of ledger append.")],
    entries: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the entered files are, to check them.")
    ] = None,
    previous: Annotated[
        str | None, typer.Option(metavar="HEX", help="Go on from this head; else from the start.")
    ] = None,
    sequence: Annotated[int, typer.Option(metavar="N", min=0, help="The number of that head.")] = 0,
) -> None:
    """Verify a run of entries: each signature, and the chain from one to the next."""
    signed = [
        SignedEntry(
            document=line.document.encode(),
            signatures=line.signatures,
            entry=None if entries is None else _entry(entries, line.entry),
        )
        for line in read_ledger(lines)
    ]
    found = verify_ledger(
        signed,
        verifier.public_key(),
        previous=GENESIS if previous is None else hex_bytes(previous, "--previous"),
        sequence=sequence,
        now_ms=time.time_ns() // 1_000_000,
    )
    if not found.signers:
        raise SignatureInvalid(f"expected entries in {lines}, met none")
    members = {
        "ledger": found.ledger,
        "entries": found.entries,
        "sequence": found.sequence,
        "head": found.head.hex(),
        "signers": msgspec.to_builtins(found.signers),
    }
    words = members | {"signers": "; ".join(map(_signer_words, found.signers))}
    _show(verifier, "ledger", found.signers[-1], members, words)


@command(
    app,
    "tls",
    "keystead verify tls --key web --scheme 0x0403 --signature handshake.sig --transcript-hash"
    " e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
)
def tls(
    verifier: Verifier,
    *,
    transcript_hash: Annotated[
        str, typer.Option(metavar="HEX", help="Up to and with Certificate, 32 or 48 bytes.")
    ],
    scheme: Annotated[str, typer.Option(metavar="CODE", help="SignatureScheme, such as 0x0403.")],
    signature: Annotated[Path, typer.Option(metavar="FILE", help="The raw signature.")],
    role: Annotated[Literal["server", "client"], typer.Option(help="Who signed.")] = "server",
) -> None:
    """Verify a TLS 1.3 CertificateVerify."""
    try:
        code = int(scheme, 0)
    except ValueError as exc:
        raise typer.BadParameter("expected a number such as 0x0403", param_hint="--scheme") from exc
    digest = hex_bytes(transcript_hash, "--transcript-hash")
    found = verify_tls(
        role, digest, code, read_bytes(signature, "--signature"), verifier.public_key()
    )
    members = {"role": found.role, "scheme": f"0x{found.scheme:04x}"}
    _show(verifier, "tls", found.signer, members | {"transcript_hash": digest.hex()})


def _entry(folder: Path, name: str) -> bytes:
    if (
        not name or Path(name).name != name
    ):  # a ledger file is a stranger's: it names no other folder
        raise MalformedRequest(f"expected the name of a file in {folder}, met {name[:80]!r}")
    return read_bytes(folder / name, "--entries")


def _show(
    verifier: Verifier,
    what: str,
    signer: Verified,
    members: Mapping[str, Any],
    words: Mapping[str, object] | None = None,
) -> None:
    told = {"verified": what, "signer": signer, **members}
    shown = {**(members if words is None else words), "signed by": _signer_words(signer)}
    render(verifier, told, lambda: [panel(f"{what}: verified", shown)])


def _signer_words(signer: Verified) -> str:
    held = "" if len(signer.components) == 1 else f"; held: {', '.join(signer.components)}"
    return f"{signer.key} version {signer.version} ({signer.algorithm}{held}), {signer.state}"
