"""The command line run in this process, and a node for it to ask."""

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from keystead.cli.main import main
from unit.cli.node import FakeNode, serving


class Ran(NamedTuple):
    """What came of a command line."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401  whatever a command says
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    for name in [name for name in os.environ if name.startswith("KEYSTEAD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = main(list(arguments))
        return Ran(status, *capsys.readouterr())

    return run


@pytest.fixture
def node(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    del run  # it clears the environment first
    with serving() as made:
        monkeypatch.setenv("KEYSTEAD_URL", made.url)
        monkeypatch.setenv("KEYSTEAD_TOKEN", "kso1.operator")
        yield made
