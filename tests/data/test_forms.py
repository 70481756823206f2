"""Every form in which a data set lies on people's disks, on a small file of exactly that form."""

import csv
import io
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from benchmark import data
from benchmark.data import catalogue, formats, imagenet
from benchmark.errors import UserError


def imported(name, path, root, **options):
    """Import, and open what was imported."""
    done = data.import_dataset(name, path, root, **options)
    dataset = data.load(done.name, root)
    assert done.images == len(dataset.images)
    assert not done.bad
    return dataset, done.form


def counts(dataset):
    return tuple(len(dataset.splits[split]) for split in ("train", "val", "test"))


def of_class(dataset, name):
    """Images ``[n, H, W, C]`` of one class."""
    start = 0
    for c in dataset.classes:
        if c.name == name:
            return dataset.images[start : start + c.count].transpose(0, 2, 3, 1)
        start += c.count
    raise KeyError(name)


def shrunk(pixels, size):
    """What Pillow's Lanczos filter makes of an image."""
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS))


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


@pytest.mark.parametrize("form", ["folder", "zip", "tar", "tar.gz", "pickles", "pickles.tar.gz"])
def test_cifar_fs_is_the_same_from_every_form(form, forms, cifar_zip, tmp_path):
    path = {
        "folder": lambda: forms.write(tmp_path / "c", forms.cifar_folders()),
        "zip": lambda: cifar_zip,
        "tar": lambda: forms.write_tar(tmp_path / "c.tar", dict(reversed(forms.cifar_folders().items()))),
        "tar.gz": lambda: forms.write_tar(tmp_path / "c.tgz", forms.cifar_folders(), "w:gz"),
        "pickles": lambda: forms.write(tmp_path / "p", forms.cifar_pickles(protocol=4, encode=False)),
        "pickles.tar.gz": lambda: forms.write_tar(tmp_path / "c.tar.gz", forms.cifar_pickles(), "w:gz"),
    }[form]()
    dataset, found = imported("cifar-fs", path, tmp_path / "root")
    assert found == ("CIFAR-100 python pickles" if "pickles" in form else "class folders")
    assert counts(dataset) == (64, 16, 20)
    assert dataset.image_shape == (3, 32, 32)
    rows = [(file, pixels) for name, file, pixels, _ in forms.cifar_images() if name == "apple"]
    expected = [pixels for _, pixels in sorted(rows, key=lambda row: row[0])]
    assert np.array_equal(of_class(dataset, "apple"), expected)
    assert "apple" in dataset.splits["train"]
    assert "baby" in dataset.splits["test"]
    reference, _ = imported("cifar-fs", cifar_zip, tmp_path / "reference")
    assert dataset.hash == reference.hash


def test_fc100(cifar_zip, forms, tmp_path):
    dataset, _ = imported("fc100", cifar_zip, tmp_path)
    assert counts(dataset) == (60, 20, 20)
    assert {"baby", "boy", "girl", "man", "woman"} <= set(dataset.splits["test"]), "the superclass people is in test"
    pickled, _ = imported("fc100", forms.write(tmp_path / "p", forms.cifar_pickles()), tmp_path / "other")
    assert pickled.hash == dataset.hash


def split_pickles(forms, names, keys=("data", "labels"), protocol=2):
    """``data`` and ``labels``, two images a class, labels not in order."""
    files = {}
    for number, (split, name) in enumerate(names.items()):
        images = np.stack([forms.picture(100 * number + i, 84) for i in range(6)])
        content = {keys[0]: images, keys[1]: [12, 10, 11, 10, 12, 11], "catname2label": {f"{split}-ten": 10}}
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
    dataset, form = imported("miniimagenet", forms.write(tmp_path / "m", files), tmp_path / "root")
    assert form == "split pickles (data, labels)"
    assert counts(dataset) == (3, 3, 3)
    assert np.array_equal(of_class(dataset, "val-ten"), [forms.picture(101, 84), forms.picture(103, 84)])
    assert dataset.splits["test"] == ["test-ten", "test-11", "test-12"]


def test_cifar_fs_from_split_pickles(forms, tmp_path):
    names = {split: f"CIFAR_FS_{split}.pickle" for split in ("train", "val", "test")}
    path = forms.write_zip(tmp_path / "CIFAR-FS.zip", split_pickles(forms, names))
    assert counts(imported("cifar-fs", path, tmp_path)[0]) == (3, 3, 3)


