"""miniImageNet and tieredImageNet, on small files of exactly the forms in which they are passed around."""

import csv
import io
import pickle

import numpy as np
import pytest
from PIL import Image

from benchmark import data
from benchmark.data.importing import formats
from benchmark.errors import UserError


def split_pickles(forms, names, keys=("data", "labels"), protocol=2, size=84, ten="train-ten"):
    """``data`` and ``labels``, two images a class, labels not in order; `ten` is what train calls its number 10."""
    files = {}
    for number, (split, name) in enumerate(names.items()):
        images = np.stack([forms.picture(100 * number + i, size) for i in range(6)])
        named = {ten if split == "train" else f"{split}-ten": 10}
        content = {keys[0]: images, keys[1]: [12, 10, 11, 10, 12, 11], "catname2label": named}
        files[name] = pickle.dumps(content, protocol)
    return files


@pytest.mark.parametrize("keys", [("data", "labels"), (b"data", b"labels")])
def test_mini_imagenet_from_data_and_labels(keys, forms, tmp_path):
    names = {
        "train": "miniImageNet_category_split_train_phase_train.pickle",
        "val": "miniImageNet_category_split_val.pickle",
        "test": "miniImageNet_category_split_test.pickle",
    }
    files = split_pickles(forms, names, keys)
    for other in ("val", "test"):  # more images of the training classes: not part of the benchmark
        files[f"miniImageNet_category_split_train_phase_{other}.pickle"] = b"never read"
    dataset, form = forms.imported("miniimagenet", forms.write(tmp_path / "m", files), tmp_path / "root")
    assert form == "split pickles (data, labels)"
    assert forms.counts(dataset) == (3, 3, 3)
    assert np.array_equal(forms.of_class(dataset, "val-ten"), [forms.picture(101, 84), forms.picture(103, 84)])
    assert dataset.splits["test"] == ["test-ten", "test-11", "test-12"]


@pytest.mark.parametrize("protocol", [2, 3, 5])
def test_mini_imagenet_from_cache_pickles(protocol, forms, tmp_path):
    files = {}
    for number, split in enumerate(("train", "val", "test")):
        images = np.stack([forms.picture(10 * number + i, 84) for i in range(4)])
        content = {"image_data": images, "class_dict": {f"n0{number}": [0, 2], f"n1{number}": [3, 1]}}
        files[f"mini-imagenet-cache-{split}.pkl"] = pickle.dumps(content, protocol)
    dataset, form = forms.imported("miniimagenet", forms.write_zip(tmp_path / "mini.zip", files), tmp_path / "root")
    assert form == "mini-imagenet-cache pickles"
    assert dataset.splits == {"train": ["n00", "n10"], "val": ["n01", "n11"], "test": ["n02", "n12"]}
    assert np.array_equal(forms.of_class(dataset, "n11"), [forms.picture(13, 84), forms.picture(11, 84)])


def csv_files(rows):
    """``{split}.csv`` with the columns filename and label."""
    files = {}
    for split, pairs in rows.items():
        text = io.StringIO()
        csv.writer(text).writerows([("filename", "label"), *pairs])
        files[f"{split}.csv"] = text.getvalue().encode()
    return files


def csv_rows(numbers=(5, 2)):
    synsets = {"train": ["n01532829", "n01558993"], "val": ["n01855672"], "test": ["n01930112"]}
    return {split: [(f"{s}{n:08d}.jpg", s) for s in names for n in numbers] for split, names in synsets.items()}


def test_mini_imagenet_from_csvs_and_images(forms, tmp_path):
    rows = csv_rows()
    files = [file for pairs in rows.values() for file, _ in pairs]
    pictures = {file: forms.picture(number, 100) for number, file in enumerate(files)}
    content = {f"mini/images/{file}": forms.png(pixels) for file, pixels in pictures.items()}  # PNG in a .jpg: exact
    content |= {f"mini/{name}": text for name, text in csv_files(rows).items()}
    dataset, form = forms.imported("miniimagenet", forms.write(tmp_path / "m", content), tmp_path / "root")
    assert form == "CSVs and images"
    assert forms.counts(dataset) == (2, 1, 1)
    expected = [forms.shrunk(pictures[f"n01558993{n:08d}.jpg"], 84) for n in (5, 2)]
    assert np.array_equal(forms.of_class(dataset, "n01558993"), expected)
    del content["mini/images/n0185567200000002.jpg"]
    broken = forms.write(tmp_path / "broken", content)
    with pytest.raises(
        UserError, match=r"1 of the 8 images of miniImageNet are not there, first n0185567200000002.jpg"
    ):
        data.import_dataset("miniimagenet", broken, tmp_path / "root")


