"""What clients use: keys that stay, and a few that are stopped and replaced all the time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import TypeVar

import msgspec

from fault.cluster.history import Target
from keystead.client import Client, Handle, Issued, Narrowing, attenuate
from keystead.errors import Conflict
from keystead.keys.model import FirmwarePolicy, JwtPolicy, Policy

__all__ = ["BUDGET_USES", "Held", "Pool", "Rig", "Spenders", "held", "issue_until_told"]

BUDGET_USES = 6
_SPENDERS_MAX = 6
_AIMED = 0.7
"""Share of picks that go to what is about to be stopped."""
_ISSUES_MAX = 20

T = TypeVar("T")


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A handle in a client's hands, and what it stands on."""

    handle: Handle
    target: Target

    def child(self) -> Held:
        """A narrower one, whose chain is a link longer."""
        narrower = attenuate(self.handle, Narrowing(context_prefix="cluster"))
        links = (*self.target.links, narrower.chain_id)
        return Held(handle=narrower, target=msgspec.structs.replace(self.target, links=links))


def held(issued: Issued, key_id: str) -> Held:
    """A handle as it was issued. Of the links before its caveats only the vault knows the ids."""
    target = Target(key=issued.key, key_id=key_id, handle_id=issued.handle_id, links=(issued.link,))
    return Held(handle=issued.handle, target=target)


class Rig(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that nobody stops, by a handle each."""

    jwt: Held
    firmware: Held
    ledger: Held
    data: Held
    edge: Held

    @staticmethod
    def make(client: Client, workers: int) -> Rig:
        """Create them, on a fresh deployment."""
        images = tuple(f"image{number}" for number in range(workers))
        policies = {
            "jwt": Policy(jwt=JwtPolicy(issuer="cluster")),
            "firmware": Policy(firmware=FirmwarePolicy(names=images)),
            "tls": Policy(ack="best_effort"),
        }
        made: dict[str, Held] = {}
        for purpose in ("jwt", "firmware", "ledger", "data", "tls"):
            policy = policies.get(purpose, Policy())
            key = client.create_key(f"steady-{purpose}", purpose, policy=policy)
            made[purpose] = held(client.issue_handle(key.name, "app"), key.id)
        return Rig(
            jwt=made["jwt"],
            firmware=made["firmware"],
            ledger=made["ledger"],
            data=made["data"],
            edge=made["tls"],
        )


class Spenders:
    """Handles with a budget, and a child of each that spends the same; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[Held] = []
        self._budgets: dict[str, int] = {}

    def add(self, one: Held) -> None:
        """Have clients spend this one too; the oldest, which is spent by then, goes."""
        with self._lock:
            self._budgets[one.target.link] = BUDGET_USES
            self._held = [*self._held, one, one.child()][-_SPENDERS_MAX:]

    def pick(self, random: Random) -> Held | None:
        """Any of them."""
        with self._lock:
            return random.choice(self._held) if self._held else None

    def budgets(self) -> dict[str, int]:
        """The most uses, by the link that they are counted under, of all that there ever were."""
        with self._lock:
            return dict(self._budgets)


class Pool:
    """Handles of keys that come and go; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[Held] = []
        self._aim = ""

    def aim(self, key_id: str) -> None:
        """Have most picks be of this key: uses are under way when it is stopped."""
        with self._lock:
            self._aim = key_id

    def add(self, *found: Held) -> None:
        """Have clients use these too."""
        with self._lock:
            self._held.extend(found)

    def drop(self, gone: Callable[[Target], bool]) -> None:
        """Have them use these no more."""
        with self._lock:
            self._held = [one for one in self._held if not gone(one.target)]

    def pick(self, random: Random) -> Held | None:
        """Any of them, or one that is aimed at."""
        with self._lock:
            aimed = [one for one in self._held if one.target.key_id == self._aim]
            if aimed and random.random() < _AIMED:
                return random.choice(aimed)
            return random.choice(self._held) if self._held else None

    def keys(self) -> list[Target]:
        """One target of each key."""
        with self._lock:
            return list({one.target.key_id: one.target for one in self._held}.values())


def issue_until_told(issue: Callable[[], T]) -> T:
    """A token is told once: where its answer was lost, another handle is asked for."""
    for _ in range(_ISSUES_MAX):
        try:
            return issue()
        except Conflict:
            continue
    raise Conflict(f"{_ISSUES_MAX} answers with a token were lost one after another")
