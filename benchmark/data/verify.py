"""Is an imported set what it was when it was imported, and is its split clean?"""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np

from benchmark.data.catalogue import differences
from benchmark.data.intact import pixel_hash
from benchmark.data.storage import SPLITS, Dataset, set_hash


def verify(dataset: Dataset) -> tuple[list[str], bool]:
    """Lines to show, and whether the set is sound: hash right, no class in two splits.

    Images that appear in more than one split are counted and shown; the published sets have some, so they are no fault.
    """
    if dataset.kind == "regression":
        return [f"{dataset.name} is drawn from a formula: nothing to verify"], True
    found = set_hash(pixel_hash(dataset.images), dataset.classes)
    right = found == dataset.hash
    lines = [f"hash       {'right' if right else f'WRONG: expected {dataset.hash}, found {found}; import it again'}"]
    twice = sorted(name for name, count in Counter(c.name for c in dataset.classes).items() if count > 1)
    lines.append(f"classes    {f'IN TWO SPLITS: {twice}' if twice else 'each in one split'}")
    across, within = duplicates(dataset)
    lines.append(f"duplicates {across} images in more than one split, {within} further copies within a split")
    lines += [f"note       {line}" for line in differences(dataset)]
    return lines, right and not twice


def duplicates(dataset: Dataset) -> tuple[int, int]:
    """(distinct images that occur in more than one split, copies beyond the first within a split)."""
    seen: dict[bytes, set[str]] = {}
    within: Counter[tuple[bytes, str]] = Counter()
    owners = np.repeat([SPLITS.index(c.split) for c in dataset.classes], [c.count for c in dataset.classes])
    for image, owner in zip(dataset.images, owners, strict=True):
        digest, split = hashlib.blake2b(image.tobytes(), digest_size=16).digest(), SPLITS[owner]
        seen.setdefault(digest, set()).add(split)
        within[digest, split] += 1
    return sum(len(splits) > 1 for splits in seen.values()), sum(count - 1 for count in within.values())
