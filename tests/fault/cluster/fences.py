"""Rules of what was stopped: by epoch over both logs, and by the clients' own clock (I3, I4).

The first needs no clock: a stop takes the next epoch in its own commit, so a record of what it
stopped that bears that epoch or a later one was committed behind it. But a commit that read the
epoch before the stop and ended behind it bears the older one: the server's own commit times tell.
The third is what people expect: whoever begins after a stop was answered is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from fault.cluster.history import Attempt, Outcome, Stop, Window, windows
from fault.cluster.logs import Row, Storage

__all__ = ["fence_findings"]

_PERMANENT = frozenset({"compromise", "destroy", "deactivate"})
_MOVES = _PERMANENT | {"suspend", "resume"}
_PROCESSES = frozenset({"data.unwrap"})
_FOREVER = 1 << 62


class _Span(msgspec.Struct, frozen=True):
    """While something is stopped: from the record of its stop to that of its start, if any."""

    why: str
    begin: Row
    end: Row | None = None

    def breach(self, row: Row) -> str:
        """Why a use was committed in it, empty if it was not."""
        if self.begin.epoch <= row.epoch and (self.end is None or row.epoch < self.end.epoch):
            return f"is of epoch {row.epoch}: {self.why} at {self.begin.epoch}"
        late_us = row.committed_us - self.begin.committed_us
        ended = self.end is not None and row.committed_us >= self.end.committed_us
        if row.committed_us and self.begin.committed_us and late_us > 0 and not ended:
            return f"was committed {late_us} us after this: {self.why} at {self.begin.epoch}"
        return ""


def fence_findings(
    attempts: Sequence[Attempt], stops: Sequence[Stop], storage: Storage
) -> Iterator[str]:
    """All of them."""
    yield from _by_commit(attempts, storage)
    yield from _committed_in_order(storage)
    yield from _by_clock(attempts, stops)
    yield from _grown(windows(attempts), stops)
    yield from _recorded(stops, storage)


def _changes(storage: Storage) -> list[tuple[str, Row]]:
    """The records of changes, in the order of their epochs, over both logs."""
    found = [
        (node, row)
        for node, log in storage.logs.items()
        for row in log.rows
        if row.outcome == "ok"
        and row.op in {"key.move", "handle.revoke", "handle.revoke_all", "handle.issue"}
    ]
    return sorted(found, key=lambda item: (item[1].epoch, item[0], item[1].seq))


def _move_of(row: Row) -> str:
    return str(row.body.get("detail", "")).partition(" ")[0]


class _Stopped:
    """What the logs say was stopped, and from which epoch to which."""

    def __init__(self, storage: Storage) -> None:
        self._keys: dict[str, list[_Span]] = {}
        self._links: dict[str, _Span] = {}
        self._generations: dict[str, list[Row]] = defaultdict(list)
        self._issued: dict[str, int] = {}
        moves: dict[str, list[Row]] = defaultdict(list)
        for _, row in _changes(storage):
            match row.op:
                case "key.move" if _move_of(row) in _MOVES:
                    moves[row.key_id].append(row)
                case "handle.revoke":
                    link = str(row.body.get("link"))
                    self._links.setdefault(link, _Span(f"link {link} was revoked", row))
                case "handle.revoke_all":
                    self._generations[row.key_id].append(row)
                case "handle.issue":
                    self._issued[row.handle_id] = row.epoch
                case _:
                    pass
        for key_id, made in moves.items():
            self._keys[key_id] = list(_spans(made))

    def of(self, row: Row, links: Sequence[str]) -> Iterator[_Span]:
        """All spans of what the use of a record stands on."""
        if row.op not in _PROCESSES:
            yield from self._keys.get(row.key_id, ())
        yield from (self._links[link] for link in links if link in self._links)
        # A handle that was issued in the epoch of a revocation was issued after it.
        begun = self._issued.get(row.handle_id, 0)
        for revoked in self._generations.get(row.key_id, ()):
            if begun < revoked.epoch:
                yield _Span("all handles of its key were revoked", revoked)


def _by_commit(attempts: Sequence[Attempt], storage: Storage) -> Iterator[str]:
    stopped = _Stopped(storage)
    chains = {attempt.target.link: attempt.target.links for attempt in attempts}
    for node, log in storage.logs.items():
        for row in log.rows:
            if not row.done or row.body.get("ack", "durable") != "durable":
                continue
            link = str(row.body.get("link"))
            for span in stopped.of(row, chains.get(link, (link,))):
                if wrong := span.breach(row):
                    yield f"I4 record {row.seq} of {node} ({row.op}) {wrong}"


def _committed_in_order(storage: Storage) -> Iterator[str]:
    """The fence itself: over both logs, no commit bears an older epoch than one before it.

    It finds a commit that overtook a stop of anything, not only of what it used.
    """
    placed = [
        (row.committed_us, row.epoch, node, row.seq)
        for node, log in storage.logs.items()
        for row in log.rows
        if row.committed_us
    ]
    newest, changed_us = 0, 0
    for committed_us, epoch, node, seq in sorted(placed):
        if epoch < newest and committed_us > changed_us:
            yield (
                f"I4 record {seq} of {node} is of epoch {epoch}, and was committed"
                f" {committed_us - changed_us} us after epoch {newest} had been taken"
            )
        if epoch > newest:
            newest, changed_us = epoch, committed_us


def _spans(moves: Sequence[Row]) -> Iterator[_Span]:
    """When a key's version was stopped, of its moves in order; a resumption ends a suspension."""
    ends: list[Row | None] = [*moves[1:], None]
    for row, end in zip(moves, ends, strict=True):
        move = _move_of(row)
        if move in _PERMANENT:
            yield _Span(f"its key had a {move}", row)
        elif move == "suspend":
            yield _Span("its key was suspended", row, end)


