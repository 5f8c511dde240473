from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import make_architecture
from tiny import make_tiny_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from pipeline.config.evaluation import SamplingConfig
from pipeline.config.shared import LoRAConfig, ModelConfig
from pipeline.data.encode import Chat, Encoded, encode_prompt, load_chat
from pipeline.data.rows import Message
from pipeline.models.generation import Completion, _num_shared, generate
from pipeline.models.loading import add_lora
from pipeline.models.scoring import score

QUESTIONS = ["Hello?", "How long does delivery take for two orders?", "a", "Reset the password now, please", "refund"]
GREEDY = SamplingConfig(max_new_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def chat(folder: Path) -> Chat:
    return load_chat(folder, ModelConfig(id="tiny"))


@pytest.fixture(scope="module")
def prompts(chat: Chat) -> list[list[int]]:
    return [encode_prompt([Message(role="user", content=text)], chat) for text in QUESTIONS]


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").requires_grad_(False).eval()


@pytest.fixture(scope="module")
def model(folder: Path) -> PreTrainedModel:
    """A model that stops now and then: the end-of-turn token is made likelier by its embedding."""
    model = load(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[2] *= 2.5
    return model


def by_definition(model: torch.nn.Module, prompt: list[int], length: int, stop_ids: tuple[int, ...]) -> list[int]:
    """Greedy decoding with no cache, no padding and no batch."""
    ids = list(prompt)
    for _ in range(length):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in stop_ids:
            break
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def one_row_at_a_time(model: PreTrainedModel, chat: Chat, prompts: list[list[int]]) -> list[list[int]]:
    return [by_definition(model, prompt, 12, chat.stop_ids) for prompt in prompts]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16])
def test_greedy_tokens_are_those_of_one_row_at_a_time(
    model: PreTrainedModel,
    chat: Chat,
    prompts: list[list[int]],
    one_row_at_a_time: list[list[int]],
    batch_size: int,
) -> None:
    drawn = generate(model, chat, prompts, GREEDY, batch_size)
    assert [one.ids for one in drawn] == one_row_at_a_time
    assert {one.finish_reason for one in drawn} == {"stop", "length"}, "rows must end differently to test anything"


# A convolution or a recurrence in every other layer, and both beside attention in each.
@pytest.mark.parametrize("kind", ["lfm2", "qwen3_next", "falcon_h1"])
def test_what_a_layer_remembers_of_a_row_stays_with_it(kind: str, chat: Chat, prompts: list[list[int]]) -> None:
    model, ends = make_architecture(kind), replace(chat, stop_ids=tuple(range(2, 512, 10)))
    greedy = [one.ids for one in generate(model, ends, prompts, GREEDY, 5)]
    assert greedy == [by_definition(model, prompt, 12, ends.stop_ids) for prompt in prompts]
    sampling = SamplingConfig(max_new_tokens=12, temperature=1.0, seed=4)
    together, alone = ([one.ids for one in generate(model, ends, prompts, sampling, size)] for size in (5, 1))
    assert together == alone
    assert len(set(map(len, together))) > 2, "rows must leave at different steps to test anything"
    assert len(set(map(tuple, together))) == len(prompts), "rows that are alike could change places unseen"


def test_generation_ends_at_each_token_that_the_model_declares(
    folder: Path, model: PreTrainedModel, chat: Chat, prompts: list[list[int]], tmp_path: Path
) -> None:
    plain = [one.ids for one in generate(model, chat, prompts, GREEDY, 5)]
    ends = {plain[0][2], plain[1][4]}
    declaring = Path(shutil.copytree(folder, tmp_path / "declaring"))
    (declaring / "generation_config.json").write_text(json.dumps({"eos_token_id": sorted(ends)}))
    drawn = [one.ids for one in generate(model, load_chat(declaring, ModelConfig(id="tiny")), prompts, GREEDY, 5)]
    places = [[place for place, token in enumerate(ids) if token in ends] for ids in plain]
    assert drawn == [ids[: found[0] + 1] if found else ids for ids, found in zip(plain, places, strict=True)]
    assert ends <= {ids[-1] for ids in drawn}


