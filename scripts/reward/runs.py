"""A data set from public votes, and one run of the stage `reward` on some of its folds."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.base_model import cache_folder, resolve_base
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.store import Store
from pipeline.config.reward import RewardConfig
from pipeline.config.root import Config
from pipeline.config.shared import ModelConfig, TrackingConfig, TrackingMode
from pipeline.data.encode import load_chat
from pipeline.data.pairs import Pair, encode_pairs
from pipeline.data.rows import Comparison
from pipeline.data.tables import part_name, read_table, rows_digest, write_table
from pipeline.evaluation.reward_card import ScoredPair
from pipeline.models.lower_layers import LowerLayers
from pipeline.statistics.calibration import fit_temperature
from pipeline.tracking.job import StageJob
from pipeline.tracking.session import TrackingSession

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "validation")  # none is tested on: what is held out is a fold
ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "hh": ("hh-rlhf/test.jsonl.gz", "hh_rlhf"),
    "pandalm": ("pandalm/testset-v1.json", "pandalm"),
}
# What one fold of 1,850 pairs can be trained with in minutes on one core: the four layers on top learn, over states of
# the others that are computed once for all folds. Longer train pairs are left out; a held-out pair is always scored.
DEFAULTS = (
    "reward.max_length=320", "reward.batch_size=16", "reward.microbatch_size=8", "reward.num_epochs=1",
    "reward.optimizer.learning_rate=1e-3", "reward.upper_layers=4", "model.system_prompt=null",
)  # fmt: skip
MAX_PROMPT_WORDS = 80  # prompts lose their first turns until they have no more, or one turn is left


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
    return rewrite(Store(output).open("curate-"), output / "shortened", lambda rows: list(map(_shortened, rows)))


def rewrite(dataset: Artifact, output: Path, change: Callable[[list[Comparison]], Sequence[Comparison]]) -> Artifact:
    """Seal the data set with other comparisons in the place of each, in their order; splits and folds stay."""
    store, fingerprint = Store(output), hashlib.sha256(dataset.id.encode()).hexdigest()
    sealed = store.current("curate", fingerprint)
    if sealed is not None:
        return sealed
    splits = [split for split in SPLITS if part_name("comparisons", split) in dataset.manifest.parts]
    tables = {split: read_table(dataset, "comparisons", split, Comparison) for split in splits}
    changed = iter(change([row for split in splits for row in tables[split]]))
    work, parts = store.work("curate", fingerprint), {}
    for split in splits:
        table = [next(changed) for _ in tables[split]]
        write_table(work.staging, "comparisons", split, table)
        parts[part_name("comparisons", split)] = rows_digest(table)
    return store.seal(
        work, kind=ArtifactKind.dataset, stage="curate", version=1, fingerprint=fingerprint, parents=[], config={},
        outcome=StageOutcome(parts=parts),
    )  # fmt: skip


def _shortened(row: Comparison) -> Comparison:
    """Return the comparison without the first turns of a long conversation; what was judged stays whole."""
    prompt = list(row.prompt)
    while len(prompt) > 1 and sum(len(message["content"].split()) for message in prompt) > MAX_PROMPT_WORDS:
        prompt.pop(0)
    return replace(row, prompt=prompt)


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
        for split in SPLITS
        if part_name("comparisons", split) in dataset.manifest.parts
        for row in read_table(dataset, "comparisons", split, Comparison)
    ]
    return encode_pairs(rows, chat, max_length=2048, folds=[fold]).pairs


def train_and_score(
    dataset: Artifact,
    folds: Sequence[int],
    pairs: Sequence[Pair],
    output: Path,
    name: str,
    config: Config,
    lower: LowerLayers | None,
) -> tuple[list[ScoredPair], float]:
    """Train `reward.num_members` on some folds and score pairs, or read what an earlier run of the same has found.

    Returns:
        The pairs with raw scores, of an ensemble the mean of its members, and the temperature that the validation pairs
        ask for.
    """
    settings = f"{config.reward} {config.model} {sorted(folds)} {dataset.id} {[pair.id for pair in pairs]}"
    digest = hashlib.sha256(settings.encode()).hexdigest()
    result = output / "results" / f"{name}-{digest[:12]}.json"
    if not result.is_file():
        found = _run(dataset, folds, pairs, output, name, digest, config, lower)
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps(found, indent=1), encoding="utf-8")
    values = json.loads(result.read_text(encoding="utf-8"))
    return [ScoredPair(**row) for row in values["scores"]], values["temperature"]


def _run(
    dataset: Artifact,
    folds: Sequence[int],
    pairs: Sequence[Pair],
    output: Path,
    name: str,
    digest: str,
    config: Config,
    lower: LowerLayers | None,
) -> dict[str, Any]:
    from pipeline.stages.pairs import load_pairs
    from pipeline.stages.reward import fit_member
    from pipeline.stages.reward_trainer import pair_scores
    from pipeline.stages.training import course_metrics

    store, reward = Store(output), config.reward
    inputs: dict[str, list[Artifact]] = {"dataset": [dataset], "policy": []}
    started = time.monotonic()
    with (
        store.lock("reward", digest),
        TrackingSession(TrackingConfig(mode=TrackingMode.disabled), output, output / "runs" / name, {}) as session,
    ):
        work = store.work("reward", digest)
        run = session.start(stage="reward", name=name, fingerprint=digest, work=work, inputs=inputs)
        job = StageJob(
            sections={RewardConfig: reward, ModelConfig: config.model}, inputs=inputs, run=run, work=work,
            runtime=config.runtime, base_model=resolve_base(config.model, cache_folder(config.runtime)),
            params={"folds": sorted(folds)},
        )  # fmt: skip
        rows = load_pairs(job, section="reward", folds=folds, max_length=reward.max_length)
        base, metrics, scored = None, [], []
        for number in range(reward.num_members):
            fitted = fit_member(job, base, rows, reward, number, lower)
            scored.append(pair_scores(fitted.model, [*rows.validation, *pairs], reward.microbatch_size, lower))
            metrics.append(course_metrics(fitted.training.attempt, fitted.step))
            base = fitted.model.unload()
    found = joined([*rows.validation, *pairs], scored)
    validation = found[: len(rows.validation)]
    temperature = fit_temperature(
        [pair.difference for pair in validation],
        [pair.confidence for pair in validation],
        [pair.cluster for pair in validation],
    ).estimate
    return {
        "scores": [asdict(pair) for pair in found[len(validation) :]],
        "temperature": 1.0 if temperature is None else temperature,
        "members": metrics,
        "seconds": round(time.monotonic() - started, 1),
    }


def joined(pairs: Sequence[Pair], scored: Sequence[Tensor]) -> list[ScoredPair]:
    """Return the pairs with the mean of what the members say, ``[2, N]`` raw scores each: they are all log-odds."""
    from pipeline.stages.audit import scored_pair

    chosen, rejected = (sum(scored) / len(scored)).tolist()
    return [scored_pair(pair, *scores) for pair, *scores in zip(pairs, chosen, rejected, strict=True)]
