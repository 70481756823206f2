"""The verb ``data``: list, import, fetch, info, preview, verify."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

from benchmark.cli.flags import log, place
from benchmark.data import catalogue
from benchmark.data.storage import SPLITS, Dataset, data_root
from benchmark.errors import UserError
from benchmark.files import require_writable
from benchmark.screen import say, warn

MOST_SHOWN = 100  # of anything on a contact sheet
HELP = "import, list and look at data sets"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-verbs of ``data``; each sets ``data_verb``."""
    verbs = parser.add_subparsers(dest="data_verb", metavar="VERB", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.add_argument(
            "--data-root",
            type=place,
            metavar="DIR",
            help="folder of imported sets (default: $BENCHMARK_DATA or the cache)",
        )
        return sub

    verb("list", "what is here, what is missing and how to get it")
    load = verb("import", "import a data set from an archive or folder")
    load.add_argument("name", help="a name of `data list`, or a new name for a set of your own")
    load.add_argument("path", help="zip, tar, tar.gz or folder")
    load.add_argument("--image-size", type=int, metavar="PIXELS", help="own sets: side of the stored images")
    load.add_argument("--grey", action="store_true", help="own sets: one channel")
    load.add_argument("--split-seed", type=int, metavar="SEED", help="own sets: seed of the random split by class")
    load.add_argument(
        "--splits", type=place, metavar="PATH", help="own sets: JSON table, or folder of train.txt val.txt test.txt"
    )
    get = verb("fetch", "download a public data set and import it")
    get.add_argument("name", help="omniglot, cifar-fs or fc100")
    for name, text in (
        ("info", "classes, images, sizes, splits, hash"),
        ("verify", "hash, splits, duplicates across splits"),
    ):
        verb(name, text).add_argument("name")
    show = verb("preview", "a contact sheet of episodes, support | query, as PNG")
    show.add_argument("name")
    show.add_argument("--output", type=place, metavar="PNG", help="where to write it (default: NAME-SPLIT.png here)")
    show.add_argument("--split", default="train", choices=SPLITS)
    for option, default in (("ways", 5), ("shots", 1), ("query", 5), ("seed", 0), ("tasks", 3)):
        show.add_argument(f"--{option}", type=int, default=default)


def main(arguments: argparse.Namespace) -> int:
    """Carry out one verb; its exit status. Errors: :class:`benchmark.errors.UserError`."""
    verbs = {"list": _list, "import": _import, "fetch": _fetch, "info": _info, "preview": _preview, "verify": _verify}
    try:
        return verbs[arguments.data_verb](arguments)
    except KeyboardInterrupt:
        warn("interrupted; the data folder is as it was")
        return 130


def _list(arguments: argparse.Namespace) -> int:
    rows = catalogue.available(arguments.data_root)
    say(f"data sets in {data_root(arguments.data_root)}")
    widths = [max(len(row[key]) for row in rows) for key in ("name", "state")]

    def line(name: str, state: str, text: str) -> None:
        begin = f"  {name:{widths[0]}}  {state:{widths[1]}}  "
        lines = [text]
        if sys.stdout.isatty():  # in a pipe one line is one line
            room = max(20, shutil.get_terminal_size().columns - len(begin))
            lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
        for number, part in enumerate(lines):
            say((" " * len(begin) if number else begin) + part)

    for row in rows:
        line(row["name"], row["state"], row["title"])
        if row["state"] in ("missing", "damaged"):
            line("", "", f"get it: {row['how'] or 'import it again'}")
    return 0


def _progress(what: str) -> Any:
    """A progress bar in a terminal, nothing in a pipe."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = log()
    return Progress(*columns, console=console, disable=not console.is_terminal), what


def _import(arguments: argparse.Namespace) -> int:
    return _import_path(
        arguments.name,
        arguments.path,
        arguments.data_root,
        image_size=arguments.image_size,
        grey=arguments.grey,
        split_seed=arguments.split_seed,
        splits=arguments.splits,
    )


def _import_path(name: str, path: str | Path, root: str | None, **options: Any) -> int:
    from benchmark.data.importing import summary

    bar, what = _progress(f"importing {name}")
    with bar:
        task = bar.add_task(what, total=None)
        done = catalogue.import_dataset(
            name, path, root, progress=lambda n, total: bar.update(task, completed=n, total=total), **options
        )
    say(
        f"imported {done.name}: {done.images:,} images of {done.classes:,} classes ({done.form}) into {data_root(root)}"
    )
    dataset = catalogue.load(done.name, root)
    for line in summary.lines(done, dataset):
        say(f"  {line}")
    for line in catalogue.differences(dataset):
        say(f"  note      {line}")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    from benchmark.data.importing.fetch import fetched

    bar, what = _progress(f"fetching {arguments.name}")
    with contextlib.ExitStack() as stack:
        with bar:
            task = bar.add_task(what, total=None)
            download = fetched(
                arguments.name,
                data_root(arguments.data_root),
                lambda n, total: bar.update(task, completed=n, total=total or None),
            )
            path = stack.enter_context(download)
        return _import_path(arguments.name, path, arguments.data_root)


def _info(arguments: argparse.Namespace) -> int:
    dataset = catalogue.load(arguments.name, arguments.data_root)
    say(f"{dataset.name}: {dataset.kind}")
    if dataset.kind == "regression":
        say(catalogue.BUILT_IN[dataset.name])
        return 0
    say(f"  images   {len(dataset.images) * dataset.rotations:,} of {'×'.join(map(str, dataset.image_shape))}, uint8")
    say(f"  on disk  {dataset.images.nbytes / 2**20:,.1f} MiB")
    for split in SPLITS:
        counts = [c.count for c in dataset.classes if c.split == split]
        each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        say(f"  {split:<8} {len(counts) * dataset.rotations:,} classes of {each} images")
    say(f"  hash     {dataset.hash}")
    for key, value in dataset.info.items():
        if key != "members":
            say(f"  {key:<8} {_short(value)}")
    for line in catalogue.differences(dataset):
        say(f"  note     {line}")
    return 0


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return f"{len(value)}: {', '.join(map(str, value[:4]))}{', …' if len(value) > 4 else ''}" if value else "none"
    return str(value)


def _preview(arguments: argparse.Namespace) -> int:
    from benchmark.data.draws import Episodes
    from benchmark.data.preview import contact_sheet

    for name in ("ways", "shots", "tasks"):
        if not 1 <= getattr(arguments, name) <= MOST_SHOWN:
            raise UserError(
                f"--{name} must lie between 1 and {MOST_SHOWN} in a preview, got {getattr(arguments, name)}"
            )
    if not 0 <= arguments.query <= MOST_SHOWN:
        raise UserError(f"--query must lie between 0 and {MOST_SHOWN} in a preview, got {arguments.query}")
    dataset = catalogue.load(arguments.name, arguments.data_root)
    output = arguments.output or Path(f"{dataset.name}-{arguments.split}.png")
    require_writable(output)
    ways = 1 if dataset.kind == "regression" else arguments.ways
    of = Episodes(dataset, arguments.split, ways, arguments.shots, arguments.query, arguments.seed)
    contact_sheet(of, range(arguments.tasks), output)
    say(str(output))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from benchmark.data.verify import verify

    dataset: Dataset = catalogue.load(arguments.name, arguments.data_root, trusted=True)
    lines, sound = verify(dataset)
    for line in lines:
        say(line)
    return 0 if sound else 1
