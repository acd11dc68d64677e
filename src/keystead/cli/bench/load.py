"""Load over HTTP/1.1: by `wrk` where it is installed, else by several Python processes."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from keystead.cli.bench.stats import percentile
from keystead.errors import StartupError

__all__ = ["Job", "Load", "Loaded", "Part", "PythonLoad", "WrkLoad", "choose"]

_GENERATORS_MAX = 4
_SPARE_S = 30.0
_US_PER_MS = 1000


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One request, sent again and again on each connection as soon as it was answered.

    ``ports``: of 127.0.0.1; the connections are spread over them, so there are as many at least.
    """

    ports: tuple[int, ...]
    path: str
    headers: dict[str, str]
    body: str
    connections: int

    def __repr__(self) -> str:
        return f"<Job of {self.connections} connections to {self.path}>"  # headers hold a token


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job: answers of status 2xx, other answers, and what the load itself cost."""

    answered: int
    refused: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_s: float


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one Python process of the load saw; latencies in microseconds."""

    answered: int
    refused: int
    seconds: float
    latencies_us: list[int]


class Load(Protocol):
    """A load generator."""

    name: str

    def run(self, job: Job, seconds: int) -> Loaded:
        """Send a job for so many seconds.

        Raises:
            StartupError: the generator failed.
        """
        ...


def choose(name: Literal["auto", "wrk", "python"], folder: Path) -> Load:
    """The generator that was asked for; ``auto`` prefers wrk.

    Raises:
        StartupError: wrk was asked for and is not installed.
    """
    found = shutil.which("wrk")
    if name == "wrk" and found is None:
        raise StartupError("wrk is not installed", hint="On Debian: apt-get install wrk")
    if name == "python" or found is None:
        return PythonLoad()
    return WrkLoad(found, folder)


def _children_cpu_s() -> float:
    """Of all children that were waited for; a generator is, and what it loads is not yet."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


_SETUP = """
local ports, turn = {{{ports}}}, 0
function setup(thread)
  thread.addr = wrk.lookup("127.0.0.1", ports[turn % #ports + 1])[1]
  turn = turn + 1
end
"""
"""Threads take the ports in turn."""

_DONE = """
done = function(summary, latency, requests)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('\\n{"requests":%d,"refused":%d,"lost":%d,"us":%d,"p50":%d,"p99":%d}\\n',
    summary.requests, errors.status, lost, summary.duration,
    latency:percentile(50), latency:percentile(99)))
end
"""


class _Summary(msgspec.Struct, frozen=True):
    requests: int
    refused: int
    lost: int
    us: int
    p50: int
    p99: int


class WrkLoad:
    """wrk with a thread for each node, which sends several times what it answers."""

    name = "wrk"

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._script = folder / "load.lua"

    def run(self, job: Job, seconds: int) -> Loaded:
        """Send a job; the script, which holds a token, is readable by its owner only."""
        with open(self._script, "w", opener=_private, encoding="utf-8") as file:
            file.write(_script(job))
        threads = min(len(job.ports), job.connections)
        command = [
            self._program,
            f"--threads={threads}",
            f"--connections={job.connections}",
            f"--duration={seconds}s",
            f"--timeout={seconds + int(_SPARE_S)}s",
            f"--script={self._script}",
            f"http://127.0.0.1:{job.ports[0]}",
        ]
        before = _children_cpu_s()
        done: subprocess.CompletedProcess[str] | None = None
        try:
            done = subprocess.run(  # noqa: S603  wrk, with arguments of our own
                command, capture_output=True, text=True, check=True, timeout=seconds + 2 * _SPARE_S
            )
            summary = msgspec.json.decode(done.stdout.strip().rpartition("\n")[2], type=_Summary)
        except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as exc:
            words = getattr(exc, "stderr", "") or (done.stderr if done else "")
            raise StartupError(f"wrk failed: {type(exc).__name__}", hint=words[-300:]) from exc
        finally:
            self._script.unlink()
        return Loaded(
            answered=summary.requests - summary.refused,
            refused=summary.refused + summary.lost,
            seconds=summary.us / 1e6,
            p50_ms=summary.p50 / _US_PER_MS,
            p99_ms=summary.p99 / _US_PER_MS,
            cpu_s=_children_cpu_s() - before,
        )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _script(job: Job) -> str:
    lines = ['wrk.method = "POST"', f"wrk.path = {_lua(job.path)}", f"wrk.body = {_lua(job.body)}"]
    lines += [f"wrk.headers[ {_lua(name)} ] = {_lua(value)}" for name, value in job.headers.items()]
    ports = ", ".join(f'"{port}"' for port in job.ports)
    return "\n".join(lines) + _SETUP.format(ports=ports) + _DONE


def _lua(text: str) -> str:
    """A long string of Lua: no escapes; JSON and base64 never hold its end."""
    return f"[==[{text}]==]"


class PythonLoad:
    """A few Python processes; slower than wrk, so look at how busy they are."""

    name = "python"

    def run(self, job: Job, seconds: int) -> Loaded:
        """Send a job, its connections spread over the processes."""
        most = max(len(os.sched_getaffinity(0)), len(job.ports))
        count = min(_GENERATORS_MAX, most, job.connections)
        shares = [(job.connections + index) // count for index in range(count)]
        before = _children_cpu_s()
        children = [
            self._start(job, job.ports[index % len(job.ports)], share, seconds)
            for index, share in enumerate(shares)
        ]
        try:
            parts = [_read(child, seconds) for child in children]
        finally:
            for child in children:
                child.kill()
                child.wait()
        latencies = sorted(each / _US_PER_MS for part in parts for each in part.latencies_us)
        return Loaded(
            answered=sum(part.answered for part in parts),
            refused=sum(part.refused for part in parts),
            seconds=max(part.seconds for part in parts),
            p50_ms=percentile(latencies, 0.5),
            p99_ms=percentile(latencies, 0.99),
            cpu_s=_children_cpu_s() - before,
        )

    def _start(self, job: Job, port: int, share: int, seconds: int) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(  # noqa: S603  this Python, with arguments of our own
            [sys.executable, "-P", "-m", "keystead.cli.bench.generator", str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if child.stdin is None:
            raise StartupError("a load process has no input")
        part = msgspec.structs.replace(job, ports=(port,), connections=share)
        child.stdin.write(msgspec.json.encode(part))  # not an argument: others could read the token
        child.stdin.close()
        return child


def _read(child: subprocess.Popen[bytes], seconds: int) -> Part:
    if child.stdout is None:
        raise StartupError("a load process has no output")
    with child.stdout:
        told = child.stdout.read()
    try:
        if child.wait(seconds + _SPARE_S):
            raise StartupError("a load process failed")
        return msgspec.json.decode(told, type=Part)
    except (subprocess.TimeoutExpired, msgspec.MsgspecError) as exc:
        raise StartupError("a load process gave no outcome") from exc