def test_mini_imagenet_from_synset_folders(forms, tmp_path):
    synsets = [synset for part in formats.class_lists("miniimagenet").values() for synset in part]
    photo = forms.jpeg(forms.picture(1, 90))
    files = {f"train/{synset}/{synset}_{n}.JPEG": photo for synset in synsets for n in (7, 12)}
    dataset, form = forms.imported("miniimagenet", forms.write(tmp_path / "m", files), tmp_path / "root")
    assert form == "synset folders"
    assert forms.counts(dataset) == (64, 16, 20)
    decoded = np.asarray(Image.open(io.BytesIO(photo)))
    assert np.abs(forms.of_class(dataset, synsets[3])[0].astype(int) - forms.shrunk(decoded, 84)).max() <= 3, (
        "decoders differ a bit"
    )


def test_mini_imagenet_from_an_ilsvrc_tree(forms, tmp_path):
    """Number k of the CSVs is the k-th file of the synset in numerical order, not in the order of names."""
    rows, content = csv_rows(numbers=(601, 2)), {}
    for synset in ("n01532829", "n01558993", "n01855672", "n01930112", "n09999999"):
        for position in range(1, 602):
            number = 3 * position + 1
            special = position in (2, 601) and synset == "n01855672"
            pixels = forms.picture(position, 84) if special else None
            content[f"ILSVRC2012/train/{synset}/{synset}_{number}.JPEG"] = forms.png(pixels) if special else b""
    blank = forms.png(forms.picture(0, 84))
    for synset in ("n01532829", "n01558993", "n01930112"):
        for position in (2, 601):
            content[f"ILSVRC2012/train/{synset}/{synset}_{3 * position + 1}.JPEG"] = blank
    content |= csv_files(rows)
    dataset, form = forms.imported("miniimagenet", forms.write(tmp_path / "i", content), tmp_path / "root")
    assert form == "ILSVRC2012 tree, cut by the CSVs"
    assert np.array_equal(forms.of_class(dataset, "n01855672"), [forms.picture(601, 84), forms.picture(2, 84)])
    short = forms.write_zip(tmp_path / "short.zip", content | csv_files(csv_rows(numbers=(602,))))
    with pytest.raises(UserError, match=r"n01532829 in short.zip has 601 files, the CSVs ask for number 602"):
        data.import_dataset("miniimagenet", short, tmp_path / "root")


@pytest.mark.parametrize("number", ["1", "00000000"])
def test_csvs_that_number_no_image_of_an_ilsvrc_tree(number, forms, tmp_path):
    rows = csv_rows()
    content = {f"{s}/{s}_{n}.JPEG": b"" for pairs in rows.values() for _, s in pairs for n in range(601)}
    rows["val"][0] = f"n01855672x{number}.jpg", "n01855672"
    path = forms.write_zip(tmp_path / "i.zip", content | csv_files(rows))
    message = rf"val\.csv in i\.zip lists 'n01855672x{number}\.jpg', which numbers no image; expected eight digits"
    forms.refuse(path, tmp_path / "root", message, "miniimagenet")


def test_csvs_with_half_a_line(forms, tmp_path):
    content = csv_files(csv_rows())
    content["val.csv"] += b"n0185567200000007.jpg\n"
    path = forms.write_zip(tmp_path / "i.zip", content)
    forms.refuse(path, tmp_path / "root", r"val\.csv: line 4 has no filename or no label; give both", "miniimagenet")


def ilsvrc_files(forms, synsets, file="ILSVRC2012_val_{:08d}.JPEG", train=2, val=2):
    """A root with ``train/`` and ``val/``, both in folders of synsets; `file` names the images of ``val``."""
    photos = [forms.png(forms.picture(n)) for n in range(2)]
    files = {f"r/train/{s}/{s}_{3 * n}.JPEG": photos[0] for s in synsets for n in range(1, train + 1)}
    return files | {f"r/val/{s}/{file.format(n, s)}": photos[1] for s in synsets for n in range(1, val + 1)}


VALIDATION = "of ILSVRC2012's validation images, which {} does not have"
PART = "of the part val, whose images {} does not have"


@pytest.mark.parametrize(
    ("file", "reason"),
    [("ILSVRC2012_val_{:08d}.JPEG", VALIDATION), ("{}.JPEG", PART), ("{1}_{0:04d}_val.JPEG", PART)],
)
def test_validation_images_of_an_ilsvrc_tree_are_left_out(file, reason, forms, tmp_path):
    """Neither set has any; with them the tree would be taken for plain synset folders."""
    rows = csv_rows(numbers=(601, 2))
    synsets = sorted({synset for pairs in rows.values() for _, synset in pairs})
    files = ilsvrc_files(forms, synsets, file, train=601)
    path = forms.write_zip(tmp_path / "i.zip", files | csv_files(rows))
    done = data.import_dataset("miniimagenet", path, tmp_path / "root")
    assert done.form == "ILSVRC2012 tree, cut by the CSVs"
    dataset = data.load("miniimagenet", tmp_path / "root")
    assert (dataset.images == forms.shrunk(forms.picture(0), 84).transpose(2, 0, 1)).all()
    left_out = [name for name, why in done.left_out.items() if why == reason.format("miniImageNet")]
    assert sorted(left_out) == sorted(name for name in files if "/val/" in name)

    synsets = [synset for part in formats.class_lists("tieredimagenet").values() for synset in part]
    files = ilsvrc_files(forms, synsets, file)
    done = data.import_dataset("tieredimagenet", forms.write_zip(tmp_path / "t.zip", files), tmp_path / "root")
    assert done.images == 2 * 608
    assert done.left_out == {name: reason.format("tieredImageNet") for name in files if "/val/" in name}


