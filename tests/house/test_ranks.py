"""Who may import whom: ranks, cycles, and the roads to `cryptography` and raw private keys."""

from collections import deque
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

import pytest

from house.tree import (
    RANKS,
    Finding,
    Source,
    check_none,
    imports,
    part_of,
    snippet,
    sources,
    top_of,
)

HAZMAT = "keystead.crypto.hazmat"
Graph = dict[str, dict[str, int]]
"""Module to each module it imports and the line of the first such import."""


def graph_of(tree: Sequence[Source]) -> Graph:
    modules = {source.module for source in tree}
    graph: Graph = {}
    for source in tree:
        targets = graph.setdefault(source.module, {})
        for found in imports(source, modules):
            targets.setdefault(found.target, found.line)
    return graph


def rank_findings(tree: Sequence[Source]) -> Iterator[Finding]:
    modules = {source.module for source in tree}
    for source in tree:
        if source.part not in RANKS:
            yield source.finding(1, f"{source.part} has no rank", "add it to RANKS and the design")
            continue
        for found in imports(source, modules):
            part = part_of(found.target)
            if top_of(found.target) != "keystead" or part == source.part:
                continue
            if part not in RANKS or RANKS[part] >= RANKS[source.part]:
                yield source.finding(
                    found.line,
                    f"{source.part} (rank {RANKS[source.part]}) imports {found.target}"
                    f" (rank {RANKS.get(part, 'unknown')}), expected a lower rank",
                    "move the shared piece down, or take it as an argument",
                )


def cycle_findings(tree: Sequence[Source]) -> Iterator[Finding]:
    graph = graph_of(tree)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib names each node before the one that imports it.
        cycle: list[str] = error.args[1][::-1]
        first = next(source for source in tree if source.module == cycle[0])
        yield first.finding(
            graph[cycle[0]][cycle[1]],
            f"import cycle {' -> '.join(cycle)}",
            "move what both need into a module of its own",
        )


def crypto_findings(tree: Sequence[Source]) -> Iterator[Finding]:
    modules = {source.module for source in tree}
    for source in tree:
        for found in imports(source, modules):
            if top_of(found.target) == "cryptography" and source.part != "crypto":
                yield source.finding(
                    found.line,
                    f"{source.module} imports {found.target}, expected only keystead.crypto to",
                    "add what is missing to keystead.crypto and call that",
                )
            if is_hazmat(found.target) and not (
                source.part == "custody" or is_hazmat(source.module)
            ):
                yield source.finding(
                    found.line,
                    f"{source.module} imports {HAZMAT}, expected only keystead.custody to",
                    "go through the Custody port",
                )


def is_hazmat(module: str) -> bool:
    return f"{module}.".startswith(f"{HAZMAT}.")


def client_findings(tree: Sequence[Source]) -> Iterator[Finding]:
    """Follow the imports of keystead.client, each with the packages that it is in."""
    graph = graph_of(tree)
    for source in tree:
        if source.part != "client":
            continue
        came_from: dict[str, str] = {source.module: ""}
        waiting = deque([source.module])
        while waiting:
            module = waiting.popleft()
            for target in (*graph.get(module, ()), *packages_of(module)):
                if top_of(target) == "keystead" and target not in came_from:
                    came_from[target] = module
                    waiting.append(target)
        if HAZMAT in came_from:
            road = [HAZMAT]
            while came_from[road[-1]]:
                road.append(came_from[road[-1]])
            yield source.finding(
                graph[source.module].get(road[-2], 1),
                f"the SDK pulls in raw private-key work: {' <- '.join(road)}",
                "cut the road: a client holds handles, never keys",
            )


def packages_of(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def test_ranks() -> None:
    check_none(rank_findings(sources("src")))


def test_no_cycles() -> None:
    check_none(cycle_findings(sources("src")))


def test_roads_to_cryptography() -> None:
    check_none(crypto_findings(sources("src")))


def test_the_sdk_never_reaches_hazmat() -> None:
    check_none(client_findings(sources("src")))


@pytest.mark.parametrize(
    "text",
    [
        "import keystead.vault.core",
        "from keystead import ports",
        "from keystead.translog import merkle",
        "from ..translog import merkle",
        "from .. import ports",
        "def late():\n    from keystead.store import sqlite",
        "if TYPE_CHECKING:\n    from keystead.custody import software",
        "import importlib\nimportlib.import_module('keystead.front.http')",
        "from keystead.unheard_of import thing",
    ],
)
def test_rank_rule_can_fail(text: str) -> None:
    ports = snippet("", "src/keystead/ports.py")
    assert len(list(rank_findings([snippet(text), ports]))) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("src/keystead/__init__.py", "from keystead.errors import KeysteadError"),
        ("src/keystead/errors.py", "import keystead.limits"),
        ("src/keystead/grab_bag.py", ""),
    ],
)
def test_rank_rule_can_fail_at_the_root(path: str, text: str) -> None:
    assert len(list(rank_findings([snippet(text, path)]))) == 1


def test_rank_rule_allows_lower_ranks_and_neighbours() -> None:
    text = """
        import json
        from keystead import __version__
        from keystead.crypto import digest
        from keystead.keys.lifecycle import State
        from . import purposes
    """
    assert not list(rank_findings([snippet(text)]))


def test_cycle_rule_can_fail() -> None:
    tree = [
        snippet("from keystead.keys import b", "src/keystead/keys/a.py"),
        snippet("def late():\n    from keystead.keys.a import x", "src/keystead/keys/b.py"),
    ]
    findings = list(cycle_findings(tree))
    assert [finding.what for finding in findings] in (
        ["import cycle keystead.keys.a -> keystead.keys.b -> keystead.keys.a"],
        ["import cycle keystead.keys.b -> keystead.keys.a -> keystead.keys.b"],
    )


def test_cycle_rule_allows_a_package_to_export_its_modules() -> None:
    tree = [
        snippet("from keystead.keys.a import x", "src/keystead/keys/__init__.py"),
        snippet("from keystead.keys.b import x", "src/keystead/keys/a.py"),
        snippet("", "src/keystead/keys/b.py"),
    ]
    assert not list(cycle_findings(tree))


@pytest.mark.parametrize(
    "text",
    [
        "from cryptography import x509",
        "def late():\n    import cryptography.fernet",
        "from keystead.crypto.hazmat import sign",
        "from keystead.crypto import hazmat",
    ],
)
def test_crypto_rule_can_fail(text: str) -> None:
    hazmat = snippet("", "src/keystead/crypto/hazmat.py")
    assert len(list(crypto_findings([snippet(text), hazmat]))) == 1


def test_sdk_rule_can_fail() -> None:
    tree = [
        snippet("from keystead.crypto.hash import x", "src/keystead/client/sdk.py"),
        snippet("", "src/keystead/crypto/hash.py"),
        snippet("from keystead.crypto import hazmat", "src/keystead/crypto/__init__.py"),
        snippet("", "src/keystead/crypto/hazmat.py"),
    ]
    [finding] = client_findings(tree)
    assert (finding.path, finding.line) == ("src/keystead/client/sdk.py", 1)
    assert "hazmat <- keystead.crypto <- keystead.crypto.hash <- keystead.client" in finding.what
