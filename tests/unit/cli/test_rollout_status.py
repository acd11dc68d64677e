"""``keystead key status``: the picture, the lines of a watch, and how a watch ends."""

import json
import os
import pty
import re
import threading
from collections.abc import Iterable

import pytest
from rich.console import Console, RenderableType

from keystead.cli import rollout_status
from keystead.cli.rollout_drawing import (
    change_line,
    gate_words,
    length_words,
    picture,
    share_words,
    stage_times,
)
from keystead.keys.rollout.commands import RolloutInfo
from keystead.keys.rollout.model import GateFigure
from keystead.keys.rollout.table import Wish
from unit.cli.conftest import Run
from unit.cli.node import FakeNode, Seen
from unit.cli.rolling import GOOD, REPORTED, Rolling, as_json


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_status, "_POLL_S", 0.0)


def drawn(parts: Iterable[RenderableType], width: int = 200) -> str:
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    return captured.get()


def shown(info: RolloutInfo) -> str:
    return drawn(picture(info))


# --- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length_ms", "words"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (250, "250 ms"),
        (1_250, "1 s"),
        (90_000, "1 min 30 s"),
        (3_600_000, "1 h"),
        (3_601_000, "1 h"),
        (26 * 3_600_000 + 61_000, "1 d 2 h"),
        (366 * 24 * 3_600_000, "366 d"),
    ],
)
def test_lengths_in_words(length_ms: int, words: str) -> None:
    assert length_words(length_ms) == words


def test_shares_and_gates_in_human_units() -> None:
    assert [share_words(ppm) for ppm in (0, 1, 50_000, 333_333, 1_000_000)] == [
        "0 %",
        "0.0001 %",
        "5 %",
        "33.3333 %",
        "100 %",
    ]

    def words(gate: str, value: int, limit: int) -> tuple[str, str]:
        return gate_words(GateFigure(gate=gate, verdict="pass", value=value, limit=limit))

    assert words("errors", 2_500, 10_000) == ("0.25 %", "at most 1 %")
    assert words("p99", 125, 300) == ("125 % of the previous version's", "at most 300 %")
    assert words("p99", 125, 0)[1] == "not looked at"
    assert words("samples", 1_234, 100) == ("1,234 uses", "at least 100")
    assert words("acknowledged", 1, 2) == ("1 principal", "all 2")
    assert words("reporters", 1, 1) == ("1 principal", "at most 1")


# --- the picture ---------------------------------------------------------------------------------


def test_a_key_without_a_rollout_says_when_it_rotates(run: Run, node: FakeNode) -> None:
    Rolling().served_by(node)
    out = run("key", "status", "shop").out
    assert "none yet" in out
    assert "by hand" in out
    assert run("key", "status", "shop", "--json").json["status"] == "none"


def test_each_stage_says_how_long_it_was_is_and_will_be() -> None:
    rolling = Rolling()
    rolling.begin()
    rolling.signals = GOOD
    rolling.pass_time(1_000)
    assert stage_times(rolling.info()) == (
        "2 s left",
        "20 %, 3 s",
        "50 %, 2 s each",
        "3 s",
        "3 s",
        "unpublished",
    )
    rolling.pass_time(3_000)
    assert stage_times(rolling.info())[:2] == ("14:00:00Z", "2 s left")
    rolling.pass_time(3_000)
    assert stage_times(rolling.info())[:3] == ("14:00:00Z", "14:00:03Z", "1 s left")
    rolling.steer(Wish.PAUSE, "freeze")
    assert stage_times(rolling.info())[2] == "paused"


def test_the_canary_is_drawn_with_its_share_its_gates_and_its_versions() -> None:
    rolling = Rolling()
    rolling.begin()
    rolling.pass_time(4_000)
    out = shown(rolling.info())
    assert "rollout 1, canary" in out
    assert re.search(r"1 +█{19}░{5} +80 %", out)
    assert re.search(r"2 +█{5}░{19} +20 %", out)
    assert re.search(r"samples +hold +0 uses +at least 20", out)
    assert "waits for" in out
    assert re.search(r"14:00:03Z +canary +canary +rollout", out)
    assert "drill of 2026-11" in out
    rolling.signals = GOOD
    assert "1.5 ms" in shown(rolling.info())


def test_what_a_node_tells_is_never_markup_or_control() -> None:
    rolling = Rolling()
    rolling.begin()
    rolling.steer(Wish.PAUSE, "\x1b[31m[red]freeze[/red]")
    out = shown(rolling.info())
    assert "\x1b[31m" not in out
    assert "[red]freeze[/red]" in out
    assert "\x1b" not in change_line(rolling.info())