def test_an_adapter_takes_part(folder: Path, chat: Chat, prompts: list[list[int]]) -> None:
    policy = add_lora(load(folder), LoRAConfig(rank=4), seed=0)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    policy.eval()
    drawn = [one.ids for one in generate(policy, chat, prompts, GREEDY, 4)]
    assert drawn == [by_definition(policy, prompt, 12, chat.stop_ids) for prompt in prompts]
    assert drawn != [one.ids for one in generate(load(folder), chat, prompts, GREEDY, 4)]


def test_a_completion_ends_with_its_stop_token_and_its_text_without(
    model: PreTrainedModel, chat: Chat, prompts: list[list[int]]
) -> None:
    for one in generate(model, chat, prompts, GREEDY, 3):
        stopped = one.ids[-1] in chat.stop_ids
        assert one.finish_reason == ("stop" if stopped else "length")
        assert one.num_tokens == len(one.ids) <= 12
        assert one.num_tokens == 12 or stopped
        assert not any(token in chat.stop_ids for token in one.ids[:-1])
        assert "<|im_end|>" not in one.text
        kept = one.ids[:-1] if stopped else one.ids
        assert one.text == chat.tokenizer.decode(kept, skip_special_tokens=True)


def test_what_is_drawn_does_not_depend_on_the_batch(
    model: PreTrainedModel, chat: Chat, prompts: list[list[int]]
) -> None:
    sampling = SamplingConfig(max_new_tokens=12, temperature=1.0, seed=4)
    together = generate(model, chat, prompts, sampling, 5)
    alone = generate(model, chat, prompts, sampling, 1)
    assert [one.ids for one in together] == [one.ids for one in alone]
    keys = [f"item-{number}" for number in range(len(prompts))]
    named = generate(model, chat, prompts, sampling, 2, keys)
    backwards = generate(model, chat, prompts[::-1], sampling, 2, keys[::-1])
    assert [one.ids for one in named] == [one.ids for one in backwards[::-1]]
    other = SamplingConfig(max_new_tokens=12, temperature=1.0, seed=5)
    assert [one.ids for one in generate(model, chat, prompts, other, 5)] != [one.ids for one in together]


def first_tokens(model: PreTrainedModel, chat: Chat, prompt: list[int], count: int, **options: float) -> Counter[int]:
    sampling = SamplingConfig(max_new_tokens=1, seed=0, **options)  # type: ignore[arg-type]
    return Counter(one.ids[0] for one in generate(model, chat, [prompt] * count, sampling, 500))


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1.0}, {"temperature": 0.6}, {"temperature": 1.0, "top_k": 3}, {"temperature": 0.9, "top_p": 0.3}],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(
    model: PreTrainedModel, chat: Chat, prompts: list[list[int]], options: dict[str, float]
) -> None:
    count = 2000
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompts[0]])).logits[0, -1].double()
    likely = (logits / options["temperature"]).softmax(dim=-1)
    ranked = likely.argsort(descending=True).tolist()
    if "top_k" in options:
        allowed = ranked[:3]
    elif "top_p" in options:
        allowed, mass = [], 0.0
        while mass < options["top_p"]:
            allowed.append(ranked[len(allowed)])
            mass += likely[allowed[-1]].item()
    else:
        allowed = ranked
    total = sum(likely[token].item() for token in allowed)
    drawn = first_tokens(model, chat, prompts[0], count, **options)
    assert set(drawn) <= set(allowed)
    for token in allowed[:5]:
        expected = likely[token].item() / total
        assert abs(drawn[token] / count - expected) < 4 * (expected * (1 - expected) / count) ** 0.5 + 1e-9


