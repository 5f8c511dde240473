"""Our side of the process that talks to W&B: starts it, watches over it, and ends it when it hangs."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pipeline
from pipeline.tracking.server import Account, find_account, probe

# Set by W&B's agent: with them the client ignores which run, project and entity it is asked for.
TRIAL_VARIABLES = ("SWEEP_ID", "SWEEP_PARAM_PATH")

WATCH_SECONDS = 3.0  # without an answer, after which the server is asked whether it is alive
IMPORT_SECONDS = 60.0  # for the process to be ready, which is a matter of this machine alone
OFFLINE_SECONDS = 30.0  # enough for writing to a disk
ONLINE_SECONDS = 10.0  # without uploads, although the server answers
UPLOAD_BYTES_PER_SECOND = 250_000  # the slowest upload that is waited for
INIT_SECONDS = 90.0  # in the background; nobody waits for it but `finish`, which watches the server

# These would give every run the same identity, or undo what was decided.
DROPPED_VARIABLES = (
    "RUN_ID", "RESUME", "NAME", "RUN_GROUP", "JOB_TYPE", "MODE", "SILENT", "DIR", "TAGS", "NOTES", *TRIAL_VARIABLES,
)  # fmt: skip


class MirrorFailed(Exception):
    """The mirror did not do as it was told; the message says why."""


def client_environment(folder: Path, account: Account | None = None) -> dict[str, str]:
    """Return the environment of a W&B client that leaves nothing in the home folder."""
    account = account or find_account()
    environment = {name: value for name, value in os.environ.items() if not _is_dropped(name)}
    environment["WANDB_BASE_URL"] = account.base_url
    if account.entity:
        environment["WANDB_ENTITY"] = account.entity
    if account.api_key:
        environment["WANDB_API_KEY"] = account.api_key
    for kind in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        place = folder / "client" / kind.lower()
        place.mkdir(parents=True, exist_ok=True)
        environment[f"WANDB_{kind}_DIR"] = str(place)
    environment["WANDB_DIR"] = str(folder / "client")
    environment["WANDB_SILENT"] = "true"
    environment["WANDB_ERROR_REPORTING"] = "false"
    package = str(Path(pipeline.__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return environment


def _is_dropped(name: str) -> bool:
    return name.startswith("WANDB_") and name.removeprefix("WANDB_") in DROPPED_VARIABLES


class MirrorProcess:
    """One process, which serves one run after the other."""

    def __init__(self, folder: Path, redact: Callable[[str], str]) -> None:
        """Start it; it imports the client while training gets ready."""
        folder.mkdir(parents=True, exist_ok=True)
        self._account = find_account()
        self._redact = redact
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._is_ready = threading.Event()
        with (folder / "mirror.log").open("ab") as log:
            # A session of its own: the terminal's Ctrl-C is for the training process, which then ends this one.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.tracking.mirror_process"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
                env=client_environment(folder, self._account),
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._is_ready.set()  # the first answer says no more than that
            if (answer := json.loads(line)).get("done") != "import":
                self._answers.put(answer)
        self._is_ready.set()
        self._answers.put({"failed": "process", "reason": "the mirror's process ended"})

    def tell(self, do: str, **facts: Any) -> None:
        """Send a command without waiting for what comes of it."""
        assert self._process.stdin
        with contextlib.suppress(OSError):  # it died: the reader has put the reason among the answers
            self._process.stdin.write(json.dumps({"do": do, **facts}).encode() + b"\n")
            self._process.stdin.flush()

    def heard(self) -> list[dict[str, Any]]:
        """Return the answers that have come in, without waiting."""
        answers = []
        with contextlib.suppress(queue.Empty):
            while True:
                answers.append(self._answers.get_nowait())
        return answers

    def wait(self, do: str, *, online: bool, num_bytes: int = 0, seconds: float = ONLINE_SECONDS) -> dict[str, Any]:
        """Wait for the answer to a command; a server that stops answering is not waited for.

        Raises:
            MirrorFailed: The command failed, or took too long.
        """
        limit = seconds + num_bytes / UPLOAD_BYTES_PER_SECOND if online else OFFLINE_SECONDS
        if not self._is_ready.wait(IMPORT_SECONDS):
            raise MirrorFailed(f"the mirror's process was not ready within {IMPORT_SECONDS:.0f} s")
        deadline = time.monotonic() + limit
        while True:
            left = deadline - time.monotonic()
            try:
                answer = self._answers.get(timeout=max(0.01, min(WATCH_SECONDS, left)))
            except queue.Empty:
                problem = probe(self._account) if online and left > 0 else None
                if problem or time.monotonic() >= deadline:
                    raise MirrorFailed(problem or f"no answer to {do!r} within {limit:.0f} s") from None
                continue
            if "failed" in answer:
                raise MirrorFailed(self._redact(answer["reason"]))
            if answer.get("done") == do:
                return answer

    def end(self, *, patience: float = 5.0) -> None:
        """Let it end by itself, but not for longer than `patience` seconds; 0 ends it and its children at once."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        if patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the client's own service is in the same group
        self._process.wait()
        self._reader.join(1.0)
        if self._process.stdout:
            self._process.stdout.close()
