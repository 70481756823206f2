"""The card of a method: what a reader must know of it before reading its code. It needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

KINDS = {
    "start": "plain gradient descent; only where it starts is learned",
    "step sizes": "gradient descent with learned rates: per layer and step, or from the state of the task",
    "memory": "the update remembers earlier gradients of the task",
    "preconditioner": "the gradient is multiplied by a learned matrix",
    "layers": "learned layers stand between the adapted ones and change the geometry of their weights",
    "mirror map": "the step is made in a dual space behind a learned map",
    "prior": "a learned prior pulls the parameters, by its proximal map",
    "context": "only a few context parameters move; the network is shared by all tasks",
}
"""Kinds of methods by what is learned of the update, in the order in which they are listed, with what each means."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a reader must know of a method before reading its code. `list NAME` and the docs are made from it."""

    title: str
    """Its name in the literature, e.g. ``MetaSGD (diagonal PGD)``."""
    paper: str
    """Source: authors, title, venue and year."""
    bibtex: str = ""
    """The same as a BibTeX entry, indented as its place in the code asks for; ``list NAME --bibtex`` prints it."""
    geometry: str
    """The preconditioner or map in two or three words, e.g. ``diagonal``."""
    equation: str
    """One inner step in the notation φ, z, α, G, θ."""
    learned: str
    """The meta-parameters in one sentence."""
    kind: str = "other"
    """One of :data:`KINDS`, or a word of one's own, under which it is then listed."""
    differences: str = ""
    """Where paper and public code differ, and what is done here."""
    published: str = ""
    """Accuracy that its paper prints, with where it was read and what is doubtful about it."""
    options: dict[str, str] = field(default_factory=dict)
    """Meaning of each option of the constructor; its default is read from the signature."""
    reconstructed: bool = False
    """True where no public text settles the method: said wherever its result is shown."""
    starts_as_maml: bool = True
    """At its start the method traces exactly MAML's trajectory."""
    alive: bool = True
    """No meta-parameter has an identically zero gradient after two meta-steps."""


OWN_BIBTEX = """
    @software{inneroptimizerbenchmark,
      author = {{The maintainers of the Inner Optimizer Benchmark}},
      title = {Inner Optimizer Benchmark},
      year = {2026},
    }
    """
"""Of what no paper describes: this suite, as CITATION.cff has it."""

COMMON_OPTIONS = {
    "alpha": "inner step size α > 0; in a run the knob `--alpha`",
    "adapt": "which parameters move on a task: `all`, `head` (the last layer: ANIL), `body` (all others: BOIL), or a "
    "glob over parameter names; the rest keep their meta-learned value",
}
"""Meaning of the options that every method has."""
