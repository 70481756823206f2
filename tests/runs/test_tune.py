"""Tuning: the same points for all, chosen by meta-validation alone, and used with a record of where they come from."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import qmc

from benchmark import recipes
from benchmark.cli.parser import main
from benchmark.data import episodes
from benchmark.errors import UserError
from benchmark.report import build
from benchmark.report import tuning as report
from benchmark.report.export import frame
from benchmark.report.group import group_runs
from benchmark.report.html.sections import tuned as tuned_section
from benchmark.runs import store, tune
from tests.report.builder import build_run
from tests.tiny_images import CLASSES, FLAGS, IMAGES, store_tiny

METHODS = ["maml", "md"]
TUNE = ["tune", "--methods", ",".join(METHODS), "--trials", "3", "--iterations", "2", *FLAGS]
RUN = ["run", "--iterations", "1", "--tasks", "5", *FLAGS, "--recipe", "tuned"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    store_tiny(root)
    store_tiny(root, test="poisoned", name="other")
    return root


@pytest.fixture(scope="module")
def tuned(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("tuned")
    assert main([*TUNE, "--data-root", str(root), "--results", str(results)]) == 0
    return results


def test_points_are_scrambled_sobol_numbers_spread_over_the_logarithms() -> None:
    unit = qmc.Sobol(3, scramble=True, seed=np.random.default_rng(7)).random(8)
    low, high = np.array([0.01, 3e-4, 0.1]), np.array([0.5, 3e-3, 10.0])
    expected = np.exp(np.log(low) + unit * np.log(high / low))
    drawn = tune.points(8, 7)
    assert list(drawn[0]) == ["alpha", "meta_lr", "geometry_lr"]
    assert np.array([list(point.values()) for point in drawn]) == pytest.approx(expected, rel=6e-4)
    assert all(float(f"{value:.4g}") == value for point in drawn for value in point.values())
    assert tune.points(5, 7) == drawn[:5]
    assert tune.points(8, 8) != drawn


def test_every_method_meets_the_same_points_in_runs_without_test_tasks(tuned: Path) -> None:
    runs = store.load_runs(tuned, tables=True)
    points = {
        method: {tuple(run.spec[name] for name in tune.SPACE) for run in runs if run.spec["method"] == method}
        for method in METHODS
    }
    assert points["maml"] == points["md"] == {tuple(point.values()) for point in tune.points(3, 0)}
    assert len(runs) == 6
    for run in runs:
        assert (run.state, run.spec["tasks"], run.spec["recipe"]) == ("finished", 0, "controlled")
        assert run.evaluation is None
        assert not (run.path / "evaluation.csv").exists()
        assert run.validation is not None
        assert run.validation["iteration"].tolist() == [1, 2]


def test_the_best_validation_is_chosen_and_written_down(tuned: Path) -> None:
    table = pd.read_csv(tuned / "tuning.csv")
    document = json.loads((tuned / "tuned.json").read_text())
    assert table["method"].tolist() == ["maml"] * 3 + ["md"] * 3
    assert table["trial"].tolist() == [0, 1, 2] * 2
    for method, trials in table.groupby("method"):
        best = {run: float(store.load_run(tuned / run).validation["accuracy"].max()) for run in trials["run"]}
        (chosen,) = trials[trials["chosen"] == "yes"].to_dict("records")
        assert best[chosen["run"]] == max(best.values()) == pytest.approx(chosen["accuracy"])
        written = document["chosen"][method]
        assert {name: written[name] for name in tune.SPACE} == {name: chosen[name] for name in tune.SPACE}
        for name in tune.SPACE:
            ends = {"smallest": trials[name].min(), "largest": trials[name].max()}
            assert written["edge"].get(name) == next((end for end, v in ends.items() if v == chosen[name]), None)


def test_again_changes_nothing_and_another_method_joins(
    tuned: Path, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    def files() -> dict[Path, tuple[bytes, int]]:
        paths = [path for path in tuned.rglob("*") if path.is_file()]
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths if not path.name.endswith(".lock")}

    before = files()
    place = ["--data-root", str(root), "--results", str(tuned)]
    assert main([*TUNE, *place]) == 0
    assert files() == before
    assert main([*TUNE, "--methods", "metasgd", *place]) == 0
    chosen = json.loads((tuned / "tuned.json").read_text())["chosen"]
    assert list(chosen) == ["maml", "md", "metasgd"]
    assert {method: chosen[method] for method in METHODS} == json.loads(before[tuned / "tuned.json"][0])["chosen"]
    capfd.readouterr()
    assert main([*TUNE, "--seed", "1", *place]) == 2
    assert "is another tuning (seed differs)" in capfd.readouterr().err


Build = Callable[..., store.Run]


@pytest.fixture
def trials(tmp_path: Path) -> Build:
    """``trials([0.3, None, ...])``: trials of maml with these best scores; None: it diverged."""

    def build(scores: list[float | None]) -> tuple[Path, tune.Search]:
        search = tune.Search(dataset="glyphs", trials=len(scores), iterations=20)
        for spec, score in zip(search.specs("maml"), scores, strict=True):
            knobs = {key: value for key, value in spec.to_dict().items() if key not in ("method", "options")}
            state = "diverged" if score is None else "finished"
            build_run(tmp_path, "maml", state=state, status={"best_score": score or 0.9, "best_iteration": 20}, **knobs)
        return tmp_path, search

    return build


@pytest.mark.parametrize(
    ("scores", "chosen"), [([0.3, 0.5, 0.4], 1), ([0.4, 0.5, 0.5], 1), ([None, 0.2, 0.1], 1), ([0.2, 0.1, None], 0)]
)
def test_ties_go_to_the_earlier_trial_and_divergence_scores_nothing(
    trials: Build, scores: list[float | None], chosen: int
) -> None:
    results, search = trials(scores)
    tuning = tune.write(results, search, ["maml"], "0" * 64)
    assert tuning.document["chosen"]["maml"]["trial"] == chosen
    table = pd.read_csv(results / "tuning.csv")
    assert table["chosen"].tolist() == ["yes" if trial == chosen else "no" for trial in range(3)]
    assert table["state"].tolist() == ["diverged" if score is None else "finished" for score in scores]
    assert table["score"].isna().tolist() == [score is None for score in scores]


def test_nothing_is_chosen_where_all_diverged_or_a_trial_is_missing(trials: Build) -> None:
    results, search = trials([None, None])
    tuning = tune.write(results, search, ["maml", "md"], "0" * 64)
    assert tuning.document["chosen"] == {}
    with pytest.raises(UserError, match=r"no choice for maml \(no trial has a score\)"):
        tuning.values("maml")
    with pytest.raises(UserError, match=r"no choice for md \(it was not tuned"):
        tuning.values("md")


# The test split


@pytest.mark.parametrize("test", ["poisoned", "absent"])
def test_other_test_classes_or_none_change_no_bit(test: str, tuned: Path, tmp_path: Path) -> None:
    store_tiny(tmp_path / "data", test=test)
    results = tmp_path / "results"
    where = ["--data-root", str(tmp_path / "data"), "--results", str(results)]
    assert main([*TUNE, "--methods", "md", *where]) == 0
    head, *lines = (tuned / "tuning.csv").read_text().splitlines()
    own = [line for line in lines if line.startswith("md,")]
    assert (results / "tuning.csv").read_text().splitlines() == [head, *own]


class _Watched(np.ndarray):
    """Images that note which of them were asked for."""

    asked: list[np.ndarray]

    def __getitem__(self, index):
        if isinstance(index, np.ndarray):
            self.asked.append(index.ravel())
        return np.asarray(self).__getitem__(index)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], list[np.ndarray]]:
    """Splits whose classes were looked at, and images that were read, from here on."""
    splits: set[str] = set()
    images: list[np.ndarray] = []
    from benchmark import data

    load, check, table = data.load, episodes.check, episodes._table

    def watched_load(*words: object) -> data.Dataset:
        dataset = load(*words)
        seen = np.asarray(dataset.images).view(_Watched)
        seen.asked = images
        return dataclasses.replace(dataset, images=seen)

    monkeypatch.setattr(data, "load", watched_load)
    monkeypatch.setattr(episodes, "check", lambda of: (splits.add(of.split), check(of))[1])
    monkeypatch.setattr(episodes, "_table", lambda d, split: (splits.add(split), table(d, split))[1])
    return splits, images


def test_no_test_class_and_no_test_image_is_read(
    read: tuple[set[str], list[np.ndarray]], root: Path, tmp_path: Path
) -> None:
    splits, images = read
    first_test_image = IMAGES * (CLASSES["train"] + CLASSES["val"])
    where = ["--data-root", str(root), "--results", str(tmp_path)]
    assert main([*TUNE, "--methods", "maml", "--trials", "1", *where]) == 0
    assert splits == {"train", "val"}
    assert max(asked.max() for asked in images) < first_test_image
    images.clear()
    assert main(["run", "--methods", "maml", "--iterations", "1", "--tasks", "5", *FLAGS, *where]) == 0
    assert splits == {"train", "val", "test"}  # what watches sees them
    assert max(asked.max() for asked in images) >= first_test_image


# The recipe


def test_tuned_runs_use_the_values_and_record_their_origin(
    tuned: Path, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    where = ["--tuning", str(tuned), "--data-root", str(root), "--results", str(tmp_path / "results")]
    assert main([*RUN, "--methods", "maml,md", "--shots", "1,2", *where]) == 0
    assert "tuned at 1-shot, run at 2" in capfd.readouterr().err
    tuning = tune.load(tuned)
    runs = store.load_runs(tmp_path / "results", tables=True)
    assert Counter(run.spec["method"] for run in runs) == {"maml": 2, "md": 2, recipes.BASELINE: 2}
    for run in runs:
        assert (run.state, run.spec["recipe"]) == ("finished", "tuned")
        if run.spec["method"] == recipes.BASELINE:
            assert run.tuning == {}
            continue
        chosen = tuning.document["chosen"][run.spec["method"]]
        assert {name: run.spec[name] for name in tune.SPACE} == {name: chosen[name] for name in tune.SPACE}
        assert run.tuning["sha256"] == tuning.sha256
        assert (run.tuning["run"], run.tuning["trials"], run.tuning["shots"]) == (chosen["run"], 3, 1)
    groups = group_runs(runs)
    text, page = report.markdown(groups), tuned_section(groups)
    for method, title in (("maml", "MAML"), ("md", "MD")):
        assert f"| {title} | 2 | 1-shot | 3 | 2 | {tuning.document['chosen'][method]['alpha']:g} |" in text
        assert f'<th scope="row">{title}</th>' in page


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--dataset", "other"], "tuned on tiny (hash"),
        (["--ways", "2"], "tuned for 3 ways, not 2"),
        (["--methods", "ecml"], "has no choice for ecml"),
        (["--alpha", "0.1"], "--alpha is what was tuned"),
        (["--recipe", "controlled"], "--recipe tuned and --tuning DIR"),
        (["--tuning", "nowhere"], "nowhere/tuned.json: no such tuning"),
    ],
)
def test_what_does_not_fit_a_tuning_is_refused_in_one_line(
    words: list[str], says: str, tuned: Path, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    where = ["--data-root", str(root), "--results", str(tmp_path / "results")]
    assert main([*RUN, "--methods", "maml", "--tuning", str(tuned), *where, *words]) == 2
    error = capfd.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_trials_are_listed_and_are_no_row_of_a_report(
    tuned: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main(["status", "--results", str(tuned)]) == 0
    assert capfd.readouterr().out.count("finished") == len(store.load_runs(tuned))
    assert main(["status", "--results", str(tuned.parent)]) == 0
    assert f"{tuned.name}/tiny-3way" in capfd.readouterr().out
    runs = store.load_runs(tuned)
    assert group_runs(runs) == []
    assert len(frame(runs, "runs")) == len(runs)
    build.write(tuned, tmp_path)
    assert "No runs." in (tmp_path / "table1.md").read_text()
    assert "not finished" not in (tmp_path / "warnings.md").read_text()


def test_a_tuning_is_of_one_norm_and_a_younger_knob_had_its_default(tuned: Path, root: Path, tmp_path: Path) -> None:
    tuning = tune.load(tuned)
    spec = recipes.resolve("maml", "tiny", shots=1, recipe_name="tuned", preset="quick", overrides={"norm": "group"})
    with pytest.raises(UserError, match="tuned with norm batch, not group; tune with that"):
        tuning.require([dataclasses.replace(spec, ways=tuning.document["ways"])], tuning.document["dataset_hash"])
    document = json.loads((tuned / "tuned.json").read_text())
    search = tune.Search(dataset=document["dataset"], trials=3, iterations=2, knobs={"norm": "batch"})
    now = search.describe(document["dataset_hash"])
    del now["protocol"]["norm"]  # as before there was such a knob
    (tmp_path / "tuned.json").write_text(json.dumps(document | now))
    tune.check(tmp_path, search, document["dataset_hash"])
    with pytest.raises(UserError, match="protocol differs"):
        tune.check(tmp_path, dataclasses.replace(search, knobs={"norm": "group"}), document["dataset_hash"])
