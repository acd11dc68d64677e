"""Revocations, decided: which keys are meant, what becomes of each, and what may have been before.

Pure: from the keys as they are to the keys as they shall be; the vault commits all of it at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from keystead import limits
from keystead.errors import KeyStateError, LimitExceeded, MalformedRequest, NotFound
from keystead.keys.administration import moved, new_generation
from keystead.keys.commands import MoveVersion
from keystead.keys.lifecycle import TRANSITIONS, Move, State
from keystead.keys.model import Key, check_labels, check_name
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.gates import Signals
from keystead.keys.rollout.machine import decide
from keystead.keys.rollout.model import Rotation, Stage, Status, live
from keystead.keys.rollout.table import Asked, Wish
from keystead.keys.stops import Choice, StoppedKey

__all__ = [
    "Place",
    "Stopped",
    "check_choice",
    "check_link",
    "check_some",
    "chosen",
    "is_link",
    "older",
    "stop",
    "stopped_key",
    "words",
]

_LINK_CHARS = 32
_LINK = re.compile(r"[0-9a-f]{32}\Z")
_HANDLE = re.compile(r"h[0-9a-f]{24}\Z")
_MOVES = {"suspended": Move.SUSPEND, "compromised": Move.COMPROMISE}


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """A key after a revocation. ``versions``: those that changed. ``rotation``: if it changed, too.

    ``paused``: the number of the rollout that was paused; 0: none.
    """

    key: Key
    versions: tuple[int, ...] = ()
    rotation: Rotation | None = None
    paused: int = 0


def check_choice(choice: Choice) -> None:
    """Hold a choice to its form, before anything is looked for.

    Raises:
        MalformedRequest: not exactly one way of choosing, or members that do not go together.
    """
    ways = [
        name
        for name, given in (
            ("key", choice.key is not None),
            ("handle", choice.handle is not None),
            ("purpose", choice.purpose is not None),
            ("labels", bool(choice.labels)),
        )
        if given
    ]
    if choice.tenant is not None and not set(ways) & {"purpose", "labels"}:
        ways.append("tenant")
    if len(ways) != 1:
        raise MalformedRequest(
            f"expected one way of choosing what is revoked, met {', '.join(ways) or 'none'}",
            hint="A key, a handle, a purpose, a tenant or labels; a tenant also narrows a purpose"
            " or labels",
        )
    _check_names(choice)
    if choice.what == "handles":
        if choice.state is not None or choice.version is not None:
            raise MalformedRequest("expected neither as nor version: handles are revoked for good")
        return
    if choice.handle is not None:
        raise MalformedRequest("expected what to be handles: a handle has no versions")
    if choice.state is None:
        raise MalformedRequest(
            "expected as: suspended or compromised",
            hint="Suspended versions can be resumed, compromised ones never",
        )
    if choice.version is not None and choice.key is None:
        raise MalformedRequest("expected a key with the version")


def _check_names(choice: Choice) -> None:
    if choice.tenant is not None:
        check_name(choice.tenant, "tenant")
    check_labels(choice.labels)
    if choice.handle is not None and not _HANDLE.match(choice.handle):
        check_link(choice.handle)


def check_link(text: str) -> None:
    """Links are named by the first 16 bytes of a hash.

    Raises:
        MalformedRequest: no id of a link.
    """
    if not is_link(text):
        raise MalformedRequest(
            f"expected a link id of {_LINK_CHARS} hex digits",
            hint="`keystead handle inspect` and the record of a use show it; a handle's own id is h"
            " and 24 hex digits",
        )


def is_link(text: str) -> bool:
    """Whether it is the id of a link of a handle's chain, not that of a handle."""
    return _LINK.match(text) is not None


def chosen(choice: Choice, keys: Iterable[Key]) -> list[Key]:
    """The keys that are meant, in order of their names; the choice has been held to its form.

    The keys of nodes' own logs only where they are named, or their purpose is.

    Raises:
        NotFound: there are none.
        LimitExceeded: more than one commit may change.
    """
    found = sorted((key for key in keys if _is_meant(choice, key)), key=lambda key: key.name)
    if not found:
        raise NotFound("no key is of what was chosen", hint="`keystead key list` shows all keys")
    if len(found) > limits.REVOKE_KEYS_MAX:
        raise LimitExceeded(
            f"{len(found)} keys are of what was chosen, and one revocation stops"
            f" {limits.REVOKE_KEYS_MAX} at most; nothing was changed",
            hint="Narrow it by --tenant, --purpose or --label; or stop a whole tenant at once:"
            " `keystead emergency stop`",
        )
    return found


