"""The user's documents are true: commands run, links lead somewhere, options exist.

A block that is marked runs as it stands, on a real node, in the order of its document and in one
folder: ``<!-- run -->`` on the line before it, or ``<!-- run: status 1 -->`` where it shows a
refusal. Blocks share files and nothing else.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from integration.node import Node
from keystead.cli.main import root
from keystead.keys.model import FirmwarePolicy, Policy

ROOT = Path(__file__).resolve().parents[2]
GUIDES = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            *("guide", "purposes", "handles", "http-api", "cli", "sdk", "operations"),
            *("log", "evidence", "witness", "reconcile", "fsck"),
            *("rotation", "plans", "publications", "drills", "revocation", "nodes"),
        )
    ),
)
"""What speaks of commands that there are; other documents also speak of those to come."""
DOCUMENTS = tuple(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
)
NEEDED = {"openssl": "openssl", "ssh-keygen": "openssh-client", "curl": "curl"}
"""Foreign tools that blocks call, and their Debian packages."""
WITHIN_S = 60
DOCUMENT_WITHIN_S = 300
"""The longest document has some fifty commands, each a process."""
PACKAGE_PYTHON = Path(sys.executable).parent

_FENCE = re.compile(
    r"(?:^<!-- run(?:: status (?P<status>\d+))? -->\n)?"
    r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^()\s]+)\)")
_HEADING = re.compile(r"^#+ +(?P<text>.+)$", re.MULTILINE)
_INLINE = re.compile(r"`(keystead [^`]+)`")


@dataclass(frozen=True)
class Block:
    """One fenced block; ``status``: what it ends with, or None if it is not marked."""

    place: str
    language: str
    text: str
    status: int | None

    @property
    def arguments(self) -> list[str]:
        if self.language == "python":
            return [sys.executable, "-W", "error", "-c", self.text]
        return ["bash", "-euo", "pipefail", "-c", self.text]


def blocks(name: str, text: str) -> Iterator[Block]:
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        marked = found[0].startswith("<!-- run")
        yield Block(
            f"{name}:{line}",
            found["language"],
            found["text"],
            int(found["status"] or 0) if marked else None,
        )


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def check_block(block: Block, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        block.arguments,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    said = f"{done.stdout}{done.stderr}"
    if done.returncode != block.status or "Traceback" in said:
        pytest.fail(
            f"{block.place}: expected status {block.status}, met {done.returncode}:"
            f"\n{block.text}\n{said}",
            pytrace=False,
        )


@pytest.fixture(scope="module")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("docs") / "data") as running:
        yield running


@pytest.fixture
def environment(own_node: Node) -> dict[str, str]:
    """A user's: the node, the operator's token in its file, and this environment's commands."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTEAD_")}
    return kept | {
        "KEYSTEAD_URL": own_node.url,
        "KEYSTEAD_TOKEN_FILE": str(own_node.token_file),
        "KEYSTEAD_DATA": str(own_node.data),
        "PATH": f"{PACKAGE_PYTHON}:{os.environ['PATH']}",
        "PYTHONWARNINGS": "error",
    }


@pytest.mark.slow
@pytest.mark.timeout(DOCUMENT_WITHIN_S)
@pytest.mark.parametrize("name", [name for name in GUIDES if "<!-- run" in read(name)])
def test_marked_blocks_run(name: str, tmp_path: Path, environment: dict[str, str]) -> None:
    marked = [block for block in blocks(name, read(name)) if block.status is not None]
    assert len(marked) == read(name).count("<!-- run"), "a mark stands before no block"
    for tool, package in NEEDED.items():
        if any(tool in block.text for block in marked) and shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: apt-get install {package}")
    for block in marked:
        check_block(block, tmp_path, environment)


def test_the_first_documents_are_run() -> None:
    for name in ("README.md", "docs/guide.md", "docs/purposes.md"):
        marked = [block.status for block in blocks(name, read(name)) if block.status is not None]
        assert {0, 1} <= set(marked), name


def test_a_block_that_lies_is_found(tmp_path: Path) -> None:
    text = "<!-- run -->\n```sh\nfalse\ntrue\n```\n"
    [block] = blocks("x.md", text)
    with pytest.raises(pytest.fail.Exception, match=r"x.md:1: expected status 0, met 1"):
        check_block(block, tmp_path, dict(os.environ))


