"""``keystead log``: search, follow, count, show, disclose and forget."""

import hashlib
import json
import os
import signal
import stat
import threading
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from keystead.cli import log_search
from unit.cli.conftest import Run
from unit.cli.node import RECORD, FakeNode, Seen
from unit.cli.test_key import Terminal

END = {"next": 0, "end": True, "top": 99}


def record(seq: int, **changes: object) -> dict[str, Any]:
    columns = {"seq": seq, "operation": "jwt.sign", "outcome": "ok", "name": "shop", "time_ms": 1}
    return {**RECORD, **columns, **changes}


def scripted(node: FakeNode, *answers: dict[str, Any]) -> list[Seen]:
    """The node gives one answer a request, the last one again and again; gives what it is asked."""
    left = list(answers)

    def answer(seen: Seen) -> tuple[int, bytes]:
        node.seen.append(seen)
        given = left.pop(0) if len(left) > 1 else left[0]
        return 200, json.dumps(given).encode()

    node.answer = answer  # type: ignore[method-assign]  # a script in place of the table
    return node.seen


def asked(seen: Seen) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(urlsplit(seen.path).query).items()}


# --- search --------------------------------------------------------------------------------------


def test_search_asks_for_what_is_given(run: Run, node: FakeNode) -> None:
    seen = scripted(node, {"records": [record(7)], **END})
    words = ["--key", "shop", "--version", "2", "--purpose", "jwt", "--handle", "h"]
    words += ["--principal", "ci", "--outcome", "denied", "--operation", "sign", "--request", "r"]
    words += ["--since", "2026-11-03T14:00:00Z", "--until", "2026-11-03T15:00:00Z"]
    words += ["--after", "3", "--before", "9", "--limit", "4", "--oldest-first"]
    assert [found["seq"] for found in run("log", "search", *words, "--json").json] == [7]
    assert asked(seen[0]) == {
        "key": "shop",
        "version": "2",
        "purpose": "jwt",
        "handle_id": "h",
        "principal": "ci",
        "outcome": "denied",
        "operation": "sign",
        "request_id": "r",
        "since_ms": "1793714400000",
        "until_ms": "1793718000000",
        "after": "3",
        "before": "9",
        "limit": "4",
        "oldest_first": "true",
    }


def test_search_goes_on_over_empty_pages(run: Run, node: FakeNode) -> None:
    pages = (
        {"records": [record(98)], "next": 90, "end": False, "top": 99},
        {"records": [], "next": 40, "end": False, "top": 99},
        {"records": [record(12), record(11)], "next": 11, "end": False, "top": 99},
    )
    seen = scripted(node, *pages)
    ran = run("log", "search", "--purpose", "jwt", "--limit", "3", "--json")
    assert [found["seq"] for found in ran.json] == [98, 12, 11]
    assert [asked(each).get("before") for each in seen] == [None, "90", "40"]
    assert [asked(each)["limit"] for each in seen] == ["3", "2", "2"]
    seen = scripted(node, pages[1], {"records": [], **END})
    run("log", "search", "--oldest-first")
    assert asked(seen[-1])["after"] == "40"


def test_search_shows_a_table(run: Run, node: FakeNode) -> None:
    gone = record(6, state="forgotten", body={})
    shut = record(5, state="withheld", body={}, principal="ci\x1b[31m")
    scripted(node, {"records": [record(7), gone, shut], **END})
    out = run("log", "search").out
    assert "jwt.sign" in out
    assert "(forgotten)" in out
    assert "(body withheld)" in out
    assert "\x1b[31m" not in out


@pytest.mark.parametrize(
    "words",
    [
        ("--since", "yesterday"),
        ("--follow", "--count-by", "key"),
        ("--follow", "--oldest-first"),
        ("--follow", "--before", "9"),
        ("--count-by", "colour"),
        ("--before", "-1"),
    ],
)
def test_search_refuses_what_makes_no_sense(
    run: Run, node: FakeNode, words: tuple[str, ...]
) -> None:
    assert run("log", "search", *words).status == 2
    assert node.seen == []


