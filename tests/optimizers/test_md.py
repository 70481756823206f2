"""Mirror descent: the step is taken in z by the gradient at φ; constant maps make it MetaSGD."""

import pytest
import torch

from benchmark.adapt import adapt
from optimizers import BadOption
from optimizers.contract.kit import perturb
from tests.optimizers.helpers import batch, create


@pytest.mark.parametrize("name", ["md", "md-released", "md-convex"])
def test_walks_in_the_dual_by_the_primal_gradient(name):
    """z_k = z_{k−1} − α ∇_φ L_S(g(z_{k−1})), with g called by hand and the gradient not pulled back through it."""
    method, task = create(name, alpha=0.1), batch(1)
    perturb(method, 0.05)
    x, y = task.support_x[0], task.support_y[0]
    z = {n: p.detach() for n, p in method.network.named_parameters()}
    losses = []
    for _ in range(3):
        phi = {n: p.detach().requires_grad_() for n, p in method.g(z).items()}
        loss = torch.nn.functional.cross_entropy(torch.func.functional_call(method.network, phi, (x,)), y)
        losses.append(loss.item())
        gradient = torch.autograd.grad(loss, list(phi.values()), materialize_grads=True, allow_unused=True)
        z = {n: value - 0.1 * g for (n, value), g in zip(z.items(), gradient, strict=True)}
    walked = adapt(method, x, y, steps=3)
    assert walked.nll[:3].tolist() == pytest.approx(losses, abs=1e-12)
    for key, value in method.g(z).items():
        torch.testing.assert_close(walked.params[key], value.detach(), rtol=0, atol=1e-12)
    assert set(walked.state) == {"z"}


def test_a_constant_elementwise_map_is_metasgd():
    """With a and m constant, φ_k = φ_{k−1} − (α eᵃ) ⊙ G: MetaSGD with these rates, started at φ_0 = z_0 eᵃ + m."""
    method, task = create("md", alpha=0.1, adapt="conv1.*"), batch(1)
    with torch.no_grad():
        for a, m in zip(method.g.first_scale.values(), method.g.first_shift.values(), strict=True):
            a.normal_(std=0.3)
            m.normal_(std=0.1)
    twin = create("metasgd", alpha=0.1, adapt="conv1.*")
    scale, _ = method.g.affine(method.start())
    with torch.no_grad():
        for name, start in method.params(method.init_state()).items():
            twin.rate[name.replace(".", "-")].copy_((0.1 * scale[name]).log())
            twin.network.get_parameter(name).copy_(start)
    ours, theirs = (adapt(m, task.support_x[0], task.support_y[0], steps=4) for m in (method, twin))
    torch.testing.assert_close(ours.nll, theirs.nll, rtol=0, atol=1e-12)
    for key, value in theirs.params.items():
        torch.testing.assert_close(ours.params[key], value, rtol=0, atol=1e-12)


def test_released_map_has_constant_scale_and_shift_for_every_weight():
    """Multi-mode heads never leave zero: whatever the meta-gradient, a and m of weights do not depend on z."""
    from benchmark.metagrad import meta_gradient

    for name, constant in (("md-released", True), ("md", False)):
        method = create(name, alpha=0.1)
        for step in range(4):
            _, gradients = meta_gradient(method, batch(seed=step), steps=2, strategy="loop")
            for key, parameter in method.named_parameters():
                parameter.data = parameter.data - 1e-2 * gradients[key].sign()
        start = method.start()
        elsewhere = {n: p + torch.randn_like(p) for n, p in start.items()}
        here, there = method.g.affine(start)[0], method.g.affine(elsewhere)[0]
        weights = [n for n, p in start.items() if p.dim() > 1]
        assert all(torch.equal(here[n], there[n]) for n in weights) is constant


def test_sigma_is_an_option():
    bounded = create("md", sigma="sigmoid")
    perturb(bounded, 0.5)
    scale, _ = bounded.g.affine(bounded.start())
    assert min(s.min().item() for s in scale.values()) > 0
    assert max(s.max().item() for s in scale.values()) < 2
    with pytest.raises(BadOption, match=r"sigma='sigmoyd'.*exp, sigmoid.*did you mean 'sigmoid'"):
        create("md", sigma="sigmoyd")


def test_blocks_follow_the_layers_and_what_adapts():
    assert [len(block) for block in create("md").g.blocks] == [4, 4, 4, 4, 2]
    assert create("md", adapt="body").g.blocks[-1][0] == "conv4.weight"
    assert create("md", adapt="head").g.blocks == [("head.weight", "head.bias")]
