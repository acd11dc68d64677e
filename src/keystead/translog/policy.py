"""Trust policies: which logs, and which witnesses must have cosigned (C2SP tlog-policy).

Names are opaque octets there; here they are text whose bytes that are not UTF-8 are kept as
surrogates, so that a file's names compare and encode as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from keystead.errors import MalformedRequest, NotFound, QuorumMissing, SignatureInvalid
from keystead.limits import TRUST_POLICY_BYTES_MAX, TRUST_POLICY_ITEMS_MAX
from keystead.translog.checkpoints import (
    LOG_TYPES,
    Checkpoint,
    check_log_signature,
    parse_checkpoint,
)
from keystead.translog.cosignatures import COSIGNATURE_TYPES, verify_cosignature
from keystead.translog.lines import decimal, quoted
from keystead.translog.notes import Note, VerifierKey, parse_vkey, signatures_by

__all__ = [
    "NO_QUORUM",
    "Group",
    "PolicyLog",
    "PolicyWitness",
    "Satisfied",
    "WitnessPolicy",
    "parse_policy",
    "policy_of",
]

NO_QUORUM = "none"
"""The quorum of a policy that asks for no cosignature."""
_QUORUM_GROUP = "quorum-group"
_SPACE = re.compile(r"[ \t]+")
_FORBIDDEN = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")


class PolicyLog(msgspec.Struct, frozen=True):
    """A log whose checkpoints are accepted; its key's name is its origin."""

    key: VerifierKey
    url: str = ""


class PolicyWitness(msgspec.Struct, frozen=True):
    """A witness under its name in this policy, which need not be its key's name."""

    name: str
    key: VerifierKey
    url: str = ""


class Group(msgspec.Struct, frozen=True):
    """Members of which ``threshold`` must have witnessed: witnesses or groups before this one."""

    name: str
    threshold: int
    members: tuple[str, ...]


class Satisfied(msgspec.Struct, frozen=True):
    """What passed the policy; ``witnesses`` is names in the policy to POSIX times of cosigning."""

    log: VerifierKey
    checkpoint: Checkpoint
    witnesses: dict[str, int]


class WitnessPolicy(msgspec.Struct, frozen=True):
    """Logs, witnesses, groups, and the name of the witness or group that is the quorum.

    By :func:`parse_policy` or :func:`policy_of`, which hold the rules between the four.
    """

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...] = ()
    groups: tuple[Group, ...] = ()
    quorum: str = NO_QUORUM

    def encode(self) -> bytes:
        """The policy as a tlog-policy file."""
        lines = [f"log {_with_url(item.key.encode(), item.url)}" for item in self.logs]
        lines += [
            f"witness {item.name} {_with_url(item.key.encode(), item.url)}"
            for item in self.witnesses
        ]
        lines += [
            f"group {item.name} {item.threshold} {' '.join(item.members)}" for item in self.groups
        ]
        lines.append(f"quorum {self.quorum}")
        return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")

    def check(self, note: Note) -> Satisfied:
        """Hold a signed checkpoint against the policy.

        Raises:
            MalformedRequest: the note holds no checkpoint.
            SignatureInvalid: no log of the policy signed it, or a known signature is wrong.
            QuorumMissing: fewer witnesses than the quorum needs have cosigned.
        """
        log = self._log_of(note)
        checkpoint = check_log_signature(note, log)
        times: dict[str, int] = {}
        for witness in self.witnesses:
            try:
                times[witness.name] = verify_cosignature(note, witness.key)
            except NotFound:
                continue
        if not self.holds(times):
            self._raise_missing(checkpoint, times)
        return Satisfied(log, checkpoint, times)

    def holds(self, names: Sequence[str] | dict[str, int]) -> bool:
        """Whether these witnesses are a quorum."""
        met = {NO_QUORUM, *names}
        for group in self.groups:  # members stand before their group
            if sum(member in met for member in group.members) >= group.threshold:
                met.add(group.name)
        return self.quorum in met

    def _log_of(self, note: Note) -> VerifierKey:
        origin = parse_checkpoint(note.text).origin
        named = [log.key for log in self.logs if log.key.name == origin]
        for key in named:
            if signatures_by(note, key):
                return key
        if named:
            return named[0]
        raise SignatureInvalid(
            f"expected a checkpoint of {', '.join(log.key.name for log in self.logs)}, met one of"
            f" {origin}",
            hint="add the log to the policy if it is to be trusted",
        )

    def _raise_missing(self, checkpoint: Checkpoint, times: dict[str, int]) -> None:
        missing = [item.name for item in self.witnesses if item.name not in times]
        raise QuorumMissing(
            f"expected the cosignatures of quorum {quoted(self.quorum)} on the checkpoint of"
            f" {checkpoint.origin} at size {checkpoint.size}, met {len(times)}"
            f" ({', '.join(sorted(times)) or 'nobody'}); missing: {', '.join(missing)}",
            hint="try a later checkpoint or proof, or ask why these witnesses are silent",
        )


def _with_url(text: str, url: str) -> str:
    return f"{text} {url}" if url else text


