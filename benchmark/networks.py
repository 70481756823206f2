"""The networks that are adapted: CNN4 and its two-layer form CNN2, ResNet-12 and the sine MLP.

Every network says of itself what methods need: :meth:`Network.blocks` groups its parameters by layer, in order, and
:meth:`Network.places` lists where :meth:`Network.insert` may put a further layer (warp layers, MT-net's transforms).
A network draws its parameters from torch's global generator: call ``torch.manual_seed`` first.

How a network normalises is its ``norm``, one of :data:`benchmark.spec.NORMS`. ``batch``: batch norm by the statistics
of the batch at hand, as in every public few-shot code: the support set in the inner loop, the query set at prediction,
where each query image then sees the others. ``support``: the inner loop is the same, and query images are normalised by
the statistics that the support set has at the same φ, in one pass behind it (``forward(x, reference)``). ``group``:
group norm, each image by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.engine import fused
from benchmark.engine.norms import BatchNorm, GroupNorm, Norm
from benchmark.errors import UserError, nearest
from benchmark.spec import NORMS

PLACES = ("layer", "activation", "block", "head")
"""Kinds of places where a layer can be inserted."""


class Network(nn.Module):
    """What all networks share: blocks of parameters, and places where a further layer can be inserted."""

    def __init__(self, norm: str = "batch") -> None:
        super().__init__()
        self.norm = norm
        self.inserted = nn.ModuleDict()

    def _norm(self, channels: int) -> Norm:
        return GroupNorm(channels) if self.norm == "group" else BatchNorm(channels)

    def places(self, kind: str) -> dict[str, int]:
        """Where a layer may be inserted, in order, with the channels there.

        `kind` is ``"layer"`` (after a convolution or linear layer, before its normalisation or non-linearity),
        ``"activation"`` (before a block's last non-linearity, behind its pooling), ``"block"`` (after a whole block,
        pooling included) or ``"head"`` (on the outputs).
        """
        raise NotImplementedError

    def insert(self, place: str, layer: nn.Module) -> None:
        """Apply `layer` at `place`, one of :meth:`places`; its parameters are named ``inserted.<place>.*``."""
        known = {name for kind in PLACES for name in self.places(kind)}
        if place not in known:
            raise ValueError(f"no place {place!r} in {type(self).__name__}; expected one of {', '.join(sorted(known))}")
        if place in self.inserted:
            raise ValueError(f"{place!r} already holds an inserted layer")
        self.inserted[place] = layer

    def blocks(self) -> list[list[str]]:
        """Names of the network's own parameters by block, in order; inserted layers belong to none."""
        groups: dict[str, list[str]] = {}
        for name, _ in self.named_parameters():
            if not name.startswith("inserted."):
                groups.setdefault(self._block_of(name), []).append(name)
        return list(groups.values())

    def _block_of(self, name: str) -> str:
        """The block of a parameter: the trailing digits of its module, else the module's name."""
        owner = name.split(".")[0]
        return owner.lstrip("abcdefghijklmnopqrstuvwxyz_") or owner

    def _at(self, place: str, x: Tensor) -> Tensor:
        return self.inserted[place](x) if place in self.inserted else x


class ConvNet(Network):
    """CNN4: 4 × (3×3 convolution, batch norm, ReLU, 2×2 max-pool), then one linear layer: [N, C_in, H, W] → [N, ways].

    Each pooling halves height and width, rounding down; at 84, 32 and 28 pixels the head sees 25, 4 and 1 positions.
    A convolution's bias is removed again by a batch norm behind it: it is a parameter of the network, as in every
    public code base, but its gradient is zero and no work is done for it.

    CNN2, MetaKFO's network, has `depth` 2: two such blocks, each with 4×4 max-pool, so that the head is the same.
    """

    def __init__(
        self, *, ways: int, image_shape: tuple[int, int, int], channels: int, depth: int, norm: str = "batch"
    ) -> None:
        super().__init__(norm)
        inputs, height, width = image_shape
        if min(height, width) < 16:
            raise UserError(
                f"cnn{depth} divides the image's sides by 16 and needs at least 16×16 pixels, got {height}×{width}"
            )
        self.channels, self.ways, self.depth = channels, ways, depth
        self.pool = {4: 2, 2: 4}[depth]
        for i in range(1, depth + 1):
            self.add_module(f"conv{i}", nn.Conv2d(inputs if i == 1 else channels, channels, 3, padding=1))
            self.add_module(f"norm{i}", self._norm(channels))
        self.head = nn.Linear(channels * (height // 16) * (width // 16), ways)
        # how the fused block computes; values and names are the same
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload,unused-ignore]

    def places(self, kind: str) -> dict[str, int]:
        prefix = {"layer": "conv", "activation": "activation", "block": "block"}.get(kind)
        if prefix:
            return {f"{prefix}{i}": self.channels for i in range(1, self.depth + 1)}
        return {"head": self.ways}

    def forward(self, x: Tensor, reference: int | None = None) -> Tensor:
        for i in range(1, self.depth + 1):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"norm{i}")
            if f"activation{i}" in self.inserted:
                pooled = F.max_pool2d(norm(self._at(f"conv{i}", conv(x)), reference), self.pool)
                x = F.relu(self._at(f"activation{i}", pooled))
            else:
                inserted = dict(self.inserted).get(f"conv{i}")
                x = fused.block(x, conv, inserted, norm, self.pool, reference)
            x = self._at(f"block{i}", x)
        return self._at("head", self.head(x.flatten(1)))


