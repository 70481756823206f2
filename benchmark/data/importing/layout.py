"""What folders of images say about classes and parts, and what they leave open.

The class of an image is the folder it lies in, less what all class folders share: leading folders, a part
(``train``, ``val``, ``test``), and a last folder such as ``images`` in every class (Tiny-ImageNet is published so). A
part whose images lie in no class folders has no labels, unless a ``*_annotations.txt`` beside them has. Nothing is
guessed: what can be read in two ways is a :class:`UserError` that says how to settle it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmark.data.importing.decode import IMAGE_SUFFIXES
from benchmark.data.importing.sources import Source, read_text
from benchmark.errors import UserError

PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "eval": "val", "evaluation": "val", "test": "test", "testing": "test",
}  # fmt: skip
"""Folder names, in lower case, that say of what part of a split their classes are."""

NO_CLASS = {"images", "image", "imgs", "img", "pictures", "photos", "jpg", "jpeg", "jpegs", "jpegimages", "png", "data"}
"""Folder names that say nothing about what their pictures show."""

CLUTTER = {"BACKGROUND_Google": "Caltech-101", "257.clutter": "Caltech-256"}
"""Folders of pictures of no class, by the set that has them."""

NESTED = "move the inner images, or take them away"


@dataclass
class Layout:
    """Classes by part (``""`` where there are no parts), each with its files in order, and what is of no class."""

    parts: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    folders: dict[str, set[str]] = field(default_factory=dict)
    """The folder names from which each part was made."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Image files without a place, with the reason."""

    @property
    def classes(self) -> dict[str, list[str]]:
        """All classes, their images gathered from every part."""
        gathered: dict[str, list[str]] = {}
        for part in self.parts.values():
            for label, names in part.items():
                gathered.setdefault(label, []).extend(names)
        return gathered


def read_layout(source: Source) -> Layout:
    """The layout of the images in a source."""
    layout, groups = Layout(), dict[str, list[str]]()
    for name in sorted(source.sizes):
        if not name.lower().endswith(IMAGE_SUFFIXES):
            continue
        folder = name.rpartition("/")[0]
        clutter = CLUTTER.get(folder.rpartition("/")[2])
        if not folder:
            layout.left_out[name] = "an image in no class folder"
        elif clutter:
            layout.left_out[name] = f"pictures of no class of {clutter}"
        else:
            groups.setdefault(folder, []).append(name)
    leading = _leading([folder.split("/") for folder in groups])
    below = {folder: folder.split("/")[leading:] for folder in groups}
    has_parts = any(len(words) > 1 and words[0].lower() in PARTS for words in below.values())
    by_part: dict[str, dict[str, list[str]]] = {}  # part → class folder, as it is below the part → files
    for folder, words in below.items():
        part = PARTS.get(words[0].lower(), "") if has_parts else ""
        layout.folders.setdefault(part, set()).add(words[0])
        label = "/".join(words[1:] if part else words)
        by_part.setdefault(part, {}).setdefault(label, []).extend(groups[folder])
    annotations = _annotations(source, {"/".join(folder.split("/")[:leading]) for folder in groups}, has_parts)
    for part, labelled in by_part.items():
        unlabelled = [label for label in labelled if part and (not label or _alone(label, labelled))]
        flat = [name for label in unlabelled for name in labelled.pop(label)]
        found = _without_last(labelled)
        for label, names in _annotate(flat, annotations.get(part), layout.left_out).items():
            found.setdefault(label, []).extend(names)
        if found:
            layout.parts[part] = {label: _in_order(names) for label, names in found.items()}
            _require_one_depth(layout.parts[part], source)
    return layout


def _leading(folders: list[list[str]]) -> int:
    """How many leading folders all class folders share; their own names and those of parts are not counted."""
    shared = 0
    while folders and all(len(words) > shared + 1 for words in folders) and len({w[shared] for w in folders}) == 1:
        if folders[0][shared].lower() in PARTS:
            break
        shared += 1
    return shared


def _alone(label: str, labels: Iterable[str]) -> bool:
    """Whether this folder of a part is none of a class: it has a name that says nothing and no class beside it."""
    return label.lower() in NO_CLASS and not [each for each in labels if each and each != label]


def _without_last(labelled: dict[str, list[str]]) -> dict[str, list[str]]:
    """Class folders less the last folder where it is the same in all of them and says nothing."""
    while labelled and all("/" in label for label in labelled):
        lasts = {label.rpartition("/")[2].lower() for label in labelled}
        if len(lasts) > 1 or not lasts <= NO_CLASS:
            break
        shorter: dict[str, list[str]] = {}
        for label, names in labelled.items():  # images/ and Images/ of one class are one
            shorter.setdefault(label.rpartition("/")[0], []).extend(names)
        labelled = shorter
    return labelled


def _annotations(source: Source, roots: set[str], has_parts: bool) -> dict[str, tuple[str, dict[str, str]]]:
    """By part: its ``*_annotations.txt`` (file name, label; separated by tabs), as the file's name and a table."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for name in sorted(source.sizes) if has_parts else ():
        folder, _, file = name.rpartition("/")
        root, _, part = folder.rpartition("/")
        if file.endswith("_annotations.txt") and root in roots and part.lower() in PARTS:
            rows = [line.split("\t") for line in read_text(source, name).splitlines() if line.strip()]
            if any(len(row) < 2 or not row[1].strip() for row in rows):
                raise UserError(f"{name} in {source.path.name}: expected lines of a file name, a tab and its class")
            found[PARTS[part.lower()]] = name, {row[0].strip(): row[1].strip() for row in rows}
    return found


def _annotate(
    flat: list[str], annotations: tuple[str, dict[str, str]] | None, left_out: dict[str, str]
) -> dict[str, list[str]]:
    """Images of no class folder by the class that the annotations give them; the others are left out."""
    if annotations is None:
        left_out.update(dict.fromkeys(flat, "images without a label"))
        return {}
    file, labels = annotations
    missing = set(labels) - {name.rpartition("/")[2] for name in flat}
    if flat and missing:
        raise UserError(f"{file} lists {len(missing)} images that are not there, first {min(missing)}; get them again")
    found: dict[str, list[str]] = {}
    for name in flat:
        label = labels.get(name.rpartition("/")[2])
        if label is None:
            left_out[name] = f"images that {file} does not list"
        else:
            found.setdefault(label, []).append(name)
    return found


def _in_order(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: (name.rsplit("/", 1)[1], name))


def _require_one_depth(labels: Iterable[str], source: Source) -> None:
    known = set(labels)
    for label in sorted(known):
        words = label.split("/")
        for depth in range(1, len(words)):
            outer = "/".join(words[:depth])
            if outer in known:
                raise UserError(
                    f"{source.path.name}: images lie in {outer!r} and in {label!r} inside it, so that a class is in a "
                    f"class; {NESTED}"
                )


def folders_without_images(source: Source) -> list[str]:
    """Folders in which, and below which, there is no image; of those one in the other the innermost."""
    full = set()
    for name in source.sizes:
        folder = name.rpartition("/")[0]
        while name.lower().endswith(IMAGE_SUFFIXES) and folder and folder not in full:
            full.add(folder)
            folder = folder.rpartition("/")[0]
    holds_folder = {folder.rpartition("/")[0] for folder in source.folders}
    return sorted(source.folders - full - holds_folder)
