"""Sources written for one test, and what `curate_sources` makes of them."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.data import CurateConfig, DataConfig, SourceConfig, SourceSplit, TableName
from pipeline.data.accounts import SourceAccount
from pipeline.data.curation import Curated, Reporting, curate_sources
from pipeline.data.rows import Comparison, Demonstration, Prompt, Unpaired
from pipeline.data.tables import read_table

PROMPTS, DEMONSTRATIONS, COMPARISONS = TableName.prompts, TableName.demonstrations, TableName.comparisons
UNPAIRED = TableName.unpaired
SPLITS = ("train", "validation", "test")
HALVES = {"test_fraction": 0.5, "validation_fraction": 0.0}
TYPES: dict[TableName, Any] = {
    PROMPTS: Prompt, DEMONSTRATIONS: Demonstration, COMPARISONS: Comparison, UNPAIRED: Unpaired,
}  # fmt: skip


def pair(prompt: Any, completion: str = "So.", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, **more}


@dataclass(kw_only=True)
class Made:
    """A data set that was made, and what was told on the way."""

    curated: Curated
    folder: Path
    bad: list[dict[str, Any]]
    removed: list[dict[str, Any]]

    @property
    def accounts(self) -> list[SourceAccount]:
        return self.curated.accounts

    @property
    def counts(self) -> dict[str, Any]:
        return self.curated.counts

    def rows(self, table: TableName, split: str) -> list[Any]:
        """Read a split back; nothing where it has no rows."""
        if not (self.folder / table.value / f"{split}.parquet").exists():
            return []
        return read_table(self.folder, table.value, split, TYPES[table])

    def fates(self) -> dict[str, str]:
        """Why each removed row was removed, by its id."""
        return {entry["id"]: entry["why"] for entry in self.removed}


class Bench:
    """A folder of sources, and what was reported while they were read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bad: list[dict[str, Any]] = []
        self.accounts: list[SourceAccount] = []
        self._number = 0

    def source(self, name: str, rows: list[Any], table: TableName = DEMONSTRATIONS, **more: Any) -> SourceConfig:
        content = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        (self.folder / f"{name}.jsonl").write_text(content, encoding="utf-8")
        return SourceConfig(table=table, path=str(self.folder / f"{name}.jsonl"), **more)

    def curate(self, *sources: SourceConfig, labels: Path | None = None, **config: Any) -> Made:
        self._number += 1
        folder, work = self.folder / f"made-{self._number}", self.folder / f"work-{self._number}"
        removed: list[dict[str, Any]] = []
        reporting = Reporting(bad_row=self.bad.append, removed=removed.append, account=self.accounts.append)
        curated = curate_sources(
            DataConfig(name="desk", sources=list(sources)),
            CurateConfig(**{"max_quarantined_fraction": 1.0, **config}),
            reporting,
            staging=folder,
            work=work,
            labels=labels,
        )
        assert list(work.iterdir()) == []
        return Made(curated=curated, folder=folder, bad=self.bad, removed=removed)


def place(prompt: str, seed: int = 0) -> float:
    """The first 64 bits of the hash as a fraction, worked out apart from the code under test."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()[:8], "big") / 2**64


def text(number: int, size: int = 40) -> str:
    chance = random.Random(number)
    return " ".join(f"w{chance.randrange(10_000)}" for _ in range(size))


def changed(words: str, *places: int) -> str:
    """Exchange words: each takes five of the 36 runs of five in 40 words, and puts in five others."""
    found = words.split()
    for at in places:
        found[at] = f"x{at}"
    return " ".join(found)


def prompt_in(split: str, near: str = "") -> str:
    """Find a prompt that its hash puts into train or test; if asked, one with a first word of its own before a text."""
    for number in range(1000):
        prompt = f"{near} v{number}" if near else text(100_000 + number)
        if (place(prompt) < 0.5) == (split == "test"):
            return prompt
    raise AssertionError


def versus(prompt: str, chosen: str = "Yes.", rejected: str = "No.", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def everything(bench: Bench) -> list[SourceConfig]:
    """Sources with a row of every fate, spread over many pieces."""
    chance = random.Random(0)
    own: list[Any] = [pair(text(n), text(5000 + n), id=f"d{n}") for n in range(300)]
    own += [pair(changed(text(n), 7), changed(text(5000 + n), 30), id=f"near{n}") for n in range(0, 300, 9)]
    own += [pair(text(n), text(5000 + n), id=f"same{n}") for n in range(0, 300, 11)]
    own += [pair(text(700 + n), "So.", id=f"d{n}") for n in range(0, 300, 50)]  # ids that others have
    own += (
        [pair(f"Dear {{{{name}}}} {n}", "So.") for n in range(20)] + ["{bad"] * 5 + [pair(text(n)) for n in (901, 902)]
    )
    chance.shuffle(own)
    tests = [{"id": f"t{n}", "prompt": text(n)} for n in range(0, 300, 17)]
    pairs = [versus(text(n), text(6000 + n), text(7000 + n), id=f"c{n}") for n in range(0, 400, 3)]
    return [
        bench.source("d", own, weight=1.5, max_rows=100),
        bench.source("limited", [pair(text(2000 + n // 2), id=f"l{n}") for n in range(200)], limit=60),
        bench.source("t", tests, PROMPTS, split=SourceSplit.test),
        bench.source("c", pairs, COMPARISONS),
    ]


def digests(made: Made) -> dict[str, str]:
    files = sorted(path for path in made.folder.rglob("*") if path.is_file())
    return {path.relative_to(made.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def told(made: Made) -> str:
    return json.dumps([made.counts, made.curated.examples, made.removed, made.bad])
