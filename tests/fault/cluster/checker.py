"""Decides after a run, as Jepsen does: all that clients saw against all that the logs hold.

Pure: a history and what storage holds, in; findings, out, each one line that names its invariant.
The rules of single logs and single answers are here; those of what was stopped in ``fences``, those
of ledgers, counters and budgets in ``effects``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from fault.cluster.effects import effect_findings
from fault.cluster.fences import fence_findings
from fault.cluster.history import Attempt, Outcome, Stop
from fault.cluster.logs import Log, Place, Storage

__all__ = ["Evidence", "findings"]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What clients saw. ``budgets``: the most uses, by the link that they are counted under."""

    attempts: Sequence[Attempt]
    stops: Sequence[Stop] = ()
    budgets: Mapping[str, int] = {}


def findings(evidence: Evidence, storage: Storage) -> list[str]:
    """Every way in which storage and clients disagree; none if all is well.

    Nothing is under way any more: every client has ended, and every node was heard since.
    """
    found: list[str] = []
    for node, log in storage.logs.items():
        found += _log(node, log)
    return [
        *found,
        *_epochs(storage),
        *_searched(storage),
        *_answers(evidence, storage),
        *_once(evidence, storage),
        *_outcomes(evidence, storage),
        *effect_findings(evidence.attempts, evidence.budgets, storage),
        *fence_findings(evidence.attempts, evidence.stops, storage),
    ]


# --- each log by itself --------------------------------------------------------------------------


def _log(node: str, log: Log) -> Iterator[str]:
    """I4 and I10: no gap, epochs that only grow, hashes over the exact bytes, one tree."""
    last = 0
    for expected, row in enumerate(log.rows):
        name = f"record {row.seq} of {node}"
        if row.seq != expected:
            yield f"I2 expected record {expected} of {node}, met {row.seq}"
            return
        if row.epoch < last:
            yield f"I4 {name} is of epoch {row.epoch}, the one before of {last}"
        last = row.epoch
        if hashlib.sha256(row.salt + row.raw).digest() != row.entry:
            yield f"I10 the entry of {name} is not the hash of its body"
        if hashlib.sha256(b"\0" + row.entry).digest() != row.leaf:
            yield f"I10 the leaf of {name} is not the hash of its entry"
        body = row.body
        said = [body.get(name, default) for name, default in _SAID]
        columns = [node, row.seq, row.epoch, row.op, row.outcome, row.key_id, row.version]
        if said != [*columns, row.handle_id, row.request_id]:
            yield f"I10 the columns of {name} say other than its body"
    roots = dict(_roots([row.leaf for row in log.rows], {size for size, _ in log.checkpoints}))
    for size, root in log.checkpoints:
        if roots.get(size) != root:
            yield f"I10 the checkpoint of {node} at {size} is not over its records"


_SAID: tuple[tuple[str, str | int | None], ...] = (
    ("node", None),
    ("seq", None),
    ("epoch", None),
    ("op", None),
    ("outcome", None),
    ("key", ""),
    ("version", 0),
    ("handle", ""),
    ("request", None),
)
"""Members of a body that are columns too, in their order, and what their absence stands for."""


def _roots(leaves: Sequence[bytes], sizes: set[int]) -> Iterator[tuple[int, bytes]]:
    """The tree's root (RFC 9162 section 2.1.1) at each size that is asked for."""
    peaks: list[tuple[int, bytes]] = []  # height and hash, highest first
    for size, leaf in enumerate(leaves, start=1):
        height, node = 0, leaf
        while peaks and peaks[-1][0] == height:
            node = hashlib.sha256(b"\1" + peaks.pop()[1] + node).digest()
            height += 1
        peaks.append((height, node))
        if size in sizes:
            root = peaks[-1][1]
            for _, peak in reversed(peaks[:-1]):
                root = hashlib.sha256(b"\1" + peak + root).digest()
            yield size, root


def _epochs(storage: Storage) -> Iterator[str]:
    """I4: each epoch was taken by one change, in one log, and the registry has reached them all."""
    taken: dict[int, Place] = {}
    for node, log in storage.logs.items():
        for row in log.rows:
            if row.epoch > storage.epoch:
                yield f"I4 the registry is at {storage.epoch}, record {row.seq} of {node} beyond"
            if row.op not in _TAKES_EPOCH or row.outcome != "ok":
                continue
            other = taken.setdefault(row.epoch, (node, row.seq))
            if other != (node, row.seq):
                yield f"I4 epoch {row.epoch} was taken by {other} and by {(node, row.seq)}"


