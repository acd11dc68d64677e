"""PostgreSQL on a machine of its own: Debian's server, whose tablespace is a small disk.

The deployment's tables lie on a tmpfs that a test can fill; the server's own log and write-ahead
log do not, as a server that cannot write those ends. Nothing is relaxed: ``fsync`` is on.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psycopg

from fault.cluster.network import MACHINES, Network
from fault.cluster.processes import children_of, resume, runs, suspend, wait_until

__all__ = ["Database", "missing_server"]

_PORT = 5432
_NAME = "keystead"
_USER = "postgres"
_ROOM_KIB = 96 * 1024
_PAGE_BYTES = 4096
_STARTS_WITHIN_S = 60.0
_SETTINGS = {
    "listen_addresses": MACHINES["db"],
    "port": _PORT,
    "shared_buffers": "32MB",
    "max_connections": 80,
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "off",  # a deployment of Keystead does not rely on the server's default
    "track_commit_timestamp": "on",  # the checker holds commits against it
    "autovacuum_naptime": "5s",
    "log_line_prefix": "%m [%p] ",
    "log_statement": "none",
    "restart_after_crash": "on",
}
_TRUST = "host all postgres 10.213.0.0/16 trust\n"


def missing_server() -> str:
    """Why no server can be run here, empty if one can."""
    if _binaries() is None:
        return "not installed: postgresql; tools/apt_needs.sh names the packages"
    return ""


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=_major)
    return found[-1].parent if found else None


def _major(path: Path) -> int:
    return int(path.parents[1].name)


class Database:
    """One server; ``with`` makes its cluster, starts it, and takes both away."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._process: subprocess.Popen[bytes] | None = None
        # The server's user comes through no folder that is its starter's own.
        self._folder = Path(tempfile.mkdtemp(prefix="keystead-server-"))
        self._filler = self._folder / "small" / "filler"
        self.log = self._folder / "server.log"

    @property
    def url(self) -> str:
        """Where the deployment's database is, seen from any machine."""
        return f"postgresql://{_USER}@{MACHINES['db']}:{_PORT}/{_NAME}"

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _make(self) -> None:
        owner = pwd.getpwnam(_USER)
        for part in (self._folder / "small", self._folder / "cluster"):
            part.mkdir(mode=0o700)
        options = f"size={_ROOM_KIB}k,mode=0700,uid={owner.pw_uid},gid={owner.pw_gid}"
        small = self._folder / "small"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", small], check=True)
        os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        os.chown(self._folder / "cluster", owner.pw_uid, owner.pw_gid)
        self._run("initdb", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        (self._folder / "cluster" / "pg_hba.conf").write_text(_TRUST)
        self.start()
        with self.session("postgres") as server:
            (small / "tables").mkdir(mode=0o700)
            os.chown(small / "tables", owner.pw_uid, owner.pw_gid)
            server.execute(f"CREATE TABLESPACE small LOCATION '{small / 'tables'}'")
            server.execute(f"CREATE DATABASE {_NAME} TABLESPACE small")

    def _run(self, program: str, *arguments: str) -> None:
        binaries = _binaries()
        if binaries is None:
            raise RuntimeError(missing_server())
        command = [*_as_owner(), str(binaries / program), "-D", str(self._folder / "cluster")]
        subprocess.run([*command, *arguments], check=True, capture_output=True)

    def close(self) -> None:
        """End the server, and take its disk away."""
        if self._process is not None:
            self.thaw()
            self.stop(signal.SIGQUIT)
        small = self._folder / "small"
        if os.path.ismount(small):
            subprocess.run(["umount", "-l", small], check=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- being up and down -----------------------------------------------------------------------

    def start(self) -> None:
        """Start it, and wait until it takes queries."""
        binaries = _binaries()
        if binaries is None:
            raise RuntimeError(missing_server())
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        command = [*self._network.command("db"), *_as_owner(), str(binaries / "postgres")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-D", str(self._folder / "cluster"), "-k", "", *settings],
                stdout=log,
                stderr=log,
                cwd="/",
            )
        wait_until(self._answers, _STARTS_WITHIN_S)

    def _answers(self) -> bool:
        try:
            with self.session("postgres") as server:
                return bool(server.execute("SELECT NOT pg_is_in_recovery()").fetchone() == (True,))
        except psycopg.OperationalError:
            return False

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it: SIGINT in order, SIGQUIT at once, SIGKILL with all its processes."""
        process, self._process = self._process, None
        if process is None:
            return
        left = children_of(process.pid)
        process.send_signal(number)
        if number == signal.SIGKILL:
            for pid in left:
                _kill(pid)
        process.wait(_STARTS_WITHIN_S)
        # What it shared with them would keep the next one from starting.
        wait_until(lambda: not any(map(runs, left)), _STARTS_WITHIN_S)

    def freeze(self) -> int:
        """Stop all its processes in their tracks; gives how many."""
        if self._process is None:
            raise RuntimeError("the server does not run")
        return suspend([self._process.pid, *children_of(self._process.pid)])

    def thaw(self) -> None:
        """Let them go on."""
        if self._process is not None:
            resume([self._process.pid, *children_of(self._process.pid)])

    # --- its disk --------------------------------------------------------------------------------

    def fill(self) -> int:
        """Leave the tablespace no room; gives how many bytes that took."""
        descriptor = os.open(self._filler, os.O_WRONLY | os.O_CREAT, 0o600)
        taken, piece = 0, _ROOM_KIB * 1024
        try:
            while piece >= _PAGE_BYTES:
                try:  # the server may take of it at the same time
                    os.posix_fallocate(descriptor, taken, piece)
                except OSError as exc:
                    if exc.errno != errno.ENOSPC:
                        raise
                    piece //= 2
                else:
                    taken += piece
        finally:
            os.close(descriptor)
        return taken

    def make_room(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)

    def refusals_for_room(self) -> int:
        """How often the server said that there was none (SQLSTATE 53100)."""
        return self.log.read_text(errors="replace").count("No space left on device")

    # --- asking it -------------------------------------------------------------------------------

    @contextmanager
    def session(
        self, name: str = _NAME, *, machine: str = "db"
    ) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """A session of this thread's, made on a machine; each statement is a transaction."""
        url = f"postgresql://{_USER}@{MACHINES['db']}:{_PORT}/{name}"
        with self._network.inside(machine):
            session = psycopg.connect(url, autocommit=True, connect_timeout=5)
        try:
            yield session
        finally:
            session.close()

    def end_sessions(self, address: str) -> int:
        """End all sessions from a machine, as an administrator may; gives how many."""
        ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE client_addr=%s"
        with self.session() as server:
            row = server.execute(ended, [address]).fetchone()
        return 0 if row is None else int(row[0])


def _as_owner() -> list[str]:
    return ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
