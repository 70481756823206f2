"""The rules of a GPU, tested without one, on torch's `meta` device: it holds no numbers and mixes with no other device.

Whatever runs there reads nothing back and leaves nothing on the CPU. Where the host does ask for a value, `Host`
answers in the device's place and counts the questions: on a GPU the queue runs empty at each.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import optimizers
from benchmark import data, train
from benchmark.engine.execution import Execution
from benchmark.meta_optimizer import create_meta_optimizer
from benchmark.metagrad import Task, meta_gradient
from benchmark.runs import machine
from benchmark.runs.assembly import build
from benchmark.spec import RunSpec
from benchmark.tasks import TaskStream
from benchmark.timing import measure, peers
from benchmark.training_state import Progress
from optimizers.maml import GradientDescent
from tests.engine.helpers import images

META = torch.device("meta")
SPEC = {"network": "cnn4", "ways": 3, "channels": 4, "meta_batch": 2, "steps": 2, "query_train": 2, "clip": 10.0}


class Host(TorchDispatchMode):
    """Answers 1 to every question about a `meta` tensor's value, and counts them."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        from_device = [a for a in args if isinstance(a, torch.Tensor) and a.is_meta]
        name = func.overloadpacket.__name__
        if from_device and name in ("_local_scalar_dense", "equal", "is_nonzero"):
            self.asked.append(name)
            return 1
        if from_device and name == "_to_copy" and torch.device(kwargs.get("device") or META).type == "cpu":
            self.asked.append(name)
            return torch.ones_like(args[0], device="cpu", dtype=kwargs.get("dtype"))
        if name == "copy_" and not args[0].is_meta and args[1].is_meta:
            self.asked.append(name)
            return args[0].fill_(1)
        return func(*args, **kwargs)


def meta_batch(shape=(3, 16, 16)):
    return Task(*(column.to(META) for column in vars(images(shape=shape, dtype=torch.float32)).values()))


def noise(optimizer):
    drawn = [optimizer.noise(torch.Generator().manual_seed(t)) for t in range(2)]
    return None if drawn[0] is None else torch.stack(drawn).to(META)


@pytest.mark.parametrize(("network", "recompute"), [("cnn4", False), ("cnn4", True), ("resnet12", False)])
@pytest.mark.parametrize("method", optimizers.available())
def test_the_vmapped_meta_gradient_stays_on_the_device(method, network, recompute):
    spec = RunSpec(method=method, **{**SPEC, "network": network, "channels": 2 if network == "resnet12" else 4})
    optimizer = build(spec, (3, 16, 16), META)
    steps = 1 if network == "resnet12" else 2
    loss, gradient = meta_gradient(optimizer, meta_batch(), steps, "vmap", recompute, noise=noise(optimizer))
    assert loss.is_meta
    for name, parameter in optimizer.named_parameters():
        assert gradient[name].is_meta
        assert gradient[name].shape == parameter.shape


def questions(method, data_root, strategy="vmap", **knobs):
    """What the host asks during one meta-step of training, drawing of tasks and meta-optimizer included."""
    spec = RunSpec(method=method, **{**SPEC, **knobs})
    dataset = data.load("glyphs", data_root)
    optimizer = build(spec, dataset.image_shape, META)
    meta_optimizer = create_meta_optimizer(optimizer, spec)
    stream = TaskStream.of(spec, dataset, "train")
    with Host() as host:
        train._meta_step(optimizer, meta_optimizer, stream, spec, Progress(), Execution(device=META, strategy=strategy))
    assert len(meta_optimizer.state) == len(list(optimizer.parameters()))  # it did step
    return host.asked


@pytest.mark.parametrize("method", optimizers.available())
def test_one_look_at_the_device_in_a_meta_step(method, data_root):
    assert questions(method, data_root) == ["_to_copy"]


def test_one_look_with_momentum_and_decay(data_root):
    knobs = {"meta_optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "lr_step": 1, "lr_gamma": 0.5}
    assert questions("maml", data_root, **knobs) == ["_to_copy"]


@pytest.mark.parametrize(
    "look", [lambda g: g.sum().item(), lambda g: bool(g.any()), lambda g: g.cpu(), lambda g: g.tolist(), torch.equal]
)
def test_a_further_look_is_seen(look, data_root, monkeypatch):
    original = train._batch_gradient

    def looking(*args, **how):
        mean = original(*args, **how)
        look(mean, mean) if look is torch.equal else look(mean)
        return mean

    monkeypatch.setattr(train, "_batch_gradient", looking)
    assert len(questions("maml", data_root)) == 2


def test_a_method_that_leaves_a_tensor_on_the_cpu_is_seen():
    class Fault(GradientDescent):
        def step(self, state, grads, k):
            return super().step(state, {name: g * torch.ones(g.shape) for name, g in grads.items()}, k)

    optimizer = Fault(build(RunSpec(method="maml", **SPEC), (3, 16, 16), META).network)
    with pytest.raises(RuntimeError, match="device"):
        meta_gradient(optimizer, meta_batch(), 1, "vmap")


def rounds_to_tf32():
    return torch.get_float32_matmul_precision() != "highest", torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["float32", "tf32", "float64"])
def test_products_and_convolutions_are_rounded_to_tf32_where_the_precision_says_so(precision):
    before = rounds_to_tf32()
    with Execution(precision=precision).multiplication():
        assert rounds_to_tf32() == (precision == "tf32",) * 2
    assert rounds_to_tf32() == before


def test_what_is_timed_is_not_rounded_to_tf32(monkeypatch):
    seen = []
    monkeypatch.setattr(measure, "keep_large_buffers", lambda: seen.append(rounds_to_tf32()))
    measure.measure(["maml"], [peers.Workload(16, 2, steps=1)], rounds=1)
    monkeypatch.setattr(machine, "meta_gradient", lambda *_: (seen.append(rounds_to_tf32()) or torch.zeros(()), {}))
    machine.meta_gradient_s((1, 16, 16), 2, torch.device("cpu"), rounds=1)
    assert seen == [(False, False)] * 2
