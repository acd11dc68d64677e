"""The machine that a run was made on, and what its processes cost, out of /proc."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

__all__ = ["Machine", "cpu_s", "describe", "file_system", "rss_bytes", "tree"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UTIME, _CUTIME = 11, 13  # of the fields behind the command in /proc/PID/stat (proc(5))
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures hold for. ``load_before``: the load average when the run began."""

    cpus: int
    model: str
    kernel: str
    python: str
    cryptography: str
    file_system: str
    in_memory: bool
    load_before: float


def describe(folder: Path) -> Machine:
    """This machine, with the file system that a folder is on."""
    kind = file_system(folder)
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        model=_model(),
        kernel=platform.release(),
        python=platform.python_version(),
        cryptography=_version("cryptography"),
        file_system=kind,
        in_memory=kind in _IN_MEMORY,
        load_before=os.getloadavg()[0],
    )


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def file_system(folder: Path) -> str:
    """The kind of file system that holds a folder (proc_pid_mountinfo(5))."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        if fields.split()[2] == number:
            return tail.split()[0]
    return "unknown"


def tree(pid: int) -> Iterator[int]:
    """A process and all below it; those that end meanwhile are left out."""
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))
    except OSError:
        return


def cpu_s(pid: int) -> float:
    """Seconds of CPU of a process and those below it, with the children that they waited for."""
    return sum(map(_cpu_s, tree(pid)))


def _cpu_s(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[_UTIME : _CUTIME + 2])) / _TICKS


def rss_bytes(pid: int) -> int:
    """Resident bytes of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
