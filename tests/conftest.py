"""Settings for all tests, and what several folders of them share."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from postgres import PostgresMissing, PostgresServer, postgres_server

# No deadline: two cores shared with a vault and its fsyncs make single examples slow at random.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for this process's tests; skipped where none is installed."""
    try:
        with postgres_server() as server:
            yield server
    except PostgresMissing as exc:
        if os.environ.get("CI") == "true":
            pytest.fail(str(exc))
        pytest.skip(str(exc))
