"""Rules of what uses leave behind: ledgers, counters and budgets, each over both logs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from fault.cluster.history import Attempt, Outcome, Window, windows
from fault.cluster.logs import Row, Storage

__all__ = ["effect_findings"]


def effect_findings(
    attempts: Sequence[Attempt], budgets: Mapping[str, int], storage: Storage
) -> Iterator[str]:
    """All of them."""
    answered = [attempt for attempt in attempts if attempt.outcome is Outcome.OK]
    seen = windows(attempts)
    yield from _ledgers(answered, storage)
    yield from _appended(seen)
    yield from _firmware(seen, storage)
    yield from _budgets(attempts, budgets, storage)
    yield from _wraps(storage)
    yield from _best_effort(answered, storage)


def _done(storage: Storage, operation: str) -> Iterator[Row]:
    for log in storage.logs.values():
        yield from (row for row in log.rows if row.done and row.op == operation)


def _ledgers(answered: Sequence[Attempt], storage: Storage) -> Iterator[str]:
    """One chain over both logs, from its first entry to the head in the counter: no fork.

    An entry that no client was answered is a hole in what they hold, not in the chain: its number
    is taken, and the one after it names a hash that nobody else has.
    """
    held: dict[str, dict[int, bytes]] = defaultdict(dict)
    for attempt in answered:
        if attempt.operation != "ledger.append":
            continue
        told = json.loads(attempt.result.document)
        number, document = attempt.result.sequence, attempt.result.document
        if told["sequence"] != number:
            yield f"ledger entry {told['sequence']} was answered as {number}"
        if held[told["ledger"]].setdefault(number, document) != document:
            yield f"the ledger forks at {number}"
    appended = Counter(row.key_id for row in _done(storage, "ledger.append"))
    for key_id, count in appended.items():
        sequence, head = storage.counters[key_id, "ledger"]
        if sequence != count:
            yield f"the ledger's counter is at {sequence}, {count} entries are recorded"
        yield from _chain(held[key_id], sequence, head)


def _chain(held: Mapping[int, bytes], sequence: int, head: bytes) -> Iterator[str]:
    for number, document in held.items():
        if not 1 <= number <= sequence:
            yield f"ledger entry {number} was answered, the ledger is at {sequence}"
        before = held.get(number - 1)
        expected = hashlib.sha256(before).hexdigest() if before else None
        if number == 1:
            expected = "0" * 64
        if expected is not None and json.loads(document)["previous"] != expected:
            yield f"ledger entry {number} does not follow entry {number - 1}"
    last = held.get(sequence)
    if last is not None and hashlib.sha256(last).digest() != head:
        yield "the ledger's head is not the hash of its last entry"


def _appended(seen: Sequence[Window]) -> Iterator[str]:
    """Entries stand in the order in which clients saw them made, whichever node made them."""
    by_number = {
        window.answer.result.sequence: window
        for window in seen
        if window.answer.operation == "ledger.append"
    }
    yield from (f"the ledger: {wrong}" for wrong in _growth(by_number))


def _firmware(seen: Sequence[Window], storage: Storage) -> Iterator[str]:
    """By name: each version once, in the order of each log and in that which clients saw."""
    signed: dict[tuple[str, str], dict[int, Window]] = defaultdict(dict)
    for window in seen:
        answer = window.answer
        if answer.operation == "firmware.sign":
            told = json.loads(answer.result.manifest)
            first = signed[answer.target.key_id, told["name"]].setdefault(told["version"], window)
            if first is not window:
                yield f"firmware {told['name']} {told['version']} was signed under two keys"
    for (key_id, name), versions in signed.items():
        yield from (f"firmware {name}: {wrong}" for wrong in _growth(versions))
        counter = storage.counters[key_id, f"firmware/{name}"][0]
        if counter < max(versions):
            yield f"firmware {name}: the counter is at {counter}, clients hold {max(versions)}"


def _growth(numbered: Mapping[int, Window]) -> Iterator[str]:
    """Was each number given out after all smaller ones, by the clients' clock and by each log?"""
    ordered = [numbered[number] for number in sorted(numbered)]
    begun_ns = 0  # the latest beginning of all smaller ones
    for window in ordered:
        if window.completed_ns < begun_ns:
            yield "a smaller number was given out after a greater one"
        begun_ns = max(begun_ns, window.invoked_ns)
    places: dict[str, list[int]] = defaultdict(list)
    for window in ordered:
        receipt = window.answer.receipt
        if receipt is not None and receipt.seq is not None:
            places[receipt.node].append(receipt.seq)
    for node, seqs in places.items():
        if seqs != sorted(seqs):
            yield f"numbers do not grow with the log of {node}"


def _budgets(
    attempts: Sequence[Attempt], budgets: Mapping[str, int], storage: Storage
) -> Iterator[str]:
    """I5: a budget counts the records of its link and of all its children, and is not overspent."""
    spenders: dict[str, set[str]] = {budget: {budget} for budget in budgets}
    for attempt in attempts:
        for link in set(attempt.target.links) & spenders.keys():
            spenders[link].add(attempt.target.link)
    recorded = Counter(
        str(row.body.get("link")) for log in storage.logs.values() for row in log.rows if row.done
    )
    for budget, most in budgets.items():
        uses = sum(recorded[link] for link in spenders[budget])
        spent = storage.spent.get(budget, 0)
        if spent != uses or spent > most:
            yield f"I5 budget {budget}: {spent} of {most} spent, {uses} uses recorded"


def _wraps(storage: Storage) -> Iterator[str]:
    """Encryptions of each version are counted as they are recorded."""
    recorded = Counter(f"version/{row.key_id}/{row.version}" for row in _done(storage, "data.wrap"))
    counted = {name: n for name, n in storage.spent.items() if name.startswith("version/")}
    if counted != dict(recorded):
        yield f"I5 encryptions are counted as {counted}, recorded as {dict(recorded)}"


def _best_effort(answered: Sequence[Attempt], storage: Storage) -> Iterator[str]:
    """I2: an answer that did not wait for its record has one, or stands in a gap that was noted."""
    told = Counter(
        attempt.target.key_id
        for attempt in answered
        if attempt.receipt is not None and attempt.receipt.seq is None
    )
    kept: Counter[str] = Counter()
    for log in storage.logs.values():
        for row in log.rows:
            if row.done and row.body.get("ack") == "best_effort":
                kept[row.key_id] += 1
            elif row.op == "reservation.gap":
                kept[row.key_id] += int(row.body["count"])
    for key_id, count in told.items():
        if count > kept[key_id]:
            yield f"I2 {count} best-effort answers of {key_id}, {kept[key_id]} recorded or in gaps"
