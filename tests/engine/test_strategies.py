"""Every way to the meta-gradient is the same computation: loop, vmap, recompute, plain and fused, in float64."""

import functools

import pytest
import torch

import optimizers
from benchmark import metagrad
from benchmark.adapt import InnerLoop, adapt, unroll
from benchmark.engine import fused
from benchmark.engine.counting import peak_bytes
from benchmark.errors import UserError
from benchmark.metagrad import Task, evaluate_batch, meta_gradient
from optimizers.maml import GradientDescent
from tests.engine.helpers import NETWORKS, assert_same_gradient, images, settled

CASES = [(method, network) for network in NETWORKS for method in optimizers.available()]


@pytest.mark.parametrize(("method", "network"), CASES)
def test_all_strategies_agree(method, network):
    optimizer, batch, noise = settled(method, network)
    steps = 2 if network == "resnet12" else 3
    with fused.disabled():
        expected = meta_gradient(optimizer, batch, steps=steps, strategy="loop", noise=noise)
    assert all(torch.isfinite(g).all() for g in expected[1].values())
    for strategy in ("loop", "vmap"):
        for recompute in (False, True):
            found = meta_gradient(optimizer, batch, steps, strategy, recompute, noise=noise)
            assert not any(g.requires_grad for g in found[1].values())
            assert_same_gradient(found, expected, rtol=1e-10 if method != "ecml" else 1e-9)  # eigenvalues
    assert list(expected[1]) == [name for name, _ in optimizer.named_parameters()]


def test_a_counter_that_is_no_float_is_passed_beside_in_every_strategy():
    """Momentum with bias correction by a whole number of steps, whose state nests a counter among what moves."""

    class Corrected(GradientDescent):
        def init_state(self, noise=None):
            phi = self.start()
            zero = {name: torch.zeros_like(p) for name, p in phi.items()}
            count = next(iter(phi.values())).new_zeros((), dtype=torch.int64)
            return {"moments": {"k": count, "v": zero}, "phi": phi}

        def step(self, state, grads, k):
            k = state["moments"]["k"] + 1
            v = {name: 0.9 * state["moments"]["v"][name] + 0.1 * g for name, g in grads.items()}
            phi = self.descend(state["phi"], {name: g / (1 - 0.9**k) for name, g in v.items()})
            return {"moments": {"k": k, "v": v}, "phi": phi}

    _, batch, _ = settled("maml")
    torch.manual_seed(0)
    optimizer = Corrected(NETWORKS["cnn4"][0](), alpha=0.1).double()
    expected = meta_gradient(optimizer, batch, 3, "loop")
    assert_same_gradient(meta_gradient(optimizer, batch, 3, "vmap"), expected)
    for strategy in ("loop", "vmap"):
        assert_same_gradient(meta_gradient(optimizer, batch, 3, strategy, recompute=True), expected)


