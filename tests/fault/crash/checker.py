"""Holds a registry against what clients hold: reads the file itself, by rules of its own.

Nothing of the vault or its store is imported: the sequence, the hashes, the chain and the counters
are worked out again from the rows, so that a fault of theirs is not shared. Each finding is one
line that names the invariant.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from fault.crash.held import Answer, Created, Moved

__all__ = ["Evidence", "Storage", "findings"]

_USES = frozenset(
    {"jwt.sign", "firmware.sign", "ledger.append", "data.wrap", "data.unwrap", "tls.sign"}
)
_MAC_BYTES = 32


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A record: what is searched by, the parsed body, and the hashes beside it."""

    seq: int
    epoch: int
    op: str
    outcome: str
    key_id: str
    version: int
    handle_id: str
    request_id: str
    raw: bytes
    salt: bytes
    entry: bytes
    leaf: bytes
    body: dict[str, Any]

    @property
    def done(self) -> bool:
        """Whether it is the record of a use that was done."""
        return self.op in _USES and self.outcome == "ok"


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a registry that the rules look at, as of one read transaction."""

    integrity: str
    epoch: int
    rows: list[Row]
    idempotency: dict[tuple[str, str], int]
    spent: dict[str, int]
    counters: dict[tuple[str, str], list[Any]]
    keys: dict[str, int]
    materials: set[tuple[str, int]]
    handles: dict[str, str]

    @staticmethod
    def read(path: Path) -> Storage:
        """Read it all, in one transaction, beside a vault that may be writing."""
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
            db.execute("PRAGMA busy_timeout=10000")
            db.execute("BEGIN")
            return Storage(
                integrity=str(db.execute("PRAGMA quick_check").fetchone()[0]),
                epoch=int(db.execute("SELECT coalesce(max(epoch), 0) FROM epoch").fetchone()[0]),
                rows=list(_rows(db)),
                idempotency={
                    (scope, key): seq
                    for scope, key, seq in db.execute("SELECT scope, key, seq FROM idempotency")
                },
                spent=dict(db.execute("SELECT link, uses FROM spent")),
                counters={
                    (key_id, name): msgspec.msgpack.decode(value[_MAC_BYTES:])
                    for key_id, name, value in db.execute(
                        "SELECT key_id, name, value FROM counters"
                    )
                },
                keys=dict(db.execute("SELECT id, revision FROM objects WHERE kind = 'key'")),
                materials=set(db.execute("SELECT key_id, version FROM materials")),
                handles=dict(db.execute("SELECT id, key_id FROM handles")),
            )


def _rows(db: sqlite3.Connection) -> Iterator[Row]:
    columns = (
        "seq, epoch, op, outcome, key_id, version, handle_id, request_id, body, salt, entry, leaf"
    )
    for values in db.execute(f"SELECT {columns} FROM records ORDER BY seq"):  # noqa: S608  columns are constants
        yield msgspec.convert([*values, json.loads(values[8])], Row)


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What clients hold, taken before storage was read.

    ``settled``: nothing is under way any more, so storage holds nothing but what clients hold.
    ``budgets``: the most uses, by link.
    """

    answers: Sequence[Answer]
    created: Sequence[Created] = ()
    moves: Sequence[Moved] = ()
    budgets: Mapping[str, int] = {}
    settled: bool = False


def findings(evidence: Evidence, storage: Storage) -> list[str]:
    """Every way in which storage and clients disagree; none if all is well."""
    return [
        *_log(storage),
        *_answers(evidence, storage),
        *_effects(evidence, storage),
        *_ledgers(evidence, storage),
        *_firmware(evidence, storage),
        *_budgets(evidence, storage),
        *_keys(evidence, storage),
        *_stops(storage),
    ]


