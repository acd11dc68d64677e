"""One node on one machine: its data folder, its lock, its processes, and what a person reads."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import stat
import sys
from pathlib import Path

import msgspec

from keystead.errors import KeysteadError, StartupError
from keystead.net.files import write_private
from keystead.net.processes import Child

__all__ = ["NodeOptions", "run_node"]

_UNAVAILABLE = 3
_RESTART_FIRST_S = 0.1
_RESTART_MAX_S = 5.0
_STEADY_S = 10.0
"""A child that lived for so long did not end because it was started: the pause begins anew."""
_REGISTRY, _LOG, _VAULT_SOCKET, _FRONT_SOCKET, _LOCK, _TOKEN = (
    "registry.db",
    "log",
    "vault.sock",
    "front.sock",
    "node.lock",
    "operator-token.new",
)


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``keystead up`` was asked for; paths are absolute.

    ``database``: a PostgreSQL URL without a password; None: SQLite in the data folder.
    ``anchor``: a file on another disk that remembers the log. ``witnesses``: address and
    verifier key of each that cosigns it; ``quorum``: how many must be heard.
    ``operator_token_file``: where a first start leaves the operator's token for the person who
    started it, mode 0600; without it the token is shown once. ``publish``: no command turns it
    off, only a benchmark, to see what checkpoints and tiles cost. ``tour``: run the tour when
    the node serves; ``once``: end after it, with its status.
    """

    data: str
    database: str | None = None
    allow_async_standby: bool = False
    listen: str = "127.0.0.1:7410"
    tls_cert: str | None = None
    tls_key: str | None = None
    seal_file: str | None = None
    operator_token_file: str | None = None
    node: str = "node1"
    anchor: str | None = None
    witnesses: tuple[tuple[str, str], ...] = ()
    quorum: int = 0
    publish: bool = True
    tour: bool = False
    once: bool = False
    json: bool = False


async def run_node(options: NodeOptions) -> int:
    """Start everything, keep it running, end it in order; gives the exit status."""
    try:
        return await _Node(options).run()
    except KeysteadError as exc:
        _say_error(exc, as_json=options.json)
        return _UNAVAILABLE


