"""What relying parties tell of a key: that what it signed does not verify, or that they know it.

A report cites the record of one use, so that it can be held against what the log says of it; it
counts once per principal and version, so that nobody makes up many. Whoever tells needs a handle
with that operation, which no handle has unless it was asked for.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import msgspec

from keystead.errors import NotFound, PermissionDenied
from keystead.keys.framing.base import Facts, Result
from keystead.keys.model import Key
from keystead.keys.rollout.model import Rollout, Status

__all__ = [
    "Acknowledge",
    "AcknowledgeResult",
    "Cited",
    "Problem",
    "Report",
    "ReportFailure",
    "ReportResult",
    "about_key",
    "acknowledged_name",
    "acknowledged_version",
    "check_cited",
    "check_named",
    "report_name",
    "report_prefix",
    "since_epoch",
]

Problem = Literal["signature", "unknown_key", "algorithm", "other"]


class ReportFailure(Facts, frozen=True, kw_only=True, omit_defaults=True):
    """What the use with the record ``seq`` gave does not verify; in which way.

    ``node``: in whose log, as the receipt has it; empty: in that of the node that is told.
    ``key``: the name of the key that it is told to be of; empty: the handle's.
    """

    seq: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    problem: Problem
    key: str = ""
    node: Annotated[str, msgspec.Meta(max_length=64)] = ""


class ReportResult(Result, frozen=True, kw_only=True):
    """``counted``: it is this principal's first report of the version."""

    version: int
    counted: bool


class Acknowledge(Facts, frozen=True, kw_only=True):
    """The principal holds the public part of the version with this key id; ``key`` as above."""

    kid: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    key: str = ""


class AcknowledgeResult(Result, frozen=True, kw_only=True):
    """Which version that is."""

    version: int


class Report(msgspec.Struct, frozen=True, array_like=True):
    """A principal's last report of a version, as a durable counter holds it.

    ``epoch``: under which it was taken in; ``at_ms``: a help for people.
    """

    seq: int
    at_ms: int
    problem: Problem
    epoch: int


class Cited(msgspec.Struct, frozen=True, kw_only=True):
    """What the log says of the record that a report cites."""

    key_id: str
    version: int
    outcome: str
    operation: str


def about_key(facts: bytes, name: str, operation: str) -> bytes:
    """The facts of a signal, in msgpack, with the name of the key that its path names."""
    kind: type[ReportFailure | Acknowledge]
    kind = ReportFailure if operation == "report" else Acknowledge
    said = msgspec.msgpack.decode(facts, type=kind)
    return msgspec.msgpack.encode(msgspec.structs.replace(said, key=name))


def check_named(said: ReportFailure | Acknowledge, key: Key) -> None:
    """A signal goes to the key of the handle that it is sent with.

    Raises:
        PermissionDenied: its path names another.
    """
    if said.key not in {"", key.name}:
        raise PermissionDenied(
            f"the handle is of key {key.name}, the report is sent to another",
            hint="Send it with a handle of that key that has the operation",
        )


def report_prefix(version: int) -> str:
    """What the counters of all reports of a version begin with."""
    return f"report/{version}/"


def report_name(version: int, principal: str) -> str:
    """The counter of a principal's report; versions are never reused."""
    return report_prefix(version) + principal


def acknowledged_name(version: int, principal: str = "") -> str:
    """The counter of a principal's acknowledgement; without one, what all of them begin with."""
    return f"acknowledged/{version}/{principal}"


def check_cited(cited: Cited | None, key: Key, seq: int) -> int:
    """The version whose use a report cites.

    Raises:
        NotFound: there is no such record, or it is not of a use of this key that was done.
    """
    of_use = (
        cited is not None
        and cited.key_id == key.id
        and cited.outcome == "ok"
        and cited.version > 0
        and cited.operation.startswith(f"{key.purpose!s}.")
        and not cited.operation.endswith((".report", ".acknowledge"))
    )
    if cited is None or not of_use:
        raise NotFound(
            f"record {seq} is not of a use of {key.name}",
            hint="Cite the log index that the receipt of the use names",
        )
    return cited.version


def acknowledged_version(key: Key, kid: str) -> int:
    """The version of a key id.

    Raises:
        NotFound: the key has none of that id.
    """
    for version in key.versions:
        if version.kid == kid:
            return version.number
    raise NotFound(
        f"key {key.name} has no version with this key id",
        hint="Take the `kid` of its JWK Set, or of `keystead key status`",
    )


def since_epoch(rollout: Rollout) -> int:
    """From which epoch on reports count: its first, or that of a person who moved on all the same.

    By epochs, not clocks (M7): one that is set back must not drop what was said since.
    """
    since = rollout.steps[0].epoch
    for before, step in pairwise(rollout.steps):
        after_halt = step.event == "resumed" and before.status is Status.HALTED
        by_hand = step.event == "promote" and step.reason
        if after_halt or by_hand:
            since = step.epoch
    return since
