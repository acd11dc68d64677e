"""The deployment as its committed rows have it, commit by commit: what is stopped, and since when.

Read from the rows alone. Nothing of a vault's own view goes into it.
"""

from __future__ import annotations

import msgspec

from keystead.keys.emergency import Emergency
from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.choosing import reproduces, served
from keystead.keys.rollout.model import Rotation, Stage, live
from keystead.keys.standing import EVERYTHING
from keystead.ports import ObjectRow
from keystead.testing.memory_store import Tables
from sim.prepared import Token

__all__ = ["Stop", "Truth", "Used"]

_KEY = msgspec.msgpack.Decoder(Key)
_ROTATION = msgspec.msgpack.Decoder(Rotation)


class Stop(msgspec.Struct, frozen=True):
    """Why something may not be used: under which epoch it ended, who committed that, and when."""

    epoch: int
    at_us: int
    node: str
    why: str


class Used(msgspec.Struct, frozen=True):
    """What a record or an answer says to have been used."""

    key_id: str
    version: int
    operation: str
    token: Token


class Truth:
    """``keys``, ``rotations``: by key id, as committed.

    ``published``: (key id, version) to (when it was published, for how long it must be before its
    first use), in microseconds.
    """

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.rotations: dict[str, Rotation] = {}
        self.published: dict[tuple[str, int], tuple[int, int]] = {}
        self._versions: dict[tuple[str, int], Stop] = {}
        self._links: dict[str, Stop] = {}
        self._generations: dict[str, Stop] = {}
        self._emergencies: dict[str, Stop] = {}

    def learn(self, before: Tables, after: Tables, now_us: int, node: str) -> list[str]:
        """Take over what a commit has changed; gives how that is not as it must be."""
        wrong: list[str] = []
        epoch = after.epoch.epoch if after.epoch else 0
        for at, row in after.objects.items():
            old = before.objects.get(at)
            if row is old:
                continue
            if row.revision != (old.revision if old else 0) + 1:
                wrong.append(f"I4 {row.kind} {row.name} came to revision {row.revision}")
            if row.epoch != epoch:
                wrong.append(f"I4 {row.kind} {row.name} bears epoch {row.epoch}, not {epoch}")
            self._take(row, Stop(epoch, now_us, node, ""))
        lost = before.objects.keys() - after.objects.keys()
        wrong += [f"I4 the row {kind} {name} is gone" for kind, name in sorted(lost)]
        return wrong

    def _take(self, row: ObjectRow, now: Stop) -> None:
        """``now``: the commit that the row is of, as a stop that has no reason yet."""
        kind, name, doc = row.kind, row.id, row.doc
        if kind == "key":
            self._take_key(_KEY.decode(doc), now)
        elif kind == "rotation":
            rotation = _ROTATION.decode(doc)
            self.rotations[rotation.key_id] = rotation
            rollout = live(rotation)
            if rollout is not None and rollout.stage is Stage.PUBLISH:
                overlap_us = rollout.plan.publish.overlap_ms * 1_000
                at = (rotation.key_id, rollout.next)
                self.published.setdefault(at, (now.at_us, overlap_us))
        elif kind == "revocation":
            self._links.setdefault(name, _because(now, f"link {name} is revoked"))
        elif kind == "emergency":
            if msgspec.msgpack.decode(doc, type=Emergency).stopped:
                self._emergencies[name] = _because(now, f"{name} is stopped")
            else:
                self._emergencies.pop(name, None)

    def _take_key(self, key: Key, now: Stop) -> None:
        old = self.keys.get(key.id)
        self.keys[key.id] = key
        if old is not None and key.generation != old.generation:
            why = f"generation {old.generation} of {key.name} is over"
            self._generations[key.id] = _because(now, why)
        for version in key.versions:
            at = (key.id, version.number)
            if version.state in (State.ACTIVE, State.PRE_ACTIVATION):
                self._versions.pop(at, None)
            else:
                why = f"version {version.number} of {key.name} is {version.state}"
                self._versions.setdefault(at, _because(now, why))

    def stopped(self, used: Used) -> Stop | None:
        """What stands against a use: an emergency, version, generation, or a link of the chain."""
        key = self.keys[used.key_id]
        for tenant in (EVERYTHING, key.tenant):
            if tenant in self._emergencies:
                return self._emergencies[tenant]
        if used.token.generation != key.generation:
            return self._generations[used.key_id]
        for link in used.token.links:
            if link in self._links:
                return self._links[link]
        version = key.versions[used.version - 1]
        if version.state is State.DEACTIVATED and reproduces(key.purpose, used.operation):
            return None
        return self._versions.get((used.key_id, used.version))

    def unfit(self, used: Used) -> str:
        """Why lifecycle and rollout have another version do this use now; empty: they do not."""
        key = self.keys[used.key_id]
        state = key.versions[used.version - 1].state
        if key.purpose is Purpose.DATA and reproduces(key.purpose, used.operation):
            return "" if state in (State.ACTIVE, State.DEACTIVATED) else f"the version is {state}"
        if state is not State.ACTIVE:
            return f"the version is {state}"
        if used.version not in served(key, self.rotations.get(used.key_id)):
            return "the rollout has another version do it"
        return ""


def _because(now: Stop, why: str) -> Stop:
    return msgspec.structs.replace(now, why=why)
