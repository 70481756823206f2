"""Small files of exactly the forms in which the field's data sets are passed around, made on the spot."""

import argparse
import io
import pickle
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmark import data
from benchmark.cli import data as cli
from benchmark.data.importing import formats
from benchmark.errors import UserError


def picture(number, size=8, channels=3):
    """A picture that only this number has: uint8 ``[size, size, channels]``."""
    return np.random.Generator(np.random.PCG64(number)).integers(0, 256, (size, size, channels), dtype=np.uint8)


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(stream, "png", compress_level=1)
    return stream.getvalue()


def jpeg(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg", quality=95)
    return stream.getvalue()


def write(root, files):
    """``files``: name → bytes, as a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def cifar_images(size=32):
    """(class, file name, pixels, half) of a CIFAR-100 with one training and one test image a class."""
    names = sorted(name for part in formats.class_lists("cifar-fs").values() for name in part)
    return [
        (
            name,
            f"{name[:5]}_s_{half}{number:04d}.png",
            picture(2 * number + half, size),
            ("train", "test")[(half + number) % 2],
        )
        for number, name in enumerate(names)
        for half in (0, 1)
    ]


def cifar_folders():
    return {f"cifar-100/{half}/{name}/{file}": png(pixels) for name, file, pixels, half in cifar_images()}


def cifar_pickles(protocol=2, encode=True):
    """Files of ``cifar-100-python``, keys in bytes as Python 2 wrote them."""
    rows = cifar_images()
    names = sorted({name for name, *_ in rows})
    key = (lambda text: text.encode()) if encode else (lambda text: text)
    files = {"meta": {key("fine_label_names"): [key(name) for name in names], key("coarse_label_names"): []}}
    for half in ("train", "test"):
        chosen = [row for row in rows if row[3] == half][::-1]  # no particular order
        files[half] = {
            key("filenames"): [key(file) for _, file, _, _ in chosen],
            key("fine_labels"): [names.index(name) for name, *_ in chosen],
            key("coarse_labels"): [0] * len(chosen),
            key("data"): np.stack([pixels.transpose(2, 0, 1).reshape(-1) for *_, pixels, _ in chosen]),
        }
    return {f"cifar-100-python/{name}": pickle.dumps(content, protocol) for name, content in files.items()}


def omniglot_files(content=None):
    """One drawing of each character: ``{images_background,images_evaluation}/alphabet/character/file``."""
    content = content or png(255 * (picture(0, 105, 1) > 40).astype(np.uint8))
    labels = [name for part in formats.class_lists("omniglot").values() for name in part]
    halves = ("images_background", "images_evaluation")
    return {f"{halves[len(label) % 2]}/{label}/{n:04d}_01.png": content for n, label in enumerate(labels)}


def run_cli(*words):
    """The ``data`` verb with these words; its exit status."""
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.main(parser.parse_args([str(word) for word in words]))


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


def refuse(path, root, message, name="mine"):
    """The import fails with this message, in one line, and the data folder holds no trace of it."""
    before = listing(root)
    with pytest.raises(UserError, match=message) as error:
        data.import_dataset(name, path, root)
    assert "\n" not in str(error.value)
    assert listing(root) == before


def listing(root):
    """Files below the data folder, locks aside, with their content."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def forms():
    return SimpleNamespace(**{name: value for name, value in globals().items() if callable(value)})


@pytest.fixture(scope="session")
def cifar_zip(tmp_path_factory):
    return write_zip(tmp_path_factory.mktemp("cifar") / "cifar-100.zip", cifar_folders())


@pytest.fixture(scope="session")
def good_files(forms):
    """Files of 10 classes of 20 pictures, encoded once."""
    return {f"c{n}/{i:02d}.png": forms.png(forms.picture(100 * n + i)) for n in range(10) for i in range(20)}


@pytest.fixture
def good(good_files):
    """The same in a table of the test's own, which it may change."""
    return dict(good_files)


@pytest.fixture
def root(tmp_path, forms, good):
    """A data folder that holds a set ``mine`` already."""
    data.import_dataset("mine", forms.write_zip(tmp_path / "old.zip", good), tmp_path / "root", split_seed=1)
    return tmp_path / "root"
