"""Supervised fine-tuning: our trainer at its best against TRL's as it comes, and at its best."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.benchmark import Benchmark, Measurement, compared_losses, compared_speeds

ROOT = Path(__file__).resolve().parents[2]
LEARNING_RATE, SEED, MAX_LENGTH = 2e-4, 17, 1024


@dataclass(frozen=True)
class Peer:
    """A setting of TRL's trainer."""

    bf16: bool
    activation_checkpointing: bool | None  # None leaves TRL's own default, which is on
    group_by_length: bool


PEERS = {
    "trl_default": Peer(bf16=True, activation_checkpointing=None, group_by_length=False),
    "trl_bf16": Peer(bf16=True, activation_checkpointing=False, group_by_length=False),
    "trl_bf16_grouped": Peer(bf16=True, activation_checkpointing=False, group_by_length=True),
    "trl_fp32_grouped": Peer(bf16=False, activation_checkpointing=False, group_by_length=True),
}
AS_IT_COMES = ("trl_default", "trl_bf16")  # the faster of the two, and the one with less memory, are compared with
SAME_BATCHES = ("ours_same_batches", "trl_same_batches")  # float32, rows in one and the same order


def measure(variant: str, options: argparse.Namespace) -> Measurement:
    """Train once over the rows, without saving or validating anything."""
    from benchmarks.clock import Clock, CountingCollator
    from pipeline.runtime.memory import peak_memory_bytes

    with tempfile.TemporaryDirectory() as folder:
        trainer, meter, dtype, notes = _trainer(variant, options, Path(folder))
        trainer.data_collator = CountingCollator(trainer.data_collator)
        clock = Clock(meter, trainer.data_collator)
        trainer.add_callback(clock)
        trainer.train()
    return Measurement(
        seconds=clock.seconds,
        processed=clock.processed,
        supervised=clock.supervised,
        peak_bytes=peak_memory_bytes(),
        dtype=dtype,
        losses=clock.losses,
        notes=notes,
    )


def _trainer(variant: str, options: argparse.Namespace, folder: Path) -> tuple[Any, Any, str, dict[str, Any]]:
    """Build the trainer of one variant over encoded rows that are the same for all."""
    import transformers

    from pipeline.artifacts.base_model import cache_folder, resolve_base
    from pipeline.config.shared import RuntimeConfig
    from pipeline.config.stages import OverlengthPolicy
    from pipeline.data.encode import encode_rows, load_chat
    from pipeline.runtime.allocator import keep_memory

    transformers.utils.logging.set_verbosity_error()
    model = benchmark_model(options)
    runtime = RuntimeConfig()
    base = resolve_base(model, cache_folder(runtime))
    chat = load_chat(base.folder, model)
    encoded = encode_rows(demonstrations(options.rows), chat, MAX_LENGTH, OverlengthPolicy["drop"])
    if len(encoded.rows) < 2 * options.batch_size:
        raise SystemExit(f"{len(encoded.rows)} rows are left, and at least {2 * options.batch_size} are needed")
    if variant.startswith("ours"):
        keep_memory()
        return _ours(variant, base, model, runtime, chat, encoded, options, folder)
    return _trl(variant, base, model, runtime, chat, encoded, options, folder)


