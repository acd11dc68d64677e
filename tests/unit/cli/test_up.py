"""How a node is started, and the tour."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keystead.supervisor import NodeOptions
from unit.cli.conftest import Run
from unit.cli.node import FakeNode


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    found: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, arguments: found.append(arguments))
    return found


def options(arguments: list[str]) -> NodeOptions:
    assert arguments[:-1] == [sys.executable, "-P", "-m", "keystead.app", "up", "--config-json"]
    return msgspec.json.decode(arguments[-1].encode(), type=NodeOptions)


def test_up_by_default(run: Run, started: list[list[str]]) -> None:
    assert run("up").status == 0
    expected = NodeOptions(data=str(Path.cwd() / ".keystead"), listen="127.0.0.1:7410")
    assert options(started[0]) == expected


def test_up_with_everything(run: Run, started: list[list[str]]) -> None:
    words = ["--data", "d", "--listen", "0.0.0.0:1", "--tls-cert", "c", "--tls-key", "k"]
    words += ["--seal-file", "s", "--operator-token-file", "/t", "--node", "n2", "--once", "--json"]
    assert run("up", *words).status == 0
    here = Path.cwd()
    assert options(started[0]) == NodeOptions(
        data=str(here / "d"),
        listen="0.0.0.0:1",
        tls_cert=str(here / "c"),
        tls_key=str(here / "k"),
        seal_file=str(here / "s"),
        operator_token_file="/t",
        node="n2",
        tour=True,
        once=True,
        json=True,
    )


def test_up_refuses_a_bad_name(run: Run, started: list[list[str]]) -> None:
    assert run("up", "--node", "N 1").status == 1
    assert started == []


def test_tour_hands_over(run: Run, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def tour(**given: object) -> int:
        asked.append(given)
        return 1

    monkeypatch.setattr("keystead.cli.tour.run.run_tour", tour)
    assert run("tour", "--image", "a.img", "--json").status == 1
    image = Path("a.img")
    expected = {"url": node.url, "token": "kso1.operator", "image": image, "as_json": True}
    assert asked == [expected]
    monkeypatch.delenv("KEYSTEAD_TOKEN")
    ran = run("tour", "--json")
    assert ran.status == 2
    assert json.loads(ran.err)["code"] == "usage"
