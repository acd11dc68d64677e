"""Settings for all tests."""

import os

import pytest
from hypothesis import settings

# No deadline: two cores shared with a vault and its fsyncs make single examples slow at random.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")

_LONG = ("integration", "fault")
"""Folders whose tests start nodes: they begin, so that no worker is left alone with them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parts[-2] not in _LONG)
