"""A Slurm of its own on the loopback interface, in a temporary folder: one node, no accounting."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
START_SECONDS = 60.0
# `config_overrides` lets the node have more cores than the machine, `linuxproc` and `task/none` need no cgroup.
CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MailProg=/bin/true
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=loopback Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_need() -> str | None:
    """Return why no Slurm can run here; None where one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)}): apt-get install slurmctld slurmd slurm-client munge"
    return None if os.geteuid() == 0 else "slurmd starts jobs for others and runs as root only"


class SlurmServer:
    """The daemons of a cluster of one node."""

    def __init__(self, folder: Path) -> None:
        """Write the configuration; nothing is started."""
        self.folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._logs: list[IO[bytes]] = []
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        text = CONFIGURATION.format(
            folder=folder, host=socket.gethostname().split(".")[0], controller_port=_free_port(), node_port=_free_port()
        )
        (folder / "slurm.conf").write_text(text)

    @property
    def environment(self) -> dict[str, str]:
        """What its clients find it by."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": SEARCHED}

    def start(self) -> None:
        """Start the daemons and wait until the node takes jobs."""
        folder = self.folder
        socket_file = folder / "munge.socket"
        self._run(
            "munged", "--foreground", f"--key-file={folder / 'munge.key'}", f"--socket={socket_file}",
            f"--pid-file={folder / 'munged.pid'}", f"--seed-file={folder / 'munge.seed'}",
            f"--log-file={folder / 'munged.log'}",
        )  # fmt: skip
        self._until(socket_file.exists)
        self._run("slurmctld", "-D")
        self._run("slurmd", "-D")
        self._until(lambda: self.say("sinfo", "--noheader", "--format=%T").strip() == "idle")

    def stop(self) -> None:
        """End the jobs, then the daemons, the last started first."""
        if len(self._daemons) == 3:
            self.say("scancel", "--signal=KILL", "--me")
            self.say("scancel", "--me")
            self._until(lambda: not self.say("squeue", "--noheader", "--me"))
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for log in self._logs:
            log.close()

    def say(self, *words: str) -> str:
        """Return what a client says; nothing where it fails."""
        return subprocess.run(
            words, capture_output=True, text=True, check=False, env={**os.environ, **self.environment}
        ).stdout  # fmt: skip

    def jobs(self) -> dict[str, tuple[str, str]]:
        """Return every job that it knows, those that are over included: id -> name and state."""
        lines = self.say("squeue", "--noheader", "--states=all", "--format=%A|%j|%T").splitlines()
        return {number: (name, state) for number, name, state in (line.split("|") for line in lines)}

    def _run(self, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=SEARCHED)
        assert path is not None
        log = (self.folder / f"{program}.out").open("wb")
        self._logs.append(log)
        self._daemons.append(
            subprocess.Popen(
                [path, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment}, cwd=self.folder, start_new_session=True,
            )
        )  # fmt: skip

    def _until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not holds():
            said = "\n".join(path.read_text(errors="replace")[-1000:] for path in self.folder.glob("*.out"))
            assert time.monotonic() < deadline, said
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running_slurm() -> Iterator[SlurmServer]:
    """Start a cluster, and leave nothing of it behind."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)  # munged's clients pass through it
    try:
        server = SlurmServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
