"""Words of texts as numbers, runs of words, and how much of two texts is the same; all of it in arrays.

A word is a run of letters, digits and underscores, case folded. An operator sign is a word by itself, and so is a
character of a script that is written without spaces. All other signs part words and say nothing.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Words = npt.NDArray[np.uint32]  # one number per word
Grams = npt.NDArray[np.uint64]  # one number per run of words
Indices = npt.NDArray[np.int64]

OPERATORS = "+-*/=<>%^"  # `7 + 5` and `7 - 5` are two questions
_SINGLE = re.compile(  # Thai, Lao, Burmese, Khmer, Japanese, Chinese; operators beyond ASCII
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u00b1\u00d7\u00f7\u2200-\u22ff]"
)
_PARTING = re.compile(r"[^\w\x00-\x7f\u00b1\u00d7\u00f7\u2200-\u22ff]")  # beyond ASCII
# Of the signs that part words the commonest beyond ASCII. To replace them one by one is many times faster than what the
# rest needs, and most texts hold no other.
_TYPOGRAPHIC = (
    "\u2019\u2018\u201c\u201d\u2013\u2014\u2026\u2022\u00a0\u20ac\u00a3\u00b0\u00ab\u00bb\u00bf\u00a1\u00ae\u00a9"
)
_FOREIGN = re.compile("[^\x00-\x7f\xc0-\xd6\xd8-\xf6\xf8-\xff]")  # to ASCII and the accented letters of Western Europe
_IN_WORDS = {code for code in range(128) if chr(code).isalnum() or chr(code) in f"_{OPERATORS}"}
# Letters are small; ASCII signs that are not in words are spaces.
_KEPT = bytes(ord(chr(code).lower()) if code in _IN_WORDS or code == 0 else 32 for code in range(128)) + bytes(
    range(128, 256)
)
_END = " \0 "  # stands behind every text, and in none
MAX_KNOWN_WORDS = 1 << 19  # of a process; a vocabulary of this size takes about 60 MB
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, the golden ratio's bits
_MASK = (1 << 64) - 1
PAIR_BITS = np.uint64(24)  # of a key that holds a pair's number above a run of words


class _KnownWords(dict[str, int]):
    """The number of every word seen so far: the first four bytes of its BLAKE2b digest, the same in every process.

    A word is known with the space behind it.
    """

    def __missing__(self, word: str) -> int:
        if len(self) >= MAX_KNOWN_WORDS:
            self.clear()
        number = int.from_bytes(hashlib.blake2b(word[:-1].encode(), digest_size=4).digest(), "little")
        self[word] = number
        return number


_known = _KnownWords()


def number_words(texts: Sequence[str]) -> tuple[Words, Indices]:
    """Number the words of texts.

    Returns:
        All words one after the other, and how many each text has. A text without words is one word, itself.
    """
    if not texts:
        return np.zeros(0, np.uint32), np.zeros(0, np.int64)
    content = _END.join([*map(_spread, texts), ""]).encode().translate(_KEPT)
    for operator in OPERATORS:
        content = content.replace(operator.encode(), f" {operator} ".encode())
    # Arrow counts words several times faster than Python does, and is told where they are, with the space behind each.
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord(" ")) + 1
    offsets = pa.py_buffer(np.concatenate([[0], ends]))
    encoded = pa.LargeStringArray.from_buffers(len(ends), offsets, pa.py_buffer(content)).dictionary_encode()
    vocabulary = encoded.dictionary.to_pylist()
    numbers = np.fromiter(map(_known.__getitem__, vocabulary), np.uint32, len(vocabulary))
    places = np.from_dlpack(encoded.indices)  # not `to_numpy`, which imports pandas in every worker
    if " " in vocabulary:  # where two spaces stand together
        places = places[places != vocabulary.index(" ")]
    is_end = places == places[-1]
    lengths = np.diff(np.flatnonzero(is_end), prepend=-1) - 1
    words, blank = numbers[places[~is_end]], np.flatnonzero(lengths == 0)
    if len(blank):
        digests = [_known[f"{hashlib.sha256(texts[place].encode()).hexdigest()} "] for place in blank.tolist()]
        words = np.insert(words, np.cumsum(lengths)[blank], np.array(digests, np.uint32))
        lengths[blank] = 1
    return words, lengths


def _spread(text: str) -> str:
    """Return the text with spaces around what is a word by itself, save for operators; case folded beyond ASCII."""
    if not text.isascii():
        for sign in _TYPOGRAPHIC:
            text = text.replace(sign, " ")
    if text.isascii():
        return text.replace("\0", " ")
    if not _FOREIGN.search(text):  # nothing is to be composed or parted
        return text.casefold().replace("\0", " ")
    content = _PARTING.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    return _SINGLE.sub(r" \g<0> ", content).replace("\0", " ")


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread every input bit over all output bits (the finaliser of SplitMix64, doi:10.1145/2714064.2660195)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def runs(words: Words, length: int) -> Grams:
    """Number every run of ``length`` words: a polynomial in 64-bit arithmetic, mixed. Empty where there are fewer."""
    if len(words) < length:
        return np.zeros(0, np.uint64)
    result: Grams = np.zeros(len(words) + 1, np.uint64)  # of no words yet
    covered, width, power = 0, 1, int(_MULTIPLIER)
    doubled = mix(words.astype(np.uint64) + _MULTIPLIER)  # of `width` words
    while covered < length:  # a run of 13 words is one of 1, one of 4 and one of 8
        if length & width:
            rest = doubled[covered:]
            result = result[: len(rest)] * np.uint64(power) + rest
            covered += width
        doubled = doubled[:-width] * np.uint64(power) + doubled[width:]
        power = power * power & _MASK
        width *= 2
    return mix(result + np.uint64(length))


@dataclass(frozen=True, slots=True)
class Ragged:
    """Arrays of different lengths, one after the other."""

    values: npt.NDArray[Any]
    lengths: Indices

    @property
    def starts(self) -> Indices:
        """Where each array begins in ``values``."""
        return np.cumsum(self.lengths) - self.lengths


def positions(starts: Indices, lengths: Indices) -> Indices:
    """Return the indices of runs of consecutive places, one run after the other."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