def _log(storage: Storage) -> Iterator[str]:
    """I2, I4, I10: sequence without a gap, epochs that only grow, hashes over the exact bytes."""
    if storage.integrity != "ok":
        yield f"the database is damaged: {storage.integrity}"
    last = 0
    for expected, row in enumerate(storage.rows):
        if row.seq != expected:
            yield f"I2 expected record {expected}, met {row.seq}"
            return
        if row.epoch < last:
            yield f"I4 record {row.seq} is of epoch {row.epoch}, the one before of {last}"
        last = row.epoch
        if hashlib.sha256(row.salt + row.raw).digest() != row.entry:
            yield f"I10 the entry of record {row.seq} is not the hash of its body"
        if hashlib.sha256(b"\0" + row.entry).digest() != row.leaf:
            yield f"I10 the leaf of record {row.seq} is not the hash of its entry"
        said = tuple(
            row.body.get(name, default)
            for name, default in (
                ("seq", None),
                ("epoch", None),
                ("op", None),
                ("outcome", None),
                ("key", ""),
                ("version", 0),
                ("handle", ""),
                ("request", None),
            )
        )
        columns = (row.seq, row.epoch, row.op, row.outcome, row.key_id, row.version)
        if said != (*columns, row.handle_id, row.request_id):
            yield f"I10 the columns of record {row.seq} say other than its body"
    if storage.epoch < last:
        yield f"I4 the registry is at epoch {storage.epoch}, its last record at {last}"


def _answers(evidence: Evidence, storage: Storage) -> Iterator[str]:
    """I2: each answer has exactly its record, and that record commits to what was answered."""
    for answer in evidence.answers:
        receipt = answer.receipt
        name = f"{answer.operation} under {answer.idempotency_key}"
        if receipt.seq is None or receipt.seq >= len(storage.rows):
            yield f"I2 {name} was answered with record {receipt.seq}, there is none"
            continue
        row = storage.rows[receipt.seq]
        expected = (answer.operation, "ok", receipt.request_id, receipt.epoch, receipt.version)
        met = (row.op, row.outcome, row.request_id, row.epoch, row.version)
        if met != expected:
            yield f"I2 {name} was answered as {expected}, its record {receipt.seq} says {met}"
        elif row.body.get("link") != answer.link:
            yield f"I2 {name} came by handle {answer.link}, its record says {row.body.get('link')}"
        elif answer.message is not None and not hmac.compare_digest(
            hmac.digest(row.salt, answer.message, hashlib.sha256).hex(), row.body.get("signed", "")
        ):
            yield f"I2 {name}: record {receipt.seq} commits to something else than was answered"


def _effects(evidence: Evidence, storage: Storage) -> Iterator[str]:
    """I6: each idempotency key has one record, and each record of a use one idempotency key."""
    by_seq = Counter(storage.idempotency.values())
    yield from (f"I6 record {seq} belongs to {n} keys" for seq, n in by_seq.items() if n != 1)
    for (scope, key), seq in storage.idempotency.items():
        row = storage.rows[seq] if seq < len(storage.rows) else None
        if row is None or row.outcome != "ok":
            yield f"I6 idempotency key {key} names record {seq}, which is of no effect"
        elif row.op in _USES and row.body.get("link") != scope:
            yield f"I6 idempotency key {key} names record {seq}, which is another handle's"
    # All clients here send idempotency keys, but for those of `tls`, whose answers may not wait.
    done = {row.seq for row in storage.rows if row.done and row.op != "tls.sign"}
    yield from (
        f"I6 record {seq} is a second effect of a key" for seq in sorted(done - set(by_seq))
    )
    held: dict[tuple[str, str], int | None] = {}
    for answer in evidence.answers:
        at = (answer.link, answer.idempotency_key)
        if held.setdefault(at, answer.receipt.seq) != answer.receipt.seq:
            yield f"I6 {answer.idempotency_key} was answered with two records"
        if storage.idempotency.get(at) != answer.receipt.seq:
            yield f"I6 {answer.idempotency_key} is not kept as it was answered"
    if evidence.settled:
        yield from (
            f"I6 {key} had an effect and no client was answered"
            for at in sorted(storage.idempotency.keys() - held.keys())
            if storage.rows[storage.idempotency[at]].op in _USES
            for key in at[1:]
        )


def _ledgers(evidence: Evidence, storage: Storage) -> Iterator[str]:
    """The chain, from its first entry to the head in the counter: no fork, no hole."""
    documents: dict[str, dict[int, bytes]] = defaultdict(dict)
    for answer in evidence.answers:
        if answer.operation != "ledger.append":
            continue
        told = json.loads(answer.result.document)
        chain = documents[told["ledger"]]
        if chain.setdefault(answer.result.sequence, answer.result.document) != (
            answer.result.document
        ):
            yield f"the ledger forks at {answer.result.sequence}"
        if told["sequence"] != answer.result.sequence:
            yield f"ledger entry {told['sequence']} was answered as {answer.result.sequence}"
    appended = Counter(row.key_id for row in storage.rows if row.done and row.op == "ledger.append")
    for key_id, count in appended.items():
        sequence, head = storage.counters[key_id, "ledger"]
        if sequence != count:
            yield f"the ledger's counter is at {sequence}, {count} entries are recorded"
        yield from _chain(documents[key_id], sequence, head, settled=evidence.settled)


