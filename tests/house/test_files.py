"""What is committed works on any machine: no path or package registry of the one it was made on."""

import re
from collections.abc import Iterator

import pytest

from house.tree import ROOT, Finding, check_none, files_to_commit

FOREIGN = {
    "a path of one machine": re.compile(r"(?<![\w.$}])/(?:work|root|home)/"),
    "a package host": re.compile(r"\b(?:pypi\.org|python[h]osted|npmjs\.org)"),
    "a package index": re.compile(r"^\s*--(?:index-url|extra-index-url|find-links|trusted-host)\b"),
}


def foreign_findings(path: str, text: str) -> Iterator[Finding]:
    for number, line in enumerate(text.splitlines(), start=1):
        for what, pattern in FOREIGN.items():
            if pattern.search(line):
                yield Finding(
                    path, number, f"names {what}: {line.strip()[:80]}", "say it without the name"
                )


def test_files_hold_nothing_of_a_machine() -> None:
    check_none(
        finding
        for path in files_to_commit()
        for finding in foreign_findings(
            path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8", errors="replace")
        )
    )


@pytest.mark.parametrize(
    "parts",
    [
        ("see /", "work/main"),
        ("cd '/", "home/me/keystead'"),
        ("https://", "pypi.", "org/simple"),
        ("https://files.", "python", "hosted.org/a.whl"),
        ("--index", "-url mirror"),
    ],
)
def test_file_rule_can_fail(parts: tuple[str, ...]) -> None:
    # In pieces, so that this file passes its own rule.
    assert len(list(foreign_findings("README.md", "".join(parts)))) == 1


@pytest.mark.parametrize("text", ["docs/home/index.md", "$HOME/work/x", "--no-emit-index-url"])
def test_file_rule_can_pass(text: str) -> None:
    assert not list(foreign_findings("README.md", text))
