"""How fast: fused blocks, task gradients by transforms, processes, memory, graceful shutdown.

Used by the science, of which it knows nothing but the contract of an optimizer.
"""