def _chain(
    documents: Mapping[int, bytes], sequence: int, head: bytes, *, settled: bool
) -> Iterator[str]:
    """Answers still under way leave holes; between neighbours that are held the chain must hold."""
    for number, document in documents.items():
        previous = json.loads(document)["previous"]
        before = documents.get(number - 1)
        expected = hashlib.sha256(before).hexdigest() if before else None
        if number == 1:
            expected = "0" * 64
        if expected is not None and previous != expected:
            yield f"ledger entry {number} does not follow entry {number - 1}"
    if settled and sorted(documents) != list(range(1, sequence + 1)):
        yield f"the ledger is at {sequence}, clients hold {len(documents)} entries"
    last = documents.get(sequence)
    if last is not None and hashlib.sha256(last).digest() != head:
        yield "the ledger's head is not the hash of its last entry"


def _firmware(evidence: Evidence, storage: Storage) -> Iterator[str]:
    """By name, versions strictly grow in the order of the log, up to the counter."""
    signed: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for answer in evidence.answers:
        if answer.operation == "firmware.sign" and answer.receipt.seq is not None:
            told = json.loads(answer.result.manifest)
            row = storage.rows[answer.receipt.seq : answer.receipt.seq + 1]
            if row:
                signed[row[0].key_id, told["name"]].append((row[0].seq, told["version"]))
    for (key_id, name), places in signed.items():
        versions = [version for _, version in sorted(set(places))]
        if any(later <= earlier for earlier, later in pairwise(versions)):
            yield f"firmware {name}: versions {versions} do not strictly grow"
        counter = storage.counters[key_id, f"firmware/{name}"][0]
        if counter < versions[-1] or (evidence.settled and counter != versions[-1]):
            yield f"firmware {name}: the counter is at {counter}, clients hold {versions[-1]}"


def _budgets(evidence: Evidence, storage: Storage) -> Iterator[str]:
    """Budgets count records, no more and no fewer, and are never overspent."""
    by_link = Counter(row.body.get("link") for row in storage.rows if row.done)
    for link, most in evidence.budgets.items():
        spent, recorded = storage.spent.get(link, 0), by_link[link]
        if spent != recorded or spent > most:
            yield f"budget {link}: {spent} of {most} spent, {recorded} uses recorded"
    wrapped = Counter(
        f"version/{row.key_id}/{row.version}"
        for row in storage.rows
        if row.done and row.op == "data.wrap"
    )
    counted = {name: n for name, n in storage.spent.items() if name.startswith("version/")}
    if counted != dict(wrapped):
        yield f"encryptions are counted as {counted}, recorded as {dict(wrapped)}"


def _keys(evidence: Evidence, storage: Storage) -> Iterator[str]:
    """No key is lost, nor its material, nor a handle that was issued."""
    for created in evidence.created:
        key = created.key
        if key.id not in storage.keys:
            yield f"key {key.name} was answered as created and is lost"
        for version in key.versions:
            if (key.id, version.number) not in storage.materials:
                yield f"the material of {key.name} version {version.number} is lost"
        if storage.handles.get(created.issued.handle_id) != key.id:
            yield f"handle {created.issued.handle_id} was answered as issued and is lost"
    for moved in evidence.moves:
        if storage.keys.get(moved.key, 0) < moved.revision:
            yield f"key {moved.key} was answered at revision {moved.revision} and is before it"
    yield from (
        f"key {key_id} has no material"
        for key_id in sorted(storage.keys.keys() - {key_id for key_id, _ in storage.materials})
    )


def _stops(storage: Storage) -> Iterator[str]:
    """I3 and I4: between the record of a suspension and of a resumption nothing is done."""
    stopped: set[str] = set()
    for row in storage.rows:
        if row.op == "key.move" and row.outcome == "ok":
            move = stopped.add if row.body["detail"].startswith("suspend") else stopped.discard
            move(row.key_id)
        elif row.done and row.key_id in stopped:
            yield f"I4 record {row.seq} is of a use of a suspended key"
