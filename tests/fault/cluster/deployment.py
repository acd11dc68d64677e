"""Two nodes of one deployment, each on a machine of its own, and its database on a third."""

from __future__ import annotations

import json
import linecache
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import keystead
from fault.cluster.database import Database
from fault.cluster.logs import Storage
from fault.cluster.network import MACHINES, Network
from fault.cluster.processes import descendants_of, resume, runs, wait_until
from integration.node import Node
from keystead.client import Client, Retry
from keystead.errors import ServiceError

__all__ = ["NODES", "SERVES_WITHIN_S", "Deployment", "Machine", "faketime_library"]

NODES = ("a", "b")
SERVES_WITHIN_S = 60.0
_PORT = 7410
_ENDS_WITHIN_S = 30.0
_PAGE = 1000
_COMPLAINTS_MAX, _TRACE_LINES = 3, 30
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where shm_open(3) keeps it
_ONCE = Retry(deadline_s=3, try_s=3, tries_max=1)


def faketime_library() -> str:
    """The library that shifts a process's clock, empty if it is not installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else ""


class Machine(Node):
    """A node on its machine. Its wall clock is what a file says; its other clocks are honest."""

    def __init__(self, network: Network, name: str, folder: Path, **options: object) -> None:
        super().__init__(folder / name, node=name, listen=f"{MACHINES[name]}:{_PORT}", **options)
        self.name = name
        self.address = f"https://{MACHINES[name]}:{_PORT}"
        self._network = network
        self._clock = folder / f"{name}.clock"
        self._said = folder / f"{name}.said"
        self._started: set[int] = set()
        self.shift_clock(0)

    def shift_clock(self, seconds: float) -> None:
        """Have the wall clock of vault, steward and supervisor be off, within a second or so.

        The front starts with few variables, and keeps the machine's own time.
        """
        fresh = self._clock.with_suffix(".new")
        fresh.write_text(f"{seconds:+.3f}\n")
        fresh.replace(self._clock)

    def spawn(self) -> subprocess.Popen[str]:
        """Start it on its machine, and wait for nothing."""
        clock = {
            "LD_PRELOAD": faketime_library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # On by default for this C library, it has timed waits end seconds late.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }
        command = [sys.executable, "-m", "keystead.app", "up", "--config-json"]
        with self._said.open("ab") as said:
            process = subprocess.Popen(
                [*self._network.command(self.name), *command, json.dumps(self._options)],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env=dict(os.environ, PYTHONWARNINGS="error")
                | (clock if clock["LD_PRELOAD"] else {}),
            )
        self._started.add(process.pid)
        return process

    def start_again(self) -> None:
        """As a service manager does: again and again, until its database lets it."""
        until = time.monotonic() + SERVES_WITHIN_S
        while True:
            try:
                self.start()
            except (RuntimeError, ValueError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
            else:
                return

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        if self._process is None:
            raise RuntimeError(f"node {self.name} does not run")
        return self._process.pid

    def pids(self) -> list[int]:
        """All its processes, the supervisor first."""
        return [] if self._process is None else [self.pid, *descendants_of(self.pid)]

    def kill(self) -> None:
        """SIGKILL to all its processes at once; gives back when none is left."""
        killed = self.pids()
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super().stop(signal.SIGKILL)
        wait_until(lambda: not any(map(runs, killed)), _ENDS_WITHIN_S)

    def end(self) -> None:
        """End it in order, or by force if it does not."""
        resume(self.pids())
        try:
            super().stop()
        except subprocess.TimeoutExpired:
            self.kill()
        for pid in self._started:  # what the library that shifts clocks leaves of a killed process
            for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
                (_SHARED_MEMORY / name).unlink(missing_ok=True)

    def complaints(self) -> list[str]:
        """Tracebacks and faults in its logs, whatever clients saw of them."""
        found: list[str] = []
        for path in sorted((self.data / "logs").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            found += (
                f"{self.name} {path.name}: " + "\n".join(lines[at : at + _TRACE_LINES])
                for at, line in enumerate(lines)
                if "Traceback" in line or ('"fault"' in line and not _fails_to_sleep(line))
            )
        return found[:_COMPLAINTS_MAX]


def _fails_to_sleep(line: str) -> bool:
    """Whether a fault is the clock library's own, and not the node's.

    Its ``clock_nanosleep`` fails (EINVAL) for a time that has passed already, where the system's
    returns at once: a thread that was held up before it slept meets that.
    """
    told = json.loads(line)
    name, _, number = told["at"][-1].rpartition(":")
    source = linecache.getline(str(Path(keystead.__file__).parent / name), int(number))
    return told["kind"] == "OSError" and "time.sleep(" in source


class Deployment:
    """Network, database and two nodes; ``with`` starts them all and leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = Network()
        self.database = Database(self.network)
        self.nodes: dict[str, Machine] = {}
        self._stack = ExitStack()
        self.trust = ssl.create_default_context()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.network)
            stack.enter_context(self.database)
            self._certify()
            for name in NODES:
                self._add(name)
                stack.callback(self.nodes[name].end)
                self.nodes[name].start()
                if name == NODES[0]:
                    shutil.copy(self.nodes[name].data / "seal.key", self.folder / "seal.key")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _certify(self) -> None:
        names = ",".join(f"IP:{MACHINES[name]}" for name in NODES)
        cert, key = self.folder / "cert.pem", self.folder / "key.pem"
        subprocess.run(
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=nodes"
            f" -addext subjectAltName={names} -days 2 -keyout {key} -out {cert}".split(),
            check=True,
            capture_output=True,
        )
        self.trust = ssl.create_default_context(cafile=str(cert))

    def _add(self, name: str) -> None:
        seal = {"seal_file": str(self.folder / "seal.key")} if name != NODES[0] else {}
        self.nodes[name] = Machine(
            self.network,
            name,
            self.folder,
            database=self.database.url,
            tls_cert=str(self.folder / "cert.pem"),
            tls_key=str(self.folder / "key.pem"),
            **seal,
        )

    @property
    def token(self) -> str:
        """The operator's."""
        return self.nodes[NODES[0]].token

    def client(self, *fronts: str, retry: Retry = _ONCE) -> Client:
        """An operator's client of one or several fronts; to be used inside ``clients``."""
        addresses = [self.nodes[name].address for name in fronts or NODES]
        return Client(addresses, operator=self.token, tls=self.trust, retry=retry)

    def read(self) -> Storage:
        """What the database holds, and what a search through each node's front finds.

        A node that does not answer has found nothing: that it does not is another finding.
        """
        found: dict[str, list[tuple[int, int, str, str]]] = {}
        for name in NODES:
            with suppress(ServiceError):
                found[name] = self._search(name)
        with self.database.session() as session:
            storage = Storage.read(session, self.folder / "seal.key")
        return Storage(
            epoch=storage.epoch,
            logs=storage.logs,
            idempotency=storage.idempotency,
            spent=storage.spent,
            counters=storage.counters,
            found=found,
        )

    def _search(self, name: str) -> list[tuple[int, int, str, str]]:
        found: list[tuple[int, int, str, str]] = []
        after, end = -1, False
        with (
            self.network.inside("clients"),
            self.client(name, retry=Retry(deadline_s=30)) as client,
        ):
            while not end:
                page = client.search_log(oldest_first=True, limit=_PAGE, after=after)
                found += ((r.seq, r.epoch, r.outcome, r.request) for r in page.records)
                after, end = page.next, page.end
        return found

    def complaints(self) -> list[str]:
        """What the nodes' own logs say that must not be."""
        return [line for node in self.nodes.values() for line in node.complaints()]
