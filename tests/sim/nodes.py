"""One machine of the deployment: its disk's store, its clocks, and the vault that runs on it.

The vault is the real one, put together by ``vault.wiring``; it ends by a crash or in order, and is
started again. Only what is a thread there is an event here: committer, executors, epoch watch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from keystead import limits
from keystead.errors import CommitContended, KeysteadError, LogUnavailable
from keystead.frames.messages import Answer, Checkpoint, Request, Tend
from keystead.ports import Custody, Fence, IdempotencyRow, Journal, Transaction
from keystead.testing.clocks import SeededRandom
from keystead.testing.faulty_journal import FaultyJournal
from keystead.testing.memory_store import Fault, MemoryDisk, MemoryStore, MemoryWatch, Tables
from keystead.vault.macs import VaultSecrets
from keystead.vault.start import found, record_gaps
from keystead.vault.wiring import Base, Services, wire
from sim.dice import Dice
from sim.hazards import Crashed, Hazards, SlowCustody, StepsToLive, give_up
from sim.timeline import Actor, NodeClock, NodeLoop, Timeline

__all__ = ["Machine", "Surroundings", "quiet"]

_MS = 1_000
_TEND_US = 1_000_000
_CHECKPOINT_US = 1_700_000
_BOOT_AGAIN_US = 250_000
_FLUSH_US = round(limits.BEST_EFFORT_FLUSH_S * 1_000_000)
_GIVES_UP_ONE_IN = 8
_STEWARD_HEARS = frozenset({"ok", "log_unavailable", "custody_unavailable", "conflict"})
"""A conflict: two nodes made the tenant of their logs' keys at once; one asks again."""


class Surroundings:
    """What all machines stand in. ``tell``: a line of the trace. ``wrong``: a finding.

    ``committed``: called after each transaction of a machine with the state before and after it.
    ``restarted``: called before a vault starts, ``died`` when one is gone.
    """

    def __init__(self, dice: Dice, deployment: str, secrets: VaultSecrets, *, alone: bool) -> None:
        self.timeline = Timeline()
        self.disk = MemoryDisk()
        self.dice = dice
        self.deployment = deployment
        self.secrets = secrets
        self.alone = alone
        self.took: Counter[str] = Counter()
        self.tell: Callable[[str], None] = quiet
        self.wrong: Callable[[str], None] = quiet
        self.committed: Callable[[str, Tables, Tables], None] = quiet
        self.died: Callable[[str], None] = quiet


def quiet(*_args: object) -> None:
    """Nobody listens."""


class _Store(MemoryStore):
    """On a shared database a look at an idempotency key is a round trip: the commit decides."""

    def __init__(self, disk: MemoryDisk, node: str, *, alone: bool) -> None:
        super().__init__(disk, node)
        self._alone = alone

    def idempotent_at_hand(self, scope: str, key: str) -> IdempotencyRow | None:
        return self.idempotent(scope, key) if self._alone else None