@pytest.mark.parametrize("protocol", [2, 3, 5])
def test_mini_imagenet_from_cache_pickles(protocol, forms, tmp_path):
    files = {}
    for number, split in enumerate(("train", "val", "test")):
        images = np.stack([forms.picture(10 * number + i, 84) for i in range(4)])
        content = {"image_data": images, "class_dict": {f"n0{number}": [0, 2], f"n1{number}": [3, 1]}}
        files[f"mini-imagenet-cache-{split}.pkl"] = pickle.dumps(content, protocol)
    dataset, form = imported("miniimagenet", forms.write_zip(tmp_path / "mini.zip", files), tmp_path / "root")
    assert form == "mini-imagenet-cache pickles"
    assert dataset.splits == {"train": ["n00", "n10"], "val": ["n01", "n11"], "test": ["n02", "n12"]}
    assert np.array_equal(of_class(dataset, "n11"), [forms.picture(13, 84), forms.picture(11, 84)])


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
    dataset, form = imported("miniimagenet", forms.write(tmp_path / "m", content), tmp_path / "root")
    assert form == "CSVs and images"
    assert counts(dataset) == (2, 1, 1)
    expected = [shrunk(pictures[f"n01558993{n:08d}.jpg"], 84) for n in (5, 2)]
    assert np.array_equal(of_class(dataset, "n01558993"), expected)
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
    dataset, form = imported("miniimagenet", forms.write(tmp_path / "m", files), tmp_path / "root")
    assert form == "synset folders"
    assert counts(dataset) == (64, 16, 20)
    decoded = np.asarray(Image.open(io.BytesIO(photo)))
    assert np.abs(of_class(dataset, synsets[3])[0].astype(int) - shrunk(decoded, 84)).max() <= 3, (
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
    dataset, form = imported("miniimagenet", forms.write(tmp_path / "i", content), tmp_path / "root")
    assert form == "ILSVRC2012 tree, cut by the CSVs"
    assert np.array_equal(of_class(dataset, "n01855672"), [forms.picture(601, 84), forms.picture(2, 84)])
    short = forms.write_zip(tmp_path / "short.zip", content | csv_files(csv_rows(numbers=(602,))))
    with pytest.raises(UserError, match=r"n01532829 in short.zip has 601 files, the CSVs ask for number 602"):
        data.import_dataset("miniimagenet", short, tmp_path / "root")


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
    dataset, form = imported("tieredimagenet", forms.write_tar(tmp_path / "t.tar", files), tmp_path / "root")
    assert form == "PNG pickles"
    assert counts(dataset) == (2, 2, 2)
    assert dataset.splits["val"] == ["crane (val 2)", "fish val"], "two cranes are two classes"
    assert np.array_equal(of_class(dataset, "fish val"), [forms.picture(10, 84), forms.picture(12, 84)])


def test_tiered_imagenet_from_synset_folders(forms, tmp_path):
    synsets = [synset for part in formats.class_lists("tieredimagenet").values() for synset in part]
    photo = forms.png(forms.picture(0, 84))
    path = forms.write_zip(tmp_path / "t.zip", {f"{synset}/{synset}_1.JPEG": photo for synset in [*synsets, "n0"]})
    assert counts(imported("tieredimagenet", path, tmp_path)[0]) == (351, 97, 160)


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
    dataset, _ = imported("omniglot", path, tmp_path / "root")
    assert counts(dataset) == (1028, 172, 423)
    assert dataset.image_shape == (1, 28, 28)
    drawing = 255 * (forms.picture(0, 105, 1) > 40).astype(np.uint8)[..., 0]
    assert np.array_equal(dataset.images[700, 0], 255 - shrunk(drawing, 28)), "ink is bright"
    rotated = data.load("omniglot", tmp_path / "root", rotations=True)
    assert counts(rotated) == (4112, 688, 1692)
    assert rotated.name == data.load("omniglot-rotated", tmp_path / "root").name == "omniglot-rotated"


def test_cub(forms, tmp_path):
    classes = [name for part in formats.class_lists("cub").values() for name in part]
    photos = {name: forms.picture(number, 96) for number, name in enumerate(classes)}
    files = {f"CUB_200_2011/images/{n}/{n[4:]}_0001_1.jpg": forms.png(pixels) for n, pixels in photos.items()}
    plain, form = imported("cub", forms.write(tmp_path / "plain", files), tmp_path / "a")
    assert form == "class folders"
    index = "".join(f"{i + 1} {name[len('CUB_200_2011/images/') :]}\n" for i, name in enumerate(files))
    files["CUB_200_2011/images/001.Black_footed_Albatross/stray.jpg"] = b"not listed, never read"
    files["CUB_200_2011/images.txt"] = index.encode()
    dataset, form = imported("cub", forms.write_tar(tmp_path / "CUB_200_2011.tgz", files, "w:gz"), tmp_path / "root")
    assert form == "CUB_200_2011 with images.txt"
    assert counts(dataset) == (100, 50, 50)
    assert np.array_equal(of_class(dataset, classes[5])[0], photos[classes[5]][6:90, 6:90]), "96 pixels, centre 84"
    assert plain.hash == dataset.hash
    del files["CUB_200_2011/images/002.Laysan_Albatross/Laysan_Albatross_0001_1.jpg"]
    with pytest.raises(UserError, match=r"images.txt lists 1 images that broken.zip does not have"):
        data.import_dataset("cub", forms.write_zip(tmp_path / "broken.zip", files), tmp_path / "root")


def birds(forms, size=20, classes=10):
    return {
        f"birds/bird{n}/{i}.png": forms.png(forms.picture(10 * n + i, size)) for n in range(classes) for i in (0, 1)
    }


def test_own_folder_split_at_random(forms, tmp_path):
    path = forms.write_zip(tmp_path / "birds.zip", birds(forms))
    dataset, _ = imported("mine", path, tmp_path / "root", split_seed=3)
    assert dataset.image_shape == (3, 20, 20)
    assert counts(dataset) == (6, 2, 2)
    assert np.array_equal(of_class(dataset, "bird4"), [forms.picture(40, 20), forms.picture(41, 20)])
    again, _ = imported("again", path, tmp_path / "root", split_seed=3)
    other, _ = imported("other", path, tmp_path / "root", split_seed=4)
    assert again.splits == dataset.splits != other.splits
    small, _ = imported("small", path, tmp_path / "root", image_size=10, grey=True)
    assert small.image_shape == (1, 10, 10)
    row = next(row for row in data.available(tmp_path / "root") if row["name"] == "mine")
    assert row["state"] == "imported"


def test_own_folder_with_its_own_split(forms, tmp_path):
    files = {f"x/{s}/{s}-{n}/{n}.png": forms.png(forms.picture(n)) for s in ("train", "val", "test") for n in range(3)}
    dataset, _ = imported("mine", forms.write(tmp_path / "x", files), tmp_path / "root")
    assert dataset.splits["val"] == ["val-0", "val-1", "val-2"]
    same = {name.replace("train-", "c").replace("val-", "c").replace("test-", "c"): raw for name, raw in files.items()}
    merged, _ = imported("merged", forms.write(tmp_path / "y", same), tmp_path / "root")
    assert sorted(name for part in merged.splits.values() for name in part) == ["c0", "c1", "c2"]
    assert [c.count for c in merged.classes] == [3, 3, 3]


def test_own_folder_split_by_lists(forms, tmp_path):
    path = forms.write(tmp_path / "in", birds(forms))
    table = tmp_path / "splits.json"
    table.write_text('{"train": ["bird1", "bird2"], "val": ["bird0"], "test": ["bird9"]}')
    dataset, _ = imported("mine", path, tmp_path / "root", splits=table)
    assert dataset.splits == {"train": ["bird1", "bird2"], "val": ["bird0"], "test": ["bird9"]}
    for split, names in dataset.splits.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(names) + "\n\n")
    assert imported("texts", path, tmp_path / "root", splits=tmp_path)[0].hash == dataset.hash
    for text, message in (
        ('{"train": ["bird1"], "val": ["bird1"], "test": ["bird9"]}', "lists class 'bird1' twice"),
        (
            '{"train": ["bird1"], "val": ["wren"], "test": ["bird9"]}',
            "lists the val class 'wren', which in does not have",
        ),
        ('{"train": ["bird1"]}', "expected the keys train, val and test"),
        ("[1", "expected a JSON table"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=message):
            data.import_dataset("bad", path, tmp_path / "root", splits=table)


def test_a_path_is_a_data_set(forms, tmp_path, monkeypatch):
    path = forms.write(tmp_path / "in", birds(forms))
    dataset = data.load(str(path), tmp_path / "root")
    assert dataset.name == f"in-{dataset.hash[:8]}"
    assert counts(dataset) == (6, 2, 2)
    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "import_dataset", lambda *_, **__: pytest.fail("imported twice"))
        assert data.load(str(path), tmp_path / "root").hash == dataset.hash
    moved = forms.write_zip(tmp_path / "in.zip", birds(forms))
    assert data.load(str(moved), tmp_path / "root").name == dataset.name, "the same data give the same tasks"
    (path / "birds/bird3/new.png").write_bytes(forms.png(forms.picture(7, 20)))
    assert Counter(c.count for c in data.load(str(path), tmp_path / "root").classes) == {2: 9, 3: 1}
    assert data.load(str(path), tmp_path / "root", image_size=12).image_shape == (3, 12, 12)
