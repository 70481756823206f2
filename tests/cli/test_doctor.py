"""Ten lines that say what this machine is, whatever of it cannot be found out, and what will be slow."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmark.cli import doctor, parser
from benchmark.data import catalogue
from benchmark.runs import machine
from tests.conftest import ROOT

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PAPER", ((1, 16, 16), 4))
    monkeypatch.setattr(doctor, "SMALL", ((1, 16, 16), 2))


def test_ten_lines_with_all_data_sets(capsys: pytest.CaptureFixture, data_root: Path, tmp_path: Path) -> None:
    assert parser.main(["doctor", "--device", "cpu", "--results", str(tmp_path / "not" / "yet")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("suite", "python", "libraries", "extras", "processor"),
        *("gpu", "space", "data", "speed", "slow"),
    ]
    assert f"torch {torch.__version__.partition('+')[0]}" in lines[2]
    assert all(entry["name"] in lines[7] for entry in catalogue.available(data_root))


def test_a_system_that_says_nothing_still_gets_its_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(machine, "load", lambda: None)
    monkeypatch.setattr(doctor, "EXTRAS", {"no_such_module": "none"})
    printed = io.StringIO()
    arguments = type("Arguments", (), {"device": "cpu", "results": tmp_path, "data_root": None})
    assert doctor.main(arguments, Console(file=printed, width=200)) == 0
    text = printed.getvalue()
    assert len(text.splitlines()) == 10
    assert "memory" not in text
    assert "extras     none" in text


def test_memory_is_that_of_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  8388608 kB\nMemAvailable:  4194304 kB\nHugePages_Total: 0\n")
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.memory_gib() == (8, 4)
    (tmp_path / "memory.current").write_text(f"{2**30}\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_gib() == (8, 4)
    (tmp_path / "memory.max").write_text(f"{3 * 2**30}\n")
    assert machine.memory_gib() == (3, 2)


def test_what_is_slow_is_said_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr("benchmark.engine.parallel.cores", lambda: 2)
    assert doctor.slow(CPU, 0.01, load=1.0, memory=(8, 4), disk=10) == []
    (paper,) = doctor.slow(CPU, 1.8)
    assert "--preset paper takes 5 days a run (no GPU is used)" in paper  # 240,000 tasks · 1.8 s
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    found = "; ".join(doctor.slow(CPU, 0.01, load=7.2, memory=(8, 0.5), disk=0.2))
    for said in ("7 programs want 2 cores", "OMP_NUM_THREADS=16", "no AVX2", "0.5 GiB of memory", "0.2 GiB of disk"):
        assert said in found


def test_the_shell_completes_verbs(tmp_path: Path) -> None:
    """What bash asks by argcomplete's protocol: the words so far in the environment, the answers in a file."""
    answers = tmp_path / "answers"
    asked = {"_ARGCOMPLETE": "3", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(answers)}
    asked |= {"COMP_LINE": "python -m benchmark comp", "COMP_POINT": "24", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    line = [sys.executable, "-m", "benchmark"]
    subprocess.run(line, cwd=ROOT, env=os.environ | asked, check=False, capture_output=True)
    assert answers.read_text() == "compare"