def test_the_picture_fits_a_small_terminal() -> None:
    rolling = Rolling()
    rolling.begin()
    rolling.signals = GOOD
    rolling.pass_time(4_000)
    lines = drawn(picture(rolling.info()), 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("publish" in line and "retire" in line for line in lines)


def test_an_ended_rollout_waits_for_nothing() -> None:
    rolling = Rolling()
    rolling.begin()
    rolling.signals = REPORTED
    rolling.pass_time(4_000)
    out = shown(rolling.info())
    assert "rolled back at canary" in out
    assert "waits for" not in out
    assert re.search(r"reporters +fail +2 principals +at most 1", out), "what it was decided on"
    assert "gate reporters failed: 2 principals, at most 1" in change_line(rolling.info())
    assert stage_times(rolling.info())[2:] == ("", "", "", "")


# --- watching ------------------------------------------------------------------------------------


def test_a_watch_ends_with_the_rollout(run: Run, node: FakeNode) -> None:
    rolling = Rolling()
    rolling.begin()
    rolling.signals = GOOD
    rolling.served_by(node, step_ms=1_000)
    ran = run("key", "status", "shop", "--watch")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    said = [line.partition("rollout 1: ")[2].partition(";")[0] for line in lines]
    assert said == ["publish", "canary", "ramp step 1 of 1", "promote", "drain", "finished"]
    assert "version 2 has 20 %" in lines[1]
    assert len(node.seen) > len(lines), "a look without a change is no line"


def test_a_rollout_that_went_back_ends_a_watch_with_4(run: Run, node: FakeNode) -> None:
    rolling = Rolling()
    rolling.begin()
    rolling.signals = REPORTED
    rolling.served_by(node, step_ms=1_000)
    ran = run("key", "status", "shop", "--watch", "--json")
    assert (ran.status, ran.err) == (4, "")
    told = [json.loads(line) for line in ran.out.splitlines()]
    assert [each["status"] for each in told] == ["running", "running", "rolled_back"]
    assert told[-1] == as_json(rolling.info()) | {"now_ms": told[-1]["now_ms"]}
    assert run("key", "status", "shop", "--watch", "--json").status == 4


def test_a_halted_rollout_ends_a_watch_with_5(run: Run, node: FakeNode) -> None:
    rolling = Rolling()
    rolling.begin(incident=True)
    rolling.signals = REPORTED
    rolling.served_by(node, step_ms=1_000)
    ran = run("key", "status", "shop", "--watch")
    assert ran.status == 5
    assert "halted at canary" in ran.out.splitlines()[-1]
    looked = run("key", "status", "shop")
    assert looked.status == 0, "to look is no failure"
    assert "it never goes back" in looked.out


def test_a_paused_rollout_is_watched_on(run: Run, node: FakeNode) -> None:
    rolling = Rolling()
    rolling.begin()
    rolling.signals = REPORTED
    rolling.pass_time(2_000)
    rolling.steer(Wish.PAUSE, "freeze")
    rolling.served_by(node, step_ms=0)
    table = node.answer
    looks = iter(range(4))

    def answer(seen: Seen) -> tuple[int, bytes]:
        if next(looks, None) is None:
            rolling.steer(Wish.ROLL_BACK, "enough")
        return table(seen)

    node.answer = answer  # type: ignore[method-assign]  # somebody acts at the fifth look
    ran = run("key", "status", "shop", "--watch")
    assert ran.status == 4
    assert len(ran.out.splitlines()) == 2
    assert "paused at publish" in ran.out


def test_a_watch_tells_of_the_rollout_that_it_began_with(run: Run, node: FakeNode) -> None:
    """Also if that ended, and the next one began, between two looks."""
    rolling = Rolling()
    rolling.begin()
    rolling.signals = GOOD
    rolling.pass_time(15_000)
    ended = rolling.rotation.rollout
    first = rolling.info()
    rolling.begin()
    answers = [as_json(first) | {"status": "running"}, as_json(rolling.info())]
    evidence = {"key": "shop", "purpose": "jwt", "rollout": as_json(ended), "reports": []}
    evidence |= {"acknowledged": [], "revisions": [], "records": []}
    node.on("GET /v1/keys/shop/evidence", evidence)
    table = node.answer

    def answer(seen: Seen) -> tuple[int, bytes]:
        if seen.path.endswith("/rollout"):
            return 200, json.dumps(answers.pop(0)).encode()
        return table(seen)

    node.answer = answer  # type: ignore[method-assign]  # a script before its table
    assert run("key", "status", "shop", "--watch").status == 0
    assert [each.path for each in node.seen] == ["/v1/keys/shop/evidence?number=1"]


def test_there_must_be_something_to_watch(run: Run, node: FakeNode) -> None:
    Rolling().served_by(node)
    ran = run("key", "status", "shop", "--watch")
    assert ran.status == 1
    assert "keystead key rotate" in ran.err


def test_on_a_terminal_a_watch_redraws(
    run: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolling = Rolling()
    rolling.begin()
    rolling.signals = GOOD
    rolling.served_by(node, step_ms=1_000)
    ours, theirs = pty.openpty()
    got: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                got.append(data)
        except OSError:  # the other side is closed
            return

    reader = threading.Thread(target=read)
    reader.start()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        status = run("key", "status", "shop", "--watch").status
    reader.join(10)
    os.close(ours)
    out = b"".join(got).decode()
    assert status == 0
    assert out.count("rollout 1, ") >= len(node.seen) > 6
    assert "\x1b[" in out
    assert out.index("rollout 1, publish") < out.index("rollout 1, finished")
