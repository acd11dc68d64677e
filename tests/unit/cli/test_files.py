"""Outputs are there whole or not at all."""

from pathlib import Path

import pytest
import typer

from keystead.cli.files import destination, read_bytes, read_text


def test_an_output_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with destination(path) as write:
        write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), destination(path) as write:
        write(b"%d" % (1 // 0))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_output_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with destination(path, private=True) as write:
        write(b"new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_read_or_written_is_usage(tmp_path: Path) -> None:
    for bad in (tmp_path, tmp_path / "absent" / "out"):
        with pytest.raises(typer.BadParameter), destination(bad):
            pass
    with pytest.raises(typer.BadParameter):
        read_bytes(tmp_path / "absent", "FILE")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(typer.BadParameter):
        read_text(tmp_path / "bytes", "FILE")
