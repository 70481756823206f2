"""The authors' weights into this suite's blockIAF.

The released class keeps a small MLP for every tensor where :class:`~optimizers.maps.block_iaf.BlockIAF` keeps stacks,
and names them after the tensors, dots replaced by underscores (⟨t⟩ below; B one block)::

    layer_encoders.⟨t⟩.mlp.⟨i⟩.weights.⟨mode⟩ [out, in], .bias        blocks 1 … last but one
    layer_decoders.⟨t⟩.mlp.⟨i⟩.weights.⟨mode⟩ [out, in], .bias        blocks 2 … last
    layer_decoders.⟨t⟩.log_scale.0.weights.⟨mode⟩, .bias; .shift.0.…
    blk_IARs.⟨names of B joined⟩.log_weight, .bias                    block 1, its tensors flattened in order
    blk_IARs.⟨names of B joined⟩.weight, .bias                        the link of every other block

⟨i⟩ counts activations and reshapes too: an encoder of a convolution weight begins with the reshape to three modes, a
decoder with a ReLU.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from optimizers.errors import Misfit

if TYPE_CHECKING:
    from optimizers.maps.block_iaf import BlockIAF


@torch.no_grad()
def load_released(map: BlockIAF, state_dict: Mapping[str, Tensor]) -> None:
    """Copy the state dict of the released blockIAF into `map`, whatever its width.

    The tensors of the two networks are matched in order, weight to weight and bias to bias, so that their layers may
    have other names. :class:`~optimizers.errors.Misfit`, and an unchanged map, where a key is missing or left over or
    a shape differs.
    """
    places = dict(_places(map, _released_names(map, state_dict), state_dict))
    missing = [key for key in places if key not in state_dict]
    if missing:
        raise Misfit(f"the state dict does not fit this map: it has no {missing[0]}{_more(missing)}")
    unknown = [key for key in state_dict if key not in places]
    if unknown:
        raise Misfit(f"the state dict does not fit this map, which has no place for its {unknown[0]}{_more(unknown)}")
    for key, target in places.items():
        found, expected = tuple(state_dict[key].shape), tuple(_joined(target).shape)
        if found != expected:
            raise Misfit(f"the state dict does not fit this map: {key} is {found}, expected {expected}")
    for key, target in places.items():
        value = state_dict[key]
        if isinstance(target, Tensor):
            target.copy_(value)
        else:
            for part, piece in zip(target, value.split([part.numel() for part in target]), strict=True):
                part.copy_(piece.view_as(part))


def _joined(target: Tensor | list[Tensor]) -> Tensor:
    return target if isinstance(target, Tensor) else torch.cat([part.flatten() for part in target])


def _more(keys: list[str]) -> str:
    return f" and {len(keys) - 1} more" if len(keys) > 1 else ""


def _released_names(map: BlockIAF, state_dict: Mapping[str, Tensor]) -> dict[str, str]:
    """What the released class calls each tensor of the map."""
    order = [name for block in map.blocks for name in block]
    found = re.findall(r"^layer_(?:encoders|decoders)\.([^.]+)\.", "\n".join(state_dict), re.MULTILINE)
    theirs = list(dict.fromkeys(found)) or [name.replace(".", "_") for name in order]  # one block: neither is there
    kinds = [[re.split(r"[._]", name)[-1] for name in names] for names in (order, theirs)]
    if kinds[0] != kinds[1]:
        raise Misfit(
            f"the state dict does not fit this map: it is of {len(theirs)} tensors ({_ends(theirs)}), "
            f"the map of {len(order)} ({_ends(order)})"
        )
    return dict(zip(order, theirs, strict=True))


def _ends(names: list[str]) -> str:
    return f"{names[0]} … {names[-1]}"


def _places(
    map: BlockIAF, theirs: Mapping[str, str], state_dict: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor | list[Tensor]]]:
    """(released key, where it belongs): a view of one parameter, or the views of a block's tensors in order."""
    joined = {_letters(key.split(".")[1]): key.split(".")[1] for key in state_dict if key.startswith("blk_IARs.")}
    blocks = ["-".join(theirs[name] for name in block) for block in map.blocks]
    keys = [f"blk_IARs.{joined.get(_letters(name), name)}" for name in blocks]
    scale: dict[str, Tensor] = {}
    shift: dict[str, Tensor] = {}
    for i, g in enumerate(map.groups):
        first, coded = map.first[i], map.coded[i]
        for row, name in enumerate(g.names):
            reshaped = len(g.shapes[row]) > len(g.modes)
            if row < first:
                scale[name], shift[name] = map.first_scale[str(i)][row], map.first_shift[str(i)][row]
            if row < coded:
                prefix = f"layer_encoders.{theirs[name]}.mlp"
                for depth, layer in enumerate(map.encoders[str(i)].layers):  # type: ignore[arg-type,union-attr]
                    yield from _layer(f"{prefix}.{reshaped + 2 * depth}", layer, row)
            if row >= first:
                at, prefix = row - first, f"layer_decoders.{theirs[name]}"
                for depth, layer in enumerate(map.decoders[str(i)].layers):  # type: ignore[arg-type,union-attr]
                    yield from _layer(f"{prefix}.mlp.{1 + 2 * depth}", layer, at)
                heads = map.heads[str(i)]
                yield from _layer(f"{prefix}.log_scale.0", heads, at)
                yield from _layer(f"{prefix}.shift.0", heads, len(g) - first + at)
    yield f"{keys[0]}.log_weight", [scale[name] for name in map.blocks[0]]
    yield f"{keys[0]}.bias", [shift[name] for name in map.blocks[0]]
    for key, link in zip(keys[1:], map.links, strict=True):
        yield f"{key}.weight", link.weight  # type: ignore[misc]
        yield f"{key}.bias", link.bias  # type: ignore[misc]


def _layer(prefix: str, layer: torch.nn.Module, row: int) -> Iterator[tuple[str, Tensor]]:
    for mode, weight in enumerate(layer.weight):  # type: ignore[arg-type]
        yield f"{prefix}.weights.{mode}", weight[row]
    yield f"{prefix}.bias", layer.bias[row]  # type: ignore[index]


def _letters(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z]", "", name)
