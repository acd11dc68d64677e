"""A rollout under load whose node is killed at each of its stages, and checked after each kill."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from fault.crash.checker import Storage
from fault.crash.load import PATIENT, Rig, TokensLoad, UsesLoad, until_answered
from fault.crash.rollouts import Histories, rollout_findings, walks
from fault.crash.siege import TARGETS, Siege
from keystead.client import Client, Issued
from keystead.errors import Conflict, KeysteadError
from keystead.fsck.run import Options, verify
from keystead.keys.commands import KeyInfo
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.rollout.commands import RolloutInfo
from keystead.keys.rollout.plan import (
    Canary,
    Drain,
    Gates,
    Plan,
    Promote,
    Publish,
    Ramp,
    Retire,
)

__all__ = ["PLAN", "STAGES", "RollingReport", "RollingSiege", "roll"]

STAGES = ("publish", "canary", "ramp", "promote", "drain")
_NAME = "shop"
_REGISTRY = "registry.db"
PLAN = Plan(
    publish=Publish(overlap_ms=2_000, cache_ms=1_000),
    canary=Canary(share_ppm=200_000, length_ms=2_000),
    ramp=Ramp(steps_ppm=(500_000,), step_ms=2_000),
    promote=Promote(length_ms=2_000),
    drain=Drain(length_ms=3_000),
    retire=Retire(unpublish=True),
    # What a kill costs in time is no fault of a version; reports are what sends it back here.
    gates=Gates(window_ms=2_000, samples=10, error_ppm=1_000_000, p99_percent=0, reporters=0),
)
_REACHED_WITHIN_S = 60.0
_STRIKE_WITHIN_S = 0.8
_POLL_S = 0.05
_ROLLOUTS_MAX = 3


class RollingReport(msgspec.Struct, kw_only=True):
    """What was killed at which stage, how each rollout went, and what is wrong."""

    seed: int
    seconds: float = 0.0
    struck: list[tuple[str, str]] = []
    walks: list[list[str]] = []
    uses: int = 0
    records: int = 0
    findings: list[str] = []

    def lines(self) -> list[str]:
        """What a person reads of it."""
        struck = ", ".join(f"{target} at {stage}" for stage, target in self.struck)
        figures = f"{self.uses} uses answered, {self.records} records, {self.seconds:.0f} s"
        return [
            f"seed {self.seed}: killed {struck}; {figures}",
            *(f"  rollout: {' '.join(events)}" for events in self.walks),
            f"  {len(self.findings)} findings",
            *(f"    {finding}" for finding in self.findings),
        ]


class RollingSiege(Siege):
    """A node that signs tokens of a key in rollouts, with other uses beside it."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self.rolling = RollingReport(seed=seed)
        self.key: KeyInfo
        self._operator: Client
        self._shop: Issued
        self._relying: Issued
        self._loads: list[UsesLoad] = []

    def begin(self) -> None:
        """Make the deployment, and load it."""
        node = self.node
        node.start()
        self._operator = Client(node.address, operator=node.token, retry=PATIENT)
        self.rig = Rig.make(self._operator, node.address, node.token, 1)
        policy = Policy(jwt=JwtPolicy(issuer="siege", lifetime_max_s=2))
        self.key = self._operator.create_key(_NAME, "jwt", policy=policy, plan=PLAN)
        self._shop = self._operator.issue_handle(_NAME, "shop")
        self._relying = self._operator.issue_handle(_NAME, "gateway", operations=("report",))
        seed = str(self.rolling.seed)
        self._loads = [
            UsesLoad(0, self.rig, self.held, seed),
            TokensLoad(1, self._shop, self.rig, self.held, seed),
        ]
        for load in self._loads:
            load.start()

    def status(self) -> RolloutInfo:
        """How the rollout stands, once somebody answers."""
        return until_answered(lambda: self._operator.rollout_status(_NAME))

    def reach(self, reached: Callable[[RolloutInfo], bool]) -> RolloutInfo:
        """Wait until the rollout is there."""
        until = time.monotonic() + _REACHED_WITHIN_S
        while not reached(status := self.status()):
            if time.monotonic() > until:
                raise AssertionError(
                    f"not reached within {_REACHED_WITHIN_S} s: {status.stage}, {status.status},"
                    f" waits for {status.waits}"
                )
            time.sleep(_POLL_S)
        return status

    def rotate(self, *, killed: bool = False) -> None:
        """Begin a rollout, the vault killed meanwhile or not; it is begun once."""
        number = self.status().number
        killer = threading.Timer(self.random.uniform(0.0, 0.1), self._kill_vault)
        if killed:
            self.rolling.struck.append(("rotate", "vault"))
            killer.start()
        with suppress(Conflict):  # under way: the answer that said so was lost
            until_answered(lambda: self._operator.rotate_key(_NAME, reason="siege"))
        if killed:
            killer.join()
        self.reach(lambda status: status.number == number + 1)

    def strike(self, stage: str, target: str) -> str:
        """Kill it at an instant within a stage; gives the stage that it was at in fact."""
        self.reach(lambda status: status.stage == stage or status.status != "running")
        time.sleep(self.random.uniform(0.0, _STRIKE_WITHIN_S))
        return self.kill(target)

    def kill(self, target: str) -> str:
        """Kill it now, have it serve again, and check everything."""
        stage = self.status().stage
        before = self.node.children()
        orphans = self.node.strike(target)
        if orphans or target not in before:
            self._restart(orphans)
        self.rolling.struck.append((stage, target))
        self._until_serving({target: before[target]} if target in before else before)
        self._check(settled=False)
        self.check_rollouts()
        return stage

    @contextmanager
    def without_steward(self) -> Iterator[None]:
        """The steward is stopped as it is, and goes on after it."""
        steward = self.node.children()["steward"]
        os.kill(steward, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(steward, signal.SIGCONT)

    def tell(self) -> None:
        """A relying party tells of a token of the new version."""
        version = self.status().next
        seq = next(
            answer.receipt.seq
            for answer in reversed(self.held.answers())
            if answer.link == self._shop.link and answer.receipt.version == version
        )
        if seq is None:
            raise AssertionError("a durable use without a place in the log")
        told = self._operator.report_failure
        until_answered(lambda: told(_NAME, self._relying.handle, seq, "signature"))

    def check_rollouts(self) -> None:
        """Steps, uses and revisions, as they are in storage."""
        path = self.node.data / _REGISTRY
        histories = Histories.read(path)
        storage = Storage.read(path)
        overlap_ms = PLAN.publish.overlap_ms
        self.rolling.findings += rollout_findings(histories, storage, overlap_ms=overlap_ms)
        self.rolling.walks = walks(storage, self.key.id)

    def end(self) -> RollingReport:
        """End the load and the node; check everything once more, the log as an auditor would."""
        self.quiet()
        if not self.rolling.findings:
            self._settle()
            self.check_rollouts()
            told = verify(Options(data=self.node.data), lambda _at, _total, _found: None)
            self.rolling.findings += (f"fsck: {item}" for item in told.shown)
            self.rolling.records = told.records
        self.rolling.findings += self.report.findings
        self.rolling.uses = len(self.held)
        return self.rolling

    def quiet(self) -> None:
        """No more uses."""
        for load in self._loads:
            load.end()
        for load in self._loads:
            load.join(_REACHED_WITHIN_S * 2)
            if load.is_alive():
                self.rolling.findings.append(f"{load.name} hangs")
        self._loads = []
        self._operator.close()

    def _kill_vault(self) -> None:
        vault = self.node.children().get("vault")
        if vault is not None:
            os.kill(vault, signal.SIGKILL)


def roll(folder: Path, *, seed: int) -> RollingReport:
    """Rollouts to their end, until one was killed at each stage; and one that goes back."""
    siege = RollingSiege(folder, seed)
    begun = time.monotonic()
    try:
        siege.begin()
        _forward(siege)
        _back(siege)
    except (AssertionError, KeysteadError, RuntimeError) as exc:
        siege.rolling.findings.append(f"{type(exc).__name__}: {exc}")
    try:
        report = siege.end()
    finally:
        siege.node.stop()
    report.seconds = time.monotonic() - begun
    return report


def _forward(siege: RollingSiege) -> None:
    """A busy machine may miss a stage: then there is another rollout."""
    missed = set(STAGES)
    for _ in range(_ROLLOUTS_MAX):
        targets = siege.random.sample(sorted(TARGETS), len(STAGES))
        siege.rotate()
        for stage, target in zip(STAGES, targets, strict=True):
            if stage in missed:
                missed.discard(siege.strike(stage, target))
        siege.reach(lambda status: status.status == "finished")
        if not missed:
            return


def _back(siege: RollingSiege) -> None:
    """Reported while nobody makes rounds, and the vault killed: the report is kept, and heard.

    A vault that is left alone goes back by itself where something failed.
    """
    siege.rotate(killed=True)
    at = siege.random.randint(1, 3)  # a stage at which the new version is in use
    siege.reach(lambda status: status.stage in STAGES[at:])
    with siege.without_steward():
        siege.tell()
        siege.kill("vault")
        siege.reach(lambda status: status.status == "rolled_back")
