"""Which servers are taken, and what a record in them is said to be protected by."""

from typing import Any

import pytest

from keystead.errors import StartupError
from keystead.store.postgres_terms import ServerFacts, judged, protection

GOOD = ServerFacts(
    version=150018,
    encoding="UTF8",
    fsync="on",
    full_page_writes="on",
    standby=False,
    synchronous_names="",
    standbys=0,
    synchronous=0,
)


def check_taken(facts: ServerFacts) -> None:
    judged(facts, allow_async_standby=False)


def test_a_server_that_writes_to_its_disk_is_taken() -> None:
    check_taken(GOOD)
    check_taken(GOOD._replace(version=140000))
    check_taken(GOOD._replace(synchronous_names="*", standbys=2, synchronous=1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 130022}, "PostgreSQL 13, expected 14 or later"),
        ({"encoding": "SQL_ASCII"}, "encoding is SQL_ASCII, expected UTF8"),
        ({"standby": True}, "is a standby"),
        ({"fsync": "off"}, "fsync = off"),
        ({"full_page_writes": "off"}, "full_page_writes = off"),
        ({"standbys": 1}, "1 asynchronous standby"),
    ],
    ids=str,
)
def test_a_server_that_may_lose_records_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(StartupError, match=said) as caught:
        judged(GOOD._replace(**change), allow_async_standby=False)
    assert caught.value.hint


def test_only_the_loss_by_standbys_can_be_accepted() -> None:
    judged(GOOD._replace(standbys=1), allow_async_standby=True)
    with pytest.raises(StartupError, match="fsync"):
        judged(GOOD._replace(standbys=1, fsync="off"), allow_async_standby=True)


def test_the_protection_is_said() -> None:
    assert "no standby" in protection(GOOD)
    assert "asynchronous standby(s) accepted" in protection(GOOD._replace(standbys=2))
    waits = GOOD._replace(synchronous_names="*")
    assert "synchronous_standby_names = *" in protection(waits)
    assert "1 synchronous standby(s)" in protection(waits._replace(standbys=1, synchronous=1))
