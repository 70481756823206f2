"""Where a run runs: which device, and what is recorded of it beside the results."""

from __future__ import annotations

import functools
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

import benchmark
from benchmark.engine.group import Group
from benchmark.errors import UserError
from benchmark.files import now

REASON = 100
"""Letters of torch's reason that are repeated: some list every kernel that they have."""


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "cpu" and device.index:
            raise RuntimeError("a CPU has no numbers")
        torch.ones(1, device=device).add(1).item()  # some devices take a tensor and compute nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = re.split(r"\. |\n|: ", str(error))[0][:REASON]
        raise UserError(
            f"device {name!r} is not usable here ({reason}); expected auto, cpu, cuda or cuda:N; try --device cpu"
        ) from error
    return device


def device_name(device: torch.device) -> str:
    """The card, or the processor's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def described(device: torch.device) -> str:
    """As runs record it: ``cpu (AMD EPYC)``."""
    return f"{device.type} ({device_name(device)})"


def environment(device: torch.device, group: Group, dataset_hash: str) -> dict[str, Any]:
    """What a reader needs to repeat or to doubt a number."""
    return {
        "version": benchmark.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": described(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # on another processor, other roundings
        "deterministic": device.type == "cpu",
        "workers": group.size,
        "threads": torch.get_num_threads(),
        "dataset_hash": dataset_hash,
        "started": now(),
    }


def commit() -> str:
    """The commit of this source tree, with ``+`` where files differ from it; empty outside a checkout.

    As this process found it when it first asked: what is edited later is not what runs. Installed, the packages may lie
    inside a checkout of something else, whose commit says nothing of them.
    """
    return _commit(Path(benchmark.__file__).parent.parent)


@functools.cache
def _commit(root: Path) -> str:
    if not (root / ".git").exists():
        return ""
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--", "benchmark", "optimizers"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")
