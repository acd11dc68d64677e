"""What `log reconcile` is given, taken apart into artefacts: files, folders, downloads.

All of it is strangers' bytes: each bound is checked before what it bounds, and what cannot be read
is told in its place and ends nothing.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import typer

from keystead import limits
from keystead.cli.files import STDIN_OR_STDOUT
from keystead.cli.firmware import COMPONENTS, MANIFEST_SUFFIX, signature_path
from keystead.encoding import DECODE_ERRORS
from keystead.errors import MalformedRequest
from keystead.keys import artefacts
from keystead.keys.artefacts import Artefact, Kind

__all__ = ["Seen", "read_source", "taken_apart"]

_OBJECT_BYTES_MAX = 4 * limits.ARTEFACT_BYTES_MAX
"""JSON of one artefact: in base64, and with as much of other members."""
_COMMAS_MAX = 16 * limits.ARTEFACTS_MAX
"""In a JSON list: what a monitor gives has a dozen members an item."""
_BEGIN, _DASHES = "-----BEGIN ", "-----"
_LABEL_CHARS_MAX = 64
_CERTIFICATE, _CRL = "CERTIFICATE", "X509 CRL"
_CERTIFICATE_MEMBERS = ("pem", "certificate_pem", "certificate", "cert_der", "der", "cert", "data")
"""What CT monitors and this project's own answers call a certificate in JSON."""
_SSH_MARK = "-cert-v01@openssh.com "
_JWT_DOTS = 2
_DER_LONG = (0x30, 0x80)
"""How DER of more than 127 bytes begins: a SEQUENCE, and a length of the long form."""
_ITEMS = msgspec.json.Decoder(
    Annotated[list[msgspec.Raw], msgspec.Meta(max_length=limits.ARTEFACTS_MAX)]
)
_OBJECT = msgspec.json.Decoder(dict[str, Any])

