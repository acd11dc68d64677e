"""A run of records held against each other, themselves, and what their own bodies say of them.

There are two ways through: :func:`sound` says in one go that nothing is wrong, and only where it
does not say so :func:`examine` goes row by row and names what is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import groupby
from typing import TypeGuard

import msgspec
from msgspec.structs import astuple

from keystead.encoding import DECODE_ERRORS
from keystead.fsck.findings import Finding, differs
from keystead.fsck.rows import COLUMNS, Row
from keystead.translog.entries import ENTRY_BYTES, SALT_BYTES, entry_of, leaf_hash

__all__ = ["FORGET", "Examined", "Named", "examine", "fits", "forgetting", "sound"]

FORGET = "log.forget"
_SEQ, _EPOCH, _OP, _OUTCOME = 0, 1, 3, 4
_SALT, _BODY, _ENTRY, _LEAF = 11, 12, 13, 14
_COMPARED = 11
"""The first columns are those that a body says, too."""
_ERASED = frozenset({"request_id", "handle_id", "principal"})
_RUN = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?", re.ASCII)
_BEFORE_RUNS = ": "
_REFUSED = (TypeError, *DECODE_ERRORS)


class _Said(msgspec.Struct, gc=False):
    """What a body says of its record, in the order of the columns."""

    seq: int
    epoch: int
    time_ms: int
    op: str
    outcome: str
    request: str
    key: str = ""
    version: int = 0
    purpose: str = ""
    handle: str = ""
    principal: str = ""


class _Forgetting(msgspec.Struct):
    detail: str = ""


_DECODER = msgspec.json.Decoder(_Said)
_FORGETTING = msgspec.json.Decoder(_Forgetting)


class Named(msgspec.Struct, frozen=True):
    """Records that one of op ``log.forget`` says were forgotten."""

    first: int
    last: int


class Examined(msgspec.Struct):
    """What is known of a run of records after it was looked at.

    ``entries`` and ``leaves``: one for each sequence, as far as can be told the ones that were
    logged; of a missing record what the published bundle has, or zeros. ``times``: of the rows.
    ``began`` and ``epoch``: that of the first and the last, -1 if that cannot be told.
    ``forgotten``: sequences without a body and a salt.
    """

    entries: list[bytes]
    leaves: list[bytes]
    began: int
    epoch: int
    times: list[int]
    forgotten: list[int] = []
    findings: list[Finding] = []


def sound(rows: Sequence[Row], first: int, epoch: int) -> Examined | None:
    """What is known of records of which nothing is wrong and none is forgotten; else None.

    ``epoch``: of the record before.
    """
    salts, bodies = [row[_SALT] for row in rows], [row[_BODY] for row in rows]
    try:
        entries = [sha256(salt + body).digest() for salt, body in zip(salts, bodies, strict=True)]
        said = [astuple(item) for item in map(_DECODER.decode, bodies)]
    except _REFUSED:
        return None
    leaves = [sha256(b"\0" + entry).digest() for entry in entries]
    epochs = [epoch, *[row[_EPOCH] for row in rows]]
    if (
        [row[_ENTRY] for row in rows] != entries
        or [row[_LEAF] for row in rows] != leaves
        or [row[:_COMPARED] for row in rows] != said
        or [row[_SEQ] for row in rows] != list(range(first, first + len(rows)))
        or epochs != sorted(epochs)
        or {*map(len, salts)} != {SALT_BYTES}
    ):
        return None
    return Examined(entries, leaves, epochs[1], epochs[-1], [row[2] for row in rows])


def examine(
    rows: Sequence[Row], first: int, stop: int, epoch: int, published: Sequence[bytes]
) -> Examined:
    """The same row by row, with a finding for each place that does not fit.

    ``published``: the entries that the bundle of these sequences has, as far as it can be read.
    """
    made = Examined([], [], -1, epoch, [])
    missing: list[int] = []
    grouped = {seq: list(group) for seq, group in groupby(rows, key=lambda row: row[_SEQ])}
    for seq in range(first, stop):
        at = seq - first
        entry = published[at] if at < len(published) else b""
        same = grouped.get(seq, [])
        if not same:
            missing.append(seq)
            made.entries.append(entry)
            made.leaves.append(leaf_hash(entry) if entry else bytes(ENTRY_BYTES))
            continue
        if len(same) > 1:
            made.findings.append(
                differs(f"record {seq}", "one row", f"{len(same)} rows", "a row was written twice")
            )
        _take(made, same[0], entry)
    made.findings += _gaps(missing)
    return made


def fits(row: Row) -> bool:
    """Whether the columns of a record are what its body says, or as a forgotten one has them."""
    if row[_BODY] is None:
        named = dict(zip(COLUMNS, row, strict=True))
        return isinstance(named["key_id"], str) and {named[name] for name in _ERASED} == {""}
    body = _decoded(row[_BODY])
    return body is not None and astuple(body) == row[:_COMPARED]


def _gaps(missing: Sequence[int]) -> Iterator[Finding]:
    """One finding for each run of missing records."""
    for _, run in groupby(enumerate(missing), key=lambda item: item[1] - item[0]):
        seqs = [seq for _, seq in run]
        one = len(seqs) == 1
        yield Finding(
            f"record {seqs[0]}" if one else f"records {seqs[0]} to {seqs[-1]}",
            "a row" if one else f"{len(seqs)} rows",
            "none",
            "a record was removed, or its sequence altered",
        )


def _take(made: Examined, row: Row, published: bytes) -> None:
    """Look at one row; what is gone on with is as much of it as is genuine."""
    seq, epoch, time_ms = row[:3]
    place = f"record {seq}"
    said = _entry_said(row)
    entry, leaf = _genuine(row, said, published)
    made.findings += _hashes(place, row, said, entry, leaf)
    if row[_BODY] is None and row[_SALT] is None:
        made.forgotten.append(seq)
        made.findings += _erased(place, row)
    elif said is not None and leaf_hash(said) == leaf:
        body = _decoded(row[_BODY])
        made.findings += _columns(place, row, body)
        if body is not None:
            epoch, time_ms = body.epoch, body.time_ms
        if body is not None and body.seq != seq and published:
            entry, leaf = published, leaf_hash(published)  # it is a genuine record, of elsewhere
            epoch = time_ms = None
    made.entries.append(entry)
    made.leaves.append(leaf)
    if isinstance(time_ms, int):
        made.times.append(time_ms)
    if isinstance(epoch, int):
        if epoch < made.epoch:
            means = "epochs only grow: a record stands at another's place, or was altered"
            where = f"{place}, column epoch"
            made.findings.append(Finding(where, f"{made.epoch} at least", str(epoch), means))
        made.began = epoch if made.began < 0 else made.began
        made.epoch = max(made.epoch, epoch)


def _entry_said(row: Row) -> bytes | None:
    """The entry that body and salt make, if there are both."""
    salt, body = row[_SALT], row[_BODY]
    if isinstance(salt, bytes) and isinstance(body, bytes) and len(salt) == SALT_BYTES:
        return entry_of(salt, body)
    return None


def _is_hash(value: object) -> TypeGuard[bytes]:
    return isinstance(value, bytes) and len(value) == ENTRY_BYTES


def _genuine(row: Row, said: bytes | None, published: bytes) -> tuple[bytes, bytes]:
    """The entry and the leaf that most of the places where they are written down agree on."""
    entries = [item for item in (said, row[_ENTRY], published) if _is_hash(item)]
    leaves = [leaf_hash(entry) for entry in entries]
    votes = [*leaves, *([row[_LEAF]] if _is_hash(row[_LEAF]) else [])]
    if not votes:
        return b"", bytes(ENTRY_BYTES)
    leaf = Counter(votes).most_common(1)[0][0]
    return next((one for one, its in zip(entries, leaves, strict=True) if its == leaf), b""), leaf


def _hashes(
    place: str, row: Row, said: bytes | None, entry: bytes, leaf: bytes
) -> Iterator[Finding]:
    """Which of body, salt, entry and leaf are not those of the entry and leaf that were logged."""
    salt, body = row[_SALT], row[_BODY]
    if said is None and not (salt is None and body is None):
        if isinstance(body, bytes) and not isinstance(salt, bytes | None):
            yield differs(f"{place}, column salt", "bytes", salt, "the salt was altered")
        elif not isinstance(body, bytes | None):
            yield differs(f"{place}, column body", "bytes", body, "the body was altered")
        else:
            yield differs(
                f"{place}, columns body and salt",
                f"a body and a salt of {SALT_BYTES} bytes, or neither",
                f"{_size(body)} and {_size(salt)}",
                "one was erased or altered: the record can no longer be disclosed",
            )
    elif said is not None and leaf_hash(said) != leaf:
        yield differs(
            f"{place}, columns body and salt",
            entry,
            said,
            "body or salt were altered: they do not hash to the entry that was logged",
        )
    met = row[_ENTRY]
    if not _is_hash(met) or leaf_hash(met) != leaf:
        yield differs(
            f"{place}, column entry",
            entry or f"what hashes to {leaf.hex()}",
            met,
            "the entry was altered: it is not that of body and salt, or of the leaf",
        )
    if row[_LEAF] != leaf:
        yield differs(f"{place}, column leaf", leaf, row[_LEAF], "the leaf was altered")


def _size(value: bytes | None) -> str:
    return "nothing" if value is None else f"{len(value)} bytes"


def _decoded(body: bytes) -> _Said | None:
    try:
        return _DECODER.decode(body)
    except _REFUSED:
        return None


def _columns(place: str, row: Row, body: _Said | None) -> Iterator[Finding]:
    """Which indexed columns are not what the body says, whose hash is right."""
    if body is None:
        yield differs(
            f"{place}, column body", "a record in JSON", row[_BODY], "a record was made up"
        )
        return
    for name, expected, met in zip(COLUMNS, astuple(body), row[:_COMPARED], strict=False):
        if expected != met:
            means = (
                f"the body is record {expected}'s: a record was moved or written twice"
                if name == "seq"
                else "the column was altered: searches answer falsely"
            )
            yield differs(f"{place}, column {name}", expected, met, means)


def _erased(place: str, row: Row) -> Iterator[Finding]:
    for name, met in zip(COLUMNS, row, strict=True):
        if name in _ERASED and met != "":
            yield differs(
                f"{place}, column {name}", "", met, "the record was forgotten, and this was not"
            )


def forgetting(
    rows: Sequence[Row], leaves: Sequence[bytes], first: int
) -> tuple[list[Named], list[Finding]]:
    """What records of op ``log.forget`` name, of those whose bodies are the ones that were logged.

    ``leaves``: those of the sequences from ``first`` on.
    """
    named: list[Named] = []
    findings: list[Finding] = []
    for row in rows:
        if row[_OP] != FORGET or row[_OUTCOME] != "ok":
            continue
        said = _entry_said(row)
        if said is None or leaf_hash(said) != leaves[row[_SEQ] - first]:
            continue
        runs = read_runs(row[_BODY])
        if not runs or any(not one.first <= one.last < row[_SEQ] for one in runs):
            findings.append(
                Finding(
                    f"record {row[_SEQ]}",
                    "the records before it that were forgotten",
                    "others, or none",
                    "a record of forgetting names what it cannot have erased",
                )
            )
        named += runs
    return named, findings


def read_runs(body: bytes) -> list[Named]:
    """The runs that the body of a record of forgetting names; empty if it names none."""
    try:
        detail = _FORGETTING.decode(body).detail
    except DECODE_ERRORS:
        return []
    _, found, text = detail.rpartition(_BEFORE_RUNS)
    runs = [_RUN.fullmatch(run) for run in text.split(",")] if found else []
    return [Named(int(run[1]), int(run[2] or run[1])) for run in runs if run is not None]
