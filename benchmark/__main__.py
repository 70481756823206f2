# PYTHON_ARGCOMPLETE_OK
"""``python -m benchmark``: the command line; see :mod:`benchmark.cli.parser`."""

from __future__ import annotations

import sys

from benchmark.cli.parser import main

if __name__ == "__main__":
    sys.exit(main())
