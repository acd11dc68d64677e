"""The key set as a client holds it: kept for its time, then asked about by its tag."""

import httpx
import pytest

from keystead.drills.rotation.keyset import FetchKeySet, KeySet, max_age_s
from keystead.errors import NotFound, ServiceError
from unit.client.fake import FakeNode, problem

HELD = KeySet(kids=frozenset({"a"}), etag='"tag-1"', age_s=1)


def answer(*kids: str, status: int = 200, cache: str = "public, max-age=7") -> httpx.Response:
    headers = {"cache-control": cache, "etag": '"tag-2"'}
    if status == 304:
        return httpx.Response(304, headers=headers)
    return httpx.Response(200, headers=headers, json={"keys": [{"kid": kid} for kid in kids]})


def test_a_first_fetch_asks_by_no_tag() -> None:
    node = FakeNode(answer("a", "b"))
    got = node.client().run(FetchKeySet(key="drill-1"))
    assert got == KeySet(kids=frozenset({"a", "b"}), etag='"tag-2"', age_s=7)
    assert node.sent("if-none-match") == [None]
    assert node.requests[0].url.path == "/v1/keys/drill-1/jwks.json"


def test_what_did_not_change_is_held_for_its_new_time() -> None:
    node = FakeNode(answer(status=304))
    got = node.client().run(FetchKeySet(key="drill-1", held=HELD))
    assert got == KeySet(kids=frozenset({"a"}), etag='"tag-1"', age_s=7, fresh=False)
    assert node.sent("if-none-match") == ['"tag-1"']


def test_a_change_replaces_it() -> None:
    node = FakeNode(answer("b"))
    got = node.client().run(FetchKeySet(key="drill-1", held=HELD))
    assert (got.kids, got.fresh) == (frozenset({"b"}), True)


def test_refusals_are_the_nodes() -> None:
    with pytest.raises(NotFound):
        FakeNode(problem("not_found", status=404)).client().run(FetchKeySet(key="drill-1"))
    with pytest.raises(ServiceError, match="304"):
        FakeNode(answer(status=304)).client().run(FetchKeySet(key="drill-1"))


@pytest.mark.parametrize(
    ("header", "age_s"),
    [
        ("public, max-age=300", 300),
        ("max-age=1", 1),
        ("public,max-age=60,immutable", 60),
        ("s-maxage=9", 0),
        ("no-store", 0),
        ("", 0),
    ],
)
def test_how_long_it_may_be_kept(header: str, age_s: int) -> None:
    assert max_age_s(header) == age_s
