"""Child processes: waited for until they say `ready`, ended in order, and none outlives its parent.

The children are real: the vault's own roles where that is enough, and a stand-in program under the
module's name where a test needs one that hangs, dies or says what no role does.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keystead.errors import CustodyUnavailable, StartupError
from keystead.net.processes import Child, report_error, report_ready
from unit.vault.scene import eventually

pytestmark = pytest.mark.anyio
WITHIN_S = 30.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def child(folder: Path, role: str = "migrate", **options: object) -> Child:
    """A child of the real program: the one role that needs no other."""
    config = options.pop("config", {"database": "registry.db", "node": "n"})
    assert isinstance(config, dict)
    within_s = options.pop("ready_within_s", WITHIN_S)
    assert isinstance(within_s, float)
    assert not options
    return Child(role, config, folder=folder, log=folder / "log", ready_within_s=within_s)


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Put a program in the place of ``keystead.app``, for children only."""
    package = folder / "stand-in" / "keystead"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "app.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def gone(pid: int) -> None:
    await eventually(lambda: not is_running(pid))


# --- starts --------------------------------------------------------------------------------------


async def test_a_child_says_that_it_is_ready(tmp_path: Path) -> None:
    started = child(tmp_path)
    facts = await started.start()
    assert facts["ready"] is True
    assert facts["schema"]
    assert await started.wait() == 0
    assert (tmp_path / "registry.db").exists()


async def test_a_child_that_cannot_start_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"no database" * 100)
    with pytest.raises(StartupError) as caught:
        await child(tmp_path).start()
    assert "registry" in caught.value.message
    assert caught.value.hint


async def test_a_child_that_ends_without_a_word_is_told_by_its_log(tmp_path: Path) -> None:
    started = child(tmp_path, config={"no": "such field"})
    with pytest.raises(StartupError, match="ended before it was ready") as caught:
        await started.start()
    assert str(tmp_path / "log") in caught.value.hint
    assert "no" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("line", ["not json", "[]", "null", '{"ready": false}', "7", ""])
async def test_what_is_no_ready_line_is_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    stand_in(tmp_path, monkeypatch, f"import time\nprint({line!r}, flush=True)\ntime.sleep(60)\n")
    started = child(tmp_path)
    with pytest.raises(StartupError, match="ended before it was ready"):
        await started.start()
    assert started.pid is not None
    await gone(started.pid)


async def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "import time\ntime.sleep(60)\n")
    started = child(tmp_path, ready_within_s=0.5)
    with pytest.raises(StartupError, match="not ready within"):
        await started.start()
    assert started.pid is not None
    await gone(started.pid)


async def test_no_secret_is_in_the_arguments_of_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are for all to read: a configuration holds paths and names."""
    program = "import json, sys\nprint(json.dumps({'ready': True, 'said': sys.argv[1:]}))\n"
    stand_in(tmp_path, monkeypatch, program)
    started = child(tmp_path)
    facts = await started.start()
    await started.wait()
    assert facts["said"] == ["migrate", "--config-json", '{"database": "registry.db", "node": "n"}']


async def test_a_child_gets_the_descriptors_it_is_to_keep_open_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import json, os\n"
        "open_now = sorted(int(name) for name in os.listdir('/proc/self/fd'))\n"
        "print(json.dumps({'ready': True, 'open': open_now}))\n"
    )
    stand_in(tmp_path, monkeypatch, program)
    with (tmp_path / "lock").open("w") as kept, (tmp_path / "other").open("w") as other:
        started = Child(
            "vault", {}, folder=tmp_path, log=tmp_path / "log", keep_open=(kept.fileno(),)
        )
        facts = await started.start()
        await started.wait()
        open_there = facts["open"]
        assert isinstance(open_there, list)
        assert kept.fileno() in open_there
        assert other.fileno() not in open_there


# --- ends ----------------------------------------------------------------------------------------


async def test_a_child_is_asked_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import json, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print(json.dumps({'ready': True}), flush=True)\n"
        "time.sleep(60)\n"
    )
    stand_in(tmp_path, monkeypatch, program)
    started = child(tmp_path)
    await started.start()
    await started.stop()
    assert await started.wait() == 7
    await started.stop()  # a second time it is nothing


async def test_a_child_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import json, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(json.dumps({'ready': True}), flush=True)\n"
        "time.sleep(60)\n"
    )
    stand_in(tmp_path, monkeypatch, program)
    started = child(tmp_path)
    await started.start()
    await started.stop(within_s=0.2)
    assert await started.wait() == -signal.SIGKILL


async def test_a_child_that_was_never_started_is_nothing(tmp_path: Path) -> None:
    unstarted = child(tmp_path)
    await unstarted.stop()
    assert (unstarted.pid, await unstarted.wait()) == (None, 0)


async def test_a_child_can_be_started_again(tmp_path: Path) -> None:
    started = child(tmp_path)
    await started.start()
    first = started.pid
    await started.wait()
    await started.start()
    assert started.pid != first
    assert await started.wait() == 0


PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
print(child.pid, child.stdout.readline().decode().strip(), flush=True)
sys.stdin.read()
"""
ORPHAN = """
import time
from keystead.net.processes import die_with_parent
die_with_parent()
print("armed", flush=True)
time.sleep(60)
"""


def test_no_child_outlives_its_parent() -> None:
    """Not even one that was killed: whoever holds keys ends with the supervisor."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, ORPHAN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid, said = parent.stdout.readline().split()
        assert said == "armed"
        assert is_running(int(pid))
        os.kill(parent.pid, signal.SIGKILL)
        end = time.monotonic() + WITHIN_S
        while is_running(int(pid)) and time.monotonic() < end:
            time.sleep(0.02)
        assert not is_running(int(pid))


def test_a_child_whose_parent_is_gone_does_not_begin() -> None:
    """The parent may end while the child still loads its modules: that signal came too early."""
    ended = subprocess.run(
        [sys.executable, "-c", ORPHAN],
        env=dict(os.environ, KEYSTEAD_SUPERVISOR_PID="1"),
        capture_output=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, b"")


async def test_a_child_gets_no_token_by_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import json, os\nprint(json.dumps({'ready': True, 'found': dict(os.environ)}))\n"
    stand_in(tmp_path, monkeypatch, program)
    monkeypatch.setenv("KEYSTEAD_TOKEN", "kso1.secret")
    started = child(tmp_path)
    facts = await started.start()
    await started.wait()
    assert isinstance(facts["found"], dict)
    assert "kso1.secret" not in facts["found"].values()
    assert "PATH" in facts["found"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes a process namespace")
def test_a_supervisor_that_is_the_first_process_has_children() -> None:
    """As in a container: there the parent's id is 1, and it is alive."""
    made = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", PARENT, ORPHAN],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WITHIN_S,
        text=True,
        check=False,
    )
    if "Operation not permitted" in made.stderr:
        pytest.skip("this machine makes no process namespaces")
    assert made.stdout.split()[1:] == ["armed"], made.stderr


# --- reports -------------------------------------------------------------------------------------


def test_a_ready_line_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    report_ready(keys=3, note="two\nlines")
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert json.loads(line) == {"ready": True, "keys": 3, "note": "two\nlines"}


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (StartupError("no seal", hint="restore it"), "no seal", "restore it"),
        (CustodyUnavailable("gone"), "gone", ""),
        (ValueError("plain"), "plain", ""),
    ],
)
def test_an_error_line_says_what_to_do(
    capsys: pytest.CaptureFixture[str], error: Exception, message: str, hint: str
) -> None:
    report_error(error)
    assert json.loads(capsys.readouterr().out) == {"error": message, "hint": hint}
