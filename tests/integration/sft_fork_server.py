"""Imports everything once, then forks a child for each attempt that a line of standard input asks for.

A request is a JSON object: {folder, name, kill_at, kill_after, watch}. The child trains and seals as one run of the
stage would. It ends itself at the kill point, or is killed that many seconds after the watched file appears, or ends by
itself. The answer is one JSON line: {status, seconds}, the seconds since the file appeared; a negative status is a
signal. Without a file to watch, seconds count from the start.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ.update({"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from sft_jobs import open_workshop, small_config, train_and_seal  # noqa: E402


def train_sft(folder: Path, name: str) -> None:
    """What a child does for the stage `sft`."""
    train_and_seal(open_workshop(folder), small_config(), name)


def attempt(request: dict[str, str], train: Callable[[Path, str], None]) -> int:
    """Run in the child; everything that the libraries print goes to a log beside the outputs."""
    folder = Path(request["folder"])
    log = os.open(folder / f"{request['name']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request.get("kill_at"):
        os.environ["PIPELINE_KILL_AT"] = request["kill_at"]
    try:
        train(folder, request["name"])
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main(train: Callable[[Path, str], None] = train_sft) -> None:
    """Answer requests until standard input ends."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = kill_when_asked(start_child(request, train), request)
        print(json.dumps(answer), flush=True)


def start_child(request: dict[str, str], train: Callable[[Path, str], None]) -> int:
    """Fork; the child never returns from here."""
    child = os.fork()
    if child == 0:
        os._exit(attempt(request, train))
    return child


def kill_when_asked(child: int, request: dict[str, str]) -> dict[str, float]:
    """Wait for the child, and end it when its time has come."""
    watch, kill_after = request.get("watch"), request.get("kill_after")
    started = None if watch else time.perf_counter()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        now = time.perf_counter()
        if done:
            return {"status": os.waitstatus_to_exitcode(status), "seconds": now - (started or now)}
        if started is None and watch and os.path.exists(watch):
            started = now
        if started is not None and kill_after is not None and now >= started + float(kill_after):
            os.kill(child, signal.SIGKILL)
            kill_after = None
        time.sleep(0.002)


if __name__ == "__main__":
    main()