def test_the_same_twice():
    optimizer, batch, noise = settled("md")
    first, second = (meta_gradient(optimizer, batch, 3, noise=noise)[1] for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("method", ["maml", "mtnet", "md"])
def test_evaluation_agrees_with_its_definition(method, network):
    """Traces and scores against a loop written out here, for both strategies and beyond K."""
    optimizer, batch, noise = settled(method, network)
    own = getattr(optimizer.network, "loss", torch.nn.functional.cross_entropy)
    for strategy in ("loop", "vmap"):
        found = evaluate_batch(optimizer, batch, 2, strategy, noise, trace_steps=4)
        assert all(not column.requires_grad for column in found)
        for t, task in enumerate(metagrad.tasks(batch)):
            state = optimizer.init_state(None if noise is None else noise[t])
            for k in range(5):
                phi = {name: p.detach().requires_grad_() for name, p in optimizer.params(state).items()}
                loss = own(optimizer.predict(phi, task.support_x), task.support_y)
                grads = torch.autograd.grad(loss, list(phi.values()), allow_unused=True)
                pairs = zip(phi.items(), grads, strict=True)
                full = {n: torch.zeros_like(p) if g is None else g for (n, p), g in pairs}
                norm = torch.cat([g.flatten() for g in full.values()]).norm()
                torch.testing.assert_close(found.support_nll[t, k], loss.detach(), rtol=1e-10, atol=0)
                torch.testing.assert_close(found.grad_norm[t, k], norm, rtol=1e-10, atol=1e-14)
                if k == 2:
                    outputs = optimizer.predict(phi, task.query_x)
                    torch.testing.assert_close(found.nll[t], own(outputs, task.query_y).detach(), rtol=1e-10, atol=0)
                    if network != "sine-mlp":
                        assert float(found.accuracy[t]) == float((outputs.argmax(-1) == task.query_y).double().mean())
                    else:
                        assert found.accuracy[t].isnan()
                state = optimizer.step(state, full, k)


def test_adapt_gives_trace_and_end_point():
    optimizer, batch, _ = settled("maml")
    task = metagrad.tasks(batch)[0]
    short = adapt(optimizer, task.support_x, task.support_y, steps=3)
    assert short.nll.shape == short.grad_norm.shape == (4,)
    assert short.visited == ()
    kept = unroll(optimizer, task.support_x, task.support_y, InnerLoop(3, create_graph=True, trace=False))
    assert len(kept.visited) == 4
    assert kept.nll.numel() == 0
    for name, value in kept.params.items():
        assert value.requires_grad
        torch.testing.assert_close(value.detach(), short.params[name], rtol=1e-12, atol=1e-14)
    assert adapt(optimizer, task.support_x, task.support_y, steps=0).nll.shape == (1,)


def test_frozen_and_unused_meta_parameters_get_zeros():
    optimizer, batch, _ = settled("maml")
    frozen = optimizer.network.conv2.weight.requires_grad_(False)
    for strategy in ("loop", "vmap"):
        gradient = meta_gradient(optimizer, batch, 2, strategy)[1]
        assert gradient["network.conv2.weight"].shape == frozen.shape
        assert not gradient["network.conv2.weight"].any()
        assert gradient["network.conv3.weight"].any()
        assert not gradient["network.conv1.bias"].any()


def test_no_tasks_are_no_gradient_and_no_rows():
    optimizer, batch, _ = settled("maml")
    none = Task(*(column[:0] for column in vars(batch).values()))
    for strategy in ("loop", "vmap"):
        loss, gradient = meta_gradient(optimizer, none, 2, strategy)
        assert float(loss) == 0
        assert not any(g.any() for g in gradient.values())
        found = evaluate_batch(optimizer, none, 2, strategy, trace_steps=3)
        assert [tuple(column.shape) for column in found] == [(0,), (0,), (0, 4), (0, 4)]


def test_unknown_strategy_is_a_user_error():
    optimizer, batch, _ = settled("maml")
    with pytest.raises(UserError, match=r"no strategy 'lop' \(did you mean 'loop'\?\)"):
        meta_gradient(optimizer, batch, 1, "lop")


# What is not built


def second_derivatives(monkeypatch, work):
    """How often the fused block's second derivative ran."""
    calls = []
    original = fused._BlockSecond.apply
    monkeypatch.setattr(fused._BlockSecond, "apply", lambda *args: calls.append(1) or original(*args))
    work()
    return len(calls)


def test_first_order_and_evaluation_build_no_second_order_graph(monkeypatch):
    second, batch, _ = settled("maml")
    steps, blocks, tasks = 3, 4, 2
    for estimator, exact in (("exact", steps), ("truncated:2", 2), ("truncated:1", 1), ("first-order", 0)):
        work = functools.partial(meta_gradient, second, batch, steps, estimator=estimator)
        assert second_derivatives(monkeypatch, work) == exact * blocks * tasks

    created = []
    original = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: created.append(bool(k.get("create_graph"))) or original(*a, **k)
    )
    meta_gradient(second, batch, steps, estimator="first-order")
    evaluate_batch(second, batch, steps)
    assert created
    assert not any(created)


def test_training_makes_no_extra_passes(monkeypatch):
    """K support passes and one query pass a task; evaluation with its trace K + 1 and one."""
    optimizer, batch, _ = settled("maml")
    sizes = []
    original = fused.conv_norm_relu_pool
    monkeypatch.setattr(fused, "conv_norm_relu_pool", lambda x, *args: sizes.append(len(x)) or original(x, *args))
    meta_gradient(optimizer, batch, 3)
    assert (sizes.count(6), sizes.count(9)) == (4 * 3 * 2, 4 * 1 * 2)
    sizes.clear()
    evaluate_batch(optimizer, batch, 3)
    assert (sizes.count(6), sizes.count(9)) == (4 * 4 * 2, 4 * 1 * 2)


# Memory, by counting what is allocated


def memory(steps, work):
    optimizer, _, _ = settled("maml")
    batch = images(shape=(3, 20, 20), shots=8, queries=8, count=1)
    return peak_bytes(lambda: work(optimizer, batch, steps))


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_recompute_is_flat_in_steps(strategy):
    def flat(optimizer, batch, steps):
        meta_gradient(optimizer, batch, steps, strategy, recompute=True)

    def kept(optimizer, batch, steps):
        meta_gradient(optimizer, batch, steps, strategy)

    states = 18 * sum(p.numel() for p in settled("maml")[0].parameters()) * 8  # all there are
    few, many = memory(2, flat), memory(20, flat)
    assert many - few < 2.2 * states  # the states and their cotangents
    assert many < 1.1 * few
    assert memory(20, kept) > 3 * many


