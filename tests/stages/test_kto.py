"""The stage `kto` on a tiny model: what it learns from, the baseline, what it refuses, and going on after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pair_jobs import pair_job, require_written, seal
from sft_jobs import Workshop, metric_rows, tensors
from thumb_jobs import FOLDS, make_reference, make_thumb_workshop, run_kto, small_kto
from transformers import AutoModelForCausalLM, TrainerCallback

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.manifest import ArtifactKind
from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.work import WorkFolder
from pipeline.config.dpo import WatchConfig
from pipeline.config.kto import KTOConfig, ThumbLoss, ThumbRows
from pipeline.config.shared import OptimizerConfig
from pipeline.errors import ArtifactError, DataError
from pipeline.stages import kto
from pipeline.stages.thumbs import ThumbTables, load_thumbs

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_thumb_workshop(tmp_path_factory.mktemp("workshop"), pairs=4)


@pytest.fixture(scope="module")
def reference(workshop: Workshop) -> Artifact:
    return make_reference(workshop)


@pytest.fixture(scope="module")
def uninterrupted(workshop: Workshop, reference: Artifact) -> tuple[StageOutcome, WorkFolder]:
    """Eight steps in one go, from the base."""
    return run_kto(workshop, small_kto(), "uninterrupted", reference=reference)


def rows_of(work: WorkFolder) -> list[dict[str, Any]]:
    return metric_rows(work.metrics)


def tables(workshop: Workshop, rows: ThumbRows = ThumbRows.auto) -> ThumbTables:
    with pair_job(workshop, "kto", name=f"tables-{rows}") as job:
        return load_thumbs(job, rows=rows, folds=FOLDS, max_length=128)


# --- rows and reference ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "good", "bad", "from_comparisons"),
    [("auto", 8, 16, 0), ("unpaired", 8, 16, 0), ("comparisons", 3, 3, 8), ("both", 11, 19, 8)],
)
def test_rows_come_from_the_tables_that_are_named(
    workshop: Workshop, rows: str, good: int, bad: int, from_comparisons: int
) -> None:
    """One of the four comparisons is a coin's: neither side of it is good."""
    counts = tables(workshop, ThumbRows(rows)).counts["train"]
    assert (counts.good, counts.bad, counts.from_comparisons) == (good, bad, from_comparisons)
    assert counts.given == good + bad + sum(counts.dropped.values())


def test_without_thumbs_comparisons_are_what_auto_takes(tmp_path: Path) -> None:
    found = tables(make_thumb_workshop(tmp_path, num_train=0, num_validation=0, pairs=4))
    assert {thumb.id for thumb in found.train} == {f"pair-00{n}/{side}" for n in range(3) for side in
                                                   ("chosen", "rejected")}  # fmt: skip


def test_the_reference_is_what_the_plain_model_says(workshop: Workshop, reference: Artifact) -> None:
    """An oracle: the model's own logits over one sequence at a time."""
    table = {(row["split"], row["id"]): row for row in pq.read_table(reference.file("reference.parquet")).to_pylist()}
    found = tables(workshop)
    assert len(table) == len(found.train) + len(found.validation) == 30
    model = AutoModelForCausalLM.from_pretrained(workshop.base.folder, dtype=torch.float32).eval()
    for split, thumb in (("train", found.train[3]), ("validation", found.validation[1])):
        for name, side in (("own", thumb.own), ("mismatched", thumb.mismatched)):
            with torch.no_grad():
                logs = model(torch.tensor([side.input_ids])).logits[0].double().log_softmax(-1)
            own = sum(logs[t - 1, side.input_ids[t]].item() for t, learn in enumerate(side.completion_mask) if learn)
            assert table[split, thumb.id][name] == pytest.approx(own, abs=1e-4)


# --- what it makes ---------------------------------------------------------------------------------------------------


def test_what_the_policy_writes_is_kept_at_every_validation(
    uninterrupted: tuple[StageOutcome, WorkFolder],
) -> None:
    _, work = uninterrupted
    require_written(work)


