"""Any folder or archive of class folders as a data set."""

from collections import Counter

import numpy as np
import pytest

from benchmark import data
from benchmark.data import catalogue
from benchmark.errors import UserError


def birds(forms, size=20, classes=10):
    return {
        f"birds/bird{n}/{i}.png": forms.png(forms.picture(10 * n + i, size)) for n in range(classes) for i in (0, 1)
    }


def test_own_folder_split_at_random(forms, tmp_path):
    path = forms.write_zip(tmp_path / "birds.zip", birds(forms))
    dataset, _ = forms.imported("mine", path, tmp_path / "root", split_seed=3)
    assert dataset.image_shape == (3, 20, 20)
    assert forms.counts(dataset) == (6, 2, 2)
    assert np.array_equal(forms.of_class(dataset, "bird4"), [forms.picture(40, 20), forms.picture(41, 20)])
    again, _ = forms.imported("again", path, tmp_path / "root", split_seed=3)
    other, _ = forms.imported("other", path, tmp_path / "root", split_seed=4)
    assert again.splits == dataset.splits != other.splits
    assert again.hash == dataset.hash != other.hash, "the same pixels in another split are another set"
    small, _ = forms.imported("small", path, tmp_path / "root", image_size=10, grey=True)
    assert small.image_shape == (1, 10, 10)
    row = next(row for row in data.available(tmp_path / "root") if row["name"] == "mine")
    assert row["state"] == "imported"


def test_own_folder_with_its_own_split(forms, tmp_path):
    files = {f"x/{s}/{s}-{n}/{n}.png": forms.png(forms.picture(n)) for s in ("train", "val", "test") for n in range(3)}
    dataset, _ = forms.imported("mine", forms.write(tmp_path / "x", files), tmp_path / "root")
    assert dataset.splits["val"] == ["val-0", "val-1", "val-2"]
    same = {name.replace("train-", "c").replace("val-", "c").replace("test-", "c"): raw for name, raw in files.items()}
    merged, _ = forms.imported("merged", forms.write(tmp_path / "y", same), tmp_path / "root")
    assert sorted(name for part in merged.splits.values() for name in part) == ["c0", "c1", "c2"]
    assert [c.count for c in merged.classes] == [3, 3, 3]


def test_own_folder_split_by_lists(forms, tmp_path):
    path = forms.write(tmp_path / "in", birds(forms))
    table = tmp_path / "splits.json"
    table.write_text('{"train": ["bird1", "bird2"], "val": ["bird0"], "test": ["bird9"]}')
    dataset, _ = forms.imported("mine", path, tmp_path / "root", splits=table)
    assert dataset.splits == {"train": ["bird1", "bird2"], "val": ["bird0"], "test": ["bird9"]}
    for split, names in dataset.splits.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(names) + "\n\n")
    assert forms.imported("texts", path, tmp_path / "root", splits=tmp_path)[0].hash == dataset.hash
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
    assert forms.counts(dataset) == (6, 2, 2)
    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "import_dataset", lambda *_, **__: pytest.fail("imported twice"))
        assert data.load(str(path), tmp_path / "root").hash == dataset.hash
    moved = forms.write_zip(tmp_path / "in.zip", birds(forms))
    assert data.load(str(moved), tmp_path / "root").name == dataset.name, "the same data give the same tasks"
    (path / "birds/bird3/new.png").write_bytes(forms.png(forms.picture(7, 20)))
    assert Counter(c.count for c in data.load(str(path), tmp_path / "root").classes) == {2: 9, 3: 1}
    assert data.load(str(path), tmp_path / "root", image_size=12).image_shape == (3, 12, 12)