def test_evaluation_is_flat_in_steps_and_first_order_nearly():
    def evaluate(optimizer, batch, steps):
        evaluate_batch(optimizer, batch, steps)

    assert memory(20, evaluate) < 1.02 * memory(2, evaluate)
    states = 18 * sum(p.numel() for p in settled("maml")[0].parameters()) * 8
    first_order = functools.partial(meta_gradient, estimator="first-order")
    few, many = (memory(steps, first_order) for steps in (2, 20))
    assert many - few < 2.2 * states


def test_nothing_is_left_after_a_task():
    """No graph, no state: what is alive after an evaluation or a meta-gradient is what it returned."""
    optimizer, batch, _ = settled("md")
    for work in (lambda: evaluate_batch(optimizer, batch, 1), lambda: meta_gradient(optimizer, batch, 1)[0]):
        once = peak_bytes(work)
        thrice = peak_bytes(lambda work=work: [work() for _ in range(3)])
        assert thrice < 1.01 * once


def test_chunks_are_halved_until_they_fit():
    seen, tried = [], []

    def part(rows):
        tried.append(len(range(7)[rows]))
        if rows.stop - rows.start > 2:
            raise torch.OutOfMemoryError("too large")
        seen.append(list(range(7))[rows])

    fitted: dict[int, int] = {}
    list(metagrad.in_chunks(part, 7, fitted))
    assert seen == [[0, 1], [2, 3], [4, 5], [6]]
    assert tried == [7, 4, 2, 2, 2, 1]
    list(metagrad.in_chunks(part, 7, fitted))
    assert seen[4:] == seen[:4]
    assert tried[6:] == [2, 2, 2, 1], "what did not fit is not tried again"

    def never(rows):
        raise torch.OutOfMemoryError("too large")

    with pytest.raises(torch.OutOfMemoryError):
        list(metagrad.in_chunks(never, 3, {}))


def test_uneven_chunks_weigh_by_their_tasks(monkeypatch):
    optimizer, batch, _ = settled("maml", count=5)
    expected = meta_gradient(optimizer, batch, 2, "loop")
    real, sizes = metagrad.over_tasks, []

    def small(one, batch, rows, noise, **how):
        if rows.stop - rows.start > 2:
            raise torch.OutOfMemoryError("too large")
        sizes.append(len(batch.support_x[rows]))
        return real(one, batch, rows, noise, **how)

    monkeypatch.setattr(metagrad, "over_tasks", small)
    assert_same_gradient(meta_gradient(optimizer, batch, 2, "vmap"), expected)
    assert sizes == [2, 2, 1]


class PerStepRate(GradientDescent):
    """φ_{k+1} = φ_k − a_k G with one learned rate a step; beyond the last it stays at that one."""

    def __init__(self, network, **options):
        super().__init__(network, **options)
        self.rate = torch.nn.Parameter(torch.tensor([0.3, 0.1, 0.02], dtype=torch.float64))

    def step(self, state, grads, k):
        rate = self.rate[min(k, 2)]
        return {"phi": {name: value - rate * grads[name] for name, value in state["phi"].items()}}


def test_a_step_knows_its_number_in_every_strategy_and_beyond_the_horizon():
    optimizer, batch, _ = settled("maml", "sine-mlp")
    optimizer = PerStepRate(optimizer.network)
    task = metagrad.tasks(batch)[0]
    phi = {name: p.detach() for name, p in optimizer.start().items()}
    losses = []
    for rate in (0.3, 0.1, 0.02, 0.02):
        phi = {name: p.requires_grad_() for name, p in phi.items()}
        loss = optimizer.loss(phi, task.support_x, task.support_y)
        losses.append(loss.item())
        found = torch.autograd.grad(loss, list(phi.values()))
        phi = {name: (p - rate * g).detach() for (name, p), g in zip(phi.items(), found, strict=True)}
    walked = unroll(optimizer, task.support_x, task.support_y, InnerLoop(2, trace_steps=4))
    assert walked.nll[:4].tolist() == pytest.approx(losses, abs=1e-12)
    _, expected = meta_gradient(optimizer, batch, 3, "loop")
    assert expected["rate"].ne(0).all()
    for strategy, recompute in (("vmap", False), ("loop", True), ("vmap", True)):
        _, gradients = meta_gradient(optimizer, batch, 3, strategy, recompute)
        torch.testing.assert_close(gradients["rate"], expected["rate"], rtol=1e-10, atol=1e-13)
