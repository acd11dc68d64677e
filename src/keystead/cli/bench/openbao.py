"""OpenBao's real server on loopback: raft storage, transit engine, the same kind of key."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec

from keystead.cli.bench.children import Server
from keystead.cli.bench.load import Job
from keystead.cli.bench.machine import tree
from keystead.cli.bench.work import BATCH, KEY, message
from keystead.errors import StartupError

__all__ = ["OpenBao", "find_openbao", "openbao_version"]

_READY_S = 60.0
_ASK_S = 10.0
_POLL_S = 0.1
_OK, _REDIRECT = 200, 300

_CONFIG = """
storage "raft" {{
  path = "{folder}/data"
  node_id = "bench"
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_disable = true
}}
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster}"
"""
_AUDIT = """
audit "file" "bench" {{
  description = "what the benchmark asks for"
  options {{ file_path = "{folder}/audit.log" }}
}}
"""


def find_openbao(named: Path | None) -> str | None:
    """The server's program: the one that was named, on PATH, or beside this Python."""
    if named is not None:
        return str(named.absolute()) if os.access(named, os.X_OK) and named.is_file() else None
    return shutil.which("bao") or shutil.which("bao", path=sysconfig.get_path("scripts"))


def openbao_version(program: str) -> str:
    """What the program calls itself."""
    try:
        done = subprocess.run(  # noqa: S603  the program that was found or named
            [program, "version"], capture_output=True, text=True, check=True, timeout=_ASK_S
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return " ".join(done.stdout.split()[:2])


class OpenBao:
    """One server on a new folder, unsealed, with the key made; with its file audit, or without."""

    def __init__(self, program: str, folder: Path, *, audit: bool) -> None:
        folder.mkdir(mode=0o700)
        (folder / "data").mkdir()
        self._port, cluster = _free_ports()
        text = _CONFIG + (_AUDIT if audit else "")
        config = folder / "config.hcl"
        config.write_text(text.format(folder=folder, port=self._port, cluster=cluster))
        self._server = Server(
            [program, "server", f"-config={config}"],
            folder=folder,
            log=folder / "server.log",
            pipe=False,
        )
        self._token = ""
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{self._port}/v1/", timeout=_READY_S
            ) as web:
                self._prepare(web)
        except (httpx.HTTPError, LookupError, StartupError) as exc:
            self.stop()
            raise StartupError(
                f"OpenBao did not start: {exc}", hint=_last_words(folder / "server.log")
            ) from exc

    def roles(self) -> dict[int, str]:
        """Its processes."""
        return dict.fromkeys(tree(self._server.pid), "openbao")

    def stop(self) -> None:
        """End it."""
        self._server.stop()

    def _prepare(self, web: httpx.Client) -> None:
        self._wait(web, {501})  # not initialised, as its sys/health says
        made = _ask(web, "PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self._token = str(made["root_token"])
        _ask(web, "PUT", "sys/unseal", {"key": made["keys"][0]})
        self._wait(web, {_OK})
        web.headers["x-vault-token"] = self._token
        _ask(web, "POST", "sys/mounts/transit", {"type": "transit"})
        _ask(web, "POST", f"transit/keys/{KEY}", {"type": "ecdsa-p256"})

    def _wait(self, web: httpx.Client, wanted: set[int]) -> None:
        until = time.monotonic() + _READY_S
        while time.monotonic() < until and self._server.running:
            try:
                if web.get("sys/health").status_code in wanted:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_POLL_S)
        raise StartupError("it was not ready in time")

    def single(self, connections: int) -> Job:
        """Single requests."""
        return self._job({"input": _input()}, connections)

    def batch(self, connections: int) -> Job:
        """Batches."""
        return self._job({"batch_input": [{"input": _input()}] * BATCH}, connections)

    def _job(self, body: object, connections: int) -> Job:
        return Job(
            ports=(self._port,),
            path=f"/v1/transit/sign/{KEY}",
            headers={"x-vault-token": self._token, "content-type": "application/json"},
            body=msgspec.json.encode(body).decode(),
            connections=connections,
        )


def _input() -> str:
    return base64.b64encode(message()).decode()


def _ask(web: httpx.Client, method: str, path: str, body: object) -> dict[str, Any]:
    reply = web.request(method, path, json=body)
    if not _OK <= reply.status_code < _REDIRECT:
        raise StartupError(f"{path} answered {reply.status_code}")
    return msgspec.json.decode(reply.content, type=dict[str, Any]) if reply.content else {}


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1][:300] if lines else "its log is empty"


def _free_ports() -> tuple[int, int]:
    """Two ports that were free a moment ago."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
