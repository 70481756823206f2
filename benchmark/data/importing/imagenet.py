"""miniImageNet and tieredImageNet, in the forms in which they are passed around.

miniImageNet (Vinyals et al. 2016; the split of Ravi & Larochelle 2017) is 100 synsets of 600 images, 64 / 16 / 20. Its
CSVs name image k of a synset ``n01532829`` + ``0000000k`` + ``.jpg``, where k counts the synset's ILSVRC2012 training
files in numerical order from one; so the set can be cut from an ILSVRC2012 tree. tieredImageNet (Ren et al. 2018) is
608 synsets, all their training images, 351 / 97 / 160, split by higher category. Neither has any of ILSVRC2012's
validation images, which many trees hold in folders of the same synsets.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

import numpy as np

from benchmark.data.importing.build import ImportPlan, PlannedClass
from benchmark.data.importing.decode import ImageFormat
from benchmark.data.importing.formats import (
    Lists,
    by_label,
    class_lists,
    complete,
    images_by,
    listed,
    load_pickle,
    parent,
    pick,
    split_pickles,
    split_rows,
    unique,
)
from benchmark.data.importing.layout import PARTS
from benchmark.data.importing.sources import Source, read_text
from benchmark.data.importing.tables import Tables
from benchmark.data.storage import SPLITS
from benchmark.errors import UserError

PER_CLASS = 600
Table = dict[str, dict[str, list[str]]]  # split → synset → file names as in the CSVs


def official_table() -> Table:
    """The CSVs of Ravi & Larochelle, kept as gaps between successive numbers."""
    table: Table = {split: {} for split in SPLITS}
    for split, synset, *gaps in split_rows("miniimagenet"):
        number, names = 0, []
        for gap in gaps:
            number += int(gap)
            names.append(f"{synset}{number:08d}.jpg")
        table[split][synset] = names
    return table


def csv_table(source: Source, found: dict[str, str]) -> Table:
    """The user's own ``train.csv``, ``val.csv`` and ``test.csv`` with columns filename and label."""
    table: Table = {split: {} for split in SPLITS}
    for split in SPLITS:
        rows = csv.DictReader(io.StringIO(read_text(source, found[split])))
        if not {"filename", "label"} <= set(rows.fieldnames or ()):
            raise UserError(f"{found[split]}: expected the columns filename and label, found {rows.fieldnames}")
        for row in rows:
            if not row["filename"] or not row["label"]:
                raise UserError(f"{found[split]}: line {rows.line_num} has no filename or no label; give both")
            table[split].setdefault(row["label"], []).append(row["filename"])
    return table


def mini_imagenet(source: Source, image_format: ImageFormat) -> ImportPlan:
    """Cache pickles, split pickles, CSVs with images, an ILSVRC2012 tree, synset folders, or Parquet files."""
    caches = pick(source, r"mini-imagenet-cache-(train|val|test)\.(?:pkl|pickle)")
    if complete(caches, source):
        return ImportPlan("mini-imagenet-cache pickles", image_format, _caches(source, caches))
    if (plan := split_pickles(source, image_format, class_lists("miniimagenet"), "miniImageNet")) is not None:
        return plan
    csvs = pick(source, r"(train|val|test)\.csv")
    table = csv_table(source, csvs) if complete(csvs, source) else official_table()
    if isinstance(source, Tables):
        return _tables(source, image_format, table)
    lists = {split: list(names) for split, names in table.items()}
    folders, left_out = _training_images(source, lists, "miniImageNet")
    if not folders:
        return ImportPlan("CSVs and images", image_format, iter([_flat(source, table)]))
    planned, form = listed(folders, lists, source, "miniImageNet"), "synset folders"
    if any(_is_ilsvrc(names) for names in folders.values()):
        planned, form = _cut(planned, table, source), "ILSVRC2012 tree, cut by the CSVs"
    return ImportPlan(form, image_format, iter([planned]), left_out=left_out)


