"""What the tests of the steward's rounds share."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