def _ours(
    variant: str,
    base: Any,
    model: Any,
    runtime: Any,
    chat: Any,
    encoded: Any,
    options: argparse.Namespace,
    folder: Path,
) -> tuple[Any, Any, str, dict[str, Any]]:
    from pipeline.config.shared import DType, LoRAConfig, OptimizerConfig, Schedule
    from pipeline.config.stages import SFTConfig
    from pipeline.models.loading import add_lora, load_base
    from pipeline.runtime.device import choose_device, probe_dtype
    from pipeline.stages.arguments import trainer_arguments
    from pipeline.stages.finite import StepMeter
    from pipeline.stages.sft import SFTRows, make_trainer

    device = choose_device(runtime)
    probe = probe_dtype(device)
    same_batches = variant in SAME_BATCHES
    dtype = DType.float32 if same_batches else probe.dtype
    # An optimizer step in four backward passes costs a quarter of the activations and, on a CPU, next to no time.
    microbatch_size = options.batch_size if same_batches else max(1, options.batch_size // 4)
    optimizer = OptimizerConfig(learning_rate=LEARNING_RATE, schedule=Schedule.constant, warmup_fraction=0.0)
    config = SFTConfig(
        seed=SEED, optimizer=optimizer, num_epochs=1, batch_size=options.batch_size,
        microbatch_size=microbatch_size, group_by_length=not same_batches,
    )  # fmt: skip
    rows = SFTRows(chat=chat, train=encoded.rows, validation=[], counts={})
    trained_arguments = trainer_arguments(
        config, section="sft", output_dir=folder, num_steps=-(-len(encoded.rows) // options.batch_size), device=device,
        dtype=dtype,
    )  # fmt: skip
    meter = StepMeter()
    policy = add_lora(load_base(base, model, runtime, dtype), LoRAConfig(), SEED)
    trainer = make_trainer(policy, rows, config, trained_arguments, meter)
    return trainer, meter, dtype.value, {"probe": str(probe)}


def _trl(
    variant: str,
    base: Any,
    model: Any,
    runtime: Any,
    chat: Any,
    encoded: Any,
    options: argparse.Namespace,
    folder: Path,
) -> tuple[Any, Any, str, dict[str, Any]]:
    import datasets
    import peft
    import trl

    from pipeline.config.shared import DType, LoRAConfig
    from pipeline.models.loading import add_lora, load_base
    from pipeline.stages.order import training_order

    same_batches = variant in SAME_BATCHES
    peer = Peer(False, False, False) if same_batches else PEERS[variant]
    order: Sequence[int] = range(len(encoded.rows))
    if same_batches:
        order = training_order(
            [len(row.input_ids) for row in encoded.rows], num_epochs=1, batch_size=options.batch_size, seed=SEED,
            group_by_length=False,
        )  # fmt: skip
    chosen = [encoded.rows[number] for number in order]
    labels = [
        [token if learn else -100 for token, learn in zip(row.input_ids, row.completion_mask, strict=True)]
        for row in chosen
    ]
    dataset = datasets.Dataset.from_dict({"input_ids": [row.input_ids for row in chosen], "labels": labels})
    strategy = "sequential" if same_batches else "group_by_length" if peer.group_by_length else "random"
    extra = {} if peer.activation_checkpointing is None else {"activation_checkpointing": peer.activation_checkpointing}
    arguments = trl.SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=options.batch_size, num_train_epochs=1, seed=SEED,
        learning_rate=LEARNING_RATE, lr_scheduler_type="constant", bf16=peer.bf16, use_cpu=True, max_length=None,
        train_sampling_strategy=strategy, dataset_kwargs={"skip_prepare_dataset": True}, report_to="none",
        save_strategy="no", logging_steps=1, disable_tqdm=True, dataloader_pin_memory=False, **extra,
    )  # fmt: skip
    if same_batches:
        policy: Any = add_lora(load_base(base, model, runtime, DType.float32), LoRAConfig(), SEED)
        adapter: dict[str, Any] = {}
    else:
        policy = str(base.folder)
        lora = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        adapter = {"peft_config": lora}
    trainer = trl.SFTTrainer(
        model=policy, args=arguments, train_dataset=dataset, processing_class=chat.tokenizer, **adapter
    )
    return trainer, None, "bfloat16 autocast" if peer.bf16 else "float32", {}


def benchmark_model(options: argparse.Namespace) -> Any:
    """Return the model that the command line names, else the embedded one."""
    from pipeline.config.shared import ModelConfig, ModelSource

    if options.model is None:
        return ModelConfig(source=ModelSource.embedded, id="SmolLM2-135M-Instruct")
    return ModelConfig(source=ModelSource.hub, id=str(options.model.resolve()))


def demonstrations(num_rows: int) -> list[Any]:
    """Return real rows: GSM8K where `PIPELINE_REAL_DATA` names it, else the project's own help desk."""
    from pipeline.data.rows import Demonstration, Message

    real = os.environ.get("PIPELINE_REAL_DATA")
    path = Path(real, "gsm8k", "train.jsonl") if real else ROOT / "data" / "helpdesk" / "demonstrations.jsonl"
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[:num_rows]):
        values = json.loads(line)
        if "question" in values:
            turns = [Message(role="user", content=values["question"])]
            reply = [Message(role="assistant", content=values["answer"])]
        else:
            messages = values.get("messages") or [*values["prompt"], *values["completion"]]
            first = next(index for index, turn in enumerate(messages) if turn["role"] == "assistant")
            turns, reply = messages[:first], messages[first:]
        rows.append(Demonstration(id=str(number), source=path.name, licence=None, prompt=turns, completion=reply))
    return rows


def summarise(results: dict[str, list[Measurement]]) -> dict[str, Any]:
    """Return the ratios of the medians, and how the losses on the same batches differ."""
    summary = {**compared_losses(results, *SAME_BATCHES), **compared_speeds(results, list(PEERS), AS_IT_COMES)}
    for first in results.get("ours", [])[:1]:
        summary |= {
            "probe": first.notes["probe"],
            "processed_tokens": first.processed,
            "supervised_tokens": first.supervised,
        }
    return summary


BENCHMARK = Benchmark(
    variants=("ours", *PEERS, *SAME_BATCHES),
    default_rows=64,
    measure=measure,
    summarise=summarise,
    measured_once=frozenset(SAME_BATCHES),
)
