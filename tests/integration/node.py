"""A real node for tests: every process, one data folder, a free port; ended and waited for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from keystead.client import Client

_START_WITHIN_S = 60


class Node:
    """``keystead up`` on a folder. The operator's token is kept beside the folder, as users do."""

    def __init__(self, data: Path, **options: object) -> None:
        self.data = data
        self.token_file = data.parent / f"{data.name}-operator.token"
        self._options = {
            "data": str(data),
            "listen": "127.0.0.1:0",
            "operator_token_file": str(self.token_file),
            "json": True,
        } | options
        self._process: subprocess.Popen[str] | None = None
        self.facts: dict[str, Any] = {}

    def start(self) -> Self:
        """Start, and wait until it serves; ``facts`` is what it says in JSON."""
        self._process = self.spawn()
        if self._process.stdout is None:
            raise RuntimeError("a node without output")
        line = self._process.stdout.readline()
        self.facts = json.loads(line) if line else {}
        if "url" not in self.facts:
            self.stop()
            raise RuntimeError(f"the node did not start: {self.facts}")
        return self

    def spawn(self) -> subprocess.Popen[str]:
        """Start, and wait for nothing."""
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "keystead.app",
                "up",
                "--config-json",
                json.dumps(self._options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ, PYTHONWARNINGS="error"),
        )

    def refusal(self) -> tuple[int, dict[str, str]]:
        """Start it where it cannot start: its exit status, and what it says in JSON."""
        process = self.spawn()
        out, err = process.communicate(timeout=_START_WITHIN_S)
        if err:
            raise AssertionError(f"expected nothing on stderr, met {err!r}")
        said: dict[str, str] = json.loads(out.splitlines()[-1])
        return process.returncode, said

    @property
    def url(self) -> str:
        return str(self.facts["url"])

    @property
    def token(self) -> str:
        return self.token_file.read_text().strip()

    def client(self) -> Client:
        """An operator's client."""
        return Client(self.url, operator=self.token)

    def children(self) -> dict[str, int]:
        """Role to process id, as the kernel has them."""
        if self._process is None:
            return {}
        found: dict[str, int] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            if parent == self._process.pid and b"keystead.app" in arguments:
                found[arguments[arguments.index(b"keystead.app") + 1].decode()] = int(entry.name)
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, and wait for it."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        process.communicate(timeout=_START_WITHIN_S)
        return process.returncode

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()
