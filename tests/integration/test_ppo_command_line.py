"""PPO through the command line that users type: killed on the embedded model, and on answers that nobody can give."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killed_run import ROOT, Place, write_rows
from safetensors.numpy import load_file
from tiny import make_tiny_model

from pipeline.artifacts.base_model import embedded_file
from pipeline.errors import ModelError

pytestmark = pytest.mark.integration
ROLLOUTS = 3
OVERRIDES = (
    "stages=[curate,ppo,evaluate]", "evaluate.baseline=base", "ppo.rewards=[{name: word_count, params: {target: 4}}]",
    f"ppo.num_rollouts={ROLLOUTS}", "ppo.rollout_size=4", "ppo.minibatch_size=2", "ppo.microbatch_size=2",
    "ppo.max_new_tokens=8", "ppo.value_warmup=0", "ppo.save_every=1", "ppo.monitor.every=2",
    "ppo.monitor.completions_per_prompt=1",
)  # fmt: skip

try:
    embedded_file()
except ModelError as error:
    no_model = str(error)
else:
    no_model = ""


@pytest.mark.skipif(bool(no_model), reason=no_model)
def test_a_run_of_the_embedded_model_that_was_killed_ends_at_the_same_weights(tmp_path: Path) -> None:
    cache = write_rows(tmp_path)
    uninterrupted, place = (Place(tmp_path / name, cache, "ppo", OVERRIDES) for name in ("reference", "killed"))
    uninterrupted.finish()
    process = place.run_until(1)
    process.kill()
    assert process.wait(timeout=600) == -signal.SIGKILL
    assert not place.sealed, "it was over before it was killed"
    place.finish()
    assert "going on from the checkpoint of rollout" in place.log
    place.require_same_policy(uninterrupted)
    values, wanted = (load_file(one.sealed[0] / "value" / "value.safetensors") for one in (place, uninterrupted))
    assert all(np.array_equal(values[name], wanted[name]) for name in wanted)
    assert any(np.abs(value).max() > 0 for value in wanted.values()), "the value model learned nothing"


def test_from_nothing_to_a_report_on_gsm8k_that_says_that_nothing_was_to_be_learned(
    real_data: Path, tmp_path: Path
) -> None:
    """The preset alone, with the model and the sizes of a test: no untrained model gives an exact answer."""
    command = [
        sys.executable, "-m", "pipeline", "train", "+experiment=ppo", "data=gsm8k", "data.limit=60",
        f"data.path={real_data / 'gsm8k' / 'train.jsonl'}", "model=hub",
        f"model.id={make_tiny_model(tmp_path / 'model', context_length=2048)}", "model.dtype=float32",
        "tracking=disabled", "runtime.num_threads=1", "evaluate.limit=4", "sft.max_steps=2", "sft.batch_size=2",
        "sft.microbatch_size=2",
        "ppo.num_rollouts=4", "ppo.rollout_size=8", "ppo.minibatch_size=8", "ppo.max_new_tokens=24",
        "ppo.value_warmup=0", "ppo.monitor.num_prompts=4",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PIPELINE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "`data` names no comparisons, so 'ppo' learns from its named rewards alone" in done.stdout
    assert "FAIL rewards_tell_apart" in done.stdout
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    asked = [entry for entry in report["metrics"] if entry["metric"] == "numeric_answer" and entry["baseline"] is None]
    assert {(entry["suite"], entry["policy"]) for entry in asked} == {
        ("gsm8k", name) for name in ("base", "sft", "ppo")
    }
    assert "FAIL rewards_tell_apart" in (run / "report.html").read_text(encoding="utf-8")
