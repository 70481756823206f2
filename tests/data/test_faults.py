"""Bad files: refused with one clear line, and nothing harmed."""

import errno
import io
import os
import pickle
import stat
import struct
import tarfile
import threading
import zipfile
import zlib

import numpy as np
import pytest

from benchmark import data
from benchmark.data import build, decode, sources, unpickle, verify
from benchmark.data.storage import ArrayWriter
from benchmark.errors import UserError


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


@pytest.fixture
def good(forms):
    """Files of 10 classes of 20 pictures."""
    return {f"c{n}/{i:02d}.png": forms.png(forms.picture(100 * n + i)) for n in range(10) for i in range(20)}


@pytest.fixture
def root(tmp_path, forms, good):
    """A data folder that holds a set ``mine`` already."""
    data.import_dataset("mine", forms.write_zip(tmp_path / "old.zip", good), tmp_path / "root", split_seed=1)
    return tmp_path / "root"


@pytest.mark.parametrize(
    "name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:\\evil.png", "a\\..\\evil.png"]
)
def test_members_outside_the_archive(name, root, forms, tmp_path):
    picture = forms.png(forms.picture(0))
    refuse(forms.write_zip(tmp_path / "z.zip", {"a/b.png": picture, name: picture}), root, "unsafe path")
    refuse(forms.write_tar(tmp_path / "t.tar", {"a/b.png": picture, name: picture}), root, "unsafe path")
    refuse(forms.write_tar(tmp_path / "t.tgz", {"a/b.png": picture, name: picture}, "w:gz"), root, "unsafe path")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(kind, root, tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        member = tarfile.TarInfo("a/link.png")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    refuse(tmp_path / "t.tar", root, "link or device, 'a/link.png'")


def test_links_in_a_zip(root, tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        member = zipfile.ZipInfo("a/link.png")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    refuse(tmp_path / "z.zip", root, "link or device")


def test_bombs(root, forms, good, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.png", bytes(3 << 20))
    forms.write_tar(tmp_path / "bomb.tgz", {"a/b.png": bytes(3 << 20)}, "w:gz")
    monkeypatch.setattr(sources, "RATIO_FREE_BYTES", 1 << 20)
    refuse(tmp_path / "bomb.zip", root, "expands to more than 3 MiB, a zip bomb")
    refuse(tmp_path / "bomb.tgz", root, "expands to more than 3 MiB, a zip bomb")
    monkeypatch.setattr(sources, "MAX_MEMBERS", 100)
    refuse(forms.write_zip(tmp_path / "many.zip", good), root, "more than 100 files")
    refuse(forms.write_tar(tmp_path / "many.tar", good), root, "more than 100 files")


def test_archives_cut_short(root, forms, good, tmp_path):
    for name, mode in (("z.zip", None), ("t.tar", "w"), ("t.tgz", "w:gz"), ("t.tar.xz", "w:xz")):
        path = tmp_path / name
        forms.write_zip(path, good) if mode is None else forms.write_tar(path, good, mode)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        refuse(path, root, "damaged or cut short|is no folder, zip or tar")


def test_what_is_no_archive(root, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"<html>not here</html>")
    refuse(tmp_path / "x.zip", root, "is no folder, zip or tar; expected one of: a folder, .zip, .tar")
    refuse(tmp_path / "missing", root, "no file or folder")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", root, "no classes of images found in empty; expected folders of images, one a class")


def test_encrypted_zip(root, forms, good, tmp_path):
    path = forms.write_zip(tmp_path / "z.zip", good)
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\x01\x02")
    raw[entry + 8] |= 1
    path.write_bytes(raw)
    refuse(path, root, "encrypted")


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
    refuse(forms.write(tmp_path / "m", caches), root, "only plain data and numpy arrays.*system", "miniimagenet")
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


def huge_png():
    """A PNG of a few bytes whose header claims 60,000 × 60,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "huge"])
def test_a_few_corrupt_images_are_named_and_left_out(damage, root, forms, good, tmp_path):
    whole = good["c3/04.png"]
    good["c3/04.png"] = {"truncated": whole[:100], "empty": b"", "text": b"<html>", "huge": huge_png()}[damage]
    done = data.import_dataset("mine", forms.write_zip(tmp_path / "new.zip", good), root, split_seed=1)
    assert [name for name, _ in done.bad] == ["c3/04.png"]
    dataset = data.load("mine", root)
    assert dataset.info["skipped"][0].startswith("c3/04.png: ")
    assert {c.name: c.count for c in dataset.classes} == {f"c{n}": 20 - (n == 3) for n in range(10)}
    start = sum(c.count for c in dataset.classes[: [c.name for c in dataset.classes].index("c3")])
    kept = [forms.picture(300 + i) for i in range(20) if i != 4]
    assert np.array_equal(dataset.images[start : start + 19].transpose(0, 2, 3, 1), kept)
    assert verify.verify(dataset)[1]


def test_many_corrupt_images_refuse_the_import(root, forms, good, tmp_path):
    for i in range(3):
        good[f"c3/{i:02d}.png"] = good[f"c3/{i:02d}.png"][:90]
    for path in (forms.write_zip(tmp_path / "b.zip", good), forms.write(tmp_path / "b", good)):
        refuse(path, root, r"3 of 200 images of b(.zip)? are corrupt: c3/00.png \(.*; get it again")


def test_a_flipped_bit_in_a_zip_is_a_corrupt_image(root, forms, good, tmp_path):
    path = forms.write_zip(tmp_path / "z.zip", good)
    raw = bytearray(path.read_bytes())
    raw[raw.index(good["c5/07.png"]) + 60] ^= 4
    path.write_bytes(raw)
    done = data.import_dataset("mine", path, root)
    assert done.bad[0][0] == "c5/07.png"
    assert "CRC" in done.bad[0][1]


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
    refuse(forms.write(tmp_path / "m", files), tmp_path / "root", message, "miniimagenet")


def test_incomplete_sets_say_what_is_missing(forms, cifar_zip, tmp_path):
    root = tmp_path / "root"
    half = {name: content for name, content in forms.omniglot_files().items() if "background" in name}
    message = r"half.zip has \d+ of the 1623 classes of Omniglot \(background and evaluation\); missing: "
    refuse(forms.write_zip(tmp_path / "half.zip", half), root, message, "omniglot")
    refuse(cifar_zip, root, "has 0 of the 200 classes of CUB", "cub")
    refuse(cifar_zip, root, "expected cache pickles, images/ with the CSVs", "miniimagenet")
    lone = forms.write(tmp_path / "lone", {"mini-imagenet-cache-train.pkl": b""})
    refuse(lone, root, "has mini-imagenet-cache-train.pkl but no such file for val, test", "miniimagenet")
    two = forms.write(
        tmp_path / "two", {"a/x.png": forms.png(forms.picture(0)), "b/x.png": forms.png(forms.picture(1))}
    )
    refuse(two, root, "two has 2 classes; at least 3 are needed")
    refuse(two, root, "glyphs is built in", "glyphs")
    refuse(two, root, "cannot name a data set", "../x")


def test_full_disk_leaves_nothing(root, forms, good, tmp_path, monkeypatch):
    def full(self, position, images):
        if position > 64:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, position, images)

    write = ArrayWriter.write
    monkeypatch.setattr(ArrayWriter, "write", full)
    refuse(forms.write_zip(tmp_path / "n.zip", good), root, "disk of .* is full; nothing was imported")


def test_interrupt_leaves_nothing_and_the_old_set_whole(root, forms, good, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    before = listing(root)
    with pytest.raises(KeyboardInterrupt):
        data.import_dataset("mine", forms.write_zip(tmp_path / "n.zip", good), root, split_seed=5, progress=stop)
    assert listing(root) == before
    assert verify.verify(data.load("mine", root))[1]


def test_what_a_killed_import_left_is_removed(root, forms, good, tmp_path):
    (root / "mine" / "images-1-abc.part").write_bytes(b"half")
    assert verify.verify(data.load("mine", root))[1]
    data.import_dataset("mine", forms.write_zip(tmp_path / "n.zip", good), root, split_seed=5)
    assert sorted(path.suffix for path in (root / "mine").iterdir() if path.name != ".lock") == [".json", ".npy"]


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


def test_images_of_every_kind(forms):
    """Palette, 1-bit, 16-bit, transparent and CMYK pictures become plain 8-bit ones."""
    from PIL import Image

    def saved(image, kind, **options):
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    colour = forms.picture(1)
    image = Image.fromarray(colour)
    look, grey = decode.Look(3, 8), decode.Look(1, 8)
    assert np.array_equal(decode.decode(saved(image, "png"), look), colour.transpose(2, 0, 1))
    assert np.array_equal(decode.decode(saved(image.convert("RGBA"), "png"), look), colour.transpose(2, 0, 1))
    bits = saved(image.convert("1"), "png")
    assert set(np.unique(decode.decode(bits, grey))) == {0, 255}
    assert np.array_equal(decode.decode(bits, look), np.repeat(decode.decode(bits, grey), 3, axis=0))
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    assert np.array_equal(decode.decode(saved(Image.fromarray(deep), "png"), grey)[0], deep >> 8)
    flat = Image.new("RGB", (8, 8), (200, 50, 90))
    for kind in (saved(flat.convert("P"), "gif"), saved(flat.convert("CMYK"), "jpeg", quality=95), saved(flat, "webp")):
        assert np.abs(decode.decode(kind, look).reshape(3, -1).mean(1) - (200, 50, 90)).max() < 26
    clear = saved(flat.convert("P"), "png", transparency=b"\x80" * 200)
    assert decode.decode(clear, look).shape == (3, 8, 8)


def test_plans_with_a_class_twice_or_a_file_twice_are_refused(forms, tmp_path):
    path = forms.write(tmp_path / "x", {"a/0.png": forms.png(forms.picture(0)), "a/1.png": forms.png(forms.picture(1))})
    for classes, message in (
        ([("a", "a/0.png"), ("a", "a/1.png")], "class 'a' appears twice"),
        ([("a", "a/0.png"), ("b", "a/0.png")], "a/0.png is listed twice"),
        ([("a", "a/0.png"), ("b", "gone.png")], "gone.png .*No such file"),
    ):
        parts = iter([[build.PlannedClass(name, "train", [file]) for name, file in classes]])
        plan = build.Plan("test", decode.Look(3, 8), parts)
        with sources.open_source(path) as source, pytest.raises(UserError, match=message):
            build.build(plan, source, tmp_path / "root", "x")
