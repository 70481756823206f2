"""A real Slurm of two nodes with one core each, on this machine: slurmctld, a slurmd a node, munge.

Each node lives in a mount and host-name namespace of its own, with a boot id of its own: to a process there its node is
another machine than the other one, though both see the same files.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

NODES = ("n1", "n2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "unshare")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmctldPort={port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=5
JobRequeue=1
MpiDefault=none
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=8000\n"


def missing() -> str:
    """Why no Slurm can be started here, or an empty text."""
    if os.name != "posix" or os.geteuid() != 0:
        return "starting a Slurm of the tests needs root"
    absent = [program for program in PROGRAMS if program_path(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: apt-get install slurm-wlm munge)"
    return ""


def program_path(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


class LocalSlurm:
    """Started by ``with``; ended, with everything that runs on its nodes, at the end of the block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.small = folder / "small"
        """A disk of half a MiB, there before the nodes are."""
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> LocalSlurm:
        for name in ("state", "log", *(f"spool{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        self.small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "none", str(self.small)], check=True)
        ports = _free_ports(1 + len(NODES))
        text = CONFIGURATION.format(
            host=socket.gethostname(), folder=self.folder, port=ports[0], nodes=",".join(NODES)
        ).replace(
            "PartitionName",
            "".join(NODE.format(name=n, port=p) for n, p in zip(NODES, ports[1:], strict=True)) + "PartitionName",
        )
        (self.folder / "slurm.conf").write_text(text)
        self._start("munged", [str(program_path("munged")), "--foreground", *self._munge()])
        wait_until(lambda: (self.folder / "munge" / "socket").exists())
        self._start("slurmctld", [str(program_path("slurmctld")), "-D"])
        for node in NODES:
            self.start_node(node)
        try:
            wait_until(lambda: self.command("sinfo", "-h", "-N", "-o", "%t").split() == ["idle"] * len(NODES))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.command("scancel", "--full", "--signal=KILL", "--user=root")
        for node in NODES:
            self.kill_node(node)
        for name in ("slurmctld", "munged"):
            if name in self.daemons:
                self.daemons[name].kill()
                self.daemons[name].wait()
        subprocess.run(["umount", "--lazy", str(self.small)], check=False)

    def _munge(self) -> list[str]:
        """Flags of a munged of our own, beside whatever the system runs."""
        place = self.folder / "munge"
        place.mkdir(mode=0o755)
        (place / "key").write_bytes(os.urandom(128))
        (place / "key").chmod(0o600)
        with open(self.folder / "slurm.conf", "a") as file:
            file.write(f"AuthInfo=socket={place}/socket\n")
        return [
            f"--key-file={place}/key", f"--socket={place}/socket", f"--pid-file={place}/pid",
            f"--log-file={place}/log", f"--seed-file={place}/seed", "--force",
        ]  # fmt: skip

    def _start(self, name: str, words: list[str]) -> None:
        log = open(self.folder / "log" / f"{name}.out", "ab")  # noqa: SIM115
        with log:
            self.daemons[name] = subprocess.Popen(
                words, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                cwd=self.folder / "log",  # a crash leaves its core there
            )  # fmt: skip

    def start_node(self, node: str) -> None:
        boot = self.folder / f"boot-{node}"
        boot.write_text(f"{uuid.uuid4()}\n")
        script = (
            f"mount --bind {boot} /proc/sys/kernel/random/boot_id && hostname {node} && "
            f"exec {program_path('slurmd')} -D -N {node}"
        )
        self._start(node, ["unshare", "--mount", "--uts", "sh", "-c", script])

    def kill_node(self, node: str) -> None:
        """What a power failure does: SIGKILL to slurmd and to every process of its jobs."""
        daemon = self.daemons.pop(node, None)
        if daemon is None:
            return
        boot = f"/proc/{daemon.pid}/ns/uts"
        namespace = os.readlink(boot) if os.path.exists(boot) else ""
        daemon.kill()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if namespace and os.readlink(process / "ns" / "uts") == namespace:
                    os.kill(int(process.name), signal.SIGKILL)
        daemon.wait()

    def command(self, *words: str) -> str:
        """The output of a Slurm command."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout


def wait_until(true: Callable[[], bool], timeout_s: float = 60, every_s: float = 0.2) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s")
        time.sleep(every_s)


def _free_ports(count: int) -> list[int]:
    """Below those that the system gives to whoever asks for any, which may be asked for before they are used."""
    ports: set[int] = set()
    while len(ports) < count:
        with socket.socket() as each, contextlib.suppress(OSError):
            each.bind(("127.0.0.1", random.randrange(10_000, 20_000)))
            ports.add(each.getsockname()[1])
    return sorted(ports)
