"""A real witness over loopback, asked by the client that a log's steward uses."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import socket
import ssl
import struct
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from nacl.signing import VerifyKey

from integration.witness import COMMAND, WitnessProcess
from keystead import limits
from keystead.net.witnesses import Behind, Cosigned, Outcome, Refused, Unreachable, Witness
from keystead.translog.cosignatures import verify_cosignature
from keystead.translog.notes import Note, encode_note, parse_note
from unit.witness.logs import Log

T = TypeVar("T")

LOG = Log()
STRANGER = Log("log.example/other", seed=3)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WitnessProcess]:
    """One for all tests that each have a log of their own."""
    logs = [LOG.key, *(Log(f"log.example/{number}").key for number in range(8))]
    state = tmp_path_factory.mktemp("witness") / "state"
    with WitnessProcess(state, logs, "--name", "witness.example/w1") as witness:
        yield witness


def asking(running: WitnessProcess, ask: Callable[[Witness], Awaitable[T]]) -> T:
    async def run() -> T:
        async with Witness(running.url, running.vkey) as witness:
            return await ask(witness)

    return asyncio.run(run())


def submit(running: WitnessProcess, log: Log, old: int, new: int) -> Outcome:
    return asking(running, lambda w: w.submit(log.note(new), old, log.proof(old, new)))


def test_a_log_that_grows_is_cosigned(running: WitnessProcess) -> None:
    log = Log("log.example/0")

    async def grow(witness: Witness) -> None:
        assert await witness.remembered(log.key) is None
        size = 0
        for new in (1, 2, 2, 7, 64, 200):
            outcome = await witness.submit(log.note(new), size, log.proof(size, new))
            assert isinstance(outcome, Cosigned)
            note = parse_note(log.note(new))
            cosigned = Note(note.text, (*note.signatures, outcome.signature))
            assert verify_cosignature(cosigned, witness.vkey) == outcome.time_s
            remembered = await witness.remembered(log.key)
            assert remembered is not None
            assert not isinstance(remembered, Unreachable)
            assert remembered.checkpoint == log.checkpoint(new)
            size = new

    asking(running, grow)


def test_a_client_that_knows_nothing_learns_the_size(running: WitnessProcess) -> None:
    log = Log("log.example/1")
    assert isinstance(submit(running, log, 0, 10), Cosigned)
    outcome = submit(running, log, 0, 25)
    assert outcome == Behind(10)
    assert isinstance(submit(running, log, outcome.size, 25), Cosigned)


def test_what_a_log_may_not_do(running: WitnessProcess) -> None:
    log = Log("log.example/2")
    fork = Log("log.example/2", history="b")
    assert isinstance(submit(running, log, 0, 10), Cosigned)
    for other in (log, fork):
        assert submit(running, other, 3, 3) == Behind(10), "a log that shrank"
    forks = [submit(running, fork, 10, new) for new in (10, 12)]
    bad = asking(running, lambda w: w.submit(log.note(12), 10, log.proof(9, 12)))
    for outcome in (*forks, bad):
        assert isinstance(outcome, Refused)
        assert outcome.status == 422
    unknown = submit(running, STRANGER, 0, 3)
    assert isinstance(unknown, Refused)
    assert unknown.status == 404
    unsigned = submit(running, Log("log.example/2", seed=9), 10, 12)
    assert isinstance(unsigned, Refused)
    assert unsigned.status == 403
    assert isinstance(submit(running, log, 10, 12), Cosigned), "and it goes on"


def test_submissions_at_once_leave_one_history(running: WitnessProcess) -> None:
    log, fork = (Log("log.example/3", history=name) for name in ("a", "b"))

    async def run() -> list[tuple[Log, Outcome]]:
        async def one(source: Log, size: int) -> tuple[Log, Outcome]:
            async with Witness(running.url, running.vkey) as witness:
                return source, await witness.submit(source.note(size), 0, ())

        tasks = [one(source, size) for size in range(20, 32) for source in (log, fork)]
        return await asyncio.gather(*tasks)

    outcomes = asyncio.run(run())
    won = [source for source, outcome in outcomes if isinstance(outcome, Cosigned)]
    assert len(won) == 1
    assert sum(isinstance(outcome, Behind) for _, outcome in outcomes) == len(outcomes) - 1


def test_the_cosignature_verifies_with_nothing_of_ours(running: WitnessProcess) -> None:
    """From the published vkey alone, as c2sp.org/tlog-cosignature and signed-note have it."""
    log = Log("log.example/4")
    outcome = submit(running, log, 0, 33)
    assert isinstance(outcome, Cosigned)
    note = parse_note(log.note(33))
    cosigned = encode_note(Note(note.text, (*note.signatures, outcome.signature))).decode()

    name, key_id, material = running.facts["vkey"].split("+", 2)
    raw = base64.b64decode(material)
    assert raw[0] == 0x04
    expected = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    assert expected.hex() == key_id
    text, _, lines = cosigned.rpartition("\n\n")
    [line] = [line for line in lines.splitlines() if line.startswith(f"— {name} ")]
    signature = base64.b64decode(line.rpartition(" ")[2])
    assert signature[:4] == expected
    (time_s,) = struct.unpack(">Q", signature[4:12])
    message = f"cosignature/v1\ntime {time_s}\n{text}\n".encode()
    VerifyKey(raw[1:]).verify(message, signature[12:])


def test_over_plain_http_as_the_specification_has_it(running: WitnessProcess) -> None:
    log = Log("log.example/5")
    with httpx.Client(base_url=running.url, trust_env=False) as client:
        first = client.post("/add-checkpoint", content=log.submission(0, 4))
        assert (first.status_code, first.text.count("\n")) == (200, 1)
        behind = client.post("/add-checkpoint", content=log.submission(0, 5))
        assert (behind.status_code, behind.text) == (409, "4\n")
        assert behind.headers["content-type"] == "text/x.tlog.size"
        origin_hash = hashlib.sha256(log.key.name.encode()).hexdigest()
        assert client.get(f"/{origin_hash}/checkpoint").text.endswith(first.text)
        assert "tlog-witness" in client.get("/").text
        assert "keystead_witness_log_size" in client.get("/metrics").text
        assert client.post("/add-checkpoint", content=b"x").status_code == 400
        long = client.post("/add-checkpoint", content=b"x" * 2 * limits.WITNESS_BODY_BYTES_MAX)
        assert long.status_code == 413


def test_a_head_that_never_ends_holds_up_nobody(running: WitnessProcess) -> None:
    host, port = running.url.removeprefix("http://").split(":")
    held = [socket.create_connection((host, int(port))) for _ in range(20)]
    for each in held:
        each.sendall(b"POST /add-checkpoint HTTP/1.1\r\nhost: w\r\n")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    connection.close()
    for each in held:
        each.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """For 127.0.0.1, signed by itself."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=w"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(cert), "-keyout", str(key)]
    subprocess.run(["openssl", *made.split(), *more], check=True, capture_output=True)
    return cert, key


