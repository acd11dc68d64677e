"""When to send again, where, and when not: pure, so that a test decides what time it is.

Sent again is only what had no answer or a passing refusal, always under the same idempotency key,
so that a repeated use has one effect and one record (I6). Waits are full jitter: a random share of
a bound that doubles, which spreads a crowd of clients best (AWS Architecture Blog, "Exponential
Backoff And Jitter", 2015).
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, auto

import msgspec

from keystead import limits
from keystead.errors import (
    CustodyUnavailable,
    KeysteadError,
    LimitExceeded,
    LogUnavailable,
    Overloaded,
    ReservationEnded,
    StateRolledBack,
)

__all__ = [
    "Retry",
    "Verdict",
    "aside_s",
    "may_repeat",
    "parse_retry_after",
    "verdict_on",
    "wait_s",
]

_PASSING = (Overloaded, ReservationEnded, CustodyUnavailable, LogUnavailable)
"""Refusals that say nothing of the request itself. ``StateRolledBack`` waits for a person."""
_OF_THE_FRONT = (Overloaded, CustodyUnavailable, LogUnavailable)
"""Those that another front need not share: what is behind it has its own queue, disk and HSM."""


class Verdict(Enum):
    """What to do with a request that was not done."""

    FINAL = auto()
    """Raise: no front would answer otherwise, or it may have had its effect."""
    SAME = auto()
    """Ask the same front again, later."""
    NEXT = auto()
    """Ask the next front now, and this one again later."""
    LEAVE = auto()
    """Ask the next front now, and this one not again."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a client is. All times in seconds.

    ``deadline_s``: from the call to its last try's end; ``try_s``: one try from connecting to the
    last byte, less where other fronts share the deadline; ``tries_max``: tries of each front, 1 for
    none again; ``base_s`` and ``cap_s``: bounds of the first and of any wait; ``aside_s``: for how
    long at most a front that failed is asked after all others. ``limits_pass``: wait for a handle's
    ``rate`` to refill too; off, because most limits do not pass and the wire tells them apart by
    words only.
    """

    deadline_s: float = limits.REQUEST_TIMEOUT_S
    try_s: float = 10.0
    tries_max: int = 5
    base_s: float = 0.05
    cap_s: float = 2.0
    aside_s: float = 10.0
    limits_pass: bool = False


def may_repeat(policy: Retry, error: KeysteadError, *, repeatable: bool) -> bool:
    """Whether a refusal may pass if the same request is sent again.

    ``repeatable``: the request has one effect however often it arrives. One that is not is sent
    again only if ``overloaded``, which is said before anything is begun.
    """
    if not repeatable:
        return isinstance(error, Overloaded)
    if isinstance(error, LimitExceeded):
        return policy.limits_pass and error.retry_after_s is not None
    return isinstance(error, _PASSING)


def verdict_on(policy: Retry, error: KeysteadError, *, repeatable: bool) -> Verdict:
    """What to do after a refusal; budgets are the handle's or tenant's, whoever is asked."""
    if isinstance(error, StateRolledBack) and repeatable:
        return Verdict.LEAVE  # it stays so until a person comes
    if not may_repeat(policy, error, repeatable=repeatable):
        return Verdict.FINAL
    return Verdict.NEXT if isinstance(error, _OF_THE_FRONT) else Verdict.SAME


def aside_s(policy: Retry, *, retry_after_s: float | None, random: float) -> float:
    """For how long a front that failed is put aside; it may ask for less by ``Retry-After``.

    ``random``: uniform in [0, 1); half of the time is drawn, so that the clients of a front that
    comes back do not all come back to it at once.
    """
    if retry_after_s is not None:
        return min(max(0.0, retry_after_s), policy.aside_s)
    return policy.aside_s * (1.0 + random) / 2


def wait_s(
    policy: Retry, *, tries: int, left_s: float, retry_after_s: float | None, random: float
) -> float | None:
    """Seconds to wait before the next try, or ``None`` to give up.

    ``tries``: made so far; ``left_s``: until the deadline; ``random``: uniform in [0, 1).
    ``Retry-After`` is a floor: the jitter comes on top, so that those who were told the same time
    do not come back at the same time.
    """
    if tries >= policy.tries_max:
        return None
    bound_s: float = min(policy.cap_s, policy.base_s * 2 ** (tries - 1))
    pause_s = max(0.0, retry_after_s or 0.0) + random * bound_s
    return pause_s if pause_s < left_s else None


def parse_retry_after(value: str | None, now_ms: int) -> float | None:
    """Seconds from a ``Retry-After`` header (RFC 9110 section 10.2.3): a number or a date.

    ``None`` for no header, and for one that does not parse.
    """
    if value is None:
        return None
    text = value.strip()
    if text.replace(".", "", 1).isdecimal() and text.isascii():
        return float(text)
    try:
        instant = parsedate_to_datetime(text)
    except ValueError:
        return None
    if instant.tzinfo is None:  # "-0000": UTC of an unknown zone, RFC 5322 section 3.3
        instant = instant.replace(tzinfo=UTC)
    return max(0.0, instant.timestamp() - now_ms / 1000)
