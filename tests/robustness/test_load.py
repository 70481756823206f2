"""Large folders stay quick, large grids end. The hours-long test of memory is by hand: ``tests/robustness/soak.py``."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmark.cli import parser
from benchmark.runs.store import load_runs
from benchmark.spec import RunSpec
from tests.conftest import ROOT
from tests.report.builder import build_run

METHODS = ("maml", "metasgd", "mtnet", "warpgrad", "metacurvature", "metakfo", "ecml", "md", "md-released", "md-convex")


def many(results: Path, count: int) -> None:
    """`count` runs that differ in seed and method, copies of one in all but their spec."""
    original = build_run(results / "of", "maml", tasks=20).path
    for number in range(count):
        spec = RunSpec(method=METHODS[number % len(METHODS)], tasks=20, seed=number // len(METHODS))
        path = results / spec.name
        shutil.copytree(original, path)
        document = json.loads((path / "spec.json").read_text())
        (path / "spec.json").write_text(json.dumps(document | {"name": spec.name, "spec": spec.to_dict()}))
    shutil.rmtree(results / "of")


def test_listing_a_folder_reads_two_small_files_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are read only by who asks for them: 5,000 runs are listed in a few seconds."""
    many(tmp_path, 20)
    opened, really = [], io.open
    monkeypatch.setattr("io.open", lambda file, *how, **more: opened.append(Path(file)) or really(file, *how, **more))
    runs = load_runs(tmp_path)
    assert sorted(opened) == sorted(run.path / name for run in runs for name in ("spec.json", "status.json"))
    assert len(runs) == 20
    assert runs[0].evaluation is not None
    assert opened[-1] == runs[0].path / "evaluation.csv", "what is opened is noticed"


def test_status_of_a_folder_shows_every_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many(tmp_path, 30)
    assert parser.main(["status", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("finished") == 30


@pytest.mark.long
def test_five_thousand_runs(tmp_path: Path) -> None:
    """``status`` within 15 s and ``report`` within 5 minutes of processor time."""
    import resource

    results = tmp_path / "results"
    many(results, 5000)

    def spent(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        line = [sys.executable, "-m", "benchmark", *words, "--results", str(results)]
        subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    status, report = spent("status"), spent("report", "--reports", str(tmp_path / "reports"))
    print(f"5,000 runs: status {status:.1f} s, report {report:.1f} s of processor time")
    assert status < 15
    assert report < 300


@pytest.mark.long
def test_a_grid_of_two_hundred_runs(tmp_path: Path) -> None:
    """Ten methods, two numbers of shots, ten seeds, and their baselines, from flags to report, by the command line."""
    flags = """
        --methods maml,metasgd,mtnet,warpgrad,metacurvature,metakfo,ecml,md,md-released,md-convex
        --shots 1,5 --seeds 0,1,2,3,4,5,6,7,8,9 --ways 3 --channels 4 --iterations 4 --meta-batch 2 --query-train 3
        --query-test 3 --steps 1 --eval-steps 1 --trace-steps 2 --validate-every 2 --validation-tasks 4 --tasks 10
        --workers 1
    """
    results, reports = tmp_path / "results", tmp_path / "reports"
    line = [sys.executable, "-m", "benchmark", "run", *flags.split(), "--results", str(results)]
    began = time.monotonic()
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    runs = load_runs(results, tables=True)
    assert len(runs) == 220
    assert {run.state for run in runs} == {"finished"}
    print(f"220 runs in {time.monotonic() - began:.0f} s")
    again = subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True)
    assert again.stderr.count("done already") == 220
    line = [sys.executable, "-m", "benchmark", "report", "--results", str(results), "--reports", str(reports)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    assert (reports / "index.html").stat().st_size > 10_000
