"""What every engine that samples must do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from ppo_jobs import make_workshop

from pipeline.checks.registry import CheckItem
from pipeline.config.evaluation import SamplingConfig
from pipeline.config.shared import DType, LoRAConfig, RuntimeConfig
from pipeline.data.encode import Chat, load_chat
from pipeline.errors import ModelError
from pipeline.models.generation import Completion
from pipeline.models.loading import add_lora, load_base
from pipeline.models.roles import POLICY, enter_role, role_parameters
from pipeline.ppo.experience import make_microbatches, states_of
from pipeline.ppo.rollout import PromptItem, Rollout, Sampler
from pipeline.ppo.samplers import BatchSampler, ContinuousSampler

PROMPTS = [
    PromptItem(id=str(number), ids=[5 + number, 6, 7, *range(30, 30 + 3 * number)], item=CheckItem(prompt=[]))
    for number in range(5)
]
KEYS = [f"k/{number}" for number in range(5)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[PeftModel, Chat]:
    workshop = make_workshop(tmp_path_factory.mktemp("samplers"))
    base = load_base(workshop.base, workshop.model, RuntimeConfig(), DType.float32)
    policy = add_lora(base, LoRAConfig(rank=4), seed=3).eval()
    return policy, load_chat(Path(workshop.base.folder), workshop.model)


@pytest.fixture(params=["hf", pytest.param("continuous", marks=pytest.mark.integration)])
def sampler(request: pytest.FixtureRequest, made: tuple[PeftModel, Chat]) -> Sampler:
    return {"hf": BatchSampler, "continuous": ContinuousSampler}[request.param](chat=made[1], batch_size=3)


def sample(sampler: Sampler, model: PeftModel, *, seed: int = 0, temperature: float = 1.0, tokens: int = 12) -> Rollout:
    sampling = SamplingConfig(max_new_tokens=tokens, temperature=temperature, seed=seed)
    return Rollout(prompts=PROMPTS, completions=draw(sampler, model, PROMPTS, sampling))


def draw(
    sampler: Sampler, model: PeftModel, prompts: Sequence[PromptItem], sampling: SamplingConfig
) -> list[Completion]:
    with enter_role(model, POLICY):
        return sampler.sample(model, prompts, sampling, KEYS[: len(prompts)])


def test_greedy_completions_are_those_of_the_other_engine_and_in_order(
    sampler: Sampler, made: tuple[PeftModel, Chat]
) -> None:
    model, chat = made
    ours = sample(sampler, model, temperature=0.0)
    one_by_one = BatchSampler(chat=chat, batch_size=1)
    assert [c.ids for c in ours.completions] == [c.ids for c in sample(one_by_one, model, temperature=0.0).completions]


class Broken(torch.nn.Module):
    """Answers two prompts of five, or all and one of them with an error."""

    def __init__(self, outputs: dict[str, SimpleNamespace]) -> None:
        super().__init__()
        self.outputs = outputs

    def generate_batch(self, *_: object, **__: object) -> dict[str, SimpleNamespace]:
        return self.outputs


@pytest.mark.parametrize(("answered", "error", "told"), [(2, None, "2 of 5"), (5, "no memory", "4 of 5.*: no memory")])
def test_completions_that_the_continuous_engine_did_not_make_are_an_error(
    made: tuple[PeftModel, Chat], answered: int, error: str | None, told: str
) -> None:
    outputs = {f"req_{n}": SimpleNamespace(generated_tokens=[5], logprobs=[-1.0], error=None) for n in range(answered)}
    outputs["req_0"].error = error
    engine = ContinuousSampler(chat=made[1], batch_size=3)
    with pytest.raises(ModelError, match=told):
        engine.sample(Broken(outputs), PROMPTS, SamplingConfig(max_new_tokens=4), KEYS)


def test_the_same_keys_and_seed_draw_the_same(sampler: Sampler, made: tuple[PeftModel, Chat]) -> None:
    first, again, other = (sample(sampler, made[0], seed=seed) for seed in (1, 1, 2))
    assert [c.ids for c in first.completions] == [c.ids for c in again.completions]
    assert [c.ids for c in first.completions] != [c.ids for c in other.completions]


def test_finish_reasons_and_stop_tokens(sampler: Sampler, made: tuple[PeftModel, Chat]) -> None:
    model, chat = made
    rollouts = [sample(sampler, model, seed=seed, temperature=3.0, tokens=100) for seed in range(3)]
    completions = [completion for rollout in rollouts for completion in rollout.completions]
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        stops = [place for place, token in enumerate(completion.ids) if token in chat.stop_ids]
        stopped = completion.finish_reason == "stop"
        assert stops == ([len(completion.ids) - 1] if stopped else [])
        assert stopped or len(completion.ids) == 100


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_engines_log_probabilities_are_those_of_the_forward_pass_that_trains(
    sampler: Sampler, made: tuple[PeftModel, Chat], temperature: float
) -> None:
    model = made[0]
    rollout = sample(sampler, model, temperature=temperature)
    for batch in make_microbatches(rollout, range(5), 5, torch.device("cpu")):
        with enter_role(model, POLICY), torch.no_grad():
            ours = states_of(model, batch).logprobs(model, temperature=temperature)
            other = states_of(model, batch).logprobs(model, temperature=1.3)
        assert batch.engine_logprobs is not None
        torch.testing.assert_close(batch.engine_logprobs, ours, atol=1e-4, rtol=0)
        assert (batch.engine_logprobs - other).abs().max() > 1e-2, "at another temperature they would differ"


def test_a_changed_adapter_changes_what_is_sampled_and_nothing_else_changes(
    sampler: Sampler, made: tuple[PeftModel, Chat]
) -> None:
    model = made[0]
    before = sample(sampler, model, temperature=0.0)
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    saved = {name: parameter.clone() for name, parameter in role_parameters(model, POLICY).items()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in role_parameters(model, POLICY).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
        after = sample(sampler, model, temperature=0.0)
        for name, parameter in role_parameters(model, POLICY).items():
            parameter.copy_(saved[name])
    assert [c.ids for c in after.completions] != [c.ids for c in before.completions]
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())
    assert [c.ids for c in sample(sampler, model, temperature=0.0).completions] == [c.ids for c in before.completions]


def test_the_same_prompt_several_times_is_drawn_as_often_and_answered_in_order(
    sampler: Sampler, made: tuple[PeftModel, Chat]
) -> None:
    model = made[0]
    prompts = [PROMPTS[number] for number in (1, 0, 1, 1, 0)]
    drawn, greedy = (
        draw(sampler, model, prompts, SamplingConfig(max_new_tokens=12, temperature=temperature, seed=4))
        for temperature in (1.0, 0.0)
    )
    assert len({tuple(drawn[place].ids) for place in (0, 2, 3)}) == 3, "each has a draw of its own"
    wanted = [completion.ids for completion in sample(sampler, model, temperature=0.0).completions]
    assert [completion.ids for completion in greedy] == [wanted[number] for number in (1, 0, 1, 1, 0)]


@pytest.mark.parametrize("engine", ["hf", pytest.param("continuous", marks=pytest.mark.integration)])
@pytest.mark.parametrize(("short_by", "reason"), [(0, "stop"), (1, "length")])
def test_a_stop_token_at_the_very_last_place_is_an_end(
    made: tuple[PeftModel, Chat], engine: str, short_by: int, reason: str
) -> None:
    """Greedy, with the fourth token of the answer as the one that stops it."""
    model, chat = made
    greedy = SamplingConfig(max_new_tokens=4, temperature=0.0)
    [plain] = draw(BatchSampler(chat=chat, batch_size=1), model, PROMPTS[:1], greedy)
    place = next(place for place in (3, 2, 1) if plain.ids[place] not in plain.ids[:place])
    stopping = replace(chat, stop_ids=(plain.ids[place],))
    made_of = BatchSampler if engine == "hf" else ContinuousSampler
    [found] = draw(
        made_of(chat=stopping, batch_size=1), model, PROMPTS[:1], replace(greedy, max_new_tokens=place + 1 - short_by)
    )
    assert found.ids == plain.ids[: place + 1 - short_by]
    assert found.finish_reason == reason
    assert found.logprobs is not None
    assert len(found.logprobs) == len(found.ids)


DEFAULTS = {
    "repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "min_new_tokens": 12, "min_p": 0.5, "top_k": 1,
    "temperature": 9.0,
}  # fmt: skip


@pytest.mark.parametrize("key", [*DEFAULTS, "suppress_tokens"])
def test_nothing_comes_from_the_models_own_generation_settings(
    sampler: Sampler, made: tuple[PeftModel, Chat], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made[0]
    before = [sample(sampler, model, temperature=temperature) for temperature in (0.0, 1.0)]
    value = DEFAULTS.get(key, [before[0].completions[0].ids[0]])
    monkeypatch.setattr(model.get_base_model().generation_config, key, value)
    after = [sample(sampler, model, temperature=temperature) for temperature in (0.0, 1.0)]
    for ours, wanted in zip(after, before, strict=True):
        assert [c.ids for c in ours.completions] == [c.ids for c in wanted.completions]
        assert [c.logprobs for c in ours.completions] == [c.logprobs for c in wanted.completions]
