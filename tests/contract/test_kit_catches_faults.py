"""One seeded fault per rule: the kit must catch it and name the rule that it breaks."""

import dataclasses

import pytest
import torch
from torch import nn

from optimizers.maml import GradientDescent
from optimizers.metasgd import MetaSGD
from optimizers.testing import ContractViolation, check_inner_optimizer


def broken_rule(cls) -> str:
    with pytest.raises(ContractViolation) as caught:
        check_inner_optimizer(lambda network: cls(network, alpha=0.1))
    assert repr(caught.value.rule) in str(caught.value)
    return caught.value.rule


def test_the_sound_method_passes():
    check_inner_optimizer(lambda network: GradientDescent(network, alpha=0.1))


def test_silent_card():
    class Fault(GradientDescent):
        card = dataclasses.replace(GradientDescent.card, equation=" ")

    assert broken_rule(Fault) == "card"


def test_no_card():
    class Fault(GradientDescent):
        card = None

    assert broken_rule(Fault) == "card"


def test_noise_of_its_own():
    class Fault(GradientDescent):
        def noise(self, generator):
            return torch.rand(3)

    assert broken_rule(Fault) == "noise"


@pytest.mark.parametrize("leaf", [0, None, "first", [torch.zeros(())]])
def test_state_that_is_no_tensor(leaf):
    class Fault(GradientDescent):
        def init_state(self, noise=None):
            return super().init_state(noise) | {"seen": {"leaf": leaf}}

        def step(self, state, grads, k):
            return super().step(state, grads, k) | {"seen": state["seen"]}

    with pytest.raises(ContractViolation, match=rf"after 0 steps state\['seen'\]\['leaf'\] is {type(leaf).__name__};"):
        check_inner_optimizer(Fault)
    assert broken_rule(Fault) == "state"


def test_counter_that_begins_with_the_first_step():
    class Fault(GradientDescent):
        def step(self, state, grads, k):
            return super().step(state, grads, k) | {"k": state.get("k", 0) + 1}

    with pytest.raises(ContractViolation, match=r"after 1 steps state\['k'\] is int;"):
        check_inner_optimizer(Fault)


def test_a_counter_that_is_a_tensor_is_sound():
    class Counting(GradientDescent):
        def init_state(self, noise=None):
            count = next(self.parameters()).new_zeros((), dtype=torch.int64)
            return super().init_state(noise) | {"k": count}

        def step(self, state, grads, k):
            return super().step(state, grads, k) | {"k": state["k"] + 1}

    check_inner_optimizer(lambda network: Counting(network, alpha=0.1))


def test_wrong_keys():
    class Fault(GradientDescent):
        def params(self, state):
            return {f"network.{name}": value for name, value in state["phi"].items()}

        def loss(self, params, x, y):
            return super().loss({name.removeprefix("network."): p for name, p in params.items()}, x, y)

        def step(self, state, grads, k):
            return super().step(state, {name.removeprefix("network."): g for name, g in grads.items()}, k)

    assert broken_rule(Fault) == "keys"


def test_drops_a_key_after_the_first_step():
    class Fault(GradientDescent):
        def step(self, state, grads, k):
            phi = super().step(state, grads, k)["phi"]
            return {"phi": {name: value for name, value in phi.items() if name != "head.bias"}}

    assert broken_rule(Fault) == "keys"


def test_wrong_dtype():
    class Fault(GradientDescent):
        def step(self, state, grads, k):
            return {"phi": {name: value.double() for name, value in super().step(state, grads, k)["phi"].items()}}

    assert broken_rule(Fault) == "keys"


def test_left_on_the_cpu():
    class Fault(GradientDescent):
        def init_state(self, noise=None):
            return super().init_state(noise) | {"momentum": torch.zeros(3)}

        def step(self, state, grads, k):
            return super().step(state, grads, k) | {"momentum": state["momentum"] + 1}

    assert broken_rule(Fault) == "device"


def test_updates_in_place():
    class Fault(GradientDescent):
        def init_state(self, noise=None):
            return {"phi": {name: value.clone() for name, value in self.start().items()}}

        def step(self, state, grads, k):
            for name, value in state["phi"].items():
                value.sub_(self.alpha * grads[name])
            return {"phi": dict(state["phi"])}

    assert broken_rule(Fault) == "pure"


def test_writes_into_the_gradients():
    class Fault(GradientDescent):
        def step(self, state, grads, k):
            return super().step(state, {name: g.clamp_(-0.5, 0.5) for name, g in grads.items()}, k)

    assert broken_rule(Fault) == "pure"


