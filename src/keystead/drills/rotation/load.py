"""The load of a drill: a few tasks that sign at a bounded rate, each in its own contexts."""

from __future__ import annotations

import asyncio
import time

from keystead.client import AsyncClient, Handle, operations
from keystead.drills.rotation.lengths import BATCH, CONTEXTS, TASKS, USES_PER_S
from keystead.drills.rotation.parties import Desk
from keystead.drills.rotation.trace import Trace
from keystead.errors import KeysteadError

__all__ = ["PREFIX", "sign_on"]

PREFIX = "drill"
"""Under it lie all contexts of a drill."""
_EVERY_S = TASKS * BATCH / USES_PER_S


async def sign_on(client: AsyncClient, handle: Handle, task: int, desk: Desk, trace: Trace) -> None:
    """Sign batch after batch until the desk wants no more, and bring it each token.

    It keeps its own time, and lets go by what it could not do: it never catches up.
    """
    mine = range(task, CONTEXTS, TASKS)
    place = 0
    due_s = time.monotonic() + _EVERY_S * task / TASKS
    while not desk.stop.is_set():
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        due_s = max(due_s + _EVERY_S, time.monotonic())
        contexts = [mine[(place + n) % len(mine)] for n in range(BATCH)]
        place += BATCH
        uses = [
            operations.sign_jwt(
                handle, {"sub": f"user-{context}"}, context=_path(trace.run, context)
            )
            for context in contexts
        ]
        for context, use, came in zip(contexts, uses, await client.batch(uses), strict=True):
            if isinstance(came, KeysteadError):
                trace.failures.append(f"{use.context}: {came.message}")
            else:
                await desk.take(came, context)


def _path(run: str, context: int) -> str:
    return f"{PREFIX}/{run}/{context:03}"
