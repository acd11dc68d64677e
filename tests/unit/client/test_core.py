"""Flows against a world of numbers: no network, no clock, no randomness."""

from collections.abc import Callable

import msgspec
import pytest

from keystead.client.core import (
    Failed,
    Pause,
    Reply,
    Request,
    Send,
    Session,
    Turn,
    decode,
    error_of,
    exchange,
)
from keystead.client.retry import Retry
from keystead.errors import (
    CustodyUnavailable,
    HandleRevoked,
    KeysteadError,
    LogUnavailable,
    Overloaded,
    ServiceError,
)

OK = Reply(status=200, headers={}, body=b"{}")
LOST = Failed(why="ReadTimeout", sent=True)
UNREACHED = Failed(why="ConnectError", sent=False)
Came = Reply | Failed


def refused(code: str, retry_after: str | None = None, status: int = 503) -> Reply:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    body = msgspec.json.encode({"code": code, "detail": "why", "hint": "do", "request_id": "r-9"})
    return Reply(status=status, headers=headers, body=body)


class World:
    """Carries effects out in no time: a request takes ``try_s``, a pause as long as it says."""

    def __init__(self, *came: Came, try_s: float = 0.1, random: float = 0.5) -> None:
        self._came = list(came)
        self._try_s = try_s
        self._random = random
        self.now_s = 1000.0
        self.pauses: list[float] = []
        self.timeouts: list[float] = []
        self.requests: list[Request] = []

    def turn(self, came: Came | None = None) -> Turn:
        now_ms = int(self.now_s * 1000)
        return Turn(monotonic_s=self.now_s, now_ms=now_ms, random=self._random, came=came)

    def run(
        self,
        policy: Retry,
        *,
        repeatable: bool = True,
        make: Callable[[int], Request] | None = None,
    ) -> Reply:
        session = Session(("https://node.example",), policy)
        request = Request(method="POST", path="/v1/x", repeatable=repeatable)
        until_s = self.now_s + policy.deadline_s
        flow = exchange(session, make or (lambda _: request), self.turn(), until_s)
        try:
            effect = next(flow)
            while True:
                effect = flow.send(self._carry_out(effect))
        except StopIteration as end:
            reply: Reply = end.value[0]
            return reply

    def _carry_out(self, effect: Send | Pause) -> Turn:
        if isinstance(effect, Pause):
            self.pauses.append(effect.seconds)
            self.now_s += effect.seconds
            return self.turn()
        self.requests.append(effect.request)
        self.timeouts.append(effect.timeout_s)
        self.now_s += min(self._try_s, effect.timeout_s)
        return self.turn(self._came.pop(0))


def check_raises(world: World, policy: Retry, error: type[KeysteadError]) -> KeysteadError:
    with pytest.raises(error) as caught:
        world.run(policy)
    assert type(caught.value) is error
    return caught.value


def test_the_same_request_goes_out_until_it_is_answered() -> None:
    world = World(LOST, refused("overloaded"), UNREACHED, OK)
    assert world.run(Retry(base_s=0.1, cap_s=1.0)) is OK
    assert world.pauses == pytest.approx([0.05, 0.1, 0.2])
    assert len({id(request) for request in world.requests}) == 1


def test_each_try_is_built_for_its_own_time() -> None:
    world = World(refused("log_unavailable", "2"), OK)
    times: list[int] = []

    def make(now_ms: int) -> Request:
        times.append(now_ms)
        return Request(method="POST", path="/v1/x")

    world.run(Retry(base_s=0.0), make=make)
    assert times == [1_000_000, 1_002_100]


def test_retry_after_is_honoured() -> None:
    world = World(refused("overloaded", "3"), OK)
    world.run(Retry(base_s=0.1))
    assert world.pauses == pytest.approx([3.05])


