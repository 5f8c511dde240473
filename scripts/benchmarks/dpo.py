"""Direct preference optimisation: our trainer at its best against TRL's as it comes, and at its best."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.benchmark import Benchmark, Measurement, compared_losses, compared_speeds
from benchmarks.sft import AS_IT_COMES, LEARNING_RATE, MAX_LENGTH, PEERS, SAME_BATCHES, SEED, Peer

ROOT = Path(__file__).resolve().parents[2]
COMPARED_PAIRS, COMPARED_BATCH = 8, 2  # what the variants that compare losses train on


def measure(variant: str, options: argparse.Namespace) -> Measurement:
    """Train once over the pairs; scoring the reference counts for both, ours beforehand and TRL's in every step."""
    from benchmarks.clock import Clock, CountingCollator
    from pipeline.runtime.memory import peak_memory_bytes

    with tempfile.TemporaryDirectory() as folder:
        trainer, meter, dtype, notes = _trainer(variant, options, Path(folder))
        trainer.data_collator = CountingCollator(trainer.data_collator)
        clock = Clock(meter, trainer.data_collator)
        trainer.add_callback(clock)
        trainer.train()
    timed_pairs = notes["pairs"] - notes["batch_size"]  # the first step is not timed
    reference_seconds = notes.pop("reference_seconds", 0.0) * timed_pairs / notes["pairs"]
    return Measurement(
        seconds=clock.seconds + reference_seconds,
        processed=timed_pairs,
        peak_bytes=peak_memory_bytes(),
        unit="pairs",
        dtype=dtype,
        losses=clock.losses,
        notes=notes,
    )


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every variant trains on, and how it is cut into steps."""

    base: Any
    model: Any  # configuration of the base
    runtime: Any
    chat: Any
    pairs: list[Any]
    batch_size: int


def prepare(variant: str, options: argparse.Namespace) -> Task:
    """Load the tokenizer and encode the pairs.

    Variants that compare losses take a few of the shortest pairs: float32 with the full logits of TRL's loss needs time
    and memory that say nothing about whether two losses are equal.
    """
    import transformers

    from pipeline.artifacts.base_model import cache_folder, resolve_base
    from pipeline.config.shared import ModelConfig, ModelSource, RuntimeConfig
    from pipeline.data.encode import load_chat
    from pipeline.data.pairs import encode_pairs
    from pipeline.runtime.allocator import keep_memory

    transformers.utils.logging.set_verbosity_error()
    if options.model is None:
        model = ModelConfig(source=ModelSource.embedded, id="SmolLM2-135M-Instruct")
    else:
        model = ModelConfig(source=ModelSource.hub, id=str(options.model.resolve()))
    runtime = RuntimeConfig()
    base = resolve_base(model, cache_folder(runtime))
    chat = load_chat(base.folder, model)
    pairs, batch_size = encode_pairs(comparisons(options.rows), chat, max_length=MAX_LENGTH).pairs, options.batch_size
    if variant in SAME_BATCHES:
        pairs, batch_size = sorted(pairs, key=lambda pair: pair.num_tokens)[:COMPARED_PAIRS], COMPARED_BATCH
    pairs = pairs[: len(pairs) - len(pairs) % batch_size]
    if len(pairs) < 2 * batch_size:
        raise SystemExit(f"{len(pairs)} pairs are left, and at least {2 * batch_size} are needed")
    if variant.startswith("ours"):
        keep_memory()
    return Task(base=base, model=model, runtime=runtime, chat=chat, pairs=pairs, batch_size=batch_size)


def _trainer(variant: str, options: argparse.Namespace, folder: Path) -> tuple[Any, Any, str, dict[str, Any]]:
    """Build the trainer of one variant over pairs that are the same for all."""
    task = prepare(variant, options)
    return _ours(variant, task, folder) if variant.startswith("ours") else _trl(variant, task, folder)


def _ours(variant: str, task: Task, folder: Path) -> tuple[Any, Any, str, dict[str, Any]]:
    import time

    import torch

    from pipeline.config.dpo import DPOConfig
    from pipeline.config.shared import DType, LoRAConfig, OptimizerConfig, Schedule
    from pipeline.models.loading import add_lora, load_base
    from pipeline.models.scoring import score
    from pipeline.runtime.device import choose_device, probe_dtype
    from pipeline.stages.arguments import trainer_arguments
    from pipeline.stages.dpo import make_trainer
    from pipeline.stages.finite import StepMeter
    from pipeline.stages.pairs import PairRows
    from pipeline.stages.reference import ROWS_PER_BATCH, ReferenceLogprobs

    pairs, device = task.pairs, choose_device(task.runtime)
    probe = probe_dtype(device)
    same_batches = variant in SAME_BATCHES
    dtype = DType.float32 if same_batches else probe.dtype
    optimizer = OptimizerConfig(learning_rate=LEARNING_RATE, schedule=Schedule.constant, warmup_fraction=0.0)
    config = DPOConfig(
        seed=SEED, optimizer=optimizer, num_epochs=1, batch_size=task.batch_size, soft_labels=False,
        microbatch_size=task.batch_size if same_batches else max(1, task.batch_size // 4),
        group_by_length=not same_batches,
    )  # fmt: skip
    loaded = load_base(task.base, task.model, task.runtime, dtype)
    started = time.perf_counter()
    sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    nats = [scored.nats for scored in score(loaded, sides, 2 * ROWS_PER_BATCH)]
    seconds = time.perf_counter() - started
    sums = torch.tensor(nats).view(-1, 2)
    rows = PairRows(chat=task.chat, train=pairs, validation=[], counts={})
    arguments = trainer_arguments(
        config, section="dpo", output_dir=folder, num_steps=len(pairs) // task.batch_size, device=device, dtype=dtype
    )
    meter = StepMeter()
    policy = add_lora(loaded, LoRAConfig(), SEED)
    reference = ReferenceLogprobs(train=sums, validation=sums[:0])
    trainer = make_trainer(policy, rows, config, arguments, meter, reference)
    notes = {"probe": str(probe), "pairs": len(pairs), "batch_size": task.batch_size, "reference_seconds": seconds}
    return trainer, meter, dtype.value, notes


def _trl(variant: str, task: Task, folder: Path) -> tuple[Any, Any, str, dict[str, Any]]:
    import datasets
    import peft
    import trl

    from pipeline.config.shared import DType, LoRAConfig
    from pipeline.models.loading import add_lora, load_base
    from pipeline.stages.pairs import pair_order

    pairs, same_batches = task.pairs, variant in SAME_BATCHES
    peer = PEERS.get(variant, Peer(False, False, False))
    if same_batches:
        order = pair_order(pairs, num_epochs=1, batch_size=task.batch_size, seed=SEED, group_by_length=False)
        pairs = [pairs[number] for number in order]
    extra = {} if peer.activation_checkpointing is None else {"activation_checkpointing": peer.activation_checkpointing}
    arguments = trl.DPOConfig(
        output_dir=str(folder), per_device_train_batch_size=task.batch_size, num_train_epochs=1, seed=SEED,
        learning_rate=LEARNING_RATE, lr_scheduler_type="constant", bf16=peer.bf16, use_cpu=True, max_length=None,
        train_sampling_strategy="sequential" if same_batches else "random", report_to="none", save_strategy="no",
        logging_steps=1, disable_tqdm=True, dataloader_pin_memory=False, **extra,
    )  # fmt: skip
    if same_batches:
        policy: Any = add_lora(load_base(task.base, task.model, task.runtime, DType.float32), LoRAConfig(), SEED)
        adapter: dict[str, Any] = {}
    else:
        policy = str(task.base.folder)
        lora = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        adapter = {"peft_config": lora}
    placeholder = datasets.Dataset.from_dict({"prompt": ["Q:"], "chosen": [" a"], "rejected": [" b"]})
    trainer = trl.DPOTrainer(
        model=policy, args=arguments, train_dataset=placeholder, processing_class=task.chat.tokenizer, **adapter
    )
    trainer.train_dataset = trl_rows(pairs)  # what TRL's own preparation makes of a row, from the very same tokens
    notes = {"pairs": len(pairs), "batch_size": task.batch_size}
    return trainer, None, "bfloat16 autocast" if peer.bf16 else "float32", notes


def trl_rows(pairs: Any) -> Any:
    """Return pairs as the columns that TRL's collator reads."""
    import datasets

    rows = []
    for pair in pairs:
        start = pair.chosen.completion_mask.index(True)
        rows.append(
            {
                "prompt_ids": pair.chosen.input_ids[:start],
                "chosen_ids": pair.chosen.input_ids[start:],
                "rejected_ids": pair.rejected.input_ids[start:],
            }
        )
    return datasets.Dataset.from_list(rows)


