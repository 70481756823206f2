"""What rank 0 alone finds out, on every rank: a file is read once, and an error is everybody's or nobody's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from benchmark.engine.group import Group
from benchmark.engine.shutdown import Interrupted
from benchmark.errors import UserError

T = TypeVar("T")


class Agreed(UserError):
    """An error of rank 0 that every rank raises together: the group is still in step."""


def agreed(group: Group, work: Callable[[], T]) -> T:
    """What rank 0's `work` returns, on every rank.

    Its :class:`UserError` becomes :class:`Agreed` on every rank, and what interrupts it interrupts every rank.
    """
    outcome: Any = None
    if group.rank == 0:
        try:
            outcome = work()
        except (UserError, Interrupted) as error:
            outcome = error
    outcome = group.broadcast(outcome)
    if isinstance(outcome, UserError):
        raise Agreed(str(outcome))
    if isinstance(outcome, Interrupted):
        raise outcome
    return outcome
