"""The stage `reward` on a tiny model: what it seals, what its card says, and going on after a crash."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_rows import comparison
from reward_jobs import Workshop, comparisons, make_workshop, small_config
from safetensors.numpy import load_file
from sft_jobs import metric_rows
from transformers import TrainerCallback

from pipeline.artifacts.outcome import StageOutcome
from pipeline.artifacts.work import WorkFolder
from pipeline.config.reward import ConfidenceUse, RewardConfig, TieModel
from pipeline.config.shared import DType, LoRAConfig, RuntimeConfig
from pipeline.data.encode import encode_completion, load_chat
from pipeline.data.pairs import Pair, encode_pairs
from pipeline.errors import CheckpointError, DataError
from pipeline.models.loading import add_lora, load_base, save_adapter
from pipeline.models.reward import RewardFacts, load_reward, member_folders, reward_digest
from pipeline.stages import audit, reward, reward_trainer
from pipeline.stages.members import member_config, member_rows
from pipeline.stages.pairs import PairCollator, PairRows

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

TIMING = {"tokens_per_second", "memory_gb"}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def whole(workshop: Workshop) -> tuple[StageOutcome, WorkFolder]:
    """Twelve steps in one go."""
    return workshop.run(small_config(), "whole")


def weights(work: WorkFolder) -> dict[str, np.ndarray]:
    return load_file(work.staging / "adapter/adapter_model.safetensors") | load_file(work.staging / "head.safetensors")


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


class Crash(Exception):
    """Stands for the end of the process."""


def run_to_crash(workshop: Workshop, config: RewardConfig, name: str, step: int) -> WorkFolder:
    """Train until `step` optimizer steps are done, then fail as a crash would: nothing is cleaned up."""
    original = reward.make_trainer

    class AtStep(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                raise Crash

    def make(*args: Any, **kwargs: Any) -> Any:
        trainer = original(*args, **kwargs)
        trainer.add_callback(AtStep())
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward, "make_trainer", make)
        with pytest.raises(Crash):
            workshop.run(config, name)
    return workshop.work(name)


# --- what it makes -----------------------------------------------------------------------------------------------


def test_the_first_loss_is_log_two_and_training_lowers_it(whole: tuple[StageOutcome, WorkFolder]) -> None:
    """The head starts at zero, so every pair is even at first, whatever the adapter."""
    outcome, work = whole
    rows = metric_rows(work.metrics)
    assert rows[1]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert outcome.metrics["validation_loss_start"] == pytest.approx(math.log(2), abs=1e-6)
    assert outcome.metrics["validation_loss_best"] < 0.6
    assert outcome.metrics["steps"] == 12  # 24 pairs of folds 0 to 2, twice, in fours
    assert {"accuracy", "score", "score_difference"} <= rows[-1].keys()
    assert rows[1]["accuracy"] == 0.5
    training = json.loads((work.staging / "training.json").read_text())
    assert training["rows"]["train"]["dropped"] == {"other_fold": 16}
    assert outcome.metrics["processed_tokens"] == 2 * training["rows"]["train"]["total_tokens"]


def test_it_learns_what_the_pairs_say(whole: tuple[StageOutcome, WorkFolder]) -> None:
    outcome, work = whole
    card = json.loads((work.staging / "audit.json").read_text())
    assert card["held_out"] == {"split": "test", "pairs": 20, "ties": 0}
    assert card["accuracy"]["estimate"] > 0.9
    assert set(card["by_source"]) == {"even", "odd"}
    assert sum(group["n"] for group in card["by_confidence"].values()) == 20
    gates = {gate["name"]: gate for gate in outcome.gates}
    assert {"accuracy", "length_rule", "calibration", "empty_text", "reload", "padding", "batch"} <= gates.keys()
    assert gates["accuracy"]["outcome"] == "PASS"
    for name in ("reload", "padding", "batch"):
        assert gates[name]["outcome"] == "PASS", gates[name]
    assert set(outcome.parts) == {"reward", "audit"}
    assert outcome.parts["reward"] == reward_digest(work.staging)


def test_a_sealed_reward_model_prefers_the_right_reply(
    workshop: Workshop, whole: tuple[StageOutcome, WorkFolder]
) -> None:
    facts = RewardFacts.read(whole[1].staging)
    assert facts.folds == (0, 1, 2)
    chat = load_chat(workshop.base.folder, workshop.model)
    base = load_base(workshop.base, workshop.model, RuntimeConfig(), DType.float32)
    loaded = load_reward(base, whole[1].staging)
    asked = [{"role": "user", "content": "What about the refund number 99?"}]
    rows = []
    for text in ("The refund is ready.", "I do not know the card."):
        encoded = encode_completion(asked, text, chat)
        rows.append(encoded.input_ids)
    good, bad = loaded.score(rows).mean.tolist()
    assert good > bad + 0.5
    # In units of the policy's own samples: the stage says what their mean and spread are.
    card = json.loads((whole[1].staging / "audit.json").read_text())
    assert facts.means == pytest.approx(card["policy_samples"]["raw_mean"])


def test_the_same_inputs_give_the_same_bytes(workshop: Workshop, whole: tuple[StageOutcome, WorkFolder]) -> None:
    _, again = workshop.run(small_config(), "again")
    for name in ("adapter/adapter_model.safetensors", "head.safetensors", "reward.json", "audit.json", "training.json"):
        assert (again.staging / name).read_bytes() == (whole[1].staging / name).read_bytes(), name
    _, other = workshop.run(small_config(seed=6), "seed")
    assert not same(weights(other), weights(whole[1])), "the seed does nothing, so nothing is shown"


def test_a_gold_judge_learns_from_other_pairs(workshop: Workshop, whole: tuple[StageOutcome, WorkFolder]) -> None:
    outcome, work = workshop.run(small_config(), "gold", folds=(3, 4))
    assert RewardFacts.read(work.staging).folds == (3, 4)
    training = json.loads((work.staging / "training.json").read_text())
    assert training["rows"]["train"]["encoded"] == 16
    assert training["rows"]["test"]["encoded"] == 20  # held-out rows are nobody's to learn from
    assert outcome.parts["reward"] != whole[0].parts["reward"]


def test_it_starts_from_the_policys_adapter(workshop: Workshop, tmp_path: Path) -> None:
    """Steps of no size: what is sealed is what the policy brought, and its shape with it."""
    policy = add_lora(load_base(workshop.base, workshop.model, RuntimeConfig(), DType.float32), LoRAConfig(rank=2), 1)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    work = workshop.store.work("sft", "f" * 64)
    save_adapter(policy, work.staging / "adapter")
    sealed = workshop.store.seal(
        work, kind="policy", stage="sft", version=1, fingerprint="f" * 64, parents=[], config={},
        outcome=StageOutcome(parts={"policy": "0" * 64}),
    )  # fmt: skip
    config = small_config(max_steps=1)  # the first step of the warm-up has a learning rate of zero
    _, work = workshop.run(config, "from-policy", policy=sealed)
    ours = load_file(work.staging / "adapter/adapter_model.safetensors")
    assert same(ours, load_file(sealed.path / "adapter/adapter_model.safetensors"))
    assert json.loads((work.staging / "adapter/adapter_config.json").read_text())["r"] == 2


def test_members_of_an_ensemble_differ_and_a_resumed_one_is_the_same(workshop: Workshop) -> None:
    config = small_config(num_members=2, num_epochs=1)
    outcome, work = workshop.run(config, "ensemble")
    facts = RewardFacts.read(work.staging)
    assert facts.num_members == 2
    heads = [load_file(folder / "head.safetensors") for folder in member_folders(work.staging, 2)]
    assert not same(heads[0], heads[1])
    rows = metric_rows(work.metrics)
    assert [row["step"] for row in rows] == list(range(14))  # six steps and the one before them, twice
    card = json.loads((work.staging / "audit.json").read_text())
    assert card["policy_samples"]["spread_between_members"] > 0
    # The second member's fourth step: the first is over, and the second goes on from its own checkpoint.
    original, begun = reward.make_trainer, []

    def make(*args: Any, **kwargs: Any) -> Any:
        trainer = original(*args, **kwargs)
        begun.append(trainer)
        if len(begun) == 2:

            class AtStep(TrainerCallback):
                def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                    if state.global_step == 3:
                        raise Crash

            trainer.add_callback(AtStep())
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward, "make_trainer", make)
        with pytest.raises(Crash):
            workshop.run(config, "ensemble-crash")
    again, resumed = workshop.run(config, "ensemble-crash")
    assert again.parts == outcome.parts
    assert [row["step"] for row in metric_rows(resumed.metrics)] == list(range(14))


@pytest.mark.parametrize("broken", [None, 0, 1])
def test_padding_is_looked_at_in_every_member(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, broken: int | None
) -> None:
    """A broken member scores the number of its pads on the left: three of the longest row, and of the others more."""
    chat = load_chat(workshop.base.folder, workshop.model)
    _, pairs = batch_of(workshop)

    def scores(model: Any, head: int, ids: torch.Tensor, mask: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        sound = ids.gather(1, last.unsqueeze(1)).squeeze(1).float()
        return sound + mask.float().argmax(dim=1) if head == broken else sound

    monkeypatch.setattr(audit, "last_scores", scores)
    monkeypatch.setattr(audit, "enter_role", lambda model, adapter: contextlib.nullcontext())
    reward_model: Any = SimpleNamespace(
        model=torch.nn.Linear(1, 1), adapters=["r0", "r1"], heads=[0, 1], facts=SimpleNamespace(stds=(2.0, 4.0))
    )
    assert audit._padding_change(reward_model, pairs, chat) == {None: 0.0, 0: 1.5, 1: 0.75}[broken]


def test_the_texts_that_nobody_should_prefer_are_these(workshop: Workshop) -> None:
    """The prompt alone, half of the chosen reply, and its first eight tokens eight times."""
    row = comparison(" ".join(f"word{n}" for n in range(9)), "No.", prompt="Why?")
    (pair,) = encode_pairs([row], load_chat(workshop.base.folder, workshop.model), max_length=256).pairs
    scored: list[list[list[int]]] = []

    def score(rows: list[list[int]], batch_size: int) -> Any:
        scored.append(rows)
        return SimpleNamespace(mean=torch.tensor([float(len(scored))] * len(rows)))

    tail = (7, 8)  # as if two tokens ended a turn
    sides: Any = SimpleNamespace(chosen=3.0, rejected=1.0)
    reward_model: Any = SimpleNamespace(score=score, facts=SimpleNamespace(tail_ids=tail))
    found = audit._unwanted(reward_model, [pair], [sides], 4)
    prompt, reply = pair.chosen.prompt_ids, pair.chosen.input_ids[len(pair.chosen.prompt_ids) : -2]
    assert len(reply) > 16, "else eight tokens and a half are the same"
    half = len(reply) // 2
    assert [rows[0] for rows in scored] == [prompt, prompt + reply[:half], prompt + reply[:8] * 8]
    assert {name: texts.scores for name, texts in found.items()} == {
        "empty": [1.0], "truncated": [2.0], "repeated": [3.0],
    }  # fmt: skip
    assert all((texts.usual, texts.clusters) == ([2.0], [pair.cluster]) for texts in found.values())


# --- labels ------------------------------------------------------------------------------------------------------


def batch_of(workshop: Workshop, **values: Any) -> tuple[dict[str, Any], list[Pair]]:
    chat = load_chat(workshop.base.folder, workshop.model)
    pairs = encode_pairs([comparison("Yes.", "No.", **values)], chat, max_length=64).pairs
    return PairCollator(pairs, chat.pad_id)([{"row": 0}]), pairs


@pytest.mark.parametrize(
    ("config", "row", "expected"),
    [
        ({}, {"confidence": 0.8}, 0.8 * 0.3132617 + 0.2 * 1.3132617),
        ({"label_smoothing": 0.1}, {"confidence": 1.0}, 0.9 * 0.3132617 + 0.1 * 1.3132617),
        ({"confidence": ConfidenceUse.ignore}, {"confidence": 0.8}, 0.3132617),
        ({"confidence": ConfidenceUse.ignore}, {"confidence": 0.5}, 0.5 * 0.3132617 + 0.5 * 1.3132617),
        ({"use_margin": True}, {"confidence": 1.0, "margin": 1.0}, math.log(2)),
        ({}, {"confidence": 1.0, "margin": 1.0}, 0.3132617),  # without use_margin nobody looks at it
        ({"ties": TieModel.davidson}, {"confidence": 1.0}, 0.3132617),  # a tie was no possible answer
        # Strengths e and 1 with nu = 1: win e, loss 1, tie sqrt(e).
        ({"ties": TieModel.davidson}, {"confidence": 1.0, "tie": 0.0},
         -math.log(math.e / (math.e + 1 + math.exp(0.5)))),
    ],
)  # fmt: skip
def test_each_key_reaches_the_loss(
    workshop: Workshop, config: dict[str, Any], row: dict[str, Any], expected: float
) -> None:
    batch, _ = batch_of(workshop, **row)
    settings = small_config(**config)
    tie = None if settings.ties is TieModel.half else torch.tensor(0.0)
    loss = reward_trainer.pair_losses(torch.tensor([1.5]), torch.tensor([0.5]), batch, settings, tie)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_a_model_of_ties_is_trained_with_its_number(workshop: Workshop, tmp_path: Path) -> None:
    tied = [*comparisons(20)]
    rows = [
        comparison(**{"chosen": "Yes it is.", "rejected": "It is, yes."}, prompt=f"Is it {n}?", id=f"t{n}",
                   confidence=0.5, tie=1.0)
        for n in range(20)
    ]  # fmt: skip
    shop = make_workshop(tmp_path, {"train": [*tied, *rows], "validation": comparisons(4, first=90)})
    config = small_config(ties=TieModel.rao_kupper, num_epochs=1, keep_best=False)
    _, work = shop.run(config, "ties", folds=range(5))
    saved = load_file(max((work.path / "checkpoints").glob("step-*")) / "heads.safetensors")
    assert saved["reward_head.tie"] > 0.01  # half of the pairs are ties, so the threshold rises
    # What is sealed is the threshold itself: softplus(0) = log 2 is what it started from.
    sealed = load_file(work.staging / "head.safetensors")["tie"]
    assert sealed == pytest.approx(math.log1p(math.exp(float(saved["reward_head.tie"]))), rel=1e-6)
    assert sealed > math.log(2)
    base = load_base(shop.base, shop.model, RuntimeConfig(), DType.float32)
    assert load_reward(base, work.staging).score([[5, 6, 7]]).members.shape == (1, 1)


@pytest.mark.parametrize(("ties", "expected"), [(TieModel.half, None), (TieModel.davidson, 1.0)])
def test_the_checkpoint_is_chosen_by_the_likelihood_that_is_trained(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, ties: TieModel, expected: float | None
) -> None:
    """Two pairs at d = 2 and nu = 1: the first decided with ``p`` 0.8 where no tie was possible, the second a tie."""
    _, (first,) = batch_of(workshop, confidence=0.8)
    _, (second,) = batch_of(workshop, confidence=0.5, tie=1.0)
    scores = torch.tensor([[1.5, 1.5], [-0.5, -0.5]], dtype=torch.float64)
    monkeypatch.setattr(reward_trainer, "pair_scores", lambda *_: scores)
    model = torch.nn.Module()
    model.reward_head = reward_trainer.RewardHead(4, ties)
    with torch.no_grad():
        found = reward_trainer.validation_loss(model, [first, second], 2, None)
    won, lost = math.log1p(math.exp(-2.0)), math.log1p(math.exp(2.0))
    drawn = math.log(math.e + 1 / math.e + 1) if expected else (won + lost) / 2
    assert found == pytest.approx((0.8 * won + 0.2 * lost + drawn) / 2, abs=1e-12)


def test_members_draw_pairs_of_their_own_unless_they_differ_by_seed_alone(workshop: Workshop) -> None:
    pairs = [batch_of(workshop, id=f"p{number}")[1][0] for number in range(30)]
    rows = PairRows(chat=load_chat(workshop.base.folder, workshop.model), train=pairs, validation=[], counts={})
    drawn = [[pair.id for pair in member_rows(rows, small_config(num_members=2), n).train] for n in range(2)]
    given = [pair.id for pair in pairs]
    assert drawn[0] != drawn[1]
    assert all(len(ids) == 30 and set(ids) < set(given) for ids in drawn)
    for number in range(2):
        config = small_config(num_members=2, bootstrap=False)
        assert [pair.id for pair in member_rows(rows, config, number).train] == given
        assert member_config(config, number).seed == config.seed + 1009 * number


@pytest.mark.slow
def test_shuffled_labels_teach_nothing(tmp_path: Path) -> None:
    """The control of what it learns: retrained with half of the labels turned, it knows hardly more than a coin."""
    train, validation = comparisons(40), comparisons(30, first=300)
    turned = set(np.random.default_rng(3).permutation(40)[:20].tolist())
    shuffled = [
        dataclasses.replace(row, chosen=row.rejected, rejected=row.chosen) if number in turned else row
        for number, row in enumerate(train)
    ]
    losses = {}
    for name, rows in (("true", train), ("shuffled", shuffled)):
        shop = make_workshop(tmp_path / name, {"train": rows, "validation": validation})
        config = small_config(keep_best=False, validate_every=None)
        losses[name] = shop.run(config, name, folds=range(5))[0].metrics["validation_loss_last"]
    # The labels are right with probability 1, 0.9 and 0.7 in turn, so 0.31 nats are the least there is.
    assert losses["true"] < 0.55
    assert losses["shuffled"] > 0.62  # log 2 is a coin


# --- going on and refusing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4, 9])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    workshop: Workshop, whole: tuple[StageOutcome, WorkFolder], step: int
) -> None:
    name = f"crash-{step}"
    run_to_crash(workshop, small_config(), name, step)
    outcome, work = workshop.run(small_config(), name)
    assert same(weights(work), weights(whole[1]))
    assert outcome.parts == whole[0].parts
    assert outcome.metrics == whole[0].metrics
    rows, wanted = (
        [{key: value for key, value in row.items() if key not in TIMING} for row in metric_rows(path)]
        for path in (work.metrics, whole[1].metrics)
    )
    assert rows == wanted


def test_a_checkpoint_without_its_head_is_noticed(workshop: Workshop) -> None:
    """The control of the test above: peft restores adapters alone."""
    folder = run_to_crash(workshop, small_config(), "headless", 5).path / "checkpoints"
    for checkpoint in folder.glob("step-*"):
        (checkpoint / "heads.safetensors").unlink()
    with pytest.raises(CheckpointError):
        workshop.run(small_config(), "headless")


def test_no_pair_left_is_an_error_with_the_counts(workshop: Workshop) -> None:
    with pytest.raises(DataError, match=r"40 comparisons = 0 encoded \+ 40 dropped .*reward.max_length.*reward.folds"):
        workshop.run(small_config(max_length=8), "nothing")
