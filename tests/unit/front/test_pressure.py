"""The limit that follows the vault's queue delay: on a simulated vault, in simulated time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead import limits
from keystead.front.pressure import ConcurrencyLimit

TARGET_S = limits.QUEUE_DELAY_TARGET_S
UNQUEUED_S = 0.001


def served_in(limit: ConcurrencyLimit, *, rate: float, offered: int, seconds: float) -> float:
    """Uses a second that a vault of this rate serves to so many clients, who all ask again at once.

    A fluid model: as many are open as the limit lets in, and each waits for those before it.
    """
    now_s, served, begun = 0.0, 0.0, 0.0
    while now_s < seconds:
        open_now = min(offered, limit.limit)
        limit.opened(open_now if offered <= limit.limit else limit.limit)
        delay_s = max(UNQUEUED_S, open_now / rate)
        if now_s > seconds / 2:  # the first half is for finding the place
            served += min(rate, open_now / UNQUEUED_S) * delay_s
            begun += delay_s
        now_s += delay_s
        limit.timed(delay_s, now_s)
    return served / begun


def test_it_begins_open_and_stays_open_while_delays_are_short() -> None:
    limit = ConcurrencyLimit()
    for number in range(1_000):
        limit.opened(number % 256)
        limit.timed(0.01, number * 0.01)
    assert limit.limit == limits.FRONT_IN_FLIGHT_MAX


@given(rate=st.floats(4_000, 50_000), offered=st.integers(64, 20_000))
def test_a_flood_leaves_the_vault_busy_and_the_queue_short(rate: float, offered: int) -> None:
    limit = ConcurrencyLimit()
    served = served_in(limit, rate=rate, offered=offered, seconds=60)
    assert served >= 0.99 * min(rate, offered / UNQUEUED_S)
    assert min(offered, limit.limit) / rate <= 1.2 * TARGET_S


def test_a_disk_that_is_slow_under_a_flood_gets_its_queue() -> None:
    """Every commit takes 100 ms and takes all that wait: many open are fast, few are slow."""
    limit = ConcurrencyLimit()
    for number in range(3_000):
        limit.opened(limit.limit)
        limit.timed(0.1 + limit.limit / 10_000, number * 0.1)
    assert limit.limit / (0.1 + limit.limit / 10_000) > 0.7 * 10_000


def test_a_slow_disk_moves_the_target() -> None:
    limit = ConcurrencyLimit()
    assert limit.target_s == TARGET_S
    for number in range(2_000):  # every commit takes 40 ms, with nothing queued
        limit.opened(1)
        limit.timed(0.04, number * 0.06)
    assert limit.target_s == pytest.approx(0.16, rel=0.05)
    assert limit.limit == limits.FRONT_IN_FLIGHT_MAX


def test_it_never_shuts_and_comes_back() -> None:
    limit = ConcurrencyLimit()
    low = limit.limit
    for number in range(300):
        limit.opened(limit.limit)
        limit.timed(10.0 + number, number * 0.06)
        low = min(low, limit.limit)
    assert low == limits.FRONT_IN_FLIGHT_MIN
    for number in range(300, 2_000):
        limit.opened(limit.limit)
        limit.timed(0.001, number * 0.06)
    assert limit.limit == limits.FRONT_IN_FLIGHT_MAX


def test_one_slow_use_in_a_window_is_no_queue() -> None:
    limit = ConcurrencyLimit()
    now_s = 0.0
    for _ in range(200):
        limit.opened(limits.FRONT_IN_FLIGHT_MAX)
        for delay_s in (1.0, 0.002):
            now_s += 0.12
            limit.timed(delay_s, now_s)
    assert limit.limit == limits.FRONT_IN_FLIGHT_MAX
