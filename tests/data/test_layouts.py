"""Folders of images as people have them: read as they are meant and summed up, or refused; never guessed."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark import data
from benchmark.data.importing import sources
from benchmark.errors import UserError


def pictures(forms, folders, count=3, size=8, suffix="png"):
    """Files of ``count`` pictures in each folder, all different."""
    return {
        f"{folder}/{i}.{suffix}": forms.png(forms.picture(1000 * n + i, size))
        for n, folder in enumerate(folders)
        for i in range(count)
    }


def summed_up(forms, path, root, capsys, *words):
    """Import as a user does; what is said, less the spaces before it."""
    capsys.readouterr()
    assert forms.run_cli("import", "mine", path, "--data-root", root, *words) == 0
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def refused(forms, files, tmp_path, message, **options):
    """Nothing is imported of these files, and one line says why."""
    with pytest.raises(UserError, match=message) as error:
        data.import_dataset("mine", forms.write(tmp_path / "in", files), tmp_path / "root", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "root/mine/index.json").exists()


# Two sets as they are downloaded


def tiny_imagenet(forms, classes=5, train=4, val=2):
    """``tiny-imagenet-200.zip`` in small: no labels in test, those of val in a file."""
    top, names = "tiny-imagenet-200", [f"n0{n}" for n in range(classes)]
    files = pictures(forms, [f"{top}/train/{name}/images" for name in names], train, suffix="JPEG")
    files |= {f"{top}/train/{name}/{name}_boxes.txt": b"x.JPEG\t0\t0\t9\t9\n" for name in names}
    files |= {f"{top}/wnids.txt": b"\n".join(name.encode() for name in names), f"{top}/words.txt": b""}
    lines = []
    for n in range(classes * val):
        files[f"{top}/val/images/val_{n}.JPEG"] = forms.png(forms.picture(90_000 + n))
        lines.append(f"val_{n}.JPEG\t{names[n % classes]}\t0\t0\t9\t9\n")
    files[f"{top}/val/val_annotations.txt"] = "".join(lines).encode()
    return files | {f"{top}/test/images/test_{n}.JPEG": forms.png(forms.picture(n)) for n in range(7)}


@pytest.mark.parametrize("packed", [True, False])
def test_tiny_imagenet_as_downloaded(packed, forms, tmp_path, capsys):
    files = tiny_imagenet(forms)
    path = forms.write_zip(tmp_path / "t.zip", files) if packed else forms.write(tmp_path / "t", files)
    said = summed_up(forms, path, tmp_path / "root", capsys)
    dataset = data.load("mine", tmp_path / "root")
    assert sorted(c.name for c in dataset.classes) == ["n00", "n01", "n02", "n03", "n04"]
    assert [c.count for c in dataset.classes] == [6] * 5
    pixels = forms.of_class(dataset, "n02")
    assert any(np.array_equal(forms.picture(90_007), each) for each in pixels), "val's images have their labels"
    assert "split     at random by class, seed 0: train/ and val/ hold the same classes, so their images" in said[2]
    assert "size      3×8×8: shorter sides are all 8 in 30 images looked at" in said
    first = "tiny-imagenet-200/test/images/test_0.JPEG"
    assert any(line.startswith(f"left out  7, images without a label: {first}") for line in said)
    assert any(line.startswith("left out  8, files that are no images: tiny-imagenet-200/train/n00/") for line in said)


def test_tiny_imagenet_with_images_that_are_missing(forms, tmp_path):
    files = tiny_imagenet(forms)
    del files["tiny-imagenet-200/val/images/val_3.JPEG"]
    message = r"val_annotations.txt lists 1 images that are not there, first val_3.JPEG"
    refused(forms, files, tmp_path, message)


def test_caltech_101_as_downloaded(forms, tmp_path, capsys):
    """A zip that holds a tar.gz of class folders, a tar of annotations, and what macOS left."""
    names = ["accordion", "ant", "barrel", "BACKGROUND_Google"]
    inner = pictures(forms, [f"101_ObjectCategories/{name}" for name in names], 3, 20, "jpg")
    tarball = forms.write_tar(tmp_path / "x.tar.gz", inner, "w:gz").read_bytes()
    notes = forms.write_tar(tmp_path / "x.tar", {"Annotations/ant/annotation_0001.mat": b"MATLAB"}).read_bytes()
    files = {
        "caltech-101/101_ObjectCategories.tar.gz": tarball,
        "caltech-101/Annotations.tar": notes,
        "caltech-101/show_annotation.m": b"% a script",
        "__MACOSX/caltech-101/._x": b"",
    }
    said = summed_up(forms, forms.write_zip(tmp_path / "caltech-101.zip", files), tmp_path / "root", capsys)
    dataset = data.load("mine", tmp_path / "root")
    assert sorted(c.name for c in dataset.classes) == ["accordion", "ant", "barrel"]
    assert np.array_equal(forms.of_class(dataset, "ant")[1], forms.picture(1001, 20))
    assert "split     at random by class, seed 0: there are no parts" in said
    inside = "caltech-101/101_ObjectCategories.tar.gz/101_ObjectCategories/BACKGROUND_Google"
    clutter = [f"{inside}/{i}.jpg" for i in range(3)]
    assert f"left out  3, pictures of no class of Caltech-101: {', '.join(clutter)}" in said
    assert any(line.startswith("left out  2, files that are no images: caltech-101/Annotations.tar/") for line in said)
    assert "left out  1, hidden, or left there by the system: __MACOSX/caltech-101/._x" in said


# The split


def test_a_split_of_its_own(forms, tmp_path, capsys):
    """Also with eval for val, and a last folder that says nothing."""
    folders = ["train/a", "train/b", "eval/c", "test/d"]
    path = forms.write(tmp_path / "in", pictures(forms, [f"{folder}/images" for folder in folders]))
    said = summed_up(forms, path, tmp_path / "root", capsys)
    assert "split     folders train, eval, test" in said
    assert data.load("mine", tmp_path / "root").splits == {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


def test_last_folders_that_differ_in_case_are_one(forms, tmp_path):
    files = pictures(forms, ["a/images", "a/Images", "b/images", "c/IMAGES"])
    dataset, _ = forms.imported("mine", forms.write_zip(tmp_path / "in.zip", files), tmp_path / "root")
    assert {c.name: c.count for c in dataset.classes} == {"a": 6, "b": 3, "c": 3}
    expected = {forms.picture(1000 * n + i).tobytes() for n in (0, 1) for i in range(3)}
    assert {image.tobytes() for image in forms.of_class(dataset, "a")} == expected


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["train/a", "train/b", "val/b", "test/c"], r"class 'b' is in two of train/, val/ and test/"),
        (["train/a", "train/b", "val/c"], r"has train/ and val/ with different classes, but no test; give --splits"),
        (["train/a", "test/b", "test/c"], r"has train/ and test/ with different classes, but no val"),
        (["train/a", "val/b", "eval/c", "test/d"], r"eval/ and val/, two folders for val"),
        (["train/a", "val/b", "test/c", "more"], r"has train/, val/ and test/ and, beside them, 'more'"),
        (["a", "b", "c", "c/d"], r"images lie in 'c' and in 'c/d' inside it"),
        (["train/images", "val/images", "test/images"], r"no classes of images found"),
    ],
)
def test_what_would_be_a_guess_is_refused(folders, message, forms, tmp_path):
    refused(forms, pictures(forms, folders), tmp_path, message)


def test_lists_settle_it(forms, tmp_path):
    lists = tmp_path / "lists.json"
    lists.write_text('{"train": ["a"], "val": ["b"], "test": ["c"]}')
    path = forms.write(tmp_path / "in", pictures(forms, ["train/a", "train/b", "val/b", "test/c", "more/d"]))
    done = data.import_dataset("mine", path, tmp_path / "root", splits=lists)
    assert [c.count for c in data.load("mine", tmp_path / "root").classes] == [3, 6, 3]
    assert done.left_out == {f"more/d/{i}.png": "in classes that the lists do not name" for i in range(3)}
    with pytest.raises(UserError, match="give either it or --split-seed"):
        data.import_dataset("mine", path, tmp_path / "root", splits=lists, split_seed=1)


def test_a_seed_beside_a_split_is_no_use(forms, tmp_path):
    message = r"has its own split, train/, val/ and test/; leave --split-seed out"
    refused(forms, pictures(forms, ["train/a", "val/b", "test/c"]), tmp_path, message, split_seed=0)


def test_one_part_alone_is_split_and_it_is_said(forms, tmp_path, capsys):
    files = pictures(forms, ["train/a", "train/b", "train/c"]) | pictures(forms, ["test"])
    said = summed_up(forms, forms.write(tmp_path / "in", files), tmp_path / "root", capsys, "--split-seed", 2)
    assert "split     at random by class, seed 2: train/ holds all labels" in said
    assert "left out  3, images without a label: test/0.png, test/1.png, test/2.png" in said


# The pictures


def test_one_small_picture_does_not_make_all_small(forms, tmp_path, capsys):
    files = pictures(forms, ["a", "b", "c"], 5, 30) | {"a/0.png": forms.png(forms.picture(0, 8))}
    said = summed_up(forms, forms.write(tmp_path / "in", files), tmp_path / "root", capsys)
    assert "size      3×30×30: shorter sides are 8 to 30, median 30 in 15 images looked at" in said
    large = forms.write(tmp_path / "large", pictures(forms, ["a", "b", "c"], 1, 90))
    said = summed_up(forms, large, tmp_path / "root", capsys)
    assert "size      3×84×84: shorter sides are all 90 in 3 images looked at, at most 84 is kept" in said
    assert "size      3×5×5: as asked for" in summed_up(forms, large, tmp_path / "root", capsys, "--image-size", 5)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_orientation_and_transparency_are_as_a_viewer_shows_them(forms, tmp_path):
    picture = forms.picture(1)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90° clockwise
    clear = np.dstack([picture, np.full((8, 8), 255, np.uint8)])
    clear[:4, :, 3] = 0
    palette = Image.fromarray(np.zeros((8, 8), np.uint8), "P")
    palette.putpalette([9, 9, 9])
    files = {
        "a/0.png": encoded(Image.fromarray(picture), "png", exif=turned),
        "b/0.png": encoded(Image.fromarray(clear), "png"),
        "c/0.png": encoded(palette, "png", transparency=0),
    }
    dataset, _ = forms.imported("mine", forms.write(tmp_path / "in", files), tmp_path / "root")
    assert np.array_equal(forms.of_class(dataset, "a")[0], np.rot90(picture, -1))
    assert (forms.of_class(dataset, "b")[0][:4] == 255).all()
    assert np.array_equal(forms.of_class(dataset, "b")[0][4:], picture[4:])
    assert (forms.of_class(dataset, "c") == 255).all()


def test_every_common_kind_of_picture_is_read(forms, tmp_path):
    kinds = {"bmp": "bmp", "tif": "tiff", "tiff": "tiff", "ppm": "ppm", "PNG": "png"}
    files = {
        f"c{suffix}/0.{suffix}": encoded(Image.fromarray(forms.picture(7)), kind) for suffix, kind in kinds.items()
    }
    dataset, _ = forms.imported("mine", forms.write(tmp_path / "in", files), tmp_path / "root")
    assert len(dataset.classes) == 5
    assert all(np.array_equal(forms.of_class(dataset, c.name)[0], forms.picture(7)) for c in dataset.classes)


# What is no picture


def test_what_is_left_out_is_said(forms, tmp_path, capsys):
    files = pictures(forms, ["a", "b", "c"]) | {"top.png": forms.png(forms.picture(1)), "a/notes.txt": b"x"}
    path = forms.write(tmp_path / "in", files | {".DS_Store": b""})
    (path / "empty").mkdir()
    (path / "a" / "gone.png").symlink_to(path / "nowhere.png")
    (path / "loop").symlink_to(path)
    os.mkfifo(path / "b" / "pipe.png")
    said = summed_up(forms, path, tmp_path / "root", capsys)
    assert [line.partition("  ")[2] for line in said if line.startswith("left out")] == [
        "1, hidden, or left there by the system: .DS_Store",
        "1, a link to nothing: a/gone.png",
        "1, files that are no images: a/notes.txt",
        "1, no file (a pipe, socket or device): b/pipe.png",
        "1, a folder of the system, or one met already under another name: loop/",
        "1, an image in no class folder: top.png",
        "1, folders without images: empty/",
    ]


def test_a_folder_that_cannot_be_read_refuses_the_import(forms, tmp_path, monkeypatch):
    scandir = os.scandir

    def denied(folder):
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(sources.os, "scandir", denied)
    message = r"folder .*/b cannot be read \(Permission denied\); make it readable or take it away"
    refused(forms, pictures(forms, ["a", "b", "c", "d"]), tmp_path, message)


def test_an_archive_beside_the_images_that_were_in_it_is_not_read_again(forms, tmp_path):
    files = pictures(forms, ["x/a", "x/b", "x/c"])
    path = forms.write(tmp_path / "in", files)
    forms.write_zip(path / "x.zip", files)
    done = data.import_dataset("mine", path, tmp_path / "root")
    assert (done.images, done.left_out) == (9, {"x.zip": "files that are no images"})


def test_a_set_that_is_replaced_is_named(forms, tmp_path, capsys):
    first = forms.write(tmp_path / "1", pictures(forms, ["a", "b", "c"]))
    said = summed_up(forms, first, tmp_path / "root", capsys)
    assert not [line for line in said if line.startswith("replaced")]
    assert not [line for line in summed_up(forms, first, tmp_path / "root", capsys) if line.startswith("replaced")]
    old = data.load("mine", tmp_path / "root").hash
    other = forms.write(tmp_path / "2", pictures(forms, ["a", "b", "d"]))
    said = summed_up(forms, other, tmp_path / "root", capsys)
    assert said[-1].startswith(f"replaced  the set that had this name (hash {old[:12]}, now ")


# Sources that are none


def test_links_devices_pipes_and_folders_of_the_system(forms, tmp_path):
    (tmp_path / "self").symlink_to(tmp_path / "self")
    os.mkfifo(tmp_path / "pipe")
    root = tmp_path / "root"
    for path, message in (
        (tmp_path / "self", "cannot be read .*ymbolic link"),
        (tmp_path / "pipe", "is a pipe, socket or device, and no file"),
        ("/dev/zero", "is a pipe, socket or device, and no file"),
        ("/proc", "is a folder of the system"),
        ("", "path to import is empty"),
    ):
        with pytest.raises(UserError, match=message):
            data.import_dataset("mine", path, root)
    with pytest.raises(UserError, match="no data set, file or folder"):
        data.load(str(tmp_path / "self"), root)


def test_names_that_are_not_utf8(forms, tmp_path):
    path = forms.write(tmp_path / "in", pictures(forms, ["a", "b", "c"]))
    os.mkdir(os.fsencode(path) + b"/d\xff")
    with pytest.raises(UserError, match=r"the name 'd\\udcff' in .* is not UTF-8; rename it"):
        data.import_dataset("mine", path, tmp_path / "root")
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("d\udcff/x.png"))
    with pytest.raises(UserError, match="holds a name that is not UTF-8"):
        data.import_dataset("mine", tmp_path / "t.tar", tmp_path / "root")


def test_an_archive_cut_short_is_called_so(forms, tmp_path):
    for name, mode in (("z.zip", None), ("t.tgz", "w:gz")):
        path, files = tmp_path / name, pictures(forms, ["a", "b", "c"])
        forms.write_zip(path, files) if mode is None else forms.write_tar(path, files, mode)
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(UserError, match=f"{name} is damaged or cut short"):
            data.import_dataset("mine", path, tmp_path / "root")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "a\x1bb", "[red]x", ".lock", "x" * 251, "=x", "-x"])
def test_names_that_a_set_cannot_have(name, forms, tmp_path):
    with pytest.raises(UserError, match="cannot name a data set"):
        data.import_dataset(name, tmp_path, tmp_path / "root")


@pytest.mark.parametrize("size", [0, -3, 1025, 1_000_000])
def test_sizes_that_an_image_cannot_have(size, forms, tmp_path):
    message = f"--image-size must lie between 1 and 1024 pixels, got {size}"
    refused(forms, pictures(forms, ["a", "b", "c"]), tmp_path, message, image_size=size)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_that_are_none(seed, forms, tmp_path):
    refused(forms, pictures(forms, ["a", "b", "c"]), tmp_path, "--split-seed must be", split_seed=seed)
