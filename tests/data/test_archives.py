"""Hostile and broken archives and images: refused with one clear line, and nothing harmed."""

import io
import stat
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from benchmark import data
from benchmark.data import verify
from benchmark.data.importing import archives, decode


@pytest.mark.parametrize(
    "name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:\\evil.png", "a\\..\\evil.png"]
)
def test_members_outside_the_archive(name, root, forms, tmp_path):
    picture = forms.png(forms.picture(0))
    forms.refuse(forms.write_zip(tmp_path / "z.zip", {"a/b.png": picture, name: picture}), root, "unsafe path")
    forms.refuse(forms.write_tar(tmp_path / "t.tar", {"a/b.png": picture, name: picture}), root, "unsafe path")
    forms.refuse(forms.write_tar(tmp_path / "t.tgz", {"a/b.png": picture, name: picture}, "w:gz"), root, "unsafe path")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(forms, kind, root, tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        member = tarfile.TarInfo("a/link.png")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    forms.refuse(tmp_path / "t.tar", root, "link or device, 'a/link.png'")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_of_two_members_with_one_name_the_last_counts(mode, forms, tmp_path):
    """As for tar and for Python; a tar is appended to so."""
    with tarfile.open(tmp_path / "t.tar", mode) as archive:
        for number, name in enumerate(("a/0.png", "b/0.png", "./a/0.png", "c/0.png", "b/0.png")):
            content = forms.png(forms.picture(number, 8 + number))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    last = {"a/0.png": forms.png(forms.picture(2, 10)), "b/0.png": forms.png(forms.picture(4, 12))}
    with archives.open_source(tmp_path / "t.tar") as source:
        assert {name: source.sizes[name] for name in last} == {name: len(content) for name, content in last.items()}
        assert dict(source.stream(list(last))) == last
        for name, content in last.items():
            with source.open(name) as file:
                assert file.read() == content


def test_links_in_a_zip(forms, root, tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        member = zipfile.ZipInfo("a/link.png")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    forms.refuse(tmp_path / "z.zip", root, "link or device")


def test_bombs(root, forms, good, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.png", bytes(3 << 20))
    forms.write_tar(tmp_path / "bomb.tgz", {"a/b.png": bytes(3 << 20)}, "w:gz")
    monkeypatch.setattr(archives, "RATIO_FREE_BYTES", 1 << 20)
    forms.refuse(tmp_path / "bomb.zip", root, "expands to more than 3 MiB, a zip bomb")
    forms.refuse(tmp_path / "bomb.tgz", root, "expands to more than 3 MiB, a zip bomb")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 100)
    forms.refuse(forms.write_zip(tmp_path / "many.zip", good), root, "more than 100 files")
    forms.refuse(forms.write_tar(tmp_path / "many.tar", good), root, "more than 100 files")


def test_archives_cut_short(root, forms, good, tmp_path):
    for name, mode in (("z.zip", None), ("t.tar", "w"), ("t.tgz", "w:gz"), ("t.tar.xz", "w:xz")):
        path = tmp_path / name
        forms.write_zip(path, good) if mode is None else forms.write_tar(path, good, mode)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        forms.refuse(path, root, "damaged or cut short|is no folder, zip or tar")


def test_what_is_no_archive(forms, root, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"<html>not here</html>")
    forms.refuse(tmp_path / "x.zip", root, "is no folder, zip or tar; expected one of: a folder, .zip, .tar")
    forms.refuse(tmp_path / "missing", root, "no file or folder")
    (tmp_path / "empty").mkdir()
    forms.refuse(
        tmp_path / "empty", root, "no classes of images found in empty; expected folders of images, one a class"
    )


def test_encrypted_zip(root, forms, good, tmp_path):
    path = forms.write_zip(tmp_path / "z.zip", good)
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\x01\x02")
    raw[entry + 8] |= 1
    path.write_bytes(raw)
    forms.refuse(path, root, "encrypted")


def test_a_flipped_bit_in_a_zip_is_a_corrupt_image(root, forms, good, tmp_path):
    path = forms.write_zip(tmp_path / "z.zip", good)
    raw = bytearray(path.read_bytes())
    raw[raw.index(good["c5/07.png"]) + 60] ^= 4
    path.write_bytes(raw)
    done = data.import_dataset("mine", path, root)
    assert done.bad[0][0] == "c5/07.png"
    assert "CRC" in done.bad[0][1]


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
        forms.refuse(path, root, r"3 of 200 images of b(.zip)? are corrupt: c3/00.png \(.*; get it again")


def test_images_of_every_kind(forms):
    """Palette, 1-bit, 16-bit, transparent and CMYK pictures become plain 8-bit ones."""

    def saved(image, kind, **options):
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    colour = forms.picture(1)
    image = Image.fromarray(colour)
    image_format, grey = decode.ImageFormat(3, 8), decode.ImageFormat(1, 8)
    assert np.array_equal(decode.decode(saved(image, "png"), image_format), colour.transpose(2, 0, 1))
    assert np.array_equal(decode.decode(saved(image.convert("RGBA"), "png"), image_format), colour.transpose(2, 0, 1))
    bits = saved(image.convert("1"), "png")
    assert set(np.unique(decode.decode(bits, grey))) == {0, 255}
    assert np.array_equal(decode.decode(bits, image_format), np.repeat(decode.decode(bits, grey), 3, axis=0))
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    assert np.array_equal(decode.decode(saved(Image.fromarray(deep), "png"), grey)[0], deep >> 8)
    flat = Image.new("RGB", (8, 8), (200, 50, 90))
    for kind in (saved(flat.convert("P"), "gif"), saved(flat.convert("CMYK"), "jpeg", quality=95), saved(flat, "webp")):
        assert np.abs(decode.decode(kind, image_format).reshape(3, -1).mean(1) - (200, 50, 90)).max() < 26
    clear = saved(flat.convert("P"), "png", transparency=b"\x80" * 200)
    assert decode.decode(clear, image_format).shape == (3, 8, 8)


def test_a_header_is_not_believed(forms, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 63)
    with pytest.raises(ValueError, match="8×8 pixels"):
        decode.decode(forms.png(forms.picture(0)), decode.ImageFormat(3, 8))
