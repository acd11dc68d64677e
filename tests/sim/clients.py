"""Clients and an operator: they ask, wait, ask another node under the same idempotency key.

Each goes on until it has an answer that another try would not change. What they hold at the end is
what the checks are about.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from keystead.frames.messages import Admin, Answer, Done, Refused, Request, Use
from keystead.keys.commands import IssuedHandle
from sim.nodes import Machine, Surroundings
from sim.prepared import Prepared, Token, token_of
from sim.requests import CHANGES, OPERATIONS, command_of, context_of, facts_of
from sim.scenario import Op
from sim.timeline import Actor

__all__ = ["Asking", "Office"]

_MS = 1_000
_TIMEOUT_US = 700 * _MS
_EDGE_TRIES = 2
_AGAIN = frozenset({"log_unavailable", "overloaded", "custody_unavailable", "reservation_ended"})
"""Codes after which the same request may work: a client sends it again, elsewhere."""


class Asking(msgspec.Struct, kw_only=True):
    """One operation on its way. ``answers``: all that came, in order, with the node it came from.

    ``final``: the answer that ended it.
    """

    op: Op
    tries: int = 0
    final: Answer | None = None
    answers: list[tuple[str, Answer]] = msgspec.field(default_factory=list)
    token: Token | None = None


class Office:
    """All clients. ``left``: called with an answer as it leaves a vault; ``held``: as it comes."""

    def __init__(
        self,
        around: Surroundings,
        prepared: Prepared,
        machines: list[Machine],
        *,
        left: Callable[[Asking, Machine, Answer], None],
        issued: Callable[[Token], None],
    ) -> None:
        self.asking: dict[int, Asking] = {}
        self._around = around
        self._prepared = prepared
        self._machines = machines
        self._left = left
        self._issued = issued
        self._actor = Actor("clients")
        self._tokens = dict(prepared.tokens)
        self._requests = 0
        self._copies: dict[int, list[tuple[int, int]]] = {}
        self._holds: dict[int, tuple[str, int]] = {}
        self._arrived: dict[str, int] = {}

    # --- what stands against messages ---------------------------------------------------------

    def copy(self, op: int, node: int, span_us: int) -> None:
        """Its first request comes twice: to that node as well, a while later."""
        self._copies.setdefault(op, []).append((node, span_us))

    def hold(self, op: int, kind: str, span_us: int) -> None:
        """Its first request takes longer."""
        self._holds[op] = (kind, span_us)

    # --- asking -------------------------------------------------------------------------------

    def begin(self, op: Op) -> None:
        """Have an operation begin at its time."""
        self.asking[op.number] = asking = Asking(op=op)
        self._around.timeline.at(
            self._around.timeline.now_us + op.at_us, self._actor, lambda: self._try(asking)
        )

    def unfinished(self) -> list[Asking]:
        """Those without a final answer."""
        return [asking for asking in self.asking.values() if asking.final is None]

    def _try(self, asking: Asking) -> None:
        op = asking.op
        if asking.final is not None:
            return
        if op.what == "edge" and asking.tries >= _EDGE_TRIES:
            asking.final = Refused(0, "log_unavailable", "given up")  # it has no idempotency key
            return
        turn, asking.tries = asking.tries, asking.tries + 1
        if asking.token is None and op.token:
            asking.token = self._tokens[op.token]
        machine = self._machines[(op.home + turn) % len(self._machines)]
        travel_us = self._around.dice.between(100, 1_500, "request", op.number, turn)
        if turn == 0:
            travel_us += self._first(asking, machine, travel_us)
        self._send(asking, machine, turn, travel_us)
        again_us = _TIMEOUT_US + self._around.dice.below(100 * _MS, "again", op.number, turn)
        self._around.timeline.after(again_us, self._actor, lambda: self._over(asking, turn))

    def _first(self, asking: Asking, machine: Machine, travel_us: int) -> int:
        """What was planned for the first request: how much longer it takes."""
        op = asking.op
        for node, span_us in self._copies.get(op.number, ()):
            if op.once or op.what == "edge":
                elsewhere = self._machines[node % len(self._machines)]
                self._send(asking, elsewhere, -1, travel_us + span_us)
                self._around.took["duplicate"] += 1
        kind, span_us = self._holds.get(op.number, ("", 0))
        if kind == "delay":
            self._around.took["delay"] += 1
        elif kind == "reorder":
            began = self._arrived.get(machine.name, 0)

            def overtaken() -> None:
                if self._arrived.get(machine.name, 0) > began:
                    self._around.took["reorder"] += 1

            self._around.timeline.after(travel_us + span_us, self._actor, overtaken)
        return span_us

    def _over(self, asking: Asking, turn: int) -> None:
        """Its time is over: ask another node, under the same idempotency key."""
        if asking.final is None and asking.tries == turn + 1:
            self._try(asking)

    def _send(self, asking: Asking, machine: Machine, turn: int, travel_us: int) -> None:
        self._requests += 1
        request = self._request(asking, self._requests)
        answered = False

        def reply(answer: Answer) -> None:
            nonlocal answered
            if answered:
                self._around.wrong(f"I6 {machine.name} answered one request twice")
            answered = True
            self._left(asking, machine, answer)
            back_us = self._around.dice.between(100, 1_500, "answer", asking.op.number, turn)
            self._around.timeline.after(
                back_us, self._actor, lambda: self._come(asking, machine, turn, answer)
            )

        def arrive() -> None:
            self._arrived[machine.name] = self._arrived.get(machine.name, 0) + 1
            if not machine.ask(request, reply) and turn >= 0:
                self._around.timeline.after(50 * _MS, self._actor, lambda: self._over(asking, turn))

        self._around.timeline.after(travel_us, self._actor, arrive)

    def _come(self, asking: Asking, machine: Machine, turn: int, answer: Answer) -> None:
        asking.answers.append((machine.name, answer))
        if asking.final is not None:
            return
        if isinstance(answer, Refused) and answer.code in _AGAIN:
            wait_us = self._around.dice.between(30, 120, "back off", asking.op.number, turn) * _MS
            self._around.timeline.after(wait_us, self._actor, lambda: self._over(asking, turn))
            return
        asking.final = answer
        if isinstance(answer, Done) and asking.op.what == "issue":
            issued = msgspec.msgpack.decode(answer.result, type=IssuedHandle)
            token = token_of(issued)
            self._tokens[asking.op.token] = token
            self._issued(token)

    # --- requests -----------------------------------------------------------------------------

    def _request(self, asking: Asking, number: int) -> Request:
        op = asking.op
        if op.what in CHANGES:
            command = msgspec.msgpack.encode(command_of(op, self._prepared))
            return Admin(number, self._prepared.admin, command, idempotency_key=op.once)
        if asking.token is None:
            raise AssertionError(f"op {op.number} names no handle")
        purpose, _, operation = OPERATIONS[op.what].partition(".")
        return Use(
            number,
            asking.token.token,
            purpose,
            operation,
            context_of(op),
            msgspec.msgpack.encode(facts_of(op, self._prepared)),
            idempotency_key=op.once or None,
            reason=f"op {op.number}",
        )
