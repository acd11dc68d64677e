"""Load, decide, commit, answer: a cosignature only leaves when its checkpoint is durable."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keystead.errors import LogUnavailable
from keystead.testing.clocks import ManualClock, SeededRandom
from keystead.translog.checkpoints import open_checkpoint
from keystead.translog.cosignatures import verify_cosignature
from keystead.translog.notes import Note, parse_note, parse_signatures
from keystead.witness.identity import Identity, identify
from keystead.witness.service import Answer, Service
from keystead.witness.state import State, Stored
from unit.witness.logs import Log

LOG = Log()
FORK = Log(history="b")
STRANGER = Log("log.example/other", seed=3)
LOGS = {LOG.key.name: [LOG.key]}
HASH = hashlib.sha256(LOG.key.name.encode()).hexdigest()
CLOCK = ManualClock()
TIME_S = CLOCK.now_ms() // 1000


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[tuple[Identity, State]]:
    identity, state = identify(tmp_path / "w", "witness.example/w1", SeededRandom())
    yield identity, state
    state.close()


def service(identity: Identity, state: State) -> Service:
    return Service(identity.key, identity.sign, logs=LOGS, state=state, clock=CLOCK)


def check_cosigned(answer: Answer, identity: Identity, size: int, log: Log = LOG) -> None:
    assert answer.status == 200
    assert answer.body.endswith(b"\n")
    note = Note(log.checkpoint(size).encode(), parse_signatures(answer.body.decode()))
    assert verify_cosignature(note, identity.key) == TIME_S


def test_a_log_that_grows(witness: tuple[Identity, State]) -> None:
    identity, state = witness
    served = service(identity, state)
    assert served.checkpoint(HASH).status == 404
    assert served.sizes() == {}
    for old, new in ((0, 3), (3, 8), (8, 8), (8, 30)):
        check_cosigned(served.add_checkpoint(LOG.submission(old, new)), identity, new)
        assert served.sizes() == {LOG.key.name: new}
        checkpoint, note = open_checkpoint(served.checkpoint(HASH).body, LOG.key)
        assert checkpoint == LOG.checkpoint(new)
        assert verify_cosignature(note, identity.key) == TIME_S
        assert len(note.signatures) == 2
    assert served.checkpoint("0" * 64).status == 404


def test_what_is_not_cosigned_changes_nothing(witness: tuple[Identity, State]) -> None:
    identity, state = witness
    served = service(identity, state)
    served.add_checkpoint(LOG.submission(0, 8))
    before = state.latest(LOG.key.name)
    for request, status, outcome in (
        (FORK.submission(8, 8), 422, "refused_422"),
        (FORK.submission(8, 9), 422, "refused_422"),
        (LOG.submission(3, 3), 409, "conflict"),
        (STRANGER.submission(0, 3), 404, "refused_404"),
        (Log(seed=7).submission(8, 9), 403, "refused_403"),
        (b"old 8\n", 400, "refused_400"),
    ):
        answer = served.add_checkpoint(request)
        assert (answer.status, answer.outcome) == (status, outcome)
        assert state.latest(LOG.key.name) == before


def test_a_conflict_says_the_size_as_the_specification_has_it(
    witness: tuple[Identity, State],
) -> None:
    identity, state = witness
    served = service(identity, state)
    served.add_checkpoint(LOG.submission(0, 8))
    answer = served.add_checkpoint(LOG.submission(0, 12))
    assert answer == Answer(409, b"8\n", "conflict", b"text/x.tlog.size")


class Overtaken(State):
    """Another process cosigns something between this one's load and its commit."""

    def __init__(self, path: Path, meanwhile: Callable[[], object]) -> None:
        super().__init__(path)
        self._meanwhile = [meanwhile]

    def latest(self, origin: str) -> Stored | None:
        found = super().latest(origin)
        while self._meanwhile:
            self._meanwhile.pop()()
        return found


@pytest.mark.parametrize("first", [0, 8])
@pytest.mark.parametrize("other", [LOG, FORK])
def test_of_two_that_continue_one_checkpoint_one_wins(
    tmp_path: Path, first: int, other: Log
) -> None:
    """The other's history is this one's, or at the first checkpoint a fork of it."""
    identity, state = identify(tmp_path / "w", "", SeededRandom())
    faster = service(identity, state)
    if first:
        check_cosigned(faster.add_checkpoint(other.submission(0, first)), identity, first, other)

    def overtake() -> None:
        check_cosigned(faster.add_checkpoint(other.submission(first, 12)), identity, 12, other)

    slow_state = Overtaken(tmp_path / "w" / "witness.db", overtake)
    mine = other if first else LOG
    answer = service(identity, slow_state).add_checkpoint(mine.submission(first, 20))
    assert answer == Answer(409, b"12\n", "conflict", b"text/x.tlog.size")
    latest = state.latest(LOG.key.name)
    assert latest is not None
    assert latest.root == other.checkpoint(12).root
    slow_state.close()
    state.close()


class Failing(State):
    """Its commit is reported as failed: ``written`` or not."""

    written = False

    def advance(self, origin: str, before: Stored | None, after: Stored) -> bool:
        if self.written:
            super().advance(origin, before, after)
        raise LogUnavailable("the disk said no")


@pytest.mark.parametrize("written", [False, True])
def test_a_failed_commit_cosigns_nothing(tmp_path: Path, written: bool) -> None:  # noqa: FBT001  pytest gives it by name
    identity, state = identify(tmp_path / "w", "", SeededRandom())
    served = service(identity, state)
    served.add_checkpoint(LOG.submission(0, 5))
    failing = Failing(tmp_path / "w" / "witness.db")
    failing.written = written
    with pytest.raises(LogUnavailable):
        service(identity, failing).add_checkpoint(LOG.submission(5, 9))
    failing.close()
    again = served.add_checkpoint(LOG.submission(5, 9))
    if written:
        assert again.body == b"9\n"
        again = served.add_checkpoint(LOG.submission(9, 9))
    check_cosigned(again, identity, 9)
    state.close()


def test_a_locked_state_cosigns_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.witness.state._BUSY_MS", 20)
    identity, state = identify(tmp_path / "w", "", SeededRandom())
    holder = sqlite3.connect(tmp_path / "w" / "witness.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LogUnavailable, match="locked"):
        service(identity, state).add_checkpoint(LOG.submission(0, 5))
    holder.execute("ROLLBACK")
    holder.close()
    check_cosigned(service(identity, state).add_checkpoint(LOG.submission(0, 5)), identity, 5)
    state.close()


def test_the_note_that_is_served_holds_no_strangers_signature(
    witness: tuple[Identity, State],
) -> None:
    identity, state = witness
    served = service(identity, state)
    stranger = STRANGER.note(5).rpartition(b"\n\n")[2]
    served.add_checkpoint(LOG.submission(0, 5) + stranger)
    names = [found.name for found in parse_note(served.checkpoint(HASH).body).signatures]
    assert names == [LOG.key.name, identity.key.name]
