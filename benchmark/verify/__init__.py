"""Proof of a method: its derivatives against independent ones, and the geometry of the update that it learned."""
