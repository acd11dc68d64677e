"""``keystead history``: what changed, by whom, which way; and what was in force."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from unit.cli.conftest import Run
from unit.cli.node import FakeNode, Seen

CHANGE = {
    "path": "jwt.lifetime_max_s",
    "before": "900",
    "after": "3600",
    "direction": "weaker",
    "reason": "tokens live longer",
}


def entry(epoch: int, **changes: object) -> dict[str, Any]:
    made: dict[str, Any] = {"kind": "key", "id": "k-1", "name": "shop", "revision": epoch}
    made |= {"epoch": epoch, "seq": 100 + epoch, "time_ms": 1_793_714_400_000}
    made |= {"doc": {"policy": {"jwt": {"issuer": "i"}}, "primary": 1}}
    made["doc"]["versions"] = [{"number": 1, "state": "active"}, {"number": 2, "state": "new"}]
    return made | {"action": "key.policy", "principal": "ann", "reason": "CHG-33"} | changes


def scripted(node: FakeNode, *pages: dict[str, Any]) -> list[Seen]:
    left = list(pages)

    def answer(seen: Seen) -> tuple[int, bytes]:
        node.seen.append(seen)
        return 200, json.dumps(left.pop(0)).encode()

    node.answer = answer  # type: ignore[method-assign]  # a script in place of the table
    return node.seen


def page(*entries: dict[str, Any], end: bool = True) -> dict[str, Any]:
    return {"entries": entries, "next": entries[-1]["epoch"] if entries else 0, "end": end}


def asked(seen: Seen) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(urlsplit(seen.path).query).items()}


def test_changes_say_who_what_and_which_way(run: Run, node: FakeNode) -> None:
    scripted(node, page(entry(5, differences=[CHANGE]), entry(1, seq=-1, time_ms=0)))
    out = run("history", "shop").out
    assert "jwt.lifetime_max_s: 900 -> 3600 (weaker)" in out
    for word in ("ann", "key.policy", "CHG-33", "105", "2026-11-03 14:00:00Z", "before"):
        assert word in out
    assert "1970" not in out


def test_it_asks_page_after_page_for_what_is_given(run: Run, node: FakeNode) -> None:
    seen = scripted(node, page(entry(9), entry(8), end=False), page(entry(7)))
    ran = run("history", "--kind", "key", "--limit", "3", "--json")
    assert [told["epoch"] for told in ran.json] == [9, 8, 7]
    assert [asked(each) for each in seen] == [
        {"kind": "key", "limit": "3"},
        {"kind": "key", "before": "8", "limit": "1"},
    ]
    seen.clear()
    scripted(node, page(entry(9), entry(8), entry(8, kind="rotation"), end=False))
    assert len(run("history", "--limit", "2", "--json").json) == 2


def test_what_was_in_force_is_shown_in_full_for_one_object(run: Run, node: FakeNode) -> None:
    seen = scripted(node, page(entry(5, until_seq=120)), page(entry(5)))
    out = run("history", "shop", "--at-seq", "110").out
    assert "policy.jwt.issuer" in out
    assert "versions.2.state" in out
    assert "record 105" in out
    assert "record 120" in out
    assert asked(seen[0]) == {"name": "shop", "at_seq": "110", "limit": "50"}
    assert "now" in run("history", "shop", "--at-seq", "130").out


def test_what_was_in_force_is_a_line_each_for_many(run: Run, node: FakeNode) -> None:
    other = entry(2, kind="rotation", id="k-1", until_seq=130)
    seen = scripted(node, page(entry(5), other), page())
    out = run("history", "--at-time", "2026-11-03T15:00:00Z").out
    assert "rotation shop" in out
    assert "in force" in out
    assert asked(seen[0]) == {"at_ms": "1793718000000", "limit": "50"}
    assert run("history", "--at-time", "2026-11-03T15:00:00Z", "--json").json == []


def test_many_differences_are_counted(run: Run, node: FakeNode) -> None:
    many = [CHANGE | {"path": f"p{n}", "before": ""} for n in range(12)]
    scripted(node, page(entry(5, differences=many)), page(entry(5, differences=many)))
    out = run("history", "shop").out
    assert "p0: none -> 3600 (weaker)" in out
    assert "and 4 more" in out
    assert len(run("history", "shop", "--json").json[0]["differences"]) == 12


def test_strangers_text_is_no_control(run: Run, node: FakeNode) -> None:
    scripted(node, page(entry(5, reason="\x1b[31mred", principal="a\nb")))
    out = run("history").out
    assert "\x1b" not in out
    assert "a\\x0ab" in out


@pytest.mark.parametrize(
    "words",
    [
        ("--at-seq", "1", "--at-time", "2h"),
        ("--at-time", "yesterday"),
        ("--at-seq", "-1"),
        ("--limit", "0"),
    ],
)
def test_what_makes_no_sense_is_refused_unasked(
    run: Run, node: FakeNode, words: tuple[str, ...]
) -> None:
    assert run("history", *words).status == 2
    assert node.seen == []
