"""Servers and helpers that a run starts, ends and waits for."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from keystead.cli.signals import signals_end_quietly
from keystead.errors import StartupError

__all__ = ["Server", "cleaned_up", "run_helper"]

_STOP_S = 30.0
_LINE_BYTES_MAX = 64 * 1024

T = TypeVar("T")


class Server:
    """A process that serves until :meth:`stop`; its output goes to a file, or to a pipe.

    ``user``: whom it runs as, where this process is root. ``ends_by``: the signal that ends it.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        pipe: bool,
        user: str | None = None,
        ends_by: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._ends_by = ends_by
        with log.open("ab") as errors:
            self._process = subprocess.Popen(  # noqa: S603  programs and arguments of our own
                list(command),
                cwd=folder,
                user=user,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else errors,
                stderr=errors,
                start_new_session=True,
            )
        _serving.add(self)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def line(self, within_s: float) -> bytes:
        """The next line of its output, empty if it ended.

        Raises:
            StartupError: none came in time.
        """
        if self._process.stdout is None:
            raise StartupError("the process has no output to wait for")
        until, read = time.monotonic() + within_s, b""
        descriptor = self._process.stdout.fileno()
        while not read.endswith(b"\n") and len(read) < _LINE_BYTES_MAX:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise StartupError(f"a process was not ready within {within_s:.0f} s")
            got = os.read(descriptor, 4096)
            if not got:
                break
            read += got
        return read

    def stop(self) -> None:
        """Its signal to it, SIGKILL to its group if that does not end it."""
        self._process.send_signal(self._ends_by)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        _serving.discard(self)


_serving: set[Server] = set()
"""Those that were started and not ended: a signal may come while one is still being waited for."""


def run_helper(module: str, *arguments: object, within_s: float, kind: type[T]) -> T:
    """Run a module of this package in a process of its own; gives the one line that it prints.

    Raises:
        StartupError: it failed, with its own words if it gave any.
    """
    command = [sys.executable, "-P", "-m", f"keystead.cli.bench.{module}", *map(str, arguments)]
    try:
        done = subprocess.run(  # noqa: S603  this Python, with arguments of our own
            command, capture_output=True, check=False, timeout=within_s
        )
    except subprocess.TimeoutExpired as exc:
        raise StartupError(f"the {module} process took longer than {within_s:.0f} s") from exc
    try:
        return msgspec.json.decode(done.stdout, type=kind)
    except msgspec.MsgspecError as exc:
        words = done.stdout.decode(errors="replace").strip() or done.stderr.decode(errors="replace")
        raise StartupError(f"the {module} process failed: {words[-300:]}") from exc


@contextmanager
def cleaned_up() -> Iterator[None]:
    """Have signals end a run as an exception does, and end every server that is still up."""
    with signals_end_quietly():
        try:
            yield
        finally:
            for server in list(_serving):
                server.stop()
