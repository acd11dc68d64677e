"""``keystead log fsck``: exit statuses, words for people, JSON, and read-only media."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from keystead.cli.main import main
from unit.fsck.conftest import SIZE

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], data: Path) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["log", "fsck", "--data", str(data), *arguments])
        return status, *capsys.readouterr()

    return run


def test_a_sound_log(run: Run, data: Path) -> None:
    status, out, err = run("--key", str(data / "log/vkey"))
    assert (status, err) == (0, "")
    assert "the log holds" in out
    assert "the one you gave" in out
    status, out, _ = run("--json")
    report = json.loads(out)
    assert (status, report["records"], report["findings"]) == (0, SIZE, 0)


def test_findings(run: Run, db: sqlite3.Connection) -> None:
    db.execute("UPDATE records SET op = 'x' WHERE seq = 7")
    status, out, _ = run()
    assert status == 1
    assert "does NOT hold" in out
    assert "record 7, column op" in out
    status, out, _ = run("--json")
    assert status == 1
    assert json.loads(out)["shown"][0] == {
        "place": "record 7, column op",
        "expected": "'data.wrap'",
        "met": "'x'",
        "means": "the column was altered: searches answer falsely",
    }


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("--data", "/nowhere"), "--data"),
        (("--key", "a+b+c"), "--key"),
        (("--anchor", "/nowhere"), "--anchor"),
        (("--state", os.devnull), "--state"),
    ],
)
def test_usage(run: Run, arguments: tuple[str, ...], option: str) -> None:
    status, _, err = run(*arguments)
    assert status == 2
    assert option in err


def test_a_registry_that_is_none(run: Run, data: Path) -> None:
    (data / "registry.db").write_bytes(b"x" * 5000)
    status, _, err = run()
    assert status == 3
    assert "cannot be read" in err


def test_an_anchor_and_a_state(run: Run, data: Path, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor"
    anchor.write_bytes((data / "log/checkpoint").read_bytes())
    status, *_ = run("--anchor", str(anchor), "--state", str(tmp_path / "state"))
    assert (status, (tmp_path / "state").exists()) == (0, False)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_medium_that_cannot_be_written(run: Run, data: Path) -> None:
    subprocess.run(["mount", "--bind", data, data], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", data], check=True)
        status, *_ = run()
    finally:
        subprocess.run(["umount", data], check=True)
    assert status == 0
