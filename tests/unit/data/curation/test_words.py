"""Words as numbers, runs of words and their similarity, against sets of plain strings."""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata

import numpy as np
import pytest

from pipeline.data.curation.minhash import Banding, MinHash
from pipeline.data.curation.near import bucket_pairs, group_rows
from pipeline.data.curation.words import Ragged, grams, number_words, runs, similarities


def numbers(text: str) -> list[int]:
    return number_words([text])[0].tolist()


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Hello,   WORLD", "hello world!"),
        ("“Straße”", "STRASSE"),  # case folding, not lower case
        ("ﬁne\u00a0print", "fine print"),  # compatibility forms
        ("7+5", "7 + 5"),
        ("日本語", "日 本、語"),
        ("café (naïve)", "CAFÉ naïve…"),
    ],
)
def test_case_punctuation_and_white_space_say_nothing(text: str, same: str) -> None:
    assert numbers(text) == numbers(same)


@pytest.mark.parametrize(("text", "other"), [("7 + 5", "7 - 5"), ("ab c", "a bc"), ("???", "!!"), ("日本", "本日")])
def test_what_differs_has_other_numbers(text: str, other: str) -> None:
    assert numbers(text) != numbers(other)


def test_words_are_counted_text_by_text() -> None:
    words, lengths = number_words(["one two", "", "three", "?", "five + six"])
    assert lengths.tolist() == [2, 1, 1, 1, 3]  # what has no words is one word, itself
    assert len(words) == 8
    assert number_words([])[1].tolist() == []


# Letters of every kind, signs that part words in and beyond ASCII, operators, and what stands for several characters.
SIGNS = [
    *"abIJ019_ \n\t.,'\"+-=<%",
    *"éÀßøÿ",
    *"ªµ²½¡¿«»®©°€’“–…•\u00a0",
    *"×÷√±",
    *"İıſﬁŉо",
    *"日かก好",
    "\u0301",
    "\0",
    "🙂",
]


def as_defined(text: str) -> list[int]:
    """Words by the definition that heads the module, one text at a time."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    single = r"[+\-*/=<>%^±×÷\u2200-\u22ff]|[\u0e01\u3040-\u30ff\u4e00-\u9fff]"
    found = re.findall(rf"{single}|(?:(?!{single})\w)+", folded)
    words = found or [hashlib.sha256(text.encode()).hexdigest()]
    return [int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little") for word in words]


def test_words_are_those_of_the_definition_whichever_way_they_are_found() -> None:
    chance = random.Random(5)
    texts = ["".join(chance.choices(SIGNS[: chance.randrange(1, len(SIGNS) + 1)], k=12)) for _ in range(3000)]
    texts += ["", " ", "\u0301a", "a\u0301", "Straße’s “naïve” café"]
    words, lengths = number_words(texts)
    for text, own in zip(texts, np.split(words, np.cumsum(lengths)[:-1]), strict=True):
        assert own.tolist() == as_defined(text), ascii(text)
    assert as_defined("a\u0301b") != as_defined("ab")  # else the accents above would show nothing


def test_equal_runs_have_equal_numbers_wherever_they_stand() -> None:
    words = np.arange(40, dtype=np.uint32)
    for length in range(1, 20):
        found = runs(words, length)
        assert len(set(found.tolist())) == len(found) == 40 - length + 1
        moved = runs(np.concatenate([words[7:], words[:7]]), length)
        assert moved[: 33 - length + 1].tolist() == found[7:].tolist()
    assert len(runs(words, 41)) == 0


def test_similarity_is_that_of_the_sets_of_runs() -> None:
    chance = random.Random(1)
    vocabulary = [f"w{number}" for number in range(12)]
    first = [[chance.choice(vocabulary) for _ in range(chance.randrange(1, 30))] for _ in range(300)]
    second = [[chance.choice([word, word, word, "w0"]) for word in text] for text in first]

    def as_set(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))}

    def as_grams(texts: list[list[str]]) -> Ragged:
        words, lengths = number_words([" ".join(text) for text in texts])
        return grams(words, np.cumsum(lengths) - lengths, lengths, 3)

    expected = [len(as_set(a) & as_set(b)) / len(as_set(a) | as_set(b)) for a, b in zip(first, second, strict=True)]
    assert len(set(expected)) > 50  # else the case would show little
    assert similarities(as_grams(first), as_grams(second)).tolist() == pytest.approx(expected)


def test_bands_are_chosen_for_the_threshold() -> None:
    # 1 - (1 - 0.7^4)^32 = 0.99985 and, with bands of five, 1 - (1 - 0.7^5)^25 = 0.98995, worked out apart.
    assert Banding.choose(0.7, 128) == Banding(32, 4)
    assert Banding(32, 4).recall(0.7) == pytest.approx(0.99985, abs=1e-5)
    assert Banding(25, 5).recall(0.7) == pytest.approx(0.98995, abs=1e-5)
    assert Banding.choose(0.95, 128).rows > 4


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7])
def test_sets_agree_in_a_band_as_often_as_theory_says(similarity: float) -> None:
    generator = np.random.default_rng(0)
    banding, num_pairs, size = Banding(16, 4), 2000, 100
    shared = round(2 * size * similarity / (1 + similarity))
    values = generator.integers(0, 1 << 63, (num_pairs, 2 * size - shared), dtype=np.uint64)
    lengths = np.full(num_pairs, size)
    minhash = MinHash(banding, seed=0)
    first, second = (
        minhash.bands(minhash.minima(Ragged(np.ascontiguousarray(side).ravel(), lengths)))
        for side in (values[:, :size], values[:, size - shared :])
    )
    expected = banding.recall(shared / (2 * size - shared))
    deviation = (expected * (1 - expected) / num_pairs) ** 0.5
    assert abs((first == second).any(axis=1).mean() - expected) < 4 * deviation
    other = MinHash(banding, seed=1)
    apart = other.bands(other.minima(Ragged(np.ascontiguousarray(values[:, :size]).ravel(), lengths)))
    assert not (first == apart).any()


def test_pairs_of_equal_values_never_change_when_later_ones_come() -> None:
    values = np.array([5, 7, 5, 5, 7] + [9] * 100)

    def pairs(found: np.ndarray) -> set[tuple[int, int]]:
        return {(pair // len(found), pair % len(found)) for pair in bucket_pairs(found).tolist()}

    expected = {(2, 0), (3, 0), (3, 2), (4, 1)}
    assert {pair for pair in pairs(values) if pair[0] < 5} == expected
    few, many = pairs(values[:60]), pairs(values)
    assert {pair for pair in many if pair[0] < 60} == few
    assert max(sum(later == place for later, _ in many) for place in range(105)) == 32
    assert pairs(np.array([3, 3 + (1 << 31), 3], np.uint32)) == {(2, 0)}  # only the highest bit differs
    assert pairs(np.arange(9)) == set()


def test_groups_are_numbered_by_their_first_rows() -> None:
    keys = np.array([[9, 1], [3, 1], [9, 1], [9, 2], [3, 1]], np.uint64)
    groups = group_rows(keys, np.array([1, 2, 4, 5, 6]), 8)
    assert groups.of_row.tolist() == [-1, 0, 1, -1, 0, 2, 1, -1]
    assert groups.first.tolist() == [1, 2, 5]
