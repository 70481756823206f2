"""Who is at a run: judged by the kernel's lock, by the scheduler, by silence; and never two at once."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.runs import owner
from benchmark.runs.directory import RunDirectory, is_alive
from tests.robustness.helpers import TINY, execute, numbers, state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    (path / owner.LOCK).touch()
    return path


def claim_of(folder: Path, silent_s: float = 0.0, **fields: object) -> None:
    """Leave the claim of a process of another machine, touched so long ago."""
    claim = owner.Owner(4, "far", "another kernel", 1, **fields)  # type: ignore[arg-type]
    path = folder / "owner.4.claim"
    path.write_text(json.dumps(dataclasses.asdict(claim)))
    os.utime(path, (time.time() - silent_s,) * 2)


def take(folder: Path) -> owner.Holding | None:
    with open(folder / owner.LOCK, "w") as lock:
        return owner.take(folder, lock)


@pytest.mark.parametrize(
    ("silent_s", "expected"), [(0, "held"), (owner.LEASE_S - 20, "silent"), (owner.LEASE_S + 20, "free")]
)
def test_of_another_machine_without_scheduler_silence_decides(silent_s: float, expected: str, folder: Path) -> None:
    claim_of(folder, silent_s)
    assert owner.standing(folder)[0] == expected
    assert (take(folder) is not None) == (expected == "free")


@pytest.mark.parametrize(
    ("answer", "silent_s", "expected"),
    [
        ("RUNNING|0", 0, "held"),
        ("RUNNING|0", owner.LEASE_S + 20, "free"),  # its process is gone, though the job goes on with something else
        ("SUSPENDED|0", owner.LEASE_S + 20, "held"),
        ("", 0, "silent"),  # the job is over, but a node that the scheduler lost may still be at work
        ("", owner.QUIET_S + 20, "free"),
        ("COMPLETED|0", owner.QUIET_S + 20, "free"),
        ("PENDING|1", owner.QUIET_S + 20, "free"),
        ("RUNNING|1", 0, "silent"),  # the job runs, but it is the next life of it
        ("RUNNING|1", owner.QUIET_S + 20, "free"),
    ],
)
def test_of_a_job_the_scheduler_is_asked(
    answer: str, silent_s: float, expected: str, folder: Path, squeue: Callable[[str], None]
) -> None:
    squeue(answer)
    claim_of(folder, silent_s, job="7", label="6_1")
    found, holder = owner.standing(folder)
    assert (found, str(holder)) == (expected, "far, job 6_1")


def test_a_scheduler_that_does_not_answer_leaves_silence_to_decide(folder: Path, squeue: Callable[[str], None]) -> None:
    claim_of(folder, owner.QUIET_S + 20, job="7")
    assert owner.standing(folder)[0] == "silent"


def test_two_who_only_look_do_not_take_each_other_for_an_owner(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, seen = owner._try, []

    def looked_at_meanwhile(*opened: Any, **how: Any) -> bool | None:
        free = lock(*opened, **how)
        if not seen:
            seen.append("looking")
            seen.append(owner.standing(folder)[0])
        return free

    monkeypatch.setattr(owner, "_try", looked_at_meanwhile)
    assert owner.standing(folder)[0] == "free"
    assert seen == ["looking", "free"]


def test_under_one_kernel_the_lock_decides_at_once(folder: Path) -> None:
    with open(folder / owner.LOCK, "w") as lock:
        assert owner.take(folder, lock) is not None
        assert owner.standing(folder)[0] == "held"
        assert take(folder) is None
    assert owner.standing(folder)[0] == "free"  # it never gave its claim back: it was killed
    (claim,) = folder.glob("*.claim")
    assert not json.loads(claim.read_text())["released"]
    assert take(folder) is not None
    assert [path.name for path in folder.glob("*.claim")] == ["owner.2.claim"]


def test_where_locks_bind_nobody_of_two_that_see_one_dead_claim_one_gets_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every interleaving of two takers: each is stopped before its claim is made, and the other goes first."""
    monkeypatch.setattr(owner, "_try", lambda lock: None)
    claim_of(folder, owner.LEASE_S + 20)
    make = owner.Holding.make
    other: list[owner.Holding | None] = []

    def late(self: owner.Holding) -> bool:
        monkeypatch.setattr(owner.Holding, "make", make)
        other.append(take(folder))
        return make(self)

    monkeypatch.setattr(owner.Holding, "make", late)
    assert take(folder) is None
    assert other[0] is not None
    other[0].require()
    assert take(folder) is None  # nor a third one
    assert owner.latest(folder) == other[0].owner


