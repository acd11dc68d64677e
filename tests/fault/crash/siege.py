"""A node under load whose processes are killed at seeded instants, and checked after each kill."""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

import msgspec

from fault.crash.checker import Evidence, Storage, findings
from fault.crash.held import Held
from fault.crash.load import BUDGET_USES, OperatorLoad, Rig, UsesLoad, sign_once, until_answered
from integration.node import Node
from keystead.client import Client
from keystead.errors import KeysteadError
from keystead.keys.verify.ledger import SignedEntry, verify_ledger

__all__ = [
    "TARGETS",
    "Kill",
    "Report",
    "SiegeNode",
    "besiege",
    "faults",
    "first_starts",
    "runs",
    "wait_until",
]

TARGETS = {"vault": 6, "front": 3, "steward": 1, "supervisor": 2, "all": 2}
"""What is killed, and how often it is drawn: the vault holds what can be lost."""
ROLES = ("vault", "steward", "front")
AGAIN = 0.3
"""Share of kills that are followed by another while the node still starts."""
SERVES_WITHIN_S = 60.0
ENDS_WITHIN_S = 30.0
WORKERS = 4
_TRACE_LINES = 40
_OF_A_KILL = re.compile(
    r"keystead: the \w+ process ended before it was ready|  See .*/logs/\w+\.log\.|"
)
"""What the supervisor rightly says when a child is killed while it starts."""


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """What was killed, in order; how long until it served again; how many answers were out."""

    targets: tuple[str, ...]
    restart_s: float
    answers: int


class Report(msgspec.Struct, kw_only=True):
    """What one siege did and found. ``start_s``: an undisturbed start, from nothing to a use."""

    seed: int
    start_s: float = 0.0
    seconds: float = 0.0
    kills: list[Kill] = []
    uses: int = 0
    records: int = 0
    created: int = 0
    moves: int = 0
    outcomes: dict[str, int] = {}
    findings: list[str] = []

    def multiples(self, target: str | None = None) -> list[float]:
        """Restart times in undisturbed starts, of single kills of a target or of all kills."""
        return sorted(
            kill.restart_s / self.start_s
            for kill in self.kills
            if target is None or kill.targets == (target,)
        )

    def struck(self) -> Counter[str]:
        """How often each target was killed."""
        return Counter(target for kill in self.kills for target in kill.targets)

    def lines(self) -> Iterator[str]:
        """What a person reads of it."""
        struck = ", ".join(f"{count} {target}" for target, count in sorted(self.struck().items()))
        yield (
            f"seed {self.seed}: {sum(self.struck().values())} kills ({struck}) in"
            f" {self.seconds:.0f} s; {self.uses} uses answered, {self.records} records,"
            f" {self.created} keys made, {self.moves} moves"
        )
        yield f"  start undisturbed {self.start_s:.2f} s; restart in multiples of it:"
        for target in (*TARGETS, None):
            found = self.multiples(target)
            if found:
                yield (
                    f"    {target or 'every kill':<11} median {statistics.median(found):.2f},"
                    f" worst {found[-1]:.2f}, of {len(found)}"
                )
        yield f"  {len(self.findings)} findings"
        yield from (f"    {finding}" for finding in self.findings)


class SiegeNode(Node):
    """A node whose processes can be killed, and whose own words are kept."""

    def __init__(self, data: Path) -> None:
        self.address = f"http://127.0.0.1:{(port := _free_port())}"
        super().__init__(data, listen=f"127.0.0.1:{port}")
        self.said: list[str] = []

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        if self._process is None:
            raise RuntimeError("the node does not run")
        return self._process.pid

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, wait for it, and keep what it said on stderr."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        _, err = process.communicate(timeout=SERVES_WITHIN_S)
        self.said += (line for line in err.splitlines() if not _OF_A_KILL.fullmatch(line))
        return process.returncode

    def strike(self, target: str) -> list[int]:
        """SIGKILL; gives the processes that must now end by themselves."""
        children = self.children()
        if target in ROLES:
            if target in children:
                _kill(children[target])
            return []
        if target == "all":
            for number in (self.pid, *children.values()):
                _kill(number)
        self.stop(signal.SIGKILL)
        return list(children.values())


