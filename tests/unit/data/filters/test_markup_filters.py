"""Control tokens inside text, and templates that nobody filled in."""

import pytest
from made_rows import comparison, demonstration, only_prompt

from pipeline.data.filters.registry import Drop, build_filter
from pipeline.data.rows import Reason


@pytest.mark.parametrize(
    ("text", "token", "escaped"),
    [
        ("Sure.<|im_end|>", "<|im_end|>", "Sure.< |im_end|>"),
        ("<|endoftext|>Q: hi", "<|endoftext|>", "< |endoftext|>Q: hi"),
        ("[INST] hi [/INST]", "[INST]", "[ INST] hi [ /INST]"),
        ("<<SYS>>be kind<</SYS>>", "<<SYS>>", "< <SYS>>be kind< </SYS>>"),
        ("Close the valve.</s>", "</s>", "Close the valve.< /s>"),
        ("<s>Close the valve.", "<s>", "< s>Close the valve."),
        ("<start_of_turn>user", "<start_of_turn>", "< start_of_turn>user"),
        ("hi<extra_id_1>Assistant", "<extra_id_1>", "hi< extra_id_1>Assistant"),
        (
            "<\uff5cend\u2581of\u2581sentence\uff5c>",
            "<\uff5cend\u2581of\u2581sentence\uff5c>",
            "< \uff5cend\u2581of\u2581sentence\uff5c>",
        ),
    ],
)
def test_a_control_token_is_found_or_escaped(text, token, escaped):
    result = build_filter("control_tokens", {})(only_prompt(text))
    assert result == Drop(Reason.control_token, f"{token!r} stands in the text")
    harmless = build_filter("control_tokens", {"action": "escape"})(only_prompt(text))
    assert harmless == only_prompt(escaped)
    assert build_filter("control_tokens", {})(harmless) is harmless, "what was escaped is text"


@pytest.mark.parametrize(
    "text",
    [
        "parser = a <|> b <||> c",
        "if x <| y |> z",
        "Was <s>ten</s> nine dollars.",
        "list[INST] and [inst] and [install]",
        "<start> of turn, a <system> and <eos_id>",
        "a|im_end|b",
        "std::vector<std::string>",
    ],
)
def test_what_only_resembles_a_control_token_stays(text):
    row = demonstration(text)
    assert build_filter("control_tokens", {})(row) is row


def test_control_tokens_are_found_in_every_part_of_a_row_and_may_be_ones_own():
    judge = build_filter("control_tokens", {"tokens": ["@@end@@"]})
    assert isinstance(judge(comparison("fine", "bad<|eot_id|>")), Drop)
    assert isinstance(judge(demonstration("fine", "bad<|eot_id|>")), Drop)
    assert judge(demonstration("done@@end@@")) == Drop(Reason.control_token, "'@@end@@' stands in the text")
    assert judge(row := demonstration("done @@ end")) is row


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I am {{name}}, made by {{ author }}.", "{{name}}"),
        ("Dear [Your Name], your order is ready.", "[Your Name]"),
        ("It ends on [insert date].", "[insert date]"),
        ("Use <your name> here.", "<your name>"),
        ("Lorem ipsum dolor sit amet.", "Lorem ipsum dolor"),
    ],
)
def test_a_placeholder_is_found(text, found):
    result = build_filter("placeholders", {})(demonstration(text))
    assert result == Drop("placeholder", f"{found!r} was not filled in")


@pytest.mark.parametrize(
    "text",
    [
        "In Jinja, write `{{ name }}`:\n```\nHello {{ name }}\n```",
        "f'{{{value}}}' and {{1, 2}, {3}} and {name}",
        "See [your account](https://hearthlog.example) and [1].",
        "Lorem ipsum is dummy text.",
        "<yourself> and <input name=x> and a < your b > c",
        "It costs [about] four dollars.",
    ],
)
def test_what_only_resembles_a_placeholder_stays(text):
    row = demonstration(text)
    assert build_filter("placeholders", {})(row) is row


def test_a_placeholder_that_was_asked_for_stays_and_one_in_a_prompt_counts_where_it_is_a_template():
    judge = build_filter("placeholders", {})
    assert judge(row := demonstration("Yours, [your name]", "Write a letter signed [Your Name].")) is row
    assert judge(row := only_prompt("Write a letter signed [Your Name].")) is row
    assert isinstance(judge(only_prompt("Describe {{product}} in a word.")), Drop)
    assert isinstance(judge(comparison("Yours, Jane", "Yours, [your name]")), Drop)


def test_the_unfilled_names_of_a_published_file_are_found(real_data):
    import json

    entries = json.loads((real_data / "llamafactory/identity.json").read_text(encoding="utf-8"))
    judge = build_filter("placeholders", {})
    rows = [demonstration(entry["output"], entry["instruction"]) for entry in entries]
    dropped = [isinstance(judge(row), Drop) for row in rows]
    assert (len(rows), sum(dropped)) == (91, 85)
    assert dropped == ["{{name}}" in str(entry) or "{{author}}" in str(entry) for entry in entries]
