"""A sweep over `dpo.beta` through the command line: everything before the training of pairs is made once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sft_jobs import WORDS
from tiny import make_tiny_model

pytestmark = pytest.mark.integration


def write_rows(folder: Path, count: int) -> None:
    demonstrations, pairs = [], []
    for number in range(count):
        word, other = WORDS[number % len(WORDS)], WORDS[(5 * number + 3) % len(WORDS)]
        question = {"role": "user", "content": f"What about the {word} and the {other} of order {number}?"}
        reply = {"role": "assistant", "content": f"The {word} is ready. Open the {other} page."}
        demonstrations.append({"id": f"row-{number:03d}", "messages": [question, reply]})
        sides = {
            "chosen": [{"role": "assistant", "content": f"Open the {other} page."}],
            "rejected": [{"role": "assistant", "content": f"The {word} is not here."}],
        }
        asked = {"role": "user", "content": f"Where is the {word} or the {other} of card {number}?"}
        pairs.append({"id": f"pair-{number:03d}", "prompt": [asked], **sides})
    for name, rows in (("demonstrations", demonstrations), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_sweep_makes_once_what_beta_does_not_change(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")
    write_rows(tmp_path, 60)
    sources = "[{table: demonstrations, path: demonstrations.jsonl}, {table: comparisons, path: pairs.jsonl}]"
    done = subprocess.run(
        [
            sys.executable, "-m", "pipeline", "train", "+experiment=dpo", "model=hub", f"model.id={tmp_path / 'model'}",
            "data=jsonl", f"data.sources={sources}", "evaluate.suites=[heldout]", "tracking=disabled",
            "model.dtype=float32", "sft.num_epochs=1", "sft.lora.rank=4", "sft.max_length=128", "dpo.max_length=128",
            "dpo.watch.max_new_tokens=8", "runtime.num_threads=1", "curate.test_fraction=0.2",
            "curate.near_duplicates.enabled=false", "dpo.beta=0.05,0.1,0.5", "-m",
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PIPELINE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    artifacts = [path.name for path in (tmp_path / "outputs" / "artifacts").iterdir() if path.is_dir()]
    count = {stage: sum(name.startswith(f"{stage}-") for name in artifacts) for stage in (
        "curate", "sft", "reference_logprobs", "dpo", "samples", "report",
    )}  # fmt: skip
    # Samples of the base, of the fine-tuned policy, and of one policy for each beta.
    assert count == {"curate": 1, "sft": 1, "reference_logprobs": 1, "dpo": 3, "samples": 5, "report": 3}
    reports = sorted((tmp_path / "outputs" / "runs").glob("*/report.json"))
    assert len(reports) == 3
    assert all(json.loads(path.read_text())["policies"] == ["sft", "base", "dpo"] for path in reports)
