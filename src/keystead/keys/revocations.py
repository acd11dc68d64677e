"""Revocation lists of a key, and the statement that a log's key signs of each.

Three lists, each for those who cannot ask a node about every version: OpenSSH's own two for an SSH
authority, and one JSON document for everything else. A list is a function of the key as it stands
at an epoch; the statement binds its exact bytes to key, list and epoch, so that no list stands for
another, and an older one is noticed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from keystead.crypto.krl import key_revocation_list
from keystead.crypto.ssh import public_key_line
from keystead.encoding import DECODE_ERRORS, canonical_json
from keystead.errors import MalformedRequest, SignatureInvalid
from keystead.keys.lifecycle import State
from keystead.keys.model import Key, Version
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.model import Rotation

__all__ = [
    "DENY_FORMAT",
    "LISTS",
    "DeniedVersion",
    "DenyList",
    "ListName",
    "Statement",
    "check_statement",
    "denied",
    "list_bytes",
    "parse_deny_list",
    "statement_of",
]

DENY_FORMAT: Final = "keystead/deny/v1"

ListName = Literal["krl", "revoked_hosts", "deny"]

_DENIABLE = frozenset({Purpose.JWT, Purpose.FIRMWARE, Purpose.LEDGER, Purpose.CA})
LISTS: dict[ListName, frozenset[Purpose]] = {
    "krl": frozenset({Purpose.SSH_CA}),
    "revoked_hosts": frozenset({Purpose.SSH_CA}),
    "deny": _DENIABLE,
}
"""Each list, and the purposes whose keys have it."""

_TITLE = "/revocations/"
_EPOCH = "epoch "
_LINES = 4
_EPOCH_DIGITS_MAX = 19
_ROLLED_BACK = "rolled back"


class DeniedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version whose signatures do not count.

    ``compromised``: none that it ever made, for good. ``suspended``: none for now, it may come
    back. ``since_epoch``: since when; 0: a person suspended it, and the key does not tell when.
    """

    version: int
    kid: str
    state: Literal["compromised", "suspended"]
    since_epoch: int


