"""``keystead sign``: real files in, signed artefacts out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from keystead import limits
from keystead.cli.command import command, group
from keystead.cli.delivery import delivery
from keystead.cli.files import read_bytes, read_text
from keystead.cli.firmware import firmware
from keystead.cli.options import User
from keystead.cli.parsing import duration_s, hex_bytes
from keystead.cli.show import note, receipt_note
from keystead.client import Used
from keystead.crypto.x509 import Profile
from keystead.encoding import strict_json
from keystead.errors import MalformedRequest
from keystead.keys.framing.ca import CertificateRequest, CrlRequest, RevokedEntry
from keystead.keys.framing.ssh_ca import Extension, SignSshCa

__all__ = ["app"]

app = group("sign", "Sign by a handle: tokens, firmware, certificates, handshakes.")

Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Where it goes; else stdout.")]

command(
    app,
    "firmware",
    "keystead sign firmware app.img --name app --image-version 7 --context release/stable"
    " --handle-file ci.handle",
)(firmware)


@command(
    app,
    "jwt",
    "keystead sign jwt --claims claims.json --context auth/eu --handle-file checkout.handle",
    'echo \'{"sub": "u1"}\' | keystead sign jwt --claims - --context auth/eu',
)
def jwt(
    user: User,
    *,
    claims: Annotated[Path, typer.Option(metavar="FILE", help="Claims as JSON, - for stdin.")],
    typ: Annotated[Literal["JWT", "at+jwt"], typer.Option(help="Type in its header.")] = "JWT",
    out: Out = None,
) -> None:
    """Sign claims as a JSON Web Token; iss, iat and exp may be left out, the vault sets them."""
    members = _object(read_bytes(claims, "--claims"), claims)
    handle = user.handle()
    with user.connect() as client, delivery(user, out, private=True) as deliver:
        used = client.sign_jwt(handle, members, typ=typ, **user.use())
        deliver(f"{used.result.token}\n".encode(), _receipt(used), content=_result(used))
    receipt_note(user, used.receipt)


@command(
    app,
    "tls",
    "keystead sign tls --role server --transcript-hash"
    " e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    " --context web/eu --out handshake.sig",
)
def tls(
    user: User,
    *,
    transcript_hash: Annotated[
        str, typer.Option(metavar="HEX", help="Up to and with Certificate, 32 or 48 bytes.")
    ],
    role: Annotated[Literal["server", "client"], typer.Option(help="Who signs.")] = "server",
    out: Out = None,
) -> None:
    """Sign a TLS 1.3 CertificateVerify (RFC 8446 section 4.4.3): raw in a file, hex on stdout."""
    digest = hex_bytes(transcript_hash, "--transcript-hash")
    handle = user.handle()
    with user.connect() as client, delivery(user, out) as deliver:
        used = client.sign_tls(handle, digest, role=role, **user.use())
        signature = used.result.signature
        artefact = f"{signature.hex()}\n".encode() if out is None else signature
        deliver(artefact, _receipt(used) | _result(used))
    note(user, f"scheme 0x{used.result.scheme:04x}")
    receipt_note(user, used.receipt)


@command(
    app,
    "ca",
    "keystead sign ca --csr web.csr --lifetime 30d --context pki/web --out web.pem"
    " --handle-file issuer.handle",
)
def ca(
    user: User,
    *,
    csr: Annotated[Path, typer.Option(metavar="FILE", help="The request, PKCS#10 in PEM.")],
    lifetime: Annotated[str, typer.Option(metavar="TIME", help="Life from now, such as 30d.")],
    profile: Annotated[Profile, typer.Option(help="What it is for.")] = "server",
    dns: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A DNS name; else the request's own.")
    ] = None,
    ip: Annotated[
        list[str] | None, typer.Option(metavar="ADDR", help="An address; else the request's own.")
    ] = None,
    out: Out = None,
) -> None:
    """Issue a certificate for a request, as PEM."""
    request = CertificateRequest(
        csr=read_text(csr, "--csr"),
        profile=profile,
        dns=None if dns is None else tuple(dns),
        ip=None if ip is None else tuple(ip),
        lifetime_s=duration_s(lifetime, "--lifetime"),
    )
    _issue(user, request, out)


@command(
    app,
    "crl",
    "keystead sign crl --revoked revoked.json --lifetime 24h --context pki/crl --out ca.crl.pem",
    "keystead sign crl --serial 5f3a --serial 77c1 --context pki/crl --out ca.crl.pem",
)
def crl(
    user: User,
    *,
    revoked: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="All that is revoked, as JSON: serial, revoked_at_s, reason each."
        ),
    ] = None,
    serial: Annotated[
        list[str] | None,
        typer.Option(metavar="HEX", help="A serial number, as revoked now; repeat it."),
    ] = None,
    lifetime: Annotated[str, typer.Option(metavar="TIME", help="Until the next one.")] = "24h",
    out: Out = None,
) -> None:
    """Sign a certificate revocation list, as PEM; it stands alone, so name all that is revoked."""
    now_s = int(time.time())
    entries = [] if revoked is None else _entries(revoked)
    entries += [RevokedEntry(serial=number, revoked_at_s=now_s) for number in serial or ()]
    request = CrlRequest(revoked=tuple(entries), lifetime_s=duration_s(lifetime, "--lifetime"))
    _issue(user, request, out)


@command(
    app,
    "ssh-ca",
    "keystead sign ssh-ca --public-key id_ed25519.pub --principal alice --lifetime 8h"
    " --context ssh/prod --out id_ed25519-cert.pub",
    "keystead sign ssh-ca --type host --public-key ssh_host_ed25519_key.pub"
    " --principal db1.shop.example --lifetime 30d --context ssh/hosts",
)
def ssh_ca(  # noqa: PLR0913  a certificate is what these say
    user: User,
    *,
    public_key: Annotated[Path, typer.Option(metavar="FILE", help="The key, an OpenSSH line.")],
    principal: Annotated[
        list[str], typer.Option(metavar="NAME", help="A login or host name; repeat it.")
    ],
    lifetime: Annotated[str, typer.Option(metavar="TIME", help="Life from now.")] = "8h",
    type_: Annotated[
        Literal["user", "host"], typer.Option("--type", help="What it is for.")
    ] = "user",
    key_id: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What sshd logs; else the first principal.")
    ] = None,
    force_command: Annotated[
        str | None, typer.Option(metavar="CMD", help="The one command it may run.")
    ] = None,
    source_address: Annotated[
        list[str] | None, typer.Option(metavar="NET", help="From where; repeat it.")
    ] = None,
    extension: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="What it permits, or none; else permit-pty."),
    ] = None,
    out: Out = None,
) -> None:
    """Issue an SSH certificate, the line of a -cert.pub file."""
    request = SignSshCa(
        public_key=read_text(public_key, "--public-key").strip(),
        type=type_,
        key_id=key_id or principal[0],
        principals=tuple(principal),
        lifetime_s=duration_s(lifetime, "--lifetime"),
        force_command=force_command,
        source_address=tuple(source_address or ()),
        extensions=_extensions(extension),
    )
    handle = user.handle()
    with user.connect() as client, delivery(user, out) as deliver:
        used = client.sign_ssh_ca(handle, request, **user.use())
        line = used.result.certificate.rstrip("\n")
        deliver(f"{line}\n".encode(), _receipt(used) | _result(used))
    note(user, f"serial {used.result.serial}")
    receipt_note(user, used.receipt)


def _issue(user: User, request: CertificateRequest | CrlRequest, out: Path | None) -> None:
    handle = user.handle()
    with user.connect() as client, delivery(user, out) as deliver:
        used = client.sign_ca(handle, request, **user.use())
        deliver(used.result.pem.encode(), _receipt(used) | _result(used))
    if used.result.serial is not None:
        note(user, f"serial {used.result.serial}")
    receipt_note(user, used.receipt)


def _object(data: bytes, path: Path) -> dict[str, Any]:
    value = strict_json(data, depth_max=limits.JSON_DEPTH_MAX)
    if not isinstance(value, dict):
        raise MalformedRequest(f"expected a JSON object in {path}")
    return value


def _entries(path: Path) -> list[RevokedEntry]:
    try:
        return msgspec.json.decode(read_bytes(path, "--revoked"), type=list[RevokedEntry])
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise MalformedRequest(
            f"{path} is no list of revoked certificates: {exc}",
            hint='Such as [{"serial": "5f3a", "revoked_at_s": 1790000000, "reason": "superseded"}]',
        ) from exc


def _extensions(named: list[str] | None) -> tuple[Extension, ...] | None:
    if named is None:
        return None
    try:
        return msgspec.convert([] if named == ["none"] else named, tuple[Extension, ...])
    except msgspec.ValidationError as exc:
        raise typer.BadParameter(f"no such extension: {exc}", param_hint="--extension") from exc


def _receipt(used: Used[Any]) -> dict[str, object]:
    return {"receipt": used.receipt}


def _result(used: Used[Any]) -> dict[str, object]:
    return {"result": used.result}