def example(name: str, *arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-W", "error", ROOT / "examples" / name, *arguments]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("jwt_service.py", "refused: the handle is for"),
        ("ledger_batch.py", "500 entries"),
    ],
)
def test_examples_run(name: str, said: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        example(name), env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=True
    )
    assert said in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_the_firmware_example_signs_once_and_never_backwards(
    own_node: Node, tmp_path: Path, environment: dict[str, str]
) -> None:
    image, handle = tmp_path / "app.img", tmp_path / "ci.handle"
    image.write_bytes(os.urandom(1000))
    with own_node.client() as operator:
        policy = Policy(firmware=FirmwarePolicy(names=("app",)))
        operator.create_key("example-boot", "firmware", policy=policy)
        handle.write_text(operator.issue_handle("example-boot", "ci").handle.reveal())
    said: list[str] = []
    for version in ("7", "7", "6"):
        words = ("--key", "example-boot", "--name", "app", "--version", version)
        done = subprocess.run(
            example("sign_firmware.py", image, *words, "--handle-file", handle),
            env=environment,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.stderr == ""
        said.append(done.stdout)
    assert "signed and verified" in said[0]
    assert said[1] == said[0].replace("\n", ", as before\n")
    assert said[2].startswith("refused: app is at version 7")
    with own_node.client() as operator:
        records = operator.log(key="example-boot", operation="firmware.sign", outcome="ok")
    assert len(records) == 1


# --- links ---------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as the usual renderers make them."""
    return {
        re.sub(r"[^\w\- ]", "", found["text"].lower()).replace(" ", "-")
        for found in _HEADING.finditer(_FENCE.sub("", text))
    }


def broken_links(name: str, text: str) -> Iterator[str]:
    for found in _LINK.finditer(_FENCE.sub("", text)):
        target, _, anchor = found["target"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (ROOT / name).parent / target if target else ROOT / name
        if not path.exists():
            yield f"{name}: {found['target']} leads nowhere"
        elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text("utf-8")):
            yield f"{name}: {found['target']} names no heading"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    assert list(broken_links(name, read(name))) == []


@pytest.mark.parametrize("target", ["docs/nothing.md", "LICENSES", "docs/guide.md#nothing", "#no"])
def test_a_broken_link_is_found(target: str) -> None:
    assert len(list(broken_links("README.md", f"see [it]({target})"))) == 1


# --- commands ------------------------------------------------------------------------------------


def mentions(text: str) -> Iterator[str]:
    """Every ``keystead ...`` of the inline code and shell blocks, one command line each."""
    for block in blocks("", text):
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                for part in re.split(r"[|;]|&&|\$\(", line):
                    _, found, words = f" {part.strip()}".partition(" keystead ")
                    if found and not part.strip().startswith("python"):
                        yield f"keystead {words}"
    for inline in _INLINE.finditer(_FENCE.sub("", text).replace("\n", " ")):
        yield inline[1]


def leaf_of(words: list[str]) -> tuple[Any, tuple[str, ...]]:
    """The command that words name, as deep as they name one, and its path."""
    command: Any = root()
    path: tuple[str, ...] = ()
    for word in words:
        below = getattr(command, "commands", None)
        if below is None or word.startswith("-"):
            break
        if word not in below:
            raise LookupError(f"no command {' '.join((*path, word))!r}")
        command, path = below[word], (*path, word)
    return command, path


def wrong_commands(text: str) -> Iterator[str]:
    common = {name for param in root().params for name in param.opts} | {"--help"}
    for mention in mentions(text):
        words = shlex.split(mention, comments=True)[1:]
        try:
            command, path = leaf_of(words)
        except LookupError as exc:
            yield f"{mention}: {exc}"
            continue
        known = common | {name for param in command.params for name in param.opts}
        for option in (word.partition("=")[0] for word in words):
            if option.startswith("--") and option not in known:
                yield f"{mention}: {' '.join(path)} has no {option}"


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:  # noqa: ANN401  typer's classes of commands are private
    below = getattr(command, "commands", None)
    if below is None:
        yield path
        return
    for name in below:
        yield from leaves(below[name], (*path, name))


@pytest.mark.parametrize("name", GUIDES)
def test_commands_in_documents_exist(name: str) -> None:
    assert list(wrong_commands(read(name))) == []


@pytest.mark.parametrize(
    "text",
    [
        "`keystead rotate shop-tokens`",
        "`keystead key rename a`",
        "`keystead key list --colour`",
        "```sh\nls | keystead data wrapp\n```\n",
        "```sh\nkeystead key \\\n  create a --purpos jwt\n```\n",
    ],
)
def test_a_wrong_command_is_found(text: str) -> None:
    assert len(list(wrong_commands(text))) == 1


def test_every_command_has_its_line() -> None:
    told = {leaf_of(mention.split()[1:])[1] for mention in mentions(read("docs/cli.md"))}
    assert set(leaves(root())) - told == set()
