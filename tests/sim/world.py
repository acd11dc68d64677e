"""Runs one scenario: nodes, clients and faults on one timeline, under the eyes of the oracle."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from functools import partial

import msgspec
import structlog

from fault.crash.held import signed_message
from keystead.frames.messages import Answer, Done, Receipt, Refused
from keystead.keys.framing.data import DeriveResult, UnwrapResult, WrapResult
from keystead.keys.framing.firmware import FirmwareResult
from keystead.keys.framing.jwt import JwtResult
from keystead.keys.framing.ledger import LedgerResult
from keystead.keys.framing.tls import TlsResult
from keystead.testing.clocks import SeededRandom
from keystead.testing.memory_store import Tables
from sim.clients import Asking, Office
from sim.dice import Dice
from sim.ending import endings
from sim.hazards import Hazards
from sim.nodes import Machine, Surroundings
from sim.oracle import Oracle, commits_to
from sim.prepared import DEPLOYMENT, SECRET, Token, custody_of, prepare, secrets_of
from sim.requests import OPERATIONS, STOPS
from sim.scenario import HORIZON_US, NODES, Fault, Scenario
from sim.timeline import Actor, NodeClock
from sim.truth import Used

__all__ = ["Outcome", "run"]

_S_US = 1_000_000
_SETTLE_US = 9 * _S_US
_STEPS_MAX = 400_000
_RESULTS: dict[str, type[msgspec.Struct]] = {
    "jwt.sign": JwtResult,
    "tls.sign": TlsResult,
    "ledger.append": LedgerResult,
    "firmware.sign": FirmwareResult,
    "data.wrap": WrapResult,
    "data.unwrap": UnwrapResult,
    "data.derive": DeriveResult,
}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run. ``digest``: of its trace, by which two runs are told to be the same."""

    scenario: Scenario
    findings: tuple[str, ...]
    took: dict[str, int]
    answers: dict[str, int]
    steps: int
    commits: int
    digest: str
    trace: tuple[str, ...]


