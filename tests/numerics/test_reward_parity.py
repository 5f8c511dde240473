"""Our trainer of reward models against TRL's own: the same batches give the same losses, step after step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import peft
import pytest
import torch
import trl
from reward_jobs import comparisons, make_workshop, small_config
from transformers import AutoModelForSequenceClassification, TrainerCallback

from pipeline.config.shared import DType, LoRAConfig, OptimizerConfig, RuntimeConfig, Schedule
from pipeline.data.encode import load_chat
from pipeline.data.pairs import Pair, encode_pairs
from pipeline.models.loading import add_lora, load_base
from pipeline.stages import reward_trainer
from pipeline.stages.arguments import trainer_arguments
from pipeline.stages.finite import StepMeter
from pipeline.stages.pairs import PairRows, pair_order

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
NUM_STEPS = 4


class Losses(TrainerCallback):
    def __init__(self, meter: StepMeter | None = None) -> None:
        self.meter, self.values = meter, list[float]()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self.meter is not None:
            self.meter.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.values.append(float(logs["loss"]))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("parity")
    shop = make_workshop(folder)
    chat = load_chat(shop.base.folder, shop.model)
    pairs = encode_pairs(comparisons(8 * NUM_STEPS), chat, max_length=128).pairs
    config = small_config(
        optimizer=OptimizerConfig(learning_rate=5e-3, schedule=Schedule.constant, warmup_fraction=0.0), num_epochs=1,
        batch_size=8, group_by_length=False, centring_coef=0.01, confidence="ignore",
    )  # fmt: skip
    model = add_lora(
        load_base(shop.base, shop.model, RuntimeConfig(num_threads=1), DType.float32), LoRAConfig(rank=4), 5
    )
    drawn = {name: value.clone() for name, value in peft.get_peft_model_state_dict(model).items()}
    return {
        "ours": ours(model, pairs, chat, config, folder / "a"),
        "trl": theirs(shop, drawn, pairs, chat, config, folder / "b"),
        "shifted": theirs(shop, drawn, [*pairs[1:], pairs[0]], chat, config, folder / "c"),
    }


def ours(model: Any, pairs: list[Pair], chat: Any, config: Any, folder: Path) -> list[float]:
    model.reward_head = reward_trainer.RewardHead(64, config.ties)
    model.get_base_model().config.num_labels = 1
    arguments = trainer_arguments(
        config, section="reward", output_dir=folder, num_steps=NUM_STEPS, device=torch.device("cpu"),
        dtype=DType.float32,
    )  # fmt: skip
    meter = StepMeter()
    rows = PairRows(chat=chat, train=pairs, validation=[], counts={})
    trainer = reward_trainer.make_trainer(model, rows, config, arguments, meter)
    losses = Losses(meter)
    trainer.add_callback(losses)
    trainer.train()
    return losses.values


def theirs(shop: Any, drawn: Any, pairs: list[Pair], chat: Any, config: Any, folder: Path) -> list[float]:
    """TRL's trainer as its users run it on tokenised rows, from the same adapter and a head of zeros."""
    order = pair_order(pairs, num_epochs=1, batch_size=8, seed=config.seed, group_by_length=False)
    chosen = [pairs[number] for number in order]
    base = AutoModelForSequenceClassification.from_pretrained(shop.base.folder, num_labels=1, dtype=torch.float32)
    lora = peft.LoraConfig(
        task_type="SEQ_CLS", r=4, lora_alpha=32.0, target_modules="all-linear", modules_to_save=["score"]
    )
    model = peft.get_peft_model(base, lora)
    score = {"base_model.model.score.weight": torch.zeros(1, 64)}
    found = peft.set_peft_model_state_dict(model, {**drawn, **score})
    assert not found.unexpected_keys
    arguments = trl.RewardConfig(
        output_dir=str(folder), per_device_train_batch_size=8, num_train_epochs=1, seed=config.seed, max_length=None,
        learning_rate=5e-3, lr_scheduler_type="constant", warmup_steps=0, center_rewards_coefficient=0.01, use_cpu=True,
        bf16=False, train_sampling_strategy="sequential", report_to="none", save_strategy="no", logging_steps=1,
        disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    columns = {
        "chosen_ids": [pair.chosen.input_ids for pair in chosen],
        "rejected_ids": [pair.rejected.input_ids for pair in chosen],
    }
    trainer = trl.RewardTrainer(
        model=model, args=arguments, train_dataset=datasets.Dataset.from_dict(columns), processing_class=chat.tokenizer
    )
    losses = Losses()
    trainer.add_callback(losses)
    trainer.train()
    return losses.values


def test_losses_are_those_of_trl(both: dict[str, list[float]]) -> None:
    assert len(both["ours"]) == NUM_STEPS
    assert both["ours"] == pytest.approx(both["trl"], abs=1e-4)
    assert both["ours"][-1] < both["ours"][0] - 0.05, "nothing was learnt, so nothing is compared"


def test_other_batches_would_be_noticed(both: dict[str, list[float]]) -> None:
    assert both["ours"][1:] != pytest.approx(both["shifted"][1:], abs=1e-4)