def test_who_comes_with_a_generation_that_was_taken_given_back_and_taken_again_is_refused(folder: Path) -> None:
    claim_of(folder, owner.LEASE_S + 20)
    late = owner.Holding(folder, owner.Owner(5))
    for generation in (5, 6):
        first = owner.Holding(folder, owner.Owner(generation))
        assert first.make()
        first._give_back()
    assert not late.make()
    assert [path.name for path in folder.glob("*.claim")] == ["owner.6.claim"]


def test_who_was_taken_for_dead_writes_nothing_more(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, TINY)
    with directory.claim({}, []):
        directory.set_status("running", iteration=3)
        owner.Holding(directory.path, owner.Owner(2, "far", job="9", label="8_1")).make()
        before = (directory.path / "status.json").read_bytes()
        with pytest.raises(owner.TakenOver, match=r"is owned by far, job 8_1 now, which took this process for dead"):
            directory.set_status("running", iteration=6)
        with pytest.raises(owner.TakenOver):
            directory.require_ours()
        assert (directory.path / "status.json").read_bytes() == before
    assert owner.latest(directory.path) == owner.Owner(2, "far", job="9", label="8_1")  # not given back for it


def test_an_owner_is_heard_until_it_gives_its_claim_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT_S", 0.02)
    directory = RunDirectory(tmp_path, TINY)
    with directory.claim({}, []):
        (claim,) = directory.path.glob("*.claim")
        os.utime(claim, (0, 0))
        for _ in range(500):
            if claim.stat().st_mtime > 0:
                break
            time.sleep(0.02)
        assert claim.stat().st_mtime > 0
        assert is_alive(directory.path)
    assert json.loads(claim.read_text())["released"]
    assert not is_alive(directory.path)
    assert [path.name for path in directory.path.glob(".*")] == []


def test_a_claim_that_cannot_be_read_is_known_by_its_age(folder: Path) -> None:
    (folder / "owner.3.claim").write_text("{")
    assert owner.standing(folder)[0] == "held"
    os.utime(folder / "owner.3.claim", (0, 0))
    assert take(folder) is not None


def test_where_links_are_not_known_a_claim_is_made_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*paths: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    claim = take(folder)
    assert claim is not None
    assert owner.latest(folder) == claim.owner


def test_a_run_taken_over_from_a_machine_that_died_goes_on_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmark.engine.shutdown import Interrupted
    from tests.robustness.test_kill import StopAt

    assert execute(tmp_path / "unbroken") == "finished"
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(owner, "kernel", lambda: "another kernel")
        elsewhere.setattr(owner.Holding, "_give_back", lambda self: None)
        with pytest.raises(Interrupted):
            execute(tmp_path, stop=StopAt(4))
    assert owner.standing(tmp_path / TINY.name)[0] == "held"
    assert execute(tmp_path, shared=True) == "held"
    (claim,) = (tmp_path / TINY.name).glob("*.claim")
    os.utime(claim, (0, 0))
    assert execute(tmp_path) == "finished"
    assert state(tmp_path) == "finished"
    assert numbers(tmp_path / TINY.name) == numbers(tmp_path / "unbroken" / TINY.name)
