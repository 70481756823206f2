"""Results from several machines become one folder: every run is a folder of its own, so a merge is a copy that checks.

Equal names are equal specs, because a run is named by the hash of its spec. Of two folders of one run the *further* one
is kept: a result before anything unfinished, more meta-steps before fewer. Two that cannot both be right — results with
different numbers, runs on different images — are a conflict, and then nothing is copied at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.errors import UserError
from benchmark.files import write_atomic
from benchmark.runs.directory import RunDirectory, is_alive
from benchmark.runs.store import ENDED, Run, load_run, load_runs, results_folders
from benchmark.spec import SCHEMA, RunSpec

TABLES = ("evaluation.csv", "training.csv", "validation.csv")
FILES = ("checkpoint.prev.pt", "checkpoint.pt", "evaluation.partial.csv", *TABLES, "spec.json", "status.json")
"""What makes a run, in the order in which it is copied: killed anywhere, the copy says no more than it holds."""
BESIDE = ("tuned.json", "tuning.csv", "timing.csv", "geometry.csv", "search.csv", "spectrum.csv")
"""What may lie beside the runs of a folder, made from them or measured on a machine."""


@dataclass
class Merged:
    """What a merge did: names of runs that were new, went further, or were there; and remarks."""

    new: list[str] = field(default_factory=list)
    further: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def merge(sources: Sequence[Path], into: Path) -> Merged:
    """Copy every run below `sources`, those of their folders included, into `into`; the sources are left as they are.

    Raises
    ------
    UserError: before anything is copied, naming every run that is in conflict, damaged, or being run at this moment.
    """
    problems: list[str] = []
    chosen: dict[Path, Run] = {}
    present: dict[Path, Run] = {}
    for source in [into, *sources]:
        if source is not into and source.resolve() == into.resolve():
            raise UserError(f"{source}: is the folder that is merged into; leave it out")
        if source is into and not into.exists():
            continue
        for folder in results_folders(source):
            for run in load_runs(folder, problems.append, tables=True):
                place = folder.relative_to(source) / RunSpec.from_dict(run.spec).name
                if is_alive(run.path):
                    problems.append(f"{run.path}: is being run; wait for it or stop it")
                try:
                    if run.state not in ENDED:  # it may have ended since it was read
                        run = load_run(run.path)
                        run.check_tables()
                    chosen[place] = further(chosen[place], run) if place in chosen else run
                except UserError as error:
                    problems.append(str(error))
                if source is into:
                    present[place] = run
    if problems:
        raise UserError(f"nothing was merged: {'; '.join(problems)}")
    merged = Merged()
    for place, run in chosen.items():
        if place in present and run is present[place]:
            merged.kept.append(place.name)
        else:
            _copy(run, into / place)
            (merged.further if place in present else merged.new).append(place.name)
    for source in sources:
        for folder in results_folders(source):
            for name in BESIDE:
                if (folder / name).exists():
                    merged.remarks += _copy_beside(folder / name, into / folder.relative_to(source) / name)
    return merged


def load_together(
    folders: Sequence[Path], refused: Callable[[str], None] | None = None, *, tables: bool = False
) -> list[Run]:
    """The runs of several folders as one list by name, of each the further.

    A conflict is refused as a bad run is; where that does not end it, the run of the first folder stays.
    """
    found: dict[str, Run] = {}
    for folder in folders:
        for run in load_runs(folder, refused, tables=tables):
            name = RunSpec.from_dict(run.spec).name
            try:
                found[name] = further(found[name], run) if name in found else run
            except UserError as error:
                if refused is None:
                    raise
                refused(f"{error}; shown is that in {found[name].path.parent}")
    return [found[name] for name in sorted(found)]


def further(one: Run, other: Run) -> Run:
    """Which of two folders of one run to keep, `one` where they are equal; :class:`UserError` for a conflict."""
    images = [run.environment.get("dataset_hash") for run in (one, other)]
    if all(images) and images[0] != images[1]:
        raise UserError(f"{one.name}: in {one.path.parent} and {other.path.parent}, on different images")
    if one.state in ENDED and other.state in ENDED and _numbers(one) != _numbers(other):
        raise UserError(
            f"{one.name}: has results in {one.path.parent} and {other.path.parent}, with different numbers "
            "(another kind of processor gives other roundings); delete one of the two folders"
        )
    return other if _progress(other) > _progress(one) else one


def _progress(run: Run) -> tuple[bool, int, bool]:
    partial = (run.path / "evaluation.partial.csv").exists()
    return run.state in ENDED, run.status.get("iteration", 0), partial


def _numbers(run: Run) -> list[object]:
    """The state and the tables, byte for byte."""
    files = [run.path / name for name in TABLES]
    return [run.state, *(file.read_bytes() if file.exists() else None for file in files)]


def _copy(run: Run, path: Path) -> None:
    """Make `path` the same run as `run`, file by file, as its owner."""
    directory = RunDirectory(path.parent, RunSpec.from_dict(run.spec))
    with directory.claim(run.environment, run.command, tuning=run.tuning, card=run.card):
        for name in FILES:
            if name == "spec.json" and run.schema != SCHEMA:
                continue  # the claim wrote one of this schema, under the new name
            if (run.path / name).exists():
                write_atomic(path / name, (run.path / name).read_bytes())
            else:
                (path / name).unlink(missing_ok=True)
    load_run(path).check_tables()


def _copy_beside(file: Path, target: Path) -> list[str]:
    """Copy what `target` lacks; a remark where it has another one, which is kept."""
    data = file.read_bytes()
    if not target.exists():
        write_atomic(target, data)
        return []
    return [] if target.read_bytes() == data else [f"{target}: is another than {file}, and kept"]