def test_the_first_step_knows_nothing_yet(uninterrupted: tuple[StageOutcome, WorkFolder]) -> None:
    """Policy and reference are the same: a row costs half its weight, soft labels or not, and nothing has drifted.

    Eight good rows weigh 24 / 16 = 1.5 and sixteen bad ones 24 / 32 = 0.75. With confidence p a good row costs
    ``(1.5 p + 0.75 (1 - p)) / 2``.
    """
    _, work = uninterrupted
    start, first = rows_of(work)[:2]
    assert json.loads((work.staging / "training.json").read_text())["weights"] == {
        "desirable": 1.5, "undesirable": 0.75,
    }  # fmt: skip
    for row in (first, {name.removeprefix("validation_"): value for name, value in start.items()}):
        assert abs(row["drift"]) < 1e-3
        assert abs(row["reward_good"]) + abs(row["reward_bad"]) < 1e-4
    # Validation rows 24 to 29: good are 24 (p = 1) and 27 (3/4); bad 25 (9/10), 26 (1), 28 (1), 29 (9/10).
    good = 1.5 + (0.75 * 1.5 + 0.25 * 0.75)
    bad = 2 * 0.75 + 2 * (0.9 * 0.75 + 0.1 * 1.5)
    assert start["validation_loss"] == pytest.approx((good + bad) / 2 / 6, abs=1e-5)
    assert abs(rows_of(work)[-1]["reward_good"]) > 0.01, "nothing moved, so nothing is shown"


def test_it_learns_what_was_called_good(uninterrupted: tuple[StageOutcome, WorkFolder]) -> None:
    outcome, work = uninterrupted
    rows = rows_of(work)
    assert [row["step"] for row in rows] == list(range(9))
    assert outcome.metrics["steps"] == 8  # 24 rows x 2 epochs / 6
    assert rows[-1]["validation_reward_good"] > rows[-1]["validation_reward_bad"] + 0.1
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"] - 0.01
    assert outcome.metrics["validation_accuracy"] == 1.0
    wanted = {"drift", "label_accuracy", "reward_bad", "logprob_bad", "length_bad", "log_ratio_per_token_bad"}
    assert all(wanted <= row.keys() for row in rows[1:])


def test_flipped_labels_teach_the_contrary(
    workshop: Workshop, reference: Artifact, uninterrupted: tuple[StageOutcome, WorkFolder]
) -> None:
    """A wrong sign somewhere would do the same as this control, and the run above would look like it."""
    original = kto.load_thumbs

    def flipped(*args: Any, **kwargs: Any) -> ThumbTables:
        found = original(*args, **kwargs)
        for thumb in [*found.train, *found.validation]:
            object.__setattr__(thumb, "label", not thumb.label)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kto, "load_thumbs", flipped)
        _, work = run_kto(workshop, small_kto(), "flipped", reference=reference)
    # "good" is here what is bad
    truly_good, truly_bad = (rows_of(work)[-1][f"validation_reward_{name}"] for name in ("bad", "good"))
    assert truly_good < truly_bad - 0.1


def test_counts_add_up(uninterrupted: tuple[StageOutcome, WorkFolder], workshop: Workshop) -> None:
    outcome, work = uninterrupted
    training = json.loads((work.staging / "training.json").read_text())
    train = training["rows"]["train"]
    assert train["given"] == 24 == train["good"] + train["bad"] + sum(train["dropped"].values())
    unrelated = sum(len(thumb.mismatched.input_ids) for thumb in tables(workshop).train)
    assert outcome.metrics["processed_tokens"] == 2 * (train["total_tokens"] + unrelated)
    assert outcome.metrics["supervised_tokens"] == 2 * train["supervised_tokens"]


def test_microbatches_change_nothing_but_rounding(
    workshop: Workshop, reference: Artifact, uninterrupted: tuple[StageOutcome, WorkFolder]
) -> None:
    """The baseline is of the whole step, so that one row at a time gives the same losses and the same drift."""
    _, work = run_kto(workshop, small_kto(microbatch_size=1), "microbatches", reference=reference)
    for name in ("loss", "drift"):
        own = [row[name] for row in rows_of(work) if name in row]
        whole = [row[name] for row in rows_of(uninterrupted[1]) if name in row]
        assert own == pytest.approx(whole, abs=1e-3 if name == "drift" else 2e-4)


