"""Holds rollouts against the registry's own file: every step, every use of a step, every revision.

Nothing of the rules of rollouts is imported: what may follow what, and who may sign when, is said
here once more. Each finding is one line that names the invariant.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import msgspec

from fault.crash.checker import Row, Storage
from keystead.encoding import length_prefixed

__all__ = ["Histories", "rollout_findings", "walks"]

_FOLLOWS = {
    "": {"publish"},
    "publish": {"canary", "promote", "rolled_back"},
    "canary": {"ramp", "promote", "rolled_back"},
    "ramp": {"ramp", "promote", "rolled_back"},
    "promote": {"drain", "rolled_back"},
    "drain": {"retire", "rolled_back"},
    "retire": {"publish"},
    "rolled_back": {"publish"},
}
"""What a rollout's record may follow, by their events."""
_ROLLOUT = "rollout."
_MADE = "deployment.init"


class Revision(msgspec.Struct, frozen=True, array_like=True):
    """One revision as it is kept; of what is in force, ``seq`` is -2."""

    kind: str
    id: str
    name: str
    revision: int
    epoch: int
    seq: int
    doc: bytes


class Histories(msgspec.Struct, frozen=True, kw_only=True):
    """All revisions, and what is in force, as of one read transaction."""

    kept: list[Revision]
    in_force: list[Revision]

    @staticmethod
    def read(path: Path) -> Histories:
        """Read them, beside a vault that may be writing; records are to be read after it."""
        uri = f"{path.absolute().as_uri()}?mode=ro"
        kept = "SELECT kind, id, name, revision, epoch, seq, doc FROM object_history"
        in_force = "SELECT kind, id, name, revision, epoch, -2, doc FROM objects"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
            db.execute("PRAGMA busy_timeout=10000")
            db.execute("BEGIN")
            return Histories(
                kept=msgspec.convert(
                    list(map(list, db.execute(f"{kept} ORDER BY kind, id, revision"))),
                    list[Revision],
                ),
                in_force=msgspec.convert(list(map(list, db.execute(in_force))), list[Revision]),
            )


def rollout_findings(histories: Histories, storage: Storage, *, overlap_ms: int) -> list[str]:
    """Every way in which steps, uses and revisions disagree; none if all is well.

    ``overlap_ms``: of every plan that is followed here.
    """
    found = list(_histories(histories, storage))
    for key_id in sorted({row.key_id for row in _steps(storage)}):
        of_key = [row for row in storage.rows if row.key_id == key_id and row.outcome == "ok"]
        found += _Walk(overlap_ms).findings(of_key)
    return found


def walks(storage: Storage, key_id: str) -> list[list[str]]:
    """The events of each rollout of a key, from its publication on."""
    found: list[list[str]] = []
    for row in _steps(storage):
        if row.key_id == key_id:
            event = row.op.removeprefix(_ROLLOUT)
            if event == "publish":
                found.append([])
            found[-1].append(event)
    return found


def _steps(storage: Storage) -> Iterator[Row]:
    return (row for row in storage.rows if row.op.startswith(_ROLLOUT) and row.outcome == "ok")


def _histories(histories: Histories, storage: Storage) -> Iterator[str]:
    """Each object has every revision from its first, and its record commits to it."""
    objects: dict[tuple[str, str], list[Revision]] = defaultdict(list)
    changes: dict[int, list[Revision]] = defaultdict(list)
    for item in histories.kept:
        objects[item.kind, item.id].append(item)
        changes[item.seq].append(item)
    for (kind, _), revisions in objects.items():
        what = f"{kind} {revisions[0].name}"
        numbers = [item.revision for item in revisions]
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"the history of {what} has the revisions {numbers}"
        if any(later.epoch <= earlier.epoch for earlier, later in pairwise(revisions)):
            yield f"I4 the epochs of {what} do not grow: {[item.epoch for item in revisions]}"
    in_force = {(item.kind, item.id): item for item in histories.in_force}
    if in_force.keys() != objects.keys():
        yield f"{len(in_force)} objects are in force, {len(objects)} have a history"
    for at in in_force.keys() & objects.keys():
        if msgspec.structs.replace(in_force[at], seq=objects[at][-1].seq) != objects[at][-1]:
            yield f"what is in force of {at[0]} {in_force[at].name} is not its last revision"
    for seq, revisions in changes.items():
        yield from _recorded(storage.rows[seq : seq + 1], revisions)


def _recorded(row: Sequence[Row], revisions: Sequence[Revision]) -> Iterator[str]:
    said = [f"{item.kind} {item.name} {item.revision}" for item in revisions]
    if not row:
        yield f"I2 {said} name a record that is not there"
        return
    if any(item.epoch != row[0].epoch for item in revisions):
        yield f"I4 {said} and their record {row[0].seq} are of different epochs"
    if row[0].op == _MADE:  # it tells of the deployment, and commits to no row
        return
    message = length_prefixed(
        part
        for item in sorted(revisions, key=lambda item: item.kind)
        for part in (
            item.kind.encode(),
            item.id.encode(),
            item.name.encode(),
            f"{item.revision}/{item.epoch}".encode(),
            item.doc,
        )
    )
    committed = hmac.digest(row[0].salt, message, hashlib.sha256).hex()
    if not hmac.compare_digest(committed, str(row[0].body.get("signed", ""))):
        yield f"I10 record {row[0].seq} does not commit to {said}"


class _Walk:
    """One key through its rollouts, record by record: which version may do what is done."""

    def __init__(self, overlap_ms: int) -> None:
        self._overlap_ms = overlap_ms
        self._event = ""
        self._previous = self._next = 1
        self._published_ms = 0
        self._over: set[str] = set()
        """Contexts that the new version has signed for."""

    def findings(self, rows: Sequence[Row]) -> Iterator[str]:
        for row in rows:
            if row.op.startswith(_ROLLOUT):
                yield from self._step(row)
            elif row.done:
                yield from self._use(row)

    def _step(self, row: Row) -> Iterator[str]:
        event = row.op.removeprefix(_ROLLOUT)
        if event not in _FOLLOWS[self._event]:
            yield f"record {row.seq} is of {event}, after {self._event or 'nothing'}"
        if event == "publish":
            if self._event == "retire":
                self._previous = self._next
            if row.version <= self._next:
                yield f"record {row.seq} publishes version {row.version}, after {self._next}"
            self._next, self._published_ms = row.version, row.body["time_ms"]
            self._over = set()
        elif row.version != self._next:
            yield f"record {row.seq} moves version {row.version}, published was {self._next}"
        self._event = event

    def _use(self, row: Row) -> Iterator[str]:
        match self._event:
            case "canary" | "ramp":
                allowed = {self._previous, self._next}
            case "promote" | "drain" | "retire":
                allowed = {self._next}
            case _:
                allowed = {self._previous}
        if row.version not in allowed:
            yield f"I3 record {row.seq} is of version {row.version}, expected {allowed}"
        context = row.body["context"]
        if row.version == self._next != self._previous:
            self._over.add(context)
            stood_ms = row.body["time_ms"] - self._published_ms
            if stood_ms < self._overlap_ms:
                yield f"I12 record {row.seq} is of a version that stood published {stood_ms} ms"
        elif context in self._over and self._event in {"canary", "ramp"}:
            yield f"record {row.seq}: {context} went back within the rollout"
