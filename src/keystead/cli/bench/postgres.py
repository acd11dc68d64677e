"""A PostgreSQL server of a run's own, by Debian's binaries, on a folder that is removed after.

It has the settings that Debian gives it: fsync and full_page_writes on. Whoever is on this machine
may connect to it while it runs; it holds the benchmark's key only.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from keystead.cli.bench.children import Server
from keystead.cli.bench.machine import tree
from keystead.errors import StartupError

__all__ = ["Database", "find_postgres", "postgres_version"]

_PLACE = Path("/usr/lib/postgresql")
_OWNER = "postgres"
_READY_S = 60.0
_POLL_S = 0.05
_ASK_S = 120.0
_SEARCHABLE = 0o711
"""Nodes reach the socket in a folder whose owner they are not; the data in it stays closed."""
_SETTINGS = ("listen_addresses=", "logging_collector=off", "log_min_messages=warning")


def find_postgres() -> Path | None:
    """The folder of the newest server's programs, if Debian's package is installed."""
    found = [path.parent for path in _PLACE.glob("*/bin/initdb")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


def postgres_version(programs: Path) -> str:
    """What the server calls itself."""
    try:
        done = subprocess.run(  # noqa: S603  the program that was found
            [programs / "postgres", "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_ASK_S,
        )
    except (OSError, subprocess.SubprocessError):
        return "PostgreSQL"
    return done.stdout.strip().replace("postgres (PostgreSQL)", "PostgreSQL")


class Database:
    """A server that runs, with one empty database; ``url``: where. It refuses to run as root."""

    def __init__(self, programs: Path, place: Path) -> None:
        self._programs = programs
        self._user = _OWNER if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="keystead-bench-pg-", dir=place))
        self._server: Server | None = None
        try:
            if self._user is not None:
                shutil.chown(self._folder, self._user)
            self._folder.chmod(_SEARCHABLE)
            self._create()
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Of its one database, by the unix socket in its folder."""
        return f"postgresql://{_OWNER}@/{_OWNER}?host={self._folder}"

    def roles(self) -> dict[int, str]:
        """Its processes: one for each connection, and its own."""
        return {} if self._server is None else dict.fromkeys(tree(self._server.pid), "postgres")

    def stop(self) -> None:
        """End it, and remove its folder."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _create(self) -> None:
        command = [str(self._programs / "initdb"), "--pgdata", str(self._folder / "data")]
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", f"--username={_OWNER}"]
        try:
            subprocess.run(  # noqa: S603  the program that was found, with arguments of our own
                [*command, *options],
                cwd=self._folder,
                user=self._user,
                capture_output=True,
                check=True,
                timeout=_ASK_S,
                text=True,
            )
        except (OSError, subprocess.SubprocessError) as exc:
            words = " ".join(str(getattr(exc, "stderr", None) or exc).split())[-300:]
            if "Permission denied" in words:
                words = (
                    f"User {self._user} cannot reach {self._folder.parent}: name another --folder"
                )
            raise StartupError("PostgreSQL's initdb failed", hint=words) from exc

    def _start(self) -> None:
        log = self._folder / "server.log"
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data")]
        command += ["-k", str(self._folder)]
        for setting in _SETTINGS:
            command += ["-c", setting]
        self._server = Server(
            command,
            folder=self._folder,
            log=log,
            pipe=False,
            user=self._user,
            ends_by=signal.SIGINT,  # fast: it does not wait for who is still connected
        )
        until = time.monotonic() + _READY_S
        while time.monotonic() < until and self._server.running:
            if self._answers():
                return
            time.sleep(_POLL_S)
        raise StartupError("PostgreSQL did not start", hint=_last_words(log))

    def _answers(self) -> bool:
        done = subprocess.run(  # noqa: S603  the program that was found, with arguments of our own
            [self._programs / "pg_isready", "--quiet", "--host", self._folder],
            check=False,
            timeout=_ASK_S,
        )
        return done.returncode == 0


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1][:300] if lines else "its log is empty"