class ResNet12(Network):
    """Four residual blocks, global average pooling, one linear layer: [N, C_in, H, W] → [N, ways].

    A block is three 3×3 convolutions without bias, each with batch norm, leaky ReLU (slope 0.1) after the first two and
    after the sum with the shortcut (1×1 convolution and batch norm), then 2×2 max-pool. Widths are 1, 2.5, 5 and 10
    times `channels` (Lee et al., CVPR 2019, with 64), without drop-block: the inner loop is deterministic.
    """

    def __init__(self, *, ways: int, image_shape: tuple[int, int, int], channels: int, norm: str = "batch") -> None:
        super().__init__(norm)
        inputs, height, width = image_shape
        if min(height, width) < 16:
            raise UserError(
                f"resnet12 halves the image four times and needs at least 16×16 pixels, got {height}×{width}"
            )
        self.ways = ways
        self.widths = [channels, 5 * channels // 2, 5 * channels, 10 * channels]
        for i, outputs in enumerate(self.widths, 1):
            layers: dict[str, nn.Module] = {}
            for j in (1, 2, 3):
                layers[f"conv{j}"] = nn.Conv2d(inputs if j == 1 else outputs, outputs, 3, padding=1, bias=False)
                layers[f"norm{j}"] = self._norm(outputs)
            layers["shortcut"] = nn.Conv2d(inputs, outputs, 1, bias=False)
            layers["shortcut_norm"] = self._norm(outputs)
            self.add_module(f"layer{i}", nn.ModuleDict(layers))
            inputs = outputs
        self.head = nn.Linear(inputs, ways)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload,unused-ignore]

    def places(self, kind: str) -> dict[str, int]:
        if kind == "layer":
            return {f"layer{i}_conv{j}": width for i, width in enumerate(self.widths, 1) for j in (1, 2, 3)}
        if kind in ("activation", "block"):
            return {f"{kind}{i}": width for i, width in enumerate(self.widths, 1)}
        return {"head": self.ways}

    def forward(self, x: Tensor, reference: int | None = None) -> Tensor:
        for i in range(1, 5):
            layer = getattr(self, f"layer{i}")
            shortcut = layer["shortcut_norm"](layer["shortcut"](x), reference)
            for j in (1, 2, 3):
                x = layer[f"norm{j}"](self._at(f"layer{i}_conv{j}", layer[f"conv{j}"](x)), reference)
                x = F.leaky_relu(x, 0.1) if j < 3 else x + shortcut
            if f"activation{i}" in self.inserted:
                x = F.leaky_relu(self._at(f"activation{i}", F.max_pool2d(x, 2)), 0.1)
            else:
                x = F.max_pool2d(F.leaky_relu(x, 0.1), 2)
            x = self._at(f"block{i}", x)
        return self._at("head", self.head(x.mean((2, 3))))


class SineMLP(Network):
    """Two hidden ReLU layers, one input, one output: regression on sine waves (Finn et al., ICML 2017, 40 units)."""

    def __init__(self, *, hidden: int = 40) -> None:
        super().__init__()
        self.hidden = hidden
        self.linear1 = nn.Linear(1, hidden)
        self.linear2 = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, 1)

    def places(self, kind: str) -> dict[str, int]:
        if kind == "head":
            return {"head": 1}
        prefix = "linear" if kind == "layer" else kind
        return {f"{prefix}{i}": self.hidden for i in (1, 2)}

    def forward(self, x: Tensor) -> Tensor:  # [N, 1] → [N, 1]
        for i in (1, 2):
            x = self._at(f"linear{i}", getattr(self, f"linear{i}")(x))
            x = self._at(f"block{i}", F.relu(self._at(f"activation{i}", x)))
        return self._at("head", self.head(x))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error, a scalar."""
        return F.mse_loss(outputs, targets)


def _cnn4(ways: int, image_shape: tuple[int, int, int], channels: int, norm: str) -> Network:
    return ConvNet(ways=ways, image_shape=image_shape, channels=channels, depth=4, norm=norm)


def _cnn2(ways: int, image_shape: tuple[int, int, int], channels: int, norm: str) -> Network:
    return ConvNet(ways=ways, image_shape=image_shape, channels=channels, depth=2, norm=norm)


def _resnet12(ways: int, image_shape: tuple[int, int, int], channels: int, norm: str) -> Network:
    return ResNet12(ways=ways, image_shape=image_shape, channels=channels, norm=norm)


def _sine(ways: int, image_shape: tuple[int, int, int], channels: int, norm: str) -> Network:
    if norm != "batch":
        raise UserError(f"sine-mlp normalises nothing: leave norm at its default, batch; got {norm!r}")
    return SineMLP(hidden=channels)


NETWORKS: dict[str, Callable[[int, tuple[int, int, int], int, str], Network]] = {
    "cnn4": _cnn4,
    "cnn2": _cnn2,
    "resnet12": _resnet12,
    "sine-mlp": _sine,
}


def available() -> list[str]:
    """Names of the networks."""
    return list(NETWORKS)


def create(
    name: str,
    ways: int = 5,
    image_shape: tuple[int, int, int] = (1, 28, 28),
    channels: int = 32,
    norm: str = "batch",
) -> Network:
    """The network called `name`, with fresh parameters from torch's global generator.

    Images [N, *image_shape] → logits [N, ways]; ``sine-mlp``: [N, 1] → [N, 1]. `channels` is the width of every layer
    (of the first of four stages in ``resnet12``).

    Raises
    ------
    UserError: a name or norm that there is none of, images too small for the network, a norm on ``sine-mlp``.
    """
    if name not in NETWORKS:
        raise UserError(f"no network {name!r}{nearest(name, NETWORKS)}; expected one of {', '.join(NETWORKS)}")
    if norm not in NORMS:
        raise UserError(f"no norm {norm!r}{nearest(norm, NORMS)}; expected one of {', '.join(NORMS)}")
    return NETWORKS[name](ways, image_shape, channels, norm)
