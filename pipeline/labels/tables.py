"""Votes and items on disk: Parquet with a fixed schema, for whoever wants to walk a number back to its votes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifacts.artifact import Artifact
from pipeline.artifacts.hashing import canonical_json
from pipeline.data.tables import MESSAGES
from pipeline.labels.votes import Candidate, Item, Scale, Status, Vote

VOTES_FILE = "votes.parquet"
ITEMS_FILE = "items.parquet"

_CANDIDATE = pa.struct(
    [pa.field("id", pa.string(), False), pa.field("messages", MESSAGES, False), pa.field("model", pa.string())]
)
ITEM_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), False),
        pa.field("source", pa.string(), False),
        pa.field("licence", pa.string()),
        pa.field("prompt", MESSAGES, False),
        pa.field("candidates", pa.list_(_CANDIDATE), False),
        pa.field("topic", pa.string()),
        pa.field("protected", pa.bool_(), False),
    ]
)
VOTE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), False),
        pa.field("source", pa.string(), False),
        pa.field("item", pa.string(), False),
        pa.field("annotator", pa.string()),
        pa.field("question", pa.string(), False),
        pa.field("scale", pa.string(), False),
        pa.field("candidates", pa.list_(pa.string()), False),
        pa.field("ranks", pa.list_(pa.int64())),
        pa.field("ratings", pa.list_(pa.float64())),
        pa.field("strength", pa.float64()),
        pa.field("positions", pa.list_(pa.int64())),
        pa.field("created", pa.string()),
        pa.field("seconds", pa.float64()),
        pa.field("tool", pa.string(), False),
        pa.field("status", pa.string(), False),
        pa.field("gold", pa.bool_(), False),
        pa.field("note", pa.string()),
    ]
)


def write_items(folder: Path, items: Iterable[Item]) -> str:
    """Write ``items.parquet`` and return the digest of its rows."""
    rows = [{**dataclasses.asdict(item), "candidates": _listed(item)} for item in items]
    return _write(folder / ITEMS_FILE, rows, ITEM_SCHEMA)


def write_votes(folder: Path, votes: Iterable[Vote]) -> str:
    """Write ``votes.parquet``, one row per vote of whatever status, and return the digest of its rows."""
    rows = [{**dataclasses.asdict(vote), "scale": vote.scale.value, "status": vote.status.value} for vote in votes]
    return _write(folder / VOTES_FILE, rows, VOTE_SCHEMA)


def read_items(labels: Artifact) -> dict[str, Item]:
    """Read the items of a sealed `labels` artifact back, by id."""
    items = {}
    for row in pq.read_table(labels.file(ITEMS_FILE), partitioning=None).to_pylist():
        candidates = {entry["id"]: Candidate(**entry) for entry in row["candidates"]}
        items[row["id"]] = Item(**{**row, "candidates": candidates})
    return items


def read_votes(labels: Artifact) -> list[Vote]:
    """Read the votes of a sealed `labels` artifact back, in their order."""
    return [
        Vote(
            **{
                **row,
                **{key: _tuple(row[key]) for key in ("candidates", "ranks", "ratings", "positions")},
                "scale": Scale(row["scale"]),
                "status": Status(row["status"]),
            }
        )
        for row in pq.read_table(labels.file(VOTES_FILE), partitioning=None).to_pylist()
    ]


def _listed(item: Item) -> list[dict[str, Any]]:
    return [dataclasses.asdict(candidate) for candidate in item.candidates.values()]


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> str:
    """Write rows and return the hex sha256 over them as canonical JSON, one line each."""
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd", version="2.6")
    digest = hashlib.sha256()
    for row in rows:
        digest.update(canonical_json(row).encode())
        digest.update(b"\n")
    return digest.hexdigest()
