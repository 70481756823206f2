"""CIFAR-FS, FC100, Omniglot and CUB, on small files of exactly the forms in which they are passed around."""

import numpy as np
import pytest

from benchmark import data
from benchmark.data import catalogue
from benchmark.data.importing import formats, imagenet
from benchmark.errors import UserError


def test_official_lists():
    sizes = {name: [len(part) for part in formats.class_lists(name).values()] for name in catalogue.ENTRIES}
    for name, entry in catalogue.ENTRIES.items():
        assert tuple(sizes[name]) == entry.classes
        everything = [c for part in formats.class_lists(name).values() for c in part]
        assert len(set(everything)) == len(everything), "no class is in two splits"
    table = imagenet.official_table()
    files = [file for part in table.values() for names in part.values() for file in names]
    assert len(files) == len(set(files)) == 60_000
    assert table["train"]["n01532829"][:2] == ["n0153282900000005.jpg", "n0153282900000006.jpg"]
    assert table["val"]["n01855672"][:2] == ["n0185567200000003.jpg", "n0185567200000004.jpg"]
    assert table["test"]["n01930112"][:2] == ["n0193011200000001.jpg", "n0193011200000004.jpg"]


@pytest.fixture(scope="module")
def reference(forms, cifar_zip, tmp_path_factory):
    """CIFAR-FS from a zip of class folders."""
    return forms.imported("cifar-fs", cifar_zip, tmp_path_factory.mktemp("reference"))[0]


@pytest.mark.parametrize("form", ["folder", "zip", "tar", "tar.gz", "pickles", "pickles.tar.gz"])
def test_cifar_fs_is_the_same_from_every_form(form, forms, cifar_zip, reference, tmp_path):
    path = {
        "folder": lambda: forms.write(tmp_path / "c", forms.cifar_folders()),
        "zip": lambda: cifar_zip,
        "tar": lambda: forms.write_tar(tmp_path / "c.tar", dict(reversed(forms.cifar_folders().items()))),
        "tar.gz": lambda: forms.write_tar(tmp_path / "c.tgz", forms.cifar_folders(), "w:gz"),
        "pickles": lambda: forms.write(tmp_path / "p", forms.cifar_pickles(protocol=4, encode=False)),
        "pickles.tar.gz": lambda: forms.write_tar(tmp_path / "c.tar.gz", forms.cifar_pickles(), "w:gz"),
    }[form]()
    dataset, found = forms.imported("cifar-fs", path, tmp_path / "root")
    assert found == ("CIFAR-100 python pickles" if "pickles" in form else "class folders")
    assert forms.counts(dataset) == (64, 16, 20)
    assert dataset.image_shape == (3, 32, 32)
    rows = [(file, pixels) for name, file, pixels, _ in forms.cifar_images() if name == "apple"]
    expected = [pixels for _, pixels in sorted(rows, key=lambda row: row[0])]
    assert np.array_equal(forms.of_class(dataset, "apple"), expected)
    assert "apple" in dataset.splits["train"]
    assert "baby" in dataset.splits["test"]
    assert dataset.hash == reference.hash


def test_fc100(cifar_zip, forms, tmp_path):
    dataset, _ = forms.imported("fc100", cifar_zip, tmp_path)
    assert forms.counts(dataset) == (60, 20, 20)
    assert {"baby", "boy", "girl", "man", "woman"} <= set(dataset.splits["test"]), "the superclass people is in test"
    pickled, _ = forms.imported("fc100", forms.write(tmp_path / "p", forms.cifar_pickles()), tmp_path / "other")
    assert pickled.hash == dataset.hash


