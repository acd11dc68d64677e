"""A real PostgreSQL server of a test's own: started, stopped, killed and suspended by the tests.

Debian's binaries, as a user who is not root, in a temporary folder: a unix socket and a free port
of loopback, fsync on. Whoever may connect on this machine is trusted: it holds nothing.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import psycopg

__all__ = ["ROLE", "PostgresMissing", "PostgresServer", "postgres_binaries", "postgres_server"]

ROLE = "keystead"
"""Who the tests connect as: owns its databases, and may do nothing else."""
_TEMPLATE = "keystead_template"
_ATTEMPTS = 600
_ATTEMPT_S = 0.05
_SETTINGS = (
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("shared_buffers", "32MB"),
    ("max_connections", "60"),
    ("min_wal_size", "32MB"),
    ("max_wal_size", "256MB"),
    ("autovacuum", "off"),
    ("dynamic_shared_memory_type", "mmap"),
    ("logging_collector", "off"),
    ("log_min_messages", "warning"),
)


class PostgresMissing(Exception):
    """PostgreSQL is not installed; its text says what to install."""


def postgres_binaries() -> Path:
    """The folder of the newest server's programs.

    Raises:
        PostgresMissing: there is none.
    """
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        raise PostgresMissing("PostgreSQL is not installed: sudo apt-get install postgresql")
    return max(found, key=lambda path: int(path.parent.name))


class PostgresServer:
    """One server. ``folder`` is the caller's to remove; its databases are owned by :data:`ROLE`."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self._bin = postgres_binaries()
        self.folder = folder
        self.address = address
        self.port = _free_port(address)
        self._user = "postgres" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count()
        self._templates: set[tuple[str, ...]] = set()

    # --- the process -------------------------------------------------------------------------

    def create(self) -> None:
        """Make its data folder."""
        self.folder.mkdir(exist_ok=True)
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self.folder.chmod(0o755)  # a node without root's powers reaches the socket
        command = [str(self._bin / "initdb"), "-D", str(self.folder / "data"), "--no-sync"]
        command += ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres"]
        done = subprocess.run(
            command, cwd=self.folder, user=self._user, capture_output=True, check=False, text=True
        )
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {done.stderr}")

    def follow(self, primary: "PostgresServer") -> None:
        """Make its data folder a copy of another's, which it follows as a standby."""
        self.folder.mkdir(exist_ok=True)
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self.folder.chmod(0o755)
        where = f"host={primary.folder} port={primary.port} user=postgres"
        where += " application_name=standby"
        command = [str(self._bin / "pg_basebackup"), "-D", str(self.folder / "data"), "-R"]
        command += ["--checkpoint=fast", "--no-sync", "-d", where]
        subprocess.run(command, cwd=self.folder, user=self._user, capture_output=True, check=True)

    def start(self, *prefix: str, **settings: str) -> None:
        """Start it, and wait until it answers. ``prefix``: a command that runs it, if any."""
        given = {**dict(_SETTINGS), **settings, "listen_addresses": self.address}
        command = [*prefix, str(self._bin / "postgres"), "-D", str(self.folder / "data")]
        command += ["-k", str(self.folder), "-p", str(self.port)]
        for name, value in given.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, user=self._user, stdout=log, stderr=log
            )
        self._answers()

    def _answers(self) -> None:
        for _ in range(_ATTEMPTS):
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the server ended: {self.log()[-2_000:]}")
            with suppress(psycopg.OperationalError):
                self.sql("SELECT 1")
                return
            time.sleep(_ATTEMPT_S)
        raise RuntimeError(f"the server does not answer: {self.log()[-2_000:]}")

    def log(self) -> str:
        """What it has written."""
        return (self.folder / "server.log").read_text("utf-8", errors="replace")

    @property
    def pid(self) -> int:
        """The postmaster's."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it: SIGINT disconnects all and writes everything, SIGQUIT leaves a crash behind."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(number)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL to it and to all of its processes, as when the machine goes."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self._process = None
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def suspend(self) -> None:
        """SIGSTOP to all of its processes: connections stay, nothing answers."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to all of its processes."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        if self._process is None:
            return []
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        with suppress(OSError):
            return [self.pid, *map(int, children.read_text().split())]
        return [self.pid]

    # --- its databases -----------------------------------------------------------------------

    def url(self, database: str, *, tcp: bool = False, role: str = ROLE) -> str:
        """Where a database is, by the unix socket or over loopback."""
        if tcp:
            return f"postgresql://{role}@{self.address}:{self.port}/{database}"
        return f"postgresql://{role}@/{database}?host={self.folder}&port={self.port}"

    def sql(
        self, statement: str, database: str = "postgres", role: str = "postgres"
    ) -> list[tuple[object, ...]]:
        """Run a statement as the server's owner, and give its rows."""
        with psycopg.connect(self.url(database, role=role), autocommit=True) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    def database(self, *, tcp: bool = False, template: str = "template0") -> str:
        """The URL of a fresh database."""
        name = f"test_{next(self._names)}"
        self._role()
        self.sql(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {template}")
        return self.url(name, tcp=tcp)

    def migrated(self, *nodes: str, tcp: bool = False) -> str:
        """The URL of a fresh database that has the schema, with a log for each node."""
        from keystead.store.opening import migrate  # noqa: PLC0415  the harness may start earlier

        name = f"{_TEMPLATE}_{'_'.join(nodes)}".replace("-", "_")
        if nodes not in self._templates:
            self._role()
            self.sql(f'CREATE DATABASE "{name}" OWNER {ROLE} TEMPLATE template0')
            for node in nodes:
                migrate(self.url(name), node)
            self._templates.add(nodes)
        return self.database(tcp=tcp, template=f'"{name}"')

    def _role(self) -> None:
        found = self.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'")  # noqa: S608  a constant
        if not found:
            self.sql(f"CREATE ROLE {ROLE} LOGIN")

    def drop(self, url: str) -> None:
        """Drop a database of :meth:`database`, whoever is still connected to it."""
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """A server that runs, in a folder of its own; both are gone afterwards.

    Raises:
        PostgresMissing: it is not installed.
    """
    postgres_binaries()
    folder = Path(tempfile.mkdtemp(prefix="keystead-pg-"))
    server = PostgresServer(folder)
    try:
        server.create()
        server.start(**settings)
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