def test_over_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    running = WitnessProcess(tmp_path / "s", [LOG.key], "--tls-cert", cert, "--tls-key", key)
    trusting = ssl.create_default_context(cafile=cert)

    async def ask(tls: ssl.SSLContext | None) -> Outcome:
        async with Witness(running.url, running.vkey, tls=tls) as witness:
            return await witness.submit(LOG.note(3), 0, ())

    with running:
        assert running.url.startswith("https://")
        assert isinstance(asyncio.run(ask(trusting)), Cosigned)
        refused = asyncio.run(ask(None))
        assert isinstance(refused, Unreachable)
        assert "CERTIFICATE_VERIFY_FAILED" in refused.reason


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--listen", "0.0.0.0:0"), "refusing to listen on 0.0.0.0 in clear"),
        (("--listen", "localhost"), "expected HOST:PORT"),
        (("--listen", "127.0.0.1:99999"), "cannot listen"),
        (("--name", "a b"), "name without spaces"),
        (("--log", "x"), "expected a verifier key"),
        (("--tls-cert", "missing.pem"), "together"),
        (("--tls-cert", "missing.pem", "--tls-key", "missing.pem"), "no certificate with its key"),
    ],
)
def test_what_it_does_not_start_with(tmp_path: Path, options: tuple[str, ...], why: str) -> None:
    with pytest.raises(RuntimeError, match=why):
        WitnessProcess(tmp_path / "s", [LOG.key], *options).start()


def test_without_a_log_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="expected 1 to 64 keys of logs, met 0"):
        WitnessProcess(tmp_path / "s", []).start()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RuntimeError, match="in use"):
            WitnessProcess(tmp_path / "s", [LOG.key], "--listen", where).start()


def test_its_key_is_shown_and_kept(tmp_path: Path) -> None:
    shown = [
        subprocess.run(
            [*COMMAND, "--state", tmp_path / "s", "--show-key"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert shown[0] == shown[1]
    with WitnessProcess(tmp_path / "s", [LOG.key]) as running:
        assert running.facts["vkey"] == shown[0].strip()
