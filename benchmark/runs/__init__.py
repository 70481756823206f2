"""Runs: what is due, one run from its claim to its end, what it leaves on disk; tunings and studies made of them."""
