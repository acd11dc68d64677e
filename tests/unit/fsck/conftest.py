"""Logs by the real writers, each made once; a test gets a copy that it may spoil."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from keystead.fsck.run import Options, Report, verify
from unit.fsck.written import writing

Verify = Callable[..., Report]
SIZE = 700
"""Two full tiles, a partial one, and a record of forgetting in the middle."""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("log") / "data"
    with writing(data) as log:
        for count in (1, 255, 44, 99):
            log.grow(count)
        log.forget([(20, 23), (30, 30), (300, 310)])
        for count in (150, 149):
            log.grow(count)
        log.append(1)
        assert log.frontier.size == SIZE
    return data


@pytest.fixture(scope="session")
def long_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More full tiles, and nothing special."""
    data = tmp_path_factory.mktemp("long") / "data"
    with writing(data) as log:
        for _ in range(5):
            log.grow(900)
    return data


@pytest.fixture
def data(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "data"))


@pytest.fixture
def db(data: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(data / "registry.db", isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def fsck(data: Path) -> Verify:
    def run(**options: object) -> Report:
        asked = msgspec.structs.replace(Options(data=data), **options)
        return verify(asked, lambda _at, _total, _found: None)

    return run


def places(report: Report) -> list[str]:
    return [finding.place for finding in report.shown]
