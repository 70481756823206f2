"""Workers: the same numbers as one process, and an end for every way to fail."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmark.engine.group import Group
from benchmark.engine.parallel import WorkerDied, default_workers, launch
from benchmark.engine.shutdown import Stop
from benchmark.errors import UserError


def collectives(group, total):
    mine = torch.tensor([[i, 10 * i] for i in group.share(total)], dtype=torch.float64).reshape(-1, 2)
    return {
        "rows": group.gather(mine, total),
        "sum": group.sum_(torch.full((3,), group.rank + 1.0)),
        "said": group.broadcast({"by": group.rank}),
        "any": (group.any_(group.rank == 1), group.any_(False)),
        "threads": torch.get_num_threads(),
    }


def several(group, totals):
    return [collectives(group, total) for total in totals]


def raise_in_one(group):
    if group.rank == 1:
        raise UserError("rank 1 has no luck")
    group.sum_(torch.zeros(1))


def die_in_one(group):
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    group.sum_(torch.zeros(1))


def warned_in_one(group):
    with Stop().installed() as stop:
        before = stop.agreed(group)
        if group.rank == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return before, stop.agreed(group), stop.exit_status


def leave(group):
    sys.exit(7)


def test_a_group_of_one_does_nothing():
    group = Group()
    rows = torch.rand(5, 2)
    assert list(group.share(5)) == [0, 1, 2, 3, 4]
    assert group.gather(rows, 5) is rows
    assert group.broadcast("x") == "x"
    assert group.any_(True)
    assert not group.any_(False)
    assert launch(collectives, (5,))["rows"].shape == (5, 2)


def test_collectives_of_two_workers():
    for total, found in zip((1, 5), launch(several, ((1, 5),), workers=2), strict=True):
        assert found["rows"].tolist() == [[i, 10 * i] for i in range(total)]
        assert found["sum"].tolist() == [3, 3, 3]
        assert found["said"] == {"by": 0}
        assert found["any"] == (True, False)


def test_an_exception_of_a_worker_is_raised_here():
    started = time.monotonic()
    with pytest.raises(UserError, match="rank 1 has no luck"):
        launch(raise_in_one, (), workers=2)
    assert time.monotonic() - started < 60


def test_a_killed_worker_ends_the_run():
    started = time.monotonic()
    with pytest.raises(
        WorkerDied, match=r"worker 1 died \(signal 9\); the same command goes on from the last checkpoint"
    ):
        launch(die_in_one, (), workers=2)
    assert time.monotonic() - started < 60


def test_all_stop_with_the_signal_that_one_got():
    assert launch(warned_in_one, (), workers=2) == (False, True, 128 + signal.SIGUSR1)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_asks_for_a_stop_unless_that_is_ignored(ignored):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with Stop().installed() as stop:
            if not ignored:
                os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGHUP)  # shell and system both say so: no second request
            assert bool(stop) is not ignored
    finally:
        signal.signal(signal.SIGHUP, before)


def test_exit_status_is_rank_zeros():
    with pytest.raises(SystemExit) as ending:
        launch(leave, (), workers=2)
    assert ending.value.code == 7


SLEEPER = r"""
import os, signal, sys, time
from benchmark.engine.parallel import launch

def wait_for_signal(group):
    def stop(number, frame):
        os.write(1, f"rank {group.rank} got {number}\n".encode())
        sys.exit(128 + number)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    os.write(1, b"ready\n")
    for _ in range(1200):  # in one long sleep a signal that came just before it is not heard
        time.sleep(0.05)

if __name__ == "__main__":
    launch(wait_for_signal, (), workers=2)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on(number, tmp_path):
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        lines = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(number)
        rest, _ = process.communicate(timeout=30)
    assert lines == ["ready\n", "ready\n"]
    assert sorted(rest.splitlines()) == [f"rank {rank} got {int(number)}" for rank in (0, 1)]
    assert process.returncode == 128 + number


SIGNAL_AT_THE_FIRST_WORD = r"""
import os, signal, time
from multiprocessing import connection

def ready():
    return all(os.path.exists(f"ready{rank}") for rank in (0, 1))

def reads(*args):
    word = recv_bytes(*args)
    while not ready():
        time.sleep(0.01)
    ask()
    return word

def waits(*args, **kwargs):
    found = wait(*args, **kwargs)
    if not found and ready():
        ask()
    return found

def ask():
    if not asked:
        asked.append(True)
        os.kill(os.getpid(), signal.SIGTERM)

if __name__ == "__main__":  # the starting process alone
    asked, wait, recv_bytes = [], connection.wait, connection.Connection.recv_bytes
    connection.wait, connection.Connection.recv_bytes = waits, reads
"""


def test_a_signal_may_come_while_a_worker_is_heard(tmp_path):
    """A worker that has begun gets it, also before the starting process has taken note of what it said."""
    script = tmp_path / "sleeper.py"
    say_ready = r'os.write(1, b"ready\n")'
    assert say_ready in SLEEPER
    mark_ready = 'open(f"ready{group.rank}", "x").close()'
    script.write_text(SIGNAL_AT_THE_FIRST_WORD + SLEEPER.replace(say_ready, mark_ready))
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90
    )
    assert sorted(done.stdout.splitlines()) == ["rank 0 got 15", "rank 1 got 15"]
    assert done.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("after_s", [0.0, 1.0])
def test_ctrl_c_while_workers_start_is_silent(after_s, tmp_path):
    """A terminal sends it to all of them, some in the midst of loading torch."""
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, str(script)], env=environment, **how) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while process.poll() is None and len(children.read_text().split()) < 2:  # multiprocessing's own, and a worker
            time.sleep(0.01)
        time.sleep(after_s)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert said == ""
    assert process.returncode == 130


THREADS_AFTER_A_GROUP = """
import os, sys, time, torch
from benchmark.engine.group import joined

with joined(torch.device("cpu"), 0, init_method=f"file://{sys.argv[1]}", rank=0, world_size=1):
    during = len(os.listdir("/proc/self/task"))
    import torch._dynamo  # torch's own, when it is first needed
until = time.monotonic() + 5  # the system may list one that has ended a moment longer
while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < until:
    time.sleep(0.01)
print(during > 1, len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_the_threads_of_a_group_end_with_it(tmp_path):
    """One that lets go of a tensor while the interpreter ends would abort the process (torch 2.14)."""
    command = [sys.executable, "-c", THREADS_AFTER_A_GROUP, str(tmp_path / "rendezvous")]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)
    assert done.stdout == "True 1\n", done.stderr


def test_default_workers_are_at_most_one_per_task():
    assert default_workers(torch.device("cpu"), 1) == 1
    assert 1 <= default_workers(torch.device("cpu"), 1000) <= os.cpu_count()


def test_a_gpu_named_by_its_number_has_one_worker(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert default_workers(torch.device("cuda"), 1000) == 4
    assert default_workers(torch.device("cuda:1"), 1000) == 1
