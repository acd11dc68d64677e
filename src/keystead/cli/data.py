"""``keystead data``: encrypt, decrypt, derive and authenticate by a handle.

Input is a file or stdin. Plaintext and derived secrets go to a file of mode 0600, or to stdout; a
derived secret and a tag are raw in a file, and hex on stdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keystead.cli.command import command, group
from keystead.cli.delivery import delivery
from keystead.cli.files import read_bytes, read_text
from keystead.cli.options import User
from keystead.cli.parsing import hex_bytes
from keystead.cli.show import note, receipt_note

__all__ = ["app"]

app = group("data", "Encrypt, decrypt, derive and authenticate by a handle.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="Input, - for stdin.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Where it goes; else stdout.")]
STDIN = Path("-")


@command(
    app,
    "wrap",
    "keystead data wrap secret.json --context app/db --out secret.wrapped --handle-file app.handle",
    "pg_dump shop | head -c 900000 | keystead data wrap --context app/db --out dump.wrapped",
)
def wrap(user: User, *, file: File = STDIN, out: Out = None) -> None:
    """Encrypt up to 1 MiB; it opens in the same context only."""
    plaintext, handle = read_bytes(file, "FILE"), user.handle()
    with user.connect() as client, delivery(user, out) as deliver:
        used = client.wrap(handle, plaintext, **user.use())
        content = {"result": used.result}
        deliver(f"{used.result.wrapped}\n".encode(), {"receipt": used.receipt}, content=content)
    receipt_note(user, used.receipt)


@command(
    app,
    "unwrap",
    "keystead data unwrap secret.wrapped --context app/db --out secret.json"
    " --handle-file app.handle",
)
def unwrap(user: User, *, file: File = STDIN, out: Out = None) -> None:
    """Decrypt what wrap gave, in the context that it was wrapped in."""
    wrapped, handle = read_text(file, "FILE").strip(), user.handle()
    with user.connect() as client, delivery(user, out, private=True) as deliver:
        used = client.unwrap(handle, wrapped, **user.use())
        content = {"result": used.result}
        deliver(used.result.plaintext, {"receipt": used.receipt}, content=content)
    receipt_note(user, used.receipt)


@command(
    app,
    "derive",
    "keystead data derive --length 32 --info session --context app/db --out session.key"
    " --handle-file app.handle",
)
def derive(
    user: User,
    *,
    length: Annotated[int, typer.Option(metavar="BYTES", min=1, help="How long it is.")] = 32,
    info: Annotated[str, typer.Option(metavar="TEXT", help="What it is for, not secret.")] = "",
    out: Out = None,
) -> None:
    """Derive a secret: the same for the same key version, context and info."""
    handle = user.handle()
    with user.connect() as client, delivery(user, out, private=True) as deliver:
        used = client.derive(handle, length=length, info=info.encode(), **user.use())
        content = {"result": used.result}
        artefact = _raw_or_hex(used.result.secret, out)
        deliver(artefact, {"receipt": used.receipt}, content=content)
    receipt_note(user, used.receipt)


@command(
    app,
    "mac",
    "keystead data mac order.json --context app/orders --out order.tag --handle-file app.handle",
    "keystead data mac order.json --context app/orders --check order.tag --handle-file app.handle",
)
def mac(
    user: User,
    *,
    file: File = STDIN,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Have this tag checked: 32 raw bytes, or hex."),
    ] = None,
    out: Out = None,
) -> None:
    """Authenticate a message, or have its tag checked."""
    tag = None if check is None else _tag(check)
    message, handle = read_bytes(file, "FILE"), user.handle()
    with user.connect() as client, delivery(user, out) as deliver:
        used = client.mac(handle, message, tag=tag, **user.use())
        told = {"result": used.result, "receipt": used.receipt, "checked": tag is not None}
        deliver(_raw_or_hex(used.result.tag, out), told)
    if tag is not None:
        note(user, "The tag is right.")
    receipt_note(user, used.receipt)


def _raw_or_hex(value: bytes, out: Path | None) -> bytes:
    return f"{value.hex()}\n".encode() if out in (None, STDIN) else value


def _tag(path: Path) -> bytes:
    data = read_bytes(path, "--check")
    if len(data) == 32:  # noqa: PLR2004  HMAC-SHA-256, raw
        return data
    return hex_bytes(data.decode(errors="replace").strip(), "--check")
