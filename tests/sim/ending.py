"""What must hold once all is healed and every client has its answer."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator

import msgspec

from keystead.frames.messages import Done
from keystead.keys.framing.ledger import LedgerResult
from keystead.testing.memory_store import Log, Tables
from sim.clients import Asking, Office
from sim.nodes import Machine
from sim.oracle import Oracle
from sim.prepared import IMAGES, LONG_AGO
from sim.requests import OPERATIONS

__all__ = ["endings"]


def endings(
    oracle: Oracle, office: Office, machines: list[Machine], tables: Tables
) -> Iterator[str]:
    """Findings that only the end shows."""
    yield from _progress(office, machines, tables)
    if not oracle.behind and any(key == LONG_AGO for _, key in tables.idempotency):
        yield "I11 an outcome that expired before the run is still kept: nobody prunes"
    yield from _effects(oracle, office)
    yield from _best_effort(oracle, machines)
    yield from _ledger(oracle, office)
    yield from _firmware(oracle, office)
    yield from _logs(oracle, tables)


def _progress(office: Office, machines: list[Machine], tables: Tables) -> Iterator[str]:
    """Nobody waits for ever, and every node holds to the epoch that is committed."""
    for asking in office.unfinished():
        said = [getattr(answer, "code", "ok") for _, answer in asking.answers[-3:]]
        tries = f"{asking.tries} tries, last {said}"
        yield f"I11 op {asking.op.number} {asking.op.what} has no answer after {tries}"
    epoch = tables.epoch.epoch if tables.epoch else 0
    for machine in machines:
        services = machine.services
        if services is None:
            yield f"I11 {machine.name} does not run after all is healed"
            continue
        if services.standing.snapshot.epoch != epoch:
            yield f"I4 {machine.name} holds to epoch {services.standing.snapshot.epoch} of {epoch}"
        if services.following is not None and services.following.confirmed != epoch:
            yield f"I4 {machine.name} confirms epoch {services.following.confirmed} of {epoch}"
        if services.standing.reasons():
            yield f"I11 {machine.name} is not ready: {services.standing.reasons()}"


def _effects(oracle: Oracle, office: Office) -> Iterator[str]:
    """I6: one effect a request, and every answer to it tells of that one."""
    by_key: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for number, places in oracle.effects.items():
        asking = office.asking[number]
        if asking.op.once:
            scope = asking.token.chain_id if asking.op.what in OPERATIONS and asking.token else ""
            by_key[scope, asking.op.once] += places
    gone = {once for _, once in oracle.forgotten}
    for (_, once), places in sorted(by_key.items(), key=lambda item: item[0][1]):
        if len(places) > 1 and once not in gone:
            yield f"I6 {once} had {len(places)} effects: {places}"
    for asking in office.asking.values():
        if not asking.op.once or asking.op.once in gone:
            continue
        told = {
            (answer.receipt.node, answer.receipt.seq)
            for _, answer in asking.answers
            if isinstance(answer, Done) and answer.receipt is not None
        }
        if len(told) > 1:
            yield f"I6 op {asking.op.number} was answered with records {sorted(map(str, told))}"
        if asking.op.what in OPERATIONS:
            yield from _secret_kept(asking)


def _secret_kept(asking: Asking) -> Iterator[str]:
    """What one request gave is the same each time it is given."""
    results = {answer.result for _, answer in asking.answers if isinstance(answer, Done)}
    if len(results) > 1:
        yield f"I6 op {asking.op.number} {asking.op.what} was answered in {len(results)} ways"


def _best_effort(oracle: Oracle, machines: list[Machine]) -> Iterator[str]:
    """I2: every answer without a record has one by now, or a gap stands for it."""
    for machine in machines:
        for node, key_id in sorted(oracle.released):
            if node == machine.name and oracle.unrecorded(node, key_id) > 0:
                yield f"I2 {node} lost {oracle.unrecorded(node, key_id)} records, without a gap"


def _ledger(oracle: Oracle, office: Office) -> Iterator[str]:
    """One chain: each entry is where its record is in the order of commits, and names the last."""
    order = [number for number, op in oracle.in_order if op == "ledger.append"]
    place = {number: at for at, number in enumerate(order, start=1)}
    documents: dict[int, bytes] = {}
    for asking in office.asking.values():
        for _, answer in asking.answers:
            if asking.op.what != "ledger" or not isinstance(answer, Done):
                continue
            result = msgspec.msgpack.decode(answer.result, type=LedgerResult)
            told = json.loads(result.document)
            if place.get(asking.op.number) != told["sequence"]:
                yield f"I6 op {asking.op.number} is entry {told['sequence']}, not in its order"
            if documents.setdefault(told["sequence"], result.document) != result.document:
                yield f"I6 the ledger forks at {told['sequence']}"
    for sequence, document in sorted(documents.items()):
        before = documents.get(sequence - 1, b"")
        previous = json.loads(document)["previous"]
        if before and previous != hashlib.sha256(before).hexdigest():
            yield f"I6 ledger entry {sequence} does not follow entry {sequence - 1}"


def _firmware(oracle: Oracle, office: Office) -> Iterator[str]:
    """By image, versions strictly grow in the order of commits."""
    last: Counter[str] = Counter()
    for number, op in oracle.in_order:
        if op != "firmware.sign":
            continue
        image, version = IMAGES[number % len(IMAGES)], office.asking[number].op.value
        if version <= last[image]:
            yield f"I6 {image} {version} was signed after {last[image]}"
        last[image] = max(last[image], version)


def _logs(oracle: Oracle, tables: Tables) -> Iterator[str]:
    """I10: what was appended is still there, all of it, as it was."""
    for node, rows in oracle.rows.items():
        records = tables.logs.get(node, Log()).records
        if len(records) != len(rows) or any(
            records.get(seq) is not row for seq, (row, _) in enumerate(rows)
        ):
            yield f"I10 the log of {node} is not what was appended to it"