def test_a_retry_after_past_the_deadline_ends_it_at_once() -> None:
    world = World(refused("overloaded", "31"))
    error = check_raises(world, Retry(deadline_s=30), Overloaded)
    assert (world.pauses, error.retry_after_s) == ([], 31.0)


def test_the_deadline_bounds_tries_and_their_timeouts() -> None:
    world = World(*[LOST] * 9, try_s=4.0)
    policy = Retry(deadline_s=10, try_s=4, tries_max=9, base_s=0.0)
    error = check_raises(world, policy, ServiceError)
    assert world.timeouts == [4, 4, 2]
    assert world.now_s == 1010.0
    assert error.__notes__ == ["after 3 tries in 10.0 s"]
    assert "no answer from https://node.example: ReadTimeout" in str(error)


def test_nothing_is_sent_after_the_deadline() -> None:
    world = World()
    session = Session(("https://node.example",), Retry())
    request = Request(method="GET", path="/ready")
    flow = exchange(session, lambda _: request, world.turn(), until_s=world.now_s)
    with pytest.raises(ServiceError, match="before the request was sent"):
        next(flow)


def test_the_last_refusal_is_what_is_raised() -> None:
    world = World(LOST, refused("custody_unavailable"))
    error = check_raises(world, Retry(tries_max=2), CustodyUnavailable)
    assert (error.message, error.hint) == ("why", "do")
    assert error.__notes__[0] == "request id r-9"
    assert error.request_id == "r-9"


def test_a_refusal_for_good_is_not_sent_again() -> None:
    world = World(refused("handle_revoked", status=403))
    check_raises(world, Retry(), HandleRevoked)
    assert len(world.requests) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_that_has_no_node_is_asked_again(status: int) -> None:
    world = World(Reply(status=status, headers={}, body=b"<html>"), OK)
    assert world.run(Retry(base_s=0.0)) is OK


@pytest.mark.parametrize("status", [200 - 1, 302, 404, 418, 500])
def test_an_answer_of_something_else_is_not(status: int) -> None:
    world = World(Reply(status=status, headers={}, body=b"<html>"))
    error = check_raises(world, Retry(), ServiceError)
    assert f"met status {status}" in str(error)


def test_a_change_is_sent_again_only_if_it_cannot_have_begun() -> None:
    assert World(UNREACHED, refused("overloaded"), OK).run(Retry(), repeatable=False) is OK
    for came in (LOST, refused("log_unavailable"), Reply(status=503, headers={}, body=b"")):
        world = World(came)
        with pytest.raises(ServiceError):
            world.run(Retry(), repeatable=False)
        assert len(world.requests) == 1


def test_the_hint_says_whether_the_effect_is_in_doubt() -> None:
    once = Retry(tries_max=1)
    with pytest.raises(ServiceError, match="same idempotency key it has one effect"):
        World(LOST).run(once)
    with pytest.raises(ServiceError, match="look before asking again"):
        World(LOST).run(once, repeatable=False)
    with pytest.raises(ServiceError) as caught:
        World(UNREACHED).run(once)
    assert not caught.value.hint


def test_an_unknown_code_is_still_an_error_of_the_tree() -> None:
    error = error_of(refused("a_code_of_a_later_release", status=400), 0)
    assert type(error) is KeysteadError
    assert type(error_of(refused("log_unavailable"), 0)) is LogUnavailable


def test_an_answer_that_does_not_parse_is_no_answer() -> None:
    for body in (b"", b"<html>", b'{"a": 1', b"\xff", b"[1]"):
        with pytest.raises(ServiceError, match="not what this release"):
            decode(body, dict[str, int])


def test_requests_and_replies_print_without_what_they_hold() -> None:
    request = Request(method="POST", path="/v1/x", headers={"a": "s3cret"}, body=b"s3cret")
    reply = Reply(status=200, headers={"a": "s3cret"}, body=b"s3cret")
    session = Session(("https://node.example",), Retry(), operator="s3cret")
    assert not any("s3cret" in repr(value) for value in (request, reply, session))
