"""The stage `dpo` on a tiny model: what it starts from, what it seals, what it refuses, and going on after a stop."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pair_jobs import make_pair_workshop, make_reference, pair_job, require_written, run_dpo, seal, small_dpo
from peft import PeftModel
from sft_jobs import Workshop, metric_rows, tensors
from transformers import AutoModelForCausalLM, TrainerCallback

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.work import WorkFolder
from pipeline.config.dpo import DPOConfig, WatchConfig
from pipeline.config.shared import LoRAConfig, OptimizerConfig
from pipeline.errors import ArtifactError, DataError
from pipeline.stages import dpo
from pipeline.stages.pairs import load_pairs

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")]
LOG_2 = math.log(2)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_pair_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def reference(workshop: Workshop) -> Artifact:
    return make_reference(workshop)


@pytest.fixture(scope="module")
def uninterrupted(workshop: Workshop, reference: Artifact) -> tuple[StageOutcome, WorkFolder]:
    """Eight steps in one go, from the base."""
    return run_dpo(workshop, small_dpo(), "uninterrupted", reference=reference)


def rows_of(work: WorkFolder) -> list[dict[str, Any]]:
    return metric_rows(work.metrics)


# --- the reference ---------------------------------------------------------------------------------------------------


def test_the_reference_is_what_the_plain_model_says(workshop: Workshop, reference: Artifact) -> None:
    """An oracle: the model's own logits over one side at a time."""
    table = {(row["split"], row["id"]): row for row in pq.read_table(reference.file("reference.parquet")).to_pylist()}
    with pair_job(workshop, "dpo", name="oracle") as job:
        rows = load_pairs(job, section="dpo", folds=[0, 1, 2, 3, 4], max_length=128)
    assert len(table) == len(rows.train) + len(rows.validation) == 25
    model = AutoModelForCausalLM.from_pretrained(workshop.base.folder, dtype=torch.float32).eval()
    for split, pair in [("train", rows.train[3]), ("train", rows.train[18]), ("validation", rows.validation[1])]:
        for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            with torch.no_grad():
                logs = model(torch.tensor([side.input_ids])).logits[0].double().log_softmax(-1)
            own = sum(logs[t - 1, side.input_ids[t]].item() for t, learn in enumerate(side.completion_mask) if learn)
            assert table[split, pair.id][name] == pytest.approx(own, abs=1e-4)
            assert table[split, pair.id][f"{name}_tokens"] == sum(side.completion_mask)


