"""Whatever comes in, nothing but the documented error comes out."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from benchmark import data
from benchmark.cli import parser
from benchmark.errors import UserError
from benchmark.report.terminal import print_table
from benchmark.runs import checkpoints
from benchmark.runs.store import load_run, load_runs
from benchmark.spec import RunSpec
from tests.report.builder import build_run

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
KNOBS = list(RunSpec().to_dict())
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([0, 1, -1, 2**63, 2**64, 10**400, 1e308, 5e-324, float("inf"), "", "\0", "\ud800", "../x"])
)  # fmt: skip
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@contextlib.contextmanager
def only_user_errors() -> Iterator[None]:
    """The one line that a user may see."""
    said = "a line"
    try:
        yield
    except UserError as error:
        said = str(error)
    assert said
    assert "\n" not in said


@FEW
@given(st.dictionaries(st.sampled_from(KNOBS) | st.text(max_size=8), JSON, max_size=5) | JSON)
@example({"seed": 10**400})
@example({"shots": 10**4000})
@example({"alpha": 10**400})
@example({"options": {"x": float("nan")}})
@example({"options": {"x": 10**4000}})
def test_specs(values: Any) -> None:
    with only_user_errors():
        spec = RunSpec.from_dict(values)
        assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
        assert 0 < len(spec.name) < 200
        assert Path("results", spec.name).parent == Path("results")
        assert spec.name == spec.name.encode("ascii").decode()


def damaged(data_: bytes, edits: list[tuple[int, int]], end: int) -> bytes:
    """`data_` with some bytes replaced, cut at `end` (from the back)."""
    changed = bytearray(data_)
    for place, value in edits:
        changed[place % len(changed)] = value
    return bytes(changed[: len(changed) - end % len(changed)])


EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8)
ENDS = st.just(0) | st.integers(0, 10**6)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("fuzz"), tasks=6, trace_steps=5, iterations=100).path


@contextlib.contextmanager
def copied(original: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(original, Path(folder) / original.name))


def look(results: Path) -> None:
    """What a person does with a results folder. Nothing may be hidden: a run is shown, or named as left out."""
    reasons: list[str] = []
    runs = load_runs(results, reasons.append, tables=True)
    assert len(runs) + len(reasons) == 1
    print_table(runs, Console(file=io.StringIO(), width=100))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as shown:
        assert parser.main(["status", "--results", str(results)]) in (0, 2)
        assert parser.main(["list", "runs", "--results", str(results)]) in (0, 2)
    assert "Traceback" not in shown.getvalue()


@FEW
@given(
    st.sampled_from(["spec.json", "status.json"]), st.lists(st.tuples(st.integers(0, 40), JSON), min_size=1, max_size=3)
)
def test_records_with_other_values(original: Path, name: str, changes: list[tuple[int, Any]]) -> None:
    with copied(original) as run:
        document = json.loads((run / name).read_text())
        for place, value in changes:
            spec = document.get("spec")
            where = spec if isinstance(spec, dict) and spec and place % 2 else document
            where[list(where)[place % len(where)]] = value
        try:
            text = json.dumps(document)
        except (ValueError, UnicodeEncodeError):  # numbers too long to be written
            assume(False)
        (run / name).write_text(text)
        look(run.parent)


@FEW
@given(
    st.sampled_from(["spec.json", "status.json", "evaluation.csv", "training.csv", "validation.csv"]),
    st.binary(max_size=60) | st.none(), EDITS, ENDS,
)  # fmt: skip
@example("spec.json", b"[" * 100_000, [], 0)
@example("status.json", b'{"state": "finished", "iteration": 1e999}', [], 0)
@example("evaluation.csv", b"task,accuracy,nll\n1,2,3,4\n", [], 0)
@example("evaluation.csv", b"task,accuracy,nll\n", [], 0)
@example("evaluation.csv", b"task,task,accuracy,nll\n1,1,1,1\n", [], 0)
@example("evaluation.csv", b'task,accuracy,nll\n"', [], 0)
@example("evaluation.csv", b"\xff\xfe", [], 0)
@example("evaluation.csv", b"task,accuracy,nll\n99999999999999999999999999,1,1\n", [], 0)
def test_files_of_any_bytes(original: Path, name: str, whole: bytes | None, edits: list, end: int) -> None:
    with copied(original) as run:
        (run / name).write_bytes(damaged((run / name).read_bytes(), edits, end) if whole is None else whole)
        look(run.parent)


NUMBERS = st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, 2.0, 1e308, -1e308, 5e-324, np.inf, -np.inf, np.nan])


@FEW
@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5))
@example([(0.5, 3e38, -3e38), (np.nan, np.inf, np.nan)])
def test_tables_of_extreme_numbers(original: Path, rows: list[tuple[float, float, float]]) -> None:
    with copied(original) as run:
        table = pd.DataFrame(rows, columns=["accuracy", "nll", "support_nll_0"])
        table.insert(0, "task", range(len(rows)))
        table.to_csv(run / "evaluation.csv", index=False)
        look(run.parent)


@FEW
@given(st.binary(max_size=100) | st.none(), EDITS, ENDS)
def test_checkpoints(unbroken: Path, whole: bytes | None, edits: list, end: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, good = Path(folder) / "checkpoint.pt", (unbroken / "checkpoint.pt").read_bytes()
        path.write_bytes(damaged(good, edits, end) if whole is None else whole)
        with only_user_errors():
            checkpoints.read_checkpoint(path)
            assert path.read_bytes() == good, "damage was not found"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small data set in every form of archive."""
    folder = tmp_path_factory.mktemp("archives")
    random = np.random.default_rng(0)
    for name in "abcdef":
        (folder / "set" / name).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "set" / name / f"{number}.png")
    made = {}
    for form in ("zip", "tar", "gztar", "xztar"):
        path = Path(shutil.make_archive(str(folder / "set"), form, folder, "set"))
        made[path.name] = path.read_bytes()
    return made


