"""A data set from public votes, and one run of the stage `reward` on some of its folds."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.base_model import cache_folder, resolve_base
from pipeline.artifacts.store import Store
from pipeline.config.reward import RewardConfig
from pipeline.config.root import Config
from pipeline.config.shared import ModelConfig, TrackingConfig, TrackingMode
from pipeline.data.encode import load_chat
from pipeline.data.pairs import Pair, encode_pairs
from pipeline.data.rows import Comparison
from pipeline.data.tables import part_name, read_table
from pipeline.evaluation.reward_card import ScoredPair
from pipeline.tracking.job import StageJob
from pipeline.tracking.session import TrackingSession

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "hh": ("hh-rlhf/test.jsonl.gz", "hh_rlhf"),
    "pandalm": ("pandalm/testset-v1.json", "pandalm"),
}
# What one fold of 1,850 pairs can be trained with in minutes on two cores.
DEFAULTS = (
    "reward.max_length=512", "reward.batch_size=16", "reward.microbatch_size=4", "reward.num_epochs=1",
    "reward.optimizer.learning_rate=2e-4", "reward.audit.num_samples=16", "reward.audit.max_new_tokens=32",
    "reward.audit.max_pairs=200",
)  # fmt: skip


def make_dataset(name: str, data: Path, output: Path) -> Artifact:
    """Run `ingest` and `curate` on the votes; no row goes to the test split, because folds take its place."""
    path, importer = SOURCES[name]
    source = f"{{table: exports, path: {data.resolve() / path}, importer: {importer}}}"
    command = [
        sys.executable, "-m", "pipeline", "train", "stages=[ingest,curate]", f"data.name={name}",
        f"data.sources=[{source}]", "data.suites=[]", "curate.filters=[]", "curate.validation_fraction=0.08",
        "curate.test_fraction=0", f"runtime.outputs={output.resolve()}", "tracking=disabled",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True)
    return Store(output).open("curate-")


def compose(changes: Sequence[str]) -> Config:
    """Return the configuration of `+experiment=reward` with these changes."""
    from hydra import compose as compose_with_hydra
    from hydra import initialize_config_dir

    from pipeline.config.composition import load, register_schema
    from pipeline.config.paths import configs_folder

    register_schema()
    with initialize_config_dir(str(configs_folder()), version_base=None):
        composed = compose_with_hydra("train", ["+experiment=reward", *DEFAULTS, *changes])
    loaded = load(composed, [configs_folder()])
    problems = [problem for problem in loaded.problems if problem.startswith("reward")]
    if problems:
        sys.exit("\n".join(problems))
    return loaded.config


def held_out_pairs(dataset: Artifact, fold: int, config: Config) -> list[Pair]:
    """Return the pairs of one fold, of both splits."""
    chat = load_chat(resolve_base(config.model, cache_folder(config.runtime)).folder, config.model)
    rows = [
        row
        for split in ("train", "validation")
        if part_name("comparisons", split) in dataset.manifest.parts
        for row in read_table(dataset, "comparisons", split, Comparison)
    ]
    return encode_pairs(rows, chat, max_length=2048, folds=[fold]).pairs


def train_and_score(
    dataset: Artifact, folds: Sequence[int], pairs: Sequence[Pair], output: Path, name: str, config: Config
) -> tuple[list[ScoredPair], dict[str, Any]]:
    """Train on some folds and score pairs, or read what an earlier run of the same has found."""
    settings = f"{config.reward} {config.model} {sorted(folds)} {dataset.id} {[pair.id for pair in pairs]}"
    digest = hashlib.sha256(settings.encode()).hexdigest()
    result = output / "results" / f"{name}-{digest[:12]}.json"
    if not result.is_file():
        found = _run(dataset, folds, pairs, output, name, digest, config)
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps(found, indent=1), encoding="utf-8")
    values = json.loads(result.read_text(encoding="utf-8"))
    return [ScoredPair(**row) for row in values["scores"]], values["facts"]


def _run(
    dataset: Artifact, folds: Sequence[int], pairs: Sequence[Pair], output: Path, name: str, digest: str, config: Config
) -> dict[str, Any]:
    from dataclasses import asdict

    from pipeline.models.loading import load_base
    from pipeline.models.reward import load_reward
    from pipeline.stages.audit import score_pairs
    from pipeline.stages.reward import train_reward

    store = Store(output)
    inputs: dict[str, list[Artifact]] = {"dataset": [dataset], "policy": []}
    base = resolve_base(config.model, cache_folder(config.runtime))
    with (
        store.lock("reward", digest),
        TrackingSession(TrackingConfig(mode=TrackingMode.disabled), output, output / "runs" / name, {}) as session,
    ):
        work = store.work("reward", digest)
        run = session.start(stage="reward", name=name, fingerprint=digest, work=work, inputs=inputs)
        job = StageJob(
            sections={RewardConfig: config.reward, ModelConfig: config.model}, inputs=inputs, run=run, work=work,
            runtime=config.runtime, base_model=base, params={"folds": sorted(folds)},
        )  # fmt: skip
        outcome = train_reward(job)
        from pipeline.config.shared import DType

        model = load_base(base, config.model, config.runtime, DType(outcome.resolved["dtype"]))
        reward = load_reward(model, work.staging)
        scored = score_pairs(reward, pairs, batch_size=16)
        facts = {
            "std": reward.facts.stds[0], "temperature": reward.facts.temperature, "metrics": outcome.metrics,
            "gates": {gate["name"]: gate["outcome"] for gate in outcome.gates},
        }  # fmt: skip
    return {"scores": [asdict(pair) for pair in scored], "facts": facts}
