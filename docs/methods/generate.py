"""Write the page of every method from its card: ``python docs/methods/generate.py`` from the repository's root."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmark.cli.cards import NETWORKS  # noqa: E402
from benchmark.files import write_atomic  # noqa: E402
from optimizers import pages, registry  # noqa: E402

if __name__ == "__main__":
    for name in registry.builtin():
        path = Path(__file__).parent / f"{name}.md"
        write_atomic(path, pages.page(name, NETWORKS).encode())
        print(path.relative_to(ROOT))