@pytest.mark.parametrize("form", ["zip", "folder", "folder of zips"])
def test_omniglot(form, forms, tmp_path):
    files = forms.omniglot_files()
    if form == "zip":
        path = forms.write_zip(tmp_path / "omniglot.zip", files)
    elif form == "folder":
        path = forms.write(tmp_path / "omniglot", files)
    else:
        path = tmp_path / "omniglot"
        path.mkdir()
        for half in ("images_background", "images_evaluation"):
            part = {name: content for name, content in files.items() if name.startswith(half)}
            forms.write_zip(path / f"{half}.zip", part)
    dataset, _ = forms.imported("omniglot", path, tmp_path / "root")
    assert forms.counts(dataset) == (1028, 172, 423)
    assert dataset.image_shape == (1, 28, 28)
    drawing = 255 * (forms.picture(0, 105, 1) > 40).astype(np.uint8)[..., 0]
    assert np.array_equal(dataset.images[700, 0], 255 - forms.shrunk(drawing, 28)), "ink is bright"
    rotated = data.load("omniglot", tmp_path / "root", rotations=True)
    assert forms.counts(rotated) == (4112, 688, 1692)
    assert rotated.name == data.load("omniglot-rotated", tmp_path / "root").name == "omniglot-rotated"


@pytest.mark.parametrize("packed", [True, False])
def test_omniglot_of_the_official_repository(packed, forms, tmp_path):
    """Its folder ``python`` has parts of the background again, as sets of their own."""
    parts = {half: {} for half in (*formats.HALVES, "images_background_small1", "images_background_small2")}
    for name, content in forms.omniglot_files().items():
        half, _, drawing = name.partition("/")
        parts[half][name] = content
        for small, alphabets in (("small1", ("Greek", "Korean")), ("small2", ("Greek", "Latin"))):
            if half == formats.HALVES[0] and drawing.startswith(alphabets):
                parts[f"{half}_{small}"][f"{half}_{small}/{drawing}"] = content
    path, again = tmp_path / "python", []
    path.mkdir()
    for part, files in parts.items():
        forms.write_zip(path / f"{part}.zip", files) if packed else forms.write(path, files)
        if part not in formats.HALVES:
            again += [f"{part}.zip/{name}" if packed else name for name in files]
    assert again
    done = data.import_dataset("omniglot", path, tmp_path / "root")
    assert done.images == 1623
    assert done.left_out == dict.fromkeys(again, "of classes that images_background and images_evaluation have already")


def test_omniglot_with_a_drawing_twice(forms, tmp_path):
    files = forms.omniglot_files()
    again = next(name for name in files if "Greek/character03" in name)
    path = forms.write_zip(tmp_path / "o.zip", files | {f"copy/{again}": files[again]})
    message = rf"o.zip has one drawing of Greek/character03 twice, copy/{again} and {again}; keep one"
    forms.refuse(path, tmp_path / "root", message, "omniglot")


def test_cub(forms, tmp_path):
    classes = [name for part in formats.class_lists("cub").values() for name in part]
    photos = {name: forms.picture(number, 96) for number, name in enumerate(classes)}
    files = {f"CUB_200_2011/images/{n}/{n[4:]}_0001_1.jpg": forms.png(pixels) for n, pixels in photos.items()}
    plain, form = forms.imported("cub", forms.write(tmp_path / "plain", files), tmp_path / "a")
    assert form == "class folders"
    index = "".join(f"{i + 1} {name[len('CUB_200_2011/images/') :]}\n" for i, name in enumerate(files))
    files["CUB_200_2011/images/001.Black_footed_Albatross/stray.jpg"] = b"not listed, never read"
    files["CUB_200_2011/images.txt"] = index.encode()
    dataset, form = forms.imported(
        "cub", forms.write_tar(tmp_path / "CUB_200_2011.tgz", files, "w:gz"), tmp_path / "root"
    )
    assert form == "CUB_200_2011 with images.txt"
    assert forms.counts(dataset) == (100, 50, 50)
    assert np.array_equal(forms.of_class(dataset, classes[5])[0], photos[classes[5]][6:90, 6:90]), (
        "96 pixels, centre 84"
    )
    assert plain.hash == dataset.hash
    del files["CUB_200_2011/images/002.Laysan_Albatross/Laysan_Albatross_0001_1.jpg"]
    with pytest.raises(UserError, match=r"images.txt lists 1 images that broken.zip does not have"):
        data.import_dataset("cub", forms.write_zip(tmp_path / "broken.zip", files), tmp_path / "root")
