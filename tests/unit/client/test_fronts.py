"""Several fronts against a world of numbers: who is asked, when, for how long, and what is said."""

from collections.abc import Callable
from typing import TypeVar

import msgspec
import pytest

from keystead.client.addresses import FRONTS_MAX, parse_addresses
from keystead.client.core import (
    Failed,
    Flow,
    Pause,
    Reply,
    Request,
    Send,
    Session,
    Turn,
    exchange,
    front_by_front,
)
from keystead.client.fronts import Fronts
from keystead.client.retry import Retry
from keystead.errors import (
    ContextMismatch,
    KeysteadError,
    LimitExceeded,
    MalformedRequest,
    NotFound,
    Overloaded,
    ServiceError,
    SignatureInvalid,
    StateRolledBack,
)

T = TypeVar("T")

A, B, C = "https://a", "https://b", "https://c"
OK = Reply(status=200, headers={}, body=b"{}")
GONE = Failed(why="ConnectError", sent=False)
LOST = Failed(why="ReadTimeout", sent=True)
HUNG = "hung"
Came = Reply | Failed | str


def refused(code: str, retry_after: str | None = None, status: int = 503) -> Reply:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    body = msgspec.json.encode({"code": code, "detail": "why", "request_id": f"r-{code}"})
    return Reply(status=status, headers=headers, body=body)


class World:
    """Each front has its own behaviour, which a test may change; a hung one takes all its time."""

    def __init__(self, **fronts: Came) -> None:
        self.came = {f"https://{name}": came for name, came in fronts.items()}
        self.now_s = 1000.0
        self.asked: list[str] = []
        self.timeouts_s: list[float] = []
        self.pauses_s: list[float] = []
        self.requests: list[Request] = []

    def turn(self, came: Reply | Failed | None = None) -> Turn:
        now_ms = int(self.now_s * 1000)
        return Turn(monotonic_s=self.now_s, now_ms=now_ms, random=0.0, came=came)

    def session(self, **policy: float) -> Session:
        return Session(tuple(self.came), Retry(**{"base_s": 0.0, **policy}))  # type: ignore[arg-type]  # whatever a policy takes

    def ask(self, session: Session, *, repeatable: bool = True, only: str = "") -> Reply:
        request = Request(method="POST", path="/v1/x", repeatable=repeatable)
        until_s = self.now_s + session.retry.deadline_s
        flow = exchange(session, lambda _: request, self.turn(), until_s, only=only)
        return self.run(flow)[0]

    def run(self, flow: Flow[T]) -> T:
        try:
            effect = next(flow)
            while True:
                effect = flow.send(self._carry_out(effect))
        except StopIteration as end:
            found: T = end.value
            return found

    def _carry_out(self, effect: Send | Pause) -> Turn:
        if isinstance(effect, Pause):
            self.pauses_s.append(effect.seconds)
            self.now_s += effect.seconds
            return self.turn()
        self.asked.append(effect.front)
        self.timeouts_s.append(effect.timeout_s)
        self.requests.append(effect.request)
        came = self.came[effect.front]
        if isinstance(came, str):
            self.now_s += effect.timeout_s
            came = LOST
        return self.turn(came)


def check_raises(
    world: World, session: Session, kind: type[KeysteadError], **asked: bool
) -> KeysteadError:
    with pytest.raises(KeysteadError) as caught:
        world.ask(session, **asked)  # type: ignore[arg-type]  # repeatable only
    assert type(caught.value) is kind
    return caught.value


# --- who is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "came",
    [
        GONE,
        LOST,
        HUNG,
        refused("overloaded"),
        refused("log_unavailable"),
        refused("custody_unavailable"),
        refused("state_rolled_back"),
        *(Reply(status=status, headers={}, body=b"<html>") for status in (502, 503, 504)),
    ],
    ids=str,
)
def test_a_front_that_cannot_is_passed_over_at_once(came: Came) -> None:
    world = World(a=came, b=OK)
    assert world.ask(world.session()) is OK
    assert (world.asked, world.pauses_s) == ([A, B], [])
    assert world.requests[0] is world.requests[1]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("context_mismatch", 403),
        ("handle_revoked", 403),
        ("not_found", 404),
        ("replay_conflict", 409),
        ("key_state", 409),
        ("limit_exceeded", 429),
        ("internal", 500),
        ("malformed_request", 400),
    ],
)
def test_refusals_of_the_request_are_the_same_everywhere(code: str, status: int) -> None:
    world = World(a=refused(code, status=status), b=OK)
    with pytest.raises(KeysteadError) as caught:
        world.ask(world.session())
    assert caught.value.code == code
    assert world.asked == [A]


