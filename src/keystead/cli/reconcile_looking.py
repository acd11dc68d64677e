"""Which records are of which messages: asked of the node in requests that it takes, until it knows.

A record is looked for where it nearly always is, in the second that the artefact names; then in all
the time that the artefact leaves. So thousands of tokens cost a few records each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from keystead import limits
from keystead.keys.artefacts import Artefact, Window
from keystead.keys.commands import Reconciled, SeenMessage

__all__ = ["Answer", "Look", "look_up"]

_MEMBERS_BYTES = 96
"""A message's JSON beside its base64: two times and the names of the members."""
_BODY_BYTES = limits.LOG_RECONCILE_BODY_BYTES_MAX - 1024
_GAP_MS = 60_000
"""Messages that lie further apart go into requests of their own: what lies between is not read."""

Look = Callable[[Sequence[SeenMessage], int, int | None], Reconciled]
"""One request: the messages, and between which sequences to look."""


class Answer(msgspec.Struct, frozen=True):
    """``seq``: the record; without one, whether a forgotten record may be it."""

    seq: int | None
    forgotten: bool = False


class _Item(msgspec.Struct, frozen=True):
    place: int
    message: bytes
    window: Window | None

    @property
    def body_bytes(self) -> int:
        return math.ceil(len(self.message) / 3) * 4 + _MEMBERS_BYTES

    def seen(self) -> SeenMessage:
        since_ms, until_ms = (
            (None, None) if self.window is None else (self.window.since_ms, self.window.until_ms)
        )
        return SeenMessage(message=self.message, since_ms=since_ms, until_ms=until_ms)


def look_up(
    artefacts: Sequence[Artefact], look: Look, tell: Callable[[int, Reconciled], None]
) -> list[Answer]:
    """An answer for each artefact of one version; ``tell``: how many have one, after each request.

    Raises whatever ``look`` raises.
    """
    rounds = _Rounds(look, tell)
    rounds.run(
        _Item(place, one.message, one.close)
        for place, one in enumerate(artefacts)
        if one.close is not None
    )
    rounds.forgotten.clear()  # the second round looks there again
    rounds.run(
        _Item(place, one.message, one.wide)
        for place, one in enumerate(artefacts)
        if place not in rounds.found
    )
    return [
        Answer(rounds.found.get(place), place in rounds.forgotten)
        for place in range(len(artefacts))
    ]


class _Rounds:
    def __init__(self, look: Look, tell: Callable[[int, Reconciled], None]) -> None:
        self._look = look
        self._tell = tell
        self._last = -1
        self.found: dict[int, int] = {}
        self.forgotten: set[int] = set()

    def run(self, items: Iterable[_Item]) -> None:
        for batch in _batches(items):
            self._ask(batch)

    def _ask(self, batch: list[_Item]) -> None:
        """Messages mostly come in the order of their records: begin behind the last one found."""
        spans: list[tuple[int, int | None]] = [(self._last, None)]
        if self._last >= 0:
            spans.append((-1, self._last + 1))
        for after, before in spans:
            at = after
            while left := [item for item in batch if item.place not in self.found]:
                told = self._look([item.seen() for item in left], at, before)
                for record in told.found:
                    self.found[left[record.place].place] = record.seq
                    self._last = record.seq
                self.forgotten.update(left[place].place for place in told.forgotten)
                self._tell(len(self.found), told)
                if told.end:
                    break
                at = told.next


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """In order of time, those without one first and apart; each fits one request."""
    batch: list[_Item] = []
    room, until_ms = _BODY_BYTES, 0
    for item in sorted(items, key=_since_ms):
        apart = bool(batch) and (batch[0].window is None) != (item.window is None)
        far = item.window is not None and item.window.since_ms > until_ms + _GAP_MS
        full = len(batch) >= limits.LOG_RECONCILE_ITEMS_MAX or item.body_bytes > room
        if batch and (apart or far or full):
            yield batch
            batch, room, until_ms = [], _BODY_BYTES, 0
        batch.append(item)
        room -= item.body_bytes
        if item.window is not None:
            until_ms = max(until_ms, item.window.until_ms)
    if batch:
        yield batch


def _since_ms(item: _Item) -> int:
    return -1 if item.window is None else item.window.since_ms
