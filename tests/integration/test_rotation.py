"""Tokens all through a rotation, as PyJWT sees them by a key set that it keeps for as long as told.

Relying parties fetch the key set at phases of their own, one of them in the instant before the
rotation begins. Every token verifies at each of them from its first moment to its last, and no
fetch is due to a key id that was not known (I12).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from itertools import count, islice, pairwise
from typing import Any

import httpx
import jwt
import msgspec
import pytest
from jwt import PyJWKClient

from integration.node import Node
from keystead.client import Client, Issued, Used, operations
from keystead.keys.commands import KeyInfo
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.rollout.commands import RolloutInfo
from keystead.keys.rollout.plan import (
    Canary,
    Drain,
    Gates,
    Plan,
    Promote,
    Publish,
    Ramp,
    Retire,
)

ISSUER = "https://id.shop.example"
LIFE_S = 2
CACHE_S = 2
PLAN = Plan(
    publish=Publish(overlap_ms=3_000, cache_ms=CACHE_S * 1_000),
    canary=Canary(share_ppm=200_000, length_ms=1_000),
    ramp=Ramp(steps_ppm=(500_000,), step_ms=1_000),
    promote=Promote(length_ms=1_000),
    drain=Drain(length_ms=LIFE_S * 1_000),
    retire=Retire(unpublish=True),
    gates=Gates(window_ms=2_000, samples=10, p99_percent=0, reporters=0),
)
CONTEXTS = 64
"""A fifth of them in the canary: that none is has a chance of one in a million."""
TOKENS_A_TURN = 8
TURN_S = 0.1
AGAIN_EACH = 4
"""Every so many turns all tokens that are still good are verified again."""
WITHIN_S = 60.0
PHASES = (0.0, 0.5, 1.0, 1.5)
STUBBORN_S = 600.0


class Gateway(PyJWKClient):
    """A relying party that counts what it fetches, and what it fetches before it was due."""

    def __init__(self, name: str, uri: str, kept_s: float) -> None:
        super().__init__(uri, lifespan=kept_s, cooldown_duration=0)
        self.name = name
        self.fetched_s: list[float] = []
        self.surprises = 0
        self.verified = 0

    def fetch_data(self) -> Any:  # noqa: ANN401  as PyJWT has it
        if self.jwk_set_cache is not None and self.jwk_set_cache.get() is not None:
            self.surprises += 1  # a key id that the set which it keeps does not hold
        self.fetched_s.append(time.monotonic())
        return super().fetch_data()

    def kids(self) -> set[str | None]:
        """Key ids of the set that it keeps."""
        return {key.key_id for key in self.get_jwk_set().keys}

    def verify(self, token: str, expires: int) -> None:
        """Verify it; it may only have expired, and only if it is time."""
        key = self.get_signing_key_from_jwt(token)
        try:
            jwt.decode(token, key, algorithms=["ES256"], issuer=ISSUER)
        except jwt.ExpiredSignatureError:
            assert time.time() >= expires
        else:
            self.verified += 1


class Token(msgspec.Struct, frozen=True):
    """A token, with what PyJWT reads in it unverified, and which version signed it."""

    text: str
    expires: int
    version: int
    seq: int


class Traffic:
    """Tokens signed without a pause, and verified by every gateway for as long as they live."""

    def __init__(self, client: Client, issued: Issued, gateways: list[Gateway]) -> None:
        self.gateways = gateways
        self.tokens: list[Token] = []
        self._client = client
        self._issued = issued
        self._contexts = (f"shop/{number % CONTEXTS}" for number in count())
        self._good: list[Token] = []
        self._turns = 0

    def turn(self) -> None:
        """Sign some, and verify them at once; now and then also all others that are still good."""
        begun = time.monotonic()
        fresh = list(self._signed())
        self.tokens += fresh
        self._good = [token for token in self._good if token.expires > time.time()] + fresh
        self._turns += 1
        again = self._turns % AGAIN_EACH == 0
        for token in self._good if again else fresh:
            for gateway in self.gateways:
                gateway.verify(token.text, token.expires)
        time.sleep(max(0.0, TURN_S - (time.monotonic() - begun)))

    def _signed(self) -> Iterator[Token]:
        handle = self._issued.handle
        contexts = islice(self._contexts, TOKENS_A_TURN)
        uses = (operations.sign_jwt(handle, {}, context=context) for context in contexts)
        for used in self._client.batch(uses):
            assert isinstance(used, Used), used
            assert used.receipt.seq is not None
            text = used.result.token
            said = jwt.decode(text, options={"verify_signature": False})
            yield Token(text, said["exp"], used.receipt.version, used.receipt.seq)

    def until(self, reached: Callable[[], bool]) -> None:
        """Go on until it is reached, and fail where it is not in time."""
        until = time.monotonic() + WITHIN_S
        while not reached():
            assert time.monotonic() < until, f"not reached within {WITHIN_S} s"
            self.turn()

    def for_s(self, seconds: float) -> None:
        """Go on for so long."""
        ends = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > ends)

    def versions(self) -> list[int]:
        """Which versions signed, in the order of the log, each run of one version once."""
        signed = [token.version for token in sorted(self.tokens, key=lambda token: token.seq)]
        return [signed[0], *(after for before, after in pairwise(signed) if after != before)]


class Shop:
    """A key with a short plan, those who verify what it signs, and who looks after it."""

    def __init__(self, node: Node, operator: Client, name: str) -> None:
        policy = Policy(jwt=JwtPolicy(issuer=ISSUER, lifetime_max_s=LIFE_S))
        operator.create_key(name, "jwt", policy=policy, plan=PLAN)
        self.name = name
        self.operator = operator
        self.uri = f"{node.url}/v1/keys/{name}/jwks.json"
        self.stubborn = Gateway("keeps it too long", self.uri, STUBBORN_S)
        self._begun_s = 0.0

    def open(self) -> Traffic:
        """Sign from now on; gateways come one after another, the last right before the rotation."""
        issued = self.operator.issue_handle(self.name, "shop")
        traffic = Traffic(self.operator, issued, [])
        self.stubborn.fetch_data()
        kept_s = told_s(self.uri)
        assert kept_s == CACHE_S
        self._begun_s = time.monotonic()
        for at_s in PHASES:
            traffic.until(lambda at_s=at_s: time.monotonic() > self._begun_s + at_s)  # type: ignore[misc]  # bound at once
            traffic.gateways.append(Gateway(f"from {at_s:.1f} s on", self.uri, kept_s))
        traffic.for_s(0.5)
        last = Gateway("right before", self.uri, kept_s)
        last.fetch_data()
        traffic.gateways.append(last)
        return traffic

    def rotate(self, traffic: Traffic) -> KeyInfo:
        """Begin; who fetched right before it does not know the new version."""
        known = traffic.gateways[-1].kids()
        key = self.operator.rotate_key(self.name, reason="due")
        assert known == {key.versions[0].kid}
        return key

    def status(self) -> RolloutInfo:
        return self.operator.rollout_status(self.name)

    def check_fetches(self, traffic: Traffic) -> None:
        """One fetch in each cache's life, and none for a key id that was not known."""
        lasted_s = time.monotonic() - self._begun_s
        print(f"\n{self.name}: {len(traffic.tokens)} tokens in {lasted_s:.1f} s")  # noqa: T201  the figures
        for gateway in traffic.gateways:
            fetches = len(gateway.fetched_s)
            print(  # noqa: T201  as above
                f"  gateway {gateway.name}: {gateway.verified} verified, {fetches} fetches,"
                f" {gateway.surprises} for an unknown key"
            )
            assert gateway.surprises == 0
            assert fetches > 1
            assert all(after - before >= CACHE_S for before, after in pairwise(gateway.fetched_s))
            assert gateway.verified > len(traffic.tokens) // 2