_TAKES_EPOCH = frozenset({"key.create", "key.move", "handle.revoke", "handle.revoke_all"})


def _searched(storage: Storage) -> Iterator[str]:
    """What a node's front finds in its log is what the database holds of it."""
    for node, told in storage.found.items():
        rows = storage.logs[node].rows if node in storage.logs else []
        held = [(row.seq, row.epoch, row.outcome, row.request_id) for row in rows]
        missing = len(set(held[: len(told)]) ^ set(told))
        if missing:
            yield f"the log of {node} is found to differ from its rows in {missing} places"


# --- answers -------------------------------------------------------------------------------------


def _answers(evidence: Evidence, storage: Storage) -> Iterator[str]:
    """I2: each answer has its record in the log it names, which commits to what was answered."""
    for attempt in evidence.attempts:
        receipt = attempt.receipt
        if attempt.outcome is not Outcome.OK or receipt is None or receipt.seq is None:
            continue
        name = f"{attempt.operation} under {attempt.key or receipt.request_id}"
        log = storage.logs.get(receipt.node)
        if log is None or receipt.seq >= len(log.rows):
            yield f"I2 {name} was answered with record {receipt.seq} of {receipt.node}: none"
            continue
        row = log.rows[receipt.seq]
        expected = (attempt.operation, "ok", receipt.request_id, receipt.epoch, receipt.version)
        met = (row.op, row.outcome, row.request_id, row.epoch, row.version)
        target = attempt.target
        if met != expected:
            yield f"I2 {name} was answered as {expected}, its record says {met}"
        elif (row.key_id, row.handle_id) != (target.key_id, target.handle_id) or (
            row.body.get("link") != target.link
        ):
            yield f"I2 {name}: its record is of another key or handle"
        elif attempt.message is not None and not hmac.compare_digest(
            hmac.digest(row.salt, attempt.message, hashlib.sha256).hex(),
            row.body.get("signed", ""),
        ):
            yield f"I2 {name}: its record commits to something else than was answered"


def _once(evidence: Evidence, storage: Storage) -> Iterator[str]:
    """I6: one record a key over both logs, and one key a record; all answers name the same."""
    held: dict[tuple[str, str], Place] = {}
    for attempt in evidence.attempts:
        receipt, key = attempt.receipt, attempt.key
        if attempt.outcome is not Outcome.OK or receipt is None or receipt.seq is None or not key:
            continue
        place, at = (receipt.node, receipt.seq), (attempt.target.link, key)
        if held.setdefault(at, place) != place:
            yield f"I6 {key} was answered with {held[at]} and with {place}"
        kept = storage.idempotency.get(at)
        if kept != place:
            yield f"I6 {key} was answered with {place}, kept is {kept}"
    by_place = Counter(storage.idempotency.values())
    yield from (f"I6 record {place} belongs to {n} keys" for place, n in by_place.items() if n > 1)
    for (scope, key), place in storage.idempotency.items():
        row = storage.row(place)
        if row is None or row.outcome != "ok":
            yield f"I6 {key} is kept with {place}, which is of no effect"
        elif row.done and row.body.get("link") != scope:
            yield f"I6 {key} is kept with {place}, which is another handle's"


def _outcomes(evidence: Evidence, storage: Storage) -> Iterator[str]:
    """I6: every effect was asked for, once; what was only ever refused had none."""
    outcomes: dict[tuple[str, str], set[Outcome]] = defaultdict(set)
    plain: Counter[str] = Counter()  # requests without a key that may have had an effect, by link
    for attempt in evidence.attempts:
        if attempt.key:
            outcomes[attempt.target.link, attempt.key].add(attempt.outcome)
        else:
            plain[attempt.target.link] += attempt.outcome is not Outcome.REFUSED
    for at, met in outcomes.items():
        if met == {Outcome.REFUSED} and at in storage.idempotency:
            yield f"I6 {at[1]} was only ever refused, and has record {storage.idempotency[at]}"
    links = {link for link, _ in outcomes}
    for (link, key), place in storage.idempotency.items():
        row = storage.row(place)
        if row is not None and row.done and link in links and (link, key) not in outcomes:
            yield f"I6 {key} has record {place}, and nobody asked for it"
    kept = set(storage.idempotency.values())
    beside = Counter(
        str(row.body.get("link"))
        for node, log in storage.logs.items()
        for row in log.rows
        if row.done and (node, row.seq) not in kept
    )
    yield from (
        f"I6 {count} records by {link} are of no key, {plain[link]} were asked for without one"
        for link, count in beside.items()
        if (link in links or link in plain) and count > plain[link]
    )
