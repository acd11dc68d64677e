"""What all tests of the vault's services share."""

import pytest

from unit.vault.scene import Scene


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def scene() -> Scene:
    return Scene()
