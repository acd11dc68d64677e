"""``python -m keystead``: the command line."""

from __future__ import annotations

import sys

from keystead.cli.main import main

__all__: tuple[str, ...] = ()

if __name__ == "__main__":
    sys.exit(main())
