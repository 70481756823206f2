"""Memory, disk, permissions and data run out: the user learns of it, no success is claimed, what is done is kept."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from benchmark import data
from benchmark.engine import parallel
from benchmark.engine.shutdown import Interrupted
from benchmark.errors import UserError
from benchmark.runs import assembly, plan, store
from benchmark.runs import run as runner
from benchmark.spec import RunSpec
from tests.robustness.helpers import COMMON, TINY, execute, execute_all, numbers, state, tiny
from tests.robustness.poisons import OutOfMemory, Witness
from tests.robustness.test_kill import StopAt


def said(results: Path, *specs: RunSpec) -> tuple[dict[str, str], str]:
    out = io.StringIO()
    return execute_all(results, *specs, console=Console(file=out, width=300)), out.getvalue()


# Memory


@pytest.mark.usefixtures("poisons")
@pytest.mark.parametrize("error", [None, torch.OutOfMemoryError, MemoryError], ids=["cpu", "cuda", "python"])
def test_out_of_memory_is_said_and_the_next_run_unaffected(
    error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch, unbroken: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(OutOfMemory, "error", error)
    full, witness = tiny(method="out-of-memory"), tiny(method="witness")
    states, text = said(tmp_path, full, witness, TINY)
    assert states == {full.name: "oom", witness.name: "finished", TINY.name: "finished"}
    assert state(tmp_path, full) == "oom"
    assert "--meta-batch" in text
    assert "Traceback" not in text
    assert Witness.saw is False, "memory was not released"
    assert numbers(tmp_path / TINY.name) == numbers(unbroken)
    assert runner.due(full, tmp_path) == "resume", "a failure is not cached"


@pytest.mark.usefixtures("poisons")
def test_another_error_is_not_taken_for_out_of_memory(unbroken: Path, tmp_path: Path) -> None:
    poet = tiny(method="poet")
    states, text = said(tmp_path, poet, TINY)
    assert states == {poet.name: "failed", TINY.name: "finished"}
    assert store.load_run(tmp_path / poet.name).status["message"] == "out of memory I sing"
    assert "Traceback" in text, "an error that nobody expected is shown whole"
    assert numbers(tmp_path / TINY.name) == numbers(unbroken)
    assert not assembly.is_out_of_memory(UserError("DefaultCPUAllocator: can't allocate memory"))


def test_a_failure_in_one_worker_ends_its_run_not_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers are started again with the rest; the status tells what the worker said, not what rank 0 saw."""
    specs = [tiny(seed=seed) for seed in range(4)]
    started: list[list[int]] = []

    def launch(run: Any, arguments: Any, workers: int, device: torch.device) -> dict[str, str]:
        left, context, _ = arguments
        started.append([spec.seed for spec in left])
        states = {}
        for spec in left:
            if spec.seed == 1:
                with pytest.raises(Interrupted):
                    execute(context.results, spec, stop=StopAt(2))
                raise plan.RunFailed(states | {spec.name: "oom"}, spec.name, "CUDA out of memory", True)
            states[spec.name] = execute(context.results, spec)
        return states

    monkeypatch.setattr(parallel, "launch", launch)
    context = runner.Context(results=tmp_path)
    states = plan.launch_plan(specs, context, workers=2, device=torch.device("cpu"))
    assert list(states.values()) == ["finished", "oom", "finished", "finished"]
    assert started == [[0, 1, 2, 3], [2, 3]]
    failed = store.load_run(tmp_path / specs[1].name)
    assert (failed.state, failed.status["message"]) == ("oom", "CUDA out of memory")
    assert failed.status["iteration"] == 3, "what was computed is kept"


def test_a_network_that_cannot_fit_is_refused_before_it_starts() -> None:
    spec = RunSpec(channels=2**40, ways=5)
    with pytest.raises(UserError, match="does not fit into memory; lower --channels"):
        assembly.check(spec, data.load("glyphs"))


# Disk


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may become larger: the system itself refuses the write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_system_refuses_fails_the_run_and_nothing_is_lost(unbroken: Path, tmp_path: Path) -> None:
    with largest_file(4096):
        states, text = said(tmp_path, TINY)
    assert states == {TINY.name: "failed"}
    assert "checkpoint.pt: cannot be written (File too large)" in text
    assert "Traceback" not in text
    assert state(tmp_path) == "failed"
    assert not list((tmp_path / TINY.name).glob("*.pt*"))
    assert execute(tmp_path) == "finished"
    assert numbers(tmp_path / TINY.name) == numbers(unbroken)


def test_with_no_room_for_another_checkpoint_the_last_one_is_kept(unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        execute(tmp_path, stop=StopAt(4))
    kept = (tmp_path / TINY.name / "checkpoint.pt").read_bytes()
    with largest_file(4096):
        assert said(tmp_path, TINY)[0] == {TINY.name: "failed"}
    assert (tmp_path / TINY.name / "checkpoint.pt").read_bytes() == kept
    assert execute(tmp_path) == "finished"
    assert numbers(tmp_path / TINY.name) == numbers(unbroken)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(small_disk: Path, unbroken: Path) -> None:
    states, text = said(small_disk, TINY)
    assert states == {TINY.name: "failed"}
    assert "cannot be written (No space left on device)" in text
    assert "Traceback" not in text
    assert store.load_runs(small_disk)[0].state != "finished"
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    assert execute(small_disk) == "finished"
    assert numbers(small_disk / TINY.name) == numbers(unbroken)


def test_read_only_results(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro,size=10m", small_disk], check=True)
    states, text = said(small_disk, TINY)
    assert states == {TINY.name: "failed"}
    assert "cannot be written (Read-only file system)" in text
    assert "Traceback" not in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    states, text = said(tmp_path, TINY)
    assert states == {TINY.name: "failed"}
    assert "cannot be written (Permission denied)" in text


def test_results_that_are_a_file(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    states, text = said(tmp_path / "results", TINY)
    assert states == {TINY.name: "failed"}
    assert "cannot be written" in text
    assert "Traceback" not in text


# Data


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 20 classes of 8 pictures."""
    random = np.random.default_rng(0)
    for name in range(20):
        (tmp_path / "pictures" / f"c{name}").mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(0, 255, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / f"c{name}" / f"{number}.png")
    return tmp_path / "pictures"


def test_data_that_vanished_or_changed_since_the_run_began(pictures: Path, tmp_path: Path) -> None:
    root, results = tmp_path / "root", tmp_path / "results"
    data.import_dataset("mine", pictures, root, split_seed=1)
    spec = RunSpec(method="maml", dataset="mine", ways=3, shots=1, channels=4, **COMMON)
    assert execute(tmp_path / "unbroken", spec, data_root=root) == "finished"
    with pytest.raises(Interrupted):
        execute(results, spec, data_root=root, stop=StopAt(4))
    kept = (results / spec.name / "checkpoint.pt").read_bytes()

    shutil.rmtree(root / "mine")
    with pytest.raises(UserError, match="mine"):
        execute(results, spec, data_root=root)
    assert state(results, spec) == "failed"

    data.import_dataset("mine", pictures, root, split_seed=2)
    with pytest.raises(UserError, match="data set mine has changed since the run began"):
        execute(results, spec, data_root=root)
    assert (results / spec.name / "checkpoint.pt").read_bytes() == kept

    data.import_dataset("mine", pictures, root, split_seed=1)
    assert execute(results, spec, data_root=root) == "finished"
    assert numbers(results / spec.name) == numbers(tmp_path / "unbroken" / spec.name)
