"""The supervisor: its folder and lock, what it starts, starts again, and ends in order.

It runs as it does for a person, in a process of its own. Its children are programs that stand in
for the node's roles: they say that they are ready, and do what a test tells them by files.
"""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keystead.errors import StartupError
from keystead.supervisor import lock_folder, prepare_folder

WITHIN_S = 30.0
SUPERVISOR = """
import asyncio, json, os, sys
from keystead.supervisor import NodeOptions, run_node
os.environ["PYTHONPATH"] = sys.argv[1]
options = NodeOptions(**json.loads(sys.argv[2]))
sys.exit(asyncio.run(run_node(options)))
"""
ROLE = """
import json, os, pathlib, signal, sys, time
role = sys.argv[1]

def note(name):
    with open(name, "a") as file:
        file.write(f"{role} {os.getpid()}\\n")

def end(*_):
    note("ends")
    sys.exit(0)

signal.signal(signal.SIGTERM, end)
note("starts")
if pathlib.Path(f"broken-{role}").exists():
    print(json.dumps({"error": f"the {role} is broken", "hint": "mend it"}))
    sys.exit(3)
facts = {"ready": True, "address": "127.0.0.1:7", "deployment": "d1", "keys": 0}
print(json.dumps(facts), flush=True)
while role != "migrate":
    time.sleep(60)
"""


class Supervisor:
    """A supervisor in a process of its own, over stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self._package = folder / "roles" / "keystead"
        self._package.mkdir(parents=True)
        (self._package / "__init__.py").write_text("")
        (self._package / "app.py").write_text(ROLE)
        self._process: subprocess.Popen[str] | None = None

    def start(self, **options: object) -> None:
        """Begin, and wait for nothing."""
        chosen = {"data": str(self.data), "listen": "127.0.0.1:0"} | options
        self._process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(self._package.parent), json.dumps(chosen)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def serving(self, **options: object) -> str:
        """Begin, and wait until it says that it serves; gives that line."""
        self.start(**options)
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "serves at" in line or "url" in line, self.ended()
        return line

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """End it; gives status and what it said since."""
        assert self._process is not None
        self._process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str, str]:
        """Wait for its end."""
        assert self._process is not None
        said, complained = self._process.communicate(timeout=WITHIN_S)
        return self._process.returncode, said, complained

    def end(self) -> None:
        """Leave nothing behind, whatever became of the test."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate(timeout=WITHIN_S)
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)

    def left(self) -> list[int]:
        """Stand-ins that still run."""
        return [pid for _, pid in self.noted("starts") if is_ours(pid, self._package)]

    def noted(self, name: str) -> list[tuple[str, int]]:
        """(role, process id) of each start or end so far, in order."""
        path = self.data / name
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    def pids(self, role: str) -> list[int]:
        """The processes of a role so far."""
        return [pid for name, pid in self.noted("starts") if name == role]


def is_ours(pid: int, package: Path) -> bool:
    """Whether a process still is one of this test's stand-ins: ids are used again."""
    try:
        return str(package.parent).encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WITHIN_S
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"expected within {WITHIN_S:.0f} s: {what}")
        time.sleep(0.02)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path)
    yield supervisor
    supervisor.end()


# --- starts and ends -----------------------------------------------------------------------------