def test_training_images_that_were_kept_apart_are_no_validation_images(forms, tmp_path):
    """Some set a few of each class apart; what ``train`` has too is a copy."""
    synsets = [synset for part in formats.class_lists("miniimagenet").values() for synset in part]
    files = ilsvrc_files(forms, synsets, "{1}_{0}.JPEG", train=2, val=3)  # 3, 6 and 1, 2, 3
    done = data.import_dataset("miniimagenet", forms.write_zip(tmp_path / "m.zip", files), tmp_path / "root")
    assert {c.count for c in data.load("miniimagenet", tmp_path / "root").classes} == {4}
    assert done.left_out == {f"r/val/{s}/{s}_3.JPEG": PART.format("miniImageNet") for s in synsets}


@pytest.mark.parametrize("encode", [lambda raw: np.frombuffer(raw, np.uint8)[:, None], bytes])
def test_tiered_imagenet_from_png_pickles(encode, forms, tmp_path):
    files = {}
    for number, split in enumerate(("train", "val", "test")):
        images = [encode(forms.png(forms.picture(10 * number + i, 84))) for i in range(4)]
        labels = {
            "label_specific": np.array([1, 0, 1, 0], np.int32),
            "label_general": np.array([0, 0, 0, 0]),
            "label_specific_str": ["crane", f"fish {split}"],
            "label_general_str": ["thing"],
        }
        files[f"tiered-imagenet/{split}_images_png.pkl"] = pickle.dumps(images, 2)
        files[f"tiered-imagenet/{split}_labels.pkl"] = pickle.dumps(labels, 2)
    dataset, form = forms.imported("tieredimagenet", forms.write_tar(tmp_path / "t.tar", files), tmp_path / "root")
    assert form == "PNG pickles"
    assert forms.counts(dataset) == (2, 2, 2)
    assert dataset.splits["val"] == ["crane (val 2)", "fish val"], "two cranes are two classes"
    assert np.array_equal(forms.of_class(dataset, "fish val"), [forms.picture(10, 84), forms.picture(12, 84)])


def test_tiered_imagenet_from_synset_folders(forms, tmp_path):
    synsets = [synset for part in formats.class_lists("tieredimagenet").values() for synset in part]
    photo = forms.png(forms.picture(0, 84))
    path = forms.write_zip(tmp_path / "t.zip", {f"{synset}/{synset}_1.JPEG": photo for synset in [*synsets, "n0"]})
    assert forms.counts(forms.imported("tieredimagenet", path, tmp_path)[0]) == (351, 97, 160)


CIFAR_FS = {split: f"CIFAR_FS_{split}.pickle" for split in ("train", "val", "test")}


def test_cifar_fs_from_split_pickles(forms, tmp_path):
    path = forms.write_zip(tmp_path / "CIFAR-FS.zip", split_pickles(forms, CIFAR_FS, size=32))
    assert forms.counts(forms.imported("cifar-fs", path, tmp_path)[0]) == (3, 3, 3)


@pytest.mark.parametrize(
    ("name", "size", "ten", "message"),
    [
        ("miniimagenet", 32, "train-ten", r"images of shape \[32, 32, 3\], expected 84×84 pixels as miniImageNet"),
        ("cifar-fs", 84, "train-ten", r"images of shape \[84, 84, 3\], expected 32×32 pixels as CIFAR-FS"),
        ("miniimagenet", 84, "n00000007", "the class n00000007, which miniImageNet does not have; is it of"),
        ("miniimagenet", 84, "n01855672", "the class n01855672, which miniImageNet has in val; is it of"),
        ("fc100", 32, "baby", r"the class baby, which FC100 .* has in test; is it of another set\? Import it by"),
    ],
)
def test_split_pickles_of_another_set(name, size, ten, message, forms, tmp_path):
    path = forms.write_zip(tmp_path / "x.zip", split_pickles(forms, CIFAR_FS, size=size, ten=ten))
    forms.refuse(path, tmp_path / "root", rf"^CIFAR_FS_train\.pickle has {message}", name)


def test_split_pickles_without_class_names_are_told_by_their_number(forms, tmp_path):
    """FC100's and CIFAR-FS's have images of one size: the first has 60 training classes, the second 64."""
    images = np.stack([forms.picture(i, 32) for i in range(60)])
    files = {name: pickle.dumps({"data": images, "labels": list(range(60))}, 2) for name in CIFAR_FS.values()}
    path = forms.write_zip(tmp_path / "x.zip", files)
    message = r"^CIFAR_FS_train\.pickle has 60 classes as fc100 has, not 64 as CIFAR-FS .*; is it of fc100\?"
    forms.refuse(path, tmp_path / "root", message, "cifar-fs")
