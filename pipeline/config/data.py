"""What is read: sources, their columns, and the evaluation suites that belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.config.fields import MISSING, option


class TableName(StrEnum):
    """What the rows of a source are."""

    demonstrations = "demonstrations"
    comparisons = "comparisons"
    prompts = "prompts"
    unpaired = "unpaired"  # completions that are good or bad by themselves; `ingest` makes it of votes
    exports = "exports"  # annotation exports, read by `ingest`


class SourceFormat(StrEnum):
    """How a source file is written."""

    auto = "auto"  # by the file's ending
    jsonl = "jsonl"
    json = "json"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    xlsx = "xlsx"  # the only sheet with rows; needs the extra `xlsx`
    hub = "hub"  # a data set of the Hugging Face hub, by id


class SourceSplit(StrEnum):
    """Whether the rows of a source may be trained on."""

    auto = "auto"  # by the hash of the prompt
    test = "test"  # protected: train and validation rows that match one are dropped
    guard = "guard"  # protected as well, and in no table: rows that are evaluated on from elsewhere


@dataclass(kw_only=True)
class SourceConfig:
    """One file or hub data set."""

    table: TableName = MISSING
    # A file, relative to the working directory or to the project; also with .gz or .zst, or a .zip of such files. Or a
    # hub id.
    path: str = MISSING
    format: SourceFormat = SourceFormat.auto
    # Our field -> the file's column. Fields: id, messages, prompt, completion, system, reference, topic; of comparisons
    # id, messages, prompt, chosen, rejected, system, topic, margin, score_chosen, score_rejected.
    columns: dict[str, str] = option(factory=dict)
    split: SourceSplit = SourceSplit.auto
    licence: str | None = None  # SPDX name; kept on every row
    # Exports only: a registered importer, a file of `configs/table/`, or `auto`: what the file looks like.
    importer: str = "auto"
    labeling_config: str | None = None  # Label Studio only: its XML, which tells which side of a pair a name is
    # How often a train row counts: 2 puts it in twice, 0.25 keeps a quarter of the rows, chosen by hash.
    weight: float = option(1.0, gt=0, le=100)
    max_rows: int | None = option(None, ge=1)  # keeps that many train rows, chosen by hash and not by file order
    limit: int | None = option(None, ge=1)  # keeps the first accepted rows in file order
    # The reference answer is what follows the last such marker in the completion (GSM8K: "####").
    reference_after: str | None = None
    subset: str | None = None  # hub only: configuration name
    hub_split: str = "train"  # hub only
    revision: str | None = None  # hub only: commit, tag or branch; null is the newest one when it is first read


@dataclass(kw_only=True)
class DataConfig:
    """A named set of sources."""

    name: str = MISSING
    # For presets whose sources interpolate them; refused where none does, as they would change nothing.
    path: str | None = option(None, affects_results=False)
    limit: int | None = option(None, ge=1, affects_results=False)
    revision: str | None = option(None, affects_results=False)
    sources: list[SourceConfig] = option(factory=list)
    suites: list[str] = option(factory=list, affects_results=False)  # what `evaluate.suites` is where it is not set


@dataclass(kw_only=True)
class FilterConfig:
    """One rule that rows pass, are changed by, or are dropped by."""

    name: str = MISSING  # a registered filter
    params: dict[str, Any] = option(factory=dict)
    tables: list[TableName] = option(factory=list)  # empty is every table


def sound_text() -> list[FilterConfig]:
    """Return the filters that are safe for any data: what they drop is broken, or must not be learned."""
    return [FilterConfig(name=name) for name in ("secrets", "control_tokens", "identical_completions", "invisible")]


@dataclass(kw_only=True)
class NearDuplicatesConfig:
    """Rows that say nearly the same: found by MinHash, confirmed by the Jaccard similarity of their n-grams."""

    enabled: bool = True
    threshold: float = option(0.7, gt=0, le=1)  # Jaccard similarity from which two texts are one
    ngram: int = option(5, ge=1)  # words
    num_permutations: int = option(128, ge=16)  # of the MinHash; more finds more pairs near the threshold
    seed: int = option(0, ge=0)


@dataclass(kw_only=True)
class DecontaminationConfig:
    """Train and validation rows that hold an evaluation prompt are removed and listed."""

    enabled: bool = True
    ngram: int | None = option(13, ge=5)  # words that a row may not share with an evaluation prompt; null: hash only


class Engine(StrEnum):
    """What runs the parallel parts of `curate`."""

    local = "local"  # processes of this machine
    # Ray, which must be installed (extra `ray`): the cluster that RAY_ADDRESS names, else one on this machine. All of
    # its machines must see the sources and `runtime.outputs` under the same paths.
    ray = "ray"


@dataclass(kw_only=True)
class CurateConfig:
    """How sources become a sealed data set."""

    seed: int = option(0, ge=0)  # of its own, so that sweeping `seed` does not split the data anew
    validation_fraction: float = option(0.1, ge=0, lt=1)  # of prompts, by hash
    test_fraction: float = option(0.1, ge=0, lt=1)  # of prompts, by hash
    filters: list[FilterConfig] = option(factory=sound_text)  # in the order in which they are applied
    near_duplicates: NearDuplicatesConfig = option(factory=NearDuplicatesConfig)
    decontamination: DecontaminationConfig = option(factory=DecontaminationConfig)
    # Bad rows are set aside with a reason; more than this share of a source stops the run.
    max_quarantined_fraction: float = option(0.02, ge=0, le=1, affects_results=False)
    engine: Engine = option(Engine.local, affects_results=False)
    num_workers: int | None = option(None, ge=1, affects_results=False)  # processes; null is one per core
