"""Rules take time, randomness and I/O as arguments: nothing up to the ports reaches for them."""

import ast
import re
from collections.abc import Iterable, Iterator

import pytest

from house.tree import RANKS, Finding, Source, check_none, imports, snippet, sources

PURE_RANK_MAX = RANKS["ports"]

IMPURE_MODULE = re.compile(
    r"(asyncio|concurrent|http|httpx|io|logging|multiprocessing|os|pathlib|random|secrets|select"
    r"|selectors|shutil|signal|socket|sqlalchemy|sqlite3|ssl|structlog|subprocess|sys|tempfile"
    r"|threading|time|urllib|uvloop)(\.|$)"
)
IMPURE_CALL = re.compile(r"^(open|print|input)$|(^|\.)(now|utcnow|today|urandom|uuid1|uuid4)$")

# Drawing randomness inside `cryptography` has one place.
DRAW = re.compile(
    r"(^|\.)(generate_private_key|generate_key|generate_parameters|random_serial_number)$"
    r"|PrivateKey\.generate$"
)
DRAWING_MODULE = "keystead.crypto.hazmat"


def purity_findings(tree: Iterable[Source]) -> Iterator[Finding]:
    for source in tree:
        if RANKS.get(source.part, PURE_RANK_MAX) > PURE_RANK_MAX:
            continue
        for found in imports(source, ()):
            if IMPURE_MODULE.match(found.target):
                yield impure(source, found.line, f"imports {found.target}")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if IMPURE_CALL.search(name):
                    yield impure(source, node.lineno, f"calls {name}()")
                if DRAW.search(name) and source.module != DRAWING_MODULE:
                    yield impure(source, node.lineno, f"draws randomness by {name}()")


def impure(source: Source, line: int, what: str) -> Finding:
    return source.finding(
        line,
        f"{source.module} is pure, yet {what}",
        "take the value as an argument; the shell (rank 5 and up) gets it through a port",
    )


def test_purity() -> None:
    check_none(purity_findings(sources("src")))


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "from secrets import token_bytes",
        "def late():\n    import socket",
        "from pathlib import Path",
        "now = datetime.now(UTC)",
        "now = datetime.datetime.utcnow()",
        "today = date.today()",
        "ident = uuid.uuid4()",
        "salt = os.urandom(16)",
        "text = open('policy.toml').read()",
        "key = Ed25519PrivateKey.generate()",
        "key = ec.generate_private_key(ec.SECP256R1())",
    ],
)
def test_purity_rule_can_fail(text: str) -> None:
    assert len(list(purity_findings([snippet(text)]))) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("src/keystead/net/clock.py", "import time\nnow = time.time_ns()"),
        ("src/keystead/crypto/hazmat.py", "key = Ed25519PrivateKey.generate()"),
        ("src/keystead/keys/a.py", "plain = aead.open(sealed)\nlater = now + overlap_s"),
    ],
)
def test_purity_rule_can_pass(path: str, text: str) -> None:
    assert not list(purity_findings([snippet(text, path)]))
