"""From the forms in which images come, archives, pickles and folders, to one class-indexed array."""

from collections.abc import Callable

ProgressCallback = Callable[[int, int], None]
"""(done, known of so far) of images or bytes; 0 where the whole is not known."""