def test_count_by_adds_up_and_sorts(run: Run, node: FakeNode) -> None:
    looks = (
        {"counts": {"shop": 2, "web": 5}, "next": 50, "end": False, "top": 99},
        {"counts": {"shop": 7, "": 1}, **END},
    )
    seen = scripted(node, *looks)
    ran = run("log", "search", "--count-by", "key", "--outcome", "denied", "--json")
    assert ran.json == [
        {"value": "shop", "count": 9},
        {"value": "web", "count": 5},
        {"value": "(none)", "count": 1},
    ]
    assert [asked(each) for each in seen] == [
        {"by": "key", "outcome": "denied"},
        {"by": "key", "outcome": "denied", "before": "50"},
    ]
    scripted(node, *looks)
    lines = run("log", "search", "--count-by", "key").out.splitlines()
    bars = [line.count("█") for line in lines if "█" in line]
    assert bars == [40, 22, 4]


def test_hours_come_in_their_order(run: Run, node: FakeNode) -> None:
    scripted(node, {"counts": {"1793718000000": 1, "1793714400000": 9}, **END})
    ran = run("log", "search", "--count-by", "hour", "--json")
    assert ran.json == [
        {"value": "2026-11-03T14:00Z", "count": 9},
        {"value": "2026-11-03T15:00Z", "count": 1},
    ]
    scripted(node, {"counts": {}, **END})
    assert run("log", "search", "--count-by", "hour", "--json").json == []
    assert run("log", "search", "--count-by", "hour").status == 0


# --- follow --------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_follow_shows_the_last_and_what_comes_until_it_is_stopped(
    run: Run,
    node: FakeNode,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    as_json: bool,
) -> None:
    monkeypatch.setattr(log_search, "_POLL_S", 0.01)
    seen = scripted(
        node,
        {"records": [record(7), record(0)], "next": 0, "end": False, "top": 8},
        {"records": [record(9)], "next": 9, "end": False, "top": 12},
        {"records": [], "next": 12, "end": True, "top": 12},
        {"records": [record(13)], "next": 13, "end": True, "top": 13},
        {"records": [], "next": 13, "end": True, "top": 13},
    )
    stop = interrupted_when(lambda: len(seen) >= 8)
    with pytest.raises(SystemExit) as ended:
        run("log", "search", "--key", "shop", "--follow", *(["--json"] if as_json else []))
    stop.join()
    assert ended.value.code == 130
    lines = capsys.readouterr().out.splitlines()
    if as_json:
        assert [json.loads(line)["seq"] for line in lines] == [0, 7, 9, 13]
    else:
        assert [int(line.split()[0]) for line in lines] == [0, 7, 9, 13]
    afters = [asked(each).get("after") for each in seen]
    assert afters[:6] == [None, "8", "9", "12", "13", "13"]


def interrupted_when(ready: Callable[[], bool]) -> threading.Thread:
    """Ctrl-C, once it is."""
    waited = threading.Event()

    def interrupt() -> None:
        for _ in range(500):
            if ready():
                break
            waited.wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread


# --- show and disclose ---------------------------------------------------------------------------


def test_show(run: Run, node: FakeNode) -> None:
    seen = scripted(node, {"records": [record(7)], **END})
    assert run("log", "show", "7", "--json").json["leaf"] == "01"
    assert asked(seen[0]) == {"after": "6", "before": "8", "limit": "1"}
    assert "jwt.sign" in run("log", "show", "7").out
    scripted(node, {"records": [record(7, state="forgotten", body={})], **END})
    assert "forgotten" in run("log", "show", "7").out
    scripted(node, {"records": [], **END})
    ran = run("log", "show", "8")
    assert (ran.status, "no record 8" in ran.err) == (1, True)


def disclosed(body: bytes = b'{"seq":7}', salt: bytes = bytes(16)) -> dict[str, Any]:
    entry = hashlib.sha256(salt + b'{"seq":7}').digest()
    parts = {"body": body, "salt": salt, "entry": entry}
    return {"seq": 7, **{name: b64encode(value).decode() for name, value in parts.items()}}


def test_disclose(run: Run, node: FakeNode, tmp_path: Path) -> None:
    node.on("POST /v1/log/disclose", disclosed())
    assert '{"seq":7}' in run("log", "disclose", "7", "--reason", "audit").out
    assert node.seen[0].body == {"seq": 7, "reason": "audit"}
    assert run("log", "disclose", "7", "--json").json == disclosed()
    ran = run("log", "disclose", "7", "--out", "7.json")
    assert (ran.status, ran.out) == (0, "")
    assert json.loads((tmp_path / "7.json").read_bytes()) == disclosed()
    assert stat.S_IMODE((tmp_path / "7.json").stat().st_mode) == 0o600