class Siege:
    """One deployment, its clients, and who kills it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.node = SiegeNode(folder / "data")
        self.random = Random(seed)  # noqa: S311  a schedule, no secret
        self.held = Held()
        self.report = Report(seed=seed)
        self._probes = 0
        self.rig: Rig

    def prepare(self) -> None:
        """Make the deployment and its keys, and time its start when nothing disturbs it."""
        with self.node, self.node.client() as operator:
            self.rig = Rig.make(operator, self.node.address, self.node.token, WORKERS)
        begun = time.monotonic()
        self.node.start()
        self._until_serving({})
        self.report.start_s = time.monotonic() - begun
        self.node.stop()

    def run(self, goes_on: Callable[[int], bool]) -> Report:
        """Kill until told to stop, then settle and check everything once more."""
        self.node.start()
        begun = time.monotonic()
        loads = [
            *(
                UsesLoad(number, self.rig, self.held, str(self.report.seed))
                for number in range(WORKERS)
            ),
            OperatorLoad(self.rig, self.held, str(self.report.seed)),
        ]
        for load in loads:
            load.start()
        try:
            while goes_on(len(self.report.kills)) and not self.report.findings:
                time.sleep(self.random.uniform(0.02, 1.2))
                self._kill()
                self._check(settled=False)
        except (AssertionError, KeysteadError, RuntimeError) as exc:
            self.report.findings.append(f"it does not serve again: {type(exc).__name__}: {exc}")
        finally:
            for load in loads:
                load.end()
            for load in loads:
                load.join(SERVES_WITHIN_S * 2)
        self.report.findings += (f"{load.name} hangs" for load in loads if load.is_alive())
        if not self.report.findings:
            self._settle()
        self.report.seconds = time.monotonic() - begun
        return self.report

    def _kill(self) -> None:
        targets = []
        before = self.node.children()
        begun = time.monotonic()
        while True:
            (target,) = self.random.choices(list(TARGETS), list(TARGETS.values()))
            again = self.random.random() < AGAIN
            pause_s = self.random.uniform(0.0, 0.6)
            targets.append(target)
            orphans = self.node.strike(target)
            if orphans or target not in ROLES:
                self._restart(orphans)
            if not again:
                break
            time.sleep(pause_s)
        killed = {role: pid for role, pid in before.items() if _was_hit(role, targets)}
        self._until_serving(killed)
        self.report.kills.append(
            Kill(
                targets=tuple(targets),
                restart_s=time.monotonic() - begun,
                answers=len(self.held),
            )
        )

    def _restart(self, orphans: list[int]) -> None:
        """As a service manager does: start it again, as soon as the folder is free."""
        until = time.monotonic() + ENDS_WITHIN_S
        while any(map(runs, orphans)) and time.monotonic() < until:
            time.sleep(0.01)
        left = [number for number in orphans if runs(number)]
        if left:
            self.report.findings.append(f"{len(left)} children outlive their supervisor")
            for number in left:
                _kill(number)
        self.node.start()

    def _until_serving(self, killed: dict[str, int]) -> None:
        """Every role runs in a new process, and a fresh client's use is answered."""
        until = time.monotonic() + SERVES_WITHIN_S
        self._probes += 1
        key = f"probe-{self._probes}"
        used = until_answered(lambda: sign_once(self.node.address, self.rig.jwt, key), until)
        self.held.used("jwt.sign", self.rig.jwt.link, key, used)
        while True:
            now = self.node.children()
            if now.keys() >= set(ROLES) and all(now[role] != pid for role, pid in killed.items()):
                return
            if time.monotonic() > until:
                raise AssertionError(f"expected {ROLES} to run again, met {sorted(now)}")
            time.sleep(0.01)

    def _check(self, *, settled: bool) -> Storage:
        budgets = {issued.link: BUDGET_USES for issued in self.rig.budgets}
        evidence = Evidence(  # before storage is read: what is answered later needs not be there
            answers=self.held.answers(),
            created=self.held.made(),
            moves=self.held.moves(),
            budgets=budgets,
            settled=settled,
        )
        storage = Storage.read(self.node.data / "registry.db")
        self.report.findings += findings(evidence, storage)
        self.report.findings += self.held.surprises()
        return storage

    def _settle(self) -> None:
        """Nothing is under way any more: clients and storage hold the same, and all keys sign."""
        self._until_serving({})
        with Client(self.node.address) as client:
            for created in self.held.made():
                key = f"last-{created.key.id}"
                used = client.sign_jwt(
                    created.issued.handle, {"sub": key}, context="own", idempotency_key=key
                )
                self.held.used("jwt.sign", created.issued.link, key, used)
            self._verify_ledger(client)
        status = self.node.stop()
        storage = self._check(settled=True)
        report = self.report
        report.findings += (f"the node said: {text}" for text in self.node.said)
        report.findings += (f"exit status {status}" for _ in range(status != 0))
        report.findings += faults(self.node.data / "logs")
        report.uses, report.records = len(self.held), len(storage.rows)
        report.created, report.moves = len(self.held.made()), len(self.held.moves())
        report.outcomes = dict(Counter(row.outcome for row in storage.rows))

    def _verify_ledger(self, client: Client) -> None:
        entries = {
            answer.result.sequence: SignedEntry(
                document=answer.result.document,
                signatures=answer.result.signatures,
                entry=answer.idempotency_key.encode(),
            )
            for answer in self.held.answers()
            if answer.operation == "ledger.append"
        }
        try:
            verify_ledger([entries[at] for at in sorted(entries)], client.public_key("ledger"))
        except KeysteadError as exc:
            self.report.findings.append(f"the ledger does not verify: {exc}")


