"""A real witness for tests: the command in a process, one state folder, a free port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from keystead.translog.notes import VerifierKey, parse_vkey

_END_WITHIN_S = 20
COMMAND = (sys.executable, "-W", "error", "-m", "keystead", "log", "witness")


class WitnessProcess:
    """``keystead log witness`` on a folder; ended and waited for."""

    def __init__(self, state: Path, logs: Iterable[VerifierKey], *options: str) -> None:
        self._arguments = ["--json", "--state", str(state), "--listen", "127.0.0.1:0"]
        for key in logs:
            self._arguments += ["--log", key.encode()]
        self._arguments += options
        self._process: subprocess.Popen[str] | None = None
        self.facts: dict[str, Any] = {}

    def start(self) -> Self:
        """Start, and wait until it serves; ``facts`` is what it says in JSON."""
        self._process = subprocess.Popen(
            [*COMMAND, *self._arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        if self._process.stdout is None:
            raise RuntimeError("a witness without output")
        lines = []
        for line in self._process.stdout:
            lines.append(line)
            if line == "}\n":
                self.facts = json.loads("".join(lines))
                return self
        _, err = self._process.communicate(timeout=_END_WITHIN_S)
        raise RuntimeError(f"the witness did not start: {err}")

    @property
    def url(self) -> str:
        return str(self.facts["url"])

    @property
    def vkey(self) -> VerifierKey:
        return parse_vkey(self.facts["vkey"])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal; gives its exit status."""
        if self._process is None:
            raise RuntimeError("no witness to end")
        self._process.send_signal(number)
        self._process.communicate(timeout=_END_WITHIN_S)
        status = self._process.returncode
        self._process = None
        return status

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.end()
