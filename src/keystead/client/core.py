"""The client without its network: flows that say what to send and when, and read what comes back.

A flow is a generator. It yields an :class:`Effect`, to send a request or to pause, and is resumed
with a :class:`Turn`: what time it now is, a random number, and what came back. The two shells in
``transport.py`` carry effects out, one by blocking and one by awaiting; all else is here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Generic, Literal, TypeVar

import msgspec

from keystead.client.fronts import Fronts, Line, no_front
from keystead.client.proof import Bound
from keystead.client.retry import (
    Retry,
    Verdict,
    aside_s,
    parse_retry_after,
    verdict_on,
    wait_s,
)
from keystead.errors import CallerError, KeysteadError, ServiceError, error_for_code

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
    "front_by_front",
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
    """Send this to a front, by default the preferred one; all of it ends within ``timeout_s``."""

    request: Request
    timeout_s: float
    front: str = ""


class Pause(msgspec.Struct, frozen=True):
    """Wait."""

    seconds: float


Effect = Send | Pause
Flow = Generator[Effect, Turn, T]


class Session:
    """What one client keeps between calls: fronts, patience, credentials, deployment."""

    def __init__(
        self,
        urls: Sequence[str],
        retry: Retry,
        *,
        operator: str | None = None,
        bound: Bound | None = None,
    ) -> None:
        self.fronts = Fronts(urls)
        self.retry = retry
        self.operator = operator
        self.bound = bound
        self.deployment: str | None = None

    @property
    def url(self) -> str:
        """The addresses of all fronts, to be shown."""
        return ", ".join(self.fronts.urls)

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
    session: Session,
    make: Callable[[int], Request],
    turn: Turn,
    until_s: float,
    *,
    only: str = "",
) -> Flow[tuple[Reply, Turn]]:
    """Send one request until it is answered, refused for good, or the deadline is near.

    A front that does not answer, or refuses for want of what is behind it, is passed over for the
    next at once; only after all of them comes a pause. Each try has an equal share of what is left
    until the deadline, so that a front that hangs leaves time for the others.

    ``make``: builds the request of one try for its time in Unix milliseconds, as proofs of
    possession bear one; ``until_s``: the deadline on the clock of ``turn.monotonic_s``; ``only``:
    the address of the one front to ask; empty: all.

    Returns:
        The reply that the request accepts, and the turn it came in.

    Raises:
        KeysteadError: the refusal, as its class of ``errors.py``; ``ServiceError`` for no answer.
            After several fronts it names each, and is of the class that their refusals share.
    """
    policy, started_s, line = session.retry, turn.monotonic_s, Line(session.fronts, only)
    error: KeysteadError = ServiceError("the deadline passed before the request was sent")
    verdict = Verdict.NEXT
    while True:
        front, waiting = line.head(turn.monotonic_s)
        left_s = until_s - turn.monotonic_s
        if left_s <= 0:
            raise _noted(_last(line, error, verdict), line, turn.monotonic_s - started_s)
        request = make(turn.now_ms)
        turn = yield Send(request, min(policy.try_s, left_s / waiting), front)
        if isinstance(turn.came, Reply) and request.accept(turn.came):
            line.answered()
            return turn.came, turn
        error, verdict = _refused(session, line, request, turn)
        if verdict is Verdict.FINAL:
            raise _noted(error, line, turn.monotonic_s - started_s)
        if line.goes_on:
            continue
        pause_s = wait_s(
            policy,
            tries=line.rounds,
            left_s=until_s - turn.monotonic_s,
            retry_after_s=error.retry_after_s if verdict is Verdict.SAME else line.retry_after_s(),
            random=turn.random,
        )
        if line.is_over or pause_s is None:
            raise _noted(_last(line, error, verdict), line, turn.monotonic_s - started_s)
        turn = yield Pause(pause_s)


def front_by_front(
    session: Session,
    ask: Callable[[str, Turn, float], Flow[T]],
    turn: Turn,
    *,
    passed: tuple[type[KeysteadError], ...],
) -> Flow[T]:
    """Ask one front after the other for what only one of them may have.

    ``ask``: asks the front at an address, from a turn on, until a deadline; each has an equal share
    of what is left. ``passed``: errors after which the next front is asked.

    Raises:
        KeysteadError: as ``ask``; with several fronts, one that says of each why not.
    """
    until_s = turn.monotonic_s + session.retry.deadline_s
    fronts = session.fronts.order(turn.monotonic_s)
    failures: dict[str, KeysteadError] = {}
    for at, front in enumerate(fronts):
        share_s = (until_s - turn.monotonic_s) / (len(fronts) - at)
        try:
            return (yield from ask(front, turn, turn.monotonic_s + share_s))
        except passed as exc:
            failures[front] = exc
        turn = yield Pause(0.0)  # what time it is, now that the flow inside has ended
    if len(fronts) == 1:
        raise failures[fronts[0]]
    said = {front: exc.message for front, exc in failures.items()}
    raise no_front(said, list(failures.values()))


def _refused(
    session: Session, line: Line, request: Request, turn: Turn
) -> tuple[KeysteadError, Verdict]:
    """The error that a turn stands for, and what to do; the line is told how its head did."""
    policy, (front, _) = session.retry, line.head(turn.monotonic_s)
    if isinstance(turn.came, Reply):
        error = error_of(turn.came, turn.now_ms)
        why = f"{error.code}: {error.message}" if error.code else error.message
        if type(error) is ServiceError:
            again = request.repeatable and turn.came.status in _GATEWAY
            verdict = Verdict.NEXT if again else Verdict.FINAL
        else:
            verdict = verdict_on(policy, error, repeatable=request.repeatable)
        if verdict is Verdict.SAME or isinstance(error, CallerError):
            line.answered()
            return error, verdict
    else:
        failed = turn.came or Failed(why="nothing came back", sent=True)
        error, why = _unanswered(front, failed, repeatable=request.repeatable), failed.why
        again = request.repeatable or not failed.sent
        verdict = Verdict.NEXT if again else Verdict.FINAL
    aside_until_s = turn.monotonic_s + aside_s(
        policy, retry_after_s=error.retry_after_s, random=turn.random
    )
    line.failed(why, error, verdict, aside_until_s)
    return error, verdict


def _unanswered(front: str, failed: Failed, *, repeatable: bool) -> ServiceError:
    doubt = "It may have had its effect: look before asking again" if failed.sent else ""
    if repeatable and failed.sent:
        doubt = "Sent again under the same idempotency key it has one effect"
    return ServiceError(f"no answer from {front}: {failed.why}", hint=doubt)


def _last(line: Line, error: KeysteadError, verdict: Verdict) -> KeysteadError:
    return error if verdict is Verdict.SAME else line.error(error)


def _noted(error: KeysteadError, line: Line, seconds: float) -> KeysteadError:
    if line.tries > 1:
        error.add_note(f"after {line.tries} tries in {seconds:.1f} s")
    if line.passes_others_over:
        error.add_note("the other fronts were not asked: it is of one node's log")
    return error


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
