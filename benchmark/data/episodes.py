"""Episodes: the tasks of a benchmark, the same for every method.

Task ``index`` of a data set is a pure function of (data set, split, ways, shots, seed, index): a counter-based
generator (Philox) is keyed by their hash and its raw words are sorted, so neither the method, the batch size, nor the
order of asking matters. Within a class the images are put in one random order; the first ``shots`` are the support,
those after it the query, so that more queries only add to fewer. Where the images of a class come in groups (a glyph's
faces), the groups are first dealt out to support and query: none serves both.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from benchmark.data.draws import EpisodeBatch, Episodes, task_words
from benchmark.data.sine import sample_sine
from benchmark.data.storage import SPLITS, Dataset
from benchmark.errors import UserError, nearest

if TYPE_CHECKING:
    import torch

_CHUNK_TASKS = 64  # tasks sorted together
_ABSENT = np.iinfo(np.int64).max
_LAST = np.uint64(_ABSENT)  # no key, shifted right by one, is larger


class _Table(NamedTuple):
    """Where the images of a split's stored classes lie, padded to the largest class ``M``. One row a class."""

    first: np.ndarray  # [classes] index of the first image
    size: np.ndarray  # [classes] number of images
    group: np.ndarray  # [classes, M] group of each image, ascending; _ABSENT past the end
    rank: np.ndarray  # [classes, M] position within its group
    groups: np.ndarray  # [classes] number of groups; 0: images are independent


_TABLES: WeakKeyDictionary[Dataset, dict[str, _Table]] = WeakKeyDictionary()


def _table(dataset: Dataset, split: str) -> _Table:
    tables = _TABLES.setdefault(dataset, {})
    if split not in tables:
        tables[split] = _tabulated(dataset, split)
    return tables[split]


def _tabulated(dataset: Dataset, split: str) -> _Table:
    starts = np.cumsum([0] + [c.count for c in dataset.classes])
    members = [(start, c) for start, c in zip(starts, dataset.classes, strict=False) if c.split == split]
    widest = max((c.count for _, c in members), default=0)
    grouped = any(c.groups for _, c in members)
    group = np.full((len(members), widest if grouped else 0), _ABSENT)
    rank = np.zeros_like(group)
    for row, (_, c) in enumerate(members):
        if grouped:
            sizes = c.groups or (1,) * c.count
            group[row, : c.count] = np.repeat(np.arange(len(sizes)), sizes)
            rank[row, : c.count] = np.concatenate([np.arange(size) for size in sizes])
    return _Table(
        np.array([start for start, _ in members], dtype=np.int64),
        np.array([c.count for _, c in members], dtype=np.int64),
        group,
        rank,
        np.array([len(c.groups or ()) for _, c in members], dtype=np.int64),
    )