def comparisons(num_rows: int) -> list[Any]:
    """Return real pairs of one turn: hh-rlhf where `PIPELINE_REAL_DATA` names it, else the help desk's answers.

    Who is preferred does not matter here, so the help desk's first answer is called chosen without counting votes.
    """
    from pipeline.data.rows import BadRowError, Comparison, Message
    from pipeline.data.transcripts import parse_transcript_pair

    rows: list[Any] = []

    def add(prompt: Any, chosen: Any, rejected: Any) -> None:
        rows.append(
            Comparison(
                id=str(len(rows)),
                source="benchmark",
                licence=None,
                prompt=prompt,
                chosen=chosen,
                rejected=rejected,
                confidence=1.0,
                num_votes=1,
            )  # fmt: skip
        )

    real = os.environ.get("PIPELINE_REAL_DATA")
    if real:
        with gzip.open(Path(real, "hh-rlhf", "test.jsonl.gz"), "rt", encoding="utf-8") as file:
            for line in file:
                values = json.loads(line)
                try:
                    prompt, chosen, rejected = parse_transcript_pair(values["chosen"], values["rejected"])
                except BadRowError:
                    continue
                if len(prompt) == 1 and len(rows) < num_rows:
                    add(prompt, chosen, rejected)
        return rows
    for task in json.loads((ROOT / "data" / "helpdesk" / "votes.json").read_text(encoding="utf-8"))[:num_rows]:
        sides = [[Message(role="assistant", content=task["data"][side])] for side in ("answer1", "answer2")]
        add([Message(role="user", content=task["data"]["prompt"])], *sides)
    return rows


def summarise(results: dict[str, list[Measurement]]) -> dict[str, Any]:
    """Return the ratios of the medians, and how the losses on the same batches differ."""
    return {**compared_losses(results, *SAME_BATCHES), **compared_speeds(results, VARIANTS[1:], AS_IT_COMES)}


# TRL's trainer of pairs cannot group by length: it reads lengths from a column that pairs do not have.
VARIANTS = ("ours", *(name for name, peer in PEERS.items() if not peer.group_by_length), "trl_fp32")

BENCHMARK = Benchmark(
    variants=(*VARIANTS, *SAME_BATCHES),
    default_rows=64,
    measure=measure,
    summarise=summarise,
    measured_once=frozenset(SAME_BATCHES),
)
