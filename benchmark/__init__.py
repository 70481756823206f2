"""How lower-level optimizers are compared: data, meta-training, measuring on new tasks, results, reports."""

__version__ = "0.2.0"
