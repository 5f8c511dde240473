"""Items of a suite that stand in what a policy was trained on: which, how they were found, and the score without them.

The rules are those by which `curate` removes leaks (GPT-3's, arXiv:2005.14165, appendix C), on the user turns of an
item's prompt: it is a row's prompt, it shares a run of 13 words with a row that is not how many items are worded, or,
having 8 to 12 words, it stands in a row as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.config.evaluation import EvaluateConfig, SuiteConfig
from pipeline.data.curation.leaks import MAX_PROMPTS, MIN_WORDS
from pipeline.data.curation.words import grams, number_words
from pipeline.data.rows import Message, prompt_hash, prompt_key
from pipeline.evaluation.joining import PolicySamples, join
from pipeline.evaluation.measures import estimates, measure
from pipeline.evaluation.samples import Sample

NGRAM = 13
TRAINED_TABLES = ("demonstrations", "comparisons", "prompts", "unpaired")
BATCH_ROWS = 4096
EXACT, SHARED, WHOLE = "exact", "ngram", "whole"  # the rules, as `curate` names them


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedRow:
    """A row that may have been trained on."""

    id: str  # with its table
    prompt_hash: str
    texts: list[str]


@dataclass(kw_only=True)
class _Wanted:
    """What is looked for: runs of words of one length, and the items that have each."""

    rule: str
    owners: dict[int, list[str]] = field(default_factory=dict)


def train_rows(dataset: Path) -> Iterator[TrainedRow]:
    """Read the train rows of every table of a data set, batch by batch."""
    for table in TRAINED_TABLES:
        path = dataset / table / "train.parquet"
        if not path.is_file():
            continue
        for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS):
            for row in batch.to_pylist():
                sides = [row[name] for name in ("completion", "chosen", "rejected") if name in row]
                texts = [prompt_key(row["prompt"]), *(prompt_key(side) for side in sides)]
                yield TrainedRow(id=f"{table}/{row['id']}", prompt_hash=prompt_hash(row["prompt"]), texts=texts)


def find_contaminated(
    prompts: Mapping[str, Sequence[Message]], rows: Iterable[TrainedRow]
) -> dict[str, dict[str, str]]:
    """Look for items in rows.

    Args:
        prompts: The messages of each item, by its id.
        rows: What was trained on.

    Returns:
        Per contaminated item the rule and the id of the first row in which it was found.
    """
    hashes: dict[str, list[str]] = {}
    for name, messages in prompts.items():
        hashes.setdefault(prompt_hash(messages), []).append(name)
    wanted = _wanted(prompts)
    found: dict[str, dict[str, str]] = {}
    waiting: list[TrainedRow] = []
    for row in rows:
        for name in hashes.get(row.prompt_hash, ()):
            if found.get(name, {}).get("rule") != EXACT:  # it says more than a rule by which the item was found before
                found[name] = {"rule": EXACT, "row": row.id}
        waiting.append(row)
        if len(waiting) == BATCH_ROWS:
            _scan(waiting, wanted, found)
            waiting = []
    _scan(waiting, wanted, found)
    return dict(sorted(found.items()))


def contamination(
    samples: Sequence[PolicySamples],
    suites: Mapping[str, SuiteConfig],
    evaluate: EvaluateConfig,
    dataset: Path,
    against: str,
) -> list[dict[str, Any]]:
    """Return, per suite, its contaminated items, and the primary metric on the others beside all of them.

    Args:
        samples: What each policy made of each suite.
        suites: By name, in the order of the report.
        evaluate: The baseline and the confidence.
        dataset: Its folder.
        against: What the data set is called in the report.
    """
    prompts = {name: _prompts(samples, name) for name in suites}
    names = {(name, item): messages for name, items in prompts.items() for item, messages in items.items()}
    keys = {f"{number}": key for number, key in enumerate(names)}
    found = find_contaminated({number: names[key] for number, key in keys.items()}, train_rows(dataset))
    by_suite: dict[str, dict[str, dict[str, str]]] = {name: {} for name in suites}
    for number, how in found.items():
        suite, item = keys[number]
        by_suite[suite][item] = how
    return [
        {
            "suite": name,
            "against": against,
            "items": len(prompts[name]),
            "contaminated": len(hits),
            "ids": sorted(hits),
            "rules": dict(sorted(Counter(how["rule"] for how in hits.values()).items())),
            "found_in": {item: how["row"] for item, how in sorted(hits.items())},
            "clean": _clean(samples, suites[name], evaluate, set(hits)) if hits else None,
        }
        for name, hits in by_suite.items()
    ]


def _prompts(samples: Sequence[PolicySamples], suite: str) -> dict[str, Sequence[Message]]:
    """Return the prompts of a suite's items; every policy was given the same."""
    rows: Sequence[Sample] = next((entry.rows for entry in samples if entry.suite == suite), [])
    return {row.id: [Message(role=turn["role"], content=turn["content"]) for turn in row.prompt] for row in rows}