def told_s(uri: str) -> float:
    """How long the node says that its answer may be kept."""
    control = httpx.get(uri).headers["cache-control"]
    found = re.search(r"max-age=(\d+)", control)
    assert found is not None, control
    return float(found[1])


@pytest.fixture
def shop(node: Node, operator: Client, request: pytest.FixtureRequest) -> Shop:
    return Shop(node, operator, request.node.name.replace("_", "-")[:40])


@pytest.mark.slow
def test_tokens_verify_all_through_a_rotation(shop: Shop) -> None:
    traffic = shop.open()
    key = shop.rotate(traffic)
    traffic.until(lambda: shop.status().status == "finished")
    traffic.for_s(LIFE_S + 0.5)  # what was signed at the last moment lives out its life
    shop.check_fetches(traffic)
    versions = traffic.versions()
    assert (versions[0], versions[-1]) == (1, 2)
    assert len(versions) > 2  # both signed for a while, each for its share
    assert traffic.gateways[0].kids() == {key.versions[1].kid}  # the old one is in no set any more
    check_overlap(shop)
    check_control(shop, traffic.tokens[-1])


@pytest.mark.slow
def test_tokens_verify_all_through_a_rollback(shop: Shop) -> None:
    """Promoted by hand, reported by a gateway, and back; what the new one signed still verifies."""
    told = shop.operator
    traffic = shop.open()
    relying = told.issue_handle(shop.name, "gateway", operations=("report", "acknowledge"))
    key = shop.rotate(traffic)
    told.acknowledge_key(shop.name, relying.handle, key.versions[1].kid)
    traffic.until(lambda: shop.status().stage != "publish")
    told.steer_rollout(shop.name, "promote", reason="seen enough")
    traffic.for_s(0.3)
    new = next(token for token in reversed(traffic.tokens) if token.version == 2)
    check_control(shop, new)
    told.report_failure(shop.name, relying.handle, new.seq, "signature")
    traffic.until(lambda: shop.status().status == "rolled_back")
    traffic.for_s(LIFE_S + CACHE_S + 0.5)
    shop.check_fetches(traffic)
    versions = traffic.versions()
    assert (versions[0], versions[-1]) == (1, 1)
    assert 2 in versions
    assert [step.event for step in shop.status().steps] == [
        "publish",
        "canary",
        "promote",
        "rolled back",
    ]
    check_overlap(shop)


def check_overlap(shop: Shop) -> None:
    """I12, from the log: the new version's first use is no earlier than the overlap allows."""
    told = shop.operator
    (published,) = told.log(key=shop.name, operation="rollout.publish")
    (first,) = told.log(key=shop.name, operation="jwt.sign", version=2, oldest_first=True, limit=1)
    assert first.time_ms - published.time_ms >= PLAN.publish.overlap_ms


def check_control(shop: Shop, token: Token) -> None:
    """The count itself: who keeps a set for longer than told meets a key id it does not know."""
    assert shop.stubborn.surprises == 0
    shop.stubborn.verify(token.text, token.expires)
    assert shop.stubborn.surprises == 1
