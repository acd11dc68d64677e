"""``keystead verify``: hold artefacts to public facts; what verifies is shown, all else raises.

The public key comes from the node by its name, or from a file that ``keystead key public --json``
wrote. A file is as old as it is: a version that was revoked since still looks sound in it.

Of what a compromised version signed it is said whether the log proves it to be older than the
compromise: exit status 6, it does; 7, the log has no record of it; 1, nobody knows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from keystead.cli.command import command, group
from keystead.cli.files import read_bytes, read_text
from keystead.cli.firmware import COMPONENTS, hash_image, manifest_path, signature_path
from keystead.cli.ledger import read_ledger
from keystead.cli.parsing import hex_bytes, pairs
from keystead.cli.show import instant, panel, render
from keystead.cli.verify_compromised import Before, Signed, Verifier, held, tell
from keystead.errors import MalformedRequest, SignatureInvalid
from keystead.keys import artefacts
from keystead.keys.framing.ledger import GENESIS
from keystead.keys.framing.tls import certificate_verify_content
from keystead.keys.verify import (
    PublicKey,
    SignedEntry,
    Verified,
    VerifiedFirmware,
    VerifiedJwt,
    VerifiedLedger,
    verify_firmware,
    verify_jwt,
    verify_ledger,
    verify_tls,
)

__all__ = ["app"]

app = group("verify", "Verify what was signed, from public facts alone.")


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

    def check(key: PublicKey) -> VerifiedJwt:
        return verify_jwt(
            text,
            key,
            audience=audience,
            now_ms=time.time_ns() // 1_000_000,
            leeway_s=leeway,
            issuer=issuer,
            typ=typ,
        )

    def signed(_key: PublicKey) -> list[Signed]:
        read = artefacts.jwt(text)
        return [Signed(message=read.message, close=read.close, wide=read.wide)]

    found, before = held(verifier, check, signed)
    members = {"claims": found.claims, "typ": found.typ, "expires_s": found.expires_s}
    words = {**found.claims, "expires": instant(found.expires_s * 1000)}
    _show(verifier, "jwt", found.signer, members, words, before=before)


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
    document = read_bytes(manifest or manifest_path(image), "--manifest")
    signatures = {part: read_bytes(path, "--signature") for part, path in paths.items()}

    def check(key: PublicKey) -> VerifiedFirmware:
        return verify_firmware(
            document,
            signatures,
            key,
            name=name,
            version_min=version_min,
            image_sha256=sha256,
            image_size=size,
            now_ms=time.time_ns() // 1_000_000,
        )

    found, before = held(verifier, check, lambda _key: [Signed(message=document)])
    members: dict[str, object] = {"name": found.name, "version": found.version, "size": found.size}
    members["sha256"] = found.sha256.hex()
    _show(verifier, "firmware", found.signer, members, before=before)


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
    run = [
        SignedEntry(
            document=line.document.encode(),
            signatures=line.signatures,
            entry=None if entries is None else _entry(entries, line.entry),
        )
        for line in read_ledger(lines)
    ]
    head = GENESIS if previous is None else hex_bytes(previous, "--previous")

    def check(key: PublicKey) -> VerifiedLedger:
        return verify_ledger(
            run, key, previous=head, sequence=sequence, now_ms=time.time_ns() // 1_000_000
        )

    found, before = held(verifier, check, lambda key: [_signed(key, one) for one in run])
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
    _show(verifier, "ledger", found.signers[-1], members, words, before=before)


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
    raw = read_bytes(signature, "--signature")

    def signed(_key: PublicKey) -> list[Signed]:
        return [Signed(message=certificate_verify_content(role, digest))]

    found, before = held(verifier, lambda key: verify_tls(role, digest, code, raw, key), signed)
    members = {"role": found.role, "scheme": f"0x{found.scheme:04x}"}
    members["transcript_hash"] = digest.hex()
    _show(verifier, "tls", found.signer, members, before=before)


def _signed(key: PublicKey, entry: SignedEntry) -> Signed:
    """What was signed of a ledger's entry, which has been verified, and by which version."""
    read = artefacts.ledger_entry(entry.document, entry.signatures)
    numbers = {version.kid: version.number for version in key.versions}
    return Signed(message=read.message, version=numbers[read.names[0]])


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
    *,
    before: Sequence[Before] = (),
) -> None:
    title = f"{what}: verified"
    told: dict[str, object] = {"verified": what, "signer": signer, **members}
    if before:
        title = f"{what}: signed before its key was compromised"
        if any(one.version == signer.version for one in before):
            signer = msgspec.structs.replace(signer, state="compromised")
        told |= {"signer": signer, "before_compromise": before}
    shown = {**(members if words is None else words), "signed by": _signer_words(signer)}
    render(verifier, told, lambda: [panel(title, shown)])
    tell(verifier, before)


def _signer_words(signer: Verified) -> str:
    held = "" if len(signer.components) == 1 else f"; held: {', '.join(signer.components)}"
    return f"{signer.key} version {signer.version} ({signer.algorithm}{held}), {signer.state}"
