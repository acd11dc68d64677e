"""Narrowings as people write them become the canonical caveats, or are refused."""

import pytest

from keystead.encoding import b64u_encode
from keystead.errors import MalformedRequest
from keystead.keys.caveats import (
    Algorithms,
    BoundTo,
    Caveat,
    ContextPrefix,
    NotAfter,
    Operations,
    Rate,
    Uses,
    Versions,
)
from keystead.keys.narrowing import Binding, Narrowing, RateLimit, caveats_of

DIGEST = bytes(range(32))
TEXT = b64u_encode(DIGEST)


@pytest.mark.parametrize(
    ("narrowing", "caveat"),
    [
        (Narrowing(operations=("wrap", "mac", "wrap")), Operations(("mac", "wrap"))),
        (Narrowing(context_prefix="web/eu"), ContextPrefix("web/eu")),
        (Narrowing(algorithms=("b", "a")), Algorithms(("a", "b"))),
        (Narrowing(versions=(10, 9)), Versions((9, 10))),
        (Narrowing(not_after_ms=5), NotAfter(5)),
        (Narrowing(rate=RateLimit(count=3)), Rate(3, 1)),
        (Narrowing(uses=3), Uses(3)),
        (Narrowing(bound_to=Binding(kind="ed25519", value=TEXT)), BoundTo("ed25519", DIGEST)),
        (
            Narrowing(bound_to=Binding(kind="certificate", value=TEXT)),
            BoundTo("certificate", DIGEST),
        ),
        (Narrowing(bound_to=Binding(kind="unix", value="web:33")), BoundTo("unix", b"web:33")),
    ],
)
def test_a_field_becomes_its_caveat(narrowing: Narrowing, caveat: Caveat) -> None:
    assert caveats_of(narrowing) == (caveat,)


def test_nothing_narrows_nothing_and_all_narrow_in_order() -> None:
    assert caveats_of(Narrowing()) == ()
    full = Narrowing(
        bound_to=Binding(kind="unix", value="web:33"),
        uses=1,
        rate=RateLimit(count=1, per_s=2),
        not_after_ms=1,
        versions=(1,),
        algorithms=("a",),
        context_prefix="a",
        operations=("sign",),
    )
    assert [type(caveat) for caveat in caveats_of(full)] == [
        Operations,
        ContextPrefix,
        Algorithms,
        Versions,
        NotAfter,
        Rate,
        Uses,
        BoundTo,
    ]


@pytest.mark.parametrize(
    "narrowing",
    [
        Narrowing(operations=()),
        Narrowing(algorithms=()),
        Narrowing(versions=()),
        Narrowing(versions=(0,)),
        Narrowing(context_prefix=""),
        Narrowing(context_prefix="/web"),
        Narrowing(not_after_ms=0),
        Narrowing(uses=0),
        Narrowing(rate=RateLimit(count=0)),
        Narrowing(bound_to=Binding(kind="ed25519", value=TEXT + "=")),
        Narrowing(bound_to=Binding(kind="ed25519", value=TEXT[:-4])),
        Narrowing(bound_to=Binding(kind="certificate", value="")),
        Narrowing(bound_to=Binding(kind="unix", value="web")),
    ],
)
def test_an_empty_or_bad_field_is_refused_not_left_out(narrowing: Narrowing) -> None:
    with pytest.raises(MalformedRequest):
        caveats_of(narrowing)
