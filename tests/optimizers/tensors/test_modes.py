"""Tensors of one shape, stacked and split again."""

import torch

from optimizers.tensors.modes import group_by_modes, modes


def test_groups_by_modes_and_splits_back():
    shapes = {"a": (4, 3, 3, 3), "b": (4,), "c": (4, 3, 9), "d": (), "e": (4,), "f": (2, 5)}
    groups = group_by_modes(list(shapes), shapes)
    assert [g.names for g in groups] == [("a", "c"), ("b", "e"), ("d",), ("f",)]
    assert [g.modes for g in groups] == [(4, 3, 9), (4,), (1,), (2, 5)]
    values = {name: torch.randn(shape) for name, shape in shapes.items()}
    back = {}
    for g in groups:
        assert g.stack(values).shape == (len(g), *g.modes)
        back |= g.split(g.stack(values))
    for name, value in values.items():
        assert torch.equal(back[name], value)
    assert modes((2, 3, 4, 5)) == (2, 3, 20)
