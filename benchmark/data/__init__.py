"""Data: class-indexed uint8 arrays, mapped from disk, and the episodes drawn from them.

``load`` opens a set by name, ``available`` says what there is, ``sample`` draws tasks of :class:`Episodes`. Nothing
here imports torch before a task is drawn.
"""

from benchmark.data.catalogue import available, import_dataset, load
from benchmark.data.draws import Episodes
from benchmark.data.episodes import sample
from benchmark.data.storage import Dataset, data_root

__all__ = ["Dataset", "Episodes", "available", "data_root", "import_dataset", "load", "sample"]
