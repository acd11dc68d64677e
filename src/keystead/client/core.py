"""The client without its network: flows that say what to send and when, and read what comes back.

A flow is a generator. It yields an :class:`Effect`, to send a request or to pause, and is resumed
with a :class:`Turn`: what time it now is, a random number, and what came back. The two shells in
``transport.py`` carry effects out, one by blocking and one by awaiting; all else is here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Generic, Literal, TypeVar

import msgspec

from keystead.client.proof import Bound
from keystead.client.retry import Retry, may_repeat, parse_retry_after, wait_s
from keystead.errors import KeysteadError, ServiceError, error_for_code

__all__ = [
    "Call",
    "Effect",
    "Failed",
    "Flow",
    "Pause",
    "Problem",
    "Reply",
    "Request",
    "Send",
    "Session",
    "Turn",
    "decode",
    "error_of",
    "exchange",
    "is_success",
    "problem_error",
]

R = TypeVar("R")
T = TypeVar("T")

_GATEWAY = frozenset({502, 503, 504})
"""Answers of a proxy before the node: the node may be back in a moment (RFC 9110, 15.6)."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a server answered; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Without the body, which may hold plaintext."""
        return f"<Reply {self.status} of {len(self.body)} bytes>"


def is_success(reply: Reply) -> bool:
    """Whether the status is 200 to 299 (RFC 9110 section 15.3)."""
    return 200 <= reply.status < 300  # noqa: PLR2004  the class of success


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request.

    ``repeatable``: it has one effect however often it arrives. ``accept``: whether a reply is the
    answer, rather than a refusal.
    """

    method: Literal["GET", "POST"]
    path: str
    headers: dict[str, str] = {}
    body: bytes = b""
    repeatable: bool = True
    accept: Callable[[Reply], bool] = is_success

    def __repr__(self) -> str:
        """Without headers and body, which hold tokens and plaintext."""
        return f"<Request {self.method} {self.path}>"


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """No answer. ``sent``: whether the node may have seen the request."""

    why: str
    sent: bool


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """The outside world as a flow sees it when it goes on.

    ``monotonic_s``: a clock that only grows; ``now_ms``: Unix milliseconds; ``random``: uniform in
    [0, 1), new each turn; ``came``: what came of the request that the flow sent.
    """

    monotonic_s: float
    now_ms: int
    random: float
    came: Reply | Failed | None = None


class Send(msgspec.Struct, frozen=True):
    """Send this, and give each phase of it ``timeout_s``."""

    request: Request
    timeout_s: float


class Pause(msgspec.Struct, frozen=True):
    """Wait."""

    seconds: float


Effect = Send | Pause
Flow = Generator[Effect, Turn, T]


class Session:
    """What one client keeps between calls: address, patience, credentials, deployment."""

    def __init__(
        self, url: str, retry: Retry, *, operator: str | None = None, bound: Bound | None = None
    ) -> None:
        self.url = url
        self.retry = retry
        self.operator = operator
        self.bound = bound
        self.deployment: str | None = None

    def __repr__(self) -> str:
        return f"<Session with {self.url}>"


class Call(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """One thing to ask of a node; running it gives an ``R``. It may be run again."""

    def flow(self, session: Session, turn: Turn) -> Flow[R]:
        """How to run it, from the time ``turn`` on."""
        raise NotImplementedError


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem document (RFC 9457) as far as a client reads it."""

    code: str = ""
    title: str = ""
    detail: str = ""
    hint: str = ""
    request_id: str = ""
    retry_after_s: float | None = None


def exchange(
    session: Session, make: Callable[[int], Request], turn: Turn, until_s: float
) -> Flow[tuple[Reply, Turn]]:
    """Send one request until it is answered, refused for good, or the deadline is near.

    ``make``: builds the request of one try for its time in Unix milliseconds, as proofs of
    possession bear one; ``until_s``: the deadline on the clock of ``turn.monotonic_s``.

    Returns:
        The reply that the request accepts, and the turn it came in.

    Raises:
        KeysteadError: the refusal, as its class of ``errors.py``; ``ServiceError`` for no answer.
    """
    policy, started_s, tries = session.retry, turn.monotonic_s, 0
    while True:
        left_s = until_s - turn.monotonic_s
        if left_s <= 0:
            raise ServiceError("the deadline passed before the request was sent")
        request = make(turn.now_ms)
        turn = yield Send(request, min(policy.try_s, left_s))
        tries += 1
        if isinstance(turn.came, Reply) and request.accept(turn.came):
            return turn.came, turn
        error, again = _refusal(session, request, turn)
        pause_s = wait_s(
            policy,
            tries=tries,
            left_s=until_s - turn.monotonic_s,
            retry_after_s=error.retry_after_s,
            random=turn.random,
        )
        if not again or pause_s is None:
            if tries > 1:
                error.add_note(f"after {tries} tries in {turn.monotonic_s - started_s:.1f} s")
            raise error
        turn = yield Pause(pause_s)


def _refusal(session: Session, request: Request, turn: Turn) -> tuple[KeysteadError, bool]:
    """The error that a turn stands for, and whether to send again."""
    if isinstance(turn.came, Reply):
        reply = turn.came
        error = error_of(reply, turn.now_ms)
        if type(error) is ServiceError:
            return error, request.repeatable and reply.status in _GATEWAY
        return error, may_repeat(session.retry, error, repeatable=request.repeatable)
    failed = turn.came or Failed(why="nothing came back", sent=True)
    doubt = "It may have had its effect: look before asking again" if failed.sent else ""
    if request.repeatable and failed.sent:
        doubt = "Sent again under the same idempotency key it has one effect"
    error = ServiceError(f"no answer from {session.url}: {failed.why}", hint=doubt)
    return error, request.repeatable or not failed.sent


def error_of(reply: Reply, now_ms: int) -> KeysteadError:
    """The error that a refusal stands for.

    A reply that is no problem document, such as a proxy's, becomes a plain ``ServiceError``.
    """
    retry_after_s = parse_retry_after(reply.headers.get("retry-after"), now_ms)
    try:
        problem = msgspec.json.decode(reply.body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = Problem()
    if not problem.code:
        return ServiceError(
            f"expected an answer of a Keystead node, met status {reply.status}",
            hint="Check the address, and what stands between here and the node",
            retry_after_s=retry_after_s,
        )
    return problem_error(problem, retry_after_s)


def problem_error(problem: Problem, retry_after_s: float | None = None) -> KeysteadError:
    """The error of a problem document; with the node's request id, also as a note."""
    error = error_for_code(
        problem.code,
        problem.detail or problem.title or problem.code,
        hint=problem.hint,
        retry_after_s=problem.retry_after_s if retry_after_s is None else retry_after_s,
    )
    error.request_id = problem.request_id
    if problem.request_id:
        error.add_note(f"request id {problem.request_id}")
    return error


def decode(body: bytes, form: type[T]) -> T:
    """Read an answer's JSON; members that this release does not know are passed over.

    Raises:
        ServiceError: it is not what this release expects.
    """
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ServiceError(
            "the answer is not what this release of the client expects",
            hint="Is the node of another release, or something else at this address?",
        ) from exc
