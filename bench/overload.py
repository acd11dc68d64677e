"""What a node does under far more load than it can serve: still useful, and fast to say no?

Starts a node on a folder of its own, loads it by `wrk`, and samples it beside the load with a few
clients that time every answer:

- rounds of a load that the node just serves, and rounds of ten times as many connections, which ask
  again at once when they are refused (the worst kind of client: no back-off, no Retry-After);
- in each flood a revocation is sent, and timed until its answer.

Prints a table and, with --json, one document. Needs `wrk` on PATH.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from keystead.client import Client

_BODY = json.dumps(
    {"context": "load", "facts": {"role": "server", "transcript_hash": "A" * 43 + "="}}
)
_SCRIPT = """
wrk.method = "POST"
wrk.body = '{body}'
wrk.headers["Authorization"] = "Bearer {token}"
wrk.headers["Content-Type"] = "application/json"
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function init(args) served = 0 refused = 0 other = 0 end
function response(status)
  if status == 200 then served = served + 1
  elseif status == 503 then refused = refused + 1
  else other = other + 1 end
end
function done(summary, latency, requests)
  local s, r, o = 0, 0, 0
  for _, t in ipairs(threads) do
    s = s + t:get("served") r = r + t:get("refused") o = o + t:get("other")
  end
  io.write(string.format("COUNTS %d %d %d %d %d\\n", s, r, o, summary.duration,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


class Load(NamedTuple):
    """One load: answers a second by kind, seconds of sampled answers by status."""

    connections: int
    served: float
    refused: float
    other: int
    errors: int
    samples: dict[int, list[float]]
    revocation_s: float


def _flood(url: str, script: Path, connections: int, seconds: int) -> tuple[float, float, int, int]:
    command = [
        "wrk",
        "-t2",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "10s",
        "-s",
        str(script),
    ]
    ran = subprocess.run(  # noqa: S603  the arguments are our own
        [*command, f"{url}/v1/tls/sign"], check=True, capture_output=True, text=True
    )
    found = re.search(r"COUNTS (\d+) (\d+) (\d+) (\d+) (\d+)", ran.stdout)
    if found is None:
        raise SystemExit(f"wrk said: {ran.stdout}{ran.stderr}")
    served, refused, other, duration_us, errors = map(int, found.groups())
    return served * 1e6 / duration_us, refused * 1e6 / duration_us, other, errors


def _sample(url: str, token: str, stop: threading.Event, into: dict[int, list[float]]) -> None:
    """Ask again and again, a little apart, and note how long each answer took.

    A refused one comes back on a new connection: it stands for another client.
    """
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    while not stop.is_set():
        connection.connect()
        begun = time.perf_counter()
        connection.request("POST", "/v1/tls/sign", _BODY, headers)
        answer = connection.getresponse()
        answer.read()
        into[answer.status].append(time.perf_counter() - begun)
        connection.close()
        stop.wait(0.01)


def _load(node: _Node, script: Path, connections: int, seconds: int, *, revoke: bool) -> Load:
    samples: dict[int, list[float]] = defaultdict(list)
    stop = threading.Event()
    samplers = [
        threading.Thread(target=_sample, args=(node.url, node.token, stop, samples))
        for _ in range(4)
    ]
    result: list[tuple[float, float, int, int]] = []
    load = threading.Thread(
        target=lambda: result.append(_flood(node.url, script, connections, seconds))
    )
    load.start()
    time.sleep(min(2.0, seconds / 3))  # the limit finds its place
    for sampler in samplers:
        sampler.start()
    revocation_s = 0.0
    if revoke:
        time.sleep(0.5)
        revocation_s = node.revoke()
    load.join()
    stop.set()
    for sampler in samplers:
        sampler.join()
    [(served, refused, other, errors)] = result
    return Load(connections, served, refused, other, errors, dict(samples), revocation_s)


class _Node:
    """A node on a temporary folder, with one key and the handle of the load."""

    def __init__(self, folder: Path) -> None:
        token_file = folder / "operator.token"
        self._process = subprocess.Popen(  # noqa: S603  the arguments are our own
            [
                sys.executable,
                "-m",
                "keystead",
                "up",
                "--data",
                str(folder / "data"),
                "--listen",
                "127.0.0.1:0",
                "--operator-token-file",
                str(token_file),
                "--json",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self._process.stdout.readline() if self._process.stdout else ""
        self.url = str(json.loads(line)["url"])
        self._operator = token_file.read_text(encoding="utf-8").strip()
        with self.operator() as client:
            client.create_key("load", "tls")
            client.limit_tenant(
                "default", 1_000_000, reason="bench: the flood is to reach the queue"
            )
            self.token = client.issue_handle("load", "wrk").handle.reveal()

    def operator(self) -> Client:
        return Client(self.url, operator=self._operator)

    def revoke(self) -> float:
        """Issue a handle, revoke it; seconds of the revocation."""
        with self.operator() as client:
            link = client.issue_handle("load", "victim").link
            begun = time.perf_counter()
            client.revoke_handle(link, reason="bench")
            return time.perf_counter() - begun

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=60)


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] if values else float("nan")


def main() -> int:
    """Run the rounds; exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--connections", type=int, default=64, help="of the load that is served")
    parser.add_argument("--times", type=int, default=10, help="how much more the flood has")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    normal: list[Load] = []
    flood: list[Load] = []
    with tempfile.TemporaryDirectory(prefix="keystead-overload-") as name:
        folder = Path(name)
        node = _Node(folder)
        try:
            script = folder / "load.lua"
            script.write_text(_SCRIPT.format(body=_BODY, token=node.token), encoding="utf-8")
            for _ in range(asked.rounds):
                normal.append(_load(node, script, asked.connections, asked.seconds, revoke=False))
                flood.append(
                    _load(node, script, asked.connections * asked.times, asked.seconds, revoke=True)
                )
        finally:
            node.stop()
    _report(_facts(normal, flood), as_json=asked.json)
    return 0


def _facts(normal: list[Load], flood: list[Load]) -> dict[str, Any]:
    best = max(load.served for load in (*normal, *flood))
    normal_p99_s = _p99([s for load in normal for s in load.samples.get(200, [])])
    served = [s for load in flood for s in load.samples.get(200, [])]
    refused = [s for load in flood for s in load.samples.get(503, [])]
    return {
        "served_per_s": [round(load.served) for load in normal],
        "flood_served_per_s": [round(load.served) for load in flood],
        "flood_refused_per_s": [round(load.refused) for load in flood],
        "unexpected_answers": sum(load.other for load in (*normal, *flood)),
        "connection_errors": sum(load.errors for load in (*normal, *flood)),
        "flood_served_of_best": round(statistics.median(load.served for load in flood) / best, 3),
        "normal_p99_ms": round(normal_p99_s * 1e3, 2),
        "flood_served_p99_ms": round(_p99(served) * 1e3, 2),
        "refused_p50_ms": round(statistics.median(refused) * 1e3, 2) if refused else None,
        "refused_p99_ms": round(_p99(refused) * 1e3, 2) if refused else None,
        "refused_samples": len(refused),
        "revocation_ms": [round(load.revocation_s * 1e3, 1) for load in flood],
    }


def _report(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    sys.exit(main())
