"""Parquet files as the hubs have them: rows with the bytes of an image and a label."""

import json
import sys

import numpy as np
import pytest

from benchmark import data
from benchmark.data.importing import formats
from benchmark.errors import UserError

pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")


def table(forms, labels, numbers, names=None, columns=("image", "label"), size=8):
    """A table as the hub's library writes it: picture ``numbers[i]`` with ``labels[i]``; `names` of a ClassLabel."""
    images = [{"bytes": forms.png(forms.picture(n, size)), "path": None} for n in numbers]
    image = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    found = pa.table({columns[0]: image, columns[1]: pa.array(labels)})
    features = {columns[0]: {"_type": "Image"}, columns[1]: {"dtype": "int64", "_type": "Value"}}
    if names is not None:
        features[columns[1]] = {"names": names, "_type": "ClassLabel"}
    return found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(folder, tables):
    for name, content in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(content, folder / name, row_group_size=7)
    return folder


def mini_imagenet(forms, drop=(), add=()):
    """``timm/mini-imagenet`` in small: three images of a class in train, two in validation, one in test."""
    lists = formats.class_lists("miniimagenet")
    names = sorted({name for part in lists.values() for name in part} - set(drop)) + list(add)
    tables = {}
    for part, each, files in (("train", 3, 2), ("validation", 2, 1), ("test", 1, 1)):
        labels = np.random.default_rng(each).permutation(np.repeat(np.arange(len(names)), each))
        for file in range(files):
            own = labels[file::files].tolist()
            numbers = [100_000 * each + 1000 * label + i for i, label in enumerate(own)]
            tables[f"data/{part}-{file:05d}-of-{files:05d}.parquet"] = table(forms, own, numbers, names)
    return tables


def test_mini_imagenet_as_downloaded(forms, tmp_path, capsys):
    path = write(tmp_path / "hub", mini_imagenet(forms))
    (path / "README.md").write_text("a card")
    assert forms.run_cli("import", "miniimagenet", path, "--data-root", tmp_path / "root") == 0
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    dataset = data.load("miniimagenet", tmp_path / "root")
    assert dataset.splits == formats.class_lists("miniimagenet")
    assert {c.count for c in dataset.classes} == {5}
    assert dataset.image_shape == (3, 84, 84)
    assert "form      Parquet files" in said
    assert "split     the official one (Ravi & Larochelle), whatever the parts of the tables" in said
    assert any(line.startswith("left out  100, of the part test, whose images miniImageNet does not") for line in said)
    assert "left out  1, files beside the tables: README.md" in said


def test_a_class_that_is_missing_or_in_no_list_is_named(forms, tmp_path):
    path = write(tmp_path / "less", mini_imagenet(forms, drop=["n02110341"]))
    with pytest.raises(UserError, match="less has 99 of the 100 classes of miniImageNet; missing: n02110341"):
        data.import_dataset("miniimagenet", path, tmp_path / "root")
    path = write(tmp_path / "more", mini_imagenet(forms, add=["n99999999"]))
    done = data.import_dataset("miniimagenet", path, tmp_path / "root")
    assert "of class n99999999, which is in no list of miniImageNet" in done.left_out.values()


def test_tables_in_general(forms, tmp_path):
    """Labels as text, images as bytes, no word about columns, one file; and the pixels are the right ones."""
    labels = ["wren", "owl", "kite/red", "owl", "wren", None]
    images = pa.array([forms.png(forms.picture(n)) for n in range(6)])
    pq.write_table(pa.table({"img": images, "target": labels}), tmp_path / "birds.parquet")
    dataset, form = forms.imported("mine", tmp_path / "birds.parquet", tmp_path / "root")
    assert form == "class folders"
    assert sorted(c.name for c in dataset.classes) == ["kite∕red", "owl", "wren"]
    assert np.array_equal(forms.of_class(dataset, "owl"), [forms.picture(1), forms.picture(3)])
    assert data.load(str(tmp_path / "birds.parquet"), tmp_path / "root").splits == dataset.splits


def test_parts_of_tables_are_a_split_or_none(forms, tmp_path):
    names = ["a", "b", "c"]
    by_class = {f"{part}-00000-of-00001.parquet": [i] for i, part in enumerate(("train", "validation", "test"))}
    tables = {file: table(forms, own * 2, [10 * own[0], 10 * own[0] + 1], names) for file, own in by_class.items()}
    path = write(tmp_path / "x", tables)
    dataset, _ = forms.imported("mine", path, tmp_path / "root")
    assert dataset.splits == {"train": ["a"], "val": ["b"], "test": ["c"]}
    places = ((0, "train"), (9, "test"))
    both = {f"{part}/0000.parquet": table(forms, [0, 1, 2], [n, n + 1, n + 2], names) for n, part in places}
    unlabelled = {"validation/0000.parquet": table(forms, [-1, -1], [70, 71], names)}
    done = data.import_dataset("other", write(tmp_path / "y", both | unlabelled), tmp_path / "root")
    assert [c.count for c in data.load("other", tmp_path / "root").classes] == [2, 2, 2]
    assert set(done.left_out.values()) == {"images without a label"}


def test_cifar_from_the_hub(forms, tmp_path):
    rows = forms.cifar_images()
    names = sorted({name for name, *_ in rows})
    labels = [names.index(name) for name, *_ in rows]
    content = table(forms, labels, range(len(rows)), names, ("img", "fine_label"), 32)
    content = content.append_column("coarse_label", pa.array([0] * len(rows)))
    dataset, _ = forms.imported("cifar-fs", write(tmp_path / "x", {"train-0.parquet": content}), tmp_path / "root")
    assert forms.counts(dataset) == (64, 16, 20)


@pytest.mark.parametrize(
    ("columns", "labels", "names", "message"),
    [
        (("photo", "label"), [0, 1, 2], None, None),
        (
            ("image", "kind"),
            [0, 1, 2],
            None,
            r"has the columns image, kind; expected one of images .* and one of labels",
        ),
        (("image", "label"), [0, 1, 3], ["a", "b", "c"], "has the label 3, and names for 3 labels"),
        (("image", "label"), ["a", "..", "c"], None, "which can be the name of no class"),
        (("image", "label"), ["a", "a ", "c"], None, "cannot be told apart"),
    ],
)
def test_tables_that_leave_something_open(columns, labels, names, message, forms, tmp_path):
    path = write(tmp_path / "x", {"0.parquet": table(forms, labels, range(3), names, columns)})
    if message is None:
        assert forms.imported("mine", path, tmp_path / "root")[0].image_shape == (3, 8, 8)
        return
    with pytest.raises(UserError, match=message):
        data.import_dataset("mine", path, tmp_path / "root")


def test_damaged_tables(forms, tmp_path, monkeypatch):
    path = write(tmp_path / "x", {"0.parquet": table(forms, [0, 1, 2], range(3))})
    file = path / "0.parquet"
    whole = file.read_bytes()
    for content in (b"", b"PAR1", whole[:-20], whole[: len(whole) // 2] + whole[-8:]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"0\.parquet in x cannot be read \(.*\); get it again") as error:
            data.import_dataset("mine", path, tmp_path / "root")
        assert "\n" not in str(error.value)
    rows = pa.array([{"bytes": None, "path": "x.png"}] * 3, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": rows, "label": [0, 1, 2]}), file)
    with pytest.raises(UserError, match="are these images"):
        data.import_dataset("mine", path, tmp_path / "root")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="Parquet needs pyarrow; pip install pyarrow"):
        data.import_dataset("mine", path, tmp_path / "root")
