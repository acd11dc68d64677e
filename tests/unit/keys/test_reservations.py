"""What a reservation allows, and what a revocation waits for."""

from typing import NamedTuple

import pytest

from keystead import limits
from keystead.keys.reservations import BOUND_MS, bound_is_over, may_spend, outstanding


class Row(NamedTuple):
    node: str
    key_id: str
    epoch: int


@pytest.mark.parametrize(
    ("spent", "now", "may"),
    [(0, 0, True), (9, 999, True), (10, 0, False), (0, 1000, False), (11, 2000, False)],
)
def test_a_reservation_ends_by_its_count_or_its_time(spent: int, now: int, *, may: bool) -> None:
    assert may_spend(count=10, spent=spent, expires_boot_ms=1000, now_boot_ms=now) is may


def test_only_what_could_still_allow_it_is_waited_for() -> None:
    rows = [
        Row("a", "k1", 4),  # whoever changes it spends nothing meanwhile
        Row("b", "k1", 4),
        Row("b", "k2", 4),  # another key
        Row("c", "k1", 5),  # asked for under the change itself
        Row("d", "k1", 3),  # its node has confirmed
    ]
    seen = {"b": 4, "d": 5}
    assert outstanding(rows, seen, epoch=5, key_ids={"k1"}, own="a") == (rows[1],)


def test_a_node_that_never_said_anything_is_waited_for() -> None:
    rows = [Row("b", "k1", 4)]
    assert outstanding(rows, {}, epoch=5, key_ids={"k1"}, own="a") == tuple(rows)


def test_the_bound_is_a_life_and_a_drift_from_the_commit() -> None:
    assert BOUND_MS > limits.RESERVATION_LIFE_MS
    assert not bound_is_over(committed_boot_ms=70, now_boot_ms=70 + BOUND_MS - 1)
    assert bound_is_over(committed_boot_ms=70, now_boot_ms=70 + BOUND_MS)
