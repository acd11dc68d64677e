"""The benchmark itself, on a real node and made as short as it goes: that it measures, not what."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from keystead.cli.bench.machine import tree
from keystead.cli.bench.report import Report
from postgres import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def bench(data: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "keystead", "bench", "--rounds", "1", "--seconds", "1"]
    return subprocess.run(
        [*command, "--folder", str(data), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env=dict(os.environ, PYTHONWARNINGS="error", **({"PATH": path} if path else {})),
    )


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short name: a path of a unix socket has room for 107 bytes (unix(7))."""
    return tmp_path_factory.mktemp("b")


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that any user of the machine may look into, as a server's is that runs as one."""
    with tempfile.TemporaryDirectory(prefix="keystead-bench-test-") as made:
        folder = Path(made)
        folder.chmod(0o711)
        yield folder


def test_a_short_run_measures_all_that_is_there(tmp_path: Path, data: Path) -> None:
    told = tmp_path / "bench.json"
    ran = bench(
        data,
        *("--openbao", str(tmp_path / "none")),
        "--without-postgres",
        *("--connections", "64"),
        *("--load", "python"),
        *("--keys", "40"),
        *("--json-file", str(told)),
        "--json",
    )
    assert ran.returncode in {0, 1}, ran.stderr
    assert ran.stderr == ""
    report = msgspec.json.decode(told.read_bytes(), type=Report)
    assert msgspec.json.decode(ran.stdout, type=Report) == report
    assert [words for words in report.missing if "OpenBao" in words]
    rates = {sample.subject: sample.rate for sample in report.samples}
    unpublished = {"unpublished-single-64", "unpublished-batch"}
    assert set(rates) == {"alone", "pipeline", "single-64", "batch"} | unpublished
    assert all(rate > 0 for rate in rates.values())
    measured = [ratio.ratio.median for ratio in report.ratios if ratio.ratio is not None]
    assert len(measured) == 6
    assert all(median > 0 for median in measured)
    assert {start.keys for start in report.starts} == {10, 40}
    assert report.opening is not None
    assert report.opening.keys == 40
    assert report.ok == (ran.returncode == 0)
    assert not list(data.iterdir())


@pytest.mark.long
def test_nodes_on_postgres_are_measured_and_its_server_is_gone_after(
    tmp_path: Path, reachable: Path, postgres: PostgresServer
) -> None:
    """On a server of the run's own; ``postgres`` says that there can be one."""
    del postgres
    told = tmp_path / "bench.json"
    ran = bench(
        reachable,
        *("--without-openbao", "--connections", "16"),
        *("--load", "python", "--keys", "0", "--json-file", str(told)),
    )
    assert ran.returncode in {0, 1}, ran.stderr
    report = msgspec.json.decode(told.read_bytes(), type=Report)
    rows = {row.subject: row for row in report.rows}
    for subject in ("postgres1-single-16", "postgres2-single-16", "postgres2-batch"):
        assert rows[subject].rate.median > 0
        assert rows[subject].refused == 0
        assert {"vault", "front", "postgres"} <= rows[subject].parts.keys()
    assert rows["single-16"].parts.keys() >= {"vault", "front"}
    assert "postgres" not in rows["single-16"].parts
    assert report.postgres is not None
    assert report.postgres.startswith("PostgreSQL")
    assert not list(reachable.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="the server runs as who started it")
def test_a_folder_that_the_server_cannot_reach_is_named(
    data: Path, postgres: PostgresServer
) -> None:
    """A root's server runs as another user; folders of pytest are closed to all but their owner."""
    del postgres
    ran = bench(data, "--without-openbao", "--keys", "0")
    assert ran.returncode == 3
    assert f"cannot reach {data}" in ran.stderr
    assert not list(data.iterdir())


def test_a_load_that_is_not_installed_is_named_and_nothing_is_left(
    tmp_path: Path, data: Path
) -> None:
    ran = bench(data, "--load", "wrk", path=str(tmp_path))
    assert ran.returncode == 3
    assert "wrk is not installed" in ran.stderr
    assert not list(data.iterdir())


def test_a_run_that_is_stopped_ends_its_servers_and_removes_its_folder(data: Path) -> None:
    command = [sys.executable, "-m", "keystead", "bench", "--without-openbao", "--keys", "0"]
    command.append("--without-postgres")
    with subprocess.Popen([*command, "--folder", str(data)], stderr=subprocess.PIPE) as running:
        try:
            while running.poll() is None and not list(data.glob("*/node/front.sock")):
                time.sleep(0.05)
            assert running.poll() is None
            node = {pid for pid in tree(running.pid) if pid != running.pid}
        finally:
            running.terminate()
        assert running.wait(60) == 128 + signal.SIGTERM
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert node
    patience = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in node) and time.monotonic() < patience:
        time.sleep(0.05)  # whoever is ended last may still be on its way out
    assert not [pid for pid in node if Path(f"/proc/{pid}").exists()]
    assert not list(data.iterdir())