class _Node:
    def __init__(self, options: NodeOptions) -> None:
        self._options = options
        self._data = Path(options.data)
        self._host, self._port = _split_address(options.listen)
        self._stop = asyncio.Event()
        self._children: list[Child] = []
        self._lock = -1
        self._address = ""
        self._new_token = ""
        self._token_path = ""

    async def run(self) -> int:
        prepare_folder(self._data)
        self._lock = lock_folder(self._data / _LOCK)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            await self._start()
            watchers = [asyncio.create_task(self._keep(child)) for child in self._children]
            status = await self._serve()
            self._stop.set()
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            return status
        finally:
            for child in reversed(self._children):
                await child.stop()
            for name in (_FRONT_SOCKET, _VAULT_SOCKET):  # a confined front cannot remove its own
                (self._data / name).unlink(missing_ok=True)
            os.close(self._lock)

    def _make(self, role: str, **config: object) -> Child:
        return Child(
            role,
            config,
            folder=self._data,
            log=self._data / "logs" / f"{role}.log",
            keep_open=(self._lock,),  # the folder stays locked while any process of the node lives
            few_variables=role == "front",
        )

    async def _start(self) -> None:
        options = self._options
        database = options.database or _REGISTRY
        migration = self._make("migrate", database=database, node=options.node)
        await migration.start()
        await migration.wait()
        vault = self._make(
            "vault",
            database=database,
            allow_async_standby=options.allow_async_standby,
            url=self._url(),
            seal_file=options.seal_file or "seal.key",
            socket=_VAULT_SOCKET,
            node=options.node,
            token_file=_TOKEN,
            log=_LOG,
            anchor=options.anchor,
            witnesses=tuple(vkey for _, vkey in options.witnesses),
            quorum=options.quorum,
        )
        front = self._make(
            "front",
            vault_socket=_VAULT_SOCKET,
            listen_host=self._host,
            listen_port=self._port,
            unix_socket=_FRONT_SOCKET,
            tls_cert=options.tls_cert,
            tls_key=options.tls_key,
            published=_LOG,
            node=options.node,
        )
        (self._data / _LOG).mkdir(mode=0o755, exist_ok=True)
        steward = self._make(
            "steward",
            vault_socket=_VAULT_SOCKET,
            database=database,
            node=options.node,
            log=_LOG if options.publish else None,
            witnesses=options.witnesses,
            quorum=options.quorum,
        )
        self._children.append(vault)
        facts = await vault.start()
        # The vault left it here before it committed: it is there, too, where an earlier start died
        # before anybody was told.
        waiting = self._data / _TOKEN
        self._new_token = waiting.read_text().strip() if waiting.exists() else ""
        self._token_path = self._keep_token(self._new_token) if self._new_token else ""
        self._children.append(steward)
        self._children.append(front)
        _, front_facts = await asyncio.gather(steward.start(), front.start())
        self._address = str(front_facts["address"])
        # If it was any free one: a front that is started again is where clients look for it.
        front.reconfigure(listen_port=int(self._address.rpartition(":")[2]))
        self._announce(facts)

    def _url(self) -> str:
        """Where others find the front, if that is known before it listens."""
        scheme = "https" if self._options.tls_cert else "http"
        return f"{scheme}://{self._options.listen}" if self._port else ""

    def _announce(self, facts: dict[str, object]) -> None:
        self._say_announcement(facts)
        (self._data / _TOKEN).unlink(missing_ok=True)  # told, or kept: no further copy

    def _say_announcement(self, facts: dict[str, object]) -> None:
        token, kept = self._new_token, self._token_path
        scheme = "https" if self._options.tls_cert else "http"
        url = f"{scheme}://{self._address}"
        if self._options.json:
            line = {"url": url, "deployment": facts["deployment"], "keys": facts["keys"]}
            if token and not kept:
                line["operator_token"] = token
            _say(json.dumps(line))
            return
        _say(f"Keystead serves at {url} (and {self._data / _FRONT_SOCKET}), data in {self._data}")
        if kept:
            _say(f"The operator token is in {kept} (mode 0600); the vault keeps only its hash.")
        elif token:
            _say(f"Operator token, shown this once; the vault keeps only its hash:\n  {token}")
        if self._options.database is not None:
            _say(f"Node {self._options.node} on the registry of deployment {facts['deployment']}.")
        _say("Seal: file, for development. See docs/limitations.md.")
        if self._options.anchor is None and not self._options.witnesses:
            _say("Anchor: off, so a restored older copy of the whole data folder is not detected;")
            _say("give --anchor FILE on another disk, or --witness.")
        waiting = facts.get("waiting")
        for reason in waiting if isinstance(waiting, list) else []:
            _say(f"NOT READY: {reason}")
        if facts.get("gap_uses"):
            _say(f"After a crash {facts['gap_uses']} best-effort uses at most have no record.")

    def _keep_token(self, token: str) -> str:
        if self._options.operator_token_file is None:
            return ""
        path = Path(self._options.operator_token_file)
        try:
            write_private(path, token)
        except OSError as exc:
            raise StartupError(
                f"cannot write the operator's token to {path}: {exc.strerror}",
                hint=f"Name another --operator-token-file and start again; until then the token is"
                f" in {self._data / _TOKEN}",
            ) from exc
        return str(path)

    async def _serve(self) -> int:
        if self._options.tour:
            status = await self._tour()
            if self._options.once:
                return status
            if not self._stop.is_set():
                _say("The node goes on serving; Ctrl-C ends it.")
        await self._stop.wait()
        return 0

    async def _tour(self) -> int:
        """Run the tour as any client would: a process of its own, by the front's address."""
        options = self._options
        environment = dict(os.environ, KEYSTEAD_URL=f"http://{self._address}")
        if options.tls_cert is not None:  # whom this certificate is trusted by, only the user knows
            environment["KEYSTEAD_URL"] = f"unix:{self._data / _FRONT_SOCKET}"
        if options.operator_token_file is not None:
            environment["KEYSTEAD_TOKEN_FILE"] = options.operator_token_file
        elif self._new_token:
            environment["KEYSTEAD_TOKEN"] = self._new_token
        arguments = ["--json"] if options.json else []
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "keystead", *arguments, "tour", env=environment
        )
        stopped = asyncio.create_task(self._stop.wait())
        ended = asyncio.create_task(process.wait())
        await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.terminate()
        stopped.cancel()
        return await ended

    async def _keep(self, child: Child) -> None:
        """Start a child again when it ends, ever more slowly while it keeps ending."""
        loop = asyncio.get_running_loop()
        pause_s, began_s = _RESTART_FIRST_S, loop.time()
        while not self._stop.is_set():
            status = await child.wait()
            if self._stop.is_set():
                return
            if loop.time() - began_s >= _STEADY_S:
                pause_s = _RESTART_FIRST_S
            _say(f"The {child.role} process ended with status {status}; starting it again.")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _RESTART_MAX_S)
            began_s = loop.time()
            try:
                await child.start()
                child.restarts += 1
            except StartupError as exc:
                _say_error(exc, as_json=False)
            except OSError as exc:  # no process or file to be had, for now
                refusal = StartupError(f"cannot start the {child.role} process: {exc.strerror}")
                _say_error(refusal, as_json=False)


def prepare_folder(data: Path) -> None:
    """Make the data folder, mode 0700, or check the one there is.

    Raises:
        StartupError: it cannot be made or written, or others may read it.
    """
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        (data / "logs").mkdir(mode=0o700, exist_ok=True)
        probe = data / ".write-probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as exc:
        raise StartupError(
            f"the data folder {data} cannot be written: {exc.strerror}",
            hint="Make it writable for this user, mount it read-write, or name another with --data",
        ) from exc
    if stat.S_IMODE(data.stat().st_mode) & 0o077:
        raise StartupError(
            f"the data folder {data} is open to other users", hint=f"Run: chmod 700 {data}"
        )


def lock_folder(path: Path) -> int:
    """Take the folder for this node; gives the open descriptor that holds the lock (flock(2)).

    Raises:
        StartupError: another node runs on the same folder.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StartupError(f"cannot open {path}: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StartupError(
            f"another node runs on the data folder {path.parent}",
            hint="Stop it first, or give this one a folder of its own with --data. Two nodes on one"
            " folder would each think the keys theirs; nothing was changed",
        ) from None
    return descriptor


def _split_address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004  the largest TCP port
        raise StartupError(f"expected --listen HOST:PORT, met {listen!r}")
    return host.strip("[]"), int(port)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  what a person started this for


def _say_error(error: KeysteadError, *, as_json: bool) -> None:
    if as_json:
        _say(json.dumps({"error": error.message, "hint": error.hint}))
        return
    sys.stderr.write(f"keystead: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"  {error.hint}.\n")
