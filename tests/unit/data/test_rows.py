"""Every rule about turns and text, with the reason code of its violation."""

from __future__ import annotations

import random
import unicodedata
from typing import Any

import pytest

from pipeline.data.rows import (
    BadRowError,
    Demonstration,
    Prompt,
    check_conversation,
    check_id,
    check_prompt,
    content_key,
    normalise,
    prompt_hash,
    prompt_key,
    split_demonstration,
)


def turn(role: Any, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


USER, REPLY = turn("user", "Hi"), turn("assistant", "Hello")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ("Hi", "E_SCHEMA"),  # text where a list belongs
        ([], "E_ROLE"),  # no turns at all
        (["Hi"], "E_SCHEMA"),  # a turn that is no object
        ([{"role": "user"}], "E_SCHEMA"),  # no content
        ([{"content": "Hi"}], "E_SCHEMA"),  # no role
        ([turn("user", None)], "E_SCHEMA"),
        ([turn("user", 5)], "E_SCHEMA"),  # a number is not text
        ([turn("user", True)], "E_SCHEMA"),
        ([turn("user", [{"type": "text", "text": "Hi"}])], "E_SCHEMA"),  # typed parts
        ([turn("moderator", "Hi")], "E_ROLE"),
        ([USER, turn("tool", "3")], "E_ROLE"),
        ([REPLY, USER], "E_ROLE"),  # a reply to nothing
        ([USER, USER, REPLY], "E_ROLE"),
        ([USER, REPLY, REPLY], "E_ROLE"),
        ([USER, turn("system", "Be brief."), REPLY], "E_ROLE"),
        ([turn("system", "a"), turn("system", "b"), USER], "E_ROLE"),
        ([turn("user", ""), REPLY], "E_EMPTY"),
        ([turn("user", " \t\n"), REPLY], "E_EMPTY"),
        ([turn("user", "\u200b\u2060\ufeff"), REPLY], "E_EMPTY"),  # zero-width only
        ([USER, turn("assistant", "\u00a0")], "E_EMPTY"),  # a no-break space
        ([turn("user", "a\ud800b"), REPLY], "E_ENCODING"),  # half of a surrogate pair
        ([turn("user", "a\x00b"), REPLY], "E_ENCODING"),
        ([USER, turn("assistant", "Hi", tool_calls=[{"name": "f"}])], "E_SCHEMA"),
        ([USER, turn("assistant", "Hi", weight=0)], "E_SCHEMA"),  # asks for no training on this reply
    ],
)
def test_a_broken_conversation_is_refused_with_its_reason(turns: Any, reason: str) -> None:
    with pytest.raises(BadRowError) as caught:
        check_conversation(turns)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "turns",
    [
        [USER],
        [USER, REPLY],
        [turn("system", ""), USER, REPLY],  # an empty system turn keeps a template from adding its own
        [USER, REPLY, USER, REPLY],
        [USER, turn("assistant", "Hi", tool_calls=None, name="bot", weight=1)],  # nothing in them changes the meaning
        [turn("user", "\u2028<b>日本</b> \U0001f642"), REPLY],
    ],
)
def test_a_sound_conversation_keeps_its_text_to_the_character(turns: Any) -> None:
    expected = [{"role": item["role"], "content": item["content"]} for item in turns]
    assert check_conversation(turns) == expected


def test_the_first_reply_parts_prompt_and_completion() -> None:
    system = turn("system", "Be brief.")
    prompt, completion = split_demonstration([system, USER, REPLY, USER, REPLY])
    assert prompt == [system, USER]
    assert completion == [REPLY, USER, REPLY]


def test_a_conversation_without_a_last_reply_is_no_demonstration_but_a_prompt() -> None:
    with pytest.raises(BadRowError, match="no reply to learn"):
        split_demonstration([USER, REPLY, USER])
    assert check_prompt([USER, REPLY, USER]) == [USER, REPLY, USER]
    with pytest.raises(BadRowError, match="not of user"):
        check_prompt([USER, REPLY])


@pytest.mark.parametrize(
    ("given", "expected"),
    [("007", "007"), ("None", "None"), (2**63, "9223372036854775808"), ("../../etc/x", "../../etc/x"), ("🙂", "🙂")],
)
def test_ids_are_names_and_lose_nothing(given: Any, expected: str) -> None:
    assert check_id(given) == expected


@pytest.mark.parametrize("given", [1.5, True, [], "", "  ", "a\nb", "x" * 201])
def test_what_cannot_name_a_row_is_refused(given: Any) -> None:
    with pytest.raises(BadRowError) as caught:
        check_id(given)
    assert caught.value.reason == "E_ID"


def test_a_null_in_an_id_is_an_encoding_fault() -> None:
    with pytest.raises(BadRowError) as caught:
        check_id("a\x00b")
    assert caught.value.reason == "E_ENCODING"


def test_prompts_that_differ_only_in_form_have_one_key() -> None:
    composed, decomposed = "Caf\u00e9  au\nlait", "Cafe\u0301 au lait "
    assert composed != decomposed
    assert prompt_key([turn("user", composed)]) == prompt_key([turn("user", decomposed)]) == "Caf\u00e9 au lait"
    with_system = [turn("system", "Be brief."), turn("user", composed)]
    assert prompt_key(with_system) == "Caf\u00e9 au lait"
    assert prompt_key([turn("user", "cafe au lait")]) != prompt_key([turn("user", composed)])


def test_every_white_space_is_one_space_and_accents_are_composed() -> None:
    signs = [*"ab", *" \n\t\r\x0b\x1c\x85\xa0\u1680\u2009\u2028\u3000", *"\u200b\u0301é\x7f"]
    chance = random.Random(3)
    texts = ["".join(chance.choices(signs[: chance.randrange(1, len(signs) + 1)], k=9)) for _ in range(3000)]
    for text in ["", " ", "\n", "a  b   c", *texts]:
        assert normalise(text) == " ".join(unicodedata.normalize("NFC", text).split())
    assert normalise("a\u0301\n\n b ") == "á b" != normalise("a b")


def test_the_split_hash_is_sha256_of_seed_and_key() -> None:
    # printf '3\nHi' | sha256sum
    assert prompt_hash([USER], 3) == "d0c3754610e8c9aee4cbbb8f9cfbfdea36bb62a54f94a7532dfb9de0fba359b3"
    assert prompt_hash([USER], 4) != prompt_hash([USER], 3)


def row(prompt: str, completion: str, **more: Any) -> Demonstration:
    values: dict[str, Any] = {"id": "a", "source": "s", "licence": None, **more}
    return Demonstration(prompt=[turn("user", prompt)], completion=[turn("assistant", completion)], **values)  # type: ignore[list-item]


def test_exact_duplicates_differ_in_id_and_origin_only() -> None:
    one = content_key(row("Why?", "So."))
    assert content_key(row("Why? ", "So.", id="b", source="t", licence="MIT", topic="x")) == one
    assert content_key(row("Why?", "So!")) != one
    assert content_key(row("Why?", "So.", reference="7")) != one
    # Text that moves over the boundary of a turn is other content.
    assert content_key(row("Why? So.", "x")) != content_key(row("Why?", "So. x"))
    prompt = Prompt(id="a", source="s", licence=None, prompt=[turn("user", "Why?")])  # type: ignore[list-item]
    assert content_key(prompt) != one
