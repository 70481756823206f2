"""The contract of a lower-level optimizer.

A *lower-level* (inner) optimizer says how the parameters φ of a network move on the support set of a task. Its own
parameters θ, the meta-parameters, are shared by all tasks and learned over many of them; the start of φ is one of
them. The contract is purely functional: a task's *state* goes in and a new state comes out, nothing about a task is
ever kept on the module. Tasks can therefore be vmapped, a graph dies with its task, and evaluation leaves no trace.

One inner loop, from the optimizer's side::

    state = optimizer.init_state(noise)
    for k in range(steps):
        φ = optimizer.params(state)                  # where the loss is taken
        grads = ∇_φ loss(φ; support)
        state = optimizer.step(state, grads, k)
    outer_loss = optimizer.objective(task, trajectory)
"""

from __future__ import annotations

import fnmatch
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from optimizers.cards import Card
from optimizers.errors import BadOption

Params = dict[str, Tensor]
"""Task parameters by the name they have in the network."""

State = dict[str, Any]
"""What a task carries from step to step: a (nested) dict whose leaves are tensors. Never modified in place."""


def key(name: str) -> str:
    """`name` as a key of a ParameterDict, where a dot is not allowed: ``conv1.weight`` → ``conv1-weight``."""
    return name.replace(".", "-")


def misfits(state: Any, where: str = "state") -> list[str]:
    """What of a state is neither a dict nor a tensor in one, as ``"state['k'] is int"``; empty where all is well."""
    if not isinstance(state, dict):
        return [f"{where} is {type(state).__name__}"]
    odd: list[str] = []
    for name, value in state.items():
        if not isinstance(value, Tensor):
            odd += misfits(value, f"{where}[{name!r}]")
    return odd


def parameters(values: Mapping[str, Tensor]) -> nn.ParameterDict:
    """Meta-parameters by the :func:`key` of what they act on, in the order of `values`."""
    return nn.ParameterDict(OrderedDict((key(name), nn.Parameter(value)) for name, value in values.items()))


@dataclass
class Task:
    """One task: support [S, ...] and query [Q, ...] inputs with their targets; as a batch, with a leading [T]."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor


def _nothing() -> Tensor:
    return torch.empty(0)


@dataclass
class Trajectory:
    """One task's inner loop, as it is handed to :meth:`InnerOptimizer.objective` and to whoever looks at it."""

    state: State
    """The state after the last step, K."""
    params: Params
    """φ_K by name."""
    nll: Tensor = field(default_factory=_nothing)
    """Support loss at k = 0 … K or further, [K+1], without a graph; empty where no trace was asked for."""
    grad_norm: Tensor = field(default_factory=_nothing)
    """‖∇_φ L_S‖₂ over all adapted parameters at k = 0 … K or further, [K+1]; empty where no trace was asked for."""
    visited: tuple[State, ...] = ()
    """The states at k = 0 … K with their graph. Kept only where a graph is kept; empty otherwise."""
    progress: float = 1.0
    """Share of the meta-training that is done, in [0, 1): a plain number, the same for all tasks of a meta-step.

    1 outside of training. Evaluation asks for no objective, so that what is measured cannot depend on it."""


