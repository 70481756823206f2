"""Pickles run nothing and hold nothing but plain data."""

import io
import os
import pickle

import numpy as np
import pytest

from benchmark.data.importing import unpickle
from benchmark.errors import UserError


def evil(tmp_path):
    """A class whose pickle would write a file."""

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/harmed",)

    return Evil()


def object_array():
    array = np.empty(1, object)
    array[0] = 3
    return array


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_run_nothing(protocol, root, forms, tmp_path):
    caches = {
        f"mini-imagenet-cache-{split}.pkl": pickle.dumps({"image_data": evil(tmp_path), "class_dict": {}}, protocol)
        for split in ("train", "val", "test")
    }
    forms.refuse(forms.write(tmp_path / "m", caches), root, "only plain data and numpy arrays.*system", "miniimagenet")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(eval),
        pickle.dumps(print, 0),
        pickle.dumps(os.path.join),
        pickle.dumps(object_array()),
        pickle.dumps(np.zeros(2, [("a", "i4")])),
        pickle.dumps(np.array(["2020-01-01"], "M8[D]")),
        pickle.dumps(np.arange(10))[:-20],
        pickle.dumps(range(3)),
        b"",
        b"not a pickle",
        b"\x80\x04\x95" + b"\xff" * 8,
        b"cnumpy.core.multiarray\n_reconstruct\n(tR.",
        b"cnumpy\ndtype\n(S'O'\ntR.",
        b"c__builtin__\nbytearray\n(I1000000000000\ntR.",
        b"P42\n.",
    ],
)
def test_unpickler_admits_only_plain_data(content):
    with pytest.raises(UserError, match=r"x\.pkl"):
        unpickle.load(io.BytesIO(content), "x.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_unpickler_reads_plain_data(protocol):
    arrays = [
        np.arange(12, dtype=">i2").reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.array(["a", "bc"]),
        np.array([b"a"]),
        np.zeros((0, 3), np.uint8),
        np.array(5),
        np.array([True, False]),
    ]
    content = {"arrays": arrays, "scalar": np.float32(1.5), "t": (1, None, True, 2.5, b"x\xff", "é"), "s": {1, 2}}
    loaded = unpickle.load(io.BytesIO(pickle.dumps(content, protocol)), "x")
    for a, b in zip(arrays, loaded["arrays"], strict=True):
        assert np.array_equal(a, b)
        assert a.dtype == b.dtype
    assert loaded["scalar"] == np.float32(1.5)
    assert loaded["t"] == content["t"]
    assert loaded["s"] == {1, 2}


def test_unpickler_is_not_blown_up_by_references():
    value = [0]
    for _ in range(200):
        value = [value, value, value]
    assert len(unpickle.load(io.BytesIO(pickle.dumps(value)), "x")) == 3


def test_arrays_of_the_wrong_length_are_refused():
    raw = pickle.dumps(np.arange(7, dtype=np.uint8), 2)
    assert raw.count(b"K\x07\x85") == 1
    with pytest.raises(UserError, match=r"shape \(200,\) with 7 bytes"):
        unpickle.load(io.BytesIO(raw.replace(b"K\x07\x85", b"K\xc8\x85")), "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_dict": {"%s": [0, 9]}}, "class_dict of train points outside its 2 images"),
        ({"class_dict": {"%s": []}}, "class 'train' of m has 0 images in split 'train'"),
        ({"image_data": None}, r"expected image_data of shape \[N, H, W, 3\], found \(\)"),
        ({"image_data": np.zeros((2, 84, 84, 3))}, "expected 8-bit pixels, got float64"),
        ({"image_data": np.zeros((2, 84, 84, 2), np.uint8)}, "expected 1 or 3 channels, got 2"),
    ],
)
def test_pickles_with_the_wrong_content(change, message, forms, tmp_path):
    content = {"image_data": np.zeros((2, 84, 84, 3), np.uint8), "class_dict": {"%s": [0, 1]}} | change
    files = {}
    for split in ("train", "val", "test"):
        named = content | {"class_dict": {name % split: rows for name, rows in content["class_dict"].items()}}
        files[f"mini-imagenet-cache-{split}.pkl"] = pickle.dumps(named)
    forms.refuse(forms.write(tmp_path / "m", files), tmp_path / "root", message, "miniimagenet")
