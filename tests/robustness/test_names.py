"""Names of runs outlive new knobs, and what schema 1 named is found, read and gone on with."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmark.engine.shutdown import Interrupted
from benchmark.errors import UserError
from benchmark.runs import checkpoints, stages, store
from benchmark.runs import directory as directory_module
from benchmark.runs import run as runner
from benchmark.runs.directory import RunDirectory
from benchmark.runs.store import load_run, load_runs
from benchmark.spec import RunSpec, knob
from tests.conftest import ROOT
from tests.report.builder import build_run
from tests.robustness.helpers import TINY, execute, numbers
from tests.robustness.test_kill import StopAt

COMMITTED = sorted(path.parent for path in (ROOT / "results").glob("*/*/spec.json"))
MAML = next((ROOT / "results/reference").glob("glyphs-5way-1shot-maml-controlled-seed0-*"))
MAML_FORMER = "glyphs-5way-1shot-maml-controlled-seed0-2db4b091"
"""Its name before it was given its new one, as the history of the repository has it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wider(RunSpec):
    """The spec of a later day, with one knob more."""

    new_knob: float = knob(0.5, "added later", above=0)


def former_digest(values: dict) -> str:
    """Schema 1: the first 8 hex digits of the SHA-256 of the sorted JSON of all its 29 knobs."""
    assert len(values) == 29
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def schema_one_knobs(spec: RunSpec) -> dict:
    """The knobs of `spec` that a committed run of schema 1 had."""
    return {key: spec.to_dict()[key] for key in json.loads((MAML / "spec.json").read_text())["spec"]}


def to_schema_one(path: Path) -> Path:
    """Give a run's folder, its record, checkpoint and partial measurement the names that schema 1 gave them."""
    document = json.loads((path / "spec.json").read_text())
    spec = RunSpec.from_dict(document["spec"])
    values = schema_one_knobs(spec)
    former = path.with_name(f"{path.name.rpartition('-')[0]}-{former_digest(values)}")
    document |= {"schema": 1, "name": former.name, "spec": values}
    document.pop("sha256", None)  # schema 1 had none
    (path / "spec.json").write_text(json.dumps(document))
    trained = {key: value for key, value in values.items() if key not in ("tasks", "trace_steps")}
    for file in path.glob("checkpoint*.pt"):
        payload = checkpoints.read_checkpoint(file)
        text = json.dumps(trained, sort_keys=True).encode()
        payload["owner"]["spec"] = hashlib.sha256(text).hexdigest()[:8]
        checkpoints.write_checkpoint(file, payload)
    partial = path / "evaluation.partial.csv"
    if partial.exists():
        partial.write_bytes(partial.read_bytes().replace(spec.digest().encode(), former_digest(values).encode(), 1))
    return path.rename(former)


def test_every_committed_run_is_found_by_its_spec() -> None:
    assert len(COMMITTED) >= 49
    for path in COMMITTED:
        run = load_run(path)
        found = RunDirectory(path.parent, RunSpec.from_dict(run.spec)).run()
        assert found is not None
        assert found.path == path


def test_a_new_knob_orphans_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in COMMITTED:
        assert Wider.from_dict(json.loads((path / "spec.json").read_text())["spec"]).name == path.name
    shutil.copytree(MAML, tmp_path / MAML.name)
    before = (tmp_path / MAML.name / "spec.json").read_bytes()
    monkeypatch.setattr(store, "RunSpec", Wider)
    monkeypatch.setattr(directory_module, "RunSpec", Wider)
    (run,) = load_runs(tmp_path, tables=True)
    assert run.spec["new_knob"] == 0.5
    spec = Wider.from_dict(run.spec)
    directory = RunDirectory(tmp_path, spec)
    assert runner.due(spec, tmp_path) == "done"
    with directory.claim({}, []):
        assert directory.status["state"] == "finished"
    assert (tmp_path / MAML.name / "spec.json").read_bytes() == before
    assert runner.due(dataclasses.replace(spec, new_knob=0.25), tmp_path) == "new"


def test_a_new_knob_leaves_digests_and_a_value_of_its_own_changes_them() -> None:
    for knobs in ({}, {"alpha": 0.3, "options": {"form": "free"}}, {"iterations": 0, "tasks": 7}):
        old, new = RunSpec(**knobs), Wider(**knobs)
        assert (new.digest(), new.training_digest(), new.name) == (old.digest(), old.training_digest(), old.name)
        assert Wider(**knobs, new_knob=0.5).name == old.name
        other = Wider(**knobs, new_knob=0.25)
        assert other.name != old.name
        assert other.training_digest() != old.training_digest()


def test_a_knob_given_its_default_leaves_the_name() -> None:
    spec = RunSpec(dataset="glyphs", alpha=0.3)
    for each in dataclasses.fields(RunSpec):
        if each.name != "alpha":
            given = {"dataset": "glyphs", "alpha": 0.3, each.name: getattr(RunSpec(), each.name)}
            assert RunSpec(**given).name == spec.name, each.name


