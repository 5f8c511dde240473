"""Curation: ours, strict reading and filters included, against `datasets` with datasketch and against datatrove.

All read the same files, drop what is too short or too long, exact duplicates and near-duplicates, and write what is
left: runs of 5 words, 128 permutations, threshold 0.7, two workers. The peers judge prompt and completion as one text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.benchmark import Benchmark, Measurement
from benchmarks.memory import PeakMemory
from benchmarks.near_copies import NGRAM, Corpus, make_corpus

THRESHOLD, NUM_PERMUTATIONS, NUM_WORKERS = 0.7, 128, 2
MIN_CHARACTERS, MAX_CHARACTERS = 1, 20_000  # of a prompt and of a completion
PEERS = ("datasketch", "datatrove", "datatrove_spaces")  # the last parts words at white space: no language, but fast
AS_THEY_COME = ("datasketch", "datatrove")
# What every row of ours passes; the peers look at lengths alone.
FILTERS: dict[str, dict[str, Any]] = {
    "length": {},
    "repetition": {},
    "control_tokens": {},
    "placeholders": {},
    "refusals": {},
}
_WORD = re.compile(r"\w+")


def measure(variant: str, options: argparse.Namespace) -> Measurement:
    """Curate the corpus once."""
    corpus = make_corpus(options.rows)
    run = {
        "ours": _ours,
        "datasketch": _datasketch,
        "datatrove": partial(_datatrove, by_spaces=False),
        "datatrove_spaces": partial(_datatrove, by_spaces=True),
    }[variant]
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as memory:
        started, cpu_before = time.perf_counter(), _cpu_seconds()
        removed = run(corpus, Path(folder))
        seconds = time.perf_counter() - started
    recall, precision = corpus.recall_and_precision(removed, THRESHOLD)
    return Measurement(
        seconds=seconds,
        processed=corpus.num_rows,
        unit="rows",
        peak_bytes=memory.peak_bytes,
        notes={
            "recall": round(recall, 4),
            "precision": round(precision, 4),
            "removed": len(removed),
            "rows_per_cpu_second": round(corpus.num_rows / (_cpu_seconds() - cpu_before)),
        },
    )


def _cpu_seconds() -> float:
    """Return what this process and those that it waited for have computed: it tells more than a clock under load."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _ours(corpus: Corpus, folder: Path) -> set[str]:
    from pipeline.config.data import CurateConfig, DataConfig, FilterConfig, SourceConfig, TableName
    from pipeline.data.curation import Reporting, curate_sources

    removed: set[str] = set()

    def note(entry: dict[str, Any]) -> None:
        if entry["why"] in ("duplicate", "near_duplicate"):
            removed.add(entry["id"])

    sources = [SourceConfig(table=TableName.demonstrations, path=str(path)) for path in corpus.files]
    filters = [FilterConfig(name=name, params=params) for name, params in FILTERS.items()]
    config = CurateConfig(filters=filters, num_workers=NUM_WORKERS, validation_fraction=0.0, test_fraction=0.0)
    config.near_duplicates.threshold, config.near_duplicates.ngram = THRESHOLD, NGRAM
    config.near_duplicates.num_permutations = NUM_PERMUTATIONS
    reporting = Reporting(bad_row=lambda _: None, removed=note, account=lambda _: None)
    curate_sources(
        DataConfig(name="made", sources=sources), config, reporting, staging=folder / "data", work=folder / "work"
    )
    return removed


