"""A set that is not what was imported is refused when it is opened; its pixels are read once, not at every use."""

import json
import os

import numpy as np
import pytest

from benchmark import data
from benchmark.data import intact
from benchmark.data.storage import read_index
from benchmark.errors import UserError


@pytest.fixture
def reads(monkeypatch):
    """How often an array was read whole."""
    found = []
    read = intact.read_digest
    monkeypatch.setattr(intact, "read_digest", lambda *words: found.append(words) or read(*words))
    monkeypatch.setattr(intact, "_known", {})
    return found


def flip(root, offset=3000):
    """One bit of the stored array, as a bad disk or copy would; the file's time moves on."""
    (array,) = (root / "mine").glob("*.npy")
    raw = bytearray(array.read_bytes())
    raw[offset] ^= 1
    before = array.stat()
    array.write_bytes(raw)
    os.utime(array, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))


def test_an_imported_set_is_not_read_again(root, reads):
    for _ in range(3):
        data.load("mine", root)
    intact._known.clear()  # another process
    data.load("mine", root)
    assert not reads


def test_a_flipped_bit_is_found_at_load(root, reads):
    flip(root)
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"images-.*npy is missing or damaged \(its SHA-256 .*; import the data set"
        ):
            data.load("mine", root)
    assert len(reads) == 1


@pytest.mark.parametrize("change", [{"name": "another"}, {"split": "test"}])
def test_a_changed_class_is_found_at_load(change, root):
    index = json.loads((root / "mine" / "index.json").read_text())
    index["classes"][0] |= change
    (root / "mine" / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"its SHA-256 is not that of mine/index\.json"):
        data.load("mine", root)


def test_a_set_from_before_is_read_once(root, reads):
    """Or one that was copied, so that its inode and times are others."""
    (root / "mine" / intact.VERIFIED).unlink()
    data.load("mine", root)
    intact._known.clear()
    data.load("mine", root)
    assert len(reads) == 1


def test_a_folder_that_cannot_be_written_is_read_once_a_process(root, reads, monkeypatch):
    def refuse(*_):
        raise UserError("cannot be written")

    (root / "mine" / intact.VERIFIED).unlink()
    monkeypatch.setattr(intact, "write_atomic", refuse)
    data.load("mine", root)
    data.load("mine", root)
    assert len(reads) == 1


def test_a_forged_record_of_another_version_is_not_believed(root, reads):
    verified = root / "mine" / intact.VERIFIED
    content = json.loads(verified.read_text())
    flip(root)
    for text in (json.dumps(content), json.dumps(content | {"version": 3}), "[", "{}"):
        verified.write_text(text)
        intact._known.clear()
        with pytest.raises(UserError, match="SHA-256"):
            data.load("mine", root)


@pytest.mark.parametrize(
    "change",
    [
        {"array": 3}, {"array": "../other/images.npy"}, {"image_shape": [3, 8]}, {"image_shape": [3, -8, 8]},
        {"image_shape": "388"}, {"classes": {}}, {"classes": [3]}, {"classes": [{"name": "x"}]}, {"info": []},
        {"classes": [{"name": 1, "split": "train", "count": 1}]}, {"hash": None}, {"name": None}, {"schema": [1]},
        {"classes": [{"name": "a", "split": "train", "count": True}]},
        {"classes": [{"name": "a", "split": "train", "count": 4, "groups": [2, 1]}]},
        {"classes": [{"name": "a", "split": "train", "count": 4, "groups": ["x"]}]},
    ],
)  # fmt: skip
def test_an_index_with_wrong_fields_is_one_line(change, root):
    file = root / "mine" / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match="is not an index of this version; import the data set again"):
        read_index(root / "mine")
    assert {row["name"]: row["state"] for row in data.available(root)}["mine"] == "damaged"


def test_the_digest_is_that_of_the_pixels(root):
    import hashlib

    dataset = data.load("mine", root)
    expected = hashlib.sha256(b"(3, 8, 8)" + np.ascontiguousarray(dataset.images).tobytes()).hexdigest()
    (array,) = (root / "mine").glob("*.npy")
    assert intact.read_digest(array, (3, 8, 8)) == expected
    assert json.loads((root / "mine" / intact.VERIFIED).read_text())["pixels"] == expected
