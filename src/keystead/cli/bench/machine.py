"""The machine that a run was made on, and what its processes cost, out of /proc."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

__all__ = ["Machine", "Spent", "Watch", "busy_s", "describe", "file_system", "rss_bytes", "tree"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UTIME, _CUTIME = 11, 13  # of the fields behind the command in /proc/PID/stat (proc(5))
_IDLE, _IOWAIT, _GUEST = 3, 4, 8  # of the fields of the line "cpu" in /proc/stat (proc(5))
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


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of CPU by role, and the one process that took the most: its role and seconds."""

    by_role: dict[str, float]
    busiest: str
    busiest_s: float

    @property
    def total_s(self) -> float:
        """Of all."""
        return sum(self.by_role.values())


class Watch:
    """What some processes spend from now on. ``roles``: asked again at the end for new ones."""

    def __init__(self, roles: Callable[[], dict[int, str]]) -> None:
        self._roles = roles
        self._before = {pid: _cpu_s(pid) for pid in roles()}

    def spent(self) -> Spent:
        """By now. A process counts the children that it waited for as its own."""
        by_role: dict[str, float] = {}
        busiest, most = "", 0.0
        for pid, role in self._roles().items():
            used = max(0.0, _cpu_s(pid) - self._before.get(pid, 0.0))
            by_role[role] = by_role.get(role, 0.0) + used
            if used > most:
                busiest, most = role, used
        return Spent(by_role=by_role, busiest=busiest, busiest_s=most)


def _cpu_s(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[_UTIME : _CUTIME + 2])) / _TICKS


def busy_s() -> float:
    """Seconds of CPU that the machine has spent on anything, all cores together."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    ticks = [int(field) for field in line.split()[1 : 1 + _GUEST]]  # guests are in user time
    return (sum(ticks) - ticks[_IDLE] - ticks[_IOWAIT]) / _TICKS


def rss_bytes(pid: int) -> int:
    """Resident bytes of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
