"""The estimator: how one differentiates through the inner loop.

``exact`` differentiates all K inner gradients. ``truncated:L`` differentiates those of the last L steps and takes the
ones before as constants, so that φ_k still depends on φ_{k−1} by the identity of the update alone. ``first-order``
takes all as constants (first-order MAML). L = K is exact, and L = 0 is first-order.
"""

from __future__ import annotations

import re

from benchmark.errors import UserError, nearest

_FORM = re.compile(r"truncated:(0|[1-9][0-9]{0,8})")


def exact_from(estimator: str, steps: int) -> int:
    """The first of the steps k = 0 … `steps` − 1 whose inner gradient is differentiated; `steps` where none is."""
    if estimator in ("exact", "first-order"):
        return 0 if estimator == "exact" else steps
    form = _FORM.fullmatch(estimator)
    if form is None:
        raise UserError(
            f"estimator {estimator!r} is unknown{nearest(estimator, ('exact', 'first-order', 'truncated:1'))}; "
            "expected exact, first-order or truncated:L, L the number of last steps that are differentiated"
        )
    if int(form[1]) > steps:
        raise UserError(
            f"estimator {estimator!r} differentiates more steps than there are ({steps}); expected at most "
            f"truncated:{steps}, which is exact"
        )
    return steps - int(form[1])