def _clean(
    samples: Sequence[PolicySamples], suite: SuiteConfig, evaluate: EvaluateConfig, hits: set[str]
) -> list[dict[str, Any]]:
    """Return the primary metric of every policy on the items that are not contaminated.

    Nothing where none of these has a result from every policy.
    """
    kept = [
        replace(entry, rows=[row for row in entry.rows if row.id not in hits])
        for entry in samples
        if entry.suite == suite.name
    ]
    if not set.intersection(*({row.id for row in entry.rows if row.unscored is None} for entry in kept)):
        return []
    (joined,) = join(kept, {suite.name: suite}, evaluate)
    return estimates(joined, measure(joined)[:1], evaluate.confidence)


def _wanted(prompts: Mapping[str, Sequence[Message]]) -> dict[int, _Wanted]:
    """Number the runs of words of the items, by their length: 13, and 8 to 12 of prompts that have no more."""
    names = list(prompts)
    asked = [prompt_key([turn for turn in prompts[name] if turn["role"] == "user"]) for name in names]
    words, lengths = number_words(asked)
    starts = np.cumsum(lengths) - lengths
    wanted: dict[int, _Wanted] = {}
    for size in range(MIN_WORDS, NGRAM + 1):
        chosen = np.flatnonzero(lengths == size) if size < NGRAM else np.flatnonzero(lengths >= NGRAM)
        if not len(chosen):
            continue
        runs = grams(words, starts[chosen], lengths[chosen], size)
        owners: dict[int, list[str]] = {}
        for value, place in zip(runs.values.tolist(), np.repeat(chosen, runs.lengths).tolist(), strict=True):
            own = owners.setdefault(value, [])
            if names[place] not in own:
                own.append(names[place])
        if size == NGRAM:  # what stands in many of the items is how they are all worded
            owners = {value: own for value, own in owners.items() if len(own) <= MAX_PROMPTS}
        wanted[size] = _Wanted(rule=WHOLE if size < NGRAM else SHARED, owners=owners)
    return wanted


def _scan(rows: Sequence[TrainedRow], wanted: Mapping[int, _Wanted], found: dict[str, dict[str, str]]) -> None:
    """Look through the texts of some rows for every run that is wanted."""
    texts = [(row.id, text) for row in rows for text in row.texts]
    if not texts or not wanted:
        return
    words, lengths = number_words([text for _, text in texts])
    starts = np.cumsum(lengths) - lengths
    for size, entry in wanted.items():
        long = np.flatnonzero(lengths >= size)
        if not len(long):
            continue
        runs = grams(words, starts[long], lengths[long], size)
        values = np.array(sorted(entry.owners), np.uint64)
        hits = np.flatnonzero(np.isin(runs.values, values))
        places = np.repeat(long, runs.lengths)[hits]
        for value, place in zip(runs.values[hits].tolist(), places.tolist(), strict=True):
            for name in entry.owners[value]:
                found.setdefault(name, {"rule": entry.rule, "row": texts[place][0]})
