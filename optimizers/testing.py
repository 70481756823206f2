"""The contract kit under the name that plug-in authors import it by; see :mod:`optimizers.contract`."""

from optimizers.contract import ContractViolation, Finding, check_inner_optimizer, small_network, small_task

__all__ = ["ContractViolation", "Finding", "check_inner_optimizer", "small_network", "small_task"]
