"""Processes that look at stretches: in order, ended with whoever asks, and heard when they fail."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from keystead.errors import StartupError
from keystead.fsck.chunks import Place
from keystead.fsck.workers import looked_at


def place(data: Path) -> Place:
    return Place(registry=str(data / "registry.db"), log=str(data / "log"), key=None, published=0)


def children() -> set[int]:
    """Processes of this one that have not ended."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in found}


STRETCHES = [(at, at + 1024) for at in range(0, 4096, 1024)] + [(4096, 4500)]


def test_results_come_in_order(long_template: Path) -> None:
    alone = list(looked_at(place(long_template), STRETCHES, 1))
    assert [(chunk.first, chunk.stop) for chunk in alone] == STRETCHES
    assert list(looked_at(place(long_template), iter(STRETCHES), 3)) == alone


def test_they_end_with_who_asks(long_template: Path) -> None:
    before = children()
    with closing(cast("Any", looked_at(place(long_template), STRETCHES, 2))) as results:
        next(results)
        assert len(children() - before) == 2
    assert children() == before


def test_one_that_cannot_begin(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read"):
        list(looked_at(place(tmp_path), STRETCHES, 2))


def test_one_that_is_killed(long_template: Path) -> None:
    before = children()
    results = looked_at(place(long_template), STRETCHES * 50, 2)
    next(results)
    os.kill(min(children() - before), signal.SIGKILL)
    with pytest.raises(StartupError, match="ended by itself"):
        list(results)
    assert children() == before
