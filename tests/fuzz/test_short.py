"""The short form of `make fuzz`: 20,000 cases with fixed seeds, and a problem code each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.artefacts import ARTEFACTS
from fuzz.choices import Choices
from fuzz.judge import Judge, Target
from fuzz.pure import PURE
from fuzz.served import Served, furnish, rss_kib, told
from integration.node import Node
from keystead.errors import MalformedRequest
from keystead.frames.messages import Admin, Answer, Refused
from keystead.front.bodies import Message, Scope
from keystead.front.http import Front
from keystead.keys.commands import Command, ListRecords
from keystead.keys.rollout.commands import ListHistory
from keystead.net.link import VaultLink

TARGETS = (*PURE, *ARTEFACTS)
CASES = 18_000
SERVED = 1_024
GROWTH_KIB_MAX = 64 * 1024
SIGNAL = b'{"context": "web", "facts": {"seq": 1, "problem": "other"}}'


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_each_case_has_a_code(target: Target) -> None:
    judge, source = Judge(), random.Random(f"ci/{target.name}")  # noqa: S311  cases, not secrets
    for _ in range(CASES // len(TARGETS)):
        judge.run(target, source.randbytes(source.choice((8, 40, 200, 900))))
    assert not judge.findings, told(judge.findings)
    # Both ends are reached: what is taken, and what is refused.
    assert {name.partition(": ")[2] == "value" for name in judge.outcomes} == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=400))
def test_hypothesis_finds_no_other_outcome(target: Target, data: bytes) -> None:
    judge = Judge(unit_s=1.0)  # here it is the outcomes that count, and what shrinks from them
    judge.run(target, data)
    assert not judge.findings, told(judge.findings)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("fuzz") / "data") as running:
        yield running


def logged(node: Node) -> list[str]:
    """What the vault told of; that somebody reported a stolen key is no fault of its own."""
    lines = (node.data / "logs" / "vault.log").read_text().splitlines()
    return [msgspec.json.decode(line)["event"] for line in lines]


@pytest.mark.slow
def test_a_front_and_its_vault_answer_each_with_a_code(node: Node) -> None:
    served, before = Served(furnish(node)), node.children()
    vault_kib = rss_kib(before["vault"])
    source = random.Random("ci")  # noqa: S311  cases, not secrets
    asyncio.run(served.http(source, SERVED))
    asyncio.run(served.frames(source, SERVED))
    assert served.cases >= 2 * SERVED
    assert not served.findings, told(served.findings)
    assert node.children() == before
    assert rss_kib(before["vault"]) - vault_kib < GROWTH_KIB_MAX
    assert [event for event in logged(node) if event != "reconcile_unrecorded"] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [-1, 2**63, 2**64 - 1])
@pytest.mark.parametrize(
    "make",
    [
        lambda number: ListRecords(before=number),
        lambda number: ListHistory(before=number),
        lambda number: ListHistory(at_seq=number),
        lambda number: ListHistory(at_ms=number),
    ],
    ids=["log", "history", "history at a record", "history at a time"],
)
def test_a_vault_holds_a_place_in_the_log_to_its_database(
    node: Node, make: Callable[[int], Command], number: int
) -> None:
    """A front checks it too; but what a front checked is a stranger's to a vault."""

    async def ask() -> Answer:
        link = VaultLink(str(node.data / "vault.sock"))
        await link.start()
        try:
            return await link.call(
                Admin(link.take_id(), node.token, msgspec.msgpack.encode(make(number)))
            )
        finally:
            await link.close()

    answer = asyncio.run(ask())
    assert isinstance(answer, Refused)
    assert answer.code == "malformed_request"


def test_a_front_takes_no_name_that_is_no_text(node: Node) -> None:
    """Of a key that a signal is sent to; servers differ in what they make of such a path."""

    async def ask() -> list[Message]:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": SIGNAL, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        link = VaultLink(str(node.data / "vault.sock"))
        await link.start()
        try:
            await Front(link)(signal_scope(token), receive, send)
        finally:
            await link.close()
        return sent

    with node.client() as operator:
        operator.create_key("told", "tls")
        token = operator.issue_handle("told", "web", operations=("report",)).handle.reveal()
    start, body = asyncio.run(ask())
    assert (start["status"], msgspec.json.decode(body["body"])["code"]) == (
        400,
        "malformed_request",
    )


def signal_scope(token: str) -> Scope:
    path = "/v1/keys/\ud800/reports"
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(errors="replace"),
        "query_string": b"",
        "headers": [
            (b"authorization", f"Bearer {token}".encode()),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(SIGNAL)),
        ],
        "client": ("127.0.0.1", 1),
    }


@pytest.mark.parametrize(
    ("feed", "what"),
    [
        (lambda _: 1 // 0, "ZeroDivisionError"),
        (lambda _: [None] * 10_000_000, "bytes, expected"),
        (lambda _: sum(range(50_000_000)), "as long as"),
    ],
)
def test_the_judge_sees_faults_memory_and_time(feed: object, what: str) -> None:
    judge = Judge()
    target = Target("bad", lambda choices: choices.blob(), feed, lambda _: 0)  # type: ignore[arg-type]  # functions of one argument
    for _ in range(8):  # every eighth is weighed, the others are timed
        if not any(what in finding.what for finding in judge.findings):
            judge.run(target, b"")  # on a busy machine what takes memory takes time, too
    assert any(what in finding.what for finding in judge.findings), judge.findings


def test_the_judge_takes_an_error_with_a_code() -> None:
    def feed(_: object) -> None:
        raise MalformedRequest("expected something else")

    judge = Judge()
    judge.run(Target("good", lambda choices: choices.blob(), feed, lambda _: 0), b"")
    assert not judge.findings
    assert judge.outcomes == {"good: malformed_request": 1}


def test_choices_are_the_first_where_the_bytes_end() -> None:
    choices = Choices(b"\xff")
    assert choices.below(256) == 255
    assert [choices.below(9), choices.pick("ab"), choices.rarely(2), choices.blob()] == [
        *(0, "a", False, b""),
    ]
