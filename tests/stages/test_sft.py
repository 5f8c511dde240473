"""The stage `sft` on a tiny model: what it seals, what it logs, what it refuses, and going on after a stop."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from peft import PeftModel
from sft_jobs import Workshop, make_workshop, metric_rows, small_config, tensors
from transformers import AutoModelForCausalLM, TrainerCallback

from pipeline.artifacts.outcome import StageOutcome
from pipeline.config.shared import LoRAConfig, OptimizerConfig
from pipeline.config.stages import OverlengthPolicy, SFTConfig
from pipeline.data.encode import encode_rows, load_chat
from pipeline.errors import CheckpointError, ConfigError, DataError, Interrupted, StorageError, TrainingDivergedError
from pipeline.models.head import underlying_model
from pipeline.stages import sft
from pipeline.stages.arguments import trainer_arguments
from pipeline.stages.finite import StepMeter
from pipeline.stages.policies import initial_policy
from pipeline.stages.training import begin_attempt, begin_training

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("workshop"))


def run(workshop: Workshop, config: SFTConfig, name: str, **kwargs: Any) -> tuple[StageOutcome, Path]:
    """Train in a work folder of its own; return the outcome and the folder."""
    work = workshop.work(name)
    with workshop.job(config, name=name, work=work, **kwargs) as job:
        return sft.train_sft(job), work.path


def same_tensors(left: Path, right: Path) -> bool:
    """Whether two adapters are equal bit by bit."""
    a, b = tensors(left), tensors(right)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def uninterrupted(workshop: Workshop) -> tuple[StageOutcome, Path]:
    """Eight steps in one go."""
    return run(workshop, small_config(), "uninterrupted")


class Stop:
    """Raises at the end of an optimizer step, or sends a signal to this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int, action: Any) -> None:
        original = sft.make_trainer

        class AtStep(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step == step:
                    action()

        def make(*args: Any, **kwargs: Any) -> Any:
            trainer = original(*args, **kwargs)
            trainer.add_callback(AtStep())
            return trainer

        monkeypatch.setattr(sft, "make_trainer", make)


# A learning rate that goes on rising: the policy is better for some steps and then worse and worse.
RUINOUS = OptimizerConfig(learning_rate=0.3, warmup_fraction=0.9, max_grad_norm=1e3)


class Crash(Exception):
    """Stands for the end of the process."""


def crash() -> None:
    raise Crash


def run_to_crash(workshop: Workshop, config: SFTConfig, name: str, step: int) -> Path:
    """Train until `step` optimizer steps are done, then fail as a crash would: nothing is cleaned up."""
    with pytest.MonkeyPatch.context() as patch:
        Stop(patch, step, crash)
        with pytest.raises(Crash):
            run(workshop, config, name)
    return workshop.outputs / "work" / f"sft-{workshop.fingerprint(name)[:16]}"


# --- what it makes -----------------------------------------------------------------------------------------------


def test_the_policy_is_an_adapter_that_peft_loads(workshop: Workshop, uninterrupted: tuple[StageOutcome, Path]) -> None:
    outcome, work = uninterrupted
    base = AutoModelForCausalLM.from_pretrained(workshop.base.folder, dtype=torch.float32)
    policy = PeftModel.from_pretrained(base, str(work / "staging" / "adapter"))
    loaded = {name: value for name, value in policy.state_dict().items() if "lora_B" in name}
    assert loaded
    assert all(value.abs().max() > 0 for value in loaded.values()), "training left some B matrix at zero"
    assert set(outcome.parts) == {"policy"}
    assert len(outcome.parts["policy"]) == 64


def test_counts_add_up(workshop: Workshop, uninterrupted: tuple[StageOutcome, Path]) -> None:
    outcome, work = uninterrupted
    training = json.loads((work / "staging" / "training.json").read_text())
    train = training["rows"]["train"]
    assert train["given"] == 16 == train["encoded"] + sum(train["dropped"].values())
    # Two epochs: every token is read twice, whatever the batches were.
    assert outcome.metrics["processed_tokens"] == 2 * train["total_tokens"]
    assert outcome.metrics["supervised_tokens"] == 2 * train["supervised_tokens"]
    assert outcome.metrics["steps"] == 8  # 16 rows x 2 epochs / 4
    assert outcome.metrics["skipped_steps"] == 0


def test_every_step_is_recorded_once_and_validation_at_its_steps(uninterrupted: tuple[StageOutcome, Path]) -> None:
    outcome, work = uninterrupted
    rows = metric_rows(work / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(9))
    assert [row["step"] for row in rows if "validation_loss" in row] == [0, 2, 4, 6, 8]
    wanted = {"loss", "grad_norm", "learning_rate", "tokens_per_second", "supervised_fraction", "memory_gb", "epoch"}
    assert all(wanted <= row.keys() for row in rows[1:])
    assert rows[-1]["epoch"] == 2.0
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"] == outcome.metrics["validation_loss_start"]
    # Warm-up from 0 over ceil(0.1 x 8) = 1 step, then half a cosine over the other 7: (1 + cos(pi / 7)) / 2 = 0.95048.
    rates = [row["learning_rate"] for row in rows[1:4]]
    assert rates == [0.0, pytest.approx(5e-3), pytest.approx(5e-3 * 0.95048, rel=1e-4)]


def test_validation_weighs_tokens_and_not_rows(workshop: Workshop) -> None:
    """An oracle: the plain model's own logits over one row at a time."""
    chat = load_chat(workshop.base.folder, workshop.model)
    rows = sft.read_table(workshop.dataset, "demonstrations", "validation", sft.Demonstration)
    encoded = encode_rows(rows, chat, 128, OverlengthPolicy["drop"]).rows
    model = AutoModelForCausalLM.from_pretrained(workshop.base.folder, dtype=torch.float32).eval()
    nats, means, tokens = 0.0, [], 0
    for row in encoded:
        with torch.no_grad():
            logprobs = model(torch.tensor([row.input_ids])).logits[0].double().log_softmax(-1)
        own = [-logprobs[t - 1, row.input_ids[t]].item() for t, learn in enumerate(row.completion_mask) if learn]
        nats, tokens = nats + sum(own), tokens + len(own)
        means.append(sum(own) / len(own))
    assert sft.validation_loss(model, encoded, 2) == pytest.approx(nats / tokens, abs=1e-5)
    assert abs(sum(means) / len(means) - nats / tokens) > 1e-3, "these rows cannot tell the two means apart"


def test_a_given_policy_is_trained_on_and_keeps_its_shape(workshop: Workshop) -> None:
    outcome, work = run(workshop, small_config(num_epochs=1), "first")
    first = workshop.seal(workshop_folder(workshop, "first", outcome), outcome, name="first")
    config = small_config(num_epochs=1, lora=LoRAConfig(rank=9, alpha=1.0))
    second, work = run(workshop, config, "second", policy=first)
    shape = json.loads((work / "staging" / "adapter" / "adapter_config.json").read_text())
    assert (shape["r"], shape["lora_alpha"]) == (4, 8.0)
    assert second.metrics["validation_loss_start"] == pytest.approx(outcome.metrics["validation_loss_best"], abs=1e-5)


def workshop_folder(workshop: Workshop, name: str, outcome: StageOutcome) -> Any:
    """The work folder as it stands, staging included (opening it anew would empty the staging folder)."""
    del outcome
    held = workshop.outputs / "work" / f"sft-{workshop.fingerprint(name)[:16]}"
    kept = held.with_name("kept")
    shutil.copytree(held / "staging", kept)
    work = workshop.work(name)
    shutil.rmtree(work.staging)
    kept.rename(work.staging)
    return work


def test_the_best_checkpoint_becomes_the_policy_not_the_last(workshop: Workshop) -> None:
    """A learning rate that ruins the policy half-way: the last checkpoint is worse than an earlier one."""
    outcome, work = run(workshop, small_config(num_epochs=4, optimizer=RUINOUS), "best")
    losses = {step: loss for step, loss in json.loads((work / "staging/training.json").read_text())["validations"]}
    best = min((step for step in losses if step), key=losses.__getitem__)
    assert outcome.metrics["policy_step"] == best < outcome.metrics["steps"] == 16
    assert same_tensors(work / "staging" / "adapter", work / "checkpoints" / f"step-{best:08d}")
    assert not same_tensors(work / "staging" / "adapter", work / "checkpoints" / "step-00000016")


def test_early_stopping_ends_the_run_and_a_restart_does_not_go_on(workshop: Workshop) -> None:
    config = small_config(num_epochs=6, early_stopping_patience=2, optimizer=RUINOUS)
    outcome, _ = run(workshop, config, "patience")
    assert outcome.metrics["steps"] < 24
    again, work = run(workshop, config, "patience")
    assert again.metrics == outcome.metrics
    assert again.parts == outcome.parts
    assert len(metric_rows(work / "metrics.jsonl")) == outcome.metrics["steps"] + 1


def test_activation_checkpointing_changes_no_loss(workshop: Workshop, uninterrupted: tuple[StageOutcome, Path]) -> None:
    outcome, _ = run(workshop, small_config(activation_checkpointing=True), "activations")
    expected = uninterrupted[0].metrics
    assert outcome.metrics["validation_loss_last"] == pytest.approx(expected["validation_loss_last"], abs=1e-5)


def test_an_adapter_above_a_4_bit_base_is_not_rounded(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a base needs a GPU. What TRL goes by is an attribute, and what it does to the adapter does not."""

    def lora_a(*, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        config = small_config()
        with workshop.job(config, name=name) as job:
            rows, training = sft.load_rows(job, config), begin_training(job, config, section="sft")
            model = initial_policy(job, config, training.dtype)
            underlying_model(model).is_loaded_in_4bit = True
            parameter = next(value for key, value in model.named_parameters() if "lora_A" in key)
            before = parameter.detach().clone()
            arguments = trainer_arguments(
                config, section="sft", output_dir=tmp_path / name, num_steps=1, device=training.device,
                dtype=training.dtype,
            )  # fmt: skip
            sft.make_trainer(model, rows, config, arguments, StepMeter())
        return before, parameter.detach()

    before, after = lora_a(name="kept")
    assert after.dtype == torch.float32
    assert torch.equal(after, before)
    monkeypatch.setattr(sft, "weights_as_they_are", lambda model: nullcontext())
    before, rounded = lora_a(name="rounded")
    assert rounded.dtype == torch.bfloat16
    assert not torch.equal(rounded.float(), before)


def test_nothing_is_reported_to_the_makers_of_trl(uninterrupted: tuple[StageOutcome, Path]) -> None:
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY


# --- what it refuses ---------------------------------------------------------------------------------------------


def test_no_row_left_is_an_error_with_the_counts(workshop: Workshop) -> None:
    with pytest.raises(DataError, match=r"16 rows = 0 encoded \+ 16 dropped \(16 overlength\).*sft.max_length"):
        run(workshop, small_config(max_length=8), "nothing")


def test_rows_cut_before_their_completion_are_counted_and_not_trained_on(workshop: Workshop) -> None:
    with pytest.raises(DataError, match=r"0 encoded \+ 16 dropped \(16 nothing_supervised\)"):
        run(workshop, small_config(max_length=8, overlength=OverlengthPolicy["truncate"]), "unsupervised")


def test_batches_that_cannot_be_cut_evenly_are_refused(workshop: Workshop) -> None:
    with pytest.raises(ConfigError, match=r"sft.batch_size is 6.*sft.microbatch_size.*sft.microbatch_size=2"):
        run(workshop, small_config(batch_size=6, microbatch_size=4), "uneven")


def test_another_world_size_than_asked_for_is_refused(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    original = sft.make_trainer

    def make(*args: Any, **kwargs: Any) -> Any:
        trainer = original(*args, **kwargs)
        monkeypatch.setenv("WORLD_SIZE", "2")  # after accelerate looked, as with a launcher that it does not know
        return trainer

    monkeypatch.setattr(sft, "make_trainer", make)
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=2, and the trainer runs as 1 process"):
        run(workshop, small_config(), "world")


# --- updates stay finite -----------------------------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int], kind: str) -> None:
    """Make the loss, or only its gradient, not finite in some optimizer steps (counted from 1)."""
    original = sft.SFTTrainer.compute_loss

    def compute_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, *args, **kwargs)
        if self.state.global_step + 1 not in steps:
            return loss
        if kind == "loss":
            self.meter.losses[-1] = torch.tensor(float("nan"))
            return loss * float("nan")
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(sft.SFTTrainer, "compute_loss", compute_loss)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_an_update_that_is_not_finite_is_skipped_and_counted(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    poison(monkeypatch, {3, 5}, kind)
    outcome, work = run(workshop, small_config(), f"poisoned-{kind}")
    assert outcome.metrics["skipped_steps"] == 2
    assert outcome.metrics["steps"] == 8
    rows = metric_rows(work / "metrics.jsonl")
    assert [row["skipped_steps"] for row in rows[1:]] == [0, 0, 1, 1, 2, 2, 2, 2]
    assert ("loss" in rows[3]) == (kind == "gradient")
    assert all(np.isfinite(value).all() for value in tensors(work / "staging" / "adapter").values())
    told = capsys.readouterr().out
    assert f"step 3: the {kind} is not finite, so the update was skipped. Rows: row-" in told


def test_an_update_that_is_skipped_changes_no_weight(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, {4}, "loss")
    _, work = run(workshop, small_config(keep_checkpoints=8, save_every=1, keep_best=False), "unchanged")
    saved = [work / "checkpoints" / f"step-{step:08d}" for step in (3, 4, 5)]
    assert same_tensors(saved[0], saved[1])
    assert not same_tensors(saved[1], saved[2]), "nothing was trained at all"


def test_too_many_in_a_row_end_the_run(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, {3, 5, 6, 7}, "loss")
    with pytest.raises(
        TrainingDivergedError, match=r"3 optimizer steps in a row, the last of them step 7.*row-.*learning_rate"
    ) as caught:
        run(workshop, small_config(max_nonfinite_steps=2), "diverged")
    assert caught.value.exit_status == 17
    folder = workshop.outputs / "work" / f"sft-{workshop.fingerprint('diverged')[:16]}" / "checkpoints"
    for checkpoint in folder.glob("step-*"):
        assert all(np.isfinite(value).all() for value in tensors(checkpoint).values())
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-00000004", "step-00000006"]


def test_a_state_that_is_not_finite_is_never_saved(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the guard's back: a weight turns NaN after the update."""
    original = sft.make_trainer

    class Spoil(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                parameter = next(p for p in kwargs["model"].parameters() if p.requires_grad)
                parameter.data.view(-1)[0] = float("nan")

    def make(*args: Any, **kwargs: Any) -> Any:
        trainer = original(*args, **kwargs)
        trainer.add_callback(Spoil())
        return trainer

    monkeypatch.setattr(sft, "make_trainer", make)
    with pytest.raises(TrainingDivergedError, match=r"After step 4 .* lora_A|validation loss at step 4 is nan"):
        run(workshop, small_config(), "spoiled")
    folder = workshop.outputs / "work" / f"sft-{workshop.fingerprint('spoiled')[:16]}" / "checkpoints"
    assert [path.name for path in folder.glob("step-*")] == ["step-00000002"]


# --- going on ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 3, 4, 7])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    workshop: Workshop, uninterrupted: tuple[StageOutcome, Path], step: int
) -> None:
    name = f"crash-{step}"
    run_to_crash(workshop, small_config(), name, step)
    outcome, work = run(workshop, small_config(), name)
    expected, reference = uninterrupted
    assert outcome.parts == expected.parts
    assert outcome.metrics == expected.metrics
    assert same_tensors(work / "staging" / "adapter", reference / "staging" / "adapter")
    timing = {"tokens_per_second", "memory_gb"}
    rows, wanted = (
        [{key: value for key, value in row.items() if key not in timing} for row in metric_rows(path / "metrics.jsonl")]
        for path in (work, reference)
    )
    assert rows == wanted


def reseal(checkpoint: Path) -> None:
    """Make a checkpoint verify again after it was altered, as if it had been saved like this."""
    from pipeline.artifacts.checkpoints import CheckpointFolder

    facts = json.loads((checkpoint / "MANIFEST.json").read_text())["facts"]
    (checkpoint / "MANIFEST.json").unlink()
    source = checkpoint.with_name("altered")
    checkpoint.rename(source)
    CheckpointFolder(checkpoint.parent).commit(source, int(checkpoint.name.removeprefix("step-")), facts)


@pytest.mark.parametrize("missing", ["optimizer.pt", "rng_state.pth"])
def test_without_this_file_the_resumed_run_would_differ(
    workshop: Workshop, uninterrupted: tuple[StageOutcome, Path], missing: str
) -> None:
    """The control of the test above: it can see a state that was not restored."""
    name = f"without-{missing.partition('.')[0]}"
    folder = run_to_crash(workshop, small_config(), name, 5)
    checkpoint = folder / "checkpoints" / "step-00000004"
    (checkpoint / missing).unlink()
    reseal(checkpoint)
    outcome, _ = run(workshop, small_config(), name)
    assert outcome.parts != uninterrupted[0].parts


FILES = ["adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth",
         "trainer_state.json", "MANIFEST.json"]  # fmt: skip
DAMAGES = {
    "deleted": lambda path: path.unlink(),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "flipped": lambda path: path.write_bytes(flip(path.read_bytes())),
}


def flip(data: bytes) -> bytes:
    """Flip one bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.fixture(scope="module")
def two_checkpoints(workshop: Workshop) -> Path:
    """A crashed run with the checkpoints of steps 2 and 4."""
    folder = run_to_crash(workshop, small_config(), "damaged", 5)
    assert sorted(path.name for path in (folder / "checkpoints").glob("step-*")) == ["step-00000002", "step-00000004"]
    assert sorted(path.name for path in (folder / "checkpoints/step-00000004").iterdir()) == sorted(FILES)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_is_used(
    workshop: Workshop, two_checkpoints: Path, tmp_path: Path, file: str, damage: str
) -> None:
    from pipeline.artifacts.work import WorkFolder

    shutil.copytree(two_checkpoints, tmp_path / "work")
    DAMAGES[damage](tmp_path / "work" / "checkpoints" / "step-00000004" / file)
    work = WorkFolder(tmp_path / "work")
    with workshop.job(small_config(), name="damaged", work=work) as job:
        attempt = begin_attempt(job)
    assert attempt.checkpoint is not None
    assert attempt.checkpoint.step == 2
    assert attempt.course.validations[-1][0] == 2
    assert [path.name for path in work.checkpoints.path.glob("corrupt-*")] == ["corrupt-step-00000004"]
    assert max(row["step"] for row in metric_rows(work.metrics)) == 2


def test_going_on_from_the_one_before_it_ends_at_the_same_policy(
    workshop: Workshop, two_checkpoints: Path, tmp_path: Path, uninterrupted: tuple[StageOutcome, Path]
) -> None:
    from pipeline.artifacts.work import WorkFolder

    shutil.copytree(two_checkpoints, tmp_path / "work")
    DAMAGES["flipped"](tmp_path / "work" / "checkpoints" / "step-00000004" / "optimizer.pt")
    with workshop.job(small_config(), name="damaged", work=WorkFolder(tmp_path / "work")) as job:
        assert sft.train_sft(job).parts == uninterrupted[0].parts


def test_when_no_checkpoint_verifies_training_does_not_start_again_in_silence(
    workshop: Workshop, two_checkpoints: Path, tmp_path: Path
) -> None:
    from pipeline.artifacts.work import WorkFolder

    shutil.copytree(two_checkpoints, tmp_path / "work")
    for step in (2, 4):
        DAMAGES["truncated"](tmp_path / "work" / "checkpoints" / f"step-0000000{step}" / "adapter_model.safetensors")
    with (
        workshop.job(small_config(), name="damaged", work=WorkFolder(tmp_path / "work")) as job,
        pytest.raises(CheckpointError),
    ):
        sft.train_sft(job)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_ends_with_the_shells_status(
    workshop: Workshop,
    uninterrupted: tuple[StageOutcome, Path],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    name = f"signal-{number.name}"
    with monkeypatch.context() as patch:
        Stop(patch, 2, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match=rf"Stopped by {number.name} after step 3 of 8, which is saved") as caught:
            run(workshop, small_config(), name)
    assert caught.value.exit_status == 128 + number
    folder = workshop.outputs / "work" / f"sft-{workshop.fingerprint(name)[:16]}" / "checkpoints"
    assert "step-00000003" in {path.name for path in folder.iterdir()}
    outcome, work = run(workshop, small_config(), name)
    assert outcome.parts == uninterrupted[0].parts
    assert [row["step"] for row in metric_rows(work / "metrics.jsonl")] == list(range(9))


def test_a_disk_that_takes_no_more_is_named_and_the_checkpoint_before_is_intact(
    workshop: Workshop, uninterrupted: tuple[StageOutcome, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files stands for the full disk: the optimizer's state has twice the adapter's 32 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        Stop(patch, 3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1])))
        try:
            with pytest.raises(StorageError, match=r"bytes are needed\).*goes on from the last checkpoint") as caught:
                run(workshop, small_config(), "full")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_status == 7
    folder = workshop.outputs / "work" / f"sft-{workshop.fingerprint('full')[:16]}" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step-00000002"]
    assert run(workshop, small_config(), "full")[0].parts == uninterrupted[0].parts


def test_rotation_keeps_the_newest_and_the_best(workshop: Workshop) -> None:
    config = small_config(num_epochs=4, keep_checkpoints=2, validate_every=1, optimizer=RUINOUS)
    outcome, work = run(workshop, config, "rotation")
    best = outcome.metrics["policy_step"]
    assert best < 15, "the best checkpoint is one of the newest two, so nothing is shown"
    kept = sorted(int(path.name.removeprefix("step-")) for path in (work / "checkpoints").glob("step-*"))
    assert kept == [best, 15, 16]
