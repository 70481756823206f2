"""What the papers print: the numbers that stand beside ours, and the names under which readers know the methods.

The numbers are those of the published Table 1 (5-way miniImageNet, accuracy in %, mean ± 95 % interval as printed;
nan where the paper gives none), of their own papers for methods that it does not list, and of Bertinetto et al. (2019)
for MAML on CIFAR-FS. They mix widths, test protocols and meta-optimizers (docs/recipes.md), so they are a reference and
not a like-for-like comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

NAN = float("nan")


@dataclass(frozen=True)
class Published:
    """A printed accuracy in percent with its half-width; `half` nan where none is printed."""

    mean: float
    half: float = NAN

    def separated(self, other: Published) -> bool:
        """Whether the printed intervals leave a gap; a number printed without one is taken as exact."""
        halves = sum(each.half for each in (self, other) if each.half == each.half)
        return abs(self.mean - other.mean) > halves


@dataclass(frozen=True)
class Reference:
    """The published numbers of one data set: `title` names it, `numbers` maps (method, shots) to what is printed."""

    title: str
    numbers: dict[tuple[str, int], Published]


TABLE_1 = {
    ("maml", 1): Published(48.70, 1.84),
    ("maml", 5): Published(63.11, 0.92),
    ("metasgd", 1): Published(50.47, 1.87),
    ("metasgd", 5): Published(64.03, 0.94),
    ("mtnet", 1): Published(51.70, 1.84),
    ("warpgrad", 1): Published(52.3, 0.8),
    ("warpgrad", 5): Published(68.4, 0.6),
    ("metacurvature", 1): Published(54.23, 0.88),
    ("metacurvature", 5): Published(67.99, 0.73),
    ("metakfo", 5): Published(64.9),
    ("ecml", 1): Published(48.94, 0.80),
    ("ecml", 5): Published(65.26, 0.67),
    ("md", 1): Published(56.10, 1.43),
    ("md", 5): Published(69.59, 0.71),
}
"""(method, shots) → what the published Table 1 prints."""

LATER = {
    ("mamlpp", 1): Published(52.15, 0.26),
    ("mamlpp", 5): Published(68.32, 0.44),
    ("alfa", 1): Published(50.58, 0.51),
    ("alfa", 5): Published(69.12, 0.47),
}
"""The same of methods that Table 1 does not list, from their own papers; their cards say where it was read."""

MINIIMAGENET = Reference("miniImageNet", TABLE_1 | LATER)
CIFAR_FS = Reference(
    "CIFAR-FS",
    {
        ("maml", 1): Published(58.9, 1.9),
        ("maml", 5): Published(71.5, 1.0),
        ("alfa", 1): Published(59.96, 0.49),
        ("alfa", 5): Published(76.79, 0.42),
    },
)
NOTHING = Reference("", {})

TITLES = {
    "pixels": "raw pixels (floor)",
    "maml": "MAML",
    "metasgd": "MetaSGD",
    "mtnet": "MT-net",
    "warpgrad": "WarpGrad",
    "metacurvature": "MetaCurvature",
    "metakfo": "MetaKFO",
    "ecml": "ECML",
    "md": "MD",
    "md-released": "MD as released",
    "md-convex": "MD convex (ours)",
}
"""Method names as printed, in the order of the published table; the floor first, our variants last."""

RECONSTRUCTED = "reconstructed: no public code settles this method"
"""Said wherever the result of such a method is shown; which one is, its card says in spec.json."""

RECONSTRUCTED_WITHOUT_CARD = {"ecml"}
"""Such methods in runs that are older than the card in spec.json."""

DATASETS = {
    "miniimagenet": "miniImageNet",
    "cifarfs": "CIFAR-FS",
    "omniglot": "Omniglot",
    "glyphs": "glyphs",
    "tieredimagenet": "tieredImageNet",
    "fc100": "FC100",
}


IMAGES = " (images "
"""Stands between a data set's name and the first digits of its hash where results hold several under one name."""


def dataset_key(dataset: str) -> str:
    """A data set's name (or the path it was given as) without case, folders and punctuation: ``cifarfs``."""
    base = dataset.partition(IMAGES)[0].replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "".join(letter for letter in base.lower() if letter.isalnum())


def dataset_title(dataset: str) -> str:
    """The data set as readers know it; unknown ones keep their own name, a path its last part."""
    name, mark, images = dataset.partition(IMAGES)
    own = name.replace("\\", "/").rstrip("/").rpartition("/")[2] or name
    return DATASETS.get(dataset_key(name), own) + mark + images


def method_title(method: str) -> str:
    """The method as readers know it; unknown ones keep their registry name."""
    return TITLES.get(method, method)


def method_order(method: str) -> tuple[int, str]:
    """Sort key: the published order, then all others by name."""
    order = list(TITLES)
    return (order.index(method) if method in TITLES else len(order), method)


def reference(dataset: str, ways: int) -> Reference:
    """The published numbers to show beside this data set.

    Its own where there are any. Other 5-way tables show miniImageNet's, under its name: the order of the methods can
    be compared, the level cannot. Other numbers of ways have none.
    """
    if ways != 5:
        return NOTHING
    return CIFAR_FS if dataset_key(dataset) == "cifarfs" else MINIIMAGENET
