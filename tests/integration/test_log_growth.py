"""The benchmark of a large log, made as short as it goes: that it measures, not what."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "log_growth.py"
COMMAND = [sys.executable, str(SCRIPT)]
ENVIRONMENT = dict(os.environ, PYTHONWARNINGS="error")


def test_a_short_run_measures_both_logs(tmp_path: Path) -> None:
    folder, told = tmp_path / "data", tmp_path / "growth.json"
    folder.mkdir()
    ran = subprocess.run(
        [
            *COMMAND,
            *("--first", "1500"),
            *("--entries", "3000"),
            *("--rounds", "1"),
            *("--folder", str(folder)),
            *("--json", str(told)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=ENVIRONMENT,
    )
    assert ran.returncode in {0, 1}, ran.stderr
    assert ran.stderr == ""
    report: dict[str, Any] = msgspec.json.decode(told.read_bytes())
    small, large = report["small"], report["large"]
    assert large["entries"] - small["entries"] == 1500
    assert 0 < large["published_bytes"] < large["database_bytes"]
    ratios = {ratio["title"]: ratio["ratio"]["median"] for ratio in report["ratios"]}
    assert len(ratios) == 12
    assert all(median > 0 for median in ratios.values())
    for title in ratios:
        assert title in ran.stdout
    assert not list(folder.iterdir())


def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([*COMMAND, "--folder", str(tmp_path)], env=ENVIRONMENT) as running:
        try:
            while running.poll() is None and not list(tmp_path.glob("*/small/registry.db")):
                time.sleep(0.05)
            assert running.poll() is None
        finally:
            running.terminate()
        assert running.wait(30) == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [["--first", "0"], ["--entries", "5"], ["--entries", "x"]])
def test_what_is_typed_wrong_is_refused(tmp_path: Path, wrong: list[str]) -> None:
    ran = subprocess.run(
        [*COMMAND, "--folder", str(tmp_path), *wrong], capture_output=True, check=False, timeout=60
    )
    assert ran.returncode == 2
    assert not list(tmp_path.iterdir())