def grams(words: Words, starts: Indices, lengths: Indices, size: int) -> Ragged:
    """Return the runs of ``size`` words in each text; of a shorter text the one run of all its words.

    Args:
        words: Of all texts.
        starts: Where each text begins.
        lengths: Number of words of each text, at least 1.
        size: Words in a run.
    """
    counts = np.maximum(lengths - size + 1, 1)
    padded = np.concatenate([words, np.zeros(size, np.uint32)])
    found = runs(padded, size)[positions(starts, counts)]
    places = np.cumsum(counts) - counts
    for length in np.unique(lengths[lengths < size]).tolist():
        short = np.flatnonzero(lengths == length)
        own = words[positions(starts[short], lengths[short])]
        found[places[short]] = runs(own, length)[::length]
    return Ragged(found, counts)


def similarities(first: Ragged, second: Ragged) -> npt.NDArray[np.float64]:
    """Return the Jaccard similarity of the sets of runs in each pair: shared ones over all."""
    num_pairs = len(first.lengths)
    sets = [_distinct(side) for side in (first, second)]
    shift = np.uint64(64) - PAIR_BITS
    sizes = [np.bincount((keys >> shift).astype(np.int64), minlength=num_pairs) for keys in sets]
    both = np.sort(np.concatenate(sets), kind="stable")  # merges the two in one go
    shared_keys = both[1:][both[1:] == both[:-1]]
    shared = np.bincount((shared_keys >> shift).astype(np.int64), minlength=num_pairs)
    similarity: npt.NDArray[np.float64] = shared / (sizes[0] + sizes[1] - shared)
    return similarity


def _distinct(side: Ragged) -> Grams:
    """Return distinct keys that hold the pair's number and 40 bits of a run."""
    if len(side.lengths) >= 1 << int(PAIR_BITS):
        raise ValueError(f"at most {1 << int(PAIR_BITS)} pairs are compared at a time")
    pairs = np.repeat(np.arange(len(side.lengths), dtype=np.uint64), side.lengths)
    # Pair by pair they are in order already, which only the stable sort makes use of.
    keys = np.sort((pairs << (np.uint64(64) - PAIR_BITS)) | (side.values >> PAIR_BITS), kind="stable")
    distinct: Grams = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    return distinct
