"""An operator who stops keys and handles at random, through either node, and replaces them."""

from __future__ import annotations

import time
from typing import Any, TypeVar

from fault.cluster.deployment import Deployment
from fault.cluster.history import History, Outcome, Stop, Target
from fault.cluster.loads import GIVE_UP_S, Load, outcome_of
from fault.cluster.rig import BUDGET_USES, Pool, Rig, Spenders, held, issue_until_told
from keystead.client import Issued, Narrowing, admin
from keystead.client.admin import Ask
from keystead.errors import Conflict, KeysteadError, NotFound
from keystead.keys.commands import KeyInfo
from keystead.keys.model import JwtPolicy, Policy

__all__ = ["StoppingLoad"]

_KEYS = 4
_STOPPED_S = 0.5
"""For how long clients go on to try what was stopped."""
_KNOWN_WITHIN_S = 10.0
"""A node that serves knows by then of what the other one has made, or it is a finding."""
_AIMS_S = 0.3
_BUDGETED = 0.4
"""Share of turns that make a budget, which the clients have spent some turns later."""
_WAYS = {"suspend": 6, "child": 3, "handle": 2, "key": 2, "compromise": 2}
_REASON = "cluster test"

T = TypeVar("T")


class _GivenUpError(Exception):
    """No node answered for too long, or the run ends."""


class StoppingLoad(Load):
    """One change after the other; each is sent again under its own key until it is answered."""

    def __init__(
        self,
        deployment: Deployment,
        history: History,
        seed: str,
        *,
        rig: Rig,
        pool: Pool,
        spenders: Spenders,
    ) -> None:
        super().__init__("operator", deployment, history, seed)
        self._steady = rig.jwt.target
        self._pool = pool
        self._spenders = spenders

    def turn(self) -> None:
        """Stop something."""
        try:
            while len(self._pool.keys()) < _KEYS:
                self._create()
            if self.random.random() < _BUDGETED:
                self._add_budget()
            (way,) = self.random.choices(list(_WAYS), list(_WAYS.values()))
            self._bring_down(way, self.random.choice(self._pool.keys()))
        except _GivenUpError:
            return
        self.ending.wait(0.2 * self.random.random())

    def _create(self) -> None:
        name = f"pool-{self.next_key()}"
        policy = Policy(jwt=JwtPolicy(issuer=name))
        key = self._ask(admin.create_key(name, "jwt", policy=policy))
        self._issue(key)

    def _issue(self, key: KeyInfo) -> None:
        """A handle, and a child of it, whose link can be revoked alone."""
        issued: Issued = issue_until_told(
            lambda: self._ask(admin.issue_handle(key.name, "app"), again=False)
        )
        one = held(issued, key.id)
        self._pool.add(one, one.child())

    def _add_budget(self) -> None:
        """A handle of a few uses, which both nodes and its child share."""
        narrowing, key = Narrowing(uses=BUDGET_USES), self._steady
        issued: Issued = issue_until_told(
            lambda: self._ask(
                admin.issue_handle(key.key, "spender", narrowing=narrowing), again=False
            )
        )
        self._spenders.add(held(issued, key.key_id))

    def _bring_down(self, way: str, target: Target) -> None:
        key, parent = target.key, target.links[0]
        self._pool.aim(target.key_id)
        self.ending.wait(_AIMS_S * self.random.random())
        match way:
            case "suspend" | "compromise":
                self._change(way, target.key_id, admin.move_version(key, way, reason=_REASON))
            case "child" if len(target.links) > 1:
                self._change(
                    "revoke_handle", target.link, admin.revoke_handle(target.link, reason=_REASON)
                )
            case "key":
                self._change(
                    "revoke_key", target.key_id, admin.revoke_key_handles(key, reason=_REASON)
                )
            case _:
                way = "handle"
                self._change("revoke_handle", parent, admin.revoke_handle(parent, reason=_REASON))
        self.ending.wait(_STOPPED_S * self.random.random())
        if way == "suspend":
            ask = admin.move_version(key, "resume", reason=_REASON)
            self._change("resume", target.key_id, ask)
            return
        if way in {"key", "compromise"}:
            self._pool.drop(lambda one: one.key_id == target.key_id)
        else:
            link = target.link if way == "child" else parent
            self._pool.drop(lambda one: link in one.links)

    def _change(self, what: str, target: str, ask: Ask[Any]) -> None:
        """Ask one node, then the other, and so on, until one answers; each attempt is kept."""
        until_s = time.monotonic() + GIVE_UP_S
        front = self.random.choice(("a", "b"))
        while True:
            begun_ns = time.monotonic_ns()
            outcome, code, epoch = Outcome.OK, "", 0
            late = begun_ns / 1e9 > until_s - GIVE_UP_S + _KNOWN_WITHIN_S
            try:
                epoch = getattr(self.clients[front].run(ask), "epoch", 0)
            except KeysteadError as exc:
                outcome, code = outcome_of(exc), exc.code or type(exc).__name__
                # It is under way through the other node, or this one does not know of the key yet.
                if isinstance(exc, Conflict) or (isinstance(exc, NotFound) and not late):
                    outcome = Outcome.UNKNOWN
            self.history.stopped(
                Stop(
                    front=front,
                    what=what,
                    target=target,
                    invoked_ns=begun_ns,
                    completed_ns=time.monotonic_ns(),
                    outcome=outcome,
                    code=code,
                    epoch=epoch,
                )
            )
            if outcome is Outcome.OK:
                return
            if outcome is Outcome.REFUSED:
                self.history.surprise(f"{what} of {target} was refused by {front}: {code}")
                return
            front = self._later(front, until_s)

    def _ask(self, ask: Ask[T], *, again: bool = True) -> T:
        """As a change; ``again``: what is under way through the other node is asked for again."""
        until_s = time.monotonic() + GIVE_UP_S
        front = self.random.choice(("a", "b"))
        while True:
            try:
                return self.clients[front].run(ask)
            except NotFound:  # what the one node has made, the other one learns of a moment later
                if time.monotonic() > until_s - GIVE_UP_S + _KNOWN_WITHIN_S:
                    raise
            except KeysteadError as exc:
                conflict = isinstance(exc, Conflict) and again
                if outcome_of(exc) is Outcome.REFUSED and not conflict:
                    raise
            front = self._later(front, until_s)

    def _later(self, front: str, until_s: float) -> str:
        """Wait a moment; gives the other front."""
        if self.ending.wait(0.1) or time.monotonic() > until_s:
            raise _GivenUpError
        return self.other(front)
