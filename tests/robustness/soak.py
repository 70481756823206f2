"""Memory over time, by hand: ``python -m tests.robustness.soak MINUTES`` trains, measures and saves without end.

One long run for half of the time, then short ones one after another, in one process; prints resident memory twice a
minute and ends with exit status 1 if in either half it grew by more than 5 % from the first quarter to the last.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmark.engine.allocator import keep_large_buffers
from benchmark.engine.shutdown import Interrupted, Stop
from tests.robustness.helpers import GLYPHS, execute, tiny


class Until(Stop):
    """Asks to stop at a moment, and notes memory on the way."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.end, self.next, self.looks = end, 0.0, 0
        self.seen: list[float] = []

    def __bool__(self) -> bool:
        self.looks += 1  # once a meta-step, and once a chunk of tasks
        if time.monotonic() >= self.next:
            self.next = time.monotonic() + 30
            self.seen.append(resident_mib())
            left = max(self.end - time.monotonic(), 0) / 60
            print(f"{left:5.1f} min left  {self.looks:7,} steps  {self.seen[-1]:7.1f} MiB", flush=True)
        return time.monotonic() > self.end


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main(minutes: float) -> int:
    torch.set_num_threads(1)
    keep_large_buffers()
    began = time.monotonic()
    knobs = {**GLYPHS.to_dict(), "channels": 8, "method": "md", "validate_every": 50, "tasks": 40}
    with tempfile.TemporaryDirectory() as folder:
        long = Until(began + minutes * 30)
        with contextlib.suppress(Interrupted):
            execute(Path(folder), tiny(**{**knobs, "iterations": 10**6}), stop=long)
        runs, stop = 0, Until(began + minutes * 60)
        while time.monotonic() < began + minutes * 60:
            try:
                execute(Path(folder), tiny(**{**knobs, "iterations": 60, "seed": runs}), stop=stop)
            except Interrupted:
                break
            runs += 1
    return int(any([grew("one run", long.seen), grew(f"{runs} runs", stop.seen)]))


def grew(what: str, seen: list[float]) -> bool:
    """Whether memory grew; the first look, before anything was computed, does not count."""
    seen = seen[1:] or seen
    quarter = max(len(seen) // 4, 1)
    first, last = statistics.mean(seen[:quarter]), statistics.mean(seen[-quarter:])
    print(f"{what}: first quarter {first:.1f} MiB, last {last:.1f} MiB, peak {max(seen):.1f} MiB")
    return last > 1.05 * first


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
