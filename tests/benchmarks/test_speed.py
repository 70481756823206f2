"""What `python -m benchmark time` measures, for pytest-benchmark: ``pytest --benchmark-only tests/benchmarks``.

Compare two commits by ``--benchmark-save=NAME`` and ``--benchmark-compare``. The test command skips all of this.
"""

import pytest
import torch

import optimizers
from benchmark import report
from benchmark.engine.allocator import keep_large_buffers
from benchmark.report.published import TABLE_1
from benchmark.runs.store import load_runs
from benchmark.timing import measure, peers
from tests.report.builder import build_run
from tests.robustness.test_load import many

CPU = torch.device("cpu")
WORKLOADS = {"32x32 C=32": peers.Workload(32, 32), "84x84 C=64": peers.Workload(84, 64)}


@pytest.mark.parametrize("size", list(WORKLOADS))
@pytest.mark.parametrize("quantity", ["adapt_step", "transform", "meta_gradient", "evaluation"])
@pytest.mark.parametrize("method", optimizers.available())
def test_method(benchmark, method, quantity, size):
    keep_large_buffers()
    subject = measure.subject(method, WORKLOADS[size], CPU)
    measurements = measure.measurements_of(method, *subject, WORKLOADS[size], CPU, "auto", 1, measure.clock_of(CPU))
    work = next(work for work in measurements if work.quantity == quantity)
    benchmark.group = f"{quantity}, {size}"
    if quantity == "meta_gradient":
        benchmark.extra_info.update(measure.counts(*subject, WORKLOADS[size], CPU, "auto"))
    if quantity == "adapt_step":
        benchmark.extra_info["steps"] = WORKLOADS[size].steps
    benchmark.pedantic(work.run, rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("size", list(WORKLOADS))
@pytest.mark.parametrize(("peer", "quantity"), list(peers.WORK))
def test_peer(benchmark, peer, quantity, size):
    workload = WORKLOADS[size]
    torch.manual_seed(0)
    network, task = peers.plain_cnn4(workload.ways, workload.image_shape, workload.channels), workload.task()
    benchmark.group = f"{quantity}, {size}"
    benchmark.extra_info["allocator"] = "as set for our own code"
    benchmark.pedantic(peers.WORK[peer, quantity], args=(network, task, workload.steps), rounds=5, warmup_rounds=1)


def test_listing(benchmark, tmp_path):
    """The states of 200 runs, as ``status`` reads them."""
    many(tmp_path, 200)
    benchmark.group = "listing"
    benchmark.pedantic(load_runs, args=(tmp_path,), rounds=5, warmup_rounds=1)


def test_report(benchmark, tmp_path):
    """A report on 160 runs of 1,000 tasks: eight methods, two data sets, two numbers of shots, five seeds."""
    for method in dict.fromkeys(method for method, _ in TABLE_1):
        for dataset in ("glyphs", "cifar-fs"):
            for shots in (1, 5):
                for seed in range(5):
                    build_run(tmp_path / "results", method, dataset=dataset, shots=shots, seed=seed, tasks=1000)
    benchmark.group = "report"
    benchmark.pedantic(report.write, args=(tmp_path / "results", tmp_path / "reports"), rounds=1)