def test_a_refusal_after_a_failover_is_what_is_raised() -> None:
    world = World(a=GONE, b=refused("context_mismatch", status=403), c=OK)
    error = check_raises(world, world.session(), ContextMismatch)
    assert world.asked == [A, B]
    assert "after 2 tries in 0.0 s" in error.__notes__


def test_a_budget_is_waited_for_at_the_front_that_refused() -> None:
    world = World(a=refused("limit_exceeded", "1", 429), b=OK)
    session = world.session(limits_pass=True, tries_max=2)
    error = check_raises(world, session, LimitExceeded)
    assert world.asked == [A, A]
    assert error.message == "why"


def test_what_may_have_an_effect_goes_elsewhere_only_unsent() -> None:
    world = World(a=GONE, b=OK)
    assert world.ask(world.session(), repeatable=False) is OK
    assert world.asked == [A, B]
    for came in (LOST, HUNG, refused("log_unavailable"), refused("state_rolled_back")):
        world = World(a=came, b=OK)
        with pytest.raises(ServiceError):
            world.ask(world.session(), repeatable=False)
        assert world.asked == [A]


def test_the_front_that_worked_stays_preferred() -> None:
    world = World(a=GONE, b=OK, c=OK)
    session = world.session(aside_s=10.0)
    world.ask(session)
    world.came[A] = OK
    world.now_s += 3600.0
    world.ask(session)
    assert world.asked == [A, B, B]


def test_a_front_put_aside_is_asked_last_until_its_time_ends() -> None:
    world = World(a=GONE, b=OK, c=OK)
    session = world.session(aside_s=10.0)  # 5 s, where the random number is 0
    world.ask(session)
    world.came |= {A: OK, B: GONE}
    world.now_s += 4.9
    world.ask(session)
    assert world.asked == [A, B, B, C]
    world.came[C] = GONE
    world.now_s += 0.2
    world.ask(session)
    assert world.asked[4:] == [C, A]


def test_with_all_put_aside_all_are_asked() -> None:
    world = World(a=GONE, b=GONE)
    session = world.session(tries_max=1)
    check_raises(world, session, ServiceError)
    world.came[B] = OK
    assert world.ask(session) is OK
    assert world.asked == [A, B, A, B]


def test_a_pinned_request_asks_its_front_alone() -> None:
    world = World(a=OK, b=GONE)
    session = world.session(tries_max=3)
    with pytest.raises(ServiceError, match="no answer from https://b") as caught:
        world.ask(session, only=B)
    assert "the other fronts were not asked: it is of one node's log" in caught.value.__notes__
    assert world.asked == [B, B, B]
    assert session.fronts.preferred == A


# --- for how long --------------------------------------------------------------------------------


def test_each_front_has_an_equal_share_of_what_is_left() -> None:
    world = World(a=HUNG, b=HUNG, c=OK)
    begun_s = world.now_s
    world.ask(world.session(deadline_s=9.0, try_s=100.0))
    assert world.timeouts_s == pytest.approx([3.0, 3.0, 3.0])
    assert world.now_s - begun_s == pytest.approx(6.0)


def test_one_front_has_all_of_it() -> None:
    world = World(a=OK)
    world.ask(world.session(deadline_s=9.0, try_s=100.0))
    assert world.timeouts_s == [9.0]


def test_time_that_one_did_not_need_is_the_others() -> None:
    world = World(a=GONE, b=GONE, c=HUNG)
    check_raises(world, world.session(deadline_s=9.0, try_s=100.0), ServiceError)
    assert world.timeouts_s == pytest.approx([3.0, 4.5, 9.0])


def test_all_ends_with_the_deadline() -> None:
    world = World(a=HUNG, b=HUNG, c=HUNG)
    begun_s = world.now_s
    check_raises(world, world.session(deadline_s=9.0, try_s=1.0, tries_max=99), ServiceError)
    assert world.now_s - begun_s == pytest.approx(9.0)


def test_a_round_of_all_fronts_comes_before_any_pause() -> None:
    world = World(a=refused("overloaded", "3"), b=refused("overloaded", "2"), c=GONE)
    error = check_raises(world, world.session(tries_max=2), ServiceError)
    assert world.asked[:3] == [A, B, C]
    assert len(world.asked) == 6
    assert world.pauses_s == [2.0]
    assert error.retry_after_s == 2.0


