"""What a handle can be used for, one function an operation; each makes a :class:`Use`, unsent.

A client has a method of the same name that runs it; a batch takes many. Every function takes,
beside what is its own:

``context``: the slash path of the use, inside what the handle allows. ``idempotency_key``: 1 to 64
printable ASCII characters; made up if not given, so that trying again never has two effects.
``reason``: free text for the record. ``key_version``: a version of the key, the primary if 0.
``wait_proof``: wait a few seconds for the proof that the log holds the use; not in a batch.

All raise ``HandleInvalid`` for what is no handle, and ``MalformedRequest`` for what cannot be sent.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from typing import Any, Literal, Required, TypedDict, TypeVar, Unpack

import msgspec

from keystead import limits
from keystead.client.uses import Batch, Use
from keystead.errors import MalformedRequest
from keystead.keys.framing.base import Facts
from keystead.keys.framing.ca import CaResult, CertificateRequest, CrlRequest, SignCa
from keystead.keys.framing.data import (
    Derive,
    DeriveResult,
    Mac,
    MacResult,
    Unwrap,
    UnwrapResult,
    Wrap,
    WrapResult,
)
from keystead.keys.framing.firmware import FirmwareResult, SignFirmware
from keystead.keys.framing.jwt import JwtResult, SignJwt
from keystead.keys.framing.ledger import AppendLedger, LedgerResult
from keystead.keys.framing.ssh_ca import SignSshCa, SshCaResult
from keystead.keys.framing.tls import SignTls, TlsResult
from keystead.keys.handles import Handle, parse

__all__ = [
    "UseOptions",
    "append_ledger",
    "batch",
    "derive",
    "mac",
    "new_idempotency_key",
    "sign_ca",
    "sign_firmware",
    "sign_jwt",
    "sign_ssh_ca",
    "sign_tls",
    "unwrap",
    "wrap",
]

T = TypeVar("T")
_KEY_BYTES = 16  # 128 bits, as a UUID has: two clients never make up the same one


class UseOptions(TypedDict, total=False):
    """What every use takes; see the module."""

    context: Required[str]
    idempotency_key: str | None
    reason: str | None
    key_version: int
    wait_proof: bool


def sign_tls(
    handle: Handle | str,
    transcript_hash: bytes,
    *,
    role: Literal["server", "client"] = "server",
    **options: Unpack[UseOptions],
) -> Use[TlsResult]:
    """Sign a TLS 1.3 CertificateVerify (RFC 8446 section 4.4.3).

    ``transcript_hash``: Transcript-Hash(Handshake Context, Certificate), 32 or 48 bytes.
    """
    facts = SignTls(role=role, transcript_hash=transcript_hash)
    return _use(handle, ("tls", "sign"), facts, TlsResult, options)


def sign_ca(
    handle: Handle | str,
    request: CertificateRequest | CrlRequest,
    **options: Unpack[UseOptions],
) -> Use[CaResult]:
    """Issue a certificate for a PKCS#10 request, or a CRL (RFC 5280)."""
    if isinstance(request, CertificateRequest):
        facts = SignCa(certificate=request)
    else:
        facts = SignCa(crl=request)
    return _use(handle, ("ca", "sign"), facts, CaResult, options)


def sign_jwt(
    handle: Handle | str,
    claims: dict[str, Any],
    *,
    typ: Literal["JWT", "at+jwt"] = "JWT",
    **options: Unpack[UseOptions],
) -> Use[JwtResult]:
    """Sign claims as a JSON Web Token (RFC 7519); ``iss``, ``iat`` and ``exp`` may be left out."""
    try:
        # msgspec writes NaN as null and dates as texts: what is signed is to be what was given.
        json.dumps(claims, allow_nan=False)
        msgspec.msgpack.encode(claims)  # the node reads whole numbers of 64 bits at most
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise MalformedRequest("expected claims of JSON values") from exc
    return _use(handle, ("jwt", "sign"), SignJwt(claims=claims, typ=typ), JwtResult, options)


