"""Reward models: our trainer at its best against TRL's as it comes, and at its best."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.benchmark import Benchmark, Measurement
from benchmarks.dpo import VARIANTS, comparisons, summarise
from benchmarks.sft import LEARNING_RATE, MAX_LENGTH, PEERS, SAME_BATCHES, SEED, Peer


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
        processed=notes["pairs"] - options.batch_size,  # the first step is not timed
        peak_bytes=peak_memory_bytes(),
        unit="pairs",
        dtype=dtype,
        losses=clock.losses,
        notes=notes,
    )


def _trainer(variant: str, options: argparse.Namespace, folder: Path) -> tuple[Any, Any, str, dict[str, Any]]:
    """Build the trainer of one variant over pairs that are the same for all."""
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
    base = resolve_base(model, cache_folder(RuntimeConfig()))
    chat = load_chat(base.folder, model)
    pairs = encode_pairs(comparisons(options.rows), chat, max_length=MAX_LENGTH).pairs
    pairs = pairs[: len(pairs) - len(pairs) % options.batch_size]
    if len(pairs) < 2 * options.batch_size:
        raise SystemExit(f"{len(pairs)} pairs are left, and at least {2 * options.batch_size} are needed")
    if variant.startswith("ours"):
        keep_memory()
        return _ours(variant, base, model, chat, pairs, options, folder)
    return _trl(variant, base, model, chat, pairs, options, folder)


def _ours(
    variant: str, base: Any, model: Any, chat: Any, pairs: Any, options: argparse.Namespace, folder: Path
) -> tuple[Any, Any, str, dict[str, Any]]:
    from pipeline.config.reward import RewardConfig
    from pipeline.config.shared import DType, LoRAConfig, OptimizerConfig, RuntimeConfig, Schedule
    from pipeline.models.head import underlying_model
    from pipeline.models.loading import add_lora, load_base
    from pipeline.runtime.device import choose_device, probe_dtype
    from pipeline.stages.arguments import trainer_arguments
    from pipeline.stages.finite import StepMeter
    from pipeline.stages.pairs import PairRows
    from pipeline.stages.reward_trainer import RewardHead, make_trainer

    runtime = RuntimeConfig()
    device = choose_device(runtime)
    probe, same_batches = probe_dtype(device), variant in SAME_BATCHES
    dtype = DType.float32 if same_batches else probe.dtype
    config = RewardConfig(
        seed=SEED, num_epochs=1, batch_size=options.batch_size, centring_coef=0.0,
        optimizer=OptimizerConfig(learning_rate=LEARNING_RATE, schedule=Schedule.constant, warmup_fraction=0.0),
        microbatch_size=options.batch_size if same_batches else max(1, options.batch_size // 4),
        group_by_length=not same_batches,
    )  # fmt: skip
    arguments = trainer_arguments(
        config, section="reward", output_dir=folder, num_steps=len(pairs) // options.batch_size, device=device,
        dtype=dtype,
    )  # fmt: skip
    meter = StepMeter()
    trained = add_lora(load_base(base, model, runtime, dtype), LoRAConfig(), SEED)
    text_config = underlying_model(trained).config
    trained.reward_head = RewardHead(text_config.hidden_size, config.ties)
    text_config.num_labels = 1
    rows = PairRows(chat=chat, train=pairs, validation=[], counts={})
    trainer = make_trainer(trained, rows, config, arguments, meter)
    return trainer, meter, dtype.value, {"probe": str(probe), "pairs": len(pairs)}


def _trl(
    variant: str, base: Any, model: Any, chat: Any, pairs: Any, options: argparse.Namespace, folder: Path
) -> tuple[Any, Any, str, dict[str, Any]]:
    import datasets
    import peft
    import torch
    import trl
    from transformers import AutoModelForSequenceClassification

    from pipeline.config.shared import DType, LoRAConfig, RuntimeConfig
    from pipeline.models.loading import add_lora, load_base
    from pipeline.stages.pairs import pair_order

    same_batches = variant in SAME_BATCHES
    peer = PEERS.get(variant, Peer(False, False, False))
    lora = peft.LoraConfig(
        r=16, lora_alpha=32, target_modules="all-linear", task_type="SEQ_CLS", modules_to_save=["score"]
    )
    trained: Any = str(base.folder)
    adapter: dict[str, Any] = {"peft_config": lora}
    if same_batches:
        order = pair_order(pairs, num_epochs=1, batch_size=options.batch_size, seed=SEED, group_by_length=False)
        pairs = [pairs[number] for number in order]
        drawn = add_lora(load_base(base, model, RuntimeConfig(), DType.float32), LoRAConfig(), SEED)
        scorer = AutoModelForSequenceClassification.from_pretrained(trained, num_labels=1, dtype=torch.float32)
        score = {"base_model.model.score.weight": torch.zeros_like(scorer.score.weight)}  # as ours begins
        trained, adapter = peft.get_peft_model(scorer, lora), {}
        peft.set_peft_model_state_dict(trained, {**peft.get_peft_model_state_dict(drawn), **score})
        del drawn
    extra = {} if peer.activation_checkpointing is None else {"activation_checkpointing": peer.activation_checkpointing}
    arguments = trl.RewardConfig(
        output_dir=str(folder), per_device_train_batch_size=options.batch_size, num_train_epochs=1, seed=SEED,
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
        processing_class=chat.tokenizer, **adapter,
    )  # fmt: skip
    return trainer, None, "bfloat16 autocast" if peer.bf16 else "float32", {"pairs": len(pairs)}


BENCHMARK = Benchmark(
    variants=(*VARIANTS, *SAME_BATCHES),
    default_rows=64,
    measure=measure,
    summarise=summarise,
    measured_once=frozenset(SAME_BATCHES),
)