def test_the_reference_does_not_depend_on_where_it_was_stopped(workshop: Workshop, reference: Artifact) -> None:
    params = {"folds": [0, 1, 2, 3, 4], "max_length": 128}
    name = "stopped"
    with pair_job(workshop, "reference_logprobs", name=name, inputs={"policy": None}, params=params) as job:
        whole = dpo_reference(job)
        lines = (job.work.path / "partial.jsonl").read_bytes()
        kept = lines[: len(lines) // 2]  # the last line is cut in the middle, as a crash cuts it
        path = job.work.path
    (path / "partial.jsonl").write_bytes(kept)
    with pair_job(workshop, "reference_logprobs", name=name, inputs={"policy": None}, params=params) as job:
        again = dpo_reference(job)
    assert whole.parts == again.parts == reference.manifest.parts


def dpo_reference(job: Any) -> StageOutcome:
    from pipeline.stages.reference import score_reference

    return score_reference(job)


def test_the_first_step_knows_nothing_yet(uninterrupted: tuple[StageOutcome, WorkFolder]) -> None:
    """Policy and reference are the same, so the loss is log 2 and no completion has moved."""
    _, work = uninterrupted
    start, first = rows_of(work)[:2]
    assert first["loss"] == pytest.approx(LOG_2, abs=1e-5)
    assert start["validation_loss"] == pytest.approx(LOG_2, abs=1e-5)
    for row in (first, {name.removeprefix("validation_"): value for name, value in start.items()}):
        assert abs(row["reference_kl"]) < 1e-4
        assert abs(row["reward_chosen"]) + abs(row["reward_rejected"]) < 1e-4
    assert rows_of(work)[-1]["reference_kl"] != pytest.approx(0, abs=1e-2), "nothing moved, so nothing is shown"


def test_training_leaves_the_reference_as_it_was(workshop: Workshop, reference: Artifact, tmp_path: Path) -> None:
    """The incoming policy scores the same after training, bit by bit, and it is not the base."""
    outcome, work = run_dpo(workshop, small_dpo(max_steps=3), "first-policy", reference=reference)
    policy = seal(workshop, work, outcome, ArtifactKind.policy, "dpo", "first-policy")
    before = make_reference(workshop, name="of-policy", policy=policy)
    second, _ = run_dpo(workshop, small_dpo(), "second-policy", reference=before, policy=policy)
    after = make_reference(workshop, name="of-policy-again", policy=policy)
    assert before.manifest.parts == after.manifest.parts != reference.manifest.parts
    assert second.parts != outcome.parts


# --- what it makes ---------------------------------------------------------------------------------------------------


def test_the_policy_is_an_adapter_that_peft_loads(
    workshop: Workshop, uninterrupted: tuple[StageOutcome, WorkFolder]
) -> None:
    outcome, work = uninterrupted
    folder = work.staging / "adapter"
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    base = AutoModelForCausalLM.from_pretrained(workshop.base.folder, dtype=torch.float32)
    policy = PeftModel.from_pretrained(base, str(folder))
    assert all(value.abs().max() > 0 for name, value in policy.state_dict().items() if "lora_B" in name)
    assert set(outcome.parts) == {"policy"}


def test_it_learns_what_was_preferred(uninterrupted: tuple[StageOutcome, WorkFolder]) -> None:
    outcome, work = uninterrupted
    rows = rows_of(work)
    assert [row["step"] for row in rows] == list(range(9))
    assert outcome.metrics["steps"] == 8  # 20 pairs x 2 epochs / 5
    assert rows[-1]["validation_loss"] < LOG_2 - 0.05
    assert outcome.metrics["validation_accuracy"] == 1.0 > outcome.metrics["validation_accuracy_start"]
    wanted = {
        "reward_chosen", "reward_rejected", "reward_margin", "reward_accuracy", "logprob_chosen", "logprob_rejected",
        "length_chosen", "length_rejected", "reference_kl", "log_ratio_per_token_chosen", "grad_norm",
    }  # fmt: skip
    assert all(wanted <= row.keys() for row in rows[1:])
    assert all(
        row["reward_margin"] == pytest.approx(row["reward_chosen"] - row["reward_rejected"], abs=1e-5)
        for row in rows[1:]
    )


def test_what_the_policy_writes_is_kept_at_every_validation(
    uninterrupted: tuple[StageOutcome, WorkFolder],
) -> None:
    _, work = uninterrupted
    require_written(work)


def test_counts_add_up(uninterrupted: tuple[StageOutcome, WorkFolder]) -> None:
    outcome, work = uninterrupted
    training = json.loads((work.staging / "training.json").read_text())
    train = training["rows"]["train"]
    assert train["given"] == 20 == train["encoded"] + sum(train["dropped"].values())
    assert outcome.metrics["processed_tokens"] == 2 * train["total_tokens"]
    assert outcome.metrics["supervised_tokens"] == 2 * train["completion_tokens"]
    assert [entry["step"] for entry in training["measures"]] == [0, 2, 4, 6, 8]


def test_microbatches_change_nothing_but_rounding(
    workshop: Workshop, reference: Artifact, uninterrupted: tuple[StageOutcome, WorkFolder]
) -> None:
    _, work = run_dpo(workshop, small_dpo(microbatch_size=1), "microbatches", reference=reference)
    losses = [row["loss"] for row in rows_of(work) if "loss" in row]
    assert losses == pytest.approx([row["loss"] for row in rows_of(uninterrupted[1]) if "loss" in row], abs=2e-4)


def test_the_other_folds_are_not_learned_from(workshop: Workshop, reference: Artifact) -> None:
    _, work = run_dpo(workshop, small_dpo(folds=[0, 1], max_steps=1), "folds", reference=reference)
    rows = json.loads((work.staging / "training.json").read_text())["rows"]["train"]
    assert (rows["encoded"], rows["dropped"]) == (8, {"other_fold": 12})


@pytest.mark.parametrize("loss", ["ipo_mean", "hinge", "apo_zero", {"sigmoid": 1.0, "sft": 0.2}])
def test_every_kind_of_loss_trains(workshop: Workshop, reference: Artifact, loss: Any) -> None:
    name = f"loss-{loss if isinstance(loss, str) else 'mix'}"
    outcome, work = run_dpo(workshop, small_dpo(loss=loss), name, reference=reference)
    losses = [row["validation_loss"] for row in rows_of(work) if "validation_loss" in row]
    assert losses[-1] < losses[0]
    assert outcome.metrics["skipped_steps"] == 0


def test_a_loss_without_reference_needs_none(workshop: Workshop) -> None:
    _, work = run_dpo(workshop, small_dpo(loss="simpo"), "simpo", reference=None)
    rows = rows_of(work)
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    assert "reference_kl" not in rows[-1]


def test_a_loss_with_reference_says_that_it_has_none(workshop: Workshop) -> None:
    with pytest.raises(ArtifactError, match=r"The loss of `dpo` compares with a reference, and the stage got none"):
        run_dpo(workshop, small_dpo(), "without", reference=None)


def test_another_policys_reference_is_refused(
    workshop: Workshop, reference: Artifact, uninterrupted: tuple[StageOutcome, WorkFolder]
) -> None:
    """A reference that is dropped, or of the wrong policy, shows before the first step."""
    outcome, work = run_dpo(workshop, small_dpo(), "other", reference=reference)
    policy = seal(workshop, work, outcome, ArtifactKind.policy, "dpo", "other")
    with pytest.raises(DataError, match=r"not the policy that training starts from: .* nats per token"):
        run_dpo(workshop, small_dpo(), "mismatch", reference=reference, policy=policy)


def test_a_reference_of_other_rows_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    other = make_pair_workshop(tmp_path, num_train=10, num_validation=0)
    with pytest.raises(ArtifactError, match=r"has no log-probabilities for the train row 'pair-010'"):
        run_dpo(workshop, small_dpo(), "rows", reference=make_reference(other))


def test_a_given_policy_keeps_its_shape(workshop: Workshop, reference: Artifact) -> None:
    outcome, work = run_dpo(workshop, small_dpo(max_steps=2), "shape-first", reference=reference)
    policy = seal(workshop, work, outcome, ArtifactKind.policy, "dpo", "shape-first")
    config = small_dpo(max_steps=2, lora=LoRAConfig(rank=9, alpha=1.0))
    own = make_reference(workshop, name="shape-reference", policy=policy)
    _, work = run_dpo(workshop, config, "shape-second", reference=own, policy=policy)
    shape = json.loads((work.staging / "adapter" / "adapter_config.json").read_text())
    assert (shape["r"], shape["lora_alpha"]) == (4, 8.0)


# --- going on after a stop -------------------------------------------------------------------------------------------


class Crash(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", [2, 5])
def test_a_crash_changes_nothing(
    workshop: Workshop, reference: Artifact, uninterrupted: tuple[StageOutcome, WorkFolder], step: int
) -> None:
    name, original = f"crash-{step}", dpo.make_trainer

    class AtStep(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                raise Crash

    def make(*args: Any, **kwargs: Any) -> Any:
        trainer = original(*args, **kwargs)
        trainer.add_callback(AtStep())
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dpo, "make_trainer", make)
        with pytest.raises(Crash):
            run_dpo(workshop, small_dpo(), name, reference=reference)
    outcome, work = run_dpo(workshop, small_dpo(), name, reference=reference)
    assert outcome.parts == uninterrupted[0].parts
    a, b = tensors(work.staging / "adapter"), tensors(uninterrupted[1].staging / "adapter")
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[key], b[key]) for key in a)
    assert (work.staging / "training.json").read_bytes() == (uninterrupted[1].staging / "training.json").read_bytes()
    losses = [row.get("loss") for row in rows_of(work)]
    assert losses == [row.get("loss") for row in rows_of(uninterrupted[1])]