def test_a_node_that_waits_for_a_person_is_not_asked_twice() -> None:
    world = World(a=refused("state_rolled_back"), b=refused("overloaded"))
    check_raises(world, world.session(tries_max=3), ServiceError)
    assert world.asked == [A, B, B, B]
    world = World(a=refused("state_rolled_back"), b=refused("state_rolled_back"))
    check_raises(world, world.session(tries_max=3), StateRolledBack)
    assert world.asked == [A, B]


# --- what is said --------------------------------------------------------------------------------


def test_the_error_names_each_front_and_why() -> None:
    world = World(a=GONE, b=refused("overloaded"), c=HUNG)
    error = check_raises(world, world.session(tries_max=1), ServiceError)
    assert error.message == (
        "none of 3 fronts did it: https://a: ConnectError; https://b: overloaded: why;"
        " https://c: ReadTimeout"
    )
    assert "Sent again under the same idempotency key it has one effect" in error.hint
    assert "or name others" in error.hint
    assert error.__notes__ == ["request id r-overloaded", "after 3 tries in 10.0 s"]


def test_one_kind_of_refusal_keeps_its_class() -> None:
    world = World(a=refused("overloaded"), b=refused("overloaded"))
    check_raises(world, world.session(tries_max=1), Overloaded)


def test_a_front_that_had_no_time_is_named_too() -> None:
    world = World(a=HUNG, b=OK)
    session = world.session(deadline_s=1.0)
    request = Request(method="GET", path="/ready")
    late = exchange(session, lambda _: request, world.turn(), until_s=world.now_s)
    with pytest.raises(ServiceError, match=r"https://b: not tried before the deadline"):
        next(late)


# --- one after the other -------------------------------------------------------------------------


def attempts(
    world: World, session: Session, outcome: dict[str, str | KeysteadError]
) -> Callable[[], str]:
    def ask(front: str, turn: Turn, until_s: float) -> Flow[str]:
        yield Send(Request(method="GET", path="/x"), until_s - turn.monotonic_s, front)
        found = outcome[front]
        if isinstance(found, KeysteadError):
            raise found
        return found

    return lambda: world.run(
        front_by_front(session, ask, world.turn(), passed=(NotFound, ServiceError))
    )


def test_what_one_front_may_have_is_looked_for_at_each() -> None:
    world = World(a=HUNG, b=OK, c=OK)
    session = world.session(deadline_s=9.0)
    told: dict[str, str | KeysteadError] = {A: ServiceError("down"), B: NotFound("no"), C: "it"}
    assert attempts(world, session, told)() == "it"
    assert world.asked == [A, B, C]
    assert world.timeouts_s == pytest.approx([3.0, 3.0, 6.0])


def test_where_none_has_it_each_is_named() -> None:
    world = World(a=OK, b=OK)
    told: dict[str, str | KeysteadError] = {A: ServiceError("down"), B: NotFound("no")}
    with pytest.raises(NotFound, match=r"https://a: down; https://b: no"):
        attempts(world, world.session(), told)()


def test_other_errors_end_the_search() -> None:
    world = World(a=OK, b=OK)
    told: dict[str, str | KeysteadError] = {A: SignatureInvalid("forged"), B: "it"}
    with pytest.raises(SignatureInvalid):
        attempts(world, world.session(), told)()


# --- addresses -----------------------------------------------------------------------------------


def test_addresses_stand_with_commas_or_in_a_sequence() -> None:
    assert list(parse_addresses("https://a, unix:/run/b.sock,http://127.0.0.1:1")) == [
        "https://a",
        "unix:/run/b.sock",
        "http://127.0.0.1:1",
    ]
    assert list(parse_addresses(["unix:/run/a,b.sock", A, A])) == ["unix:/run/a,b.sock", A]


@pytest.mark.parametrize(
    "url",
    [[], "https://a,", "https://a,http://b", [f"https://n{n}" for n in range(FRONTS_MAX + 1)]],
)
def test_no_front_no_client(url: str | list[str]) -> None:
    with pytest.raises(MalformedRequest, match="expected"):
        parse_addresses(url)


def test_an_order_holds_each_front_once() -> None:
    fronts = Fronts((A, B, C))
    fronts.failed(A, 9.0)
    fronts.failed(B, 5.0)
    fronts.worked(C)
    assert fronts.order(1.0) == [C, B, A]
    assert fronts.order(6.0) == [C, B, A]
    assert fronts.order(10.0) == [C, A, B]
