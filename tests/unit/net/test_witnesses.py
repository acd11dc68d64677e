"""The log's side of a witness, against servers that answer whatever they like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from keystead import limits
from keystead.crypto.witnesskey import witness_key
from keystead.errors import MalformedRequest
from keystead.net.witnesses import (
    Behind,
    Cosigned,
    Outcome,
    Refused,
    Remembered,
    Unreachable,
    Witness,
)
from keystead.translog.cosignatures import cosign
from keystead.translog.notes import (
    ED25519_COSIGNATURE,
    Note,
    VerifierKey,
    encode_note,
    encode_signature,
    parse_note,
    vkey_of,
)
from unit.witness.logs import Log, body

LOG = Log()
NOTE = LOG.note(9)
SIGNER = witness_key(b"\x07" * 32)
KEY = vkey_of("witness.example/w1", ED25519_COSIGNATURE, SIGNER.public)
OTHER_SIGNER = witness_key(b"\x08" * 32)
OTHER = vkey_of("witness.example/w2", ED25519_COSIGNATURE, OTHER_SIGNER.public)


def line(size: int = 9, time_s: int = 77, key: VerifierKey = KEY, *, forged: bool = False) -> bytes:
    signer = OTHER_SIGNER if forged or key is OTHER else SIGNER
    signature = cosign(LOG.checkpoint(size).encode(), key, time_s, signer.sign)
    return encode_signature(signature).encode()


def http(status: int, content: bytes, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} x", f"content-length: {len(content)}", *headers, "", ""]
    return "\r\n".join(head).encode() + content


@asynccontextmanager
async def serving(answer: bytes, asked: list[bytes]) -> AsyncIterator[Witness]:
    """A server that says one thing to everybody and keeps what it was asked."""
    talks: list[asyncio.Task[Any]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.current_task())  # type: ignore[arg-type]  # there is one here
        head = await reader.readuntil(b"\r\n\r\n")
        length = [row for row in head.lower().split(b"\r\n") if row.startswith(b"content-length:")]
        count = int(length[0].partition(b":")[2]) if length else 0
        asked.append(head + await reader.readexactly(count))
        writer.write(answer)
        if not answer:
            await reader.read()  # until the client goes
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        async with Witness(f"http://127.0.0.1:{port}/prefix/", KEY) as witness:
            yield witness
        await asyncio.gather(*talks)


def submitted(answer: bytes, asked: list[bytes] | None = None) -> Outcome:
    async def run() -> Outcome:
        async with serving(answer, [] if asked is None else asked) as witness:
            return await witness.submit(NOTE, 5, LOG.proof(5, 9))

    return asyncio.run(run())


def test_what_is_asked() -> None:
    asked: list[bytes] = []
    outcome = submitted(http(200, line()), asked)
    assert isinstance(outcome, Cosigned)
    assert outcome.time_s == 77
    assert asked[0].startswith(b"POST /prefix/add-checkpoint HTTP/1.1\r\n")
    assert asked[0].partition(b"\r\n\r\n")[2] == LOG.submission(5, 9)
    assert asked[0].endswith(body(5, LOG.proof(5, 9), NOTE))


def test_lines_of_other_keys_are_ignored_and_of_several_the_latest_counts() -> None:
    outcome = submitted(http(200, line(key=OTHER) + line(time_s=5) + line(time_s=256) + line()))
    assert isinstance(outcome, Cosigned)
    assert outcome.time_s == 256
    assert encode_signature(outcome.signature).encode() == line(time_s=256)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http(200, b""), "without a good cosignature"),
        (http(200, b"\xff"), "without a good cosignature"),
        (http(200, line()[:-1]), "without a good cosignature"),
        (http(200, line(key=OTHER)), "without a good cosignature"),
        (http(200, line(8)), "without a good cosignature"),
        (http(200, line(forged=True)), "without a good cosignature"),
        (http(200, line() + line(forged=True)), "without a good cosignature"),
        (http(200, line(time_s=0)), "without a cosignature's time"),
        (http(200, line() + b"x" * limits.WITNESS_ANSWER_BYTES_MAX), "an answer of more than"),
        (http(409, b"7\n"), "status 409"),
        (http(409, b"7", "content-type: text/x.tlog.size"), "status 409"),
        (http(409, b"07\n", "content-type: text/x.tlog.size"), "says no size"),
        (http(409, b"-1\n", "content-type: text/x.tlog.size"), "says no size"),
        (http(409, b"9" * 400 + b"\n", "content-type: text/x.tlog.size"), "says no size"),
        (http(302, b"", "location: http://127.0.0.1:1/"), "status 302"),
        (http(503, b"the disk\x1b[31m\nis full"), "status 503: the disk[31m"),
        (b"HTTP/1.1 200 x\r\ncontent-length: 99\r\n\r\nshort", "RemoteProtocolError"),
        (b"not http at all\r\n\r\n", "RemoteProtocolError"),
    ],
)
def test_what_no_good_witness_answers(answer: bytes, why: str) -> None:
    outcome = submitted(answer)
    assert isinstance(outcome, Unreachable)
    assert why in outcome.reason


def test_what_it_answers() -> None:
    assert submitted(http(409, b"7\n", "content-type: text/x.tlog.size")) == Behind(7)
    for status in (400, 403, 404, 422):
        assert submitted(http(status, b"no\nnever")) == Refused(status, "no")
    long = submitted(http(422, b"x" * 5000))
    assert isinstance(long, Refused)
    assert len(long.reason) == 200


def test_one_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WITNESS_ANSWER_S", 0.05)
    assert submitted(b"") == Unreachable("no answer within 0 s")


def test_one_that_is_not_there() -> None:
    async def run() -> Any:  # noqa: ANN401  whatever comes
        async with Witness("http://127.0.0.1:1", KEY) as witness:
            return await witness.submit(NOTE, 0, ())

    outcome = asyncio.run(run())
    assert isinstance(outcome, Unreachable)
    assert outcome.reason.startswith("ConnectError")


def test_a_note_that_is_none_is_not_sent() -> None:
    async def run() -> None:
        async with Witness("http://127.0.0.1:1", KEY) as witness:
            await witness.submit(b"no note", 0, ())

    with pytest.raises(MalformedRequest):
        asyncio.run(run())


def remembered(answer: bytes) -> Remembered | Unreachable | None:
    async def run() -> Remembered | Unreachable | None:
        async with serving(answer, []) as witness:
            return await witness.remembered(LOG.key)

    return asyncio.run(run())


def test_what_is_remembered_is_checked_twice() -> None:
    assert remembered(http(200, NOTE + line())) == Remembered(LOG.checkpoint(9), 77)
    assert remembered(http(404, b"")) is None
    foreign = Log("log.example/other", seed=3)
    for bad in (
        NOTE,
        NOTE + line(8),
        NOTE + line(forged=True),
        Log(seed=5).note(9) + line(),
        foreign.note(9) + line(),
        encode_note(Note(LOG.checkpoint(9).encode(), parse_note(LOG.note(8)).signatures)) + line(),
        b"",
    ):
        found = remembered(http(200, bad))
        assert isinstance(found, Unreachable)
        assert "does not verify" in found.reason
    assert isinstance(remembered(http(500, b"")), Unreachable)
    assert isinstance(remembered(b"x\r\n\r\n"), Unreachable)


@pytest.mark.parametrize(
    "url",
    [
        "http://witness.example",
        "http://192.0.2.1:8791",
        "ftp://127.0.0.1",
        "https://user:secret@witness.example",
        "https://witness.example/?a=b",
        "https://witness.example/#x",
        "https://",
        "witness.example",
        "http://[::1",
        "",
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        Witness(url, KEY)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://witness.example/w/", "http://localhost:8791", "http://[::1]:8791"]
)
def test_an_address(url: str) -> None:
    async def run() -> str:
        async with Witness(url, KEY) as witness:
            return witness.url

    assert asyncio.run(run()) == url.rstrip("/")
