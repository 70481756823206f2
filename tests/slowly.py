"""``python -m tests.slowly run …``: the command, and 20 ms more for each meta-step: time to stop it in.

Worker processes, which load the main module again, are as slow. The numbers are those of the command.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmark import train

_meta_step = train._meta_step


def _slow_step(*arguments: Any) -> float:
    time.sleep(0.02)
    return _meta_step(*arguments)


train._meta_step = _slow_step

if __name__ == "__main__":
    from benchmark.cli.parser import main

    sys.exit(main())
