"""Hostile and clumsy hands at the command line: what is shown is never obeyed, and what is wrong is one line."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console

from benchmark import data, files, report, screen
from benchmark.cli import flags, parser
from benchmark.cli import run as run_verb
from benchmark.data.importing import build as importing
from benchmark.engine.shutdown import Interrupted
from benchmark.errors import UserError
from benchmark.report import build, export, formats, table
from benchmark.report.group import group_runs
from benchmark.report.terminal import print_table
from benchmark.runs import checkpoints, environment
from benchmark.runs.store import load_run
from benchmark.timing import measure
from benchmark.verify.methods import verify
from optimizers import registry
from tests.conftest import Command
from tests.report.builder import build_run
from tests.robustness.helpers import TINY, execute, state
from tests.robustness.test_kill import StopAt

ESC = "\x1b]0;owned\x07\x1b[2J"
SHOWN = r"\x1b]0;owned\x07\x1b[2J"


def main(*words: str | Path) -> int:
    return parser.main([str(word) for word in words])


# What is shown is not obeyed


def test_every_letter_that_a_terminal_obeys_is_written_out() -> None:
    assert (
        screen.visible("a\x1b[1m\x07\r\x9b\u202eb\tc\nd é – 漢 \u00a0")
        == r"a\x1b[1m\x07\r\x9b\u202eb" + "\tc\nd é – 漢 \u00a0"
    )
    assert screen.one_line("a\nerror: b") == r"a\nerror: b"
    for code in range(0x110000):
        letter = chr(code)
        if letter not in "\t\n" and (code < 32 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000):
            assert screen.visible(letter).isprintable(), hex(code)


def test_status_and_tables_show_names_and_messages_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = f"{ESC}\nerror: everything is lost"
    build_run(tmp_path / "study", state="failed", status={"message": message}, dataset=f"x{ESC}\nerror: y")
    shutil.copytree(tmp_path / "study", tmp_path / "all" / f"[red]{ESC}")
    build_run(tmp_path / "all", dataset=f"x{ESC}\nerror: y", ways=3, tasks=5)
    results = tmp_path / "all"
    for words in (["status"], ["list", "runs"], ["compare", "md", "maml"]):
        main(*words, "--results", results)
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert r"\x1b[2J\nerror: everything is lost" in shown.out
    assert "[red]" in shown.out
    assert not [line for line in shown.out.splitlines() if line.startswith("error:")]
    said = io.StringIO()
    print_table([load_run(path) for path in results.glob("x*")], screen.Screen(file=said, width=200))
    assert "\x1b" not in said.getvalue()
    assert SHOWN in said.getvalue()
    tables = table.tables(group_runs([load_run(path) for path in results.glob("x*")]))
    assert "\x1b" not in formats.markdown(tables) + formats.latex(tables)


def test_an_error_is_one_line_whatever_is_in_it(
    tmp_path: Path, forms_zip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("data", "import", "mine", forms_zip, "--data-root", tmp_path / "root") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "\x1b" not in error
    assert r"x\n" in error or r"x\\n" in error


@pytest.fixture
def forms_zip(tmp_path: Path) -> Path:
    """A zip with one member whose name would forge an error and clear the screen."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(f"../x\nerror: all is well{ESC}.png", b"")
    return tmp_path / "evil.zip"


def test_what_the_terminal_cannot_show_is_replaced(command: Command, tmp_path: Path) -> None:
    for method in ("maml", "md"):
        build_run(tmp_path, method, dataset="größe", tasks=5)
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = command("compare", "maml", "md", "--results", tmp_path, env=ascii_only)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr??e" in done.stdout
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="strict")
    before, sys.stdout = sys.stdout, stream
    try:
        screen.prepare()
        screen.say("1 – 2 ±")
        stream.flush()
        assert stream.buffer.getvalue() == "1 ? 2 ±\n".encode("latin-1")  # type: ignore[attr-defined]
    finally:
        sys.stdout = before