class InnerOptimizer(nn.Module):
    """Base of all lower-level optimizers; by itself it is the contract and no method.

    Parameters
    ----------
    network:
        What is adapted. Its parameters become the learned start φ_0 (for mirror descent the dual start z_0). It is
        taken over, not copied: it becomes ``self.network`` and trains with the method, and a constructor that needs
        layers of its own inserts them before it calls this one. What is never to be
        learned has ``requires_grad`` False. Hand a network to one method only. A regression network
        names its own loss by an attribute ``loss(outputs, targets)``; otherwise the mean cross-entropy is used. A
        network whose attribute ``norm`` is ``"support"`` is given the support set in front of query images.
    frozen:
        Prefix of the names of those parameters that never move on a task: the layers that a constructor inserted, say.
        No option: it comes from the method's constructor. Empty: all may move.
    alpha:
        Inner step size α > 0.
    adapt:
        Which parameters move: ``"all"``, ``"head"`` (the last layer: ANIL), ``"body"`` (all others: BOIL) or a
        glob over parameter names. The others keep their meta-learned value.

    Raises
    ------
    BadOption: a step size that is not positive, or an `adapt` that leaves nothing to move.
    """

    card: Card
    """Of the class; an instance whose options change a claim of it carries its own."""

    def __init__(self, network: nn.Module, frozen: str = "", *, alpha: float = 0.01, adapt: str = "all") -> None:
        super().__init__()
        if not alpha > 0:
            raise BadOption(f"alpha must be a positive step size, got {alpha}")
        self.alpha = float(alpha)
        self.network = network
        names = (name for name, _ in network.named_parameters())
        self._movable = tuple(name for name in names if not (frozen and name.startswith(frozen)))
        self.adapted: tuple[str, ...] = self._select(adapt)

    def noise(self, generator: torch.Generator) -> Tensor | None:
        """One task's random numbers, drawn outside vmap from `generator` (a CPU generator). Default: none."""
        return None

    def init_state(self, noise: Tensor | None = None) -> State:
        """θ → the state from which a new task starts. Default: ``{"phi": φ_0}``."""
        return {"phi": self.start()}

    def params(self, state: State) -> Params:
        """The point φ where the loss is taken. Default: ``state["phi"]``."""
        return state["phi"]

    def step(self, state: State, grads: Params, k: int) -> State:
        """Update k = 0 … from G = ∇_φ L_S at ``params(state)``, keyed like it.

        k is a Python int. It may go beyond the steps that a method was trained for (a longer trace, more steps at
        test): one whose update depends on k says what it does there.
        """
        raise NotImplementedError

    def objective(self, task: Task, trajectory: Trajectory) -> Tensor:
        """The outer loss of one task, a scalar. Default: the query nll at φ_K."""
        return self.query_loss(trajectory.params, task)

    def summaries(self) -> dict[str, Tensor]:
        """What is worth watching of θ while it is learned, by ``kind/parameter``; called without a graph.

        ``run --tensorboard`` draws a scalar as a curve and anything larger as a histogram. Kinds that several methods
        share: ``step size``, what an entry of G is multiplied by, and ``spectrum``, the singular values of what a
        gradient is multiplied by. Default: nothing.
        """
        return {}

    # What every method may use.

    def start(self) -> Params:
        """The learned start of the adapted parameters, by name."""
        named = dict(self.network.named_parameters())
        return {name: named[name] for name in self.adapted}

    def last_layer(self) -> tuple[str, ...]:
        """Names of the parameters of the network's last layer, whether they adapt or not."""
        names = self._movable
        return tuple(name for name in names if name.rpartition(".")[0] == names[-1].rpartition(".")[0])

    def blocks(self) -> list[tuple[str, ...]]:
        """The adapted names, layer block by layer block in the network's order; empty blocks are left out.

        A network names its blocks by a method ``blocks()``; otherwise the parameters of one module are one block.
        """
        if hasattr(self.network, "blocks") and callable(self.network.blocks):
            named = [tuple(block) for block in self.network.blocks()]
        else:
            owners = dict.fromkeys(name.rpartition(".")[0] for name in self.adapted)
            named = [tuple(name for name in self.adapted if name.rpartition(".")[0] == owner) for owner in owners]
        kept = [tuple(name for name in block if name in self.adapted) for block in named]
        return [block for block in kept if block]

    def descend(self, point: Params, direction: Params) -> Params:
        """``point − α direction``, by name."""
        return {name: value.sub(direction[name], alpha=self.alpha) for name, value in point.items()}

    def predict(self, params: Params, x: Tensor, support_x: Tensor | None = None) -> Tensor:
        """Network output [N, ways] at φ = `params` for inputs x [N, ...]; what does not adapt is read from θ.

        With `support_x` [S, ...] these go through the network in front of x, ``network(inputs, reference=S)``, and
        their statistics normalise both.
        """
        if support_x is None:
            return functional_call(self.network, params, (x,))
        count = len(support_x)
        return functional_call(self.network, params, (torch.cat([support_x, x]),), {"reference": count})[count:]

    def loss(self, params: Params, x: Tensor, y: Tensor, support_x: Tensor | None = None) -> Tensor:
        """Mean loss (nats for classification) at φ = `params`, a scalar; `support_x` as in :meth:`predict`."""
        return self.output_loss(self.predict(params, x, support_x), y)

    def predict_query(self, params: Params, task: Task) -> Tensor:
        """Network output [Q, ways] for the query set at φ = `params`."""
        return self.predict(params, task.query_x, *self.beside(task))

    def query_loss(self, params: Params, task: Task) -> Tensor:
        """Mean loss of the query set at φ = `params`, a scalar: how every objective takes it."""
        return self.loss(params, task.query_x, task.query_y, *self.beside(task))

    def beside(self, task: Task) -> tuple[Tensor, ...]:
        """The images whose statistics normalise the query set: none but itself, or the support set."""
        return (task.support_x,) if getattr(self.network, "norm", "batch") == "support" else ()

    @property
    def is_regression(self) -> bool:
        """Whether the network has a loss of its own; one without is a classifier."""
        return hasattr(self.network, "loss")

    def output_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The network's own loss, or the mean cross-entropy, of outputs [N, ways] and targets [N], a scalar."""
        loss: Callable[[Tensor, Tensor], Tensor] = getattr(self.network, "loss", F.cross_entropy)  # type: ignore[assignment]
        return loss(outputs, targets)

    def _select(self, adapt: str) -> tuple[str, ...]:
        names = self._movable
        if adapt == "all":
            return names
        if adapt == "head":
            return self.last_layer()
        if adapt == "body":
            chosen = tuple(name for name in names if name not in self.last_layer())
        else:
            chosen = tuple(name for name in names if fnmatch.fnmatchcase(name, adapt))
        if not chosen:
            raise BadOption(
                f"adapt={adapt!r} matches no parameter; expected 'all', 'head', 'body' or a pattern over "
                f"{', '.join(names)}"
            )
        return chosen
