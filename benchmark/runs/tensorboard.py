"""Meta-training as TensorBoard shows it: loss, validation, learning rates, and what the method says of itself.

The event files lie in the run's folder, so that ``tensorboard --logdir results`` finds every run by its name. They are
a view and no result: nothing is read from them, and a run is the same bit by bit with and without. All is written just
before a checkpoint, and what a killed process wrote beyond its last checkpoint is purged when the run goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmark.errors import UserError
from benchmark.meta_optimizer import learning_rate, split_start
from benchmark.spec import RunSpec
from benchmark.training_state import Progress
from optimizers.base import InnerOptimizer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def require() -> None:
    """:class:`UserError` where the package ``tensorboard`` is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--tensorboard needs the package tensorboard ({error}); "
            "pip install 'inner-optimizer-benchmark[tensorboard]'"
        ) from None


@contextlib.contextmanager
def watched(
    folder: Path, optimizer: InnerOptimizer, spec: RunSpec, checkpoint: dict[str, Any] | None
) -> Iterator[Callable[[Progress], None]]:
    """Yields what writes all that is new in a :class:`Progress` into `folder`, new since `checkpoint`.

    A folder that is new gets the curves from the first meta-step on, which the progress of a resumed run has, too.
    """
    from torch.utils.tensorboard import SummaryWriter

    begun = checkpoint["iteration"] if checkpoint else 0
    if checkpoint is None or not folder.is_dir():
        watch = _Writer(SummaryWriter(folder, purge_step=0), optimizer, spec)
    else:
        watch = _Writer(SummaryWriter(folder, purge_step=begun + 1), optimizer, spec)
        watch.seen = begun
        watch.validated = max((int(row["iteration"]) for row in checkpoint["validations"]), default=0)
    try:
        if begun == 0:
            watch.summaries(0)
        yield watch
    finally:
        watch.writer.close()


class _Writer:
    def __init__(self, writer: SummaryWriter, optimizer: InnerOptimizer, spec: RunSpec) -> None:
        self.writer, self.optimizer, self.spec = writer, optimizer, spec
        self.seen = self.validated = 0
        self.factors = {"start": 1.0}
        if split_start(optimizer)[1]:
            self.factors["geometry"] = spec.geometry_lr

    def __call__(self, progress: Progress) -> None:
        for step in range(self.seen + 1, progress.iteration + 1):
            self.writer.add_scalar("loss/meta-training", progress.losses[step - 1], step)
            for part, factor in self.factors.items():
                self.writer.add_scalar(f"learning rate/{part}", learning_rate(self.spec, step - 1) * factor, step)
        self.seen = progress.iteration
        for row in progress.validations:
            step = int(row["iteration"])
            if step <= self.validated:
                continue
            self.writer.add_scalar("validation/nll", row["nll"], step)
            if not self.optimizer.is_regression:
                self.writer.add_scalar("validation/accuracy", row["accuracy"], step)
            if step == progress.iteration:  # of earlier ones the meta-parameters are gone
                self.summaries(step)
            self.validated = step
        self.writer.flush()

    @torch.no_grad()
    def summaries(self, step: int) -> None:
        for tag, value in self.optimizer.summaries().items():
            if value.dim() == 0:
                self.writer.add_scalar(tag, value.item(), step)
            else:
                self.writer.add_histogram(tag, value.float().cpu(), step)
