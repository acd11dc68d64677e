"""Looking for records of many messages: whatever a node gives at once, all of them are found."""

from collections.abc import Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from keystead import limits
from keystead.cli.reconcile_looking import Answer, look_up
from keystead.keys.artefacts import Artefact, Kind, Window
from keystead.keys.commands import FoundRecord, Reconciled, SeenMessage


class Log:
    """Records of (time, message), None where it was forgotten; a look reads ``stretch`` of them."""

    def __init__(self, records: Sequence[tuple[int, bytes | None]], stretch: int) -> None:
        self.records = records
        self.stretch = stretch
        self.looks = 0
        self.messages = 0

    def look(self, seen: Sequence[SeenMessage], after: int, before: int | None) -> Reconciled:
        self.looks += 1
        self.messages += len(seen)
        assert 1 <= len(seen) <= limits.LOG_RECONCILE_ITEMS_MAX
        top = len(self.records) - 1
        until = top if before is None else min(top, before - 1)
        last = min(until, after + self.stretch)
        found: dict[int, int] = {}
        forgotten: set[int] = set()
        for seq in range(after + 1, last + 1):
            at_ms, message = self.records[seq]
            for place, one in enumerate(seen):
                if one.since_ms is not None and not one.since_ms <= at_ms < (one.until_ms or 0):
                    continue
                if message is None:
                    forgotten.add(place)
                elif message == one.message and place not in found:
                    found[place] = seq
        return Reconciled(
            found=tuple(FoundRecord(place, seq) for place, seq in found.items()),
            forgotten=tuple(forgotten - found.keys()),
            next=last,
            end=last >= until or len(found) == len(seen),
            top=top,
        )


def artefact(message: bytes, at_s: int | None, *, close: bool = True, life_s: int = 5) -> Artefact:
    window = None if at_s is None else Window(at_s * 1000, (at_s + 1) * 1000)
    return Artefact(
        kind=Kind.JWT,
        label="",
        digest="",
        message=message,
        signatures=(),
        close=window if close else None,
        wide=None if at_s is None else Window(at_s * 1000, (at_s + life_s) * 1000),
    )


def looked_up(log: Log, wanted: Sequence[Artefact]) -> list[Answer]:
    return look_up(wanted, log.look, lambda _found, _told: None)


_MESSAGES = st.lists(
    st.tuples(
        st.integers(0, 30),  # when, in seconds
        st.integers(0, 4),  # how much later its record is than it says
        st.booleans(),  # whether it has a record
        st.sampled_from(["close", "wide", "timeless"]),
    ),
    max_size=40,
)


@given(messages=_MESSAGES, stretch=st.integers(1, 50), order=st.randoms(use_true_random=False))
def test_each_message_gets_its_record(
    messages: list[tuple[int, int, bool, str]], stretch: int, order: Random
) -> None:
    wanted: list[Artefact] = []
    kept: list[tuple[int, bytes]] = []
    for number, (at_s, late_s, recorded, form) in enumerate(messages):
        message = b"%d" % number
        timeless = form == "timeless"
        wanted.append(artefact(message, None if timeless else at_s, close=form == "close"))
        if recorded:
            kept.append(((at_s + late_s) * 1000, message))
    kept.sort()
    order.shuffle(wanted)
    seqs = {message: seq for seq, (_, message) in enumerate(kept)}
    answers = looked_up(Log(kept, stretch), wanted)
    assert answers == [Answer(seqs.get(one.message)) for one in wanted]


def test_what_was_forgotten_is_told_of_whom_it_may_be() -> None:
    log = Log([(1000, None), (9000, b"late")], 10)
    wanted = [artefact(b"a", 1), artefact(b"b", 7), artefact(b"late", 9), artefact(b"c", None)]
    assert looked_up(log, wanted) == [
        Answer(None, forgotten=True),
        Answer(None),
        Answer(1),
        Answer(None, forgotten=True),
    ]


def test_sparse_artefacts_do_not_have_all_between_them_read() -> None:
    hour_s = 3600
    log = Log([(number * hour_s * 1000, b"%d" % number) for number in range(50)], 10_000)
    seen: list[tuple[int | None, int | None]] = []

    def look(messages: Sequence[SeenMessage], after: int, before: int | None) -> Reconciled:
        seen.extend((one.since_ms, one.until_ms) for one in messages)
        assert len(messages) == 1
        return log.look(messages, after, before)

    wanted = [artefact(b"%d" % number, number * hour_s) for number in range(50)]
    answers = look_up(wanted, look, lambda _found, _told: None)
    assert [answer.seq for answer in answers] == list(range(50))
    assert len(seen) == 50


def test_a_ledger_is_read_once() -> None:
    """Without times, what comes in order goes on where the last was found."""
    log = Log([(0, b"%d" % number) for number in range(5000)], 600)
    answers = looked_up(log, [artefact(b"%d" % number, None) for number in range(5000)])
    assert [answer.seq for answer in answers] == list(range(5000))
    assert log.looks <= 5000 / limits.LOG_RECONCILE_ITEMS_MAX + 10


def test_requests_stay_within_their_body() -> None:
    long = [artefact(b"%d" % number + bytes(60_000), None) for number in range(9)]
    log = Log([(0, one.message) for one in long], 100)
    looked_up(log, long)
    assert log.looks == 3
