"""The verbs of ``data`` as a user sees them."""

import numpy as np
import pytest
from PIL import Image

from benchmark import data
from benchmark.data import catalogue, verify
from benchmark.errors import UserError


@pytest.fixture
def root(cifar_zip, tmp_path, forms):
    forms.run_cli("import", "cifar-fs", cifar_zip, "--data-root", tmp_path)
    return tmp_path


def test_import_says_what_it_did(cifar_zip, forms, tmp_path, capsys):
    assert forms.run_cli("import", "cifar-fs", cifar_zip, "--data-root", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"imported cifar-fs: 200 images of 100 classes (class folders) into {tmp_path}"
    assert lines[1:] == [
        "  form      class folders",
        "  split     the official one",
        "  size      3×32×32: as the literature has it",
        "  train     64 classes, 128 images, 2 each",
        "  val       16 classes, 32 images, 2 each",
        "  test      20 classes, 40 images, 2 each",
        "  tasks     up to 16 ways (val has 16 classes); the smallest class, apple (train), has 2 images: "
        "up to 1 with one",
        "  note      100 classes without exactly 600 images (first 'apple': 2)",
    ]


def test_interrupt_is_one_line(cifar_zip, forms, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(catalogue, "import_dataset", interrupt)
    assert forms.run_cli("import", "fc100", cifar_zip, "--data-root", tmp_path) == 130
    assert capsys.readouterr().err.strip().endswith("interrupted; the data folder is as it was")


def test_import_of_an_own_set(cifar_zip, forms, tmp_path, capsys):
    words = ("--image-size", 16, "--grey", "--split-seed", 4, "--data-root", tmp_path)
    assert forms.run_cli("import", "mine", cifar_zip, *words) == 0
    assert data.load("mine", tmp_path).image_shape == (1, 16, 16)
    with pytest.raises(UserError, match="fc100 is imported as the literature has it: no option 'grey'"):
        forms.run_cli("import", "fc100", cifar_zip, "--grey", "--data-root", tmp_path)


def test_list(root, forms, capsys):
    capsys.readouterr()
    assert forms.run_cli("list", "--data-root", root) == 0
    rows = {words[0]: words[1:] for line in capsys.readouterr().out.splitlines() if (words := line.split())}
    assert rows["glyphs"][:2] == ["built", "in"]
    assert rows["cifar-fs"][0] == "imported"
    assert rows["miniimagenet"][0] == "missing"
    assert not (root / "glyphs").exists(), "listing draws nothing"


def test_info(root, forms, capsys):
    capsys.readouterr()
    assert forms.run_cli("info", "cifar-fs", "--data-root", root) == 0
    text = capsys.readouterr().out
    dataset = data.load("cifar-fs", root)
    for part in (
        "200 of 3×32×32",
        "train    64 classes of 2 images",
        "test     20 classes",
        dataset.hash,
        "cifar-100.zip",
    ):
        assert part in text
    assert forms.run_cli("info", "sine", "--data-root", root) == 0


def test_verify_finds_a_flipped_bit(root, forms, capsys):
    capsys.readouterr()
    assert forms.run_cli("verify", "cifar-fs", "--data-root", root) == 0
    assert "hash       right" in capsys.readouterr().out
    array = next((root / "cifar-fs").glob("*.npy"))
    raw = bytearray(array.read_bytes())
    raw[50_000] ^= 1
    array.write_bytes(raw)
    assert forms.run_cli("verify", "cifar-fs", "--data-root", root) == 1
    assert "WRONG" in capsys.readouterr().out


def test_verify_counts_duplicates(forms, tmp_path):
    pictures = {name: forms.png(forms.picture(n)) for n, name in enumerate("abcdef")}
    content = {"train/x": "aab", "val/y": "acc", "test/z": "adbe"}
    files = {f"{folder}/{i}.png": pictures[letter] for folder, word in content.items() for i, letter in enumerate(word)}
    data.import_dataset("mine", forms.write(tmp_path / "in", files), tmp_path)
    assert verify.duplicates(data.load("mine", tmp_path)) == (2, 2)
    assert forms.run_cli("verify", "mine", "--data-root", tmp_path) == 0


def test_preview_shows_the_images(root, forms, capsys):
    output = root / "sheet.png"
    words = ("--ways", 3, "--shots", 2, "--query", 4, "--tasks", 2, "--output", output, "--data-root", root)
    with pytest.raises(UserError, match="lower --shots"):
        forms.run_cli("preview", "cifar-fs", *words)
    files = {
        f"c{n}/{i}.png": forms.png(np.full((8, 8, 3), (20 * n + 30, 3 * i, 0), np.uint8))
        for n in range(9)
        for i in range(9)
    }
    data.import_dataset("flat", forms.write(root / "in", files), root, splits=None)
    capsys.readouterr()
    assert forms.run_cli("preview", "flat", *words[:1], 2, "--split", "test", *words[2:]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    sheet = np.asarray(Image.open(output).convert("RGB")).reshape(-1, 3)
    dataset = data.load("flat", root)
    for name in dataset.splits["test"]:
        assert (sheet[:, 0] == 20 * int(name[1:]) + 30).mean() > 0.01, "every test class fills some of the sheet"
    assert forms.run_cli("preview", "sine", "--output", output, "--data-root", root) == 0
    assert np.asarray(Image.open(output).convert("L")).std() > 5
    with pytest.raises(UserError, match=r"x.png: cannot be written \(File exists\)"):
        forms.run_cli("preview", "sine", "--output", output / "x.png", "--data-root", root)


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCHMARK_DATA", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert data.data_root() == tmp_path / "a"
    assert data.data_root(tmp_path / "c") == tmp_path / "c"
    monkeypatch.delenv("BENCHMARK_DATA")
    assert data.data_root() == tmp_path / "b" / "inner-optimizer-benchmark"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.data_root() == tmp_path / ".cache" / "inner-optimizer-benchmark"


def test_list_wraps_its_lines_in_a_terminal(forms, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    assert forms.run_cli("list", "--data-root", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any("\\n" in line for line in lines)
    assert max(map(len, lines[1:])) <= 80
    assert len(lines) > 20, "long titles go on in further lines"
