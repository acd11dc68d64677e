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

__all__ = ["BUDGET_USES", "Held", "Pool", "Rig", "held", "issue_until_told"]

BUDGET_USES = 15
_BUDGETS = 8
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
    """Keys that nobody stops. ``spenders``: of the budgets, the handle itself and its child."""

    jwt: Held
    firmware: Held
    ledger: Held
    data: Held
    edge: Held
    spenders: tuple[Held, ...]
    budgets: dict[str, int]

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
        spenders: list[Held] = []
        budgets: dict[str, int] = {}
        for purpose in ("jwt", "firmware", "ledger", "data", "tls"):
            key = client.create_key(
                f"steady-{purpose}", purpose, policy=policies.get(purpose, Policy())
            )
            made[purpose] = held(client.issue_handle(key.name, "app"), key.id)
            if purpose != "jwt":
                continue
            for _ in range(_BUDGETS):
                narrowing = Narrowing(uses=BUDGET_USES)
                one = held(client.issue_handle(key.name, "spender", narrowing=narrowing), key.id)
                budgets[one.target.link] = BUDGET_USES
                spenders += (one, one.child())
        return Rig(
            jwt=made["jwt"],
            firmware=made["firmware"],
            ledger=made["ledger"],
            data=made["data"],
            edge=made["tls"],
            spenders=tuple(spenders),
            budgets=budgets,
        )


class Pool:
    """Handles of keys that come and go; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[Held] = []

    def add(self, *found: Held) -> None:
        """Have clients use these too."""
        with self._lock:
            self._held.extend(found)

    def drop(self, gone: Callable[[Target], bool]) -> None:
        """Have them use these no more."""
        with self._lock:
            self._held = [one for one in self._held if not gone(one.target)]

    def pick(self, random: Random) -> Held | None:
        """Any of them."""
        with self._lock:
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
