"""What a witness remembers, and who it is: never forgotten, never of two folders."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keystead.errors import LogUnavailable, MalformedRequest, StartupError
from keystead.testing.clocks import SeededRandom
from keystead.witness.identity import KEY_FILE, STATE_FILE, Identity, identify
from keystead.witness.state import State, Stored

ORIGIN = "log.example/one"


def stored(size: int, root: bytes = b"\x01" * 32) -> Stored:
    return Stored(size, root, b"note of %d" % size)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path / "w.db")
    yield made
    made.close()


def test_what_was_advanced_is_there_after_a_restart(tmp_path: Path) -> None:
    first = State(tmp_path / "w.db")
    assert first.latest(ORIGIN) is None
    assert first.advance(ORIGIN, None, stored(3))
    assert first.advance(ORIGIN, stored(3), stored(5))
    first.close()
    again = State(tmp_path / "w.db")
    assert again.latest(ORIGIN) == stored(5)
    assert again.latest("log.example/other") is None
    again.close()


@pytest.mark.parametrize("before", [None, stored(2), stored(3, b"\x02" * 32)])
def test_what_was_overtaken_changes_nothing(state: State, before: Stored | None) -> None:
    assert state.advance(ORIGIN, None, stored(3))
    assert not state.advance(ORIGIN, before, stored(4))
    assert state.latest(ORIGIN) == stored(3)


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    states = [State(tmp_path / "w.db") for _ in range(4)]
    assert states[0].advance(ORIGIN, None, stored(1))
    won: list[int] = []
    start = threading.Barrier(len(states))

    def climb(number: int) -> None:
        start.wait()
        for size in range(1, 26):
            root = bytes([number]) * 32
            before = states[number].latest(ORIGIN)
            if before is None or before.size != size:
                continue
            if states[number].advance(ORIGIN, before, stored(size + 1, root)):
                won.append(size)

    threads = [threading.Thread(target=climb, args=(number,)) for number in range(len(states))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    latest = states[0].latest(ORIGIN)
    for each in states:
        each.close()
    assert sorted(won) == list(range(1, len(won) + 1)), "a size was left twice, or skipped"
    assert latest is not None
    assert latest.size == len(won) + 1 > 2


def test_an_error_is_said(state: State) -> None:
    state.close()
    with pytest.raises(LogUnavailable, match="cannot be read"):
        state.latest(ORIGIN)
    with pytest.raises(LogUnavailable, match="cannot be written"):
        state.advance(ORIGIN, None, stored(1))


def test_it_is_one_file_for_its_owner(state: State, tmp_path: Path) -> None:
    assert state.advance(ORIGIN, None, stored(1))
    assert [path.name for path in tmp_path.iterdir()] == ["w.db"]
    assert stat.S_IMODE((tmp_path / "w.db").stat().st_mode) == 0o600


def test_no_database(tmp_path: Path) -> None:
    (tmp_path / "w.db").write_bytes(b"something else, and long enough to be looked at" * 10)
    with pytest.raises(StartupError, match="cannot open"):
        State(tmp_path / "w.db")
    with pytest.raises(StartupError, match="cannot open"):
        State(tmp_path / "missing" / "w.db")


# --- who it is -----------------------------------------------------------------------------------


def opened(folder: Path, name: str = "", seed: int = 1) -> Identity:
    identity, state = identify(folder, name, SeededRandom(seed))
    state.close()
    return identity


def use(folder: Path) -> None:
    """Have it cosign something."""
    _, state = identify(folder, "", SeededRandom())
    assert state.advance(ORIGIN, None, stored(3))
    state.close()


def test_a_folder_is_one_witness(tmp_path: Path) -> None:
    first = opened(tmp_path / "w", "witness.example/w1")
    again = opened(tmp_path / "w", seed=2)
    assert first.key == again.key
    assert first.key.name == "witness.example/w1"
    assert first.sign(b"x") == again.sign(b"x")
    assert stat.S_IMODE((tmp_path / "w").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "w" / KEY_FILE).stat().st_mode) == 0o600
    assert opened(tmp_path / "v", seed=2).key.name.startswith("keystead-witness/")


def test_another_name_is_another_witness(tmp_path: Path) -> None:
    opened(tmp_path, "witness.example/w1")
    with pytest.raises(StartupError, match=r"is 'witness.example/w1', expected 'w2'"):
        opened(tmp_path, "w2")


@pytest.mark.parametrize("name", ["a b", "a+b", "a\nb", "\u2028", "x" * 256])
def test_a_name_that_no_note_can_carry(tmp_path: Path, name: str) -> None:
    with pytest.raises(MalformedRequest):
        opened(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def remove_state(folder: Path) -> None:
    (folder / STATE_FILE).unlink()


def empty_state(folder: Path) -> None:
    (folder / STATE_FILE).write_bytes(b"")


def remove_key(folder: Path) -> None:
    (folder / KEY_FILE).unlink()


def copy_state(folder: Path) -> None:
    shutil.copy(folder / STATE_FILE, folder / "copy")  # what a restore leaves: another file
    (folder / "copy").rename(folder / STATE_FILE)


def foreign_state(folder: Path) -> None:
    other = folder.parent / "other"
    opened(other, seed=9)
    (other / STATE_FILE).rename(folder / STATE_FILE)


def damage_key(folder: Path) -> None:
    text = (folder / KEY_FILE).read_text()
    (folder / KEY_FILE).write_text(text.replace("\nw1\n", "\nw2\n"))


def binary_key(folder: Path) -> None:
    (folder / KEY_FILE).write_bytes(b"\xff\xfe")


def open_key(folder: Path) -> None:
    (folder / KEY_FILE).chmod(0o640)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (remove_state, "is missing, and the key beside it is not new"),
        (empty_state, "is empty"),
        (remove_key, "the key of the witness .* is missing"),
        (copy_state, "was copied or restored"),
        (foreign_state, "belongs to another key"),
        (damage_key, "is damaged"),
        (binary_key, "cannot read"),
        (open_key, "readable by others"),
    ],
)
def test_a_witness_that_may_have_forgotten_does_not_start(
    tmp_path: Path, damage: Callable[[Path], None], why: str
) -> None:
    folder = tmp_path / "w"
    opened(folder, "w1")
    use(folder)
    damage(folder)
    names = sorted(path.name for path in folder.iterdir())
    for _ in range(2):
        with pytest.raises(StartupError, match=why):
            opened(folder, seed=2)
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_copied_folder_is_no_witness(tmp_path: Path) -> None:
    opened(tmp_path / "w")
    use(tmp_path / "w")
    shutil.copytree(tmp_path / "w", tmp_path / "copy")
    with pytest.raises(StartupError, match="was copied or restored"):
        opened(tmp_path / "copy")
    assert opened(tmp_path / "w").key.name


def test_a_first_start_that_was_cut_off_begins_again(tmp_path: Path) -> None:
    """Before the state was tied, before the key was there, and with half a key beside it."""
    State(tmp_path / STATE_FILE).close()
    first = opened(tmp_path, seed=1)
    remove_key(tmp_path)
    (tmp_path / f"{KEY_FILE}.new").write_text("keystead wit")
    second = opened(tmp_path, seed=2)
    assert first.key != second.key
    assert opened(tmp_path).key == second.key
    assert sorted(path.name for path in tmp_path.iterdir()) == [STATE_FILE, KEY_FILE]


def test_first_starts_at_once_make_one_witness(tmp_path: Path) -> None:
    made: list[str] = []

    def start(seed: int) -> None:
        made.append(opened(tmp_path / "w", seed=seed).key.encode())

    threads = [threading.Thread(target=start, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert len(set(made)) == 1


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="cannot use the state folder"):
        opened(tmp_path / "file")


def test_another_schema_is_refused_as_unavailable(tmp_path: Path) -> None:
    """A file of somebody else's making, with tables of these names."""
    connection = sqlite3.connect(tmp_path / "w.db")
    connection.execute("CREATE TABLE logs (origin TEXT)")
    connection.close()
    state = State(tmp_path / "w.db")
    with pytest.raises(LogUnavailable):
        state.latest(ORIGIN)
    state.close()
