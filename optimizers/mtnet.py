"""MT-net: a learned subspace, and a learned metric on it.

After each layer stands a linear transform T that is meta-learned and frozen while adapting: it turns a plain gradient
step in the layer's weights into a step in the metric TᵀT of the layer's outputs. A binary mask over output channels,
sampled once per task from learned logits, says which channels adapt at all. T alone is the T-net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.base import Card, InnerOptimizer, Params, State, key, parameters
from optimizers.errors import BadOption
from optimizers.tensors.stop_gradient import stop_gradient


class MTNet(InnerOptimizer):
    """φ_k = φ_{k−1} − α · mask ⊙ G in a network with a learned transform T after each layer."""

    card = Card(
        title="MT-net (learned subspace and metric)",
        paper="Lee, Choi: Gradient-Based Meta-Learning with Learned Layerwise Metric and Subspace. ICML 2018",
        kind="layers",
        bibtex="""
        @inproceedings{lee2018mtnet,
          author = {Lee, Yoonho and Choi, Seungjin},
          title = {Gradient-Based Meta-Learning with Learned Layerwise Metric and Subspace},
          booktitle = {International Conference on Machine Learning (ICML)},
          year = {2018},
        }
        """,
        geometry="layerwise metric, masked",
        equation="φ_k = φ_{k−1} − α mask ⊙ G; layer outputs y = T (W x + b); mask = 1[ζ + logistic noise > 0] per "
        "output channel, its gradient that of sigmoid(ζ + noise)",
        learned="The start φ_0, a 1×1 convolution T [C, C] after each convolution and T [n, n] on the logits (identity "
        "at the start), one mask logit ζ per output channel (0 at the start).",
        differences="The two-class Gumbel-softmax at temperature 1 is drawn through the difference of its two Gumbel "
        "variables, which is logistic. Batch-norm parameters, which the original does not adapt, follow no mask. "
        "Without per-task noise the more probable mask is taken.",
        options={"mask": "False: every channel adapts, the T-net, which starts on MAML's trajectory"},
        starts_as_maml=False,
    )

    def __init__(self, network: nn.Module, *, mask: bool = True, **common: Any) -> None:
        insert_transforms(network)
        super().__init__(network, "inserted.", **common)
        self.logit: nn.ParameterDict | None = None
        if not mask:
            self.card = replace(self.card, starts_as_maml=True)
        else:
            owners = {name.rpartition(".")[0] for name in self.adapted}
            named = dict(network.named_parameters())
            weights = {owner: named[f"{owner}.weight"] for owner in self._layers() if owner in owners}
            self.masked = {owner: len(weight) for owner, weight in weights.items()}
            self.logit = parameters({owner: weight.new_zeros(len(weight)) for owner, weight in weights.items()})

    def noise(self, generator: torch.Generator) -> Tensor | None:
        """Logistic noise, one number per mask logit, [Σ channels]."""
        if self.logit is None:
            return None
        uniform = torch.rand(sum(self.masked.values()), generator=generator).clamp(1e-6, 1 - 1e-6)
        return uniform.logit()

    def masks(self, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Mask of every masked layer by its name, [channels] of 0 and 1; straight-through in the logits."""
        if self.logit is None:
            return {}
        logits = {owner: self.logit[key(owner)] for owner in self.masked}
        if noise is None:
            drawn: Sequence[Tensor] = [torch.zeros_like(logit) for logit in logits.values()]
        else:
            drawn = noise.split(list(self.masked.values()))
        found = {}
        for (owner, logit), sample in zip(logits.items(), drawn, strict=True):
            soft = (logit + sample.to(logit.dtype)).sigmoid()
            found[owner] = soft + stop_gradient((soft >= 0.5).to(soft.dtype) - soft)
        return found

    def summaries(self) -> dict[str, Tensor]:
        """How probable it is that an output channel adapts, [channels] by layer."""
        if self.logit is None:
            return {}
        return {f"adapts with probability/{owner}": self.logit[key(owner)].sigmoid() for owner in self.masked}

    def init_state(self, noise: Tensor | None = None) -> State:
        return {"phi": self.start(), "mask": self.masks(noise)}

    def step(self, state: State, grads: Params, k: int) -> State:
        phi = {}
        for name, value in state["phi"].items():
            update = grads[name]
            mask = state["mask"].get(name.rpartition(".")[0])
            if mask is not None:
                update = update * mask.reshape(-1, *[1] * (update.dim() - 1))
            phi[name] = value.sub(update, alpha=self.alpha)
        return {"phi": phi, "mask": state["mask"]}

    def _layers(self) -> list[str]:
        kinds = (nn.Conv2d, nn.Linear)
        return [n for n, m in self.network.named_modules() if isinstance(m, kinds) and not n.startswith("inserted.")]


def insert_transforms(network: nn.Module) -> None:
    """Put a T that starts at the identity behind every layer that `network` names (not ResNet-12's shortcuts)."""
    like = next(network.parameters())
    convolutional = insertable(network, "mtnet")
    for place, channels in network.places("layer").items():  # type: ignore[operator]
        network.insert(place, identity(channels, convolutional=convolutional).to(like))  # type: ignore[operator]
    for place, ways in network.places("head").items():  # type: ignore[operator]
        network.insert(place, identity(ways, convolutional=False).to(like))  # type: ignore[operator]


def insertable(network: nn.Module, method: str) -> bool:
    """Whether `network`, which must offer ``places`` and ``insert``, is convolutional: which kind of layer fits it."""
    if not (hasattr(network, "places") and hasattr(network, "insert")):
        raise BadOption(
            f"{method} inserts layers: {type(network).__name__} needs methods places(kind) and insert(place, layer)"
        )
    return any(isinstance(module, nn.Conv2d) for module in network.modules())


def identity(channels: int, *, convolutional: bool) -> nn.Module:
    """A 1×1 convolution or a linear layer without bias that starts at the identity."""
    layer = nn.Conv2d(channels, channels, 1, bias=False) if convolutional else nn.Linear(channels, channels, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(channels).reshape(layer.weight.shape))
    return layer
