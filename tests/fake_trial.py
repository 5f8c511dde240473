"""A trial of a sweep in milliseconds, as a sweep sees one: files in its run folder, signals, an exit status.

Put before a trial's command by `sweep.launch`. What it does follows from the values that it is given:

`sft.lora.rank=R` and `sft.optimizer.learning_rate=L` make the validation loss `R + L + 1 / epoch`; `seed=N` chooses an
end: 2 a configuration error, 30 a gate that failed, 99 a crash with a secret in its message, 98 no objective, 97 one
that is no number.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

EPOCHS = 4


def write(path: Path, content: object) -> None:
    """Write as the pipeline does: a reader sees all of it or nothing."""
    path.with_suffix(".new").write_text(json.dumps(content))
    path.with_suffix(".new").replace(path)


def main() -> int:
    values = dict(word.lstrip("+").split("=", 1) for word in sys.argv[1:] if "=" in word and not word.startswith("-"))
    outputs, pause = Path(values["runtime.outputs"]), float(os.environ.get("FAKE_PAUSE", "0"))
    folder = outputs / "runs" / os.environ["PIPELINE_RUN_FOLDER"]
    rank, rate = (float(values.get(f"sft.{key}", "0")) for key in ("lora.rank", "optimizer.learning_rate"))
    work = outputs / "work" / f"sft-{rank:g}-{rate:g}-{values.get('seed', '0')}"
    for path in (folder, work):
        path.mkdir(parents=True, exist_ok=True)
    write(folder / "work.json", {"sft": os.path.relpath(work, folder)})
    (folder / "objective.json").unlink(missing_ok=True)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    end = int(values.get("seed", "0"))
    if end == 99:
        print("RuntimeError: the key is " + os.environ.get("FAKE_API_KEY", ""), file=sys.stderr)
        return 1
    if end == 2:
        print("ConfigError: 1 problem(s) in the configuration:\n  seed=2: is not to be had", file=sys.stderr)
        return 2
    record = work / "metrics.jsonl"
    done = len(record.read_text().splitlines()) if record.exists() else 0
    for epoch in range(done + 1, EPOCHS + 1):
        time.sleep(pause)
        if asked:
            return 128 + asked[0]
        with record.open("a") as file:
            file.write(json.dumps({"step": 10 * epoch, "validation_loss": rank + rate + 1 / epoch}) + "\n")
        with (outputs / "epochs.log").open("a") as file:
            file.write(f"{folder.name} {epoch} {time.time():.3f} {os.getpid()}\n")
    if end != 98:
        value = math.nan if end == 97 else rank + rate + 1 / EPOCHS
        result = {"name": "sft/validation_loss", "direction": "minimize", "value": value}
        write(folder / "objective.json", [result])
    return 30 if end == 30 else 0


if __name__ == "__main__":
    sys.exit(main())
