"""Whatever stops an import, the data folder stays whole; whatever is missing, one line says what and how to get it."""

import errno
import threading

import numpy as np
import pytest

from benchmark import data
from benchmark.data import storage, verify
from benchmark.data.importing import archives, build, decode
from benchmark.data.storage import ClassInfo, set_hash
from benchmark.data.writing import ArrayWriter
from benchmark.errors import UserError


def test_incomplete_sets_say_what_is_missing(forms, cifar_zip, tmp_path):
    root = tmp_path / "root"
    half = {name: content for name, content in forms.omniglot_files().items() if "background" in name}
    message = r"half.zip has \d+ of the 1623 classes of Omniglot \(background and evaluation\); missing: "
    forms.refuse(forms.write_zip(tmp_path / "half.zip", half), root, message, "omniglot")
    forms.refuse(cifar_zip, root, "has 0 of the 200 classes of CUB", "cub")
    forms.refuse(cifar_zip, root, "expected cache pickles, images/ with the CSVs", "miniimagenet")
    lone = forms.write(tmp_path / "lone", {"mini-imagenet-cache-train.pkl": b""})
    forms.refuse(lone, root, "has mini-imagenet-cache-train.pkl but no such file for val, test", "miniimagenet")
    two = forms.write(
        tmp_path / "two", {"a/x.png": forms.png(forms.picture(0)), "b/x.png": forms.png(forms.picture(1))}
    )
    forms.refuse(two, root, "two has 2 classes; at least 3 are needed")
    forms.refuse(two, root, "glyphs is built in", "glyphs")
    forms.refuse(two, root, "cannot name a data set", "../x")


def test_full_disk_leaves_nothing(root, forms, good, tmp_path, monkeypatch):
    def full(self, position, images):
        if position > 64:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, position, images)

    write = ArrayWriter.write
    monkeypatch.setattr(ArrayWriter, "write", full)
    forms.refuse(forms.write_zip(tmp_path / "n.zip", good), root, "disk of .* is full; nothing was imported")


def test_interrupt_leaves_nothing_and_the_old_set_whole(root, forms, good, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    before = forms.listing(root)
    with pytest.raises(KeyboardInterrupt):
        data.import_dataset("mine", forms.write_zip(tmp_path / "n.zip", good), root, split_seed=5, progress=stop)
    assert forms.listing(root) == before
    assert verify.verify(data.load("mine", root))[1]


def test_what_a_killed_import_left_is_removed(root, forms, good, tmp_path):
    (root / "mine" / "images-1-abc.part").write_bytes(b"half")
    assert verify.verify(data.load("mine", root))[1]
    data.import_dataset("mine", forms.write_zip(tmp_path / "n.zip", good), root, split_seed=5)
    left = sorted(path.name for path in (root / "mine").iterdir() if path.name != ".lock")
    assert [name.partition("-")[0] for name in left] == ["images", "index.json", "verified.json"]


def test_two_imports_at_once_do_not_clash(forms, good, tmp_path):
    path, failures = forms.write_zip(tmp_path / "n.zip", good), []

    def work(seed):
        try:
            data.import_dataset("both", path, tmp_path / "root", split_seed=seed)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert verify.verify(data.load("both", tmp_path / "root"))[1]


def test_a_reader_keeps_its_set_while_another_is_imported(root, forms, good, tmp_path):
    dataset = data.load("mine", root)
    before = np.array(dataset.images)
    changed = {name: forms.png(forms.picture(9000 + i)) for i, name in enumerate(good)}
    data.import_dataset("mine", forms.write_zip(tmp_path / "n.zip", changed), root)
    assert np.array_equal(dataset.images, before)
    assert data.load("mine", root).hash != dataset.hash


def test_a_reader_that_an_import_overtakes_opens_the_new_set(root, forms, good, tmp_path, monkeypatch):
    """It has read the old index when the import replaces it and removes the old array."""
    folder, read = root / "mine", storage.read_index
    old = read(folder)
    changed = {name: forms.png(forms.picture(9000 + i)) for i, name in enumerate(good)}
    data.import_dataset("mine", forms.write_zip(tmp_path / "n.zip", changed), root)
    overtaken = [old]
    monkeypatch.setattr(storage, "read_index", lambda folder: overtaken.pop() if overtaken else read(folder))
    assert data.load("mine", root).hash == read(folder)["hash"] != old["hash"]
    assert not overtaken


def test_damaged_sets_say_so(root):
    array = next((root / "mine").glob("*.npy"))
    array.write_bytes(array.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"images-.*npy is missing or damaged .*; import the data set again"):
        data.load("mine", root)
    array.unlink()
    with pytest.raises(UserError, match="is missing or damaged"):
        data.load("mine", root)
    (root / "mine" / "index.json").write_text("{")
    with pytest.raises(UserError, match="not an index of this version; import the data set again"):
        data.load("mine", root)
    assert {row["name"]: row["state"] for row in data.available(root)}["mine"] == "damaged"


def test_missing_and_misspelt_names(root):
    with pytest.raises(UserError) as error:
        data.load("omniglot", root)
    assert "python -m benchmark data fetch omniglot" in str(error.value)
    assert "python -m benchmark data import omniglot PATH" in str(error.value)
    with pytest.raises(UserError, match=r"unknown data set 'omniglott' \(did you mean 'omniglot'\?\)"):
        data.load("omniglott", root)
    with pytest.raises(UserError, match=r"unknown data set 'mina' \(did you mean 'mine'\?\)"):
        data.load("mina", root)
    with pytest.raises(UserError, match="no data set, file or folder"):
        data.load("./nowhere", root)
    with pytest.raises(UserError, match="rotations as new classes are an option of omniglot, not of glyphs"):
        data.load("glyphs", root, rotations=True)
    with pytest.raises(UserError, match="data set mine has no option 'grey'"):
        data.load("mine", root, grey=True)


def test_a_folder_that_cannot_be_written(tmp_path, forms, good):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to the data folder .* choose one by --data-root"):
        data.load("glyphs", tmp_path / "file")
    path = forms.write_zip(tmp_path / "n.zip", good)
    with pytest.raises(UserError, match="cannot write to the data folder"):
        data.import_dataset("mine", path, tmp_path / "file")


def test_plans_with_a_class_twice_or_a_file_twice_are_refused(forms, tmp_path):
    path = forms.write(tmp_path / "x", {"a/0.png": forms.png(forms.picture(0)), "a/1.png": forms.png(forms.picture(1))})
    for classes, message in (
        ([("a", "a/0.png"), ("a", "a/1.png")], "class 'a' appears twice"),
        ([("a", "a/0.png"), ("b", "a/0.png")], "a/0.png is listed twice"),
        ([("a", "a/0.png"), ("b", "gone.png")], "gone.png .*No such file"),
    ):
        parts = iter([[build.PlannedClass(name, "train", [file]) for name, file in classes]])
        plan = build.ImportPlan("test", decode.ImageFormat(3, 8), parts)
        with archives.open_source(path) as source, pytest.raises(UserError, match=message):
            build.build(plan, source, tmp_path / "root", "x")


def test_the_hash_covers_names_splits_and_groups():
    plain = ClassInfo("a", "train", 4)
    others = [
        ClassInfo("b", "train", 4),
        ClassInfo("a", "val", 4),
        ClassInfo("a", "train", 3),
        ClassInfo("a", "train", 4, (2, 2)),
    ]
    assert len({set_hash("pixels", [c]) for c in [plain, *others]} | {set_hash("other", [plain])}) == 6
