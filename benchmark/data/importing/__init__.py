"""From the forms in which images come, archives, pickles and folders, to one class-indexed array."""