def test_a_name_is_the_hash_of_schema_and_what_was_changed() -> None:
    spec = RunSpec(method="md", alpha=0.3, options={"wake": False})
    text = json.dumps([2, {"alpha": 0.3, "method": "md", "options": {"wake": False}}], sort_keys=True)
    assert spec.name == f"glyphs-5way-1shot-md-controlled-seed0-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def test_a_run_of_schema_one_is_read_under_its_own_name(tmp_path: Path) -> None:
    shutil.copytree(MAML, tmp_path / MAML.name)
    former = to_schema_one(tmp_path / MAML.name)
    assert former.name == MAML_FORMER
    (run,) = load_runs(tmp_path, tables=True)
    assert run.name == MAML_FORMER
    assert run.spec == load_run(MAML).spec
    spec = RunSpec.from_dict(run.spec)
    assert runner.due(spec, tmp_path) == "done"
    assert runner.due(dataclasses.replace(spec, seed=1), tmp_path) == "new"
    assert runner.due(Wider(**run.spec, new_knob=0.25), tmp_path) == "new"  # schema 1 could not describe it
    assert [path.name for path in tmp_path.iterdir()] == [MAML_FORMER]  # nothing was written


@pytest.mark.parametrize("stop", [3, 8])  # in training, while measuring
def test_a_run_of_schema_one_goes_on_to_the_same_numbers(stop: int, unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        execute(tmp_path, stop=StopAt(stop))
    former = to_schema_one(tmp_path / TINY.name)
    partial = (former / "evaluation.partial.csv").exists()
    assert partial == (stop == 8)
    began = load_run(former).environment["started"]
    assert execute(tmp_path) == "finished"
    assert numbers(tmp_path / TINY.name) == numbers(unbroken)
    assert not former.exists()
    document = json.loads((tmp_path / TINY.name / "spec.json").read_text())
    assert (document["schema"], document["name"], document["spec"]) == (2, TINY.name, TINY.to_dict())
    assert document["environment"]["started"] == began


def test_a_partial_measurement_of_schema_one_is_used(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted, match="while measuring"):
        execute(tmp_path, stop=StopAt(8))
    to_schema_one(tmp_path / TINY.name)
    seen = []
    measure = stages.measure

    def spy(*args: Any, done: Any, **how: Any) -> Any:
        seen.append(done)
        return measure(*args, done=done, **how)

    monkeypatch.setattr(stages, "measure", spy)
    assert execute(tmp_path) == "finished"
    assert [done is not None and len(done) > 0 for done in seen] == [True]


def test_killed_between_new_name_and_new_record_it_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        execute(tmp_path, stop=StopAt(3))
    to_schema_one(tmp_path / TINY.name).rename(tmp_path / TINY.name)
    assert load_run(tmp_path / TINY.name).status["iteration"] > 0
    with RunDirectory(tmp_path, TINY).claim({}, []):
        assert json.loads((tmp_path / TINY.name / "spec.json").read_text())["schema"] == 2


def test_a_run_of_schema_one_that_is_being_run_keeps_its_name(tmp_path: Path) -> None:
    former = to_schema_one(build_run(tmp_path, state="interrupted").path)
    spec = RunSpec.from_dict(load_run(former).spec)
    with open(former / "run.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            pytest.raises(UserError, match="being run by another process"),
            RunDirectory(tmp_path, spec).claim({}, [], patience_s=0.1),
        ):
            pass
        assert former.exists()
    with RunDirectory(tmp_path, spec).claim({}, []):
        assert not former.exists()
        with (  # the lock came along
            pytest.raises(UserError, match="being run by another process"),
            RunDirectory(tmp_path, spec).claim({}, [], patience_s=0.1),
        ):
            pass


def test_renamed_by_another_process_while_its_lock_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = to_schema_one(build_run(tmp_path, state="interrupted").path)
    directory = RunDirectory(tmp_path, RunSpec.from_dict(load_run(former).spec))
    place, calls = directory.place, []

    def late() -> Path:
        found = place()
        calls.append(found)
        if len(calls) == 1:
            os.rename(former, directory.path)
        return found

    monkeypatch.setattr(directory, "place", late)
    with directory.claim({}, []):
        assert calls[:2] == [former, directory.path]
        assert load_run(directory.path).schema == 2


def test_a_run_under_both_names_is_counted_once(tmp_path: Path) -> None:
    run = build_run(tmp_path)
    shutil.copytree(run.path, tmp_path / "copy" / run.name)
    former = to_schema_one(tmp_path / "copy" / run.name)
    former = former.rename(tmp_path / former.name)
    said: list[str] = []
    assert [each.name for each in load_runs(tmp_path, said.append)] == [run.name]
    assert said == [f"{former}: is the run {run.name} under its former name; delete one of the two folders"]
    with pytest.raises(UserError, match="under its former name"):
        load_runs(tmp_path)


def test_a_link_under_the_former_name_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    run = build_run(tmp_path / "outside", state="interrupted")
    spec = RunSpec.from_dict(run.spec)
    former = to_schema_one(run.path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / former.name).symlink_to(former)
    with pytest.raises(UserError, match="is a link"), RunDirectory(tmp_path / "results", spec).claim({}, []):
        pass
    assert not (former / "run.lock").exists()


@pytest.mark.parametrize("change", [{"name": "x-00000000"}, {"spec": {"alpha": 0.02}}])
def test_a_changed_record_of_schema_one_is_refused(change: dict, tmp_path: Path) -> None:
    shutil.copytree(MAML, tmp_path / MAML.name)
    former = to_schema_one(tmp_path / MAML.name)
    document = json.loads((former / "spec.json").read_text())
    document |= {key: document[key] | value if isinstance(value, dict) else value for key, value in change.items()}
    (former / "spec.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="is not of"):
        load_run(former)
