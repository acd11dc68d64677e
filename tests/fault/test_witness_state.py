"""A witness that is killed, or whose disk fails: it cosigns nothing that it could forget."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from integration.witness import WitnessProcess
from keystead.net.witnesses import Behind, Cosigned, Outcome, Refused, Witness
from keystead.testing.clocks import SeededRandom
from keystead.witness.identity import identify
from unit.witness.logs import Log

LOG = Log()
FORK = Log(history="b")
SEED = 11
KILLS = 4

_STEP = """
import os, signal, sys
from pathlib import Path
from keystead.net.system import SystemClock, SystemRandom
from keystead.translog.notes import parse_vkey
from keystead.witness.identity import STATE_FILE, identify
from keystead.witness.service import Service
from keystead.witness.state import State

folder, step, vkey = Path(sys.argv[1]), sys.argv[2], parse_vkey(sys.argv[3])

class Killed(State):
    def advance(self, origin, before, after):
        if step == "before the commit":
            os.kill(os.getpid(), signal.SIGKILL)
        if step == "inside the commit":
            self._connection.execute("BEGIN IMMEDIATE")
        done = super().advance(origin, before, after)
        os.kill(os.getpid(), signal.SIGKILL)

identity, state = identify(folder, "", SystemRandom())
state.close()
state = Killed(folder / STATE_FILE)
service = Service(
    identity.key, identity.sign, logs={vkey.name: [vkey]}, state=state, clock=SystemClock()
)
print(service.add_checkpoint(sys.stdin.buffer.read()), flush=True)
"""


def ask(running: WitnessProcess, log: Log, old: int, new: int) -> Outcome:
    async def run() -> Outcome:
        async with Witness(running.url, running.vkey) as witness:
            return await witness.submit(log.note(new), old, log.proof(old, new))

    return asyncio.run(run())


def check_refused(outcome: Outcome, status: int) -> None:
    assert isinstance(outcome, Refused)
    assert outcome.status == status


@pytest.mark.parametrize(
    ("step", "remembered"),
    [("before the commit", 5), ("inside the commit", 5), ("before the answer", 9)],
)
def test_killed_at_each_step(tmp_path: Path, step: str, remembered: int) -> None:
    _, state = identify(tmp_path, "", SeededRandom())
    state.close()
    with WitnessProcess(tmp_path, [LOG.key]) as running:
        assert isinstance(ask(running, LOG, 0, 5), Cosigned)
    killed = subprocess.run(
        [sys.executable, "-c", _STEP, tmp_path, step, LOG.key.encode()],
        input=LOG.submission(5, 9),
        capture_output=True,
        check=False,
    )
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, b"")
    with WitnessProcess(tmp_path, [LOG.key]) as running:
        assert ask(running, LOG, 0, 3) == Behind(remembered)
        check_refused(ask(running, FORK, remembered, 9), 422)
        assert isinstance(ask(running, LOG, remembered, 12), Cosigned)


def test_killed_it_is_the_same_witness(tmp_path: Path) -> None:
    with WitnessProcess(tmp_path / "s", [LOG.key]) as running:
        key = running.vkey
        assert isinstance(ask(running, LOG, 0, 9), Cosigned)
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
    with WitnessProcess(tmp_path / "s", [LOG.key]) as running:
        assert running.vkey == key
        assert ask(running, LOG, 0, 5) == Behind(9)
        assert ask(running, LOG, 5, 12) == Behind(9)
        check_refused(ask(running, FORK, 9, 12), 422)
        assert isinstance(ask(running, LOG, 9, 12), Cosigned)
        assert running.end() == 0


def test_killed_at_any_instant_it_forgets_nothing(tmp_path: Path) -> None:
    """A log grows as fast as it is cosigned until its witness is killed, again and again."""
    instants = random.Random(SEED)  # noqa: S311  which instants a test kills at is no secret
    cosigned = asked = grown = 0
    for _ in range(KILLS):
        with WitnessProcess(tmp_path / "s", [LOG.key]) as running:
            found = ask(running, LOG, cosigned, cosigned)
            if found == Behind(asked):  # killed between its commit and its answer
                cosigned = asked
            else:
                assert isinstance(found, Cosigned), f"stands at {found}, {cosigned} was cosigned"
            killer = threading.Timer(instants.uniform(0.05, 0.4), running.end, [signal.SIGKILL])
            while True:
                asked = cosigned + 1
                if not isinstance(ask(running, LOG, cosigned, asked), Cosigned):
                    break
                cosigned, grown = asked, grown + 1
                if killer.ident is None:  # it has grown once, however busy the machine is
                    killer.start()
            killer.join()
    assert grown >= KILLS


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_cosigns_nothing(tmpfs: Callable[..., Path]) -> None:
    folder = tmpfs(size_kib=256)
    with WitnessProcess(folder / "s", [LOG.key]) as running:
        assert isinstance(ask(running, LOG, 0, 5), Cosigned)
        fill(folder / "ballast")
        refused = httpx.post(
            f"{running.url}/add-checkpoint", content=LOG.submission(5, 9), trust_env=False
        )
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "disk" in refused.text
        assert "—" not in refused.text
        assert ask(running, LOG, 0, 9) == Behind(5)
        (folder / "ballast").unlink()
        assert isinstance(ask(running, LOG, 5, 9), Cosigned)


def test_a_disk_that_is_full_at_the_first_start(tmpfs: Callable[..., Path]) -> None:
    folder = tmpfs(size_kib=64)
    fill(folder / "ballast")
    with pytest.raises(RuntimeError, match=r"cannot (open|create|use)"):
        WitnessProcess(folder / "s", [LOG.key]).start()
    (folder / "ballast").unlink()
    with WitnessProcess(folder / "s", [LOG.key]) as running:
        assert isinstance(ask(running, LOG, 0, 5), Cosigned)
