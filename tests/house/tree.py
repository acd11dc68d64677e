"""The checkout as the house rules see it: its files, their syntax trees and what they import."""

import ast
import subprocess
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("src", "tests", "tools", "bench", "fuzz", "examples")

RANKS = {
    "keystead": -1,  # the package's own __init__ imports nothing of keystead
    "errors": 0,
    "limits": 0,
    "encoding": 1,
    "differences": 1,
    "policyfile": 1,
    "crypto": 2,
    "keys": 3,
    "translog": 3,
    "frames": 3,
    "posture": 3,
    "tlswire": 3,
    "acme": 3,
    "authority": 3,
    "ports": 4,
    "custody": 5,
    "store": 5,
    "net": 5,
    "testing": 5,
    "supervisor": 6,
    "vault": 6,
    "steward": 6,
    "prober": 6,
    "fsck": 6,
    "front": 7,
    "witness": 7,
    "remoting": 7,
    "client": 7,
    "drills": 8,
    "app": 8,
    "cli": 9,  # it shows drills
    "__main__": 10,  # above the design's table, because it only hands over to cli
}
"""Part of the package to its rank: the design's tree, from pure rules up to commands."""


@dataclass(frozen=True)
class Finding:
    """One breach of a house rule: where it is, what was expected and met, what to do."""

    path: str
    line: int
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}: {self.do}"


@dataclass(frozen=True)
class Source:
    """One Python file; its path is relative to the root of the checkout."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def is_package(self) -> bool:
        return self.path.endswith("/__init__.py")

    @property
    def module(self) -> str:
        """Dotted name: ``src/keystead/keys/__init__.py`` is ``keystead.keys``."""
        parts = PurePosixPath(self.path).with_suffix("").parts[1:]
        return ".".join(parts[:-1] if self.is_package else parts)

    @property
    def part(self) -> str:
        return part_of(self.module)

    def finding(self, line: int, what: str, do: str) -> Finding:
        return Finding(self.path, line, what, do)


@dataclass(frozen=True)
class Import:
    """One imported module and the line that imports it."""

    target: str
    line: int


def part_of(module: str) -> str:
    """The part of Keystead that a module is in: ``keystead.keys.framing.jwt`` is in ``keys``."""
    return module.partition(".")[2].partition(".")[0] or "keystead"


def top_of(module: str) -> str:
    """The top package of a module: ``cryptography.x509.oid`` is in ``cryptography``."""
    return module.partition(".")[0]


def snippet(text: str, path: str = "src/keystead/keys/snippet.py") -> Source:
    """A source that no file holds, to show that a rule can fail."""
    return Source(path, dedent(text))


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Every Python file under the folders, in the order of their paths."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return tuple(
        Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in paths
    )


def files_to_commit() -> list[Path]:
    """What git tracks, or would track with ``git add .``."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def imports(source: Source, modules: Collection[str]) -> Iterator[Import]:
    """Every import of a file, inside functions, under TYPE_CHECKING and by literal name too.

    ``from a import b`` imports ``a.b`` if that is one of ``modules``, and ``a`` otherwise.
    """
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=names):
                yield from (Import(alias.name, node.lineno) for alias in names)
            case ast.ImportFrom(names=names):
                base = _absolute(source, node)
                for alias in names:
                    whole = f"{base}.{alias.name}"
                    yield Import(whole if whole in modules else base, node.lineno)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield Import(name, node.lineno)


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = source.module.split(".")
    package = package[: len(package) - node.level + source.is_package]
    return ".".join([*package, node.module] if node.module else package)


def check_none(findings: Iterable[Finding]) -> None:
    """Fail with one line for each finding."""
    lines = sorted(map(str, findings))
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)
