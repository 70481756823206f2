"""Trees of folders and files as nobody would make them: an import accounts for every file, or says one line."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmark import data
from benchmark.data import catalogue
from benchmark.data.importing import summary
from benchmark.data.importing.build import Imported
from benchmark.errors import UserError
from benchmark.screen import one_line

SOME = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def picture(kind: str, size: tuple[int, int], mode: str, value: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.full((*size[::-1], 4), value % 256, np.uint8)
    exif = Image.Exif()
    exif[0x0112] = value % 9
    Image.fromarray(pixels).convert(mode).save(stream, kind, exif=exif)
    return stream.getvalue()


WORDS = ("train", "val", "test", "eval", "images", "a", "b", "c", "d", "e", "BACKGROUND_Google", ".git", "__MACOSX")
ODD = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=4)
FOLDER = st.sampled_from(WORDS) | ODD.filter(lambda name: name not in (".", ".."))
SUFFIX = st.sampled_from([".png", ".jpg", ".JPEG", ".bmp", ".tif", ".txt", "", ".zip", ".parquet", "_annotations.txt"])
NAME = st.builds(str.__add__, st.sampled_from(["0", "1", "val", "x\ny", "\x1b[2J", "é"]), SUFFIX)
GOOD = st.builds(
    picture,
    st.sampled_from(["png", "tiff", "webp"]),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from(["RGB", "L", "RGBA"]),
    st.integers(0, 255),
)
BROKEN = st.binary(max_size=40) | GOOD.map(lambda content: content[: len(content) // 2]) | st.just(b"val.png\ta\n")
FILE = st.tuples(st.just("file"), GOOD | GOOD | GOOD | BROKEN)
LINK = st.tuples(
    st.sampled_from(["link", "pipe", "folder", "closed"]), st.sampled_from([".", "..", "gone", "../a", "/dev/zero"])
)
PATH = st.lists(FOLDER, min_size=0, max_size=3).map("/".join)
TREE = st.dictionaries(st.tuples(PATH, NAME), FILE | FILE | FILE | LINK, max_size=24)
REGULAR = st.fixed_dictionaries({
    (f"{part}/{label}", f"{number}.png"): st.tuples(st.just("file"), GOOD)
    for part, label in (("train", "a"), ("train", "b"), ("val", "c"), ("test", "d")) for number in (0, 1)
})  # fmt: skip
TREES = TREE | st.builds(lambda whole, more: whole | more, REGULAR, TREE)
OPTIONS = st.fixed_dictionaries(
    {}, optional={"image_size": st.integers(-2, 9), "split_seed": st.integers(-1, 3), "grey": st.booleans()}
)


def plant(top: Path, tree: dict[tuple[str, str], tuple[str, Any]]) -> None:
    """Make the tree, as far as names and the system allow."""
    for (folder, name), (kind, content) in tree.items():
        path = top / folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                path.write_bytes(content)
            elif kind == "link":
                path.symlink_to(content)
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                path.mkdir()
                if kind == "closed":
                    path.chmod(0)
        except OSError:
            continue


def files_of(top: Path) -> set[str]:
    """Everything below `top` that is no folder, as an import names it; folders that are hidden count as one."""
    found = set()
    for entry in os.scandir(top):
        hidden = entry.name.startswith(".") or entry.name == "__MACOSX"
        if entry.is_dir(follow_symlinks=False):
            below = set() if hidden else {f"{entry.name}/{name}" for name in files_of(Path(entry.path))}
            found |= {entry.name + "/"} if hidden else below
        else:
            found.add(entry.name)
    return found


@SOME
@given(TREES, OPTIONS)
def test_every_tree_ends_in_a_summary_of_all_files_or_in_one_line(tree: Any, options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top, root = Path(folder) / "top", Path(folder) / "root"
        top.mkdir()
        plant(top, tree)
        try:
            done: Imported = catalogue.import_dataset("mine", top, root, **options)
        except UserError as error:
            event("refused")
            said = one_line(str(error))
            assert len(said.splitlines()) == 1
            assert not (root / "mine" / "index.json").exists()
            return
        event("imported")
        dataset = data.load("mine", root)
        assert len(dataset.images) == done.images == sum(c.count for c in dataset.classes)
        assert all(dataset.splits.values())
        named = {name.rstrip("/") for name in done.left_out}
        assert done.images + len(done.bad) + len(named) == len(files_of(top))
        lines = [one_line(line) for line in summary.lines(done, dataset)]
        assert all(len(line.splitlines()) == 1 for line in lines)
        assert sum("left out" in line for line in lines) >= bool(named)
