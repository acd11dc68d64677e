"""Child processes of a node: started, waited for until they say `ready`, ended in order."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from keystead.errors import StartupError

__all__ = ["Child", "die_with_parent", "report_error", "report_ready"]

_PR_SET_PDEATHSIG = 1
_PARENT = "KEYSTEAD_SUPERVISOR_PID"
_OURS = "KEYSTEAD_"
_FEW = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH"})
_READY_LINE_BYTES = 64 * 1024
_ENDED_WITHIN_S = 1.0


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends (prctl(2)): no orphan holds a key."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # It may have ended while this process still loaded its modules. Who takes orphans in is not
    # always process 1, and process 1 may be the supervisor itself, in a container.
    parent = os.environ.get(_PARENT)
    if parent is not None and os.getppid() != int(parent):
        raise SystemExit(0)


def report_ready(**facts: object) -> None:
    """Tell the supervisor, in one line on stdout, that this process serves."""
    print(json.dumps({"ready": True, **facts}), flush=True)  # noqa: T201  the protocol with the supervisor


def report_error(error: Exception) -> None:
    """Tell the supervisor why this process cannot start."""
    message = getattr(error, "message", str(error))
    hint = getattr(error, "hint", "")
    print(json.dumps({"error": message, "hint": hint}), flush=True)  # noqa: T201  as above


def _environment(*, few: bool) -> dict[str, str]:
    """The parent's, but for what is Keystead's own: a token that it was given stays with it.

    ``few``: only what a Python process needs to start, for one that strangers talk to.
    """
    kept = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(_OURS) and (not few or name in _FEW or name.startswith("PYTHON"))
    }
    return kept | {_PARENT: str(os.getpid())}


class Child:
    """One child: ``python -m keystead.app ROLE --config-json ...``, its log in a file."""

    def __init__(
        self,
        role: str,
        config: dict[str, object],
        *,
        folder: Path,
        log: Path,
        keep_open: Sequence[int] = (),
        ready_within_s: float = 60.0,
        few_variables: bool = False,
    ) -> None:
        self.role = role
        self._config = config
        self._folder = folder
        self._log = log
        self._keep_open = tuple(keep_open)
        self._ready_within_s = ready_within_s
        self._few = few_variables
        self._process: asyncio.subprocess.Process | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process else None

    def reconfigure(self, **changes: object) -> None:
        """Have it start with these from now on."""
        self._config |= changes

    async def start(self) -> dict[str, object]:
        """Start it; gives the facts of its ready line.

        Raises:
            StartupError: with the child's own words if it gave any.
        """
        # -P: the working directory, which is the data folder, is no place to import from.
        command = [sys.executable, "-P", "-m", "keystead.app", self.role]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                "--config-json",
                json.dumps(self._config),
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_READY_LINE_BYTES,
                pass_fds=self._keep_open,
                env=_environment(few=self._few),
                start_new_session=True,
            )
        if self._process.stdout is None:
            raise StartupError(f"the {self.role} process has no output to wait for")
        try:
            line = await asyncio.wait_for(
                self._process.stdout.readline(), timeout=self._ready_within_s
            )
        except TimeoutError as exc:
            await self.stop()
            raise StartupError(
                f"the {self.role} process was not ready within {self._ready_within_s:.0f} s",
                hint=f"See {self._log}",
            ) from exc
        return await self._read(line)

    async def _read(self, line: bytes) -> dict[str, object]:
        try:
            facts = json.loads(line)
        except ValueError:
            facts = {}
        if isinstance(facts, dict) and facts.get("ready"):
            return facts
        if not line and self._process is not None:
            # It has ended: let asyncio learn of it first. A signal now would take its status away.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), timeout=_ENDED_WITHIN_S)
        await self.stop()
        message = facts.get("error") if isinstance(facts, dict) else None
        raise StartupError(
            str(message or f"the {self.role} process ended before it was ready"),
            hint=str(facts.get("hint", "")) if message else f"See {self._log}",
        )

    async def wait(self) -> int:
        """Wait for its end; gives its exit status."""
        return await self._process.wait() if self._process else 0

    async def stop(self, *, within_s: float = 20.0) -> None:
        """SIGTERM, then SIGKILL if it does not end."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        # Not by `process`: it polls first, and takes the status of a child that has just ended away
        # from the loop that waits for it.
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), timeout=within_s)
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            await process.wait()
