"""A PostgreSQL server of its own on the loopback interface, with a password, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "searcher"
DEBIAN = Path("/usr/lib/postgresql")  # keeps the server's programs off the search path, a folder per version


def find_programs() -> Path | None:
    """Return the folder of the server's programs and of `psql`, of the newest version; None where one is missing."""
    on_path = shutil.which("pg_ctl")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(DEBIAN.glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    programs = ("initdb", "pg_ctl", "psql")
    return next((folder for folder in folders if all((folder / name).exists() for name in programs)), None)


class PostgresqlServer:
    """A server that can be stopped as an outage stops it, and started again."""

    def __init__(self, programs: Path, folder: Path) -> None:
        """Make the server's files below a folder; it is not started."""
        self.password = secrets.token_hex(12)
        self._programs, self._folder = programs, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        # The server refuses to run as root.
        self._account = next((name for name in ("postgres", "nobody") if _exists(name)), None)
        self._account = self._account if os.geteuid() == 0 else None
        (folder / "password").write_text(self.password)
        if self._account:
            for path in (folder, folder / "password"):
                shutil.chown(path, self._account)
        self._call("initdb", "-D", str(folder / "data"), "-U", USER, "--auth=scram-sha-256", "--no-sync",
                   f"--pwfile={folder / 'password'}")  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """What its clients find the password in."""
        return {"PGPASSWORD": self.password}

    def storage(self, database: str) -> str:
        """Return what `sweep.storage` takes for a database."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        log = self._folder / "log"
        self._call(
            "pg_ctl", "-D", str(self._folder / "data"), "-l", str(log), "-o", options, "-t", "120", "-w", "start"
        )

    def stop(self) -> None:
        """Cut every connection off, without a word to the clients, as a crash does."""
        self._call("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")

    def create(self, database: str) -> None:
        """Make an empty database."""
        self.query("postgres", f"CREATE DATABASE {database}")

    def query(self, database: str, statement: str) -> list[list[str]]:
        """Return the rows that a statement gives, their cells as text."""
        done = subprocess.run(
            [
                str(self._programs / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database, "-X",
                "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement,
            ],
            capture_output=True, text=True, check=True, env={**os.environ, **self.environment},
        )  # fmt: skip
        return [line.split("|") for line in done.stdout.splitlines()]

    def _call(self, program: str, *arguments: str) -> None:
        # To files, not to pipes: the server that pg_ctl leaves behind would hold them open.
        with (self._folder / f"{program}.out").open("w+") as said:
            status = subprocess.run(
                [str(self._programs / program), *arguments],
                stdout=said, stderr=said, stdin=subprocess.DEVNULL, check=False, cwd=self._folder, user=self._account,
                group=pwd.getpwnam(self._account).pw_gid if self._account else None,
                extra_groups=[] if self._account else None, env={**os.environ, "HOME": str(self._folder)},
            ).returncode  # fmt: skip
            said.seek(0)
            assert status == 0, said.read()


def _exists(account: str) -> bool:
    try:
        pwd.getpwnam(account)
    except KeyError:
        return False
    return True


@contextmanager
def running_server(programs: Path) -> Iterator[PostgresqlServer]:
    """Start a server, and leave nothing of it behind."""
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # pytest's own folders are closed to another account
    try:
        server = PostgresqlServer(programs, folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
