"""One deployment under load and faults: struck, healed, waited for, and judged at the end."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Self

import msgspec

from fault.cluster.checker import Evidence, findings
from fault.cluster.deployment import NODES, SERVES_WITHIN_S, Deployment
from fault.cluster.faults import FAULTS, NotStruckError, Struck, impossible
from fault.cluster.history import Attempt, History, Outcome
from fault.cluster.loads import EdgeLoad, Load, Probe, UsesLoad
from fault.cluster.logs import Storage
from fault.cluster.processes import wait_until
from fault.cluster.rig import Pool, Rig, Spenders
from fault.cluster.stopping import StoppingLoad
from keystead.client import Retry
from keystead.errors import KeysteadError

__all__ = ["KINDS", "Report", "Trial", "floors_missed", "work_missed"]

KINDS = tuple(kind for kind in FAULTS if not impossible(kind))
"""What can be injected on this machine; ``faults.impossible`` says why the rest cannot."""
_WORKERS = 6
_HOLDS_S = ((0.3, 3.0), (0.3, 3.0), (4.0, 14.0))
"""One in three holds longer than the deadline of a commit."""
_TOGETHER = 0.25
"""Share of rounds in which a second fault strikes while the first one holds."""
_QUIET_S = 1.0
_ENDS_WITHIN_S = 120.0
_RECORDED_WITHIN_S = 0.5
"""Best-effort records follow their answers within 50 ms."""


class Report(msgspec.Struct, kw_only=True):
    """What a trial did and found; ``recovery_s``: by kind, from healing to both nodes serving."""

    seed: int
    seconds: float = 0.0
    struck: dict[str, int] = {}
    evidence: list[str] = []
    recovery_s: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    findings: list[str] = []

    def lines(self) -> Iterator[str]:
        """What a person reads of it."""
        yield f"seed {self.seed}: {sum(self.struck.values())} faults in {self.seconds:.0f} s"
        for kind, count in sorted(self.struck.items()):
            slowest = max(self.recovery_s.get(kind, [0.0]))
            yield f"  {kind:<18} {count:>3}, both nodes served again after {slowest:.1f} s at most"
        yield "  " + ", ".join(f"{count} {what}" for what, count in self.counts.items())
        yield f"  {len(self.findings)} findings"
        yield from (f"    {finding}" for finding in self.findings)


class Trial:
    """A running deployment with its clients; faults are struck one after the other.

    ``say``: is told of each round as it ends.
    """

    def __init__(
        self, folder: Path, seed: int, *, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._say = say
        self.deployment = Deployment(folder)
        self.random = Random(seed)  # noqa: S311  a schedule, no secret
        self.history = History()
        self.report = Report(seed=seed)
        self._struck: Counter[str] = Counter()
        self._loads: list[Load] = []
        self._spenders = Spenders()
        self._probe: Probe
        self._begun_s = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            deployment = stack.enter_context(self.deployment)
            with (
                deployment.network.inside("clients"),
                deployment.client(NODES[0], retry=Retry()) as operator,
            ):
                rig = Rig.make(operator, _WORKERS)
            self._probe = Probe(deployment, self.history, rig.jwt)
            self._start(rig, str(self.report.seed))
            stack.callback(self._end_loads)
            self._stack = stack.pop_all()
        self._begun_s = time.monotonic()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _start(self, rig: Rig, seed: str) -> None:
        deployment, history, pool = self.deployment, self.history, Pool()
        self._loads += [
            UsesLoad(n, deployment, history, seed, rig=rig, pool=pool, spenders=self._spenders)
            for n in range(_WORKERS)
        ]
        self._loads.append(EdgeLoad(deployment, history, seed, edge=rig.edge))
        self._loads.append(
            StoppingLoad(deployment, history, seed, rig=rig, pool=pool, spenders=self._spenders)
        )
        for load in self._loads:
            load.start()

    def _end_loads(self) -> None:
        for load in self._loads:
            load.end()
        for load in self._loads:
            load.join(_ENDS_WITHIN_S)
            if load.is_alive():
                self.history.surprise(f"{load.name} hangs")
        self._loads.clear()

    # --- striking --------------------------------------------------------------------------------

    def round(self, kinds: Sequence[str], holds_s: float | None = None) -> None:
        """Strike one kind, or several at once; heal; wait until both nodes serve.

        Raises:
            AssertionError: a fault did not strike, or a node does not come back.
        """
        random, deployment = self.random, self.deployment
        held_s = random.uniform(*random.choice(_HOLDS_S)) if holds_s is None else holds_s
        struck: list[tuple[str, Struck]] = []
        healed_s = 0.0
        try:
            with ExitStack() as stack:
                for kind in kinds:
                    shown = stack.enter_context(FAULTS[kind](deployment, random))
                    struck.append((kind, shown))
                time.sleep(held_s)
        finally:
            healed_s = time.monotonic()
            for _, shown in struck:
                shown.come_back()
            self._wait_until_serving()
        recovery_s = time.monotonic() - healed_s
        for kind, _ in struck:
            self._struck[kind] += 1
            self.report.recovery_s.setdefault(kind, []).append(recovery_s)
        what = "; ".join(f"{kind} {dict(shown)}" for kind, shown in struck)
        self._tell(f"{what}: held {held_s:.1f} s, both serve after {recovery_s:.1f} s")
        time.sleep(_QUIET_S * random.random())

    def _tell(self, what: str) -> None:
        line = f"{time.monotonic() - self._begun_s:6.1f} s  {what}"
        self.report.evidence.append(line)
        self._say(line)

    def _wait_until_serving(self) -> None:
        """Each node commits a use, and answers it.

        Raises:
            AssertionError: one does not, in time.
        """
        for name in NODES:
            try:
                wait_until(partial(self._probe.answers, name), SERVES_WITHIN_S)
            except AssertionError:
                raise AssertionError(
                    f"node {name} commits nothing {SERVES_WITHIN_S:.0f} s after all was healed"
                ) from None

    def rounds(self, goes_on: Callable[[], bool]) -> int:
        """Deal kinds from shuffled decks, so that each has its turn; gives how many decks it was.

        The deck that is begun is dealt to its end.
        """
        decks = 0
        while not decks or goes_on():
            deck = list(KINDS)
            self.random.shuffle(deck)
            while deck:
                kinds = [deck.pop()]
                second = self.random.choice(KINDS)
                if self.random.random() < _TOGETHER and _get_on(kinds[0], second):
                    kinds.append(second)
                try:
                    self.round(kinds)
                except NotStruckError as exc:
                    # Of two that strike one node, one may leave the other nothing to strike.
                    if len(kinds) == 1:
                        self.report.findings.append(f"{kinds[0]}: {exc}")
                        return decks
                    deck.append(kinds[0])
                    self._tell(f"{kinds}: {exc}; dealt again")
                except (AssertionError, KeysteadError, RuntimeError, OSError) as exc:
                    self._tell(f"{kinds}: {exc}")
                    self.report.findings.append(f"{kinds}: {type(exc).__name__}: {exc}")
                    return decks
            decks += 1
        return decks

    # --- judging ---------------------------------------------------------------------------------

    def judge(self) -> Report:
        """Have the clients rest, and hold what they saw so far against what the nodes hold.

        Raises:
            AssertionError: a client does not come to rest although both nodes serve.
        """
        report, history = self.report, self.history
        for load in self._loads:
            load.rest()
        for load in self._loads:
            if not load.resting.wait(_ENDS_WITHIN_S):
                raise AssertionError(f"{load.name} hangs")
        time.sleep(_RECORDED_WITHIN_S)
        report.seconds = time.monotonic() - self._begun_s
        report.struck = dict(self._struck)
        attempts, stops = history.attempts(), history.stops()
        evidence = Evidence(attempts=attempts, stops=stops, budgets=self._spenders.budgets())
        storage = self.deployment.read()
        report.findings += history.surprises() + self.deployment.complaints()
        report.findings += findings(evidence, storage)
        report.counts = _counts(history, attempts, storage)
        for load in self._loads:
            load.go_on()
        return report

    def leave_for_a_look(self, folder: Path) -> None:
        """Write the history, what shows that faults struck, and all logs of nodes and server."""
        self.history.write(folder / "history.jsonl")
        (folder / "faults.txt").write_text("\n".join(self.report.evidence) + "\n")
        shutil.copy(self.deployment.database.log, folder / "server.log")
        for name, node in self.deployment.nodes.items():
            shutil.copytree(node.data / "logs", folder / f"{name}-logs")


def _get_on(one: str, other: str) -> bool:
    """Whether two kinds can hold at once: two of the database's, or two of one process, may not."""
    words = {kind.rpartition(" ")[2] for kind in (one, other)}
    database = {"database", "tablespace", "sessions"}
    if one == other or words <= database or "shift clock" in {one, other}:
        return False
    return not all(kind.startswith(("kill", "suspend")) for kind in (one, other))