def _minhashes(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
    """Compute the signatures of a batch, as `datasets` calls it in each of its processes."""
    import datasketch

    found = []
    for prompt, completion in zip(batch["prompt"], batch["completion"], strict=True):
        minhash = datasketch.MinHash(num_perm=NUM_PERMUTATIONS)
        words = _WORD.findall(f"{prompt}\n{completion}".lower())
        runs = {" ".join(words[at : at + NGRAM]) for at in range(max(1, len(words) - NGRAM + 1))}
        minhash.update_batch([run.encode() for run in runs])
        found.append(minhash.hashvalues)
    texts = zip(batch["prompt"], batch["completion"], strict=True)
    return {"signature": found, "content": [_content(*pair) for pair in texts]}


def _content(prompt: str, completion: str) -> str:
    return hashlib.sha256(" ".join(f"{prompt}\n{completion}".split()).encode()).hexdigest()


def _has_length(row: dict[str, str]) -> bool:
    return all(MIN_CHARACTERS <= len(row[name]) <= MAX_CHARACTERS for name in ("prompt", "completion"))


def _datasketch(corpus: Corpus, folder: Path) -> set[str]:
    """Signatures by `datasets` in two processes, an index that is asked row by row, and what is left as Parquet."""
    import datasets
    import datasketch

    datasets.disable_progress_bars()
    files = [str(path) for path in corpus.files]
    rows = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(folder), num_proc=NUM_WORKERS)
    rows = rows.filter(_has_length, num_proc=NUM_WORKERS)
    rows = rows.map(_minhashes, batched=True, num_proc=NUM_WORKERS)
    index = datasketch.MinHashLSH(threshold=THRESHOLD, num_perm=NUM_PERMUTATIONS)
    scheme = datasketch.MinHash(num_perm=NUM_PERMUTATIONS).scheme
    removed: set[str] = set()
    kept: list[int] = []
    seen: set[str] = set()
    signatures = rows.with_format("numpy", columns=["id", "signature", "content"])
    number = 0
    for batch in signatures.iter(batch_size=1000):
        for name, signature, content in zip(batch["id"], batch["signature"], batch["content"], strict=True):
            minhash = datasketch.LeanMinHash(seed=1, hashvalues=signature.astype("uint64"), scheme=scheme)
            if content in seen or index.query(minhash):
                removed.add(str(name))
            else:
                seen.add(content)
                index.insert(str(name), minhash, check_duplication=False)
                kept.append(number)
            number += 1
    rows.select(kept).remove_columns(["signature", "content"]).to_parquet(folder / "kept.parquet")
    return removed


def _datatrove(corpus: Corpus, folder: Path, *, by_spaces: bool) -> set[str]:
    """The four steps of its MinHash, with its own English words (spaCy's) or with words parted at white space."""
    from benchmarks import datatrove_steps

    datatrove_steps.run(corpus.files[0].parent, folder, NUM_WORKERS, NUM_PERMUTATIONS, NGRAM, by_spaces=by_spaces)
    kept = {
        json.loads(line)["id"] for path in (folder / "kept").glob("*.jsonl") for line in path.open(encoding="utf-8")
    }
    names = {json.loads(line)["id"] for path in corpus.files for line in path.open(encoding="utf-8")}
    return names - kept


def summarise(results: dict[str, list[Measurement]]) -> dict[str, Any]:
    """Compare the medians with the faster peer's as it comes, and with the fastest setting of all."""
    found = {variant: repetitions for variant, repetitions in results.items() if repetitions}
    speed = {variant: median(one.per_second for one in repetitions) for variant, repetitions in found.items()}
    memory = {variant: median(one.peak_bytes for one in repetitions) for variant, repetitions in found.items()}
    first = {variant: repetitions[0] for variant, repetitions in found.items()}
    summary: dict[str, Any] = {
        "rows": {variant: one.processed for variant, one in first.items()},
        "rows_per_second": {variant: round(value) for variant, value in speed.items()},
        "peak_gb": {variant: round(value / 1e9, 2) for variant, value in memory.items()},
        "recall": {variant: one.notes["recall"] for variant, one in first.items()},
        "rows_per_cpu_second": {variant: one.notes["rows_per_cpu_second"] for variant, one in first.items()},
        "precision": {variant: one.notes["precision"] for variant, one in first.items()},
    }
    peers = [variant for variant in PEERS if variant in found]
    if "ours" in found and peers:
        best = max(peers, key=speed.__getitem__)
        summary |= {"best_peer": best, "best_ratio": speed["ours"] / speed[best]}
        if as_they_come := [variant for variant in AS_THEY_COME if variant in found]:
            faster = max(as_they_come, key=speed.__getitem__)
            summary |= {"ratio": speed["ours"] / speed[faster], "memory_ratio": memory["ours"] / memory[faster]}
    return summary


BENCHMARK = Benchmark(
    variants=("ours",),
    peers=PEERS,
    measure=measure,
    summarise=summarise,
    default_rows=100_000,
)