# --- watchdogs -------------------------------------------------------------------------------------------------------


def watched(workshop: Workshop, reference: Artifact, name: str, config: DPOConfig) -> dict[str, str]:
    outcome, _ = run_dpo(workshop, config, name, reference=reference)
    told = outcome.metrics.get("warnings", [])
    assert len({warning["name"] for warning in told}) == len(told), "told twice"
    return {warning["name"]: warning["message"] for warning in told}


def test_a_run_as_it_should_be_is_not_warned_about(uninterrupted: tuple[StageOutcome, WorkFolder]) -> None:
    assert "warnings" not in uninterrupted[0].metrics


def test_a_run_that_learns_nothing_is_stuck_at_log_2(workshop: Workshop, reference: Artifact) -> None:
    config = small_dpo(optimizer=OptimizerConfig(learning_rate=1e-9), watch=WatchConfig(window=3, length_ratio=None))
    told = watched(workshop, reference, "stuck", config)
    assert set(told) == {"stuck_at_log_2"}
    assert "raise `dpo.optimizer.learning_rate`" in told["stuck_at_log_2"]


def test_a_run_that_goes_too_far_is_told_so(workshop: Workshop, reference: Artifact) -> None:
    config = small_dpo(
        num_epochs=4,
        beta=1.0,
        optimizer=OptimizerConfig(learning_rate=5e-2, max_grad_norm=1e3),
        watch=WatchConfig(window=2, num_prompts=3, max_new_tokens=24),
        soft_labels=False,
    )
    told = watched(workshop, reference, "too-far", config)
    assert "bound the margin with `dpo.loss=ipo_sum`" in told["margin_explodes"]
