"""What others made is refused, naming what is wrong; nothing in it runs, and nothing leaves results/."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmark
from benchmark import data
from benchmark.cli import parser
from benchmark.engine.shutdown import Interrupted
from benchmark.errors import UserError
from benchmark.runs import checkpoints
from benchmark.runs.directory import RunDirectory
from benchmark.runs.store import load_run
from benchmark.spec import RunSpec
from tests.conftest import ROOT
from tests.report.builder import build_run
from tests.robustness.helpers import TINY, execute, state, tiny
from tests.robustness.test_kill import StopAt


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    with pytest.raises(Interrupted):
        execute(tmp_path, stop=StopAt(5))
    return tmp_path / TINY.name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "md"}, "method is 'md', not 'metasgd'"),
        ({"spec": "00000000"}, "spec is '00000000', not '"),
        ({"data": "another"}, "data is 'another', not 'formula'"),
        ({"version": "9.9"}, "version is '9.9', not '"),
        (None, "method is None, not 'metasgd'"),
    ],
)
def test_a_foreign_checkpoint_is_refused_by_the_field_that_differs(
    change: dict[str, str] | None, says: str, interrupted: Path
) -> None:
    file = interrupted / "checkpoint.pt"
    payload = checkpoints.read_checkpoint(file)
    payload["owner"] = payload["owner"] | change if change else "nobody"
    checkpoints.write_checkpoint(file, payload)
    before = file.read_bytes()
    with pytest.raises(UserError, match=says):
        execute(interrupted.parent)
    assert state(interrupted.parent) == "failed"
    assert file.read_bytes() == before


def test_a_release_with_the_same_numbers_goes_on_from_the_one_before(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "__version__", "99.0")
    execute(interrupted.parent)
    assert state(interrupted.parent) == "finished"


@pytest.mark.parametrize("key", ["losses", "meta_parameters", "meta_optimizer", "iteration"])
def test_a_checkpoint_that_does_not_fit_is_refused(key: str, interrupted: Path) -> None:
    file = interrupted / "checkpoint.pt"
    payload = checkpoints.read_checkpoint(file)
    payload[key] = {"other": torch.zeros(1)}
    checkpoints.write_checkpoint(file, payload)
    with pytest.raises(UserError, match="checkpoint"):
        execute(interrupted.parent)
    assert state(interrupted.parent) == "failed"


def test_a_checkpoint_of_another_format_is_refused(interrupted: Path) -> None:
    for file in interrupted.glob("checkpoint*.pt"):
        file.write_bytes(file.read_bytes().replace(b"checkpoint 1\n", b"checkpoint 2\n"))
    with pytest.raises(UserError, match="another version of its format"):
        execute(interrupted.parent)


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def torch_bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_a_malicious_checkpoint_is_refused_and_nothing_runs(interrupted: Path) -> None:
    marker = interrupted / "ran"
    for body in (pickle.dumps(Evil(marker)), torch_bytes(Evil(marker)), torch_bytes({"iteration": Evil(marker)})):
        for content in (body, checkpoints.MAGIC + hashlib.sha256(body).digest() + body):
            for file in interrupted.glob("checkpoint*.pt"):
                file.write_bytes(content)
            with pytest.raises(UserError, match=r"refused|not a checkpoint"):
                execute(interrupted.parent)
            assert not marker.exists()


def test_a_malicious_data_file_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    """Imports of pickles have tests of their own beside the importers; this is the file that training reads."""
    images = np.random.default_rng(0).integers(0, 255, (12, 4, 8, 8, 3), dtype=np.uint8)
    folder = tmp_path / "set"
    for name, pictures in zip("abcdefghijkl", images, strict=True):
        (folder / name).mkdir(parents=True)
        for number, picture in enumerate(pictures):
            from PIL import Image

            Image.fromarray(picture).save(folder / name / f"{number}.png")
    data.import_dataset("mine", folder, tmp_path / "root")
    (array,) = (tmp_path / "root" / "mine").glob("*.npy")
    size, marker = array.stat().st_size, tmp_path / "ran"
    evil = np.empty(1, object)
    evil[0] = Evil(marker)
    buffer = io.BytesIO()
    np.save(buffer, evil, allow_pickle=True)
    for content in (buffer.getvalue(), buffer.getvalue().ljust(size, b"\0"), pickle.dumps(Evil(marker)).ljust(size)):
        array.write_bytes(content)
        with pytest.raises(UserError, match="missing or damaged"):
            data.load("mine", tmp_path / "root")
    assert not marker.exists()


SERIALIZERS = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
ALLOWED = {
    ("benchmark/engine/parallel.py", "pickle"),  # between a process and the workers that it started
    ("benchmark/data/importing/unpickle.py", "pickle"),  # an unpickler that admits plain data alone
}


def test_no_code_unpickles_what_it_did_not_make() -> None:
    """Every torch.load says weights_only=True, every np.load allow_pickle=False, and pickle is in its known places."""
    for path in [*ROOT.glob("benchmark/**/*.py"), *ROOT.glob("optimizers/**/*.py")]:
        where = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
                for name in names:
                    if name.split(".")[0] in SERIALIZERS:
                        assert (where, name) in ALLOWED, f"{where}:{node.lineno} imports {name}"
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {each.arg: ast.unparse(each.value) for each in node.keywords}
            if called == "torch.load":
                assert given.get("weights_only") == "True", f"{where}:{node.lineno}"
            if called in ("np.load", "numpy.load"):
                assert given.get("allow_pickle") == "False", f"{where}:{node.lineno}"
            assert called not in ("eval", "exec", "os.system", "pd.read_pickle"), f"{where}:{node.lineno}"
            assert given.get("shell") != "True", f"{where}:{node.lineno}"


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "..", "evil", "", None, 3])
def test_a_spec_that_names_another_place_is_refused(name: object, unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken, tmp_path / TINY.name)
    file = tmp_path / TINY.name / "spec.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"name": name}))
    with pytest.raises(UserError, match=r"spec\.json: is not of"):
        load_run(file.parent)


def test_a_renamed_run_is_refused(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken, tmp_path / "mine")
    with pytest.raises(UserError, match="cannot be renamed"):
        load_run(tmp_path / "mine")


@pytest.mark.parametrize("hostile", ["../../evil", "/etc/passwd", "..", ".", "~/x", "a\0b", "c:\\x\\..\\y", "x" * 5000])
def test_no_data_set_or_method_leads_out_of_results(hostile: str, tmp_path: Path) -> None:
    for spec in (RunSpec(dataset=hostile), RunSpec(method=hostile)):
        path = RunDirectory(tmp_path, spec).path
        assert path.resolve().parent == tmp_path.resolve()
        assert len(path.name) < 200


def test_a_link_in_place_of_a_run_is_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / TINY.name).symlink_to(outside)
    with pytest.raises(UserError, match="is a link"):
        execute(tmp_path / "results")
    assert not list(outside.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 3}, {"schema": None}, {"schema": "1"}, {"spec": []}, {"spec": None}, {"environment": []},
        {"command": "rm"}, {"command": [1]},
    ],
)  # fmt: skip
def test_a_foreign_spec_is_refused_by_its_field(change: dict, unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken, tmp_path / TINY.name)
    file = tmp_path / TINY.name / "spec.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=next(iter(change))):
        load_run(file.parent)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "fine"}, {"state": None}, {"iteration": "many"}, {"iteration": -1}, {"iteration": True},
        {"best_score": "x"}, {"wall_s": 3}, {"wall_s": {"train": "x"}}, {"message": 3}, {"updated": {}},
        {"sha256": []}, {"sha256": {"evaluation.csv": 1}},
    ],
)  # fmt: skip
def test_a_foreign_status_is_refused_by_its_field(change: dict, unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken, tmp_path / TINY.name)
    file = tmp_path / TINY.name / "status.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=rf"status\.json: {next(iter(change))}"):
        load_run(file.parent)


def test_text_from_files_is_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the terminal; the page has a test of its own beside the report."""
    message = "[/red] [link=x]<b>[bold red]"
    build_run(tmp_path, state="failed", status={"message": message, "updated": "[/x]"}, dataset="[red]/[/red]")
    assert parser.main(["status", "--results", str(tmp_path)]) == 0
    assert message in capsys.readouterr().out
    assert parser.main(["list", "runs", "--results", str(tmp_path)]) == 0


def test_a_run_of_another_spec_under_the_same_name_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight hex digits may clash."""
    execute(tmp_path)
    monkeypatch.setattr(RunSpec, "name", TINY.name)
    with (
        pytest.raises(UserError, match="another spec with the same name"),
        RunDirectory(tmp_path, tiny(seed=1)).claim({}, []),
    ):
        pass