def besiege(folder: Path, *, seed: int, goes_on: Callable[[int], bool]) -> Report:
    """One siege in a folder of its own; ``goes_on`` is asked with the number of kills so far."""
    siege = Siege(folder, seed)
    siege.prepare()
    try:
        return siege.run(goes_on)
    finally:
        siege.node.stop()


def first_starts(folder: Path, *, seed: int, count: int) -> list[str]:
    """Kill deployments while they are made; gives what is wrong with those that start after it.

    Each is killed at a seeded share of the time that the first one took in peace.
    """
    random = Random(f"{seed}/first")  # noqa: S311  a schedule, no secret
    begun = time.monotonic()
    with SiegeNode(folder / "peace"):
        whole_s = time.monotonic() - begun
    found: list[str] = []
    for number in range(count):
        node = SiegeNode(folder / f"first{number}")
        share = random.uniform(0.02, 1.0)
        process = node.spawn()
        time.sleep(share * whole_s)
        orphans = list(_children_of(process.pid))
        target = random.choice(("supervisor", "all"))
        for pid in (process.pid, *(orphans if target == "all" else ())):
            _kill(pid)
        process.communicate()
        wait_until(partial(_have_ended, orphans))
        try:
            with node, node.client() as operator:
                operator.create_key("made", "ledger")
        except (KeysteadError, RuntimeError, OSError) as exc:
            found.append(f"{target} killed at {share:.2f} of the first start: {exc!r}")
        found += faults(node.data / "logs")
    return found


def wait_until(reached: Callable[[], bool]) -> None:
    """Raise if it is not reached within ``ENDS_WITHIN_S``."""
    until = time.monotonic() + ENDS_WITHIN_S
    while not reached():
        if time.monotonic() > until:
            raise AssertionError(f"not reached within {ENDS_WITHIN_S} s")
        time.sleep(0.01)


def _have_ended(pids: list[int]) -> bool:
    return not any(map(runs, pids))


def _children_of(parent: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                yield int(path.parent.name)


def _was_hit(role: str, targets: list[str]) -> bool:
    return role in targets or "all" in targets or "supervisor" in targets


def faults(logs: Path) -> Iterator[str]:
    """A traceback or a fault in a log is a finding, whatever clients saw of it."""
    for path in sorted(logs.glob("*.log")):
        lines = path.read_text(errors="replace").splitlines()
        for at, line in enumerate(lines):
            if "Traceback" in line or '"fault"' in line:
                yield f"{path.name}: " + "\n".join(lines[at : at + _TRACE_LINES])
                break


def _kill(number: int) -> None:
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        return


def runs(number: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _free_port() -> int:
    """A port below those that the kernel gives to clients.

    Who knocks at a closed one of those may be connected to itself, by TCP's simultaneous open (RFC
    9293 section 3.5), and then keeps it from the node that comes back.
    """
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free from 20000 to 32000")
