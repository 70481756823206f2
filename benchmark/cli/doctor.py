"""The verb ``doctor``: this machine in ten lines that one can paste into an issue, the last of them what is slow."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

import benchmark
from benchmark.cli.flags import add_data_root, add_results, output

if TYPE_CHECKING:
    import torch

HELP = "versions, machine and data in ten lines, and what will be slow"
LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "pandas", "matplotlib", "pillow", "rich")
EXTRAS = {"higher": "higher", "pyarrow": "pyarrow", "tensorboard": "tensorboard", "argcomplete": "argcomplete"}
"""Importable name: package, of what is optional."""
SMALL, PAPER = ((1, 28, 28), 32), ((3, 84, 84), 64)
"""Image shape and channels: the quick preset on glyphs, the paper's on miniImageNet."""
PAPER_TASKS = 60_000 * 4
"""Training tasks of the preset ``paper``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 …; default: auto")
    add_results(parser)
    add_data_root(parser)


def main(arguments: argparse.Namespace, console: Console | None = None) -> int:
    """Print the ten lines."""
    from benchmark.runs import environment

    console = console or output()
    for name, text in report(environment.choose_device(arguments.device), arguments.results, arguments.data_root):
        console.print(f"{name:<10} {text}", markup=False, highlight=False, soft_wrap=True)
    return 0


def report(device: torch.device, results: Path, data_root: Path | None) -> list[tuple[str, str]]:
    """(what, how it is here), ten of them."""
    import torch

    from benchmark import data
    from benchmark.engine import parallel
    from benchmark.engine.allocator import keep_large_buffers
    from benchmark.runs import environment, machine

    cpu, cores, load = torch.device("cpu"), parallel.cores(), machine.load()
    workers = parallel.default_workers(device, meta_batch=4)
    memory, disk = machine.memory_gib(), machine.disk_gib(results)
    keep_large_buffers()  # as a run does
    small_s = machine.meta_gradient_s(*SMALL, device, rounds=3)
    paper_s = machine.meta_gradient_s(*PAPER, device, rounds=1 if device.type == "cpu" else 3)
    states: dict[str, list[str]] = {}
    for entry in data.available(data_root):
        states.setdefault(str(entry["state"]), []).append(str(entry["name"]))
    where = str(data.data_root(data_root))
    commit = environment.commit()
    found = [package for module, package in EXTRAS.items() if importlib.util.find_spec(module)]
    return [
        ("suite", f"{benchmark.__version__}{f', commit {commit}' if commit else ', installed'}"),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("libraries", ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)),
        ("extras", ", ".join(f"{name} {metadata.version(name)}" for name in found) or "none"),
        (
            "processor",
            f"{environment.device_name(cpu)}, {torch.backends.cpu.get_cpu_capability()}, {cores} cores"
            + (f", load {load:.1f}" if load is not None else "")
            + f"; by default {workers} workers, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}",
        ),
        ("gpu", _gpu(device)),
        (
            "space",
            (f"memory {memory[1]:.1f} of {memory[0]:.1f} GiB free; " if memory else "")
            + f"disk of {results} {disk:.1f} GiB free",
        ),
        (
            "data",
            "; ".join(f"{state}: {', '.join(names)}" for state, names in states.items())
            + f"; in {where.replace(str(Path.home()), '~', 1)}",
        ),
        (
            "speed",
            f"MAML's meta-gradient of one task on {device}: {_seconds(small_s)} (28×28, 32 channels), "
            f"{_seconds(paper_s)} (84×84, 64 channels)",
        ),
        ("slow", "; ".join(slow(device, paper_s / workers, load, memory, disk)) or "nothing that stands out"),
    ]


def slow(
    device: torch.device,
    paper_task_s: float,
    load: float | None = None,
    memory: tuple[float, float] | None = None,
    disk: float = 1e9,
) -> list[str]:
    """What will be slow or fail here, and why; `paper_task_s`: seconds of a task of the paper's size."""
    import torch

    from benchmark.engine import parallel

    found = []
    days = PAPER_TASKS * paper_task_s / 86_400
    if days > 1.5:
        why = "no GPU is used" if device.type == "cpu" else f"as {device} is now"
        found.append(f"--preset paper takes {days:.0f} days a run ({why}); the preset quick is made for that")
    if load is not None and load > parallel.cores() + 0.5:
        found.append(f"{load:.0f} programs want {parallel.cores()} cores: all times are longer")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > parallel.cores():
        found.append(f"OMP_NUM_THREADS={threads} on {parallel.cores()} cores: threads wait for each other; unset it")
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX"):
        found.append("no AVX2: convolutions take several times as long")
    if memory is not None and memory[1] < 2:
        found.append(f"{memory[1]:.1f} GiB of memory: wide networks need --recompute and --workers 1")
    if disk < 1:
        found.append(f"{disk:.1f} GiB of disk: checkpoints of wide networks may not fit")
    return found


def _gpu(device: torch.device) -> str:
    import torch

    if not torch.cuda.is_available():
        return "none that torch can use" + (f" (built for CUDA {torch.version.cuda})" if torch.version.cuda else "")
    names = []
    for index in range(torch.cuda.device_count()):
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(index))
        names.append(f"{torch.cuda.get_device_name(index)}, {free:.0f} of {total:.0f} GiB free")
    return f"{'; '.join(names)}; CUDA {torch.version.cuda}" + ("" if device.type == "cuda" else f"; not used: {device}")


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"
