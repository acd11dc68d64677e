"""A real node under load: every process of `keystead up`, on a folder of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from keystead.cli.bench.children import Server
from keystead.cli.bench.load import Job
from keystead.cli.bench.machine import rss_bytes, tree
from keystead.cli.bench.work import (
    ALGORITHM,
    BATCH,
    CONTEXT,
    KEY,
    OPERATION,
    PURPOSE,
    TENANT,
    facts_json,
)
from keystead.client import Client
from keystead.errors import StartupError
from keystead.supervisor import NodeOptions

__all__ = ["Node", "Nodes"]

_READY_S = 120.0
_ITEM = {"purpose": PURPOSE, "operation": OPERATION}


class _Said(msgspec.Struct, frozen=True):
    url: str = ""
    error: str = "it said nothing"


class Node:
    """``keystead up`` on a free port of 127.0.0.1; ``start_s``: until it said that it serves.

    ``publish``: whether the log is published, as no command but this one may leave it.
    ``database``: a PostgreSQL URL, which several nodes share, each under its ``name``; all but the
    first have its ``seal``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        publish: bool = True,
        database: str | None = None,
        name: str = "node1",
        seal: Path | None = None,
    ) -> None:
        self._token_file = folder.parent / f"{folder.name}-operator.token"
        self.seal = seal or folder / "seal.key"
        options = NodeOptions(
            data=str(folder),
            database=database,
            listen="127.0.0.1:0",
            operator_token_file=str(self._token_file),
            seal_file=None if seal is None else str(seal),
            node=name,
            publish=publish,
            json=True,
        )
        config = msgspec.json.encode(options).decode()
        command = [sys.executable, "-P", "-m", "keystead.app", "up", "--config-json", config]
        started = time.perf_counter()
        self._server = Server(
            command, folder=folder.parent, log=folder.parent / f"{folder.name}.log", pipe=True
        )
        try:
            facts = msgspec.json.decode(self._server.line(_READY_S), type=_Said)
            self.start_s = time.perf_counter() - started
        except (StartupError, msgspec.MsgspecError) as exc:
            facts = _Said(error=str(exc))
        if not facts.url:
            self._server.stop()
            raise StartupError("a node did not start for the benchmark", hint=facts.error)
        self._url = facts.url
        self._headers: dict[str, str] = {}

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._server.pid

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self._url).port or 0

    def stop(self) -> None:
        """End all its processes."""
        self._server.stop()

    def vault_rss_bytes(self) -> int:
        """Resident bytes of the vault's process, found by its role.

        Raises:
            StartupError: there is no such process.
        """
        for pid, role in self.roles().items():
            if role == "vault":
                return rss_bytes(pid)
        raise StartupError("the node has no vault process")

    def roles(self) -> dict[int, str]:
        """Its processes."""
        return {pid: _role(pid) for pid in tree(self.pid)}

    def prepare(self) -> None:
        """Make the key, and a handle of it."""
        token = self._token_file.read_text(encoding="ascii").strip()
        with Client(self._url, operator=token) as client:
            client.create_key(KEY, PURPOSE, tenant=TENANT, algorithm=ALGORITHM)
            handle = client.issue_handle(KEY, "bench").handle
        self._headers = {
            "authorization": f"Bearer {handle.reveal()}",
            "content-type": "application/json",
        }

    def single(self, connections: int) -> Job:
        """Durable single requests."""
        body = {"context": CONTEXT, "facts": facts_json()}
        return self._job(f"/v1/{PURPOSE}/{OPERATION}", body, connections)

    def batch(self, connections: int) -> Job:
        """Durable batches."""
        item = _ITEM | {"context": CONTEXT, "facts": facts_json()}
        return self._job("/v1/batch", {"items": [item] * BATCH}, connections)

    def _job(self, path: str, body: object, connections: int) -> Job:
        return Job(
            ports=(self.port,),
            path=path,
            headers=self._headers,
            body=msgspec.json.encode(body).decode(),
            connections=connections,
        )


def _role(pid: int) -> str:
    """What a process of a node is started as; ``other`` if it has ended meanwhile."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        found = arguments[arguments.index(b"keystead.app") + 1].decode()
    except (OSError, ValueError, IndexError):
        return "other"
    return "supervisor" if found == "up" else found


class Nodes:
    """One node on a server, or several that share it: served together, and paid for together.

    ``database``: the server's own processes, none if it is not of this machine.
    """

    def __init__(self, nodes: Sequence[Node], database: Callable[[], dict[int, str]]) -> None:
        self._nodes = nodes
        self._database = database

    def roles(self) -> dict[int, str]:
        """All processes, the server's among them."""
        found = self._database()
        for node in self._nodes:
            found |= node.roles()
        return found

    def single(self, connections: int) -> Job:
        """Durable single requests, the connections spread over the nodes."""
        return self._all(self._nodes[0].single(connections))

    def batch(self, connections: int) -> Job:
        """Durable batches, likewise."""
        return self._all(self._nodes[0].batch(connections))

    def _all(self, job: Job) -> Job:
        return msgspec.structs.replace(job, ports=tuple(node.port for node in self._nodes))