def _by_clock(attempts: Sequence[Attempt], stops: Sequence[Stop]) -> Iterator[str]:
    """Whatever began after a stop was answered, and ended before a start was asked for, failed."""
    windows = list(_windows(stops))
    for attempt in attempts:
        if attempt.outcome is not Outcome.OK:
            continue
        stands_on = {attempt.target.key_id, *attempt.target.links}
        for what, target, begin_ns, end_ns in windows:
            if target not in stands_on or (
                attempt.operation in _PROCESSES and what in {"suspend", "deactivate"}
            ):
                continue
            if begin_ns < attempt.invoked_ns and attempt.completed_ns < end_ns:
                late_ms = (attempt.invoked_ns - begin_ns) / 1e6
                yield (
                    f"I4 {attempt.operation} under {attempt.key} was answered by {attempt.front}"
                    f" although it began {late_ms:.1f} ms after {what} of {target} was answered"
                )


def _grown(seen: Sequence[Window], stops: Sequence[Stop]) -> Iterator[str]:
    """Epochs grow in the order that clients saw, over both logs: each commit reads the newest."""
    moved = [(stop.completed_ns, stop.epoch) for stop in stops if stop.outcome is Outcome.OK]
    durable = [
        (window, window.answer.receipt.epoch)
        for window in seen
        if window.answer.receipt is not None and window.answer.receipt.seq is not None
    ]
    told = sorted(moved + [(window.completed_ns, epoch) for window, epoch in durable])
    at, newest = 0, 0
    for window, epoch in sorted(durable, key=lambda item: item[0].invoked_ns):
        while at < len(told) and told[at][0] < window.invoked_ns:
            newest = max(newest, told[at][1])
            at += 1
        if epoch < newest:
            receipt = window.answer.receipt
            yield f"I4 {receipt} is of epoch {epoch}; it began after {newest} had been answered"


def _windows(stops: Sequence[Stop]) -> Iterator[tuple[str, str, int, int]]:
    """(what, target, from, until) in which the target is known to be stopped."""
    by_target: dict[str, list[Stop]] = defaultdict(list)
    for stop in stops:
        by_target[stop.target].append(stop)
    for target, made in by_target.items():
        starts = sorted(stop.invoked_ns for stop in made if stop.what == "resume")
        for stop in made:
            # All handles of a key: whether one was issued before or after, epochs tell, not clocks.
            if stop.what in {"resume", "revoke_key"} or stop.outcome is not Outcome.OK:
                continue
            end_ns = next((at for at in starts if at > stop.invoked_ns), _FOREVER)
            yield (
                stop.what,
                target,
                stop.completed_ns,
                end_ns if stop.what == "suspend" else _FOREVER,
            )


def _recorded(stops: Sequence[Stop], storage: Storage) -> Iterator[str]:
    """I2: a stop that was answered has its record, at the epoch that was answered."""
    recorded: set[tuple[str, str, int]] = set()
    moves: dict[str, list[str]] = defaultdict(list)
    for _, row in _changes(storage):
        match row.op:
            case "key.move":
                recorded.add((_move_of(row), row.key_id, row.epoch))
                moves[row.key_id].append(_move_of(row))
            case "handle.revoke":
                recorded.add(("revoke_handle", str(row.body.get("link")), 0))
            case "handle.revoke_all":
                recorded.add(("revoke_key", row.key_id, row.epoch))
            case _:
                pass
    for stop in stops:
        if stop.outcome is Outcome.OK and (stop.what, stop.target, stop.epoch) not in recorded:
            yield f"I2 {stop.what} of {stop.target} was answered at epoch {stop.epoch}, no record"
    # A change that was sent again under one key is one change: no state is entered twice in a row.
    for key_id, made in moves.items():
        for before, after in pairwise(made):
            if before == after:
                yield f"I6 {key_id} has two records of {after} in a row"
