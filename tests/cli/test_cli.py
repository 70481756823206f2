"""The command line: what a wrong word gets, what a plan shows, what stays quick."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.cli import flags, parser
from benchmark.cli import list as list_verb
from benchmark.cli import run as run_verb
from benchmark.cli import status as status_verb
from benchmark.cli import study as study_verb
from benchmark.cli import time as time_verb
from benchmark.cli import tune as tune_verb
from benchmark.cli.where import portable
from benchmark.errors import UserError
from benchmark.runs.tune import Tuning
from benchmark.screen import Screen
from benchmark.timing import measure, peers
from tests.conftest import ROOT
from tests.report.builder import build_run


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("runn", "unknown verb 'runn' (did you mean 'run'?)"),
        ("run", "the following arguments are required: --methods"),
        ("run --method md", "unknown flag '--method' (did you mean '--methods'?)"),
        ("run --methods", "expected one argument"),
        ("run --methods ,", "--methods is empty"),
        ("run --methods mdd", "did you mean 'md'"),
        ("run --methods md --itertions 5", "unknown flag '--itertions' (did you mean '--iterations'?)"),
        ("run --methods md --iter 5", "unknown flag '--iter'"),
        ("run --methods md --iterations many", "--iterations must be a whole number, got 'many'"),
        ("run --methods md --alpha x", "--alpha must be a number, got 'x'"),
        ("run --methods md --alpha 0", "alpha must be above 0"),
        ("run --methods md --alpha inf", "alpha must be a finite number"),
        ("run --methods md --shots 1,x", "--shots must be whole numbers"),
        ("run --methods md --shots 0", "shots must be at least 1"),
        ("run --methods md --seeds -1", "seed must be at least 0"),
        ("run --methods md --ways 1", "ways must be at least 2"),
        ("run --methods md --ways 4000", "lower --ways"),
        ("run --methods md --shots 4000", "lower --shots"),
        ("run --methods md --recipe publishd", "did you mean 'published'"),
        ("run --methods md --preset qick", "did you mean 'quick'"),
        ("run --methods md --dataset glyph", "did you mean 'glyphs'"),
        ("run --methods md --network cnn5", "did you mean 'cnn4'"),
        ("run --methods md --meta-optimizer sdg", "did you mean 'sgd'"),
        ("run --methods md --momentum 0.9", "goes with meta_optimizer sgd"),
        ("run --methods md --network sine-mlp", "glyphs is classification, network sine-mlp is not"),
        ("run --methods md --dataset sine --network cnn4", "cnn4"),
        ("run --methods md --device cuda:77", "not usable here"),
        ("run --methods md --device gpu", "not usable here"),
        ("run --methods md --workers 0", "--workers must be at least 1"),
        ("run --methods md --strategy lop", "did you mean 'loop'"),
        ("run --methods md --option sigma", "--option takes [METHOD.]KEY=VALUE"),
        ("run --methods md --option sigm=exp", "has no option 'sigm'"),
        ("run --methods md --option metasgd.adapt=head", "'metasgd' is not among --methods"),
        ("run --methods md --option adapt=haed", "matches no parameter"),
        ("run --methods md --option first_order=true", "--estimator first-order"),
        ("run --methods md --estimator firstorder", "did you mean 'first-order'"),
        ("run --methods md --estimator truncated:6", "at most truncated:5"),
        ("run --methods metakfo --option adapting=maybe", "adapting must be true or false"),
        ("run --methods md --option md.alpha=0.3", "use --alpha"),
        ("run --methods pixels", "pixels is measured beside every method"),
        ("run --methods md --recipe published --preset paper", "--preset sizes the controlled recipe"),
        ("report --results nowhere", "python -m benchmark run"),
        ("status --results nowhere", "python -m benchmark run"),
        ("list mdd", "did you mean 'md'"),
        ("verify --methods ecml --option gama=1", "ecml has no option 'gama' (did you mean 'gamma'?)"),
        ("verify --methods ecml --option adapt=haed", "ecml on cnn4: adapt='haed' matches no parameter"),
        ("verify --methods ecml --option md.sigma=exp", "'md' is not among --methods"),
        ("verify --methods ecml --option gamma", "--option takes [METHOD.]KEY=VALUE"),
        ("verify --methods ecml --network cnn5", "'cnn5' is none of cnn4, cnn2, resnet12 (did you mean 'cnn4'?)"),
        ("verify --methods mdd", "did you mean 'md'"),
        ("run --methods maml metasgd", "unexpected word 'metasgd'; a list is written with commas and without spaces"),
        ("run --methods maml --seeds 0 1", "unexpected word '1'; a list"),
        ("status r1", "unexpected word 'r1'; see python -m benchmark status --help"),
        ("run --methods md --itertions 5", "; see python -m benchmark run --help"),
        ("run --methods md --device cpu:1", "device 'cpu:1' is not usable here"),
        ("tune --methods md --trials 1001", "trials must lie between 1 and 1,000, got 1001"),
        ("list md --methods", "'md' is something else"),
        (
            "report --results pyproject.toml",
            "pyproject.toml is a file and cannot be written or read as a folder; name a folder",
        ),
        (
            "report --reports pyproject.toml",
            "pyproject.toml is a file and cannot be written or read as a folder; name a folder",
        ),
        (
            "merge tests --into pyproject.toml",
            "pyproject.toml is a file and cannot be written or read as a folder; name a folder",
        ),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = line.split()
    if words[0] == "run" and "--dry-run" not in words:
        words.append("--dry-run")  # nothing may start, whatever is wrong
    assert parser.main(words) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


@pytest.mark.parametrize("line", ["status --option adapt=body", "list --option x=1", "verify --iterations 5"])
def test_a_flag_of_another_verb_is_not_suggested(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert parser.main(line.split()) == 2
    flag = line.split()[1]
    shown = capsys.readouterr().err
    assert f"unknown flag {flag!r}" in shown
    assert f"did you mean {flag!r}" not in shown


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"run --methods gd,md --shots 1,5 --seeds 0,1 --dry-run --results {tmp_path / 'r'}"
    assert parser.main(line.split()) == 0
    shown = capsys.readouterr().out
    assert shown.count("-maml-") == shown.count("-md-") == shown.count("-pixels-") == 4
    assert not (tmp_path / "r").exists()


def test_dry_run_says_what_a_recipe_comes_to_without_its_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"run --methods md,metasgd --recipe published --dataset miniimagenet --dry-run --data-root {tmp_path}"
    assert parser.main(line.split()) == 0
    shown = capsys.readouterr()
    assert "data set 'miniimagenet' is not in" in shown.err
    assert "md: meta_optimizer sgd, momentum 0.9, weight_decay 0.0001, lr_step 20000, tasks 1000" in shown.out
    assert "metasgd: meta_optimizer adam, momentum 0, weight_decay 0, lr_step 0, tasks 600, form=free" in shown.out
    assert "all: network cnn4, norm batch, estimator exact, " in shown.out
    assert parser.main([*line.replace("--dry-run", "").split(), "--results", str(tmp_path / "r")]) == 2


def test_dry_run_says_which_run_has_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = f"--dataset miniimagenet --data-root {tmp_path} --dry-run"
    assert parser.main(f"run --methods md --recipe published --shots 1,5 {root}".split()) == 0
    shown = capsys.readouterr().out
    assert "md 1-shot: query_test 1" in shown
    assert "md 5-shot: query_test 5" in shown
    assert parser.main(f"tune --methods md,maml --trials 2 {root} --results {tmp_path}".split()) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("md α 0.04972, maml α 0.04972: ")]
    assert len(lines) == 1
    assert "meta_lr 0.002762, geometry_lr 5.192" in lines[0]


def test_the_values_of_a_choice_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser.main(["run", "--help"])
    shown = capsys.readouterr().out
    assert "--precision float32|tf32|float64" in shown
    assert "--meta-optimizer adam|sgd" in shown


def test_all_is_every_method_once() -> None:
    import optimizers

    arguments = parser._parser().parse_args(["run", "--methods", "all"])
    assert [spec.method for spec in run_verb.plan(arguments)] == optimizers.available()


def test_options_reach_the_methods_they_name() -> None:
    assert flags.method_options(["md.sigma=exp", "adapt=head", "adapting=true"], ["md", "maml"]) == {
        "md": {"sigma": "exp", "adapt": "head", "adapting": True},
        "maml": {"adapt": "head", "adapting": True},
    }
    with pytest.raises(UserError, match="did you mean 'maml'"):
        flags.method_options(["mal.adapt=head"], ["maml"])
    assert flags.method_options(["mirror-descent.sigma=exp"], ["md"]) == {"md": {"sigma": "exp"}}


def test_list_names_methods_data_sets_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert parser.main(["list"]) == 0
    shown = capsys.readouterr().out
    for word in ("maml", "gd", "metasgd", "metacurvature", "md-released", "glyphs", "cifar-fs", "cnn4", "quick"):
        assert word in shown


def test_list_groups_methods_by_kind_and_says_what_each_learns(capsys: pytest.CaptureFixture[str]) -> None:
    import optimizers
    from optimizers.cards import KINDS
    from optimizers.maml import GradientDescent

    class Mine(GradientDescent):
        card = dataclasses.replace(GradientDescent.card, title="Mine", kind="guesswork", learned="Nothing [so far].")

    optimizers.register("mine", Mine)
    try:
        assert parser.main(["list", "methods"]) == 0
    finally:
        optimizers.unregister("mine")
    lines = capsys.readouterr().out.splitlines()
    shown = " ".join(" ".join(lines).split())
    at = {name: shown.index(f" {name} ") for name in [*optimizers.available(), "mine"]}
    groups = {kind: shown.index(meaning) for kind, meaning in KINDS.items() if meaning in shown}
    assert sorted(groups.values()) == list(groups.values())
    for name in optimizers.available():
        card = optimizers.card(name)
        assert max((kind for kind in groups if groups[kind] < at[name]), key=groups.__getitem__) == card.kind
        assert card.learned in shown[at[name] :]
    assert at["mine"] > shown.index(" guesswork ") > max(groups.values())
    assert "Nothing [so far]." in shown


def test_tables_in_a_very_narrow_terminal_keep_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Screen(file=io.StringIO(), width=40)
    chosen = {"alpha": 0.04972, "meta_lr": 0.002762, "geometry_lr": 5.192, "trial": 0, "edge": {}, "score": 0.367}
    document = {"trials": 8, "iterations": 500, "shots": 1, "chosen": {"metacurvature": chosen | {"accuracy": 0.367}}}
    tune_verb.print_choices(Tuning(tmp_path / "tuned.json", "", document | {"without_choice": {}}), console)
    rows = measure.measure(["maml", "metacurvature"], [peers.Workload(16, 2, steps=1)], rounds=1)
    time_verb.show(rows, console)
    path = tmp_path / "s.toml"
    path.write_text('dataset = "sine"\nmethods = ["maml"]\n[[stage]]\nname = "one-shot"\niterations = 2\n')
    monkeypatch.setattr(study_verb, "output", lambda: console)
    assert parser.main(["study", str(path), "--dry-run", "--results", str(tmp_path / "r")]) == 0
    shown = console.file.getvalue()
    assert "…" not in shown
    for word in ("metacurvature", "0.04972", "0.002762", "5.192", "36.7", "one-shot", "K = 1,"):
        assert word in shown, word


@pytest.mark.parametrize("line", ["status", "run --methods md-convex --dry-run"])
def test_no_name_is_cut_in_a_narrow_terminal(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = build_run(tmp_path, "md-convex", status={"message": "a disk that is full"})
    console = Screen(file=io.StringIO(), width=60)
    for module in (run_verb, status_verb):
        monkeypatch.setattr(module, "output", lambda: console)
    assert parser.main([*line.split(), "--results", str(tmp_path)]) == 0
    shown = console.file.getvalue()
    assert "…" not in shown
    if line == "status":
        assert f"{run.name}: a disk that is full" in shown


def test_a_card_in_a_pipe_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert parser.main(["list", "md"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "methods" / "md.md").read_text(encoding="utf-8")


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys, benchmark.cli.parser, benchmark.runs.store, benchmark.report, benchmark.statistics; "
        "benchmark.cli.parser._parser(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_reader_that_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        line = [sys.executable, "-m", "benchmark", "list"]
        done = subprocess.run(line, cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("where", ["--results /a/b --data-root=/c", "--results=/a/b", "--data-root /c"])
def test_recorded_command_names_no_place(where: str) -> None:
    words = f"python -m benchmark run --methods md {where} --shots 5".split()
    assert " ".join(portable(words)) == "python -m benchmark run --methods md --shots 5"


@pytest.mark.parametrize(
    ("given", "spin"), [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_threads_spin_briefly_unless_the_user_said_how_they_wait(given, spin, monkeypatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    parser.main(["runn"])
    assert os.environ.get("GOMP_SPINCOUNT") == spin


@pytest.mark.parametrize("line", ["status", "list runs", "run --methods md-convex --dry-run"])
def test_a_name_is_folded_into_few_pieces_in_forty_columns(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build_run(tmp_path, "md-convex")
    console = Screen(file=io.StringIO(), width=40)
    for module in (run_verb, status_verb, list_verb):
        monkeypatch.setattr(module, "output", lambda: console)
    assert parser.main([*line.split(), "--results", str(tmp_path)]) == 0
    shown = console.file.getvalue()
    assert run.name[:20] in shown
    assert max(map(len, shown.splitlines())) <= 40
