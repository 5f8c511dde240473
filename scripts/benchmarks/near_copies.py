"""Rows made of real text, among them copies with small changes of which every similarity is known."""

from __future__ import annotations

import json
import os
import random
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUM_FILES = 4  # so that readers that share files out have some for every worker
SHARE_COPIED = 0.12  # of rows that are a copy of an earlier one with a few words changed
SHARE_CHANGED = 0.4  # of words that are exchanged to make a new row of an old one: no run of five is likely to survive
MAX_EDITS = 0.05  # of a copy's words
NGRAM = 5
Copies = dict[str, tuple[str, float, float]]  # copy -> original, similarity of the less similar field and of the whole
_WORD = re.compile(r"\w+")
_CALCULATION = re.compile("<<[^<>]*>>")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Files of rows, and what is known about them."""

    files: list[Path]
    num_rows: int
    copies: Copies

    def pairs(self, threshold: float) -> list[tuple[str, str]]:
        """Return original and copy where prompt and completion are both at least this similar."""
        return [(original, copy) for copy, (original, lowest, _) in self.copies.items() if lowest >= threshold]

    def recall_and_precision(self, removed: set[str], threshold: float) -> tuple[float, float]:
        """Judge a deduplication by the rows that it removed.

        Returns:
            The share of pairs of which one row was removed, and the share of removed rows that are so similar to
            another one, in the whole text.
        """
        pairs = self.pairs(threshold)
        found = sum(original in removed or copy in removed for original, copy in pairs)
        similar = {row for copy, (original, _, whole) in self.copies.items() if whole >= threshold
                   for row in (original, copy)}  # fmt: skip
        return found / len(pairs), len(removed & similar) / len(removed) if removed else 1.0


def make_corpus(num_rows: int, seed: int = 0) -> Corpus:
    """Return a corpus of this size; it is made once and kept in the folder for temporary files."""
    folder = Path(tempfile.gettempdir()) / f"pipeline-near-copies-{num_rows}-{seed}"
    if not (folder / "copies.json").exists():
        folder.mkdir(exist_ok=True)
        copies: Copies = {}
        outputs = [(folder / f"rows-{number}.jsonl").open("w", encoding="utf-8") for number in range(NUM_FILES)]
        for number, row in enumerate(_rows(num_rows, random.Random(seed), copies)):
            outputs[number * NUM_FILES // num_rows].write(json.dumps(row, ensure_ascii=False) + "\n")
        for output in outputs:
            output.close()
        (folder / "copies.json").write_text(json.dumps(copies), encoding="utf-8")
    known: Copies = {copy: (*about,) for copy, about in json.loads((folder / "copies.json").read_text("utf-8")).items()}
    return Corpus(files=sorted(folder.glob("rows-*.jsonl")), num_rows=num_rows, copies=known)


def _rows(num_rows: int, chance: random.Random, copies: Copies) -> Iterator[dict[str, str]]:
    """Yield originals, each a real row with many words exchanged, and copies of earlier ones."""
    real = _real_rows()
    vocabulary = sorted({word for prompt, completion in real for word in f"{prompt} {completion}".split()})
    originals: list[dict[str, str]] = []
    for number in range(num_rows):
        if originals and chance.random() < SHARE_COPIED:
            original = originals[chance.randrange(len(originals))]
            row = {"id": f"r{number}", **{name: _edited(original[name], chance, vocabulary) for name in FIELDS}}
            lowest = min(jaccard(original[name], row[name]) for name in FIELDS)
            whole = jaccard("\n".join(original[n] for n in FIELDS), "\n".join(row[n] for n in FIELDS))
            copies[row["id"]] = (original["id"], lowest, whole)
        else:
            texts = real[chance.randrange(len(real))]
            row = {"id": f"r{number}"}
            row |= {name: _exchanged(text, chance, vocabulary) for name, text in zip(FIELDS, texts, strict=True)}
            if len(originals) < 200_000:
                originals.append(row)
        yield row


FIELDS = ("prompt", "completion")


def _exchanged(text: str, chance: random.Random, vocabulary: list[str]) -> str:
    words = text.split(" ")
    return " ".join(chance.choice(vocabulary) if chance.random() < SHARE_CHANGED else word for word in words)


def _edited(text: str, chance: random.Random, vocabulary: list[str]) -> str:
    """Return the text with a few words replaced, left out or put in."""
    words = text.split(" ")
    for _ in range(round(len(words) * chance.uniform(0, MAX_EDITS))):
        place = chance.randrange(len(words))
        kind = chance.randrange(3)
        words[place : place + (kind != 2)] = [] if kind == 1 and len(words) > 1 else [chance.choice(vocabulary)]
    return " ".join(words)


def jaccard(first: str, second: str) -> float:
    """Return the share of runs of five words that two texts have in common."""
    sets = []
    for text in (first, second):
        words = _WORD.findall(text.lower())
        sets.append({tuple(words[at : at + NGRAM]) for at in range(max(1, len(words) - NGRAM + 1))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def _real_rows() -> list[tuple[str, str]]:
    """Read prompts and completions of public data sets."""
    if not (folder := os.environ.get("PIPELINE_REAL_DATA")):
        raise SystemExit("Set PIPELINE_REAL_DATA to a folder of public data sets; the rows are made of their text.")
    root = Path(folder)
    rows: list[tuple[Any, Any]] = []
    for name, prompt, completion in (
        ("gsm8k/train.jsonl", "question", "answer"),
        ("llamafactory/alpaca_en_demo.json", "instruction", "output"),
        ("self-instruct/text-davinci-003_predictions.jsonl", "prompt", "response"),
        ("pandalm/testset-v1.json", "instruction", "response1"),
        ("data-juicer/stack_exchange.jsonl", "text", "text"),
    ):
        for entry in _entries(root / name):
            if completion == prompt:  # running text: the first third asks
                text = entry[prompt]
                rows.append((text[: len(text) // 3], text[len(text) // 3 :]))
            else:
                rows.append((entry[prompt], entry[completion]))
    return [  # some completions of PandaLM's are no text, and GSM8K's hold what a calculator said
        (prompt, _CALCULATION.sub("", completion))
        for prompt, completion in rows
        if isinstance(completion, str) and completion.strip() and len(prompt.split()) > 4
    ]


def _entries(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
