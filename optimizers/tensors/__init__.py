"""Arithmetic that several methods share: modes of a parameter, products along them, stopped gradients."""
