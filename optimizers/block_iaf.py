"""The blockIAF and the authors' weights under the name that scripts import them by; see :mod:`optimizers.maps`."""

from optimizers.maps.block_iaf import BlockIAF, load_released

__all__ = ["BlockIAF", "load_released"]