def test_apo_zero_has_no_baseline(workshop: Workshop, reference: Artifact) -> None:
    _, work = run_kto(workshop, small_kto(loss=ThumbLoss.apo_zero_unpaired), "apo", reference=reference)
    rows = rows_of(work)
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    assert "drift" not in rows[-1]
    assert "validation_drift" not in rows[-1]


# --- what it refuses -------------------------------------------------------------------------------------------------


def test_it_says_that_it_has_no_reference(workshop: Workshop) -> None:
    with pytest.raises(ArtifactError, match=r"The loss of `kto` compares with a reference, and the stage got none"):
        run_kto(workshop, small_kto(), "without", reference=None)


def test_another_policys_reference_is_refused(workshop: Workshop, reference: Artifact) -> None:
    outcome, work = run_kto(workshop, small_kto(max_steps=2), "other", reference=reference)
    policy = seal(workshop, work, outcome, ArtifactKind.policy, "kto", "other")
    with pytest.raises(DataError, match=r"not the policy that training starts from: .*force=\[kto\]"):
        run_kto(workshop, small_kto(), "mismatch", reference=reference, policy=policy)


def test_rows_of_one_label_or_one_prompt_are_refused(tmp_path: Path) -> None:
    one = make_thumb_workshop(tmp_path, num_train=1, num_validation=0)
    with pytest.raises(DataError, match=r"have 1 and 0: 1 labelled completions .* = 1 good \+ 0 bad"):
        tables(one)
    pair = make_thumb_workshop(tmp_path / "pair", num_train=0, num_validation=0, pairs=1)
    with pytest.raises(DataError, match=r"All train rows of kto answer one prompt"):
        tables(pair)


# --- going on after a stop -------------------------------------------------------------------------------------------


class Crash(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", [2, 5])
def test_a_crash_changes_nothing(
    workshop: Workshop, reference: Artifact, uninterrupted: tuple[StageOutcome, WorkFolder], step: int
) -> None:
    name, original = f"crash-{step}", kto.make_trainer

    class AtStep(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                raise Crash

    def make(*args: Any, **kwargs: Any) -> Any:
        trainer = original(*args, **kwargs)
        trainer.add_callback(AtStep())
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kto, "make_trainer", make)
        with pytest.raises(Crash):
            run_kto(workshop, small_kto(), name, reference=reference)
    outcome, work = run_kto(workshop, small_kto(), name, reference=reference)
    assert outcome.parts == uninterrupted[0].parts
    a, b = tensors(work.staging / "adapter"), tensors(uninterrupted[1].staging / "adapter")
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[key], b[key]) for key in a)
    assert (work.staging / "training.json").read_bytes() == (uninterrupted[1].staging / "training.json").read_bytes()
    assert [row.get("loss") for row in rows_of(work)] == [row.get("loss") for row in rows_of(uninterrupted[1])]


# --- watchdogs -------------------------------------------------------------------------------------------------------


def watched(workshop: Workshop, reference: Artifact, name: str, config: KTOConfig) -> dict[str, str]:
    outcome, _ = run_kto(workshop, config, name, reference=reference)
    return {warning["name"]: warning["message"] for warning in outcome.metrics.get("warnings", [])}


def test_watchdogs_name_the_cause_and_the_key(
    workshop: Workshop, reference: Artifact, uninterrupted: tuple[StageOutcome, WorkFolder]
) -> None:
    assert "warnings" not in uninterrupted[0].metrics
    silent = WatchConfig(window=3, length_ratio=None)
    told = watched(workshop, reference, "stuck", small_kto(optimizer=OptimizerConfig(learning_rate=1e-9), watch=silent))
    assert set(told) == {"stuck_at_the_reference"}
    assert "Raise `kto.optimizer.learning_rate`" in told["stuck_at_the_reference"]
    eager = WatchConfig(window=2, max_margin=0.05, chosen_drop=None, length_ratio=None)
    assert "`kto.num_epochs`" in watched(workshop, reference, "far", small_kto(watch=eager))["margin_explodes"]
