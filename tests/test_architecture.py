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


SCIENCE = {
    f"benchmark.{name}"
    for name in ("tasks", "adapt", "metagrad", "meta_optimizer", "training_state", "train", "evaluate")
}
FORBIDDEN = {
    "optimizers": {"benchmark"},
    "benchmark.engine": SCIENCE | {f"benchmark.{name}" for name in ("runs", "cli", "report", "data")},
    "benchmark.data": {"optimizers", *SCIENCE, *(f"benchmark.{name}" for name in ("engine", "runs", "cli", "report"))},
    "benchmark.tasks": SCIENCE - {"benchmark.tasks"} | {"benchmark.runs", "benchmark.cli", "benchmark.report"},
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


FILES_OF_THE_SCIENCE = {
    f"benchmark.{name}"
    for name in (
        *("spec", "recipes", "networks", "tasks", "adapt", "metagrad"),
        *("meta_optimizer", "training_state", "train", "evaluate", "statistics"),
    )
}
MOST_PARAMETERS = 6
LONGER = {"benchmark.metagrad.meta_gradient": 8}
"""Functions that take more, and how many: none may be added, and one that was mended is struck off.

``meta_gradient`` is a stable name whose six knobs users write by hand; noise and progress come from the harness alone.
"""


def parameters(tree: ast.AST, name: str, in_class: bool = False) -> Iterator[tuple[str, int]]:
    """Every function below `tree` by its dotted name, with the number of its parameters but ``self`` or ``cls``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            of, own = node.args, f"{name}.{node.name}"
            count = len([*of.posonlyargs, *of.args, *of.kwonlyargs]) + sum(a is not None for a in (of.vararg, of.kwarg))
            static = any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list)
            yield own, count - (in_class and not static)
            yield from parameters(node, own)
        elif isinstance(node, ast.ClassDef):
            yield from parameters(node, f"{name}.{node.name}", in_class=True)
        else:
            yield from parameters(node, name, in_class)


def test_no_function_of_the_science_takes_more_than_six_parameters() -> None:
    assert MODULES.keys() >= FILES_OF_THE_SCIENCE
    found = [
        (own, count)
        for name in FILES_OF_THE_SCIENCE
        for own, count in parameters(ast.parse(MODULES[name].read_text(encoding="utf-8")), name)
    ]
    longest = sorted(((own, count) for own, count in found if count > MOST_PARAMETERS), key=lambda each: -each[1])
    assert dict(longest) == LONGER, f"the longest parameter list: {longest[0] if longest else None}"


def test_the_count_sees_methods_keywords_and_what_is_nested() -> None:
    tree = ast.parse(
        "class A:\n"
        "    def f(self, a, /, b, *c, d, **e):\n"
        "        def g(h, *, i): ...\n"
        "    @staticmethod\n"
        "    def j(k): ...\n"
        "if True:\n"
        "    def l(m): ...\n"
    )
    assert dict(parameters(tree, "x")) == {"x.A.f": 5, "x.A.f.g": 2, "x.A.j": 1, "x.l": 1}


def test_one_meaning_a_name() -> None:
    """No two classes of the two packages share a name."""
    found: dict[str, str] = {}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                assert found.setdefault(node.name, module) == module, node.name
