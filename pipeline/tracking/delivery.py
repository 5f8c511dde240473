"""`runs sync`: brings what was mirrored offline to the server, once, and makes sure that it arrived."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.locks import exclusive_lock
from pipeline.artifacts.temporary import machine_since_its_start
from pipeline.errors import TrackingError
from pipeline.tracking.mirror import UPLOAD_BYTES_PER_SECOND, MirrorFailed, MirrorProcess, client_environment
from pipeline.tracking.mirrored import CLIENT_FOLDER, SPEC_SUFFIX, MirroredRun
from pipeline.tracking.record import Record
from pipeline.tracking.redaction import Redactor
from pipeline.tracking.server import find_account, probe

UPLOAD_SECONDS = 120.0  # per run, beside what its bytes take
SILENT_SECONDS = 3600.0  # without a row, after which a run of another machine is taken for dead
SERVER_SECONDS = 10.0  # for the first answer; more patient than training, which must not wait


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What became of one mirrored run."""

    run_id: str
    name: str
    run_folder: str
    state: str  # "delivered", "delivered before" or "still running"
    url: str | None = None
    num_rows: int = 0  # that the server did not have


def sync(outputs: Path, *, say: Callable[[str], None] = print, seconds: float = UPLOAD_SECONDS) -> list[Delivery]:
    """Deliver every mirrored run below `outputs` that the server does not have in full.

    Rows are sent by W&B's own `wandb sync`; then the run is opened again to link its inputs and output, and read back.
    An interrupted delivery goes on where it was: the server is asked first what it has.

    Args:
        outputs: The folder of all state.
        say: Takes one line per delivered run.
        seconds: What one run may take, beside the time for its bytes at the slowest rate.

    Raises:
        TrackingError: The server cannot be used, or a run did not arrive in full. Those before it are delivered.
    """
    outputs = outputs.absolute()
    runs_folder = outputs / "runs"
    if not runs_folder.is_dir():
        return []
    done, problems = [], []
    with exclusive_lock(runs_folder / "sync.lock", wait=True, notice=say):
        runs = [MirroredRun.load(path) for path in runs_folder.glob(f"*/{CLIENT_FOLDER}/*{SPEC_SUFFIX}")]
        if not all(run.delivered or _is_running(run, outputs) for run in runs):
            _require_server()
        with _Courier(outputs, seconds) as courier:
            for run in sorted(runs, key=lambda run: run.started):  # producers before their consumers
                if run.delivered or _is_running(run, outputs):
                    state = "delivered before" if run.delivered else "still running"
                    done.append(Delivery(run_id=run.run_id, name=run.name, run_folder=run.run_folder, state=state))
                    continue
                try:
                    done.append(courier.deliver(run))
                except MirrorFailed as failed:
                    problems.append(f"{run.name} ({run.run_id}, of {run.run_folder}): {failed}")
                else:
                    say(f"{run.name}: delivered {done[-1].num_rows} rows, {done[-1].url}")
    if problems:
        listed = "\n".join(f"  {line}" for line in problems)
        raise TrackingError(
            f"{len(problems)} run(s) were not delivered in full:\n{listed}\nThey are kept; "
            "`python -m pipeline runs sync` tries again. Details are in wandb/mirror.log of their run folders."
        )
    return done


def _is_running(run: MirroredRun, outputs: Path) -> bool:
    """Whether a run goes on.

    The number of a process means nothing on another machine, nor here since it was started anew: then the record tells.
    """
    if run.exit_code is not None:
        return False
    if run.machine == machine_since_its_start():
        return _is_alive(run.pid)
    record = outputs / run.record
    touched = record.stat().st_mtime if record.exists() else run.started
    return time.time() - touched < SILENT_SECONDS


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process has taken the number
        return False
    return True


def _require_server() -> None:
    account = find_account()
    if not account.api_key:
        raise TrackingError(
            f"No API key for {account.base_url}. Set WANDB_API_KEY, or log in with `wandb login`, then sync again."
        )
    problem = probe(account, SERVER_SECONDS)
    if problem:
        raise TrackingError(f"Nothing was delivered: {problem}. The runs are kept; sync again when it is reachable.")


