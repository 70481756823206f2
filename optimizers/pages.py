"""The docs page of a method, made from its card, its signature and its size on a network."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable

from torch import nn

from optimizers import registry
from optimizers.cards import COMMON_OPTIONS
from optimizers.counting import step_multiply_adds

COUNTED = (
    "Multiply-adds are those of the update itself, counted as it runs (`optimizers/counting.py`); "
    "the network's own passes are not counted."
)


def option_rows(name: str) -> list[tuple[str, str, str]]:
    """(option, default, meaning) of a method, its own options first."""
    meanings = {**COMMON_OPTIONS, **registry.card(name).options}
    return [(option, f"{default!r}", meanings.get(option, "")) for option, default in registry.options(name).items()]


def bibtex(name: str) -> str:
    """The BibTeX entry of a method; one made of its card's `paper` where the card gives none."""
    card = registry.card(name)
    written = inspect.cleandoc(card.bibtex)
    return written or f"@misc{{{registry.resolve(name)},\n  note = {{{card.paper}}},\n}}"


def sizes(name: str, network: Callable[[], nn.Module]) -> tuple[int, int, int]:
    """On a network: parameters d of its own, meta-parameters beside them, multiply-adds of the method per step."""
    bare = network()
    own = sum(p.numel() for p in bare.parameters())
    optimizer = registry.create(name, bare)
    return own, sum(p.numel() for p in optimizer.parameters()) - own, step_multiply_adds(optimizer)


def equation_lines(equation: str) -> list[str]:
    """The parts of a card's equation, which semicolons outside of brackets divide."""
    return re.split(r"; (?![^()]*\))", equation)


def page(name: str, networks: Iterable[tuple[str, Callable[[], nn.Module]]]) -> str:
    """The page of method `name` in Markdown; `networks` are (description, constructor) pairs to state its size on."""
    card = registry.card(name)
    also = [alias for alias, own in registry.aliases.items() if own == name]
    lines = [f"# `{name}`: {card.title}", ""]
    if card.reconstructed:
        lines += ["**Reconstructed:** no public text settles this method; its results say so wherever shown.", ""]
    lines += [card.paper.rstrip(".") + ".", ""]
    lines += [
        f"Kind: {card.kind}. Geometry: {card.geometry}. " + (f"Also found as {', '.join(also)}. " if also else ""),
        "",
    ]
    lines += ["## One step", "", "```", *equation_lines(card.equation), "```", ""]
    lines += ["## What is learned", "", card.learned, ""]
    lines += [
        "It starts exactly on MAML's trajectory."
        if card.starts_as_maml
        else "With its default options it does not start on MAML's trajectory.",
        "In one draw of the start or another every tensor of meta-parameters gets a gradient, but for a bias that a "
        "norm takes away again, and what is learned for it alone."
        if card.alive
        else "Part of the meta-parameters never receives a gradient.",
        "",
    ]
    if card.differences:
        lines += ["## Paper, code and what is done here", "", card.differences, ""]
    if card.published:
        lines += ["## Published", "", card.published, ""]
    lines += ["## Options", "", "| option | default | meaning |", "|---|---|---|"]
    lines += [f"| `{option}` | `{default}` | {meaning} |" for option, default, meaning in option_rows(name)]
    lines += ["", "## What it costs", "", "| network | d | meta-parameters beside d | multiply-adds per step |"]
    lines += ["|---|--:|--:|--:|"]
    for description, network in networks:
        lines.append("| " + " | ".join([description, *(f"{n:,}" for n in sizes(name, network))]) + " |")
    lines += ["", COUNTED]
    if card.bibtex:
        lines += ["", "## Cite", "", "```bibtex", *bibtex(name).splitlines(), "```"]
    return "\n".join(line.rstrip() for line in lines) + "\n"
