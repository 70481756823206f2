"""The machine as a run meets it: memory, disk, cores and who else wants them, and what a meta-gradient takes here."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from pathlib import Path

import torch

import optimizers
from benchmark import networks
from benchmark.engine.execution import PLAIN
from benchmark.metagrad import Task, meta_gradient

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says how much memory there is, and how much of it this container may take."""


def memory_gib() -> tuple[float, float] | None:
    """(Total, available) memory in GiB for this process; None where the system does not say."""
    try:
        rows = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        total, free = (float(rows[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit, used = (float((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        total, free = min(total, limit), min(free, limit - used)
    except (OSError, ValueError):  # no container, or one without a limit, which reads "max"
        pass
    return total / 2**30, free / 2**30


def disk_gib(path: Path) -> float:
    """Free space in GiB where `path` is, or will be made."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free / 2**30


def load() -> float | None:
    """Programs that wanted a core in the last minute, on average; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


@PLAIN.multiplication()
def meta_gradient_s(image_shape: tuple[int, int, int], channels: int, device: torch.device, rounds: int) -> float:
    """Median seconds of MAML's exact meta-gradient of one 5-way 1-shot task on a CNN4: 5 steps, 15 query images each.

    Of several `rounds` the first, which warms up, is left out.
    """
    network = networks.create("cnn4", 5, image_shape, channels)
    optimizer = optimizers.create("maml", network).to(device)
    support, query = torch.rand(1, 5, *image_shape, device=device), torch.rand(1, 75, *image_shape, device=device)
    labels = torch.arange(5, device=device)[None]
    task = Task(support, labels, query, labels.repeat_interleave(15, 1))
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        loss, _ = meta_gradient(optimizer, task)
        loss.item()  # waits for the device
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:] or taken)
