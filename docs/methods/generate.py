"""Write the page of every method from its card: ``python docs/methods/generate.py`` from the repository's root."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmark.cards import NETWORKS  # noqa: E402
from optimizers import pages  # noqa: E402

if __name__ == "__main__":
    for path in pages.write(Path(__file__).parent, NETWORKS):
        print(path.relative_to(ROOT))