def _training_images(source: Source, lists: Lists, what: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Images by synset of `lists`, less what is not of ILSVRC2012's training set; and that, with the reason.

    Left out are its validation images, by their names, and the files of another part than ``train`` of a synset that
    ``train`` has too, unless they have names of training images (``n01532829_7.JPEG``) that ``train`` does not have:
    some keep a few of each class apart.
    """
    known = {synset for names in lists.values() for synset in names}
    folders: dict[str, list[str]] = {}
    left_out: dict[str, str] = {}
    for synset, names in images_by(source, parent).items():
        if synset not in known:
            continue
        places = [name.rpartition("/") for name in names]
        parts = {folder: _part(folder) for folder, _, _ in places}
        train = {file for folder, _, file in places if parts[folder] == "train"}
        own = re.compile(rf"{re.escape(synset)}_?\d+\.")
        for name, (folder, _, file) in zip(names, places, strict=True):
            part = parts[folder]
            if file.lower().startswith("ilsvrc2012_val_"):
                left_out[name] = f"of ILSVRC2012's validation images, which {what} does not have"
            elif train and part not in ("", "train") and (file in train or not own.match(file)):
                left_out[name] = f"of the part {part}, whose images {what} does not have"
            else:
                folders.setdefault(synset, []).append(name)
    return folders, left_out


def _part(folder: str) -> str:
    """The part that the nearest folder above a class folder names; empty where none does."""
    return next((PARTS[word] for word in reversed(folder.lower().split("/")[:-1]) if word in PARTS), "")


def _tables(source: Tables, image_format: ImageFormat, table: Table) -> ImportPlan:
    """Parquet files whose labels are synsets, such as those of ``timm/mini-imagenet``: split anew by the lists.

    That set's train and validation parts hold 500 and 100 images of each class; its test part holds 50 more, of
    ILSVRC2012's validation images, which are not among miniImageNet's 600.
    """
    lists = {split: list(names) for split, names in table.items()}
    known, left_out = {synset for names in lists.values() for synset in names}, {}
    parts: dict[str, set[str]] = {}
    for name in source.sizes:
        *part, synset, _ = ["", *name.split("/")]
        parts.setdefault(part[-1], set()).add(synset)
    more = parts.get("test", set()) & parts.get("train", set())
    groups: dict[str, list[str]] = {}
    for name in sorted(source.sizes, key=lambda each: (each.rpartition("/")[2], each)):
        *part, synset, _ = ["", *name.split("/")]
        if synset not in known:
            left_out[name] = f"of class {synset or 'none'}, which is in no list of miniImageNet"
        elif part[-1] == "test" and synset in more:
            left_out[name] = "of the part test, whose images miniImageNet does not have"
        else:
            groups.setdefault(synset, []).append(name)
    planned = listed(groups, lists, source, "miniImageNet")
    how = "the official one (Ravi & Larochelle), whatever the parts of the tables"
    return ImportPlan("Parquet files", image_format, iter([planned]), split=how, left_out=left_out)


def _is_ilsvrc(names: list[str]) -> bool:
    """More files than miniImageNet has, under ILSVRC's own names."""
    return len(names) > PER_CLASS and all(re.search(r"n\d{8}_\d+\.jpe?g$", name, re.I) for name in names)


def _caches(source: Source, found: dict[str, str]) -> Iterator[list[PlannedClass]]:
    for split in SPLITS:
        content = load_pickle(source, found[split], "image_data", "class_dict")
        images = content["image_data"]
        if not isinstance(images, np.ndarray) or images.ndim != 4:
            raise UserError(f"{found[split]}: expected image_data of shape [N, H, W, 3], found {np.shape(images)}")
        planned = []
        for synset, rows in content["class_dict"].items():
            if len(rows) and not 0 <= min(rows) <= max(rows) < len(images):
                raise UserError(f"{found[split]}: class_dict of {synset} points outside its {len(images)} images")
            planned.append(PlannedClass(str(synset), split, images[list(rows)]))
        yield planned


def _flat(source: Source, table: Table) -> list[PlannedClass]:
    """Images named as in the CSVs, in one folder."""
    where = {name.rsplit("/", 1)[-1]: name for name in source.sizes}
    wanted = [file for synsets in table.values() for files in synsets.values() for file in files]
    lost = [file for file in wanted if file not in where]
    if lost:
        raise UserError(
            f"{source.path.name}: {len(lost)} of the {len(wanted)} images of miniImageNet are not there, first "
            f"{lost[0]}; expected cache pickles, images/ with the CSVs, synset folders, an ILSVRC2012 train folder, or "
            "Parquet files"
        )
    return [
        PlannedClass(synset, split, [where[file] for file in files])
        for split, synsets in table.items()
        for synset, files in synsets.items()
    ]


def _cut(whole: list[PlannedClass], table: Table, source: Source) -> list[PlannedClass]:
    """The images that the CSVs number, out of all files of each synset in numerical order."""
    cut = []
    for c in whole:
        files = sorted(map(str, c.images), key=lambda name: int(re.findall(r"\d+", name)[-1]))
        numbers = [_number(file, c.split, source) for file in table[c.split][c.name]]
        if max(numbers) > len(files):
            raise UserError(
                f"{c.name} in {source.path.name} has {len(files)} files, the CSVs ask for number {max(numbers)}; "
                "expected the whole ILSVRC2012 training folder"
            )
        cut.append(PlannedClass(c.name, c.split, [files[number - 1] for number in numbers]))
    return cut


def _number(file: str, split: str, source: Source) -> int:
    """k of a name of the CSVs."""
    found = re.search(r"(\d{8})\.", file)
    if found is None or not int(found[1]):
        raise UserError(
            f"{split}.csv in {source.path.name} lists {file!r}, which numbers no image; expected eight digits, from "
            "00000001 on, before a dot, as in n0153282900000005.jpg; without CSVs the official ones are taken"
        )
    return int(found[1])


def tiered_imagenet(source: Source, image_format: ImageFormat) -> ImportPlan:
    """``{split}_images_png.pkl`` with ``{split}_labels.pkl``, or synset folders (an ILSVRC2012 tree among them)."""
    images = pick(source, r"(?:.*-)?(train|val|test)_images_png\.pkl")
    if complete(images, source):
        labels = pick(source, r"(?:.*-)?(train|val|test)_labels\.pkl")
        if not complete(labels, source):
            raise UserError(f"{source.path.name} has {images['train']} but no train_labels.pkl beside it")
        return ImportPlan("PNG pickles", image_format, _png_pickles(source, images, labels))
    lists = class_lists("tieredimagenet")
    folders, left_out = _training_images(source, lists, "tieredImageNet")
    planned = listed(folders, lists, source, "tieredImageNet")
    return ImportPlan("synset folders", image_format, iter([planned]), left_out=left_out)


def _png_pickles(source: Source, images: dict[str, str], labels: dict[str, str]) -> Iterator[list[PlannedClass]]:
    taken: set[str] = set()
    for split in SPLITS:
        table = load_pickle(source, labels[split], "label_specific")
        names = table.get("label_specific_str") or []
        encoded = load_pickle(source, images[split])
        if not isinstance(encoded, list):
            raise UserError(f"{images[split]}: expected a list of PNG-encoded images, found {type(encoded).__name__}")
        numbered = {number: str(name) for number, name in enumerate(names)}
        yield unique(by_label(encoded, table["label_specific"], numbered, split), taken)