@settings(FEW, max_examples=40)
@given(
    st.sampled_from(["set.zip", "set.tar", "set.tar.gz", "set.tar.xz"]), st.binary(max_size=60) | st.none(), EDITS, ENDS
)
def test_archives(archives: dict[str, bytes], name: str, whole: bytes | None, edits: list, end: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, root = Path(folder) / name, Path(folder) / "root"
        path.write_bytes(damaged(archives[name], edits, end) if whole is None else whole)
        with only_user_errors():
            data.import_dataset("mine", path, root)
            assert data.load("mine", root).images.dtype == np.uint8
        assert {each.name for each in Path(folder).iterdir()} <= {name, "root"}


FLAGS = [f"--{name.replace('_', '-')}" for name in KNOBS if name not in ("method", "options", "seed")] + [
    "--seeds", "--preset", "--option", "--strategy", "--workers", "--device", "--nonsense",
]  # fmt: skip
WORDS = st.sampled_from(
    ["0", "-1", "1e400", "nan", "inf", "", "x", "1,2", "99999999999999999999", "md.x=1", "a=b", "\x1b[31m"]
)


@settings(FEW, max_examples=40)
@given(
    st.sampled_from(["md", "maml,metasgd", "", ",", "all", "x"]),
    st.dictionaries(st.sampled_from(FLAGS), WORDS, max_size=3),
)
def test_command_lines(methods: str, flags: dict[str, str]) -> None:
    line = ["run", "--methods", methods, "--dry-run", *(f"{flag}={value}" for flag, value in flags.items())]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as shown:
        status = parser.main([*line, "--results", "/nonexistent/results"])
    assert status in (0, 2)
    if status:
        assert shown.getvalue().startswith("error: ")
        assert shown.getvalue().count("\n") == 1


def test_a_run_that_is_read_is_what_was_written(original: Path) -> None:
    """The fuzzed copies differ from this."""
    run = load_run(original)
    run.check_tables()
    assert run.evaluation is not None
    assert len(run.evaluation) == 6
