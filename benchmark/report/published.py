"""What the papers print: the numbers that stand beside ours, and the names under which readers know the methods.

The numbers are those of the published Table 1 (5-way miniImageNet, accuracy in %, mean ± 95 % interval as printed;
nan where the paper gives none), of their own papers for methods that it does not list, and of Bertinetto et al. (2019)
for MAML on CIFAR-FS; each carries its source. They mix widths, test protocols and meta-optimizers (docs/recipes.md), so
they are a reference and not a like-for-like comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

NAN = float("nan")


ZHANG = "Table 1 of Zhang et al. (2024)"
BERTINETTO = "Bertinetto et al. (2019)"
ANTONIOU = "Antoniou et al. (2019)"
BAIK = "Baik et al. (2020)"
KANG = "Kang et al. (2023), without its intervals"
ZINTGRAF = "Zintgraf et al. (2019), with 128 filters, without its intervals"
PROXIMAL = "Zhang and Giannakis (2024), without its intervals"


@dataclass(frozen=True)
class Published:
    """A printed accuracy in percent with its half-width (nan where none is printed), and where it is printed."""

    mean: float
    half: float = NAN
    source: str = ZHANG

    def separated(self, other: Published) -> bool:
        """Whether the printed intervals leave a gap; a number printed without one is taken as exact."""
        halves = sum(each.half for each in (self, other) if each.half == each.half)
        return abs(self.mean - other.mean) > halves


@dataclass(frozen=True)
class Reference:
    """The published numbers of one data set: `title` names it, `numbers` maps (method, shots) to what is printed."""

    title: str
    numbers: dict[tuple[str, int], Published]

    def printed(self, method: str, shots: int) -> Published | None:
        """What is printed for `method`, which may be so in two forms: as the text says and as the code was released.

        That of mirror descent is of the class as released, which `md` repairs.
        """
        return self.numbers.get((SAME.get(method, method), shots))


SAME = {"md-released": "md", "alfa-released": "alfa", "gap-released": "gap"}
"""Methods for which another one's numbers are printed."""

REPAIRED = "md"
REPAIR = (
    "this suite's repair of the published map, whose heads get no gradient: the printed number is that of the code as "
    "released"
)
"""Said wherever :data:`REPAIRED` stands beside a printed number."""

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
    ("mamlpp", 1): Published(52.15, 0.26, ANTONIOU),
    ("mamlpp", 5): Published(68.32, 0.44, ANTONIOU),
    ("alfa", 1): Published(50.58, 0.51, BAIK),
    ("alfa", 5): Published(69.12, 0.47, BAIK),
    ("gap", 1): Published(54.86, source=KANG),
    ("gap", 5): Published(71.55, source=KANG),
    ("gap-approx", 1): Published(53.52, source=KANG),
    ("gap-approx", 5): Published(70.75, source=KANG),
    ("metaproxnet", 1): Published(53.7, source=PROXIMAL),
    ("metaproxnet", 5): Published(70.1, source=PROXIMAL),
    ("cavia", 1): Published(49.84, source=ZINTGRAF),
    ("cavia", 5): Published(64.63, source=ZINTGRAF),
}
"""The same of methods that Table 1 does not list, from their own papers; their cards say where it was read."""

MINIIMAGENET = Reference("miniImageNet", TABLE_1 | LATER)
CIFAR_FS = Reference(
    "CIFAR-FS",
    {
        ("maml", 1): Published(58.9, 1.9, BERTINETTO),
        ("maml", 5): Published(71.5, 1.0, BERTINETTO),
        ("alfa", 1): Published(59.96, 0.49, BAIK),
        ("alfa", 5): Published(76.79, 0.42, BAIK),
    },
)
NOTHING = Reference("", {})

TITLES = {
    "pixels": "nearest centroid",
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
"""Method names as printed, in the order of the published table; the baseline first, our variants last."""

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
SIZES = {"miniimagenet": 84, "tieredimagenet": 84, "cifarfs": 32, "fc100": 32, "omniglot": 28, "glyphs": 28}
"""Pixels of an image's side; step times are those of the same size."""


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


def image_size(dataset: str) -> int | None:
    """Pixels of an image's side in a data set of the literature; None for others."""
    return SIZES.get(dataset_key(dataset))


def reference(dataset: str, ways: int) -> Reference:
    """The published numbers to show beside this data set.

    Its own where there are any. Other 5-way tables of the field's data sets show miniImageNet's, under its name: the
    order of the methods can be compared, the level cannot. Anybody's own data and other numbers of ways have none.
    """
    if ways != 5 or dataset_key(dataset) not in DATASETS:
        return NOTHING
    return CIFAR_FS if dataset_key(dataset) == "cifarfs" else MINIIMAGENET
