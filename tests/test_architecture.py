"""The arrows between rooms point one way, and no two files import each other, not even inside a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT


def modules() -> dict[str, Path]:
    """Every module of the two packages by its dotted name."""
    found = {}
    for package in ("benchmark", "optimizers"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports when it runs; what only a type checker sees is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        yield from imports(node)


GRAPH = {
    name: {target for target in imports(ast.parse(path.read_text(encoding="utf-8"))) if target in MODULES} - {name}
    for name, path in MODULES.items()
}


def test_no_circle_of_imports() -> None:
    done: set[str] = set()
    way: list[str] = []

    def visit(name: str) -> None:
        assert name not in way, " → ".join([*way[way.index(name) :], name])
        if name in done:
            return
        way.append(name)
        for target in sorted(GRAPH[name]):
            visit(target)
        done.add(way.pop())

    for name in GRAPH:
        visit(name)


def room(name: str) -> str:
    """The room of a module: its folder, or for a file that stands in the open its own name."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "benchmark" else "optimizers"


SCIENCE = {f"benchmark.{name}" for name in ("adapt", "metagrad", "train", "evaluate")}
FORBIDDEN = {
    "optimizers": {"benchmark"},
    "benchmark.engine": SCIENCE | {f"benchmark.{name}" for name in ("runs", "cli", "report", "data")},
    "benchmark.data": {"optimizers", *SCIENCE, *(f"benchmark.{name}" for name in ("engine", "runs", "cli", "report"))},
    "benchmark.adapt": SCIENCE - {"benchmark.adapt"} | {"benchmark.runs", "benchmark.cli"},
    "benchmark.metagrad": {"benchmark.train", "benchmark.evaluate", "benchmark.runs", "benchmark.cli"},
    "benchmark.train": {"benchmark.runs", "benchmark.cli", "benchmark.report"},
    "benchmark.evaluate": {"benchmark.train", "benchmark.runs", "benchmark.cli", "benchmark.report"},
    "benchmark.report": {"optimizers", *SCIENCE, "benchmark.engine", "benchmark.cli"},
    "benchmark.runs": {"benchmark.cli"},
    "benchmark.verify": {"benchmark.cli"},
    "benchmark.timing": {"benchmark.cli"},
}
"""What each room must not know."""


def test_arrows_point_one_way() -> None:
    wrong = []
    for name, targets in GRAPH.items():
        for target in targets:
            barred = FORBIDDEN.get(room(name), set())
            if room(target) in barred or target.split(".")[0] in barred:
                wrong.append(f"{name} → {target}")
    assert not wrong, "\n".join(sorted(wrong))


def test_the_walk_sees_lazy_imports() -> None:
    tree = ast.parse("def f():\n    from benchmark import train\nif TYPE_CHECKING:\n    import benchmark.spec\n")
    assert list(imports(tree)) == ["benchmark.train"]
