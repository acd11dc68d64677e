"""The load of one front, in a process of its own: ``python -m keystead.drills.revocation.loader``.

A :class:`Job` and then orders come on stdin. It says on stdout when a target is in use, and when it
is over; every use goes to the job's file at the end.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from keystead.client import AsyncClient, Receipt, operations
from keystead.client import Use as Asked
from keystead.drills.revocation.orders import Held, Job, Order, Said
from keystead.drills.revocation.targets import (
    HOT_PER_S,
    HOT_TASKS,
    REFUSALS,
    STEADY_BATCH,
    STEADY_PER_S,
    WARM_USES,
)
from keystead.drills.revocation.trace import OK, How, Use
from keystead.drills.revocation.unkeyed import Unkeyed
from keystead.errors import KeysteadError

__all__ = ["main"]

_LINE_BYTES_MAX = 8 * 1024 * 1024
_HASH = bytes(32)
_NOBODY = -1


class _Heat:
    """A target that is in use: how far it is."""

    def __init__(self, held: Held) -> None:
        self.held = held
        self.good = 0
        self.stopped_ns = 0
        self.refused = 0
        self.last: Asked[Any] | None = None
        self.over = False


class _Load:
    def __init__(self, client: AsyncClient, job: Job) -> None:
        self._client = client
        self._job = job
        self._held = {held.target: held for held in job.held if held.target != _NOBODY}
        self._steady = [held for held in job.held if held.target == _NOBODY]
        self._hot: _Heat | None = None
        self._news = asyncio.Event()
        self.uses: list[Use] = []

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Until the order to end, and then once more through all that was stopped."""
        tasks = [asyncio.create_task(self._heat(number)) for number in range(HOT_TASKS)]
        tasks.append(asyncio.create_task(self._go_on()))
        listening = asyncio.create_task(self._listen(orders))
        await asyncio.wait((listening, *tasks), return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for came in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(came, Exception):
                raise came
        await listening
        for held in self._held.values():
            await self._one(held, "last")

    async def _listen(self, orders: asyncio.StreamReader) -> None:
        while line := await orders.readline():
            order = msgspec.json.decode(line, type=Order)
            match order.do:
                case "heat":
                    self._hot = _Heat(self._held[order.target])
                    self._news.set()
                case "stopped" if self._hot is not None:
                    self._hot.stopped_ns = time.monotonic_ns()
                case _:
                    return

    async def _heat(self, number: int) -> None:
        """Use what is hot again and again, at this task's share of the rate."""
        every_s = HOT_TASKS / HOT_PER_S
        await asyncio.sleep(every_s * number / HOT_TASKS)
        while True:
            due_s = time.monotonic() + every_s
            hot = self._hot
            if hot is None or hot.over:
                self._news.clear()
                await self._news.wait()
                continue
            asked = self._asked(hot.held)
            self._heard(hot, asked, await self._one(hot.held, "hot", asked))
            await self._repeat(hot)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    def _heard(self, hot: _Heat, asked: Asked[Any], use: Use) -> None:
        """Whether a target is in use now, or over."""
        if use.outcome == OK:
            hot.last, hot.refused = asked, 0
            hot.good += use.ack == hot.held.work.ack
            if hot.good == WARM_USES:
                _say(Said(what="warm", target=hot.held.target))
        elif hot.stopped_ns and use.began_ns > hot.stopped_ns:
            hot.refused += 1

    async def _repeat(self, hot: _Heat) -> None:
        """At its end, what was answered last is asked for again: the stored answer must stay."""
        if hot.over or hot.refused < REFUSALS:
            return
        hot.over = True
        if hot.last is not None and hot.held.work.ack == "durable":
            await self._one(hot.held, "again", hot.last)
        _say(Said(what="over", target=hot.held.target))

    async def _go_on(self) -> None:
        """The steady load: batches at a rate of their own, each of one handle, in turn."""
        every_s = STEADY_BATCH / STEADY_PER_S
        place = 0
        while True:
            due_s = time.monotonic() + every_s
            held = self._steady[place % len(self._steady)]
            place += 1
            batch = [self._asked(held) for _ in range(STEADY_BATCH)]
            began_ns = time.monotonic_ns()
            for came in await self._client.batch(batch):
                self._took(held, "steady", began_ns, _receipt(came))
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _one(self, held: Held, how: How, asked: Asked[Any] | None = None) -> Use:
        asked = asked or self._asked(held)
        began_ns = time.monotonic_ns()
        came: Receipt | KeysteadError
        try:
            if held.work.ack == "durable":
                came = (await self._client.run(asked)).receipt
            else:
                came = await self._client.run(Unkeyed(use=asked))
        except KeysteadError as exc:
            came = exc
        return self._took(held, how, began_ns, came)

    def _took(self, held: Held, how: How, began_ns: int, came: Receipt | KeysteadError) -> Use:
        ended_ns = time.monotonic_ns()
        use = Use(
            target=held.target,
            front=self._job.front,
            how=how,
            began_ns=began_ns,
            ended_ns=ended_ns,
            outcome=OK,
        )
        if isinstance(came, Receipt):
            use = msgspec.structs.replace(
                use,
                ack=came.ack,
                node=came.node,
                seq=-1 if came.seq is None else came.seq,
                epoch=came.epoch,
                request=came.request_id,
            )
        else:
            use = msgspec.structs.replace(use, outcome=came.code or type(came).__name__)
        self.uses.append(use)
        return use

    def _asked(self, held: Held) -> Asked[Any]:
        if held.work.purpose == "jwt":
            return operations.sign_jwt(held.token, {"sub": "drill"}, context=self._job.context)
        return operations.sign_tls(held.token, _HASH, context=self._job.context)


def _receipt(came: Any) -> Receipt | KeysteadError:  # noqa: ANN401  an item of a batch
    return came if isinstance(came, KeysteadError) else came.receipt


def _say(said: Said) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.buffer.flush()


async def _run() -> tuple[Job, list[Use]]:
    orders = asyncio.StreamReader(limit=_LINE_BYTES_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    job = msgspec.json.decode(await orders.readline(), type=Job)
    async with AsyncClient(job.url) as client:
        load = _Load(client, job)
        await load.run(orders)
    return job, load.uses


def main() -> int:
    """Run one job; 0 if every use of it was left in its file."""
    try:
        job, uses = asyncio.run(_run())
        Path(job.out).write_bytes(msgspec.json.encode(uses))
    except (KeysteadError, OSError) as exc:
        _say(Said(what="failed", why=str(exc)))
        return 1
    _say(Said(what="done"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
