"""Time that passes only from event to event, for any number of nodes, clients and faults.

No thread, no wait, no clock of the machine. Every node has an event loop of its own kind on it, so
that a node that is dead or suspended runs nothing, while all others go on.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from asyncio import _set_running_loop  # what an event loop of one's own has to call
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple, Unpack

__all__ = ["START_MS", "Actor", "NodeClock", "NodeLoop", "Timeline"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_S_US = 1_000_000
START_MS = 1_790_000_000_000
_START_BOOT_US = 3_600 * _S_US


class Actor:
    """Whose events they are. A dead one's are dropped; of one that stands still they wait."""

    __slots__ = ("alive", "name", "stands_until_us")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stands_until_us = 0

    def stand(self, until_us: int) -> None:
        """Do nothing until then; a longer stand that is under way is not cut short."""
        self.stands_until_us = max(self.stands_until_us, until_us)


class Timeline:
    """Events in the order of their times, those of one time in the order they were asked for."""

    def __init__(self) -> None:
        self.now_us = 0
        self.steps = 0
        self._heap: list[tuple[int, int, Actor, Callable[[], None]]] = []
        self._count = 0

    def at(self, when_us: int, actor: Actor, call: Callable[[], None]) -> None:
        """Have it called then, or now if that is over."""
        self._count += 1
        heapq.heappush(self._heap, (max(when_us, self.now_us), self._count, actor, call))

    def after(self, delay_us: int, actor: Actor, call: Callable[[], None]) -> None:
        """Have it called after a while."""
        self.at(self.now_us + delay_us, actor, call)

    def step(self) -> bool:
        """One event; False: there is none."""
        while self._heap:
            when_us, count, actor, call = heapq.heappop(self._heap)
            if not actor.alive:
                continue
            if actor.stands_until_us > when_us:
                heapq.heappush(self._heap, (actor.stands_until_us, count, actor, call))
                continue
            self.now_us = when_us
            self.steps += 1
            call()
            return True
        return False

    def run(self, until_us: int) -> None:
        """All events up to a time; then it is that time."""
        while self._heap and self._heap[0][0] <= until_us:
            self.step()
        self.now_us = max(self.now_us, until_us)


class NodeClock:
    """One machine's clocks, behind the port ``Clock``: the boot clock drifts, the wall clock jumps.

    They go on over a crash of the node, which is the process and not the machine.
    """

    def __init__(self, timeline: Timeline, *, drift_ppm: int = 0, skew_ms: int = 0) -> None:
        self._timeline = timeline
        self._drift_ppm = drift_ppm
        self._wall_ms = START_MS + skew_ms

    def boottime_us(self) -> int:
        passed = self._timeline.now_us
        return _START_BOOT_US + passed + passed * self._drift_ppm // 1_000_000

    def now_ms(self) -> int:
        return self._wall_ms + (self.boottime_us() - _START_BOOT_US) // 1000

    def boottime_ms(self) -> int:
        return self.boottime_us() // 1000

    def ticks_us(self) -> int:
        return self.boottime_us()

    def jump(self, ms: int) -> None:
        """Someone sets the wall clock, forwards or back."""
        self._wall_ms += ms


class NodeLoop(asyncio.AbstractEventLoop):
    """The loop of one start of a node. ``worker``: who runs what is given to executors.

    ``tail_us``: how long after the committer's call what it tells the loop comes there; in order.
    ``job_us``: how long a job in an executor takes. ``done``: called after each of its events.
    """

    def __init__(
        self,
        timeline: Timeline,
        actor: Actor,
        clock: NodeClock,
        *,
        job_us: Callable[[], int],
        done: Callable[[], None],
    ) -> None:
        self._timeline = timeline
        self._actor = actor
        self._clock = clock
        self._job_us = job_us
        self._done = done
        self._told_us = 0
        self._free_us: dict[int, int] = {}
        self.tail_us = 0
        self.faults: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """The loop is the running one, for what asks which one that is."""
        _set_running_loop(self)
        try:
            yield
        finally:
            _set_running_loop(None)

    def run_soon(self, call: Callable[[], None], delay_us: int = 0) -> None:
        """Have something done on the loop."""

        def called() -> None:
            with self.running():
                call()
            self._done()

        self._timeline.after(delay_us, self._actor, called)

    # --- what asyncio and the vault ask of a loop ---------------------------------------------

    def time(self) -> float:
        return self._clock.boottime_us() / _S_US

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.run_soon(lambda: self._run(handle))
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """From the committer: it comes a little later, and not before what came before it."""
        handle = asyncio.Handle(callback, args, self, context)
        self._told_us = max(self._told_us, self._timeline.now_us + self.tail_us)
        self.run_soon(lambda: self._run(handle), self._told_us - self._timeline.now_us)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.time() + delay, callback, args, self, context)
        self.run_soon(lambda: self._run(handle), max(0, round(delay * _S_US)))
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[_T]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[Unpack[_Ts]], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]:
        """Run it later, in one go, as a thread beside the loop would; one by one if it is alone."""
        future: asyncio.Future[_T] = self.create_future()
        ends_us = self._timeline.now_us + self._job_us()
        if isinstance(executor, ThreadPoolExecutor) and executor._max_workers == 1:  # noqa: SLF001  nothing public tells
            ends_us = max(ends_us, self._free_us.get(id(executor), 0))
            self._free_us[id(executor)] = ends_us

        def work() -> None:
            try:
                future.set_result(func(*args))
            except Exception as exc:  # noqa: BLE001  whoever waits for the future gets it
                future.set_exception(exc)

        self.run_soon(work, ends_us - self._timeline.now_us)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What nobody catches, no loop should have to."""
        exc = context.get("exception")
        self.faults.append(f"{context.get('message')}: {type(exc).__name__}: {exc}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is looked at when its time comes."""

    def _run(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled():
            handle._run()  # noqa: SLF001  as every event loop does