def _is_meant(choice: Choice, key: Key) -> bool:
    if choice.key is not None:
        return key.name == choice.key
    if choice.tenant not in (None, key.tenant):
        return False
    if choice.purpose is not None:
        return key.purpose is choice.purpose
    if key.purpose is Purpose.AUDIT:
        return False
    return choice.labels.items() <= key.labels.items()


def stop(choice: Choice, key: Key, rotation: Rotation | None, asked: Asked) -> Stopped | None:
    """What becomes of one chosen key; None: nothing of it could be stopped any more.

    ``asked``: by whom, why, when, and under which epoch it will be; what it wishes does not matter.
    A rollout whose next version has not been in use is paused with the suspended versions: it would
    start the key again by itself.

    Raises:
        NotFound: it has no such version. KeyStateError: that version cannot become so.
    """
    if choice.what == "handles":
        return Stopped(key=new_generation(key, epoch=asked.epoch))
    move = _MOVES[choice.state or "compromised"]
    if choice.version is None and not any((v.state, move) in TRANSITIONS for v in key.versions):
        return _paused(choice, Stopped(key=key), rotation, asked)
    command = MoveVersion(name=key.name, move=move, version=choice.version, reason=asked.reason)
    after, versions = moved(key, command, epoch=asked.epoch)
    stopped = Stopped(key=after, versions=versions)
    return _paused(choice, stopped, rotation, asked) or stopped


def _paused(
    choice: Choice, stopped: Stopped, rotation: Rotation | None, asked: Asked
) -> Stopped | None:
    """The key with its rollout paused; None: there is none that would start it again."""
    rollout = live(rotation)
    if choice.state != "suspended" or choice.version is not None:
        return None
    if rotation is None or rollout is None or rollout.status is not Status.RUNNING:
        return None
    waits = stopped.key.version(rollout.next).state is State.PRE_ACTIVATION
    if rollout.stage is not Stage.PUBLISH or not waits:
        return None  # both its versions were in use, and are stopped: it halts by itself
    pausing = msgspec.structs.replace(asked, wish=Wish.PAUSE)
    decision = decide(rotation, stopped.key, pausing, Signals())
    if decision is None:
        return None
    revision = stopped.key.revision + (not stopped.versions)
    return Stopped(
        key=msgspec.structs.replace(decision.key, revision=revision),
        versions=stopped.versions,
        rotation=decision.rotation,
        paused=rollout.number,
    )


def check_some(choice: Choice, stops: Iterable[Stopped]) -> None:
    """A revocation that stops nothing is told, not recorded.

    Raises:
        KeyStateError: everything that was chosen is stopped already.
    """
    if not any(True for _ in stops):
        raise KeyStateError(
            f"no version of what was chosen can become {choice.state}: all are stopped already",
            hint="`keystead key show` shows the states; a destroyed version stays so",
        )


def stopped_key(after: Key, versions: tuple[int, ...], *, paused: int = 0) -> StoppedKey:
    """A key as the answer tells it."""
    return StoppedKey(
        id=after.id,
        name=after.name,
        tenant=after.tenant,
        purpose=str(after.purpose),
        ack=after.policy.ack,
        generation=after.generation,
        versions=versions,
        states={version.number: str(version.state) for version in after.versions},
        rollout=paused,
    )


def words(choice: Choice, stopped: Stopped) -> str:
    """What was stopped of a key, and how it was chosen, as its record says it."""
    if choice.what == "handles":
        what = f"all handles of generation {stopped.key.generation - 1} and before"
    else:
        numbers = ", ".join(map(str, stopped.versions))
        what = f"version {numbers} {choice.state}" if numbers else "no version was active"
    if stopped.paused:
        what += f"; rollout {stopped.paused} paused"
    return f"{what}; chosen by {_by(choice)}"


def _by(choice: Choice) -> str:
    if choice.key is not None:
        return "key"
    parts = [f"label {name}={value}" for name, value in sorted(choice.labels.items())]
    if choice.purpose is not None:
        parts.append(f"purpose {choice.purpose!s}")
    if choice.tenant is not None:
        parts.append(f"tenant {choice.tenant}")
    return ", ".join(parts)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a record stands: in the log of which node, at which sequence, under which epoch."""

    node: str
    seq: int
    epoch: int


def older(use: Place, compromise: Place) -> bool | None:
    """Whether a use was committed before the version that did it was declared compromised.

    Within one log the sequence decides; across logs the epoch: what committed under an epoch below
    that of the compromise committed before it, on whichever node. A use under its epoch or a later
    one did not. None: they stand in logs of one name and contradict it, so that something is wrong.
    """
    if use.node != compromise.node:
        return use.epoch < compromise.epoch
    before = use.seq < compromise.seq
    return before if before == (use.epoch < compromise.epoch) else None
