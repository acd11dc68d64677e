"""The vault's pipeline in one process: handle, framing, signature, record, commit; no HTTP.

``python -m keystead.cli.bench.pipeline FOLDER SECONDS`` measures it on a new data folder and prints
one JSON line, so that nothing else of the run shares its interpreter.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
from functools import partial
from pathlib import Path

import msgspec
import uvloop

from keystead.cli.bench.vault import REGISTRY, Vault, open_stores
from keystead.cli.bench.work import CONTEXT, KEY, OPERATION, PURPOSE, create_key, transcript_hash
from keystead.errors import KeysteadError, error_for_code
from keystead.frames.messages import Answer, Refused, Use
from keystead.keys.framing.tls import SignTls
from keystead.store.migrate import migrate_sqlite

__all__ = ["GROUP", "GROUPS", "main"]

GROUP = 100
"""Uses that begin in one turn of the loop, as those of one batch or frame do."""
GROUPS = 4
"""Groups under way at a time, so that one is signed while another commits."""
_WARM_UP_SHARE = 0.2


class _Driver:
    """Keeps :data:`GROUPS` groups of uses under way until it is told to stop."""

    def __init__(self, vault: Vault, token: str) -> None:
        self._vault = vault
        self._loop = asyncio.get_running_loop()
        facts = msgspec.msgpack.encode(SignTls(role="server", transcript_hash=transcript_hash()))
        self._use = Use(
            id=1, handle=token, purpose=PURPOSE, operation=OPERATION, context=CONTEXT, facts=facts
        )
        self._open = 0
        self._stopping = False
        self._idle = asyncio.Event()
        self.done = 0
        self.refused: Refused | None = None

    async def run(self, seconds: float) -> tuple[int, float]:
        """Uses that were answered in so many seconds after a warm-up, and those seconds."""
        for _ in range(GROUPS):
            self._begin()
        await asyncio.sleep(seconds * _WARM_UP_SHARE)
        before, started = self.done, time.perf_counter()
        await asyncio.sleep(seconds)
        done, took = self.done - before, time.perf_counter() - started
        self._stopping = True
        await self._idle.wait()
        return done, took

    def _begin(self) -> None:
        self._open += 1
        left = [GROUP]
        reply = partial(self._answered, left)
        for _ in range(GROUP):
            self._vault.uses.begin(self._use, reply)

    def _answered(self, left: list[int], answer: Answer) -> None:
        if isinstance(answer, Refused):
            self.refused = answer
            self._stopping = True
        self.done += 1
        left[0] -= 1
        if left[0]:
            return
        self._open -= 1
        if not self._stopping:
            self._loop.call_soon(self._begin)
        elif not self._open:
            self._idle.set()


async def _measure(folder: Path, seconds: float) -> dict[str, float]:
    stores = open_stores(folder)
    vault = Vault(stores)
    try:
        token = await vault.handle(KEY, create_key())
        gc.collect()
        gc.freeze()  # as the vault's process does
        driver = _Driver(vault, token)
        before = resource.getrusage(resource.RUSAGE_SELF)
        done, took = await driver.run(seconds)
        after = resource.getrusage(resource.RUSAGE_SELF)
        if driver.refused is not None:
            raise error_for_code(driver.refused.code, driver.refused.message)
    finally:
        await vault.close()
        stores.close()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"done": done, "seconds": took, "cpu_s": cpu / (1 + _WARM_UP_SHARE)}


def main(arguments: list[str]) -> int:
    """Measure, and print the outcome: 0 done, 3 refused."""
    folder, seconds = Path(arguments[0]), float(arguments[1])
    try:
        migrate_sqlite(folder / REGISTRY)
        outcome: dict[str, float] | dict[str, str] = uvloop.run(_measure(folder, seconds))
    except KeysteadError as exc:
        outcome = {"error": exc.message}
    sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")
    return 3 if "error" in outcome else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
