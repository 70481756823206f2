"""What a person sees while runs go on: live bars in a terminal, plain lines in a pipe or a log."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmark.screen import Screen, one_line
from benchmark.spec import RunSpec

if TYPE_CHECKING:
    from benchmark import training_state

PLAIN_EVERY_S = 15.0


class Reporter:
    """Reports on `console`; a silent one (other ranks, tests) says nothing."""

    def __init__(self, console: Console | None = None, *, total: int = 0, begun: int = 0) -> None:
        self.console = console or Screen(quiet=True)
        self.total = total
        self.begun = begun
        self.place = ""

    def note(self, text: str) -> None:
        self.console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    def traceback(self) -> None:
        self.console.print(traceback.format_exc(), markup=False, highlight=False, soft_wrap=True)

    def begin(self, spec: RunSpec, state: str) -> None:
        """The next run of the plan, which is ``new``, to ``resume`` or ``done`` already."""
        self.begun += 1
        self.place = f"[{self.begun}/{self.total}]" if self.total else ""
        if state == "done":
            self.note(f"{self.place} {spec.name}: done already")

    @contextlib.contextmanager
    def training(self, spec: RunSpec) -> Iterator[Callable[[training_state.Progress], None]]:
        """Yields the callback for each meta-step."""
        recent: float | None = None
        with self._bar(f"{self.place} {_label(spec)} train", spec.iterations, "it/s") as update:

            def on_step(progress: training_state.Progress) -> None:
                nonlocal recent
                loss = progress.losses[-1]
                recent = loss if recent is None or recent != recent else 0.98 * recent + 0.02 * loss
                detail = f"loss {recent:.3f}"
                if progress.validations:
                    latest = progress.validations[-1]
                    regression = latest["accuracy"] != latest["accuracy"]
                    detail += f"  val {latest['nll']:.3g}" if regression else f"  val {100 * latest['accuracy']:.1f} %"
                update(progress.iteration, detail)

            yield on_step

    @contextlib.contextmanager
    def measuring(self, spec: RunSpec) -> Iterator[Callable[[int], None]]:
        """Yields the callback that takes the number of test tasks measured so far."""
        with self._bar(f"{self.place} {_label(spec)} test", spec.tasks, "tasks/s") as update:
            yield lambda count: update(count, "")

    @contextlib.contextmanager
    def _bar(self, label: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
        with (_live if self.console.is_terminal else _plain)(self.console, label, total, unit) as update:
            yield update


def _label(spec: RunSpec) -> str:
    return f"{spec.method} {spec.shots}-shot s{spec.seed}"


@contextlib.contextmanager
def _live(console: Console, label: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=8),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[detail]}"),
    )
    rate = _Rate(unit)
    with Progress(*columns, console=console, refresh_per_second=4) as bars:
        bar = bars.add_task(label, total=total, rate="", detail="")
        yield lambda done, detail: bars.update(bar, completed=done, rate=rate(done), detail=detail)


@contextlib.contextmanager
def _plain(console: Console, label: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
    rate, printed, last = _Rate(unit), time.monotonic(), (0, "")

    def line(done: int, detail: str) -> None:
        speed = rate(done)
        left = f"  {rate.left(total - done)} left" if done < total else ""
        text = f"{label} {done}/{total}  {speed}{left}  {detail}".rstrip()
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(done: int, detail: str) -> None:
        nonlocal printed, last
        last = (done, detail)
        rate.begin(done)
        if time.monotonic() - printed >= PLAIN_EVERY_S:
            printed = time.monotonic()
            line(done, detail)

    yield update
    if last[0]:
        line(*last)


class _Rate:
    """Steps per second since this process began to count: the work of an earlier one, before a resume, is left out."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.started = time.monotonic()
        self.first: int | None = None
        self.per_s = 0.0

    def begin(self, done: int) -> None:
        """`done` steps are over; the first call tells where counting began."""
        if self.first is None:
            self.first = done - 1

    def __call__(self, done: int) -> str:
        self.begin(done)
        self.per_s = (done - (self.first or 0)) / max(time.monotonic() - self.started, 1e-9)
        return f"{self.per_s:.1f} {self.unit}"

    def left(self, steps: int) -> str:
        seconds = int(steps / self.per_s) if self.per_s else 0
        hours, rest = divmod(seconds, 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
