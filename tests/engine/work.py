"""What worker processes run in tests: the meta-gradient of every method and network, tasks shared; also a script.

``torchrun --nproc-per-node 2 tests/engine/work.py OUT`` writes rank 0's answer to OUT.
"""

import os
import signal
import sys

import torch

import optimizers
from benchmark.engine.parallel import launch
from benchmark.metagrad import Task, evaluate_batch, meta_gradient
from tests.engine.helpers import NETWORKS, settled


def share_of(group, batch, noise):
    """This rank's tasks, their noise, and their fraction of all."""
    count = len(batch.support_x)
    mine = list(group.share(count))
    part = Task(*(column[mine] for column in vars(batch).values()))
    return part, None if noise is None else noise[mine], len(mine) / count


def mean_over(group, fraction, loss, gradients):
    """Means over all tasks from the mean over each rank's own."""
    total = group.sum_(torch.cat([loss.reshape(1), *(g.flatten() for g in gradients.values())]) * fraction)
    parts = total[1:].split([g.numel() for g in gradients.values()])
    return total[0], {n: p.view_as(g) for (n, g), p in zip(gradients.items(), parts, strict=True)}


def everything(group):
    """{case: (loss, gradients, evaluation rows)} of every method on every network."""
    found = {}
    for network in NETWORKS:
        steps = 1 if network == "resnet12" else 2
        for method in optimizers.available():
            optimizer, batch, noise = settled(method, network, count=3)
            part, drawn, fraction = share_of(group, batch, noise)
            mean = mean_over(group, fraction, *meta_gradient(optimizer, part, steps, noise=drawn))
            rows = torch.cat([c.reshape(len(c), -1) for c in evaluate_batch(optimizer, part, steps, noise=drawn)], 1)
            found[f"{method} {network}"] = (*mean, group.gather(rows, len(batch.support_x)))
    return found


def killed_in_mid_step(group):
    """Meta-steps without end; rank 1 is killed inside a later one."""
    optimizer, batch, _ = settled("maml")
    part, _, fraction = share_of(group, batch, None)
    if group.rank == 1:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, 0.5)
    while True:
        mean_over(group, fraction, *meta_gradient(optimizer, part, 5))


if __name__ == "__main__":
    answer = launch(everything)
    if int(os.environ["RANK"]) == 0:
        torch.save(answer, sys.argv[1])
