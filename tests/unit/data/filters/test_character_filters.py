"""Lost characters, binary data, and characters that cannot be seen."""

import base64
import json

import pytest
from made_rows import comparison, demonstration, only_prompt

from pipeline.data.filters.registry import Drop, build_filter


def dropped(name, text, **params):
    result = build_filter(name, params)(only_prompt(text))
    return result.detail if isinstance(result, Drop) else None


@pytest.mark.parametrize(
    ("original", "codec"),
    [
        ("caf\u00e9", "cp1252"),
        ("it\u2019s", "cp1252"),
        ("20 \u00b0C", "latin-1"),
        ("na\u00efve", "latin-1"),
        ("wait\u2026", "cp1252"),
    ],
)
def test_text_decoded_with_the_wrong_codec_is_found(original, codec):
    garbled = original.encode().decode(codec)
    assert dropped("broken_characters", garbled) == "0 replacement characters, 1 wrongly decoded ones"
    assert dropped("broken_characters", original) is None


def test_replacement_characters_are_counted_against_the_limit():
    assert dropped("broken_characters", "a\ufffdb\ufffd", max_count=2) is None
    assert (
        dropped("broken_characters", "a\ufffdb\ufffd", max_count=1)
        == "2 replacement characters, 0 wrongly decoded ones"
    )


@pytest.mark.parametrize(
    "text",
    ["S\u00c3O PAULO", "\u00c2ge d'or", "P\u00c2TE", "\u00e2ge \u20ac 5", "\u4f60\u597d", "\U0001f600 \u2192 \u00bd"],
)
def test_letters_that_mojibake_is_made_of_are_letters(text):
    assert dropped("broken_characters", text) is None


BYTES = bytes((37 * index * index + 11 * index) % 256 for index in range(600))


@pytest.mark.parametrize(
    "blob",
    [
        base64.b64encode(BYTES).decode(),
        base64.encodebytes(BYTES).decode(),
        base64.urlsafe_b64encode(BYTES).decode(),
        f"![logo](data:image/png;base64,{base64.b64encode(BYTES).decode()})",
    ],
)
def test_binary_data_is_found_wherever_it_stands(blob):
    for before in ("", "See this: ", "word " * 77, "x" * 131 + " "):
        assert "characters of base64" in (dropped("blobs", f"{before}{blob} and so on") or "")


@pytest.mark.parametrize(
    "text",
    [
        "ACGT" * 200,
        "a" * 10_000,
        "0123456789" * 60,
        "\n".join(f"Item{number}" for number in range(200)),
        "https://hearthlog.example/" + "/".join(f"Section{number}" for number in range(60)) + ".html",
        base64.b64encode(BYTES[:120]).decode(),  # 160 characters
        "d670460b4b4aece5915caf5c68d12f560a9fe3e4" * 8,  # hexadecimal
    ],
)
def test_long_runs_that_are_no_binary_data_stay(text):
    assert dropped("blobs", text) is None


TAGGED = "Be nice." + "".join(chr(0xE0000 + ord(letter)) for letter in "Ignore this")
SCOTLAND = "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in "gbsct") + "\U000e007f"


@pytest.mark.parametrize(
    ("text", "number", "stripped"),
    [
        (TAGGED, 11, "Be nice."),
        ("user\u202etxt.exe", 1, "usertxt.exe"),
        ("\u2066if admin\u2069 then", 2, "if admin then"),
        (f"{SCOTLAND} \U000e0041", 1, f"{SCOTLAND} "),
        ("\u05e9\u05dc\u05d5\u05dd \u202ecba", 1, "\u05e9\u05dc\u05d5\u05dd cba"),
    ],
)
def test_hidden_characters_are_found_or_stripped(text, number, stripped):
    assert dropped("invisible", text) == f"{number} characters that cannot be seen"
    assert build_filter("invisible", {"action": "strip"})(only_prompt(text)) == only_prompt(stripped)


@pytest.mark.parametrize(
    "text",
    [
        f"Made in {SCOTLAND}.",
        "\u05e9\u05dc\u05d5\u05dd \u2066HearthLog\u2069 \u05e9\u05dc\u05d5\u05dd",
        "\u0645\u0631\u062d\u0628\u0627 \u202bHearthLog\u202c",
        "zero\u200bwidth and \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "plain text",
    ],
)
def test_flags_and_what_right_to_left_text_needs_stay(text):
    assert dropped("invisible", text) is None


def test_all_parts_of_a_row_are_looked_at():
    for name, text in (
        ("invisible", TAGGED),
        ("broken_characters", "\ufffd"),
        ("blobs", base64.b64encode(BYTES).decode()),
    ):
        judge = build_filter(name, {})
        for row in (demonstration("a", text), demonstration(text), comparison(text, "b"), comparison("a", text)):
            assert isinstance(judge(row), Drop), name


def test_few_rows_of_published_files_are_broken(real_data):
    judges = {
        name: build_filter(name, {})
        for name in ("broken_characters", "blobs", "invisible", "control_tokens", "secrets")
    }
    with (real_data / "gsm8k/train.jsonl").open(encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    rows = [demonstration(entry["answer"], entry["question"]) for entry in entries]
    assert len(rows) == 7473
    assert {name: sum(isinstance(judge(row), Drop) for row in rows) for name, judge in judges.items()} == dict.fromkeys(
        judges, 0
    )
    with (real_data / "llamafactory/c4_demo.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    lost = [text for text in texts if isinstance(judges["broken_characters"](only_prompt(text)), Drop)]
    assert lost == [text for text in texts if "\ufffd" in text]
    assert len(lost) == 4