def test_a_body_that_is_not_that_of_its_entry_is_told(
    run: Run, node: FakeNode, tmp_path: Path
) -> None:
    node.on("POST /v1/log/disclose", disclosed(body=b'{"seq":8}'))
    ran = run("log", "disclose", "7", "--out", "7.json")
    assert (ran.status, "not that of its entry" in ran.err) == (1, True)
    assert not (tmp_path / "7.json").exists()


# --- forget --------------------------------------------------------------------------------------


def batch(count: int, first: int, last: int, *, after: int, end: bool) -> dict[str, Any]:
    times = {"first_ms": first * 1000, "last_ms": last * 1000, "before_ms": 10**12}
    places = {"first_seq": first, "last_seq": last, "next": after, "end": end}
    return {"count": count, "scrubbed": end, **times, **places}


DRY = (batch(400, 3, 500, after=500, end=False), batch(100, 600, 700, after=900, end=True))
NOTHING = batch(0, 0, 0, after=900, end=True)


def test_a_dry_run_says_what_would_be_lost(run: Run, node: FakeNode) -> None:
    seen = scripted(node, *DRY)
    ran = run("log", "forget", "--key", "shop", "--dry-run", "--reason", "old", "--json")
    assert ran.json == {
        "dry_run": True,
        "records": 500,
        "first_seq": 3,
        "last_seq": 700,
        "first_ms": 3_000,
        "last_ms": 700_000,
        "scrubbed": None,
    }
    assert [each.body["after"] for each in seen] == [-1, 500]
    assert all(each.body["dry_run"] for each in seen)
    scripted(node, *DRY)
    out = run("log", "forget", "--key", "shop", "--dry-run", "--reason", "old").out
    assert "500 records would be forgotten" in out
    assert "proof of inclusion stays valid" in out


def test_forget_looks_first_and_goes_no_further_than_it_said(run: Run, node: FakeNode) -> None:
    seen = scripted(
        node,
        *DRY,
        batch(250, 3, 400, after=400, end=False),
        batch(250, 401, 700, after=700, end=True),
    )
    words = ("--before", "2026-08-01T00:00:00Z", "--handle", "h", "--principal", "ci")
    ran = run("log", "forget", *words, "--reason", "old", "--yes", "--json")
    assert (ran.json["records"], ran.json["dry_run"], ran.json["scrubbed"]) == (500, False, True)
    assert [(each.body["dry_run"], each.body["after"]) for each in seen] == [
        (True, -1),
        (True, 500),
        (False, -1),
        (False, 400),
    ]
    assert [each.body["through"] for each in seen] == [None, None, 700, 700]
    told = {name: seen[-1].body[name] for name in ("before_ms", "key", "handle_id", "principal")}
    assert told == {"before_ms": 1785542400000, "key": None, "handle_id": "h", "principal": "ci"}


def test_forget_tells_of_traces(run: Run, node: FakeNode) -> None:
    scripted(node, DRY[1], {**DRY[1], "scrubbed": False})
    out = run("log", "forget", "--key", "shop", "--reason", "old", "--yes").out
    assert "100 records were forgotten" in out
    assert "traces" in out


def test_nothing_to_forget(run: Run, node: FakeNode) -> None:
    seen = scripted(node, NOTHING)
    ran = run("log", "forget", "--key", "shop", "--reason", "old", "--yes")
    assert (ran.status, len(seen)) == (0, 1)
    assert "No record" in ran.out
    ran = run("log", "forget", "--key", "shop", "--reason", "old", "--yes", "--json")
    assert (ran.json["records"], ran.json["dry_run"]) == (0, False)


def test_forget_asks_a_person(run: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = scripted(node, DRY[1], DRY[1])
    words = ("log", "forget", "--key", "shop", "--reason", "old")
    assert run(*words).status == 2
    assert run(*words, "--json").status == 2
    assert seen == []
    monkeypatch.setattr("keystead.cli.log_forget.sys", Terminal())
    for answer, status, requests in ((b"n\n", 1, 1), (b"y\n", 0, 3)):
        ran = run(*words, stdin=answer)
        assert (ran.status, len(seen)) == (status, requests)
        assert "100 records would be forgotten" in ran.err
