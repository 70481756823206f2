"""Folders of several machines become one: the further run is kept, and what cannot both be right is refused by name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import UserError
from benchmark.report import findings
from benchmark.report.listing import readable
from benchmark.runs import merge as merging
from benchmark.runs.directory import RunDirectory
from benchmark.runs.merge import load_together, merge
from benchmark.runs.store import Run, load_runs
from tests.report.builder import build_run
from tests.robustness.helpers import TINY, execute, numbers, tiny
from tests.robustness.test_kill import StopAt
from tests.robustness.test_names import to_schema_one


def interrupted(results: Path, after: int) -> Path:
    """:data:`TINY` in `results`, stopped when it had been looked at `after` times."""
    with pytest.raises(Exception, match="interrupted"):
        execute(results, stop=StopAt(after))
    return results / TINY.name


def files(folder: Path) -> dict[str, bytes]:
    """Everything below but locks and claims, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".claim")
    }


def test_the_union_of_two_folders_is_every_run_once_with_all_its_files(tmp_path: Path) -> None:
    a, b, into = tmp_path / "a", tmp_path / "b", tmp_path / "into"
    for results, seeds in ((a, (0, 1)), (b, (1, 2))):
        for seed in seeds:
            execute(results, tiny(seed=seed))
    execute(b / "tuning", tiny(seed=3))
    before = files(a), files(b)
    merged = merge([a, b], into)
    assert sorted(merged.new) == sorted(tiny(seed=seed).name for seed in range(4))
    assert (files(a), files(b)) == before
    different = f"{tiny(seed=1).name}/"  # made twice: equal numbers at different times
    theirs = {name: data for name, data in (before[1] | before[0]).items() if not name.startswith(different)}
    assert {name: data for name, data in files(into).items() if not name.startswith(different)} == theirs
    assert numbers(into / different) == numbers(b / different)
    again = merge([a, b], into)
    assert (again.new, again.further, len(again.kept)) == ([], [], 4)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_further_one_is_kept_and_goes_on_to_the_same_numbers(
    order: tuple[int, int], unbroken: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "less", tmp_path / "more"]
    interrupted(folders[0], 2)
    interrupted(folders[1], 4)
    merge([folders[which] for which in order], tmp_path / "into")
    (run,) = load_runs(tmp_path / "into")
    reached = [load_runs(folder)[0].status["iteration"] for folder in folders]
    assert run.status["iteration"] == reached[1] > reached[0]
    assert execute(tmp_path / "into") == "finished"
    assert numbers(run.path) == numbers(unbroken)
    merged = merge([tmp_path / "into"], folders[0])  # a result is further than anything unfinished
    assert merged.further == [TINY.name]
    assert numbers(folders[0] / TINY.name) == numbers(unbroken)


def test_killed_in_a_copy_it_is_copied_again(unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    into = tmp_path / "into"
    interrupted(into, 2)
    for nth in range(1, 20):
        copied = 0

        def dies(path: Path, data: bytes, nth: int = nth) -> None:
            nonlocal copied
            copied += 1
            if copied == nth:
                raise KeyboardInterrupt
            path.write_bytes(data)

        monkeypatch.setattr("benchmark.runs.merge.write_atomic", dies)
        try:
            merge([unbroken.parent], into)
        except KeyboardInterrupt:
            (run,) = load_runs(into, tables=True)
            assert run.state != "finished"
        else:
            break
    assert nth > 5
    assert numbers(into / TINY.name) == numbers(unbroken)


def test_a_run_of_schema_one_takes_its_new_name(tmp_path: Path) -> None:
    former = to_schema_one(build_run(tmp_path / "a").path)
    build_run(tmp_path / "b", state="interrupted", status={"iteration": 5})
    (new,) = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "into").new
    (run,) = load_runs(tmp_path / "into", tables=True)
    assert (run.name, run.schema, run.state) == (new, 2, "finished")
    assert run.name != former.name


def test_a_conflict_is_refused_by_name_and_nothing_is_copied(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    one = build_run(a, mean=0.5)
    build_run(a, "md")
    build_run(b, mean=0.6)
    with pytest.raises(UserError, match=rf"nothing was merged: {one.name}: has results in .*a and .*b, with different"):
        merge([a, b], tmp_path / "into")
    assert not (tmp_path / "into").exists()
    said: list[str] = []
    assert [run.path.parent for run in load_together([a, b], said.append)] == [a, a]
    assert len(said) == 1
    assert one.name in said[0]
    assert said[0].endswith(f"; shown is that in {a}")
    with pytest.raises(UserError, match=one.name):
        load_together([b, a])


def test_runs_on_other_images_are_a_conflict_even_unfinished(tmp_path: Path) -> None:
    for name in "ab":
        build_run(tmp_path / name, state="interrupted", environment={"dataset_hash": name * 8})
    with pytest.raises(UserError, match="on different images"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "into")


def test_what_is_damaged_or_being_run_is_named_and_nothing_is_copied(tmp_path: Path) -> None:
    a = tmp_path / "a"
    damaged, held = build_run(a), tiny()
    (damaged.path / "status.json").write_text("{")
    build_run(a, "md")
    with RunDirectory(a, held).claim({}, []), pytest.raises(UserError) as refused:
        merge([a], tmp_path / "into")
    assert re.search(r"status.json: not valid JSON.*; .*is being run; wait for it or stop it", str(refused.value))
    assert not (tmp_path / "into").exists()
    with pytest.raises(UserError, match="is the folder that is merged into"):
        merge([a], a / ".." / "a")
    with pytest.raises(UserError, match="no such results folder"):
        merge([tmp_path / "nowhere"], a / "b")


def test_a_run_that_ends_while_folders_are_read_is_merged_as_it_ended(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path / "a", 2)
    interrupted(tmp_path / "into", 4)
    read = merging.load_runs

    def read_while_it_ends(folder: Path, *arguments: Any, **how: Any) -> list[Run]:
        runs = read(folder, *arguments, **how)
        if folder == tmp_path / "a":
            assert execute(folder) == "finished"
        return runs

    monkeypatch.setattr(merging, "load_runs", read_while_it_ends)
    assert merge([tmp_path / "a"], tmp_path / "into").further == [TINY.name]
    assert numbers(tmp_path / "into" / TINY.name) == numbers(unbroken)


def test_what_lies_beside_runs_is_copied_once_and_another_is_said(tmp_path: Path) -> None:
    for name in "ab":
        build_run(tmp_path / name, "md" if name == "a" else "maml")
        (tmp_path / name / "tuned.json").write_text(json.dumps({"from": name}))
        for table in findings.TABLES:
            (tmp_path / name / f"{table}.csv").write_text("method,channels,image_size\nmd,64,84\n")
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "into")
    assert json.loads((tmp_path / "into" / "tuned.json").read_text()) == {"from": "a"}
    (remark,) = merged.remarks
    assert str(tmp_path / "b" / "tuned.json") in remark
    assert {path.stem for path in (tmp_path / "into").glob("*.csv")} == set(findings.TABLES)


def test_a_report_on_several_folders_has_each_run_once(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    build_run(a)
    build_run(b, "md")
    shutil.copytree(a, b, dirs_exist_ok=True)
    assert [run.spec["method"] for run in readable(a, b)] == ["maml", "md"]
    for folder, time in ((a, 3.0), (b, 5.0)):
        (folder / "timing.csv").write_text(f"method,channels,image_size,adapt_step_ms\nmd,64,84,{time}\n")
    assert findings.read(a, b).milliseconds(84, 64) == {"md": 3.0}
