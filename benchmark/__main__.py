# PYTHON_ARGCOMPLETE_OK
"""``python -m benchmark``: the command line; see :mod:`benchmark.cli.parser`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from benchmark.cli.parser import main

        status = main()
    except KeyboardInterrupt:  # while modules were loaded
        status = 130
    sys.exit(status)