_REFUSALS = {
    "refused as stopped": {"key_state", "handle_revoked"},
    "refused as not known yet": {"not_found", "handle_invalid"},
    "refused as spent": {"limit_exceeded"},
}


def _counts(history: History, attempts: Sequence[Attempt], storage: Storage) -> dict[str, int]:
    """What shows that there was something to check."""
    counted = dict(history.counts())
    answered = [a for a in attempts if a.outcome is Outcome.OK and a.receipt is not None]
    counted["replayed"] = sum(a.receipt is not None and a.receipt.replayed for a in answered)
    counted["replayed by the other node"] = sum(
        a.receipt is not None and a.receipt.replayed and a.front not in {a.receipt.node, "both"}
        for a in answered
    )
    for name, codes in _REFUSALS.items():
        counted[name] = sum(attempt.code in codes for attempt in attempts)
    counted["best effort"] = sum(a.receipt is not None and a.receipt.seq is None for a in answered)
    for node, log in storage.logs.items():
        counted[f"records of {node}"] = len(log.rows)
        counted[f"uses by {node}"] = sum(row.done for row in log.rows)
    counted["epochs"] = storage.epoch
    return counted


def floors_missed(report: Report, floor: int) -> list[str]:
    """Kinds that were struck less than ``floor`` times."""
    return [
        f"{kind}: struck {report.struck.get(kind, 0)} times, {floor} at least were to be"
        for kind in KINDS
        if report.struck.get(kind, 0) < floor
    ]


def work_missed(report: Report) -> list[str]:
    """Kinds of work that were never done, without which there is nothing to find."""
    work = ["ok", "stops", "replayed by the other node", "best effort"]
    work += ["refused as stopped", "refused as spent"]
    work += [f"uses by {node}" for node in NODES]
    return [f"nothing was {name}" for name in work if not report.counts.get(name)]
