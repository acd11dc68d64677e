"""The log's side of C2SP tlog-witness: submit a checkpoint, and believe no more than is signed.

Addresses are ``https://`` under the system's trust, or ``http://`` on this machine: a cosignature
proves itself, but the size that a witness says it stands at does not. Redirects are not followed,
and proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import httpx
import msgspec

from keystead import __version__, limits
from keystead.errors import CallerError, MalformedRequest, SignatureInvalid
from keystead.translog.checkpoints import check_log_signature
from keystead.translog.cosignatures import verify_cosignature
from keystead.translog.heads import Checkpoint
from keystead.translog.lines import b64_encode, decimal
from keystead.translog.notes import (
    Note,
    Signature,
    VerifierKey,
    parse_note,
    parse_signatures,
    signatures_by,
)

__all__ = [
    "Behind",
    "Cosigned",
    "Outcome",
    "Refused",
    "Remembered",
    "Unreachable",
    "Witness",
]

_CONNECTIONS = httpx.Limits(max_connections=1, max_keepalive_connections=1)
_HEADERS = {"user-agent": f"keystead/{__version__}", "accept-encoding": "identity"}
_SIZE = "text/x.tlog.size"
_REFUSALS = frozenset({400, 403, 404, 422})
_WORDS_CHARS_MAX = 200


class Cosigned(msgspec.Struct, frozen=True):
    """The witness's cosignature, checked, and its time in POSIX seconds."""

    signature: Signature
    time_s: int


class Behind(msgspec.Struct, frozen=True):
    """The witness stands at another ``size`` than the proof begins at: make one from there.

    A size past the submitted one says that this log has gone back (I10), or that the witness lies.
    """

    size: int


class Refused(msgspec.Struct, frozen=True):
    """The witness will not cosign this, now or later; 422: it remembers another history.

    ``reason``: the witness's own words, so a stranger's: printable, and short.
    """

    status: int
    reason: str


class Unreachable(msgspec.Struct, frozen=True):
    """No answer, or none that a witness gives; it may work later."""

    reason: str


class Remembered(msgspec.Struct, frozen=True):
    """The latest checkpoint that the witness cosigned, checked, and when."""

    checkpoint: Checkpoint
    time_s: int


Outcome = Cosigned | Behind | Refused | Unreachable


class Witness:
    """One witness of a log; its connection is kept. One submission at a time.

    ``url``: the submission prefix. ``vkey``: its cosignature key. ``tls``: in place of the system's
    trust. ``transport``: in place of httpx's own, for tests.

    Raises:
        MalformedRequest: an address that is neither https nor on this machine.
    """

    def __init__(
        self,
        url: str,
        vkey: VerifierKey,
        *,
        tls: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = _checked(url)
        self.vkey = vkey
        self._http = httpx.AsyncClient(
            headers=_HEADERS,
            transport=transport
            or httpx.AsyncHTTPTransport(
                verify=tls or ssl.create_default_context(), limits=_CONNECTIONS
            ),
            trust_env=False,
            timeout=limits.WITNESS_ANSWER_S,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def submit(self, note: bytes, old: int, proof: Sequence[bytes]) -> Outcome:
        """Ask for a cosignature on a checkpoint that the log has signed.

        ``proof``: that it grew from its tree of ``old`` leaves, as ``consistency_proof`` makes it.

        Raises:
            MalformedRequest: the note is none.
        """
        submitted = parse_note(note)
        lines = [f"old {old}", *map(b64_encode, proof), "", ""]
        answer = await self._ask("POST", "/add-checkpoint", "\n".join(lines).encode() + note)
        if isinstance(answer, Unreachable):
            return answer
        status, kind, body = answer
        if status == httpx.codes.OK:
            return self._cosigned(submitted, body)
        if status == httpx.codes.CONFLICT and kind == _SIZE and body.endswith(b"\n"):
            try:
                return Behind(decimal(_text(body)[:-1], limits.LOG_SIZE_MAX, "a tree size"))
            except MalformedRequest as exc:
                return Unreachable(f"a conflict that says no size: {exc}")
        if status in _REFUSALS:
            return Refused(status, _words(body))
        return Unreachable(f"status {status}: {_words(body)}")

    async def remembered(self, log: VerifierKey) -> Remembered | Unreachable | None:
        """The latest checkpoint of a log that this witness serves; None if it cosigned none.

        It serves one from its submission prefix if it is Keystead's; others may not.
        """
        origin_hash = hashlib.sha256(log.name.encode()).hexdigest()
        answer = await self._ask("GET", f"/{origin_hash}/checkpoint", b"")
        if isinstance(answer, Unreachable):
            return answer
        status, _, body = answer
        if status == httpx.codes.NOT_FOUND:
            return None
        if status != httpx.codes.OK:
            return Unreachable(f"status {status}: {_words(body)}")
        try:
            note = parse_note(body)
            return Remembered(check_log_signature(note, log), verify_cosignature(note, self.vkey))
        except (CallerError, SignatureInvalid) as exc:
            return Unreachable(f"a checkpoint that does not verify: {exc}")

    def _cosigned(self, submitted: Note, body: bytes) -> Cosigned | Unreachable:
        """The witness's own among the lines of an answer; those of other keys are ignored."""
        try:
            note = Note(submitted.text, parse_signatures(_text(body)))
            time_s = verify_cosignature(note, self.vkey)
        except (CallerError, SignatureInvalid) as exc:
            return Unreachable(f"an answer without a good cosignature: {exc}")
        if time_s == 0:
            return Unreachable("an answer without a cosignature's time")
        # It begins with its time, in eight bytes: of several this is the one that gave it.
        latest = max(signatures_by(note, self.vkey), key=lambda found: found.data[:8])
        return Cosigned(latest, time_s)

    async def _ask(
        self, method: str, path: str, content: bytes
    ) -> tuple[int, str, bytes] | Unreachable:
        """Status, content type and body; the time is bounded as a whole, and so is the body."""
        try:
            async with (
                asyncio.timeout(limits.WITNESS_ANSWER_S),
                self._http.stream(method, self.url + path, content=content) as response,
            ):
                body = b""
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > limits.WITNESS_ANSWER_BYTES_MAX:
                        return Unreachable(
                            f"an answer of more than {limits.WITNESS_ANSWER_BYTES_MAX} bytes"
                        )
                return response.status_code, response.headers.get("content-type", ""), body
        except TimeoutError:
            return Unreachable(f"no answer within {limits.WITNESS_ANSWER_S:.0f} s")
        except httpx.HTTPError as exc:
            return Unreachable(f"{type(exc).__name__} {exc}".strip())


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise MalformedRequest("expected UTF-8") from exc


def _words(body: bytes) -> str:
    first = body[:_WORDS_CHARS_MAX].decode("ascii", "replace").partition("\n")[0]
    return "".join(char for char in first if char.isprintable())


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise MalformedRequest("expected a witness's address, such as https://w.example") from exc
    if parsed.userinfo or parsed.query or parsed.fragment or not parsed.host:
        raise MalformedRequest("expected a witness's address of scheme, host, port and path only")
    if parsed.scheme == "https" or (parsed.scheme == "http" and _is_this_machine(parsed.host)):
        return url.rstrip("/")
    raise MalformedRequest(
        f"expected https://, or http:// on this machine, met {parsed.scheme}://{parsed.host}",
        hint="A witness's size is not signed: who can change it can stop the log",
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