class Machine:
    """``services``: of the vault that runs; None while none does. ``start``: how many did."""

    def __init__(self, name: str, around: Surroundings, custody: Custody, clock: NodeClock) -> None:
        self.name = name
        self.around = around
        self.clock = clock
        self.hazards = Hazards(around.took)
        self.store = _Store(around.disk, name, alone=around.alone)
        self.services: Services | None = None
        self.start = 0
        self._custody = SlowCustody(custody, self._slowly)
        self._machine = Actor(name)
        self._actors: tuple[Actor, Actor] = (self._machine, self._machine)
        self._loop: NodeLoop | None = None
        self._commits = 0
        self._requests = 0
        self._pumping = False
        self._watched = -1

    # --- life ---------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start a vault; if its database does not answer, again in a moment."""
        if self.services is not None:
            return
        around = self.around
        self.start += 1
        name = f"{self.name}.{self.start}"
        self._actors = (Actor(name), Actor(f"{name}/committer"))
        loop = NodeLoop(  # type: ignore[abstract]  # what a vault asks of no loop is missing
            around.timeline, self._actors[0], self.clock, job_us=self._job_us, done=self._pump
        )
        self._look_at_database()
        try:
            with loop.running():
                self.services = self._opened()
        except LogUnavailable:
            around.tell(f"{self.name} cannot start")
            around.timeline.after(_BOOT_AGAIN_US, self._machine, self.boot)
            return
        except Crashed as crash:
            around.took["crash"] += 1
            around.tell(f"{self.name} died at its start {crash}")
            around.timeline.after(_BOOT_AGAIN_US, self._machine, self.boot)
            return
        self._loop = loop
        self._pumping = False
        self._watched = -1
        around.tell(f"{self.name} started {self.start}")
        offset = around.dice.below(_TEND_US, "round", self.name, self.start)
        self._every(_TEND_US, Tend, offset)
        self._every(_CHECKPOINT_US, Checkpoint, offset + _TEND_US // 2)
        self._poll()

    def _opened(self) -> Services:
        around = self.around
        number = around.dice.below(2**62, "random", self.name, self.start)
        random, journal = SeededRandom(number), _SimJournal(self)
        snapshot = found(self.store, around.secrets)
        gap = record_gaps(
            self.store,
            journal,
            epoch=snapshot.epoch,
            node=self.name,
            clock=self.clock,
            random=random,
        )
        around.tell(f"{self.name} found epoch {snapshot.epoch} gap {gap}")
        return wire(
            Base(
                registry=self.store,
                journal=journal,
                log_reader=self.store,
                custody=self._custody,
                secrets=around.secrets,
                clock=self.clock,
                random=random,
                snapshot=snapshot,
                deployment=around.deployment,
                node=self.name,
                protections={},
                watch=None if around.alone else MemoryWatch(around.disk),
            )
        )

    def die(self, why: str) -> None:
        """The process is gone, with all that it had not committed, and had not sent."""
        if self.services is None:
            return
        for actor in self._actors:
            actor.alive = False
        self.services.opened.close()  # else the test's own process would keep what it locked
        self.services, self._loop = None, None
        self.hazards.steps_to_live = 0
        self.around.took["crash"] += 1
        self.around.tell(f"{self.name} died {why}")
        self.around.died(self.name)

    def suspend(self, span_us: int) -> None:
        """Nothing of the process runs for a while; its clocks do."""
        until_us = self.around.timeline.now_us + span_us
        for actor in self._actors:
            actor.stand(until_us)
        self.around.tell(f"{self.name} stands for {span_us}")

    def leave(self, then: Callable[[], None]) -> None:
        """End in order: what is under way is committed, reservations are closed."""
        services, loop = self.services, self._loop
        if services is None or loop is None:
            return

        async def ending() -> None:
            services.rotating.close()
            await services.publications.close()
            await services.checkpoints.close()
            services.tending.finish()

        def ended(attempt: int = 0) -> None:
            if self.services is not services:
                return  # it died on the way
            if services.committer.waiting and attempt < 100:
                loop.run_soon(lambda: ended(attempt + 1), 10 * _MS)
                return
            for actor in self._actors:
                actor.alive = False
            services.opened.close()
            self.services, self._loop = None, None
            self.around.tell(f"{self.name} left")
            self.around.died(self.name)
            then()

        loop.run_soon(lambda: quiet(loop.create_task(ending())))
        loop.run_soon(ended, 20 * _MS)

    # --- asking -------------------------------------------------------------------------------

    def ask(self, request: Request, reply: Callable[[Answer], None]) -> bool:
        """Hand it a request; False: nobody listens there."""
        services, loop = self.services, self._loop
        if services is None or loop is None:
            return False
        self._look_at_database()
        loop.run_soon(lambda: services.service.begin(request, reply))
        return True

    def notice(self) -> None:
        """A notification of the database comes: another node may have changed something."""
        now_us = self.around.timeline.now_us
        if now_us < self.hazards.deaf_until:
            self.hazards.took["lost_notice"] += 1
            return
        self._follow()

    def _poll(self) -> None:
        loop = self._loop
        if loop is None:
            return
        self._follow()
        poll_us = round(limits.EPOCH_POLL_S * 1_000_000)
        self.around.timeline.after(poll_us, self._actors[1], self._poll)

    def _follow(self) -> None:
        """What the watch's thread does: read the epoch, and tell the loop."""
        services, loop = self.services, self._loop
        if services is None or loop is None or services.following is None:
            return
        self._look_at_database()
        try:
            row = self.store.epoch()
        except LogUnavailable:
            return
        following, epoch = services.following, row.epoch if row else 0
        loop.run_soon(lambda: following.moved(epoch))

    def _every(self, period_us: int, kind: type[Tend | Checkpoint], offset_us: int) -> None:
        loop = self._loop

        def again() -> None:
            if self._loop is not loop or loop is None:
                return
            self._requests += 1
            self.ask(kind(self._requests), self._told)
            self._look_after()
            self.around.timeline.after(period_us, self._machine, again)

        self.around.timeline.after(offset_us % period_us, self._machine, again)

    def _told(self, answer: Answer) -> None:
        code = getattr(answer, "code", "ok")
        if code not in _STEWARD_HEARS:
            self.around.wrong(f"I11 {self.name} answers its steward: {answer}")

    def _look_after(self) -> None:
        """What the vault itself says to be broken."""
        services, loop = self.services, self._loop
        if services is None or loop is None:
            return
        standing = services.standing
        if standing.tampered is not None:
            self.around.wrong(f"I10 {self.name} believes that it was tampered with")
        for (name, label), count in standing.counters.items():
            if name == "invariant_violations" and count:
                self.around.wrong(f"{label} {self.name} counts a violation")
        for fault in loop.faults:
            self.around.wrong(f"I11 {self.name} left an exception to its loop: {fault}")
        if services.committer.waiting > limits.VAULT_QUEUE_MAX:
            self.around.wrong(f"I11 {self.name} has {services.committer.waiting} uses waiting")

    # --- the threads that are none ------------------------------------------------------------

    def _pump(self) -> None:
        """After each turn of the loop: what was queued is committed in a moment."""
        services = self.services
        if services is None or self._pumping or not services.committer.waiting:
            return
        self._pumping = True
        wait_us = self.around.dice.between(100, 900, "gather", self.name, self._commits)
        self.around.timeline.after(wait_us + self._late_us(), self._actors[1], self._commit)

    def _commit(self) -> None:
        services, loop = self.services, self._loop
        if services is None or loop is None:
            return
        self._commits += 1
        tail_us = self.around.dice.between(200, 3_000, "tail", self.name, self._commits)
        tail_us += self._late_us()
        loop.tail_us = tail_us
        self._look_at_database()
        try:
            went = services.committer.step(wait=False)
        except Crashed as crash:
            self.die(f"in a commit {crash}")
            return
        if not went:
            self._pumping = False
            return
        if not services.committer.waiting:
            tail_us = max(tail_us, _FLUSH_US)
        self.around.timeline.after(tail_us, self._actors[1], self._commit)

    def _job_us(self) -> int:
        now_us = self.around.timeline.now_us
        self._requests += 1
        took = self.around.dice.between(200, 2_500, "job", self.name, self._requests)
        if now_us < self.hazards.slow_until:
            self.hazards.took["slow_custody"] += 1
            return took + self.hazards.slow_us
        return took

    def _slowly(self) -> None:
        """One signature: while the custody is slow, the loop stands, or the custody gives up."""
        now_us = self.around.timeline.now_us
        if now_us >= self.hazards.slow_until:
            return
        self.hazards.took["slow_custody"] += 1
        self._requests += 1
        self._actors[0].stand(now_us + self.hazards.slow_us // 8)
        if self.around.dice.below(_GIVES_UP_ONE_IN, "gives up", self.name, self._requests) == 0:
            give_up()

    def _late_us(self) -> int:
        if self.around.timeline.now_us >= self.hazards.late_until:
            return 0
        self.hazards.took["delay"] += 1
        return self.hazards.late_us

    def _look_at_database(self) -> None:
        down = self.around.timeline.now_us < self.hazards.down_until
        if down and not self.store.down:
            self.hazards.took["database"] += 1
        self.store.down = down


class _SimJournal:
    """Behind the port ``Journal``: the machine's store, with what stands against it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @contextmanager
    def transaction(self, fence: Fence = "exclusive") -> Iterator[Transaction]:
        machine, hazards = self._machine, self._machine.hazards
        disk = machine.around.disk
        before = disk.tables
        journal: Journal = machine.store
        if hazards.steps_to_live > 0:
            journal = FaultyJournal(journal, StepsToLive(hazards))
        fault: Fault | None = None
        try:
            with journal.transaction(fence) as tx:
                yield tx
                if hazards.contends():
                    raise CommitContended("another node came between", hint="Send it again")
                fault = hazards.commit_fault(machine.around.timeline.now_us)
                if fault is Fault.NOT_APPLIED:
                    raise LogUnavailable("the disk is full", hint="Make room")
            if fault is Fault.APPLIED:
                raise LogUnavailable("the disk failed as it was flushed", hint="Look at it")
        except KeysteadError as exc:
            machine.around.tell(f"{machine.name} commit fails: {type(exc).__name__}")
            raise
        finally:
            machine.around.committed(machine.name, before, disk.tables)