def policy_of(
    log: VerifierKey, witnesses: Sequence[PolicyWitness] = (), quorum: int = 0
) -> WitnessPolicy:
    """The policy of one log and of any ``quorum`` of the witnesses; 0 asks for none.

    Raises:
        MalformedRequest: more than there are witnesses, or keys and names that no policy may hold.
    """
    if not 0 <= quorum <= len(witnesses):
        raise MalformedRequest(
            f"expected a quorum of 0 to {len(witnesses)} witnesses, met {quorum}"
        )
    policy = WitnessPolicy((PolicyLog(log),), tuple(witnesses))
    if quorum:
        members = tuple(item.name for item in witnesses)
        group = Group(_QUORUM_GROUP, quorum, members)
        policy = WitnessPolicy(policy.logs, policy.witnesses, (group,), _QUORUM_GROUP)
    if parse_policy(policy.encode()) != policy:
        raise MalformedRequest("expected names and addresses of witnesses without spaces")
    return policy


def parse_policy(data: bytes | str) -> WitnessPolicy:
    """A policy from a tlog-policy file.

    Raises:
        MalformedRequest: too long, or a line that breaks the format's rules; it names the line.
    """
    raw = data.encode(errors="surrogateescape") if isinstance(data, str) else data
    if len(raw) > TRUST_POLICY_BYTES_MAX:
        raise MalformedRequest(
            f"expected a policy of at most {TRUST_POLICY_BYTES_MAX} bytes, met {len(raw)}"
        )
    if found := _FORBIDDEN.search(raw):
        raise MalformedRequest(f"expected no control character in a policy, met {found[0]!r}")
    reading = _Reading()
    for number, line in enumerate(raw.decode(errors="surrogateescape").split("\n"), start=1):
        stripped = line.strip(" \t")
        if stripped and not stripped.startswith("#"):
            try:
                reading.take(_SPACE.split(stripped))
            except MalformedRequest as exc:
                raise MalformedRequest(
                    f"line {number} of the policy: {exc.message}", hint=exc.hint
                ) from exc
    return reading.policy()


class _Reading:
    """A policy on its way in, line by line: each line may name only what stands above it."""

    def __init__(self) -> None:
        self._logs: list[PolicyLog] = []
        self._witnesses: list[PolicyWitness] = []
        self._groups: list[Group] = []
        self._quorum: str | None = None
        self._names: set[str] = set()
        self._members: set[str] = set()

    def take(self, items: list[str]) -> None:
        match items:
            case ["log", vkey, *url] if len(url) <= 1:
                self._log(parse_vkey(vkey), "".join(url))
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._witness(name, parse_vkey(vkey), "".join(url))
            case ["group", name, threshold, *members] if members:
                self._group(name, threshold, members)
            case ["quorum", name]:
                self._set_quorum(name)
            case _:
                raise MalformedRequest(
                    "expected 'log VKEY [URL]', 'witness NAME VKEY [URL]', 'group NAME"
                    f" K|any|all NAME...' or 'quorum NAME', met {quoted(' '.join(items))}"
                )

    def policy(self) -> WitnessPolicy:
        if self._quorum is None:
            raise MalformedRequest(
                "expected a quorum line in the policy, met none",
                hint=f"write 'quorum {NO_QUORUM}' if no cosignature is asked for",
            )
        return WitnessPolicy(
            tuple(self._logs), tuple(self._witnesses), tuple(self._groups), self._quorum
        )

    def _log(self, key: VerifierKey, url: str) -> None:
        _check_room(self._logs, "logs")
        _check_key(key, LOG_TYPES, [item.key for item in self._logs], "a log")
        self._logs.append(PolicyLog(key, url))

    def _witness(self, name: str, key: VerifierKey, url: str) -> None:
        _check_room(self._witnesses, "witnesses")
        _check_key(key, COSIGNATURE_TYPES, [item.key for item in self._witnesses], "a witness")
        self._define(name)
        self._witnesses.append(PolicyWitness(name, key, url))

    def _group(self, name: str, threshold: str, members: list[str]) -> None:
        _check_room(self._groups, "groups")
        words = {"any": 1, "all": len(members)}
        least = words.get(threshold) or decimal(threshold, len(members), "a group's threshold")
        if least == 0:
            raise MalformedRequest("expected a group's threshold of 1 at least, met 0")
        for member in members:
            self._check_defined(member)
            if member in self._members:
                raise MalformedRequest(
                    f"expected {quoted(member)} in one group and once, met it again"
                )
            self._members.add(member)
        self._define(name)
        self._groups.append(Group(name, least, tuple(members)))

    def _set_quorum(self, name: str) -> None:
        if self._quorum is not None:
            raise MalformedRequest("expected one quorum line, met a second")
        if name != NO_QUORUM:
            self._check_defined(name)
        self._quorum = name

    def _define(self, name: str) -> None:
        if name in self._names or name == NO_QUORUM:
            raise MalformedRequest(f"expected a new name, met {quoted(name)} again")
        self._names.add(name)

    def _check_defined(self, name: str) -> None:
        if name not in self._names:
            raise MalformedRequest(f"expected a witness or group defined above, met {quoted(name)}")


def _check_room(items: Sequence[object], what: str) -> None:
    if len(items) >= TRUST_POLICY_ITEMS_MAX:
        raise MalformedRequest(f"expected at most {TRUST_POLICY_ITEMS_MAX} {what} in a policy")


def _check_key(
    key: VerifierKey, types: frozenset[int], others: Sequence[VerifierKey], what: str
) -> None:
    if key.algorithm not in types:
        known = ", ".join(f"0x{item:02x}" for item in sorted(types))
        raise MalformedRequest(
            f"expected the key of {what}, of type {known}, met 0x{key.algorithm:02x}"
        )
    if any(other.public == key.public for other in others):
        raise MalformedRequest(f"expected each key once, met that of {quoted(key.name)} again")
