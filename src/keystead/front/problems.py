"""Errors as RFC 9457 problem documents; nowhere else do errors have a wire form."""

from __future__ import annotations

import math
import re
import secrets
import traceback
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import structlog

from keystead.errors import KeysteadError, MalformedRequest, error_for_code
from keystead.frames.messages import Refused

__all__ = [
    "JSON_HEADERS",
    "HeaderList",
    "Problem",
    "Rejection",
    "Reply",
    "json_reply",
    "malformed",
    "problem_of",
    "problem_of_refused",
    "reply_of_error",
    "reply_of_refused",
]

HeaderList = list[tuple[bytes, bytes]]

_COMMON: HeaderList = [
    (b"cache-control", b"no-store"),  # RFC 9111 section 5.2.2.5: results and refusals are secrets
    (b"x-content-type-options", b"nosniff"),
    (b"server", b"keystead"),
]
JSON_HEADERS: HeaderList = [(b"content-type", b"application/json"), *_COMMON]
"""Headers of a JSON answer that no cache may keep."""
_PROBLEM_HEADERS: HeaderList = [(b"content-type", b"application/problem+json"), *_COMMON]

_RETRY_AFTER_S = 1.0
"""What `Retry-After` says where the error names no time: a turn of any queue here is shorter."""
_RETRIED_STATUS = frozenset({429, 503})
_INTERNAL_STATUS = 500
_UNAUTHENTICATED_STATUS = 401
_QUOTED = re.compile(r" '.*'", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"unknown field `(?![A-Za-z0-9_.-]{1,32}`).*`", re.DOTALL)
_ENCODER = msgspec.json.Encoder()

_log = structlog.get_logger("keystead.front")


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document (RFC 9457 section 3.1), with the stable ``code`` and what to do next."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str = ""
    request_id: str = ""


class Reply(NamedTuple):
    """An answer, ready to be sent; ``refused`` is why the front itself said no, if it did."""

    status: int
    headers: HeaderList
    body: bytes
    code: str = "ok"
    refused: str = ""


class Rejection(Exception):
    """The front's own refusal, where HTTP has a status or header of its own for it.

    ``reason`` is the label that it is counted by.
    """

    def __init__(
        self, error: KeysteadError, *, status: int, reason: str, headers: HeaderList | None = None
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.status = status
        self.reason = reason
        self.headers = headers or []


def problem_of(error: KeysteadError, *, status: int = 0, request_id: str = "") -> Problem:
    """The document of an error; ``status`` where HTTP has a better one than the error's own."""
    code = error.code or "internal"
    return Problem(
        type=f"urn:keystead:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=status or error.status,
        code=code,
        detail=error.message,
        hint=error.hint,
        request_id=request_id,
    )


def problem_of_refused(refused: Refused) -> Problem:
    """The document of a vault's refusal; a code that this front does not know is ``internal``."""
    return problem_of(_error_of(refused), request_id=refused.request_id)


def json_reply(value: object, *, status: int = 200) -> Reply:
    """A JSON answer that no cache may keep."""
    return Reply(status, JSON_HEADERS, _ENCODER.encode(value))


def reply_of_refused(refused: Refused) -> Reply:
    """The answer for what the vault refused."""
    error = _error_of(refused)
    return _reply(problem_of(error, request_id=refused.request_id), error.retry_after_s)


def reply_of_error(exc: Exception) -> Reply:
    """The answer for anything that went wrong in the front.

    What nobody foresaw is logged with a request id, by type and place only: its message may quote
    a stranger's input. The caller gets the id.
    """
    match exc:
        case Rejection(error=error):
            problem = problem_of(error, status=exc.status)
            return _reply(problem, error.retry_after_s, exc.headers, exc.reason)
        case KeysteadError():
            return _reply(problem_of(exc), exc.retry_after_s, refused=exc.code or "internal")
        case _:
            request_id = secrets.token_hex(8)
            _log.error(
                "unexpected_error",
                request_id=request_id,
                exception=type(exc).__name__,
                at=[f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(exc.__traceback__)],
            )
            problem = problem_of(
                KeysteadError(
                    "something in Keystead failed that should not",
                    hint="Report it with the request id; the front's log has the place",
                ),
                request_id=request_id,
            )
            return _reply(problem, None, refused="internal")


def malformed(exc: Exception, where: str = "") -> MalformedRequest:
    """What a decoder's complaint says, without the value that it complains about.

    msgspec quotes bad enum values and the names of unknown fields; a caller may have put anything
    there. Types, paths and byte offsets stay.
    """
    if isinstance(exc, msgspec.DecodeError):
        text = _UNKNOWN_FIELD.sub("unknown field", _QUOTED.sub("", str(exc)))
    elif isinstance(exc, RecursionError):
        text = "nested too deep"
    else:
        text = "not valid UTF-8, or a number out of range"
    return MalformedRequest(f"{where}: {text}" if where else text)


def _error_of(refused: Refused) -> KeysteadError:
    return error_for_code(
        refused.code, refused.message, hint=refused.hint, retry_after_s=refused.retry_after_s
    )


def _reply(
    problem: Problem,
    retry_after_s: float | None,
    more: Iterable[tuple[bytes, bytes]] = (),
    refused: str = "",
) -> Reply:
    headers = [*_PROBLEM_HEADERS, *more]
    if problem.status == _UNAUTHENTICATED_STATUS:  # RFC 9110 section 11.6.1, RFC 6750 section 3
        invalid = b', error="invalid_token"' if problem.code != "unauthenticated" else b""
        headers.append((b"www-authenticate", b'Bearer realm="keystead"' + invalid))
    again = problem.status in _RETRIED_STATUS and problem.code != "state_rolled_back"
    if retry_after_s is not None or again:  # RFC 9110 section 10.2.3: whole seconds
        seconds = math.ceil(_RETRY_AFTER_S if retry_after_s is None else retry_after_s)
        headers.append((b"retry-after", b"%d" % max(1, seconds)))
    return Reply(problem.status, headers, _ENCODER.encode(problem), problem.code, refused)