def run(scenario: Scenario) -> Outcome:
    """Run it to its end; the same scenario gives the same outcome."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # the trace speaks for it
    try:
        return _World(scenario).run()
    finally:
        structlog.configure(**before)


class _World:
    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._trace: list[str] = []
        self._answers: Counter[str] = Counter()
        self._commits = 0
        prepared = prepare()
        dice = Dice(scenario.seed, scenario.profile, "run")
        alone = scenario.nodes == 1
        self._around = around = Surroundings(dice, DEPLOYMENT, secrets_of(), alone=alone)
        around.disk.tables = prepared.tables
        spread_ms = max(scenario.skews_ms) - min(scenario.skews_ms)
        ops = {op.number: op for op in scenario.ops}
        self._oracle = Oracle(prepared, ops, self._now, spread_ms * 1_000)
        around.tell = self._tell
        around.wrong = self._wrong
        around.committed = self._committed
        around.died = self._died
        self._set: set[str] = set()
        self._machines = [
            Machine(
                NODES[number],
                around,
                custody_of(SeededRandom(dice.below(2**62, "custody", number))),
                NodeClock(
                    around.timeline,
                    drift_ppm=scenario.drifts_ppm[number],
                    skew_ms=scenario.skews_ms[number],
                ),
            )
            for number in range(scenario.nodes)
        ]
        self._office = Office(
            around, prepared, self._machines, left=self._left, issued=self._issued
        )
        self._world = Actor("world")

    # --- running ------------------------------------------------------------------------------

    def run(self) -> Outcome:
        timeline = self._around.timeline
        for machine in self._machines:
            machine.boot()
        for fault in self._scenario.faults:
            if fault.kind in ("duplicate", "reorder", "delay") and fault.op >= 0:
                self._against_message(fault)
            else:
                timeline.at(fault.at_us, self._world, partial(self._strike, fault))
        for op in self._scenario.ops:
            self._office.begin(op)
        self._until(HORIZON_US)
        self._heal()
        self._until(HORIZON_US + _SETTLE_US)
        for what in endings(self._oracle, self._office, self._machines, self._around.disk.tables):
            self._wrong(what)
        text = "\n".join(self._trace)
        return Outcome(
            scenario=self._scenario,
            findings=tuple(self._oracle.findings),
            took=dict(self._around.took),
            answers=dict(self._answers),
            steps=timeline.steps,
            commits=self._commits,
            digest=hashlib.sha256(text.encode()).hexdigest(),
            trace=tuple(self._trace),
        )

    def _until(self, until_us: int) -> None:
        timeline = self._around.timeline
        timeline.run(until_us)
        if timeline.steps > _STEPS_MAX:
            self._wrong(f"I11 {timeline.steps} events in one run: something does not end")

    def _heal(self) -> None:
        self._tell("all is healed")
        for machine in self._machines:
            machine.hazards.heal()
            machine.boot()

    def _now(self) -> int:
        return self._around.timeline.now_us

    def _tell(self, line: str) -> None:
        self._trace.append(f"{self._around.timeline.now_us:>9} {line}")

    def _wrong(self, what: str) -> None:
        if what not in self._oracle.findings:
            self._tell(f"FINDING {what}")
            self._oracle.wrong(what)

    # --- faults -------------------------------------------------------------------------------

    def _against_message(self, fault: Fault) -> None:
        if fault.kind == "duplicate":
            self._office.copy(fault.op, fault.node, fault.span_us)
        else:
            self._office.hold(fault.op, fault.kind, fault.span_us)

    def _strike(self, fault: Fault) -> None:
        machine = self._machines[fault.node % len(self._machines)]
        until_us = self._now() + fault.span_us
        self._tell(f"fault {fault.number} {fault.kind} {machine.name}")
        match fault.kind:
            case "crash":
                self._crash(machine, fault)
            case "suspend":
                if machine.services is not None:
                    self._around.took["suspend"] += 1
                machine.suspend(fault.span_us)
            case "clock_jump":
                self._around.took["clock_jump"] += 1
                machine.clock.jump(fault.amount)
                self._around.timeline.after(0, self._world, self._compare_clocks)
                self._set.add(machine.name)
                self._oracle.believes_clock |= machine.services is None  # it will start by it
            case "database":
                both = fault.number % 2 == 0
                for each in self._machines if both else [machine]:
                    each.hazards.down_until = until_us
            case _:
                self._harm(machine.hazards, fault, until_us)

    def _harm(self, hazards: Hazards, fault: Fault, until_us: int) -> None:
        match fault.kind:
            case "disk_full":
                hazards.full_until = until_us
            case "fsync":
                hazards.applied_fails += fault.amount
            case "contention":
                hazards.contended += fault.amount
            case "slow_custody":
                hazards.slow_until, hazards.slow_us = until_us, fault.amount
            case "delay":
                hazards.late_until, hazards.late_us = until_us, fault.amount
            case "lost_notice":
                hazards.deaf_until = until_us
            case _:
                raise AssertionError(f"{fault.kind} strikes no machine")

    def _compare_clocks(self) -> None:
        """Once all that are set now are set."""
        self._oracle.clocks([machine.clock.now_ms() for machine in self._machines])

    def _crash(self, machine: Machine, fault: Fault) -> None:
        timeline = self._around.timeline

        def again() -> None:
            timeline.after(fault.span_us, self._world, machine.boot)

        if fault.amount < 0:
            machine.leave(again)
            self._around.took["crash"] += machine.services is not None
        elif fault.amount == 0:
            machine.die("at once")
            again()
        else:
            machine.hazards.steps_to_live = fault.amount
            timeline.after(fault.span_us + _S_US, self._world, machine.boot)

    def _died(self, name: str) -> None:
        """A vault is gone; the next one there starts by the wall clock as it is."""
        if name in self._set:
            self._oracle.believes_clock = True

    # --- what the oracle is told --------------------------------------------------------------

    def _committed(self, node: str, before: Tables, after: Tables) -> None:
        if after is before:
            return
        self._commits += 1
        epoch = after.epoch.epoch if after.epoch else 0
        known = len(self._oracle.rows.get(node, ()))
        self._oracle_commit(node, before, after)
        for _, body in self._oracle.rows[node][known:]:
            said = f"{body.op} {body.outcome} {body.reason} v{body.version} {body.ack}"
            self._tell(f"{node} {body.seq} e{body.epoch} {said} {body.count}")
        if before.epoch is not after.epoch:
            self._tell(f"{node} moves the epoch to {epoch}")
            self._notify(node, epoch)

    def _oracle_commit(self, node: str, before: Tables, after: Tables) -> None:
        known = len(self._oracle.findings)
        self._oracle.committed(node, before, after)
        for what in self._oracle.findings[known:]:
            self._tell(f"FINDING {what}")

    def _notify(self, node: str, epoch: int) -> None:
        for machine in self._machines:
            if machine.name != node:
                travel_us = self._around.dice.between(200, 4_000, "notice", machine.name, epoch)
                self._around.timeline.after(travel_us, self._world, machine.notice)

    def _issued(self, token: Token) -> None:
        self._oracle.tokens[token.chain_id] = token
        self._tell(f"a handle of generation {token.generation} is issued")

    def _left(self, asking: Asking, machine: Machine, answer: Answer) -> None:
        """An answer leaves a vault."""
        op = asking.op
        if isinstance(answer, Refused):
            self._answers[answer.code] += 1
            self._tell(f"{machine.name} refuses op {op.number} {op.what}: {answer.code}")
            self._refused(asking, machine, answer)
            return
        self._answers["ok"] += 1
        receipt = answer.receipt
        said = "" if receipt is None else f"{receipt.seq} v{receipt.version} {receipt.replayed}"
        self._tell(f"{machine.name} answers op {op.number} {op.what}: {said}")
        if receipt is not None and op.what in OPERATIONS:
            self._done(asking, machine, answer, receipt)
        elif op.what in STOPS and receipt is not None:
            self._oracle.stopped(receipt.epoch, machine.name)

    def _refused(self, asking: Asking, machine: Machine, answer: Refused) -> None:
        name = f"{machine.name} refuses op {asking.op.number} {asking.op.what}"
        if answer.code == "internal":
            self._wrong(f"I11 {name}: {answer.message}")
        if answer.code == "state_rolled_back":
            self._wrong(f"I10 {name}: {answer.message}")
        if answer.code == "log_unavailable" or not answer.request_id:
            return  # it may have been applied: so the client asks again
        rows = self._oracle.rows.get(machine.name, ())
        for _, body in reversed(rows[-60:]):
            if body.request == answer.request_id and body.outcome == "ok":
                self._wrong(f"I2 {name} as {answer.code}, its record {body.seq} says ok")

    def _done(self, asking: Asking, machine: Machine, answer: Done, receipt: Receipt) -> None:
        op = asking.op
        name = f"{machine.name} answers op {op.number} {op.what}"
        token = asking.token
        if token is None:
            raise AssertionError("a use has no handle")
        if op.what in ("off", "outside"):
            self._wrong(f"{'I1' if op.what == 'off' else 'I5'} {name}, which nothing allows")
        used = Used(token.key_id, receipt.version, OPERATIONS[op.what].partition(".")[2], token)
        self._oracle.acknowledged_here(name, machine.name, used)
        if receipt.seq is None:
            self._oracle.reserved(receipt.node, token.key_id, self._around.disk.tables)
            self._oracle.bound(name, used)
            if op.what != "edge":
                self._wrong(f"I2 {name} without a record")
            return
        rows = self._oracle.rows.get(receipt.node, [])
        if receipt.seq >= len(rows):
            self._wrong(f"I2 {name} with record {receipt.seq} of {receipt.node}, there is none")
            return
        row, body = rows[receipt.seq]
        expected = (OPERATIONS[op.what], "ok", receipt.request_id, receipt.version, receipt.epoch)
        met = (body.op, body.outcome, body.request, body.version, body.epoch)
        if met != expected:
            self._wrong(f"I2 {name} as {expected}, its record says {met}")
        if body.reason != f"op {op.number}" or body.link != token.chain_id:
            self._wrong(f"I6 {name} with the record of {body.reason}")
        result = msgspec.msgpack.decode(answer.result, type=_RESULTS[OPERATIONS[op.what]])
        self._result(name, result, lambda message: commits_to(row, body, message))

    def _result(self, name: str, result: object, commits: Callable[[bytes], bool]) -> None:
        if isinstance(result, UnwrapResult):
            if result.plaintext != SECRET:
                self._wrong(f"I2 {name} with another plaintext")
            return
        if isinstance(result, DeriveResult | TlsResult):
            return
        message = signed_message(result)
        if message is None or not commits(message):
            self._wrong(f"I2 {name} with something that its record does not commit to")
