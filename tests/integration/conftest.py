"""One real node for the tests that only use it; those that break one start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.node import Node
from keystead.client import Client


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("node") / "data") as running:
        yield running


@pytest.fixture
def operator(node: Node) -> Iterator[Client]:
    with node.client() as client:
        yield client