class DenyList(msgspec.Struct, frozen=True, kw_only=True):
    """The members of a deny list; one that a later release adds is passed over."""

    format: Literal["keystead/deny/v1"]
    key: str
    purpose: str
    epoch: int
    denied: tuple[DeniedVersion, ...]


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed of a list: whose it is, as of which epoch, and the SHA-256 of its bytes.

    ``origin``: the name of the log whose key signs it.
    """

    origin: str
    key: str
    epoch: int
    sha256: bytes
    name: ListName

    def encode(self) -> str:
        """The text of the signed note.

        Its second line is no tree size, so that it never reads as a checkpoint, whatever the log
        and the key are called.
        """
        lines = (
            f"{self.origin}{_TITLE}{self.key}",
            f"{_EPOCH}{self.epoch}",
            base64.b64encode(self.sha256).decode("ascii"),
            self.name,
        )
        return "".join(f"{line}\n" for line in lines)


# --- lists ---------------------------------------------------------------------------------------


def denied(key: Key, rotation: Rotation | None) -> tuple[DeniedVersion, ...]:
    """Versions whose signatures do not count, in the order of their numbers."""
    found: list[DeniedVersion] = []
    for version in key.versions:
        if _is_lost(version):
            found.append(_denial(version, "compromised", version.compromised_epoch))
        elif version.state is State.SUSPENDED:
            since = _rolled_back_epoch(rotation, version.number)
            found.append(_denial(version, "suspended", since))
    return tuple(found)


def _denial(
    version: Version, state: Literal["compromised", "suspended"], since: int
) -> DeniedVersion:
    return DeniedVersion(version=version.number, kid=version.kid, state=state, since_epoch=since)


def list_bytes(name: ListName, key: Key, rotation: Rotation | None, generated_s: int) -> bytes:
    """The list as of the key's epoch; ``generated_s``, Unix seconds, stands in a KRL only.

    Raises:
        MalformedRequest: keys of this purpose have no such list.
    """
    if key.purpose not in LISTS[name]:
        has = [other for other, purposes in LISTS.items() if key.purpose in purposes]
        raise MalformedRequest(
            f"key {key.name} is for {key.purpose!s}: it has no list {name}",
            hint=f"It has: {', '.join(has) or 'none'}",
        )
    return _MAKERS[name](key, rotation, generated_s)


def _krl(key: Key, _rotation: Rotation | None, generated_s: int) -> bytes:
    return key_revocation_list(
        [v.public[0] for v in key.versions if _is_lost(v)],
        version=key.epoch,
        generated_s=generated_s,
        comment=f"keystead {key.name}",
    )


def _revoked_hosts(key: Key, _rotation: Rotation | None, _generated_s: int) -> bytes:
    """Lines of ``known_hosts`` (sshd(8)): ``@revoked`` holds for what the key has signed, too."""
    lines = [f"# keystead {key.name}, epoch {key.epoch}"]
    lines += [
        f"@revoked * {public_key_line(v.public[0], f'{key.name}.{v.number}')}"
        for v in key.versions
        if _is_lost(v)
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _deny(key: Key, rotation: Rotation | None, _generated_s: int) -> bytes:
    return canonical_json(
        msgspec.to_builtins(
            DenyList(
                format=DENY_FORMAT,
                key=key.name,
                purpose=str(key.purpose),
                epoch=key.epoch,
                denied=denied(key, rotation),
            )
        )
    )


_MAKERS: dict[ListName, Callable[[Key, Rotation | None, int], bytes]] = {
    "krl": _krl,
    "revoked_hosts": _revoked_hosts,
    "deny": _deny,
}


def _is_lost(version: Version) -> bool:
    """Also once it is destroyed: what it signed is still out there."""
    return version.state is State.COMPROMISED or version.compromised_epoch > 0


def _rolled_back_epoch(rotation: Rotation | None, number: int) -> int:
    rollout = None if rotation is None else rotation.rollout
    if rollout is None or rollout.next != number:
        return 0
    return max((step.epoch for step in rollout.steps if step.event == _ROLLED_BACK), default=0)


def parse_deny_list(data: bytes) -> DenyList:
    """The members of a deny list whose statement was checked.

    Raises:
        MalformedRequest: it is not one.
    """
    try:
        return msgspec.json.decode(data, type=DenyList)
    except DECODE_ERRORS as exc:
        raise MalformedRequest(f"expected a list of format {DENY_FORMAT}") from exc


# --- statements ----------------------------------------------------------------------------------


def statement_of(origin: str, key: Key, name: ListName, data: bytes) -> Statement:
    """What the log of ``origin`` signs of a key's list, which is ``data``."""
    return Statement(
        origin=origin,
        key=key.name,
        epoch=key.epoch,
        sha256=hashlib.sha256(data).digest(),
        name=name,
    )


def check_statement(
    text: str, data: bytes, *, origin: str, key: str, name: ListName, epoch_at_least: int = 0
) -> Statement:
    """What a note whose signature was checked says of the list ``data``.

    ``epoch_at_least``: the greatest epoch of this list that its reader has seen; 0: none yet.

    Raises:
        SignatureInvalid: it speaks of another log's, key's or kind of list, of other bytes, of an
            older list than was seen, or of no list at all.
    """
    title, number, said = _parts(text)
    if title != f"{origin}{_TITLE}{key}":
        raise SignatureInvalid(
            f"expected a statement on the revocations of {key} by {origin}, met another",
            hint="Fetch list and note of the same key, and use the verifier key of its node's log",
        )
    if said != name:
        raise SignatureInvalid(f"expected a statement on the list {name}, met one on another list")
    statement = Statement(
        origin=origin, key=key, epoch=number, sha256=hashlib.sha256(data).digest(), name=name
    )
    if statement.encode() != text:
        raise SignatureInvalid(
            f"the list {name} of {key} is not the one that was signed as of epoch {number}",
            hint="If it was changed between the two answers, fetch list and note again",
        )
    if number < epoch_at_least:
        raise SignatureInvalid(
            f"expected a list of {key} of epoch {epoch_at_least} or later, met epoch {number}",
            hint="An older list was put in the place of one that was seen before",
        )
    return statement


def _parts(text: str) -> tuple[str, int, str]:
    """Title, epoch and name of a list; the rest is held to the list's own bytes."""
    lines = text.split("\n", _LINES)
    whole = len(lines) == _LINES + 1 and lines[1].startswith(_EPOCH)
    number = lines[1].removeprefix(_EPOCH) if whole else ""
    if not (number.isascii() and number.isdigit()) or len(number) > _EPOCH_DIGITS_MAX:
        raise SignatureInvalid(
            "expected a statement on a revocation list, met another note",
            hint="Take the .note beside the list; a checkpoint of the log says nothing of it",
        )
    return lines[0], int(number), lines[3]