Make = Callable[[], Artefact]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One artefact and where it was met, or the problem with what is in its place.

    ``foreign``: nothing that looks like one.
    """

    where: str
    artefact: Artefact | None = None
    problem: str = ""
    foreign: bool = False


class _Foreign(MalformedRequest):
    """It does not even look like an artefact."""


def read_source(name: str, kind: Kind | None, fetch: Callable[[str], bytes]) -> Iterator[Seen]:
    """The artefacts of a file, a folder, ``-`` for stdin, or a URL. ``kind``: all are of it.

    Raises:
        BadParameter: it cannot be read, or is bigger than the bounds allow.
    """
    path = Path(name)
    try:
        if name.startswith(("https://", "http://")):
            yield from taken_apart(fetch(name), name, kind)
        elif path == STDIN_OR_STDOUT:
            yield from taken_apart(_bounded(sys.stdin.buffer, "stdin"), "stdin", kind)
        elif path.is_dir():
            yield from _folder(path, kind)
        else:
            yield from taken_apart(_file(path), name, kind, path)
    except OSError as exc:
        raise typer.BadParameter(f"cannot read {name}: {exc.strerror}", param_hint="FILE") from exc
    except MalformedRequest as exc:
        raise typer.BadParameter(exc.message, param_hint="FILE") from exc


def _file(path: Path) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
        raise MalformedRequest(f"expected a file, met something else at {path}")
    with path.open("rb") as file:
        return _bounded(file, str(path))


def _bounded(file: BinaryIO, name: str) -> bytes:
    most = limits.ARTEFACT_SOURCE_BYTES_MAX
    data = file.read(most + 1)
    if len(data) > most:
        raise MalformedRequest(f"expected at most {most} bytes in {name}, met more")
    return data


def _folder(top: Path, kind: Kind | None) -> Iterator[Seen]:
    """What the files under a folder hold, in the order of their names; links are not followed.

    A file without anything that looks like an artefact is passed over: nobody named it.
    """
    for path in _files(top):
        try:
            found = list(taken_apart(_file(path), str(path), kind, path))
        except (OSError, MalformedRequest) as exc:
            found = [Seen(where=str(path), problem=str(exc))]
        if not all(seen.foreign for seen in found):
            yield from found


def _files(top: Path) -> Iterator[Path]:
    count = 0
    for folder, below, names in os.walk(top, onerror=_raise):
        below.sort()
        if len(Path(folder).relative_to(top).parts) > limits.ARTEFACT_FOLDERS_DEEP_MAX:
            raise _too_many("folders in each other", limits.ARTEFACT_FOLDERS_DEEP_MAX, top)
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_symlink() or path.suffix == ".sig":  # a manifest brings its signatures
                continue
            count += 1
            if count > limits.ARTEFACT_FILES_MAX:
                raise _too_many("files", limits.ARTEFACT_FILES_MAX, top)
            yield path


def _raise(error: OSError) -> None:
    raise error


def _too_many(what: str, most: int, top: Path) -> typer.BadParameter:
    return typer.BadParameter(f"more than {most} {what} are under {top}", param_hint="FILE")


# --- one file's bytes ----------------------------------------------------------------------------


def taken_apart(
    data: bytes, name: str, kind: Kind | None, path: Path | None = None
) -> Iterator[Seen]:
    """The artefacts in the bytes of a file; ``path``: where a manifest's signatures stand beside.

    Raises:
        MalformedRequest: a list of more than may be.
    """
    if len(data) > 1 and data[0] == _DER_LONG[0] and data[1] >= _DER_LONG[1]:
        yield _one(name, partial(_x509, data), kind)
        return
    try:
        text = data.decode()
    except UnicodeDecodeError:
        yield Seen(where=name, problem="neither text nor DER", foreign=True)
        return
    start = text.lstrip()[:1]
    if start == "[":
        yield from _list(data, name, kind)
        return
    document = _object(data) if start == "{" and len(data) <= _OBJECT_BYTES_MAX else None
    if document is not None:
        yield _one(name, partial(_of_object, document, data, path), kind)
    elif start != "{" and _BEGIN in text:
        yield from _pem(text, name, kind)
    else:
        yield from _lines(text, name, kind)


def _one(where: str, make: Make, kind: Kind | None) -> Seen:
    try:
        made = make()
    except MalformedRequest as exc:
        return Seen(where=where, problem=exc.message, foreign=isinstance(exc, _Foreign))
    if kind not in (None, made.kind):
        return Seen(where=where, problem=f"expected {kind}, met {made.kind}")
    return Seen(where=where, artefact=made)


def _list(data: bytes, name: str, kind: Kind | None) -> Iterator[Seen]:
    """A list as CT monitors give it; each item is read by itself."""
    if data.count(b",") > _COMMAS_MAX:
        raise MalformedRequest(f"expected a list of at most {limits.ARTEFACTS_MAX} items in {name}")
    try:
        items = _ITEMS.decode(data)
    except DECODE_ERRORS as exc:
        yield Seen(where=name, problem=f"no JSON list: {exc}"[:200])
        return
    for number, item in enumerate(items, start=1):
        yield _one(f"{name}[{number}]", partial(_item, bytes(item)), kind)


def _item(data: bytes) -> Artefact:
    if len(data) > _OBJECT_BYTES_MAX:
        raise _too_long(len(data), _OBJECT_BYTES_MAX)
    if data[:1] == b'"':
        return _of_text(msgspec.json.decode(data, type=str))
    document = _object(data)
    if document is None:
        raise _Foreign("expected an object that holds an artefact, met other JSON")
    return _of_object(document, data, None)


def _lines(text: str, name: str, kind: Kind | None) -> Iterator[Seen]:
    for number, line in enumerate(io.StringIO(text), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            where = f"{name}:{number}" if number > 1 or len(line) < len(text) else name
            yield _one(where, partial(_of_line, stripped, kind), kind)


def _of_line(line: str, kind: Kind | None) -> Artefact:
    if len(line) > _OBJECT_BYTES_MAX:
        raise _too_long(len(line), _OBJECT_BYTES_MAX)
    if line.startswith("{"):
        data = line.encode()
        document = _object(data)
        if document is None:
            raise MalformedRequest("expected a JSON object in the line, met one that is broken")
        return _of_object(document, data, None)
    return artefacts.jwt(line) if kind is Kind.JWT else _of_text(line)


def _of_text(text: str) -> Artefact:
    if _BEGIN in text:
        found = list(_pem(text, "", None))
        if len(found) == 1 and found[0].artefact is not None:
            return found[0].artefact
        raise MalformedRequest("expected one certificate as PEM")
    if _SSH_MARK in text[:80]:
        return artefacts.ssh_certificate(text)
    if text.count(".") == _JWT_DOTS and " " not in text:
        return artefacts.jwt(text)
    raise _Foreign("expected a token, a certificate or a signed document, met something else")


def _pem(text: str, name: str, kind: Kind | None) -> Iterator[Seen]:
    """Certificates and CRLs; what else stands between them, such as keys, is passed over."""
    at = number = 0
    while (begin := text.find(_BEGIN, at)) >= 0:
        begin += len(_BEGIN)
        label, dashes, _ = text[begin : begin + _LABEL_CHARS_MAX].partition(_DASHES)
        start = begin + len(label) + len(dashes)
        end = text.find(f"{_DASHES}END {label}{_DASHES}", start) if dashes else -1
        if end < 0:
            yield Seen(where=name, problem="a PEM block does not end")
            return
        at = end + len(_DASHES)
        if label in {_CERTIFICATE, _CRL}:
            number += 1
            yield _one(f"{name}#{number}", partial(_x509_text, text[start:end]), kind)
    if not number:
        yield Seen(where=name, problem="no certificate in it", foreign=True)


# --- one artefact --------------------------------------------------------------------------------


def _of_object(document: Mapping[str, Any], data: bytes, path: Path | None) -> Artefact:
    """By its members: what this project's own answers and files hold, or a monitor's list."""
    inner = document.get("result")
    members: Mapping[str, Any] = inner if isinstance(inner, dict) else document
    if "signatures" in members and "manifest" in members:
        return artefacts.firmware(_signed(members["manifest"]), _signatures(members))
    if "signatures" in members and "document" in members:
        return artefacts.ledger_entry(_signed(members["document"]), _signatures(members))
    if members.get("type") == "keystead-firmware-v1":
        return artefacts.firmware(data, _signatures_beside(path))
    if isinstance(members.get("token"), str):
        return artefacts.jwt(members["token"])
    for name in _CERTIFICATE_MEMBERS:
        value = members.get(name)
        if isinstance(value, dict):  # as in {"cert": {"type": "cert", "data": "MII..."}}
            value = value.get("data")
        if isinstance(value, str):
            known = _BEGIN in value or _SSH_MARK in value
            return _of_text(value) if known else _x509_text(value)
    raise _Foreign("expected members such as token, certificate, manifest or document")


def _x509(der: bytes) -> Artefact:
    try:
        return artefacts.certificate(der)
    except MalformedRequest:
        return artefacts.crl(der)


def _x509_text(text: str) -> Artefact:
    return _x509(_base64(text))


def _signed(value: object) -> bytes:
    """The exact bytes of a document: as they are, or in base64."""
    if not isinstance(value, str):
        raise MalformedRequest("expected the signed document as a string")
    return value.encode() if value.startswith("{") else _base64(value)


def _signatures(members: Mapping[str, Any]) -> dict[str, bytes]:
    found = members["signatures"]
    if not isinstance(found, dict) or len(found) > len(COMPONENTS):
        raise MalformedRequest("expected signatures by the name of their algorithm")
    return {name: _base64(value) for name, value in found.items()}


def _signatures_beside(path: Path | None) -> dict[str, bytes]:
    if path is None or not path.name.endswith(MANIFEST_SUFFIX):
        raise MalformedRequest(
            f"expected a manifest in a file NAME{MANIFEST_SUFFIX}, its signatures beside it"
        )
    image = path.with_name(path.name.removesuffix(MANIFEST_SUFFIX))
    found: dict[str, bytes] = {}
    for component in COMPONENTS:
        beside = signature_path(image, component)
        if beside.is_file():
            with beside.open("rb") as file:
                found[component] = file.read(limits.ARTEFACT_BYTES_MAX)
    return found


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        return _OBJECT.decode(data)
    except DECODE_ERRORS:
        return None


def _base64(value: object) -> bytes:
    if not isinstance(value, str):
        raise MalformedRequest("expected base64, met another kind of value")
    if len(value) > _OBJECT_BYTES_MAX:
        raise _too_long(len(value), _OBJECT_BYTES_MAX)
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedRequest("expected base64 (RFC 4648 section 4)") from exc


def _too_long(size: int, most: int) -> MalformedRequest:
    return MalformedRequest(f"expected an artefact of at most {most} characters, met {size}")
