"""The embedded letters: what they are, that they are always the same, and that pixels alone do not solve them."""

import shutil

import numpy as np
import pytest
import torch

from benchmark import data
from benchmark.data import glyphs, nearest_centroid
from benchmark.data.intact import pixel_hash
from benchmark.data.storage import Dataset, set_hash


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return data.load("glyphs", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def rendered():
    """Drawn anew, not read."""
    return glyphs.render()


def test_classes_and_splits(dataset):
    sizes = {split: len(names) for split, names in dataset.splits.items()}
    assert sizes == {"train": 339, "val": 85, "test": 106}
    names = [name for part in dataset.splits.values() for name in part]
    assert len(set(names)) == len(names) == len(dataset.classes)
    assert all(len(c.groups) >= 10 and c.count == 4 * len(c.groups) for c in dataset.classes)
    assert dataset.images.shape == (sum(c.count for c in dataset.classes), 1, 28, 28)
    assert dataset.image_shape == (1, 28, 28)
    assert dataset.images.dtype == np.uint8
    assert dataset.images.max(axis=(1, 2, 3)).min() > 60, "every image shows ink"


def test_letters_drawn_alike_are_one_class(dataset):
    members = dataset.info["members"]
    assert "\u0391" in members["LATIN CAPITAL LETTER A"]
    assert "\u0410" in members["LATIN CAPITAL LETTER A"]
    everyone = "".join(members.values())
    assert len(set(everyone)) == len(everyone)
    assert "é" not in everyone
    assert "3" not in everyone


def test_rendering_is_fixed_and_cached(dataset, rendered, tmp_path, monkeypatch):
    images, classes, _ = rendered
    assert np.array_equal(images, dataset.images)
    assert tuple(classes) == dataset.classes
    assert set_hash(pixel_hash(dataset.images), dataset.classes) == dataset.hash
    shutil.copytree(dataset.images.filename.parent, tmp_path / "glyphs")
    monkeypatch.setattr(glyphs, "render", lambda: pytest.fail("drawn twice"))
    assert data.load("glyphs", tmp_path).hash == dataset.hash


def test_damaged_cache_is_drawn_again(dataset, rendered, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(glyphs, "render", lambda: drawn.append(1) or rendered)
    shutil.copytree(dataset.images.filename.parent, tmp_path / "glyphs")
    array = next((tmp_path / "glyphs").glob("images-*.npy"))
    array.write_bytes(array.read_bytes()[:1000])
    assert np.array_equal(data.load("glyphs", tmp_path).images, dataset.images)
    assert len(drawn) == 1


def test_support_and_query_show_different_faces(dataset):
    face = np.concatenate([np.repeat(np.arange(len(c.groups)), c.groups) for c in dataset.classes])
    for shots, query in ((1, 15), (5, 15), (5, 20)):
        batch = data.sample(data.Episodes(dataset, "val", 5, shots, query, seed=3), range(40))
        support = find(dataset, batch.support_x).reshape(40, 5, shots)
        queries = find(dataset, batch.query_x).reshape(40, 5, query)
        for s, q in zip(face[support].reshape(-1, shots), face[queries].reshape(-1, query), strict=True):
            assert not set(s) & set(q)
            assert len(set(s)) == shots
            assert len(set(q)) >= min(query, 10 - shots)


def find(dataset, x):
    """Index in the data set of every image of a batch."""
    where = {image.tobytes(): i for i, image in enumerate(np.asarray(dataset.images))}
    flat = (x * 255).round().to(torch.uint8).flatten(0, 1).numpy()
    return np.array([where[image.tobytes()] for image in flat])


@pytest.mark.parametrize(("distort", "low", "high"), [(False, 0.84, 0.90), (True, 0.36, 0.45)])
def test_distortion_takes_the_task_from_pixels(distort, low, high, rendered):
    images, classes, _ = rendered if distort else glyphs.render(distort=False)
    plain = Dataset("glyphs", images, (1, 28, 28), tuple(classes), "")
    accuracy, _ = nearest_centroid.evaluate(data.sample(data.Episodes(plain, "test", 5, 1, 15, seed=0), range(400)))
    assert low < accuracy.mean() < high


def test_distortions_are_what_they_say():
    """A = R(angle) · shear · scale: taken apart again, each part fills its range and no more."""
    matrices, shifts = glyphs._distortions(np.random.Generator(np.random.PCG64(0)), 4000)
    scale = np.sqrt(np.linalg.det(matrices))
    angle = np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0])
    back = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    shear = (back @ matrices / scale[:, None, None])[:, 0, 1]
    for values, low, high in (
        (np.rad2deg(angle), -20, 20),
        (scale, 0.75, 1.1),
        (shear, -0.25, 0.25),
        (shifts, -2.5, 2.5),
    ):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)
