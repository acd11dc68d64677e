"""The processes of a drill's load, one a front: started, told what to do, heard and ended."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from keystead.drills.revocation.orders import Job, Order, Said
from keystead.drills.revocation.trace import Use
from keystead.errors import ServiceError

__all__ = ["Crew", "crew"]

_END_S = 60.0
_KILL_S = 5.0


class _Hand:
    """One process and what it last said of each target."""

    def __init__(self, job: Job, process: Process) -> None:
        self.job = job
        self._process = process
        self._said: set[tuple[str, int]] = set()
        self._news = asyncio.Condition()
        self._why = ""
        self._hearing = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        out = self._process.stdout
        while out is not None and (line := await out.readline()):
            said = msgspec.json.decode(line, type=Said)
            async with self._news:
                self._said.add((said.what, said.target))
                self._why = said.why or self._why
                self._news.notify_all()
        async with self._news:
            self._said.add(("ended", -1))
            self._news.notify_all()

    def order(self, order: Order) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")

    async def wait(self, what: str, target: int) -> None:
        """Until it says so.

        Raises:
            ServiceError: it has ended without.
        """
        async with self._news:
            await self._news.wait_for(
                lambda: (what, target) in self._said or ("ended", -1) in self._said
            )
        if (what, target) not in self._said:
            why = self._why or "it ended early"
            raise ServiceError(f"the load of {self.job.url} failed: {why}")

    async def close(self) -> None:
        """End the process, whatever it does."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _KILL_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._hearing.cancel()
        await asyncio.gather(self._hearing, return_exceptions=True)


class Crew:
    """All of them."""

    def __init__(self, hands: Sequence[_Hand]) -> None:
        self._hands = hands

    def heat(self, target: int) -> None:
        """Have a target used on every front from now on."""
        self._order(Order(do="heat", target=target))

    def stopped(self, target: int) -> None:
        """Tell that its revocation was acknowledged."""
        self._order(Order(do="stopped", target=target))

    async def wait(self, what: str, target: int, within_s: float) -> None:
        """Until every front says so.

        Raises:
            TimeoutError: one does not, in time.
            ServiceError: the load of one has ended.
        """
        async with asyncio.timeout(within_s):
            await asyncio.gather(*(hand.wait(what, target) for hand in self._hands))

    async def end(self) -> list[Use]:
        """End the load; gives all uses, in order of their beginning.

        Raises:
            ServiceError: the load of a front failed, or does not end.
        """
        self._order(Order(do="end"))
        try:
            await self.wait("done", -1, _END_S)
        except TimeoutError as exc:
            raise ServiceError("the load does not end") from exc
        uses: list[Use] = []
        for hand in self._hands:
            uses += _left(hand.job)
        return sorted(uses, key=lambda use: use.began_ns)

    def _order(self, order: Order) -> None:
        for hand in self._hands:
            hand.order(order)


def _left(job: Job) -> list[Use]:
    return msgspec.json.decode(Path(job.out).read_bytes(), type=list[Use])


@contextlib.asynccontextmanager
async def crew(jobs: Sequence[Job]) -> AsyncIterator[Crew]:
    """Start the load of each job, and end it whatever happens."""
    hands: list[_Hand] = []
    try:
        for job in jobs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "keystead.drills.revocation.loader"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
            )
            hand = _Hand(job, process)
            hands.append(hand)
            if process.stdin is not None:  # not an argument: others could read the handles
                process.stdin.write(msgspec.json.encode(job) + b"\n")
        yield Crew(hands)
    finally:
        for hand in hands:
            await hand.close()
