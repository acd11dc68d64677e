"""``keystead sign firmware``: hash an image, have its manifest signed, and say how to check it."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from shlex import quote
from typing import Annotated, BinaryIO

import typer

from keystead.cli.files import destination
from keystead.cli.options import Output, User
from keystead.cli.show import note, print_json, receipt_note
from keystead.errors import ServiceError
from keystead.keys.algorithms import ALGORITHMS, Kind

__all__ = [
    "COMPONENTS",
    "MANIFEST_SUFFIX",
    "firmware",
    "hash_image",
    "manifest_path",
    "signature_path",
]

COMPONENTS = tuple(
    row.name
    for row in ALGORITHMS.values()
    if row.kind is Kind.SIGNATURE and row.components == (row.name,)
)
"""Every algorithm that a signature file may be of."""
MANIFEST_SUFFIX = ".manifest.json"
"""Behind an image's name, the name of its manifest."""
_CHUNK_BYTES = 1024 * 1024
_BAR_BYTES_MIN = 64 * 1024 * 1024  # below it hashing is done before a bar is drawn


def manifest_path(prefix: Path) -> Path:
    """Where the manifest of an image stands."""
    return prefix.with_name(prefix.name + MANIFEST_SUFFIX)


def signature_path(prefix: Path, component: str) -> Path:
    """Where a signature of an image stands."""
    return prefix.with_name(f"{prefix.name}.{component}.sig")


def firmware(
    user: User,
    *,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The image.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="Its name, out of the key's list.")],
    image_version: Annotated[
        int, typer.Option(metavar="N", min=1, help="Its version counter, which only grows.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="PREFIX", help="Where manifest and signatures go; else by the image."),
    ] = None,
) -> None:
    """Sign an image: writes its .manifest.json, and one .sig per algorithm that signs."""
    prefix = image if out is None else out
    handle = user.handle()
    sha256, size = hash_image(image, user)
    with user.connect() as client, ExitStack() as places:
        write = places.enter_context(destination(manifest_path(prefix)))
        used = client.sign_firmware(
            handle, name, image_version, sha256=sha256, size=size, **user.use()
        )
        write(used.result.manifest)
        for component, signature in used.result.signatures.items():
            if component not in COMPONENTS:  # it becomes part of a file's name
                raise ServiceError("the node signed by an algorithm this release does not know")
            places.enter_context(destination(signature_path(prefix, component)))(signature)
    files = [manifest_path(prefix)]
    files += [signature_path(prefix, component) for component in used.result.signatures]
    if user.as_json:
        told = {"result": used.result, "receipt": used.receipt, "files": list(map(str, files))}
        print_json({**told, "sha256": sha256.hex(), "size": size})
        return
    sys.stdout.writelines(f"{path}\n" for path in files)
    receipt_note(user, used.receipt)
    note(
        user,
        *_how_to_verify(prefix, used.receipt.key, used.receipt.version, used.result.signatures),
    )


def hash_image(image: Path, output: Output) -> tuple[bytes, int]:
    """SHA-256 and size of a file, with a progress bar if it is big and somebody looks.

    Raises:
        BadParameter: it cannot be read.
    """
    try:
        with image.open("rb") as file:
            total = os.fstat(file.fileno()).st_size
            watched = sys.stderr.isatty() and not output.as_json and total >= _BAR_BYTES_MIN
            return _hash_watched(file, total) if watched else _hash(file)
    except OSError as exc:
        raise typer.BadParameter(
            f"cannot read {image}: {exc.strerror}", param_hint="IMAGE"
        ) from exc


def _hash(file: BinaryIO) -> tuple[bytes, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
    return digest.digest(), size


def _hash_watched(file: BinaryIO, total: int) -> tuple[bytes, int]:
    from rich.console import Console  # noqa: PLC0415  few images are big
    from rich.progress import wrap_file  # noqa: PLC0415  as above

    console = Console(stderr=True)
    with wrap_file(file, total, description="Hashing", console=console, transient=True) as watched:
        return _hash(watched)


def _how_to_verify(
    prefix: Path, key: str, version: int, signatures: Mapping[str, bytes]
) -> list[str]:
    """The openssl commands that check each signature, for whoever has no Keystead."""
    lines = ["Verify without Keystead, once its SHA-256 is the one in the manifest:"]
    manifest, key = quote(str(manifest_path(prefix))), quote(key)
    for component in signatures:
        pem = f"{key}.{component}.pem"
        asked = f"keystead key public {key} --version {version} --component {component}"
        lines.append(f"  {asked} > {pem}")
        signature = quote(str(signature_path(prefix, component)))
        if component.startswith("ecdsa"):
            lines.append(f"  openssl dgst -sha256 -verify {pem} -signature {signature} {manifest}")
        else:
            lines.append(
                f"  openssl pkeyutl -verify -pubin -inkey {pem} -rawin -in {manifest}"
                f" -sigfile {signature}{_needs(component)}"
            )
    return lines


def _needs(component: str) -> str:
    return "  # OpenSSL 3.5 or later" if component.startswith("ml-dsa") else ""
