"""Coverage-guided fuzzing of one target by atheris.

Such as `python fuzz/guided.py x509.request -runs=100000`. What follows the target's name goes to
libFuzzer. atheris is optional: nothing else needs it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # optional: the lock does not hold it

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

with atheris.instrument_imports(include=["keystead"]):
    from fuzz.artefacts import ARTEFACTS
    from fuzz.judge import Judge
    from fuzz.pure import PURE

_TARGETS = {target.name: target for target in (*PURE, *ARTEFACTS)}


def main() -> None:
    """Fuzz until libFuzzer's limits, or the first finding, which it writes to a file."""
    if len(sys.argv) < 2 or sys.argv[1] not in _TARGETS:  # noqa: PLR2004  the command and a name
        sys.exit(f"Usage: {sys.argv[0]} TARGET [libFuzzer options]\nTargets: {' '.join(_TARGETS)}")
    target, judge = _TARGETS[sys.argv[1]], Judge()

    def one_input(data: bytes) -> None:
        judge.run(target, data)
        if judge.findings:
            raise AssertionError(judge.findings[0].what)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
