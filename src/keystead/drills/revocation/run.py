"""The whole drill: what it sets up, the revocations under load, and what it leaves behind."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from keystead.client import AsyncClient
from keystead.client.admin import Ask
from keystead.client.core import decode
from keystead.drills.revocation.answers import revocation, stopped
from keystead.drills.revocation.crew import Crew, crew
from keystead.drills.revocation.expected import checks
from keystead.drills.revocation.figures import figures
from keystead.drills.revocation.orders import Held, Job
from keystead.drills.revocation.reading import read_change, read_uses
from keystead.drills.revocation.report import Report, judged
from keystead.drills.revocation.setting import Setting, end_use, make
from keystead.drills.revocation.targets import Target, targets
from keystead.drills.revocation.timeline import timeline
from keystead.drills.revocation.trace import Front, Stopped, Trace
from keystead.errors import Conflict
from keystead.keys.reservations import BOUND_MS

__all__ = ["Tell", "run_revocation"]

_RUN_BYTES = 4
_WARM_S = 15.0
_OVER_S = 15.0 + BOUND_MS / 1000
"""What a target may take, on a machine that is busy, to be in use, and to be over."""
_PAUSE_S = 0.05
"""Up to so long a target stays in use before it is stopped: not all in step with the load."""
_ONE_NODE = (
    "one node: nothing was stopped through one node and used on another; name a second by --peer"
)

Tell = Callable[[str, float], None]
"""Called with what is under way, and the share of the drill that is over."""


class _Ready(msgspec.Struct, frozen=True):
    deployment: str
    node: str


def run_revocation(urls: Sequence[str], token: str, *, count: int, tell: Tell) -> Report:
    """Drill revocations on the node, or the two nodes, at ``urls``, on keys of the drill's own.

    ``token``: an operator's. ``count``: how many.

    Raises:
        KeysteadError: a node cannot be reached, or refused what the drill cannot go on without.
            Its notes say what is left; as those of any other exception, such as a signal's.
    """
    began_s = time.monotonic()
    drill = _Drill(urls, token, count, tell)
    try:
        trace = asyncio.run(drill.play())
    except BaseException as exc:
        # Not inside: where a signal ends the loop, what it raises passes all tasks by.
        if drill.setting.keys:
            exc.add_note(f"left: {asyncio.run(drill.end())}")
        raise
    tell("Ending the keys' use", 1.0)
    left = asyncio.run(drill.end())
    return judged(
        Report(
            run=trace.run,
            fronts=trace.fronts,
            seconds=round(time.monotonic() - began_s, 3),
            uses=len(trace.uses),
            checks=tuple(checks(trace)),
            figures=figures(trace),
            left=left,
            left_out=() if len(trace.fronts) > 1 else (_ONE_NODE,),
            timeline=timeline(trace),
        )
    )


class _Drill:
    def __init__(self, urls: Sequence[str], token: str, count: int, tell: Tell) -> None:
        self._urls = urls
        self._token = token
        self._count = count
        self._tell = tell
        self.setting = Setting(run=secrets.token_hex(_RUN_BYTES))

    async def play(self) -> Trace:
        """All of it, but the end of the keys' use."""
        async with self._clients() as clients:
            fronts = await _fronts(self._urls, clients)
            run = self.setting.run
            trace = Trace(run=run, fronts=fronts, targets=targets(run, self._count, len(fronts)))
            await self._through(clients, trace)
        return trace

    async def end(self) -> str:
        """End the use of its keys, by whichever front answers; says what is left."""
        async with AsyncClient(self._urls, operator=self._token) as client:
            return await end_use(client, self.setting)

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[list[AsyncClient]]:
        """One a front: each asks that one only, because each has a log of its own."""
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(AsyncClient(url, operator=self._token))
                for url in self._urls
            ]

    async def _through(self, clients: list[AsyncClient], trace: Trace) -> None:
        self._tell("Making keys and handles", 0.0)
        await make(clients[0], self.setting, trace.targets)
        with tempfile.TemporaryDirectory(prefix="keystead-drill-") as folder:
            async with crew(self._jobs(trace, Path(folder))) as load:
                await self._stop_all(clients, load, trace)
                self._tell("Trying all of it again", 0.95)
                trace.uses = await load.end()
        self._tell("Reading the logs", 0.98)
        for client, front in zip(clients, trace.fronts, strict=True):
            trace.recorded += await read_uses(client, front, self.setting)
        for one in trace.stopped:
            target, issued = trace.targets[one.target], self.setting.handles[one.target]
            change = await read_change(clients[target.via], one, target, issued)
            if change is not None:
                trace.changes.append(change)

    def _jobs(self, trace: Trace, folder: Path) -> list[Job]:
        held = [
            Held(target=-1, work=work, token=issued.handle.reveal())
            for work, issued in self.setting.steady
        ]
        held += [
            Held(
                target=target.number,
                work=target.work,
                token=self.setting.handles[target.number].handle.reveal(),
            )
            for target in trace.targets
        ]
        return [
            Job(
                url=front.url,
                front=place,
                context=self.setting.context,
                held=tuple(held),
                out=str(folder / f"uses-{place}.json"),
            )
            for place, front in enumerate(trace.fronts)
        ]

    async def _stop_all(self, clients: list[AsyncClient], load: Crew, trace: Trace) -> None:
        for target in trace.targets:
            share = 0.05 + 0.9 * target.number / len(trace.targets)
            self._tell(f"{target.number + 1} of {len(trace.targets)}: {target.kind}", share)
            try:
                load.heat(target.number)
                await load.wait("warm", target.number, _WARM_S)
                await asyncio.sleep(_PAUSE_S * secrets.randbelow(1000) / 1000)
                trace.stopped.append(await self._stop(clients[target.via], target))
                load.stopped(target.number)
                await load.wait("over", target.number, _OVER_S)
            except TimeoutError:
                done = bool(trace.stopped) and trace.stopped[-1].target == target.number
                trace.gave_up = f"target {target.number} was not {'over' if done else 'in use'}"
                return

    async def _stop(self, client: AsyncClient, target: Target) -> Stopped:
        asked = revocation(target, self.setting.handles[target.number], f"drill {self.setting.run}")
        sent_ns = time.monotonic_ns()
        told = await client.run(asked)
        return stopped(target, told, sent_ns=sent_ns, answered_ns=time.monotonic_ns())


async def _fronts(urls: Sequence[str], clients: Sequence[AsyncClient]) -> tuple[Front, ...]:
    """Which node answers at each address.

    Raises:
        Conflict: the same node twice, or nodes that share nothing.
        KeysteadError: one cannot be reached, or is not ready.
    """
    told: list[_Ready] = []
    for client in clients:
        ask = Ask(
            method="GET",
            path="/ready",
            read=lambda reply: decode(reply.body, _Ready),
            operator=False,
        )
        told.append(await client.run(ask))
    if len({each.deployment for each in told}) > 1:
        raise Conflict(
            "expected two nodes of one deployment, met two deployments",
            hint="Start the second node on the same --database, with the first one's seal",
        )
    if len({each.node for each in told}) < len(told):
        raise Conflict(
            f"expected two nodes, met {told[0].node} at both addresses",
            hint="Name the front of another node by --peer, or leave it out",
        )
    return tuple(Front(url=url, node=each.node) for url, each in zip(urls, told, strict=True))
