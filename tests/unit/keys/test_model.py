"""Names, labels and contexts: what they may be made of; and finding a key's versions."""

import pytest

from keystead import limits
from keystead.errors import KeyStateError, MalformedRequest, NotFound
from keystead.keys.lifecycle import State
from keystead.keys.model import check_context, check_labels, check_name
from unit.keys.sample import key_of


@pytest.mark.parametrize("name", ["a", "0", "shop-eu.1_a", "a" * limits.NAME_BYTES_MAX])
def test_a_name(name: str) -> None:
    check_name(name, "key name")
    check_labels({name: "Shop EU"})
    assert name.islower() or name.isdigit()


@pytest.mark.parametrize(
    "name",
    ["", "A", "-a", ".a", "_a", "a b", "a/b", "a\n", "\u00e4", "a\0", "\ud800", "a" * 65],
)
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(MalformedRequest, match="expected a tenant"):
        check_name(name, "tenant")
    with pytest.raises(MalformedRequest, match="expected a label name"):
        check_labels({name: ""})


def test_labels_are_few_short_and_printable() -> None:
    most = {f"l{n}": "\u00e4" * (limits.LABEL_BYTES_MAX // 2) for n in range(limits.LABELS_MAX)}
    check_labels(most)
    with pytest.raises(MalformedRequest, match="at most 16 labels, met 17"):
        check_labels(most | {"one-more": ""})
    for value in ("\u00e4" * 65, "a\nb", "\x1b[0m", "\ud800", "\u202e"):
        with pytest.raises(MalformedRequest, match="label values"):
            check_labels({"a": value})


@pytest.mark.parametrize(
    "context",
    ["a", "web/eu/shop", "0", "A/b@c:d._-", "/".join("a" * 12), "a" * limits.CONTEXT_BYTES_MAX],
)
def test_a_context(context: str) -> None:
    check_context(context)
    assert "//" not in context


@pytest.mark.parametrize(
    "context",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "a/..",
        "a/../b",
        "a/.b",
        "a b",
        "a\n",
        "a/b\n",
        "a\\b",
        "a%2fb",
        "\u00e4",
        "\ud800",
        "/".join("a" * 13),
        "a" * 257,
    ],
)
def test_another_context_is_refused(context: str) -> None:
    with pytest.raises(MalformedRequest, match="expected a context"):
        check_context(context)


def test_versions_are_found_by_their_numbers() -> None:
    key = key_of(states=(State.DEACTIVATED, State.ACTIVE), primary=2)
    assert key.version(1).number == 1
    assert key.primary_version() is key.version(2)
    for number in (-1, 0, 3):
        with pytest.raises(NotFound, match=f"no version {number}"):
            key.version(number)


def test_a_key_without_a_primary_version_does_no_new_work() -> None:
    with pytest.raises(KeyStateError, match="no primary version"):
        key_of(primary=0).primary_version()
