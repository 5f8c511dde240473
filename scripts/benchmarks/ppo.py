"""PPO: one frozen backbone against the last TRL that has PPO, on the same model, prompts and number of epochs.

TRL 1.12.0 lies in a folder of its own, made at the first run; it runs with the transformers of this environment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.benchmark import Benchmark, Measurement

ROOT = Path(__file__).resolve().parents[2]
TRL_VERSION = "1.12.0"
ROLLOUT_SIZE, MINIBATCH_SIZE, NEW_TOKENS, EPOCHS, RANK, SEED = 16, 4, 64, 4, 16, 17
TARGET_SPEED, TARGET_MEMORY = 2.5, 0.4
PHASES = ("seconds_rollout", "seconds_scoring", "seconds_update")


def measure(variant: str, options: argparse.Namespace) -> Measurement:
    """Learn from ``--rows`` episodes after one rollout that does not count."""
    import transformers

    from pipeline.artifacts.base_model import cache_folder, resolve_base
    from pipeline.config.shared import ModelConfig, ModelSource, RuntimeConfig
    from pipeline.data.encode import encode_prompt, load_chat

    transformers.utils.logging.set_verbosity_error()
    if options.model is None:
        model = ModelConfig(source=ModelSource.embedded, id="SmolLM2-135M-Instruct")
    else:
        model = ModelConfig(source=ModelSource.hub, id=str(options.model.resolve()))
    runtime = RuntimeConfig()
    base = resolve_base(model, cache_folder(runtime))
    chat = load_chat(base.folder, model)
    lines = (ROOT / "data/helpdesk/demonstrations.jsonl").read_text(encoding="utf-8").splitlines()
    count = options.rows + ROLLOUT_SIZE
    rows = [json.loads(lines[number % len(lines)]) for number in range(count)]
    prompts = [encode_prompt(_prompt(row), chat) for row in rows]
    if variant.startswith("trl"):
        return _trl(variant, base.folder, prompts, chat)
    return _ours(variant, base, model, runtime, chat, prompts)


def _prompt(row: dict[str, Any]) -> list[Any]:
    turns = row.get("messages") or row["prompt"]
    return [turn for turn in turns if turn["role"] != "assistant"][:1] if "messages" in row else turns


def _ours(variant: str, base: Any, model: Any, runtime: Any, chat: Any, prompts: list[list[int]]) -> Measurement:
    import torch

    from pipeline.checks.registry import CheckItem
    from pipeline.config.ppo import PPOConfig, ValueModel
    from pipeline.config.shared import DType, LoRAConfig
    from pipeline.models.loading import add_lora, load_base
    from pipeline.models.reward import RewardFacts, RewardModel, ScoreHead
    from pipeline.models.roles import POLICY, VALUE, add_role
    from pipeline.models.value import ValueHead
    from pipeline.ppo.divergence import KLController
    from pipeline.ppo.loop import Loop, Scores
    from pipeline.ppo.roles import OneBackbone
    from pipeline.ppo.rollout import PromptItem, Rollout
    from pipeline.ppo.samplers import BatchSampler
    from pipeline.ppo.update import Learner
    from pipeline.runtime.allocator import keep_memory
    from pipeline.runtime.device import choose_device, probe_dtype
    from pipeline.runtime.memory import peak_memory_bytes

    keep_memory()
    device = choose_device(runtime)
    probe = probe_dtype(device)
    shares = variant != "ours_value_adapter"
    backbone = add_lora(load_base(base, model, runtime, DType.bfloat16), LoRAConfig(rank=RANK), SEED)
    add_role(backbone, "reward_0", like=POLICY, seed=SEED + 1)
    if not shares:
        add_role(backbone, VALUE, like=POLICY, seed=SEED + 2)
    width = int(backbone.config.get_text_config().hidden_size)
    facts = RewardFacts(
        tail_ids=(chat.stop_ids[0],), stop_ids=chat.stop_ids, means=(0.0,), stds=(1.0,), temperature=1.0, folds=(0,)
    )
    head = ScoreHead(width)
    torch.nn.init.normal_(head.linear.weight, std=width**-0.5)
    reward = RewardModel(backbone, ["reward_0"], [head.to(device)], facts)
    models = OneBackbone(
        model=backbone.eval(), value_head=ValueHead(width).to(device), reference_adapter=None, shares_trunk=shares
    )
    config = PPOConfig(
        num_rollouts=len(prompts) // ROLLOUT_SIZE, rollout_size=ROLLOUT_SIZE, minibatch_size=MINIBATCH_SIZE,
        microbatch_size=MINIBATCH_SIZE, ppo_epochs=EPOCHS, max_new_tokens=NEW_TOKENS, value_warmup=0,
        update_kl_target=None, value_model=ValueModel.head if shares else ValueModel.adapter, seed=SEED,
    )  # fmt: skip
    items = [PromptItem(id=str(number), ids=ids, item=CheckItem(prompt=[])) for number, ids in enumerate(prompts)]

    def score(rollout: Rollout) -> Scores:
        pairs = zip(rollout.prompts, rollout.completions, strict=True)
        learned = reward.score([[*p.ids, *c.ids] for p, c in pairs]).mean
        return Scores(total=learned.double(), by_name={"reward_model": learned})

    loop = Loop(
        config=config, models=models, learner=Learner(models, config),
        sampler=BatchSampler(chat=chat, batch_size=ROLLOUT_SIZE), scorer=score,
        prompts=lambda number: items[number * ROLLOUT_SIZE : (number + 1) * ROLLOUT_SIZE],
        controller=KLController(coef=config.kl_coef),
    )  # fmt: skip
    loop.iterate(0)
    started = time.perf_counter()
    recorded = [loop.iterate(number) for number in range(1, config.num_rollouts)]
    seconds = time.perf_counter() - started
    tokens = sum(float(row["completion_tokens"]) for row in recorded) / len(recorded)
    spent = {phase: sum(float(row[phase]) for row in recorded) for phase in PHASES}
    body = sum(parameter.numel() for name, parameter in backbone.named_parameters() if "lora_" not in name)
    length = sum(map(len, prompts[ROLLOUT_SIZE:])) / (len(prompts) - ROLLOUT_SIZE) + tokens
    episodes = ROLLOUT_SIZE * len(recorded)
    # Forward 2, backward through frozen weights 2: four operations per weight and token, for each trained role.
    gflops = 4 * body * length * episodes * EPOCHS * (1 if shares else 2) / spent["seconds_update"] / 1e9
    return Measurement(
        seconds=seconds, processed=episodes, peak_bytes=peak_memory_bytes(), unit="episodes",
        notes={
            "dtype": "bfloat16",
            **{phase.removeprefix("seconds_"): f"{value / seconds:.0%}" for phase, value in spent.items()},
            "completion_tokens": round(tokens, 1),
            "update_of_matrix_rate": f"{gflops / probe.bfloat16_gflops:.0%}",
        },
    )  # fmt: skip


def _trl(variant: str, folder: Path, prompts: list[list[int]], chat: Any) -> Measurement:
    """Run the peer in a process that sees its own TRL first."""
    from pipeline.artifacts.base_model import cache_folder
    from pipeline.config.shared import RuntimeConfig

    packages = cache_folder(RuntimeConfig()) / f"trl-{TRL_VERSION}"
    if not (packages / "trl").is_dir():
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages)]
        subprocess.run([*install, f"trl=={TRL_VERSION}"], check=True)
    request = {
        "folder": str(folder), "prompts": prompts, "pad_id": chat.pad_id, "stop_id": chat.stop_ids[0],
        "rollout_size": ROLLOUT_SIZE, "minibatch_size": MINIBATCH_SIZE, "new_tokens": NEW_TOKENS, "epochs": EPOCHS,
        "rank": RANK, "seed": SEED, "bf16": variant == "trl_bf16",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("trl_ppo.py"))], input=json.dumps(request), text=True,
        capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(packages)},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{variant} ended with status {done.returncode}:\n{done.stderr[-4000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return Measurement(
        seconds=answer["seconds"], processed=answer["episodes"], peak_bytes=answer["peak_bytes"], unit="episodes",
        notes={"dtype": "bfloat16" if request["bf16"] else "float32", "trl": answer["trl"]},
    )  # fmt: skip


def summarise(results: dict[str, list[Measurement]]) -> dict[str, Any]:
    """Compare our default with the faster of the peer's number formats."""
    speeds = {name: median(one.per_second for one in runs) for name, runs in results.items()}
    peaks = {name: median(one.peak_bytes for one in runs) for name, runs in results.items()}
    peers = [name for name in results if name.startswith("trl")]
    summary: dict[str, Any] = {"shares": {name: runs[-1].notes for name, runs in results.items()}}
    if peers and "ours" in results:
        best = max(peers, key=lambda name: speeds[name])
        summary |= {
            "ratio": round(speeds["ours"] / speeds[best], 2),
            "memory_ratio": round(peaks["ours"] / peaks[best], 2),
            "target": f"{TARGET_SPEED} times the speed at {TARGET_MEMORY} of the memory",
            "reached": speeds["ours"] >= TARGET_SPEED * speeds[best] and peaks["ours"] <= TARGET_MEMORY * peaks[best],
        }
    return summary


BENCHMARK = Benchmark(
    variants=("ours", "ours_value_adapter", "trl_bf16"), default_rows=32, measure=measure, summarise=summarise
)
