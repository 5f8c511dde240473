"""The state of a PPO run on disk: weights and optimizer as tensors, everything else as facts."""

from __future__ import annotations

import shutil
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.artifacts.checkpoints import Checkpoint, CheckpointFolder
from pipeline.errors import CheckpointError, TrainingDivergedError
from pipeline.ppo.update import Learner
from pipeline.stages.saving import require_space

POLICY_FILE, VALUE_FILE, OPTIMIZER_FILE = "policy.safetensors", "value.safetensors", "optimizer.safetensors"


def save(folder: CheckpointFolder, learner: Learner, step: int, facts: dict[str, Any]) -> None:
    """Commit the state after ``step`` rollouts.

    There is no random state among it: prompts, draws and the order of minibatches are pure functions of the seed and
    the number of the rollout, and the global generators are seeded anew before each.

    Raises:
        TrainingDivergedError: A tensor holds something that is not finite; nothing is saved.
        StorageError: The disk cannot hold it.
    """
    groups = {POLICY_FILE: _tensors(learner.policy), VALUE_FILE: _tensors(learner.value)}
    groups[OPTIMIZER_FILE] = _moments(learner)
    bad = [name for tensors in groups.values() for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise TrainingDivergedError(
            f"After rollout {step} {len(bad)} tensors hold values that are not finite, the first of them {bad[0]}. "
            "Nothing was saved; earlier checkpoints are intact. Lower the learning rates or set `model.dtype=float32`."
        )
    draft = folder.draft()
    try:
        require_space(draft, sum(tensor.nbytes for tensors in groups.values() for tensor in tensors.values()))
        for name, tensors in groups.items():
            save_file(tensors, draft / name)
        folder.commit(draft, step, facts)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def restore(checkpoint: Checkpoint, learner: Learner) -> None:
    """Put weights and optimizer back.

    Raises:
        CheckpointError: The checkpoint belongs to other parameters.
    """
    load_weights(checkpoint, learner)
    moments = load_file(checkpoint.path / OPTIMIZER_FILE)
    for name, parameter in {**learner.policy, **learner.value}.items():
        state = {
            key.rpartition("|")[2]: tensor.to(parameter.device if key.endswith("avg") or "sq" in key else "cpu")
            for key, tensor in moments.items()
            if key.rpartition("|")[0] == name
        }
        if state:
            learner.optimizer.state[parameter] = state


def load_weights(checkpoint: Checkpoint, learner: Learner) -> None:
    """Put policy and value model back, without the optimizer."""
    for file, group in ((POLICY_FILE, learner.policy), (VALUE_FILE, learner.value)):
        saved = load_file(checkpoint.path / file)
        if saved.keys() != group.keys():
            raise CheckpointError(f"Checkpoint {checkpoint.path} has other parameters in {file} than this run.")
        with torch.no_grad():
            for name, parameter in group.items():
                parameter.copy_(saved[name])


def _tensors(group: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach().cpu().contiguous() for name, parameter in group.items()}


def _moments(learner: Learner) -> dict[str, Tensor]:
    named = {**learner.policy, **learner.value}
    return {
        f"{name}|{key}": value.detach().cpu().contiguous()
        for name, parameter in named.items()
        for key, value in learner.optimizer.state.get(parameter, {}).items()
    }
