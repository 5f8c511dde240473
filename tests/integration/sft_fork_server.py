"""Imports everything once, then forks a child for each attempt that a line of standard input asks for.

A request is a JSON object: {folder, name, kill_at, kill_after}. The child trains and seals as one run of the stage
would. It ends itself at the kill point, or is killed after the given seconds, or ends by itself. The answer is one
JSON line: {status, seconds}; a negative status is a signal.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

os.environ.update({"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from sft_jobs import open_workshop, small_config, train_and_seal  # noqa: E402


def attempt(request: dict[str, str]) -> int:
    """Run in the child; everything that the libraries print goes to a log beside the outputs."""
    folder = Path(request["folder"])
    log = os.open(folder / f"{request['name']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request.get("kill_at"):
        os.environ["PIPELINE_KILL_AT"] = request["kill_at"]
    try:
        train_and_seal(open_workshop(folder), small_config(), request["name"])
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main() -> None:
    """Answer requests until standard input ends."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        started = time.perf_counter()
        child = os.fork()
        if child == 0:
            os._exit(attempt(request))
        deadline = started + float(request["kill_after"]) if request.get("kill_after") else None
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if deadline is not None and time.perf_counter() >= deadline:
                os.kill(child, signal.SIGKILL)
                deadline = None
            time.sleep(0.002)
        seconds = time.perf_counter() - started
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
