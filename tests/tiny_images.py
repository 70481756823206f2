"""A data set of a few small images, for tests of whole verbs, and the flags of a run that takes a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.data import storage, writing

CLASSES = {"train": 6, "val": 4, "test": 4}
IMAGES = 8
WORDS = """
    --dataset tiny --ways 3 --channels 4 --meta-batch 1 --query-train 3 --query-test 3 --steps 1 --trace-steps 2
    --validation-tasks 4 --workers 1
"""
FLAGS = WORDS.split()


def store_tiny(root: Path, *, test: str = "as it is", name: str = "tiny") -> None:
    """Store the set; its `test` classes ``as it is``, ``poisoned`` (other images) or ``absent``."""
    rng = np.random.default_rng(0)
    classes, images = [], []
    for split, count in CLASSES.items():
        for number in range(count):
            mean = rng.integers(0, 256, (1, 16, 16))
            drawn = np.clip(mean + rng.normal(0, 40, (IMAGES, 1, 16, 16)), 0, 255).astype(np.uint8)
            if split == "test" and test == "absent":
                continue
            classes.append(storage.ClassInfo(f"{split}-{number}", split, IMAGES))
            images.append(255 - drawn if split == "test" and test == "poisoned" else drawn)
    with writing.writing(root, name) as folder:
        storage.store(folder, name, np.concatenate(images), classes, {})