def _draw(of: Episodes, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Image indices ``[T, ways, shots + query]`` and quarter turns ``[T, ways]``."""
    table, rotations, ways, shots = _table(of.dataset, of.split), of.dataset.rotations, of.ways, of.shots
    stored, widest = len(table.first), int(table.size.max())
    classes, most_groups = stored * rotations, int(table.groups.max())
    words = np.stack([task_words(of, i, classes + ways * (widest + most_groups)) for i in indices])  # [T, ...]
    chosen = np.argsort(words[:, :classes], axis=1, kind="stable")[:, :ways]  # [T, ways]
    turns, rows = chosen % rotations, chosen // rotations
    keys = words[:, classes:].reshape(len(words), ways, -1)  # [T, ways, M + G]
    image_keys = np.where(np.arange(widest) < table.size[rows][..., None], keys[..., :widest] >> np.uint64(1), _LAST)
    if most_groups == 0:
        order = np.argsort(image_keys, axis=-1, kind="stable")
        begin = np.full((len(words), ways, 1), shots)
    else:
        order, begin = _grouped_order(table, rows, image_keys, keys[..., widest:], shots)
    support = np.broadcast_to(np.arange(shots), (*begin.shape[:2], shots))
    columns = np.concatenate([support, begin + np.arange(of.query)], axis=-1)
    return table.first[rows][..., None] + np.take_along_axis(order, columns, axis=-1), turns


def _grouped_order(
    table: _Table, rows: np.ndarray, image_keys: np.ndarray, group_keys: np.ndarray, shots: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images ``[T, ways, M]`` in order, and where the query begins ``[T, ways, 1]``: support before, query from it on.

    The groups of a class are shuffled; the first ``min(shots, groups // 2)`` serve the support, the rest the query.
    Within either part every group gives one image before any gives a second.
    """
    group, rank, groups = table.group[rows], table.rank[rows], table.groups[rows][..., None]  # [T, ways, M] or 1
    most = group_keys.shape[-1]
    shuffled = np.argsort(np.where(np.arange(most) < groups, group_keys >> np.uint64(1), _LAST), axis=-1, kind="stable")
    place = np.argsort(shuffled, axis=-1)  # [T, ways, G] a group's place in the shuffled order
    within = np.lexsort((image_keys, group), axis=-1)  # images shuffled inside each group, groups where they were
    present = group != _ABSENT
    turn = np.take_along_axis(place, np.where(present, group, 0), axis=-1)
    is_query = present & (turn >= np.minimum(shots, groups // 2))
    deal = is_query * (np.int64(1) << 40) + rank * most + turn
    order = np.argsort(np.where(present, deal, _ABSENT), axis=-1, kind="stable")
    return np.take_along_axis(within, order, axis=-1), np.sum(present & ~is_query, axis=-1, keepdims=True)


def class_names(of: Episodes, indices: Sequence[int]) -> list[list[str]]:
    """The classes of each task, in the order of its labels."""
    check(of)
    picked, turns = _draw(of, indices)
    classes = of.dataset.classes
    ends = np.cumsum([c.count for c in classes])
    rows = np.searchsorted(ends, picked[..., 0], side="right")  # [T, ways]
    suffix = ["", "@90", "@180", "@270"]
    return [
        [classes[row].name + suffix[turn] for row, turn in zip(*task, strict=True)]
        for task in zip(rows, turns, strict=True)
    ]


def check(of: Episodes) -> None:
    """Refuse an episode the data set cannot give, saying what it can."""
    dataset, split, ways, shots, query = of.dataset, of.split, of.ways, of.shots, of.query
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}, expected train, val or test{nearest(split, SPLITS)}")
    for what, value, least in (("ways", ways, 1), ("shots", shots, 1), ("query", query, 0)):
        if value < least:
            raise UserError(f"{what} must be at least {least}, got {value}")
    if dataset.kind == "regression":
        if ways != 1:
            raise UserError(f"{dataset.name} is a regression and has no classes: ways must be 1, got {ways}")
        return
    classes = len(dataset.splits[split])
    if ways > classes:
        raise UserError(f"{dataset.name} has {classes} {split} classes, fewer than {ways} ways; lower --ways")
    for c in dataset.classes:
        if c.split == split:
            support, queries = _room(c.count, c.groups, shots)
            if shots > support or query > queries:
                fewer = f"--query-{'train' if split == 'train' else 'test'} to {queries}"
                raise UserError(
                    f"{dataset.name}'s {split} class {c.name!r} has {support} support and {queries} query images for a "
                    f"task of {shots} shots, asked for {shots} and {query}; "
                    f"lower {fewer if shots <= support and queries else '--shots'}"
                )


def _room(count: int, groups: Sequence[int], shots: int) -> tuple[int, int]:
    """The most support and, beside ``shots`` of them, query images a class can give, whatever the deal of groups."""
    if not groups:
        return min(count, shots), max(count - shots, 0)
    sizes, serving = sorted(groups), min(shots, len(groups) // 2)
    return sum(sizes[:serving]), sum(sizes[: len(sizes) - serving])


@lru_cache(maxsize=256)
def _labels(ways: int, each: int) -> np.ndarray:
    return np.repeat(np.arange(ways, dtype=np.int64), each)


def sample(of: Episodes, indices: Sequence[int], device: torch.device | None = None) -> EpisodeBatch:
    """Tasks ``indices`` as one :class:`EpisodeBatch`; see the module for what decides them.

    With a GPU as ``device`` its images are gathered there (:func:`resident`), to the same bits as on the CPU.

    Errors: :class:`UserError` where the split has too few classes or a class too few images.
    """
    import torch

    check(of)
    dataset, shots = of.dataset, of.shots
    if dataset.kind == "regression":
        return sample_sine(of, indices)
    drawn = [_draw(of, indices[start : start + _CHUNK_TASKS]) for start in range(0, len(indices), _CHUNK_TASKS)]
    picked, turns = (np.concatenate(parts) for parts in zip(*drawn, strict=True))  # [T, ways, S + Q], [T, ways]
    stored = resident(dataset, device)
    if stored is None:
        images = torch.from_numpy(np.asarray(dataset.images[picked]))
        _forget(dataset.images)
    else:
        images = stored[torch.from_numpy(picked).to(stored.device, non_blocking=True)]
    for turn in range(1, dataset.rotations):
        turned = np.nonzero(turns == turn)
        images[turned] = torch.rot90(images[turned], turn, (-2, -1))
    most = torch.full((), 255.0, device=images.device)  # a tensor: by a number, a GPU multiplies with its inverse

    def part(pixels: torch.Tensor, each: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = pixels.float().div_(most).reshape(len(indices), of.ways * each, *dataset.image_shape)
        labels = torch.from_numpy(np.tile(_labels(of.ways, each), (len(indices), 1)))
        return x, labels.to(x.device, non_blocking=True)

    return EpisodeBatch(*part(images[:, :, :shots], shots), *part(images[:, :, shots:], of.query))


_RESIDENT: WeakKeyDictionary[Dataset, dict[torch.device, torch.Tensor | None]] = WeakKeyDictionary()
_UPLOADED = 4096  # images copied together


def resident(dataset: Dataset, device: torch.device | None) -> torch.Tensor | None:
    """All images of the set on a GPU, uint8 ``[N, C, H, W]``, uploaded once for as long as the set is in use.

    None on a CPU, and where they would take more than half of the memory that is free there.
    """
    import torch

    if device is None or device.type != "cuda":
        return None
    kept = _RESIDENT.setdefault(dataset, {})
    if device not in kept:
        fits = 2 * dataset.images.nbytes <= torch.cuda.mem_get_info(device)[0]
        kept[device] = upload(dataset.images, device) if fits else None
    return kept[device]


def upload(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy of ``images`` on a device, made in pieces: the set may be larger than the host's memory."""
    import torch

    there = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), _UPLOADED):
        piece = slice(start, start + _UPLOADED)
        there[piece] = torch.from_numpy(np.array(images[piece]))
        _forget(images)
    return there


_FORGET_BYTES = 64 << 20  # smaller sets stay mapped


def _forget(images: np.ndarray) -> None:
    """Give mapped pages back (the page cache keeps them): resident memory does not grow to the size of the set."""
    mapped = images.base
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") and len(mapped) > _FORGET_BYTES:
        mapped.madvise(mmap.MADV_DONTNEED)