def test_stores_task_state_on_itself():
    class Fault(GradientDescent):
        momentum = None

        def step(self, state, grads, k):
            last = self.momentum or {name: 0 for name in grads}
            self.momentum = {name: 0.9 * last[name] + g.detach() for name, g in grads.items()}
            return super().step(state, self.momentum, k)

    assert broken_rule(Fault) == "stateless"


def test_counts_its_steps():
    class Fault(GradientDescent):
        def __init__(self, network, **options):
            super().__init__(network, **options)
            self.seen = [0]

        def step(self, state, grads, k):
            self.seen[0] += 1
            return super().step(state, grads, k)

    assert broken_rule(Fault) == "stateless"


def test_keeps_task_state_where_no_attribute_shows_it():
    class Fault(GradientDescent):
        def step(self, state, grads, k):
            elsewhere["steps"] += 1
            return super().step(state, {name: g / elsewhere["steps"] for name, g in grads.items()}, k)

    elsewhere = {"steps": 0}
    assert broken_rule(Fault) == "stateless"


def test_raises_where_a_task_diverged():
    class Fault(GradientDescent):
        def step(self, state, grads, k):
            torch.linalg.svdvals(grads["head.weight"].detach())
            return super().step(state, grads, k)

    assert broken_rule(Fault) == "diverged"


def test_hides_that_a_task_diverged():
    class Fault(GradientDescent):
        def step(self, state, grads, k):
            return super().step(state, {name: g.nan_to_num() for name, g in grads.items()}, k)

    assert broken_rule(Fault) == "diverged"


def test_leaves_a_graph():
    class Fault(GradientDescent):
        def step(self, state, grads, k):
            with torch.enable_grad():
                return super().step(state, grads, k)

    assert broken_rule(Fault) == "graph"


def test_detaches():
    class Fault(GradientDescent):
        def step(self, state, grads, k):
            return super().step(state, {name: g.detach() for name, g in grads.items()}, k)

    assert broken_rule(Fault) == "differences"


def test_detaches_a_learned_rate():
    class Fault(MetaSGD):
        def rates(self):
            return {name: rate.detach() for name, rate in super().rates().items()}

    assert broken_rule(Fault) == "differences"


def test_control_flow_on_data():
    class Fault(GradientDescent):
        def step(self, state, grads, k):
            large = sum(g.square().sum() for g in grads.values()) > 1e9
            return super().step(state, grads, k) if not bool(large) else state

    assert broken_rule(Fault) in ("device", "vmap")  # neither `meta` tensors nor batched ones have a value to ask for


def test_differentiates_through_a_vmapped_pull_back():
    """Trace of J Jᵀ, J by vmap over the rows: right without batch norm, and wrong through torch's own."""

    class Fault(GradientDescent):
        def objective(self, task, trajectory):
            def outputs(phi):
                return self.predict(phi, task.support_x).flatten()

            value, pull = torch.func.vjp(outputs, trajectory.params)
            rows = torch.func.vmap(lambda e: pull(e)[0])(torch.eye(len(value), dtype=value.dtype, device=value.device))
            return super().objective(task, trajectory) + sum(r.square().sum() for r in rows.values()) / 100

    assert broken_rule(Fault) == "norm"


def test_dead_head():
    class Fault(GradientDescent):
        """A learned rate behind a product of two zero factors."""

        def __init__(self, network, **options):
            super().__init__(network, **options)
            zero = next(network.parameters()).new_zeros(())
            self.left, self.right = nn.Parameter(zero.clone()), nn.Parameter(zero.clone())

        def step(self, state, grads, k):
            return super().step(state, {name: (1 + self.left * self.right) * g for name, g in grads.items()}, k)

    assert broken_rule(Fault) == "alive"


def test_card_claims_death_in_vain():
    class Fault(GradientDescent):
        card = dataclasses.replace(GradientDescent.card, alive=False)

    assert broken_rule(Fault) == "alive"


def test_does_not_start_where_the_card_says():
    class Fault(GradientDescent):
        def step(self, state, grads, k):
            return super().step(state, {name: 2 * g for name, g in grads.items()}, k)

    assert broken_rule(Fault) == "start"


def test_an_exception_is_named_with_its_rule():
    class Fault(GradientDescent):
        def init_state(self, noise=None):
            raise RuntimeError("nothing here")

    with pytest.raises(ContractViolation, match=r"rule 'state' is broken: RuntimeError: nothing here"):
        check_inner_optimizer(lambda network: Fault(network))
