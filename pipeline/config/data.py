"""What is read: sources, their columns, and the evaluation suites that belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from omegaconf import MISSING

from pipeline.config.fields import option


class TableName(StrEnum):
    """What the rows of a source are."""

    demonstrations = "demonstrations"
    comparisons = "comparisons"
    prompts = "prompts"
    exports = "exports"  # annotation exports, read by `ingest`


class SourceFormat(StrEnum):
    """How a source file is written."""

    auto = "auto"  # by the file's ending
    jsonl = "jsonl"
    json = "json"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    hub = "hub"  # a data set of the Hugging Face hub, by id


class SourceSplit(StrEnum):
    """Whether the rows of a source may be trained on."""

    auto = "auto"  # by the hash of the prompt
    test = "test"  # protected: train and validation rows that match one are dropped


@dataclass(kw_only=True)
class SourceConfig:
    """One file or hub data set."""

    table: TableName = MISSING
    path: str = MISSING  # a file, relative to the working directory or to the project, or a hub id
    format: SourceFormat = SourceFormat.auto
    # Our field -> the file's column. Fields: id, messages, prompt, completion, system, reference, topic.
    columns: dict[str, str] = option(factory=dict)
    split: SourceSplit = SourceSplit.auto
    licence: str | None = None  # SPDX name; kept on every row
    limit: int | None = option(None, ge=1)  # keeps the first accepted rows in file order
    # The reference answer is what follows the last such marker in the completion (GSM8K: "####").
    reference_after: str | None = None
    subset: str | None = None  # hub only: configuration name
    hub_split: str = "train"  # hub only
    revision: str | None = None  # hub only


@dataclass(kw_only=True)
class DataConfig:
    """A named set of sources."""

    name: str = MISSING
    # For the one-file presets, whose sources interpolate both; by themselves they change nothing.
    path: str | None = option(None, affects_results=False)
    limit: int | None = option(None, ge=1, affects_results=False)
    sources: list[SourceConfig] = option(factory=list)
    suites: list[str] = option(factory=list, affects_results=False)  # what `evaluate.suites` is where it is not set


@dataclass(kw_only=True)
class CurateConfig:
    """How sources become a sealed data set."""

    seed: int = option(0, ge=0)  # of its own, so that sweeping `seed` does not split the data anew
    validation_fraction: float = option(0.1, ge=0, lt=1)  # of prompts, by hash
    test_fraction: float = option(0.1, ge=0, lt=1)  # of prompts, by hash
    # Bad rows are set aside with a reason; more than this share of a source stops the run.
    max_quarantined_fraction: float = option(0.02, ge=0, le=1, affects_results=False)
