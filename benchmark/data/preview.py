"""A contact sheet: episodes as a method sees them, one row a class, support | query."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.draws import EpisodeBatch, Episodes
from benchmark.data.episodes import class_names, sample
from benchmark.data.sine import INPUT, sine_tasks
from benchmark.files import write_atomic

_CELL_IN = 0.62  # side of an image
_LABEL_IN = 2.0


def contact_sheet(of: Episodes, indices: Sequence[int], output: Path) -> None:
    """Write a PNG of the tasks ``indices``."""
    from matplotlib.figure import Figure

    batch = sample(of, indices)
    if of.dataset.kind == "regression":
        figure = _curves(batch, sine_tasks(of, indices), Figure)
    else:
        names = class_names(of, indices)
        figure = _images(batch, names, of, Figure)
    figure.suptitle(f"{of.dataset.name}, {of.split}: support | query", fontsize=10)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=max(100, round(of.dataset.image_shape[-1] / _CELL_IN)))
    write_atomic(output, drawn.getvalue())


def _images(batch: EpisodeBatch, names: list[list[str]], of: Episodes, figure_type: Any) -> Any:
    tasks, ways = len(names), of.ways
    width, height = (of.shots + of.query + 0.4) * _CELL_IN + _LABEL_IN + 0.2, (ways * _CELL_IN + 0.35) * tasks + 0.4
    figure = figure_type(figsize=(width, height), layout="constrained")
    for task, axes in enumerate(np.atleast_1d(figure.subplots(tasks, 1))):
        sheet = _sheet(batch.support_x[task].numpy(), batch.query_x[task].numpy(), ways)
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        side = sheet.shape[0] / ways
        axes.set_yticks((np.arange(ways) + 0.5) * side, [_short(name) for name in names[task]], fontsize=7)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.set_title(f"task {task}", fontsize=8, loc="left")
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def _short(name: str) -> str:
    return name.lower() if len(name) <= 26 else "…" + name[-25:].lower()


def _sheet(support: np.ndarray, query: np.ndarray, ways: int) -> np.ndarray:
    """``[ways · (H + 1), …, 3]``: a row a class, a white bar between support and query."""

    def block(images: np.ndarray) -> np.ndarray:
        images = np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=0.35)  # [ways · n, C, H + 1, W + 1]
        count, channels, height, width = images.shape
        grid = images.reshape(ways, count // ways, channels, height, width).transpose(0, 3, 1, 4, 2)
        grid = grid.reshape(ways * height, count // ways * width, channels)
        return np.repeat(grid, 3, axis=2) if channels == 1 else grid

    left, right = block(support), block(query)
    bar = np.ones((left.shape[0], max(4, support.shape[-1] // 4), 3), left.dtype)
    return np.concatenate([left, bar, right], axis=1)


def _curves(batch: EpisodeBatch, drawn: tuple[np.ndarray, ...], figure_type: Any) -> Any:
    tasks, (amplitude, phase, _) = len(batch.support_x), drawn
    x = np.linspace(*INPUT, 200)
    figure = figure_type(figsize=(2.6 * tasks, 2.4), layout="constrained")
    for task, axes in enumerate(np.atleast_1d(figure.subplots(1, tasks, sharey=True))):
        axes.plot(x, amplitude[task] * np.sin(x - phase[task]), lw=0.8, color="0.7")
        axes.plot(batch.query_x[task, :, 0], batch.query_y[task, :, 0], "o", ms=3, mfc="none", label="query")
        axes.plot(batch.support_x[task, :, 0], batch.support_y[task, :, 0], "o", ms=4, label="support")
        axes.set_title(f"task {task}", fontsize=8)
    axes.legend(fontsize=7)
    return figure
