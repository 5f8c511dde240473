"""Labelled completions as tokens: what is kept, and which unrelated completion stands beside each."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import make_tiny_model

from pipeline.config.shared import ModelConfig
from pipeline.data.encode import Chat, load_chat
from pipeline.data.rows import Comparison, Message, Unpaired
from pipeline.data.thumbs import LabelledRow, encode_thumbs, with_mismatched

ALL = [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return load_chat(make_tiny_model(tmp_path_factory.mktemp("model")), ModelConfig())


def said(role: str, text: str) -> list[Message]:
    return [Message(role=role, content=text)]


def thumb(name: str, ask: str, reply: str, label: bool = True, confidence: float = 1.0) -> Unpaired:
    return Unpaired(
        id=name, source="test", licence=None, prompt=said("user", ask), completion=said("assistant", reply),
        label=label, confidence=confidence, num_votes=1,
    )  # fmt: skip


def pair(name: str, ask: str, **more: Any) -> Comparison:
    values: dict[str, Any] = {"confidence": 0.8, "num_votes": 1, "fold": 0, **more}
    return Comparison(
        id=name, source="test", licence=None, prompt=said("user", ask), chosen=said("assistant", "Yes."),
        rejected=said("assistant", "No."), **values,
    )  # fmt: skip


def rows(chat: Chat, *unpaired: Unpaired, pairs: tuple[Comparison, ...] = (), **more: Any) -> list[LabelledRow]:
    return encode_thumbs(unpaired, pairs, chat, **{"max_length": 64, "folds": ALL, **more}).rows


def test_a_comparison_is_a_good_and_a_bad_completion(chat: Chat) -> None:
    found = encode_thumbs([], [pair("p", "Is it?")], chat, max_length=64, folds=ALL)
    assert [(row.id, row.label, row.confidence) for row in found.rows] == [
        ("p/chosen", True, 0.8), ("p/rejected", False, 0.8),
    ]  # fmt: skip
    texts = [chat.tokenizer.decode([t for t, m in zip(row.own.input_ids, row.own.completion_mask, strict=True) if m])
             for row in found.rows]  # fmt: skip
    assert [text.startswith(reply) for text, reply in zip(texts, ("Yes.", "No."), strict=True)] == [True, True]


def test_what_is_dropped_is_counted(chat: Chat) -> None:
    given = [thumb("short", "Is it?", "Yes."), thumb("long", "Is it?", "Yes. " * 40, label=False)]
    pairs = [pair("kept", "Was it?"), pair("even", "Was it?", confidence=0.5), pair("other", "Was it?", fold=3)]
    counts = encode_thumbs(given, pairs, chat, max_length=40, folds=[0]).counts
    assert counts.given == 8 == counts.good + counts.bad + sum(counts.dropped.values())
    assert (counts.good, counts.bad, counts.from_comparisons) == (2, 1, 6)
    assert counts.dropped == {"overlength": 1, "undecided": 2, "other_fold": 2}
    assert "8 labelled completions (6 of them sides of comparisons) = 2 good + 1 bad + 5 dropped" in str(counts)


def test_an_unrelated_completion_answers_another_prompt(chat: Chat) -> None:
    """Also for the sides of comparisons, whose neighbour in the table answers the very same prompt."""
    pairs = tuple(pair(f"p{n}", f"Is it number {n}?") for n in range(6))
    own = rows(chat, *(thumb(f"t{n}", f"Is it number {n % 3}?", f"Reply {n}.") for n in range(9)), pairs=pairs)
    found = with_mismatched(own, [], 64)
    replies = {tuple(row.own.input_ids[len(row.own.prompt_ids) :]): set[str]() for row in own}
    for row in own:
        replies[tuple(row.own.input_ids[len(row.own.prompt_ids) :])].add(row.cluster)
    for row, made in zip(own, found, strict=True):
        prompt = len(row.own.prompt_ids)
        assert (made.id, made.own, made.label) == (row.id, row.own, row.label)
        assert made.mismatched.input_ids[:prompt] == row.own.prompt_ids
        assert not any(made.mismatched.completion_mask[:prompt])
        assert replies[tuple(made.mismatched.input_ids[prompt:])] - {row.cluster}


def test_the_partner_depends_on_the_rows_and_not_on_their_order(chat: Chat) -> None:
    own = rows(chat, *(thumb(f"t{n}", f"Is it number {n}?", f"Reply {n}.") for n in range(8)))
    forwards = {made.id: made.mismatched for made in with_mismatched(own, [], 64)}
    backwards = {made.id: made.mismatched for made in with_mismatched(own[::-1], [], 64)}
    assert forwards == backwards
    assert len({tuple(made.input_ids[-4:]) for made in forwards.values()}) > 1


def test_a_few_rows_of_one_prompt_take_what_is_unrelated_from_elsewhere(chat: Chat) -> None:
    alone = rows(chat, thumb("a", "Is it?", "Yes."), thumb("b", "Is it?", "No.", label=False))
    assert with_mismatched(alone, [], 64) == []
    elsewhere = rows(chat, thumb("c", "Who is it?", "Nobody."))
    found = with_mismatched(alone, elsewhere, 64)
    end = elsewhere[0].own.input_ids[len(elsewhere[0].own.prompt_ids) :]
    assert [made.mismatched.input_ids[len(made.own.prompt_ids) :] for made in found] == [end, end]


def test_an_unrelated_completion_is_cut_to_the_limit(chat: Chat) -> None:
    own = rows(
        chat,
        thumb("a", "Is it?", "Yes."),
        thumb("b", "Who?", "Nobody that you know. " * 4, label=False),
        max_length=200,
    )
    limit = len(own[0].own.prompt_ids) + 5
    found = with_mismatched(own, [], limit)[0].mismatched
    assert (len(found.input_ids), found.num_supervised, found.truncated) == (limit, 5, True)