def test_it_starts_all_and_ends_them_in_order(node: Supervisor) -> None:
    """The vault first and last: what comes before it ends can still be recorded."""
    node.serving()
    roles = [role for role, _ in node.noted("starts")]
    assert roles[:2] == ["migrate", "vault"]
    assert sorted(roles[2:]) == ["front", "steward"]
    status, _, complained = node.stop()
    assert (status, complained) == (0, "")
    assert [role for role, _ in node.noted("ends")] == ["front", "steward", "vault"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_end_it(node: Supervisor, number: int) -> None:
    node.serving()
    assert node.stop(number)[0] == 0


def test_json_is_one_line_for_a_program(node: Supervisor) -> None:
    line = json.loads(node.serving(json=True))
    assert line == {"url": "http://127.0.0.1:7", "deployment": "d1", "keys": 0}
    assert node.stop()[1] == ""


@pytest.mark.parametrize("role", ["migrate", "vault", "steward", "front"])
def test_a_role_that_cannot_start_ends_it_with_its_words(node: Supervisor, role: str) -> None:
    node.data.mkdir(mode=0o700)
    (node.data / f"broken-{role}").touch()
    node.start()
    status, said, complained = node.ended()
    assert (status, said) == (3, "")
    assert complained.splitlines() == [f"keystead: the {role} is broken", "  mend it."]
    assert node.left() == []


@pytest.mark.parametrize("listen", ["7410", ":7410", "127.0.0.1:", "127.0.0.1:http", "a:70000"])
def test_an_address_that_is_none_is_refused(node: Supervisor, listen: str) -> None:
    node.start(listen=listen, json=True)
    status, said, complained = node.ended()
    assert (status, complained) == (3, "")
    assert "HOST:PORT" in json.loads(said)["error"]
    assert not node.data.exists()


def test_a_second_node_on_the_folder_is_refused(node: Supervisor, tmp_path: Path) -> None:
    node.serving()
    second = Supervisor(tmp_path / "second")
    try:
        second.start(data=str(node.data))
        status, _, complained = second.ended()
    finally:
        second.end()
    assert status == 3
    assert "another node runs" in complained
    assert [role for role, _ in node.noted("starts")].count("migrate") == 1
    assert node.stop()[0] == 0


# --- children that die ---------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["vault", "steward", "front"])
def test_a_child_that_dies_is_started_again(node: Supervisor, role: str) -> None:
    node.serving()
    for count in (1, 2):
        os.kill(node.pids(role)[-1], signal.SIGKILL)
        until(lambda: len(node.pids(role)) == count + 1, f"start {count + 1} of {role}")  # noqa: B023  called at once
    others = {"vault", "steward", "front"} - {role}
    assert [len(node.pids(other)) for other in others] == [1, 1]
    time.sleep(0.1)  # until it has said that it is ready
    status, said, _ = node.stop()
    assert status == 0
    assert said.count(f"The {role} process ended with status -9; starting it again.") == 2


def test_one_that_cannot_start_again_is_tried_ever_more_slowly(node: Supervisor) -> None:
    node.serving()
    broken = node.data / "broken-front"
    broken.touch()
    began = time.monotonic()
    os.kill(node.pids("front")[-1], signal.SIGKILL)
    until(lambda: len(node.pids("front")) >= 4, "three more starts of the front")
    # Its pauses double from 0.1 s: three of them take 0.7 s, and the machine's load only adds.
    assert time.monotonic() - began >= 0.7
    broken.unlink()
    count = len(node.pids("front"))
    until(lambda: len(node.pids("front")) > count, "one more start of the front")
    time.sleep(0.2)
    status, _, complained = node.stop()
    assert status == 0
    assert "keystead: the front is broken" in complained


def test_one_that_dies_as_soon_as_it_is_ready_is_tried_ever_more_slowly(node: Supervisor) -> None:
    """Else a vault that meets its fault at the first request starts ten times a second for ever."""
    node.serving()
    hasty = ROLE.replace('while role != "migrate":', 'while role not in ("migrate", "front"):')
    (node.data.parent / "roles" / "keystead" / "app.py").write_text(hasty)
    began = time.monotonic()
    os.kill(node.pids("front")[-1], signal.SIGKILL)
    until(lambda: len(node.pids("front")) >= 6, "five more starts of the front")
    assert time.monotonic() - began >= 0.1 + 0.2 + 0.4 + 0.8
    assert node.stop()[0] == 0


def test_one_that_the_machine_cannot_start_is_tried_again(node: Supervisor) -> None:
    """No room for a process or a file is no word of the child's, and passes."""
    node.serving()
    shutil.move(node.data / "logs", node.data / "elsewhere")
    os.kill(node.pids("front")[-1], signal.SIGKILL)
    time.sleep(0.5)
    shutil.move(node.data / "elsewhere", node.data / "logs")
    until(lambda: len(node.pids("front")) == 2, "a second start of the front")
    time.sleep(0.1)
    assert node.stop()[0] == 0


# --- folder and lock -----------------------------------------------------------------------------


def test_a_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    data = tmp_path / "deep" / "data"
    prepare_folder(data)
    prepare_folder(data)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "logs").stat().st_mode) == 0o700
    assert [path.name for path in data.iterdir()] == ["logs"]


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o755, 0o777])
def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(StartupError, match="open to other users") as caught:
        prepare_folder(tmp_path)
    assert "chmod 700" in caught.value.hint


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(StartupError, match="cannot be written") as caught:
        prepare_folder(tmp_path / "data")
    assert "--data" in caught.value.hint


def test_one_lock_at_a_time(tmp_path: Path) -> None:
    first = lock_folder(tmp_path / "node.lock")
    with pytest.raises(StartupError, match="another node runs") as caught:
        lock_folder(tmp_path / "node.lock")
    assert "nothing was changed" in caught.value.hint
    os.close(first)
    os.close(lock_folder(tmp_path / "node.lock"))


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot open"):
        lock_folder(tmp_path / "no folder" / "node.lock")
