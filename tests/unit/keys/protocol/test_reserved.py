"""Best-effort uses: each is accounted for, and none is answered once a stop is acknowledged."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import pytest

from keystead import limits
from keystead.keys import reservations
from keystead.keys.reservations import BOUND_MS
from unit.keys.protocol import reserved
from unit.keys.protocol.exploring import Violated, explore
from unit.keys.protocol.reserved import Bounds, Reserved, Row, Rules
from unit.keys.protocol.scales import DEEP

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound in the model's ticks: still a life, and what clocks drift apart in it."""
    monkeypatch.setattr(reservations, "BOUND_MS", reserved.LIFE + reserved.DRIFT)


def test_the_bound_is_a_life_and_the_drift() -> None:
    assert BOUND_MS == limits.RESERVATION_LIFE_MS + limits.RESERVATION_DRIFT_MS


ONE = Bounds(uses=1, faults=0, crashes=0)
TRIED = {
    "another vault answers": ONE._replace(uses=2),
    "a commit fails": ONE._replace(faults=1),
    "a vault crashes": ONE._replace(crashes=1),
    "one reservation after another": ONE._replace(rows=2),
    "the vault that stops answers itself": Bounds(spenders=(0,), faults=1, crashes=0),
}
DEEPER = {
    "a commit fails, a vault crashes": Bounds(),
    "both vaults answer": ONE._replace(spenders=(0, 1), rows=2),
    "one reservation after another, a commit fails": ONE._replace(rows=2, faults=1),
}
ALL = TRIED | (DEEPER if DEEP else {})


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("bounds", ALL.values(), ids=ALL)
def test_nothing_is_answered_once_a_stop_is_acknowledged(bounds: Bounds) -> None:
    explored = explore(Reserved(bounds), most=20_000_000)
    print(explored)  # noqa: T201  the counts, for who asks for them with -s
    kinds = {"answer", "ask", "open", "close", "records", "poll", "confirm", "confirmed", "bound"}
    kinds |= {"stop", "change", "tick", "slow tick"}
    kinds |= {"outcome lost", "not applied", "stop again"} if bounds.faults else set()
    kinds |= {"crash"} if bounds.crashes else set()
    assert kinds <= set(explored.kinds)
    assert explored.states > 2_000


ACCOUNTS = Bounds(vaults=1, spenders=(0,), rows=2, faults=2, stop=False)


def test_what_was_answered_has_a_record_or_is_in_a_gap() -> None:
    explored = explore(Reserved(ACCOUNTS))
    print(explored)  # noqa: T201  as above
    assert {"crash", "not applied", "outcome lost", "answer", "records"} <= set(explored.kinds)


# --- what does not hold, and is not promised -----------------------------------------------------


def test_a_process_that_is_suspended_between_check_and_answer_is_the_exception() -> None:
    """The check is what counts: no process can look and answer in one instant."""
    with pytest.raises(Violated, match="I4: a best-effort answer") as found:
        explore(Reserved(ONE._replace(two_steps=True)))
    lines = found.value.trace.splitlines()
    assert "vault 1 answers a use" in lines[-1]
    assert [line for line in lines if "vault 1 allows a use" in line]
    assert "the stop is acknowledged: bound" in lines[-2]


# --- mutants -------------------------------------------------------------------------------------


def without_expiry(*, count: int, spent: int, expires_boot_ms: int, now_boot_ms: int) -> bool:
    """A reservation is spent until it is spent, however old."""
    return reservations.may_spend(
        count=count, spent=spent, expires_boot_ms=now_boot_ms + 1, now_boot_ms=now_boot_ms
    ) or (spent < count and expires_boot_ms > 0)


def without_count(*, count: int, spent: int, expires_boot_ms: int, now_boot_ms: int) -> bool:
    """A reservation is spent until it ends, however much."""
    return count > 0 and spent >= 0 and now_boot_ms < expires_boot_ms


def nothing_outstanding(*_rows: object, **_named: object) -> tuple[Row, ...]:
    """Nobody waits for reservations."""
    return ()


def without_epochs(
    open_rows: Iterable[Row],
    seen: Mapping[str, int],
    *,
    epoch: int,
    key_ids: Collection[str],
    own: str,
) -> tuple[Row, ...]:
    """A node that has confirmed any epoch counts as one that has confirmed this one."""
    return reservations.outstanding(
        open_rows, dict.fromkeys(seen, epoch), epoch=epoch, key_ids=key_ids, own=own
    )


def without_drift(*, committed_boot_ms: int, now_boot_ms: int) -> bool:
    """Clocks never drift apart."""
    return now_boot_ms - committed_boot_ms >= reserved.LIFE


def records_for_uses(row: Row, count: int) -> int:
    """A use that was recorded twice counts as two."""
    return count - row.records


def no_gap(_row: Row, _count: int) -> int:
    """A crash leaves nothing to tell."""
    return -1


class Mutant(NamedTuple):
    """What is bent, and the harm that is met first."""

    rules: Rules
    harm: str
    bounds: Bounds = ONE


ANSWERED = "I4: a best-effort answer after the stop was acknowledged"
BEHIND = "I4: a record of a revoked use behind its confirmation"
MUTANTS = {
    "acknowledged before the reservation ends": Mutant(
        Rules(outstanding=nothing_outstanding), ANSWERED
    ),
    "acknowledged for whoever confirmed anything": Mutant(
        Rules(outstanding=without_epochs), ANSWERED
    ),
    "acknowledged a drift too early": Mutant(Rules(bound_is_over=without_drift), ANSWERED),
    "spent without an expiry": Mutant(Rules(may_spend=without_expiry), ANSWERED),
    "spent without a count": Mutant(Rules(may_spend=without_count), "I2: 2 uses of 1 reserved"),
    "life counted from the grant": Mutant(Rules(counted_from="the grant"), ANSWERED),
    "confirmed before it is adopted": Mutant(Rules(confirms="once read"), ANSWERED),
    "a repeated stop is acknowledged at once": Mutant(
        Rules(repeat_waits=False), ANSWERED, ONE._replace(faults=1)
    ),
    "who is asked again leaves out its own reservations": Mutant(
        Rules(own_counts="never"), ANSWERED, ONE._replace(faults=1)
    ),
    "who is asked again leaves them out once it has adopted the epoch": Mutant(
        Rules(own_counts="until adopted"), BEHIND, ONE._replace(faults=1)
    ),
    "a use is recorded some turns later": Mutant(
        Rules(records="later"), "I2: 1 uses of reservation 0"
    ),
    "a use is never recorded": Mutant(Rules(records="never"), "I2: 1 uses of reservation 0"),
    "a use that was recorded twice counts as two": Mutant(
        Rules(gap=records_for_uses), "I2: 1 uses of reservation 0", ACCOUNTS
    ),
    "a crash tells of no gap": Mutant(Rules(gap=no_gap), "I2: 1 uses of reservation 0", ACCOUNTS),
    "what is one's own is not frozen": Mutant(
        Rules(own_is_frozen=False), "I4: a record", Bounds(spenders=(0,), faults=0, crashes=0)
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_every_mutant_is_caught(mutant: Mutant) -> None:
    with pytest.raises(Violated) as found:
        explore(Reserved(mutant.bounds, mutant.rules))
    print(found.value)  # noqa: T201  the trace, for who asks for it with -s
    assert found.value.what.startswith(mutant.harm)
    assert found.value.trace.startswith("  0. everything begins\n  1. ")