class _Courier:
    """Delivers one run after the other through one process."""

    def __init__(self, outputs: Path, seconds: float) -> None:
        self._outputs, self._seconds = outputs, seconds
        self._redactor = Redactor()
        self._process: MirrorProcess | None = None

    def __enter__(self) -> _Courier:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process:
            self._process.end()

    def deliver(self, run: MirroredRun) -> Delivery:
        """Bring one run to the server, look whether it is there, and note it.

        Raises:
            MirrorFailed: It did not arrive in full.
        """
        outputs, folder = self._outputs, self._outputs / run.run_folder / CLIENT_FOLDER
        if run.exit_code is None:
            run.exit_code = 1  # its process died
        num_bytes = run.output["bytes"] if run.output and run.upload_artifacts else 0
        limit = self._seconds + num_bytes / UPLOAD_BYTES_PER_SECOND
        fragment = outputs / run.fragment if run.fragment else None
        told = run.command(outputs)
        before = self._ask("look_up", limit, folder, spec=told)
        if before["last_step"] is None and run.mode == "offline" and fragment and fragment.is_dir():
            _wandb_sync(fragment, folder, run, self._redactor, limit)
        # An interrupted delivery leaves such folders; two that begin in the same second would be one.
        stale = [str(path) for path in folder.glob(f"run-*-{run.run_id}")]
        opened = self._ask("open", limit, folder, spec={**told, "mode": "online", "superseded": stale})
        finished = self._ask("finish", limit, folder, **told)
        _require_arrival(run, outputs, finished, self._ask("look_up", limit, folder, spec=told))
        shutil.rmtree(opened["fragment"], ignore_errors=True)  # the lines that were sent; the record has them
        run.entity, run.artifact_digest, run.delivered = opened["entity"], finished.get("artifact_digest"), True
        run.save(outputs)
        had = -1 if before["last_step"] is None else int(before["last_step"])
        num_rows = len({row["step"] for row in Record(outputs / run.record).rows() if row["step"] > had})
        return Delivery(
            run_id=run.run_id, name=run.name, run_folder=run.run_folder, state="delivered", url=opened["url"],
            num_rows=num_rows,
        )  # fmt: skip

    def _ask(self, do: str, seconds: float, place: Path, /, **facts: Any) -> dict[str, Any]:
        if self._process is None:
            self._process = MirrorProcess(place, self._redactor.text)
        self._process.tell(do, **facts)
        try:
            return self._process.wait(do, online=True, seconds=seconds)
        except MirrorFailed:
            self._process.end(patience=0)  # the next run starts with a process that owes no answer
            self._process = None
            raise


def _wandb_sync(fragment: Path, folder: Path, run: MirroredRun, redactor: Redactor, seconds: float) -> None:
    """Let W&B's own command send what its client wrote offline."""
    command = [sys.executable, "-m", "wandb", "sync", "--yes", "--project", run.project]
    command += ["--entity", run.entity] if run.entity else []
    environment = {**client_environment(folder), "WANDB_SILENT": "false"}
    try:
        done = subprocess.run(
            [*command, str(fragment)], env=environment, capture_output=True, text=True, timeout=seconds, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise MirrorFailed(f"`wandb sync` did not end within {seconds:.0f} s") from None
    with (folder / "mirror.log").open("a", encoding="utf-8") as log:
        log.write(redactor.text(done.stdout + done.stderr))
    if done.returncode:
        raise MirrorFailed(redactor.text(f"`wandb sync` ended with status {done.returncode}: {done.stderr[-500:]}"))


def _require_arrival(run: MirroredRun, outputs: Path, finished: dict[str, Any], found: dict[str, Any]) -> None:
    """Compare what the server says it has with what was to be sent: a lost upload is reported by nobody else.

    Raises:
        MirrorFailed: Something is missing.
    """
    steps = {row["step"] for row in Record(outputs / run.record).rows()}
    missing = []
    if steps and (found["last_step"] is None or found["last_step"] < max(steps)):
        missing.append(f"rows after step {found['last_step']} (the record ends at step {max(steps)})")
    if steps and found["num_rows"] < len(steps):
        missing.append(f"{len(steps) - found['num_rows']} of {len(steps)} rows")
    if run.output and (found["artifact_digest"] is None or found["artifact_digest"] != finished["artifact_digest"]):
        missing.append(f"the artifact {run.output['id']}, which was not committed")
    left = [entry["id"] for entry in run.registered if entry["id"] not in finished["registered"]]
    missing += [f"the link from {run.registry} to {name}" for name in left]
    missing += [f"the link to the input {entry['id']}" for entry in run.inputs if entry["id"] not in found["inputs"]]
    if missing:
        raise MirrorFailed("the server lacks " + "; ".join(missing))
