"""Reward models: our trainer at its best against TRL's as it comes, and at its best."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.benchmark import Benchmark, Measurement
from benchmarks.dpo import VARIANTS, Task, prepare, summarise
from benchmarks.sft import LEARNING_RATE, PEERS, SAME_BATCHES, SEED, Peer


def measure(variant: str, options: argparse.Namespace) -> Measurement:
    """Train once over the pairs, without saving or validating anything."""
    from benchmarks.clock import Clock, CountingCollator
    from pipeline.runtime.memory import peak_memory_bytes

    with tempfile.TemporaryDirectory() as folder:
        trainer, meter, dtype, notes = _trainer(variant, options, Path(folder))
        clock = Clock(meter, CountingCollator(trainer.data_collator))
        trainer.add_callback(clock)
        trainer.train()
    return Measurement(
        seconds=clock.seconds,
        processed=notes["pairs"] - notes["batch_size"],  # the first step is not timed
        peak_bytes=peak_memory_bytes(),
        unit="pairs",
        dtype=dtype,
        losses=clock.losses,
        notes=notes,
    )


def _trainer(variant: str, options: argparse.Namespace, folder: Path) -> tuple[Any, Any, str, dict[str, Any]]:
    """Build the trainer of one variant over pairs that are the same for all."""
    task = prepare(variant, options)
    return _ours(variant, task, folder) if variant.startswith("ours") else _trl(variant, task, folder)


def _ours(variant: str, task: Task, folder: Path) -> tuple[Any, Any, str, dict[str, Any]]:
    from pipeline.config.reward import RewardConfig
    from pipeline.config.shared import DType, LoRAConfig, OptimizerConfig, Schedule
    from pipeline.models.head import underlying_model
    from pipeline.models.loading import add_lora, load_base
    from pipeline.runtime.device import choose_device, probe_dtype
    from pipeline.stages.arguments import trainer_arguments
    from pipeline.stages.finite import StepMeter
    from pipeline.stages.pairs import PairRows
    from pipeline.stages.reward_trainer import RewardHead, make_trainer

    pairs, device = task.pairs, choose_device(task.runtime)
    probe, same_batches = probe_dtype(device), variant in SAME_BATCHES
    dtype = DType.float32 if same_batches else probe.dtype
    config = RewardConfig(
        seed=SEED, num_epochs=1, batch_size=task.batch_size, centring_coef=0.0,
        optimizer=OptimizerConfig(learning_rate=LEARNING_RATE, schedule=Schedule.constant, warmup_fraction=0.0),
        microbatch_size=task.batch_size if same_batches else max(1, task.batch_size // 4),
        group_by_length=not same_batches,
    )  # fmt: skip
    arguments = trainer_arguments(
        config, section="reward", output_dir=folder, num_steps=len(pairs) // task.batch_size, device=device,
        dtype=dtype,
    )  # fmt: skip
    meter = StepMeter()
    trained = add_lora(load_base(task.base, task.model, task.runtime, dtype), LoRAConfig(), SEED)
    text_config = underlying_model(trained).config
    trained.reward_head = RewardHead(text_config.hidden_size, config.ties)
    text_config.num_labels = 1
    rows = PairRows(chat=task.chat, train=pairs, validation=[], counts={})
    trainer = make_trainer(trained, rows, config, arguments, meter)
    return trainer, meter, dtype.value, {
        "probe": str(probe), "pairs": len(pairs), "batch_size": task.batch_size
    }  # fmt: skip


def _trl(variant: str, task: Task, folder: Path) -> tuple[Any, Any, str, dict[str, Any]]:
    import datasets
    import peft
    import torch
    import trl
    from transformers import AutoModelForSequenceClassification

    from pipeline.config.shared import DType, LoRAConfig
    from pipeline.models.loading import add_lora, load_base
    from pipeline.stages.pairs import pair_order

    pairs, same_batches = task.pairs, variant in SAME_BATCHES
    peer = PEERS.get(variant, Peer(False, False, False))
    lora = peft.LoraConfig(
        r=16, lora_alpha=32, target_modules="all-linear", task_type="SEQ_CLS", modules_to_save=["score"]
    )
    trained: Any = str(task.base.folder)
    adapter: dict[str, Any] = {"peft_config": lora}
    if same_batches:
        order = pair_order(pairs, num_epochs=1, batch_size=task.batch_size, seed=SEED, group_by_length=False)
        pairs = [pairs[number] for number in order]
        drawn = add_lora(load_base(task.base, task.model, task.runtime, DType.float32), LoRAConfig(), SEED)
        scorer = AutoModelForSequenceClassification.from_pretrained(trained, num_labels=1, dtype=torch.float32)
        score = {"base_model.model.score.weight": torch.zeros_like(scorer.score.weight)}  # as ours begins
        trained, adapter = peft.get_peft_model(scorer, lora), {}
        peft.set_peft_model_state_dict(trained, {**peft.get_peft_model_state_dict(drawn), **score})
        del drawn
    extra = {} if peer.activation_checkpointing is None else {"activation_checkpointing": peer.activation_checkpointing}
    arguments = trl.RewardConfig(
        output_dir=str(folder), per_device_train_batch_size=task.batch_size, num_train_epochs=1, seed=SEED,
        learning_rate=LEARNING_RATE, lr_scheduler_type="constant", bf16=peer.bf16, use_cpu=True, max_length=None,
        train_sampling_strategy="sequential" if same_batches else "random", report_to="none", save_strategy="no",
        logging_steps=1, disable_tqdm=True, dataloader_pin_memory=False, **extra,
    )  # fmt: skip
    columns = {
        "chosen_ids": [pair.chosen.input_ids for pair in pairs],
        "rejected_ids": [pair.rejected.input_ids for pair in pairs],
    }
    trainer = trl.RewardTrainer(
        model=trained, args=arguments, train_dataset=datasets.Dataset.from_dict(columns),
        processing_class=task.chat.tokenizer, **adapter,
    )  # fmt: skip
    notes = {"pairs": len(pairs), "batch_size": task.batch_size}
    return trainer, None, "bfloat16 autocast" if peer.bf16 else "float32", notes


BENCHMARK = Benchmark(
    variants=(*VARIANTS, *SAME_BATCHES),
    default_rows=64,
    measure=measure,
    summarise=summarise,
    measured_once=frozenset(SAME_BATCHES),
)
