"""Real machines, or a skip that says why there are none; in CI that is a failure."""

from __future__ import annotations

import os

import pytest

from fault.cluster.database import missing_server
from fault.cluster.network import missing

__all__ = ["need_machines"]


def need_machines() -> None:
    """Namespaces, nftables and a server are to be had; else skip.

    CI has root and the packages; what its kernel does not allow, nobody there can help.
    """
    why, helpable = missing()
    if not why:
        why, helpable = missing_server(), True
    if why and helpable and os.environ.get("CI") == "true":
        pytest.fail(f"CI is to have all that these tests need: {why}")
    if why:
        pytest.skip(why)