def test_the_defaults_of_a_model_do_not_leak_in(folder: Path, chat: Chat, prompts: list[list[int]]) -> None:
    model = load(folder)
    expected = generate(model, chat, prompts, GREEDY, 4)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.min_new_tokens = 12
    assert generate(model, chat, prompts, GREEDY, 4) == expected


def test_no_prompts_give_no_completions(model: PreTrainedModel, chat: Chat) -> None:
    assert generate(model, chat, [], GREEDY, 4) == []


def test_scores_are_sums_by_row_in_the_order_given(
    model: PreTrainedModel, chat: Chat, prompts: list[list[int]]
) -> None:
    drawn: list[Completion] = generate(model, chat, prompts, GREEDY, 4)
    rows = [
        Encoded(
            id=str(number),
            input_ids=prompt + one.ids,
            completion_mask=[False] * len(prompt) + [True] * one.num_tokens,
        )
        for number, (prompt, one) in enumerate(zip(prompts, drawn, strict=True))
    ]
    expected = []
    for row in rows:
        with torch.no_grad():
            logprobs = model(input_ids=torch.tensor([row.input_ids])).logits[0].double().log_softmax(dim=-1)
        places = [place for place, learn in enumerate(row.completion_mask) if learn]
        expected.append(sum(logprobs[place - 1, row.input_ids[place]].item() for place in places))
    for batch_size in (1, 2, 8):
        scores = score(model, rows, batch_size)
        assert [one.tokens for one in scores] == [one.num_tokens for one in drawn]
        assert [one.nats for one in scores] == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 1.0, "rows with like scores could change places unseen"


SYSTEM = "You are a support agent. Answer in one short paragraph. Open the settings page, choose Security."


@pytest.fixture(scope="module")
def alike(model: PreTrainedModel, chat: Chat) -> dict[str, list[list[int]]]:
    """Prompts that begin alike, and what follows one row at a time."""
    turns = [[Message(role="system", content=SYSTEM), Message(role="user", content=text)] for text in QUESTIONS]
    prompts = [encode_prompt(messages, chat) for messages in turns]
    return {"prompts": prompts, "ids": [by_definition(model, prompt, 12, chat.stop_ids) for prompt in prompts]}


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_beginning_that_all_prompts_share_is_read_once_and_changes_nothing(
    model: PreTrainedModel, chat: Chat, alike: dict[str, list[list[int]]], batch_size: int
) -> None:
    prompts = alike["prompts"]
    assert _num_shared(prompts) > 20
    assert _num_shared([*prompts, [1, 2, 3]]) == 0
    assert [one.ids for one in generate(model, chat, prompts, GREEDY, batch_size)] == alike["ids"]


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}, {"temperature": 1.0, "top_k": 4}])
def test_log_probabilities_are_those_of_the_distribution_that_was_drawn_from(
    model: PreTrainedModel, chat: Chat, prompts: list[list[int]], options: dict[str, float]
) -> None:
    sampling = SamplingConfig(max_new_tokens=6, **options)  # type: ignore[arg-type]
    for prompt, one in zip(prompts, generate(model, chat, prompts, sampling, 3, with_logprobs=True), strict=True):
        assert one.logprobs is not None
        assert len(one.logprobs) == one.num_tokens
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + one.ids])).logits[0, len(prompt) - 1 : -1].double()
        logits = logits / (sampling.temperature or 1.0)
        if sampling.top_k:
            logits[logits < logits.topk(4, dim=-1).values[:, -1:]] = -torch.inf
        expected = logits.log_softmax(dim=-1).gather(1, torch.tensor(one.ids)[:, None])[:, 0]
        assert one.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
    assert generate(model, chat, prompts[:1], sampling, 1)[0].logprobs is None


def test_every_prompt_is_reported_finished_once(model: PreTrainedModel, chat: Chat, prompts: list[list[int]]) -> None:
    finished: list[int] = []
    generate(model, chat, prompts, GREEDY, 2, on_step=finished.extend)
    assert sorted(finished) == list(range(len(prompts)))
