"""Which front a request goes to, and to which next: no network and no clock of its own.

The front that answered last is asked first. One that failed is put aside for a while and asked
after all others until then, so that with all put aside all are still asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from keystead.client.retry import Verdict
from keystead.errors import KeysteadError, ServiceError

__all__ = ["Fronts", "Line", "no_front"]

_NEXT_STEP = "See that one of them is up and can be reached from here, or name others"


class Fronts:
    """What one client knows of its fronts; times are those of ``Turn.monotonic_s``.

    Threads may share it: each change is one assignment, and an order that is out of date costs a
    try at most.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = tuple(urls)
        self.preferred = self.urls[0]
        self._aside_until_s: dict[str, float] = {}

    def order(self, now_s: float) -> list[str]:
        """All of them: the preferred one, then as they were named; those put aside come last.

        Of those the one first whose time ends first.
        """
        aside = dict(self._aside_until_s)
        return sorted(
            self.urls,
            key=lambda url: (max(0.0, aside.get(url, 0.0) - now_s), url != self.preferred),
        )

    def worked(self, url: str) -> None:
        """It answered: ask it first from now on."""
        self._aside_until_s.pop(url, None)
        self.preferred = url

    def failed(self, url: str, until_s: float) -> None:
        """Ask it after all others until then."""
        self._aside_until_s[url] = until_s


class _Failure(msgspec.Struct, frozen=True):
    said: str
    error: KeysteadError


class Line:
    """The fronts that one request goes to, one after the other, round after round.

    ``only``: this one and no other; empty: all.
    """

    def __init__(self, fronts: Fronts, only: str = "") -> None:
        self._fronts = fronts
        self._only = only
        self._waiting: list[str] = []
        self._left: set[str] = set()
        self._failures: dict[str, _Failure] = {}
        self.rounds = 0
        self.tries = 0

    def head(self, now_s: float) -> tuple[str, int]:
        """The front to ask now, and how many wait in this round, with it."""
        if not self._waiting:
            self._waiting = [url for url in self._candidates(now_s) if url not in self._left]
            self.rounds += 1
        return self._waiting[0], len(self._waiting)

    def answered(self) -> None:
        """The front at the head answered, be it with a refusal: the round is over."""
        self.tries += 1
        if not self._only:
            self._fronts.worked(self._waiting[0])
        self._waiting = []

    def failed(
        self, why: str, error: KeysteadError, verdict: Verdict, aside_until_s: float
    ) -> None:
        """The front at the head could not do it; ``why``: in words, for when no front can."""
        self.tries += 1
        url = self._waiting.pop(0)
        self._failures[url] = _Failure(why, error)
        self._fronts.failed(url, aside_until_s)
        if verdict is Verdict.LEAVE:
            self._left.add(url)

    @property
    def goes_on(self) -> bool:
        """Whether another front waits in this round."""
        return bool(self._waiting)

    @property
    def is_over(self) -> bool:
        """Whether no front is left to ask, not even after a pause."""
        return not self._waiting and len(self._left) == (
            1 if self._only else len(self._fronts.urls)
        )

    @property
    def passes_others_over(self) -> bool:
        """Whether there are others, and this request is for one front only."""
        return bool(self._only) and len(self._fronts.urls) > 1

    def retry_after_s(self) -> float | None:
        """The least time that a front which failed asked for, if any did."""
        asked = [
            failure.error.retry_after_s
            for url, failure in self._failures.items()
            if url not in self._left and failure.error.retry_after_s is not None
        ]
        return min(asked, default=None)

    def error(self, last: KeysteadError) -> KeysteadError:
        """What is raised at the end: ``last`` of one front; of several one that names each."""
        if self._only or len(self._fronts.urls) == 1:
            return last
        said = {url: failure.said for url, failure in self._failures.items()}
        untried = dict.fromkeys(self._fronts.urls, "not tried before the deadline")
        return no_front(untried | said, [failure.error for failure in self._failures.values()])

    def _candidates(self, now_s: float) -> Sequence[str]:
        return (self._only,) if self._only else self._fronts.order(now_s)


def no_front(said: dict[str, str], errors: Sequence[KeysteadError]) -> KeysteadError:
    """One error for several fronts: of the class that all errors share, else ``ServiceError``.

    A refusal says more than silence: if any is no ``ServiceError``, it is of the first such class.
    ``said``: by address, why each front did not do it.
    """
    refusals = [type(error) for error in errors if not isinstance(error, ServiceError)]
    kinds = refusals[:1] or list({type(error) for error in errors})
    kind = kinds[0] if len(kinds) == 1 else ServiceError
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    waits_s = [error.retry_after_s for error in errors if error.retry_after_s is not None]
    found = kind(
        f"none of {len(said)} fronts did it: "
        + "; ".join(f"{url}: {why}" for url, why in said.items()),
        hint=". ".join((*hints, _NEXT_STEP)),
        retry_after_s=min(waits_s, default=None),
    )
    for error in errors:
        if error.request_id:
            found.request_id = error.request_id
            found.add_note(f"request id {error.request_id}")
    return found
