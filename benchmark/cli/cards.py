"""Method cards as a person sees them: what `list NAME` prints, and the networks on which a card states its size."""

from __future__ import annotations

from functools import partial

from rich.console import Console
from rich.markdown import Markdown

import optimizers
from benchmark import networks
from benchmark.screen import visible
from optimizers import pages

NETWORKS = [
    (
        f"CNN4, 84×84 RGB, 5-way, {channels} channels",
        partial(networks.create, "cnn4", ways=5, image_shape=(3, 84, 84), channels=channels),
    )
    for channels in (32, 64, 128)
]
"""(description, constructor): the widths of the published rows."""


def show(name: str, console: Console) -> None:
    """Print the page of one method, laid out in a terminal and as Markdown in a pipe."""
    text = pages.page(optimizers.resolve(name), NETWORKS)
    if console.is_terminal:
        console.print(Markdown(visible(text)))
    else:
        console.print(text, markup=False, highlight=False, soft_wrap=True, end="")
