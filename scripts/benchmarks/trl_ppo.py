"""The peer's side of the PPO benchmark: reads a request from standard input, ends with one line of JSON."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


def main() -> None:
    """Train as the request says and time every update after the first."""
    import datasets
    import peft
    import torch
    import transformers
    import trl
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    request = json.load(sys.stdin)
    transformers.utils.logging.set_verbosity_error()
    dtype = torch.bfloat16 if request["bf16"] else torch.float32
    tokenizer = PreTrainedTokenizerFast.from_pretrained(request["folder"], padding_side="left")
    tokenizer.pad_token_id = request["pad_id"]

    def load(kind: Any, **extra: Any) -> Any:
        model = kind.from_pretrained(request["folder"], dtype=dtype, local_files_only=True, **extra)
        model.config.pad_token_id = request["pad_id"]
        return model

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        """Notes when each update ends."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            self.ends.append(time.perf_counter())

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = PPOConfig(
            output_dir=folder, seed=request["seed"], per_device_train_batch_size=request["minibatch_size"],
            gradient_accumulation_steps=1, num_mini_batches=1, num_ppo_epochs=request["epochs"],
            local_rollout_forward_batch_size=request["rollout_size"], total_episodes=len(request["prompts"]),
            response_length=request["new_tokens"], stop_token_id=request["stop_id"], temperature=1.0, kl_coef=0.05,
            learning_rate=2e-5, bf16=request["bf16"], use_cpu=True, report_to="none", save_strategy="no",
            num_sample_generations=0, gradient_checkpointing=False,
        )  # fmt: skip
        arguments.gradient_accumulation_steps = request["rollout_size"] // request["minibatch_size"]
        arguments.num_mini_batches = arguments.gradient_accumulation_steps
        trainer = PPOTrainer(
            args=arguments, processing_class=tokenizer, model=load(AutoModelForCausalLM), ref_model=None,
            reward_model=load(AutoModelForSequenceClassification, num_labels=1),
            value_model=load(AutoModelForSequenceClassification, num_labels=1),
            train_dataset=datasets.Dataset.from_dict({"input_ids": request["prompts"]}),
            eval_dataset=datasets.Dataset.from_dict({"input_ids": request["prompts"][:2]}),
            peft_config=peft.LoraConfig(
                r=request["rank"], lora_alpha=2 * request["rank"], target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    from pathlib import Path

    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    updates = len(clock.ends) - 1
    answer = {
        "seconds": clock.ends[-1] - clock.ends[0],
        "episodes": updates * request["rollout_size"],
        "peak_bytes": peak,
        "trl": trl.__version__,
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
