"""Parquet files with an image and a label in each row, as data sets lie on model hubs, seen as class folders.

Row 7 of ``train-00000-of-00013.parquet`` with the label *wren* is the file ``train/wren/train-00000-of-00013@7.png``:
the part is what the file's name or folder says, the class folder is the label, and every form that reads class folders
reads tables. A label is a number with its name in the schema (the hub's ``ClassLabel``), or the text or number itself;
rows without one, or with −1, lie in no class folder. Labels are read at once, images when they are streamed, a few
rows at a time. Needs pyarrow, the extra ``parquet``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator
from typing import IO, Any

from benchmark.data.importing.layout import PARTS
from benchmark.data.importing.sources import MAX_IMAGE_BYTES, MAX_MEMBERS, Source
from benchmark.errors import UserError

SUFFIX = ".parquet"
IMAGES = ("image", "img", "images", "picture", "jpg", "png")
LABELS = ("label", "labels", "fine_label", "class", "target")
"""Names of columns, the first that is there is taken, where the schema does not say which they are."""

ROWS = 64  # read together: images of a photograph's size are some MiB


def table_files(source: Source) -> list[str]:
    """The Parquet files of a source, in order."""
    return sorted(name for name in source.sizes if name.lower().endswith(SUFFIX))


class Tables(Source):
    """The rows of Parquet files as files of class folders."""

    def __init__(self, outer: Source) -> None:
        self._outer = outer
        self._places: dict[str, tuple[str, int]] = {}  # virtual name → table, row
        self._columns: dict[str, str] = {}  # table → its column of images
        folders: dict[str, str] = {}  # class folder → label
        for table in table_files(outer):
            with self._read(table) as file:
                self._list(table, file, folders)
        super().__init__(outer.path, dict.fromkeys(self._places, 0))
        self.left_out |= outer.left_out
        self.left_out |= {name: "files beside the tables" for name in outer.sizes if name not in self._columns}

    def _list(self, table: str, file: Any, folders: dict[str, str]) -> None:
        schema = file.schema_arrow
        image, label, names = _columns(schema, table)
        self._columns[table] = image
        if len(self._places) + file.metadata.num_rows > MAX_MEMBERS:
            raise UserError(f"{table} has {file.metadata.num_rows:,} rows, more than any data set of this kind")
        part, stem = _part(table), table.rpartition("/")[2][: -len(SUFFIX)]
        for row, value in enumerate(file.read(columns=[label]).column(0).to_pylist()):
            text = _label(value, names, table)
            folder = "" if text is None else text.replace("/", "∕").strip() + "/"
            if text is not None and folders.setdefault(folder, text) != text:
                raise UserError(
                    f"{table}: the labels {folders[folder]!r} and {text!r} cannot be told apart; rename one"
                )
            self._places[f"{part}{folder}{stem}@{row:07d}.png"] = table, row

    def _read(self, table: str) -> _Opened:
        return _Opened(self._outer, table)

    def open(self, name: str) -> IO[bytes]:
        found = next(iter(self.stream([name])))[1]
        if isinstance(found, Exception):
            raise found
        return io.BytesIO(found)

    def stream(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Exception]]:
        wanted: dict[str, dict[int, str]] = {}
        for name in names:
            table, row = self._places[name]
            wanted.setdefault(table, {})[row] = name
        for table, rows in wanted.items():
            first = 0
            with self._read(table) as file:
                for batch in file.iter_batches(batch_size=ROWS, columns=[self._columns[table]]):
                    values = batch.column(0)
                    for row in range(first, first + len(values)):
                        if row in rows:
                            yield rows[row], _content(values[row - first].as_py())
                    first += len(values)

    def fingerprint(self) -> str:
        return self._outer.fingerprint()

    def close(self) -> None:
        self._outer.close()


class _Opened:
    """One table, opened; whatever is wrong with it is a :class:`UserError` that names it."""

    def __init__(self, source: Source, name: str) -> None:
        self.source, self.name = source, name

    def __enter__(self) -> Any:
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise UserError(f"{self.name}: Parquet needs pyarrow; pip install pyarrow, or the extra parquet") from error
        self.file = self.source.open(self.name)
        try:
            return parquet.ParquetFile(self.file)
        except Exception as error:  # a damaged file can raise anything
            self.file.close()
            raise self._damaged(error) from error

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        import pyarrow

        self.file.close()
        if isinstance(error, pyarrow.ArrowException | OSError):
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> UserError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return UserError(f"{self.name} in {self.source.path.name} cannot be read ({reason[:200]}); get it again")


def _columns(schema: Any, table: str) -> tuple[str, str, list[str] | None]:
    """The columns of images and of labels, and the names that numbers among the labels stand for."""
    features = _features(schema)
    kinds = {name: what.get("_type") for name, what in features.items() if isinstance(what, dict)}
    image = _first(schema, [name for name, kind in kinds.items() if kind == "Image"], IMAGES)
    classes = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    label = _first(schema, [name for name in LABELS if name in classes] + classes, LABELS)
    if image is None or label is None:
        raise UserError(
            f"{table} has the columns {', '.join(schema.names)}; expected one of images ({', '.join(IMAGES)}) and one "
            f"of labels ({', '.join(LABELS)})"
        )
    names = features.get(label, {}).get("names") if isinstance(features.get(label), dict) else None
    named = names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
    return image, label, named


def _features(schema: Any) -> dict[str, Any]:
    """What the hub's library wrote about the columns; empty where it wrote nothing."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _first(schema: Any, known: list[str], usual: tuple[str, ...]) -> str | None:
    return next((name for name in (*known, *usual) if name in schema.names), None)


def _part(table: str) -> str:
    """``train/`` for ``data/train-00000-of-00013.parquet`` and for ``train/0000.parquet``; else nothing."""
    *folders, file = table.lower()[: -len(SUFFIX)].split("/")
    for word in (file.partition("-")[0].partition("_")[0], *folders[-1:]):
        if word in PARTS:
            return f"{word}/"
    return ""


def _label(value: Any, names: list[str] | None, table: str) -> str | None:
    if value is None or value == -1:
        return None
    if names is None or isinstance(value, str):
        text = str(value)
    elif isinstance(value, int) and 0 <= value < len(names):
        text = names[value]
    else:
        raise UserError(f"{table} has the label {value!r}, and names for {len(names)} labels")
    if not text.strip() or text.strip().startswith("."):
        raise UserError(f"{table} has the label {text!r}, which can be the name of no class")
    return text


def _content(value: Any) -> bytes | Exception:
    """The encoded image in a row: bytes, or a table of ``bytes`` and ``path``."""
    found = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(found, bytes) or not found:
        return OSError("the row holds no image, or only the path of one")
    return found if len(found) <= MAX_IMAGE_BYTES else OSError(f"{len(found)} bytes, more than an image may have")