def sign_firmware(
    handle: Handle | str,
    name: str,
    version: int,
    *,
    sha256: bytes,
    size: int,
    **options: Unpack[UseOptions],
) -> Use[FirmwareResult]:
    """Sign a firmware manifest. ``version``: the image's counter; ``size``: the image's bytes."""
    facts = SignFirmware(name=name, version=version, sha256=sha256, size=size)
    return _use(handle, ("firmware", "sign"), facts, FirmwareResult, options)


def append_ledger(
    handle: Handle | str, entry: bytes, **options: Unpack[UseOptions]
) -> Use[LedgerResult]:
    """Append an entry; keep its bytes, as the ledger holds their hash."""
    facts = AppendLedger(entry=entry)
    return _use(handle, ("ledger", "append"), facts, LedgerResult, options)


def sign_ssh_ca(
    handle: Handle | str, request: SignSshCa, **options: Unpack[UseOptions]
) -> Use[SshCaResult]:
    """Issue an SSH certificate (OpenSSH PROTOCOL.certkeys)."""
    return _use(handle, ("ssh_ca", "sign"), request, SshCaResult, options)


def wrap(handle: Handle | str, plaintext: bytes, **options: Unpack[UseOptions]) -> Use[WrapResult]:
    """Encrypt up to ``limits.DATA_BYTES_MAX`` bytes; they open in the same context only."""
    return _use(handle, ("data", "wrap"), Wrap(plaintext=plaintext), WrapResult, options)


def unwrap(handle: Handle | str, wrapped: str, **options: Unpack[UseOptions]) -> Use[UnwrapResult]:
    """Decrypt what :func:`wrap` gave, in the context that it was wrapped in."""
    return _use(handle, ("data", "unwrap"), Unwrap(wrapped=wrapped), UnwrapResult, options)


def derive(
    handle: Handle | str,
    *,
    length: int = 32,
    info: bytes = b"",
    **options: Unpack[UseOptions],
) -> Use[DeriveResult]:
    """Derive a secret of ``length`` bytes: the same for the same version, context and ``info``."""
    return _use(handle, ("data", "derive"), Derive(length=length, info=info), DeriveResult, options)


def mac(
    handle: Handle | str,
    message: bytes,
    *,
    tag: bytes | None = None,
    **options: Unpack[UseOptions],
) -> Use[MacResult]:
    """Authenticate a message; with ``tag``, have that checked instead."""
    return _use(handle, ("data", "mac"), Mac(message=message, tag=tag), MacResult, options)


def batch(uses: Iterable[Use[Any]]) -> Batch:
    """Many uses in few requests; in the answer one item a use, a ``Used`` or its error."""
    return Batch(uses=tuple(uses))


def new_idempotency_key() -> str:
    """A fresh idempotency key."""
    return secrets.token_urlsafe(_KEY_BYTES)


def _use(
    handle: Handle | str,
    operation: tuple[str, str],
    facts: Facts,
    result: type[T],
    options: UseOptions,
) -> Use[T]:
    _check_options(options)
    try:
        encoded = msgspec.json.encode(facts)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise MalformedRequest(
            f"expected facts of {'.'.join(operation)} that JSON can say"
        ) from exc
    key = options.get("idempotency_key")
    return Use(
        purpose=operation[0],
        operation=operation[1],
        handle=handle if isinstance(handle, Handle) else parse(handle),
        context=options["context"],
        facts=encoded,
        facts_type=type(facts),
        result=result,
        version=options.get("key_version", 0),
        idempotency_key=new_idempotency_key() if key is None else _checked(key),
        reason=options.get("reason"),
        wait_proof=options.get("wait_proof", False),
    )


def _check_options(options: UseOptions) -> None:
    """What Python checks itself where arguments are spelled out: a typo must not pass unseen."""
    if "context" not in options:
        raise TypeError("missing a required keyword argument: 'context'")
    unknown = options.keys() - UseOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")


def _checked(key: str) -> str:
    if not 1 <= len(key) <= limits.IDEMPOTENCY_KEY_BYTES_MAX or not (
        key.isascii() and key.isprintable() and key == key.strip()
    ):
        raise MalformedRequest(
            f"expected an idempotency key of 1 to {limits.IDEMPOTENCY_KEY_BYTES_MAX} printable"
            " ASCII characters without spaces around them"
        )
    return key