@pytest.mark.parametrize("level", ["runs", "tasks", "all"])
def test_no_formula_reaches_a_spreadsheet(level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = build_run(tmp_path, dataset="=cmd|' /C calc'!A0", tasks=5)
    export.write(export.frame([run], level), tmp_path / "x.csv")
    text = (tmp_path / "x.csv").read_text()
    assert "'=cmd" in text
    assert not [entry for line in text.splitlines() for entry in line.split(",") if entry.lstrip('"').startswith("=")]
    build_run(tmp_path, "md", dataset="=cmd|' /C calc'!A0", tasks=5)
    monkeypatch.setattr(build, "drawings", lambda *_: [])
    report.write(tmp_path, tmp_path / "reports")
    for name in ("table1.csv", "pairs.csv", "claims.csv"):
        entries = list(csv.reader((tmp_path / "reports" / name).read_text().splitlines()))
        assert len(entries) > 1
        assert not [entry for line in entries for entry in line if entry.startswith("=")]
    table = pd.DataFrame({"x": ["=1", "+a", "-b", "@c", "-1.5", "+2", "ok", None], "y": range(8)})
    safe = files.without_formulas(table)
    assert safe["x"].tolist()[:7] == ["'=1", "'+a", "'-b", "'@c", "-1.5", "+2", "ok"]
    assert safe["y"].tolist() == list(range(8))


class Point:
    """An entry point of a package that does not want to be listed."""

    dist, value = None, "evil:Method"

    def __init__(self, name: str, error: BaseException) -> None:
        self.name, self.error = name, error

    def load(self) -> object:
        raise self.error


@pytest.mark.parametrize("error", [SystemExit(3), RuntimeError(f"{ESC}\nno")])
def test_a_plug_in_that_exits_or_raises_hides_no_other(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda group: [Point("evil", error)])
    monkeypatch.setattr(registry, "_broken", {})
    with pytest.warns(registry.BrokenPlugin, match="evil"):
        assert "maml" in registry.available()
    assert main("list", "methods") == 0
    shown = capsys.readouterr()
    assert "plug-in evil cannot be used: evil:Method of an unnamed package failed with" in shown.out
    assert "maml" in shown.out
    assert "\x1b" not in shown.out + shown.err


# What is lost


def test_a_reader_that_leaves_costs_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    monkeypatch.setattr("benchmark.report.build.write", lambda results, reports: written.append(reports) or [reports])
    build_run(tmp_path / "results", tasks=5)
    with broken_output(BrokenPipeError()):
        assert main("report", "--results", tmp_path / "results", "--reports", tmp_path / "reports") == 0
    assert written == [tmp_path / "reports"]


def test_a_full_disk_behind_the_output_is_said_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[Path] = []
    monkeypatch.setattr("benchmark.report.build.write", lambda results, reports: written.append(reports) or [reports])
    build_run(tmp_path / "results", tasks=5)
    with broken_output(OSError(28, "No space left on device")):
        assert main("report", "--results", tmp_path / "results", "--reports", tmp_path / "reports") == 1
    assert written == [tmp_path / "reports"]
    assert capsys.readouterr().err == (
        "error: what was to be printed is lost (No space left on device); all else is done\n"
    )


class Broken(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


class broken_output:
    """Standard output on which nothing can be written."""

    def __init__(self, error: OSError) -> None:
        self.stream = Broken(error)

    def __enter__(self) -> None:
        self.before, sys.stdout = sys.stdout, self.stream

    def __exit__(self, *_: object) -> None:
        sys.stdout = self.before


def test_a_figure_on_a_full_disk_leaves_no_part_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    from benchmark.report.figures import draw

    write_bytes = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        write_bytes(self, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    (tmp_path / "x.png").write_bytes(b"before")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        draw.write(Figure(), tmp_path / "x.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_closed_streams_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_run(tmp_path, tasks=5)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main("status", "--results", tmp_path) == 0
    sys.stdout.close()
    sys.stderr.close()


def test_verify_reads_all_that_it_needs_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.verify.methods.derivatives", lambda *_: pytest.fail("differentiated"))
    with pytest.raises(UserError, match=r"has no checkpoint\.pt"):
        verify(["maml"], [build_run(tmp_path, tasks=5).path])
    (tmp_path / "spectrum.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"spectrum.csv: has no column .*; move it away"):
        verify(["maml"], results=tmp_path)


def test_time_and_verify_try_their_target_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "measure", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setattr("benchmark.verify.methods.verify", lambda *_, **__: pytest.fail("verified"))
    monkeypatch.setattr("benchmark.report.export.frame", lambda *_, **__: pytest.fail("exported"))
    monkeypatch.setattr("benchmark.data.preview.contact_sheet", lambda *_, **__: pytest.fail("drawn"))
    (tmp_path / "file").write_text("")
    for words in (
        ["time", "--results", tmp_path / "file"],
        ["time", "--results", tmp_path, "--reports", tmp_path / "file"],
        ["verify", "--output", tmp_path / "file" / "x.txt"],
        ["verify", "--output", tmp_path],
        ["data", "preview", "sine", "--output", tmp_path / "file" / "x.png"],
        ["export", "--output", tmp_path / "file" / "x.csv", "--results", tmp_path],
    ):
        assert main(*words) == 2, words
        error = capsys.readouterr().err
        assert "cannot be written" in error or "is a folder" in error
        assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_one_damaged_record_costs_its_own_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [build_run(tmp_path, method, tasks=5, mean=0.5) for method in ("maml", "md")]
    (runs[0].path / "spec.json").write_text("{")
    specs = [run_verb.RunSpec.from_dict(run.spec) for run in runs]
    run_verb._print_results(specs, tmp_path)
    shown = capsys.readouterr()
    assert "| MD" in shown.out
    assert shown.err.startswith(f"left out: {runs[0].path}")


def test_sigterm_during_an_import_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Path
) -> None:
    def end(*_: object) -> Iterator[None]:
        os.kill(os.getpid(), signal.SIGTERM)
        yield from ()

    monkeypatch.setattr(importing, "decode_all", end)
    with pytest.raises(SystemExit) as ended:
        main("data", "import", "mine", pictures, "--data-root", tmp_path / "root")
    assert ended.value.code == 143
    assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file() and path.name != ".lock"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_a_killed_import_of_another_set_left_is_removed(tmp_path: Path, pictures: Path) -> None:
    root = tmp_path / "root"
    (root / "other").mkdir(parents=True)
    (root / "other" / "images-1-abc.part").write_bytes(b"half")
    data.import_dataset("mine", pictures, root)
    assert not list(root.rglob("*.part"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    from PIL import Image

    for name in range(4):
        (tmp_path / "pictures" / f"c{name}").mkdir(parents=True)
        Image.new("L", (8, 8), 40 * name).save(tmp_path / "pictures" / f"c{name}" / "0.png")
    return tmp_path / "pictures"


def test_glyphs_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.data import glyphs, storage, writing

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8).numpy()
    classes = [storage.ClassInfo(split, split, 1) for split in storage.SPLITS]
    monkeypatch.setattr(glyphs, "render", lambda: (images, classes, {}))
    monkeypatch.setattr(writing.ArrayWriter, "write", full)
    with pytest.raises(UserError, match=r"the disk of .* is full; nothing was imported"):
        data.load("glyphs", tmp_path)
    assert not list(tmp_path.rglob("*.part"))


# What is damaged, or made with intent


@pytest.mark.parametrize("change", [{"iteration": 10**12}, {"iteration": -1}, {"best_iteration": 7}, {"iteration": 4}])
def test_a_checkpoint_that_stands_where_no_run_can_is_refused(change: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        execute(tmp_path, stop=StopAt(5))
    for file in (tmp_path / TINY.name).glob("checkpoint*.pt"):
        checkpoints.write_checkpoint(file, checkpoints.read_checkpoint(file) | change)
    with pytest.raises(UserError, match=r"no run of 6 iterations stands at iteration"):
        execute(tmp_path)
    assert state(tmp_path) == "failed"


def test_status_sees_edited_tables(unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(unbroken, tmp_path / TINY.name)
    assert main("status", "--results", tmp_path) == 0
    assert "finished" in capsys.readouterr().out
    table = tmp_path / TINY.name / "evaluation.csv"
    table.write_bytes(table.read_bytes().replace(b"0", b"1", 1))
    assert main("status", "--results", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "finished" not in shown
    assert f"{TINY.name}: its tables were damaged or edited; 'run' measures them again" in shown


def test_any_changed_value_in_spec_json_is_found(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken, tmp_path / TINY.name)
    file = tmp_path / TINY.name / "spec.json"
    whole = json.loads(file.read_text())
    for key, value in {"environment": whole["environment"] | {"torch": "0.0"}, "command": ["rm"], "card": {}}.items():
        file.write_text(json.dumps(whole | {key: value}))
        with pytest.raises(UserError, match=r"spec\.json: damaged or edited"):
            load_run(file.parent)
    file.write_text(json.dumps({key: value for key, value in whole.items() if key != "sha256"}))
    assert load_run(file.parent).environment == whole["environment"], "an older run says nothing of itself"


# One line where a traceback was


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("run --methods all,nonsense", "unknown method 'nonsense'"),
        ("time --methods all,nonsense", "unknown method 'nonsense'"),
        ("verify --methods all,nonsense", "unknown method 'nonsense'"),
        ("data preview sine --tasks 0", "--tasks must lie between 1 and 100"),
        ("data preview sine --ways -1", "--ways must lie between 1 and 100"),
        ("data preview sine --split foo", "--split: 'foo' is none of 'train', 'val', 'test'"),
        (
            "run --methods maml --dataset sine --network sine-mlp --ways 1 --device meta",
            "device 'meta' is not usable here",
        ),
        (
            "run --methods maml --dataset sine --network sine-mlp --ways 1 --device mps",
            "device 'mps' is not usable here",
        ),
        (
            "run --methods maml --dataset sine --network sine-mlp --ways 1 --workers 100000",
            "--workers must be at most 256",
        ),
        ("time --sizes 100000:100000", "cnn4 takes 16 to 1024 pixels and 1 to 4096 channels"),
        ("time --threads 100000", "--threads must lie between 1 and 1,024"),
        (f"status --results {'x' * 300}", "no path that can be used here (File name too long)"),
        (f"status --results {'a/' * 2500}x", "no path that can be used here (File name too long)"),
        ("status --results ''", "a path that a flag was given is empty"),
        ("run --methods md --data-root ''", "a path that a flag was given is empty"),
        ("data import mine x --data-root ''", "a path that a flag was given is empty"),
    ],
)
def test_one_short_line(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    import shlex

    words = shlex.split(line)
    assert main(*words, *(["--dry-run"] if words[0] == "run" else [])) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert len(error) < 400


def test_the_options_of_a_method_are_those_that_can_be_given() -> None:
    with pytest.raises(registry.BadOption) as error:
        registry.create("maml", torch.nn.Linear(1, 1), sigma=1)
    assert "alpha" not in str(error.value)


def test_home_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert flags.place("~/x") == tmp_path / "x"
    parsed = parser._parser().parse_args(["status", "--results=~/x"])
    assert parsed.results == tmp_path / "x"


def test_results_that_cannot_be_read_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", denied)
    assert main("status", "--results", tmp_path) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: Permission denied; choose another place, or make room\n"


def test_a_device_that_computes_nothing_is_refused_in_a_few_words() -> None:
    with pytest.raises(UserError) as error:
        environment.choose_device("meta")
    assert len(str(error.value)) < 200


def test_sizes_that_do_not_fit_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(measure, "measure", full)
    assert main("time", "--results", tmp_path, "--reports", tmp_path) == 2
    assert capsys.readouterr().err == "error: these sizes do not fit into memory; lower --sizes or --tasks\n"


def test_names_stay_whole_in_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build_run(tmp_path, tasks=5)
    monkeypatch.setattr("benchmark.cli.status.output", lambda: Console(width=40))
    assert main("status", "--results", tmp_path) == 0
    assert run.name in "".join(line.split()[0] for line in capsys.readouterr().out.splitlines() if line.split())
