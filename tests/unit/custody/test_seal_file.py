"""The file seal: written once and durably, private, and damage is told from absence."""

import os
import stat
from pathlib import Path

import pytest

from keystead.custody.seal_file import FileSeal
from keystead.errors import StartupError
from keystead.testing.clocks import SeededRandom


@pytest.fixture
def seal(tmp_path: Path) -> FileSeal:
    made = FileSeal(tmp_path / "seal.key")
    made.create(SeededRandom())
    return made


@pytest.fixture
def path(tmp_path: Path, seal: FileSeal) -> Path:
    assert seal.exists()
    return tmp_path / "seal.key"


def check_refused(seal: FileSeal, said: str) -> None:
    with pytest.raises(StartupError, match=said) as caught:
        seal.open()
    assert caught.value.hint


def test_what_is_created_opens(seal: FileSeal, path: Path) -> None:
    expected = SeededRandom().bytes(32)
    assert seal.open() == expected
    assert isinstance(seal.open(), bytearray)  # the caller wipes it
    assert FileSeal(path).open() == expected


def test_opened_keys_are_the_callers_own(seal: FileSeal) -> None:
    first = seal.open()
    first[:] = bytes(32)
    assert seal.open() != first


def test_the_file_is_private(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_umask_does_not_open_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        FileSeal(tmp_path / "other.key").create(SeededRandom())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "other.key").stat().st_mode) == 0o600


def test_an_existing_file_is_left_alone(seal: FileSeal, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(StartupError, match="cannot create") as caught:
        seal.create(SeededRandom(2))
    assert caught.value.hint
    assert path.read_bytes() == before


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "link.key").symlink_to(target)
    with pytest.raises(StartupError, match="cannot create"):
        FileSeal(tmp_path / "link.key").create(SeededRandom())
    assert not target.exists()


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="No such file") as caught:
        FileSeal(tmp_path / "none" / "seal.key").create(SeededRandom())
    assert "--data" in caught.value.hint


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    seal = FileSeal(tmp_path / "none.key")
    assert not seal.exists()
    check_refused(seal, "is missing")
    assert not seal.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777, 0o601])
def test_a_file_that_others_may_use_is_refused(seal: FileSeal, path: Path, mode: int) -> None:
    path.chmod(mode)
    check_refused(seal, "readable by others")
    path.chmod(0o400)
    assert seal.open() == SeededRandom().bytes(32)


def damaged(text: str) -> list[str]:
    head, key, check, _ = text.split("\n")
    return [
        "",
        "\n\n\n",
        text[: len(text) // 2],
        f"{head}\n{key}\n",
        f"{head}\n{key}\n{check}\nmore\n",
        f"keystead file seal v2\n{key}\n{check}\n",
        f"{head}\n{key[:-1]}A\n{check}\n",
        f"{head}\n{'A' if key[0] != 'A' else 'B'}{key[1:]}\n{check}\n",
        f"{head}\n{key}\n{check[:-1]}\n",
        f"{head}\n{key}=\n{check}\n",
        f"{head}\n{key[:-2]}\n{check}\n",
        f"{head}\n\n{check}\n",
        f"{head} \n{key}\n{check}\n",
    ]


@pytest.mark.parametrize("case", range(13))
def test_a_damaged_file_is_refused(seal: FileSeal, path: Path, case: int) -> None:
    text = path.read_text()
    key = text.split("\n")[1]
    path.write_text(damaged(text)[case])
    with pytest.raises(StartupError, match="is damaged") as caught:
        seal.open()
    assert "Nothing was changed" in caught.value.hint
    assert key not in str(caught.value)
    assert key[:-1] not in str(caught.value)


def test_every_case_of_damage_is_tried(path: Path) -> None:
    cases = damaged(path.read_text())
    assert len(cases) == 13
    assert path.read_text() not in cases


def test_binary_rubbish_is_refused(seal: FileSeal, path: Path) -> None:
    path.write_bytes(bytes(range(128, 228)))
    check_refused(seal, "cannot read")


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.key").mkdir(mode=0o700)
    check_refused(FileSeal(tmp_path / "folder.key"), "cannot read")


def test_nothing_secret_is_printed(seal: FileSeal, path: Path) -> None:
    key = path.read_text().split("\n")[1]
    assert key not in repr(seal)
    assert seal.open().hex() not in repr(seal)


def test_a_seal_that_was_cut_off_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "seal.key.new").write_text("keystead file s")
    seal = FileSeal(tmp_path / "seal.key")
    seal.create(SeededRandom(1))
    assert len(seal.open()) == 32
    assert [path.name for path in tmp_path.iterdir()] == ["seal.key"]
    assert (tmp_path / "seal.key").stat().st_mode & 0o777 == 0o600
