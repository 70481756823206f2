"""What `python -m benchmark time` measures, for pytest-benchmark: ``pytest --benchmark-only tests/benchmarks``.

Compare two commits by ``--benchmark-save=NAME`` and ``--benchmark-compare``. The test command skips all of this.
"""

import pytest
import torch

import optimizers
from benchmark.engine.allocator import keep_large_buffers
from benchmark.timing import measure, peers

CPU = torch.device("cpu")
JOBS = {"32x32 C=32": peers.Job(32, 32), "84x84 C=64": peers.Job(84, 64)}


@pytest.mark.parametrize("size", list(JOBS))
@pytest.mark.parametrize("quantity", ["adapt_step", "transform", "meta_gradient", "evaluation"])
@pytest.mark.parametrize("method", optimizers.available())
def test_method(benchmark, method, quantity, size):
    keep_large_buffers()
    subject = measure.subject(method, JOBS[size], CPU)
    works = measure.works_of(method, *subject, JOBS[size], CPU, "auto", 1, measure.clock_of(CPU))
    work = next(work for work in works if work.quantity == quantity)
    benchmark.group = f"{quantity}, {size}"
    if quantity == "meta_gradient":
        benchmark.extra_info.update(measure.counts(*subject, JOBS[size], CPU, "auto"))
    if quantity == "adapt_step":
        benchmark.extra_info["steps"] = JOBS[size].steps
    benchmark.pedantic(work.run, rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("size", list(JOBS))
@pytest.mark.parametrize(("peer", "quantity"), list(peers.WORK))
def test_peer(benchmark, peer, quantity, size):
    job = JOBS[size]
    torch.manual_seed(0)
    network, task = peers.plain_cnn4(job.ways, job.image_shape, job.channels), job.task()
    benchmark.group = f"{quantity}, {size}"
    benchmark.extra_info["allocator"] = "as set for our own code"
    benchmark.pedantic(peers.WORK[peer, quantity], args=(network, task, job.steps), rounds=5, warmup_rounds=1)
