"""The contract kit: is this lower-level optimizer right, and if not, which rule does it break?

    check_inner_optimizer(lambda network: MyOptimizer(network, alpha=0.1))

runs the contract of :mod:`optimizers.base` on small smooth networks in float64, one with batch norm among them, rule by
rule, the plain ones first, and raises :class:`ContractViolation`, which names the broken rule, at the first that fails.
It needs nothing but the method: no data set, no training. What was measured comes back as a list of :class:`Finding`.
"""

from __future__ import annotations

import torch

from optimizers.contract.kit import ContractViolation, Factory, Finding
from optimizers.contract.rules import RULES
from optimizers.contract.small import small_network, small_task

__all__ = ["ContractViolation", "Finding", "check_inner_optimizer", "small_network", "small_task"]


def check_inner_optimizer(factory: Factory) -> list[Finding]:
    """Run every rule on what `factory` makes of a network; the findings, or the first :class:`ContractViolation`.

    `factory` is called once per rule with a fresh network and must make the same method each time.
    """
    findings = []
    for rule, check in RULES.items():
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                detail, error = check(factory)
        except ContractViolation:
            raise
        except Exception as problem:
            raise ContractViolation(rule, f"{type(problem).__name__}: {problem}") from problem
        findings.append(Finding(rule, detail, error))
    return findings
