"""What a part of the report is of, and by which a reader can filter: data set, number of shots, recipe."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.report.group import TableGroup


@dataclass(frozen=True)
class Scope:
    """Empty where the part is of all of them."""

    dataset: str = ""
    shots: int | None = None
    recipe: str = ""

    @classmethod
    def of(cls, group: TableGroup, shots: int | None = None) -> Scope:
        return cls(f"{group.ways}-way {group.title}", shots, group.protocol)


EVERYTHING = Scope()
