"""Results on disk: whole or not at all, damage found, foreign files refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmark.errors import UserError
from benchmark.files import write_atomic
from benchmark.runs import checkpoints, store
from benchmark.runs.directory import RunDirectory, is_alive
from benchmark.spec import RunSpec

PAYLOAD = {"iteration": 3, "weights": torch.arange(500.0), "nested": {"losses": [0.5, float("nan")]}}


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoints.write_checkpoint(path, PAYLOAD)
    payload, remark = checkpoints.read_latest_checkpoint(path)
    assert payload is not None
    assert torch.equal(payload["weights"], PAYLOAD["weights"])
    assert payload["iteration"] == 3
    assert remark == ""


def _damage(data: bytes, how: str) -> bytes:
    if how == "bit":  # in the middle of the tensor's bytes
        at = data.index(PAYLOAD["weights"].numpy().tobytes()) + 1000
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    return data[: {"empty": 0, "one": 1, "half": len(data) // 2, "all but one": len(data) - 1}[how]]


@pytest.mark.parametrize("how", ["empty", "one", "half", "all but one", "bit"])
def test_damage_is_found_and_the_previous_checkpoint_serves(tmp_path: Path, how: str) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoints.write_checkpoint(path, PAYLOAD | {"iteration": 2})
    checkpoints.write_checkpoint(path, PAYLOAD)
    path.write_bytes(_damage(path.read_bytes(), how))
    payload, remark = checkpoints.read_latest_checkpoint(path)
    assert payload is not None
    assert payload["iteration"] == 2
    assert "checkpoint.pt" in remark

    previous = tmp_path / "checkpoint.prev.pt"
    previous.write_bytes(_damage(previous.read_bytes(), how))
    with pytest.raises(UserError, match="delete the run's directory"):
        checkpoints.read_latest_checkpoint(path)


def test_a_run_that_goes_on_elsewhere_says_what_else_made_it(tmp_path: Path) -> None:
    spec, here = RunSpec(), {"device": "cpu (a)", "torch": "2.1", "threads": 1, "started": "then", "dataset_hash": "f"}
    with RunDirectory(tmp_path, spec).claim(here, ["then"]) as _:
        pass
    directory = RunDirectory(tmp_path, spec)
    there = here | {"device": "cuda (b)", "started": "now"}
    with directory.claim(there, ["now"]):  # nothing was computed by then
        directory.set_status("interrupted", iteration=5)
    for _ in range(2):  # the second time nothing is new
        with RunDirectory(tmp_path, spec).claim(there, ["now"]):
            pass
    directory = RunDirectory(tmp_path, spec)
    with directory.claim(here, ["back"]):
        directory.set_status("finished", iteration=9)
    with RunDirectory(tmp_path, spec).claim(there, ["late"]):  # it has its result
        pass
    run = store.load_run(directory.path)
    assert run.command == ["then"]
    assert run.environment == here | {
        "continued": [
            {"after": 5, "started": "now", "device": "cuda (b)"},
            {"after": 5, "started": "then", "device": "cpu (a)"},
        ]
    }


def test_killed_between_the_two_renames_the_previous_checkpoint_serves(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoints.write_checkpoint(path, PAYLOAD)
    path.rename(tmp_path / "checkpoint.prev.pt")
    payload, _ = checkpoints.read_latest_checkpoint(path)
    assert payload is not None


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def test_malicious_checkpoint_runs_nothing(tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "checkpoint.pt"
    checkpoints.write_checkpoint(path, {"x": _Evil(marker)})  # with a valid hash: only the unpickler stands in its way
    with pytest.raises(UserError, match="more than tensors"):
        checkpoints.read_checkpoint(path)
    path.write_bytes(pickle.dumps(_Evil(marker)))
    with pytest.raises(UserError, match="not a checkpoint of this benchmark"):
        checkpoints.read_checkpoint(path)
    assert not marker.exists()


def test_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"table.csv: cannot be written \(No space left on device\)"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["table.csv"]


def test_run_directory_round_trip_and_lock(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, RunSpec())
    assert directory.run() is None
    with directory.claim({"torch": "x"}, ["python"]):
        assert is_alive(directory.path)
        with (
            pytest.raises(UserError, match="being run by another process"),
            RunDirectory(tmp_path, RunSpec()).claim({}, [], patience_s=0.1),
        ):
            pass
        directory.write_table("evaluation", pd.DataFrame({"task": [0], "accuracy": [0.1], "nll": [2.0]}))
        directory.set_status("running", iteration=1)
        assert store.load_runs(tmp_path)[0].evaluation is None
        directory.set_status("finished")
    assert not is_alive(directory.path)
    (run,) = store.load_runs(tmp_path)
    assert run.spec == RunSpec().to_dict()
    assert run.status["iteration"] == 1
    assert run.evaluation is not None
    assert run.evaluation["accuracy"].tolist() == [0.1]


def test_a_run_keeps_the_card_of_its_method(tmp_path: Path) -> None:
    card = {"title": "ECML", "reconstructed": True}
    directory = RunDirectory(tmp_path, RunSpec(method="ecml"))
    with directory.claim({}, [], card=card):
        directory.set_status("running")
    assert store.load_run(directory.path).card == card
    document = json.loads((directory.path / "spec.json").read_text())
    for odd in ([], {"title": 1}, {"title": "x", "reconstructed": "no"}):
        (directory.path / "spec.json").write_text(json.dumps(document | {"card": odd}))
        with pytest.raises(UserError, match=r"spec\.json: .*card"):
            store.load_run(directory.path)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("spec.json", "{", "not valid JSON"),
        ("spec.json", "[]", "expected a JSON object"),
        ("spec.json", json.dumps({"schema": 99}), "schema 99, expected 2"),
        ("spec.json", json.dumps({"schema": 2, "spec": {"methd": "md"}}), "did you mean 'method'"),
        ("status.json", json.dumps({"state": "fine"}), "state 'fine', expected one of"),
    ],
)
def test_foreign_files_are_refused_by_name(tmp_path: Path, file: str, text: str, says: str) -> None:
    directory = RunDirectory(tmp_path, RunSpec())
    with directory.claim({}, []):
        directory.set_status("finished")
    (directory.path / file).write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        store.load_runs(tmp_path)
    assert file in str(caught.value)


def test_missing_results_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="python -m benchmark run"):
        store.load_runs(tmp_path / "nowhere")
